//! The ladder: a folder per rung, each replacing the op slots that it accelerates.
//!
//! Beside `src/cuda/mod.rs`, this is the only file that names a Cargo feature. To add a rung: a folder with `mod.rs`
//! (an `install` function) and `README.md` (claim, method, result), a line below and a line in [`LADDER`].
use crate::ops::{Ops, WeightsType};
use crate::{Error, Result};
use candle_core::Device;
use std::fmt;
use std::str::FromStr;

#[cfg(feature = "custom-ptx")]
mod custom_ptx;
#[cfg(feature = "flash-attn")]
pub mod flash_attn;
#[cfg(feature = "fp16")]
mod fp16;
#[cfg(feature = "fused-ops")]
pub mod fused_ops;
#[cfg(any(feature = "fused-ops", feature = "custom-ptx"))]
pub mod memory_bound;
#[cfg(any(feature = "flash-attn", feature = "fused-ops"))]
pub mod simd;
#[cfg(any(feature = "fp16", feature = "fused-ops", feature = "custom-ptx"))]
pub mod tensor_cores;

/// One rung of the ladder.
pub struct Stage {
    /// Its name, the same as its Cargo feature.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Whether nothing but an NVIDIA GPU can run it.
    pub nvidia_only: bool,
    /// Replaces the slots that it accelerates, or refuses and says why. `None` where the build left the stage out.
    pub install: Option<fn(Ops) -> Result<Ops>>,
}

impl Stage {
    /// Replaces the slots that it accelerates.
    fn fill(&self, ops: Ops) -> Result<Ops> {
        let name = self.name;
        if self.nvidia_only && !ops.device.is_cuda() {
            let build = match self.install {
                Some(_) => String::new(),
                None => format!(" and a build with `--features {name}`"),
            };
            return Err(Error::Stage(format!(
                "stage {name} needs an NVIDIA GPU{build}, and this device is a CPU: leave it out of --stages"
            )));
        }
        let install = self.install.ok_or_else(|| {
            Error::Stage(format!("stage {name} is not in this build: build with `--features {name}`"))
        })?;
        install(ops)
    }
}

macro_rules! rung {
    ($feature:literal, $module:ident, $about:literal) => {
        Stage {
            name: $feature,
            about: $about,
            nvidia_only: false,
            #[cfg(feature = $feature)]
            install: Some($module::install),
            #[cfg(not(feature = $feature))]
            install: None,
        }
    };
}

/// Lowest rung first; each is installed over those before it.
pub const LADDER: &[Stage] = &[
    rung!("fp16", fp16, "half-precision weights and activations, sums in f32"),
    rung!("flash-attn", flash_attn, "tiled attention with an online softmax, no tokens x tokens matrix"),
    rung!("fused-ops", fused_ops, "channels-last, folded norms, bias + activation + residual in the convolution"),
    Stage { nvidia_only: true, ..rung!("custom-ptx", custom_ptx, "hand-written PTX kernels for NVIDIA GPUs") },
];

/// The stage that can store weights in eight bits.
const FP8_STAGE: &str = "custom-ptx";

/// A set of stages, always in the ladder's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageSet(Vec<&'static str>);

impl StageSet {
    /// No stage: plain Candle in f32.
    pub fn none() -> Self {
        Self::default()
    }

    /// The stages with these names, in the ladder's order; other names are passed over.
    pub fn of(names: &[&str]) -> Self {
        Self(LADDER.iter().map(|s| s.name).filter(|s| names.contains(s)).collect())
    }

    /// Every stage of this build that can run on `device`, over those below it.
    pub fn all(device: &Device) -> Self {
        Self::tried(device).0
    }

    /// The same, and the stages of this build that refuse `device`, each with its reason.
    pub fn tried(device: &Device) -> (Self, Vec<(&'static str, Error)>) {
        let (mut ops, mut names, mut refused) = (Ops::reference(device), vec![], vec![]);
        for stage in LADDER.iter().filter(|stage| stage.install.is_some()) {
            match stage.fill(ops.clone()) {
                Ok(with) => {
                    ops = with;
                    names.push(stage.name);
                }
                Err(why) => refused.push((stage.name, why)),
            }
        }
        (Self(names), refused)
    }

    /// The names, lowest rung first.
    pub fn names(&self) -> &[&'static str] {
        &self.0
    }

    /// The set without one of its stages.
    pub fn without(&self, name: &str) -> Self {
        Self(self.0.iter().copied().filter(|n| *n != name).collect())
    }

    /// The prefixes of this set, from `none` to the whole: the rungs of a ladder.
    pub fn prefixes(&self) -> Vec<Self> {
        (0..=self.0.len()).map(|n| Self(self.0[..n].to_vec())).collect()
    }

    /// Fills the slots: the reference, then each stage over it.
    ///
    /// # Errors
    /// A stage that is not in this build names the Cargo feature; one that cannot run on `device` says why.
    pub fn install(&self, device: &Device) -> Result<Ops> {
        self.install_over(Ops::reference(device))
    }

    /// Whether a stage of the set can store weights in eight bits.
    pub fn has_fp8(&self) -> bool {
        self.0.contains(&FP8_STAGE)
    }

    /// Fills the slots over `ops`, which may ask for another half-precision type than f16, and for weights in eight bits.
    ///
    /// # Errors
    /// As for [`install`](Self::install), and weights in eight bits where no stage of the set can store them.
    pub fn install_over(&self, mut ops: Ops) -> Result<Ops> {
        if ops.weights != WeightsType::Storage && !self.has_fp8() {
            return Err(Error::Stage(format!(
                "--weights-dtype fp8: only {FP8_STAGE} stores weights in eight bits, on an NVIDIA H100 or H200, and the stages are {self}: \
                 add {FP8_STAGE} to --stages, or leave --weights-dtype out"
            )));
        }
        for stage in LADDER.iter().filter(|s| self.0.contains(&s.name)) {
            ops = stage.fill(ops)?;
        }
        Ok(ops)
    }
}

/// What `--stages` takes, before it is known which of them can run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageSpec {
    /// `all`: every stage of the build that the device can run.
    All,
    /// `none`, or the stages by name.
    Named(StageSet),
}

impl StageSpec {
    /// The stages that are meant on `device`.
    pub fn resolve(&self, device: &Device) -> StageSet {
        match self {
            Self::All => StageSet::all(device),
            Self::Named(set) => set.clone(),
        }
    }
}

impl FromStr for StageSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => return Ok(Self::All),
            "none" => return Ok(Self::Named(StageSet::none())),
            _ => (),
        }
        let wanted: Vec<&str> = text.split(',').map(str::trim).collect();
        for name in &wanted {
            if !LADDER.iter().any(|s| s.name == *name) {
                let near = LADDER.iter().map(|s| s.name).find(|s| strsim::jaro_winkler(s, name) > 0.75);
                let near = near.map_or(".".to_owned(), |n| format!("; did you mean {n}?"));
                let known: Vec<&str> = LADDER.iter().map(|s| s.name).collect();
                return Err(Error::Stage(format!(
                    "no stage {name:?}{near} The stages are none, all, or a list of {}",
                    known.join(",")
                )));
            }
        }
        Ok(Self::Named(StageSet::of(&wanted)))
    }
}

impl fmt::Display for StageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(",")) }
    }
}

impl fmt::Display for StageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Named(set) => set.fmt(f),
        }
    }
}

/// `+fp16 -custom-ptx …`, for `--version` and results.
pub fn compiled() -> String {
    let sign = |s: &Stage| format!("{}{}", if s.install.is_some() { '+' } else { '-' }, s.name);
    LADDER.iter().map(sign).collect::<Vec<_>>().join(" ")
}
