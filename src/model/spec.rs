//! Names of networks: the presets, and `reference:CHANNELS` for any size of the reference network.
use super::{Parameter, Reference, Weights};
use crate::ops::Ops;
use crate::{Error, Result};
use candle_core::Device;
use std::fmt;
use std::str::FromStr;

/// A network with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What `--model` takes.
    pub name: &'static str,
    /// Base channels of the reference network.
    pub base: usize,
    /// What it is for, in a line.
    pub about: &'static str,
}

/// Every network with a name, smallest first.
pub const PRESETS: &[Preset] = &[
    Preset { name: "reference-tiny", base: 16, about: "the reference network, small enough for tests" },
    Preset {
        name: "reference-medium",
        base: 128,
        about: "the reference network at the size that CPUs are compared on",
    },
    Preset { name: "reference-880m", base: 192, about: "the reference network that the roadmap counts" },
];

/// Which network, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// Base channels of the reference network.
    pub base: usize,
}

impl ModelSpec {
    /// What the network asks for, in the order of loading.
    ///
    /// # Errors
    /// A size that the network cannot have.
    pub fn parameters(&self) -> Result<Vec<Parameter>> {
        let weights = Weights::shapes();
        Reference::load(&Ops::reference(&Device::Cpu), &weights.root(), self.base)?;
        Ok(weights.asked())
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
    pub fn load(&self, ops: &Ops, weights: &Weights) -> Result<Reference> {
        weights.check(&self.parameters()?)?;
        Reference::load(ops, &weights.root(), self.base)
    }
}

impl FromStr for ModelSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(preset) = PRESETS.iter().find(|p| p.name == text) {
            return Ok(Self { base: preset.base });
        }
        if let Some(base) = text.strip_prefix("reference:") {
            let base = base.parse().map_err(|_| {
                Error::Model(format!(
                    "{text:?}: after `reference:` comes the number of base channels, as in reference:64"
                ))
            })?;
            let spec = Self { base };
            super::reference::check_base(base)?;
            return Ok(spec);
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
        match PRESETS.iter().find(|p| p.base == self.base) {
            Some(preset) => f.write_str(preset.name),
            None => write!(f, "reference:{}", self.base),
        }
    }
}
