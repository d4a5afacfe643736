//! Names of networks: the presets, and `reference:CHANNELS` for any size of the reference network.
use super::{FrameNetwork, Live, Parameter, Reference, Weights};
use crate::ops::Ops;
use crate::{Error, Result};
use candle_core::Device;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A network with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What `--model` takes.
    pub name: &'static str,
    /// Which network it is.
    pub spec: ModelSpec,
    /// What it is for, in a line.
    pub about: &'static str,
}

/// Every network with a name, smallest first.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "mirage-live",
        spec: ModelSpec::Live,
        about: "redraws live video in a style that --style names; trained",
    },
    Preset {
        name: "reference-tiny",
        spec: ModelSpec::Reference { base: 16 },
        about: "the reference network, small enough for tests",
    },
    Preset {
        name: "reference-medium",
        spec: ModelSpec::Reference { base: 128 },
        about: "the reference network at the size that CPUs are compared on",
    },
    Preset {
        name: "reference-880m",
        spec: ModelSpec::Reference { base: 192 },
        about: "the reference network that the roadmap counts",
    },
];

/// Which network, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelSpec {
    /// The network that restyles live video.
    Live,
    /// The reference network.
    Reference {
        /// Base channels.
        base: usize,
    },
}

impl ModelSpec {
    /// What the network asks for, in the order of loading, where `weights` may say its sizes.
    fn asks(&self, weights: &Weights) -> Result<Vec<Parameter>> {
        let shapes = Weights::shapes_as_told_by(weights);
        let ops = Ops::reference(&Device::Cpu);
        match self {
            Self::Live => drop(Live::load(&ops, &shapes)?),
            Self::Reference { base } => drop(Reference::load(&ops, &shapes.root(), *base)?),
        }
        Ok(shapes.asked())
    }

    /// What the network asks for, in the order of loading.
    ///
    /// # Errors
    /// A size that the network cannot have.
    pub fn parameters(&self) -> Result<Vec<Parameter>> {
        self.asks(&Weights::shapes())
    }

    /// Learned parameters, as PyTorch counts them.
    ///
    /// # Errors
    /// A size that the network cannot have.
    pub fn parameter_count(&self) -> Result<usize> {
        Ok(self.parameters()?.iter().filter(|p| p.is_learned()).map(Parameter::count).sum())
    }

    /// Loads the network for the stages in `ops`, after comparing the weights with what it will ask for.
    ///
    /// # Errors
    /// Weights that do not fit, each misfit named.
    pub fn load(&self, ops: &Ops, weights: &Weights) -> Result<Arc<dyn FrameNetwork>> {
        // a file may say any size of itself: nothing is made so large before the file is known to hold as much
        weights.check(&self.asks(weights)?)?;
        Ok(match self {
            Self::Live => Arc::new(Live::load(ops, weights)?),
            Self::Reference { base } => Arc::new(Reference::load(ops, &weights.root(), *base)?),
        })
    }
}

impl FromStr for ModelSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(preset) = PRESETS.iter().find(|p| p.name == text) {
            return Ok(preset.spec);
        }
        if let Some(base) = text.strip_prefix("reference:") {
            let base = base.parse().map_err(|_| {
                Error::Model(format!(
                    "{text:?}: after `reference:` comes the number of base channels, as in reference:64"
                ))
            })?;
            super::reference::check_base(base)?;
            return Ok(Self::Reference { base });
        }
        let known: Vec<&str> = PRESETS.iter().map(|p| p.name).collect();
        let near = known.iter().max_by(|a, b| strsim::jaro_winkler(a, text).total_cmp(&strsim::jaro_winkler(b, text)));
        let near = near.map_or(".".to_owned(), |n| format!("; did you mean {n}?"));
        Err(Error::Model(format!(
            "no model {text:?}{near} The models are {}, and reference:CHANNELS",
            known.join(", ")
        )))
    }
}

impl fmt::Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (PRESETS.iter().find(|p| p.spec == *self), self) {
            (Some(preset), _) => f.write_str(preset.name),
            (None, Self::Reference { base }) => write!(f, "reference:{base}"),
            (None, Self::Live) => f.write_str("mirage-live"),
        }
    }
}
