//! Options that several commands share: which network, on which device, through which stages.
use crate::model::{FrameNetwork, Live, ModelSpec, Weights};
use crate::ops::{Ops, WeightsType};
use crate::stages::{StageSet, StageSpec};
use crate::{Error, Result};
use candle_core::{DType, Device};
use clap::Args;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Which network to run, and on what.
#[derive(Args, Clone, Debug)]
pub struct ModelOptions {
    /// The network: a name that `mirage models` lists, or reference:CHANNELS.
    #[arg(long, default_value = "mirage-live", value_name = "NAME")]
    pub model: ModelSpec,
    /// A safetensors file (f32, f16 or bf16), `trained` for the weights in the box, or `formula` for reproducible
    /// random ones, which draw no real video. By default `trained` for mirage-live, else `formula`.
    #[arg(long, value_name = "FILE")]
    weights: Option<WeightsOption>,
    /// Where to run: cpu, cuda or cuda:NUMBER.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: DeviceSpec,
}

impl ModelOptions {
    /// Loads the network for the stages in `ops`.
    ///
    /// # Errors
    /// Weights that cannot be read or do not fit.
    pub fn load(&self, ops: &Ops) -> Result<Arc<dyn FrameNetwork>> {
        self.model.load(ops, &self.weights().open(&ops.device)?)
    }

    /// Where the weights come from.
    pub fn weights(&self) -> WeightsOption {
        self.weights.clone().unwrap_or(match self.model {
            ModelSpec::Live => WeightsOption::Trained,
            ModelSpec::Reference { .. } => WeightsOption::Formula,
        })
    }
}

/// Where weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightsOption {
    /// The live model's own, in the box.
    Trained,
    /// By the reference network's formula.
    Formula,
    /// From a safetensors file.
    File(PathBuf),
}

impl WeightsOption {
    /// Opens the source.
    ///
    /// # Errors
    /// A file that cannot be read or is not well formed.
    pub fn open(&self, device: &Device) -> Result<Weights> {
        match self {
            Self::Trained => Live::trained(device),
            Self::Formula => Ok(Weights::formula(device)),
            Self::File(path) => Weights::file(path, device),
        }
    }
}

impl FromStr for WeightsOption {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "trained" => Self::Trained,
            "formula" => Self::Formula,
            file => Self::File(file.into()),
        })
    }
}

impl std::fmt::Display for WeightsOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trained => f.write_str("trained"),
            Self::Formula => f.write_str("formula"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// What `--device` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The processor.
    Cpu,
    /// The NVIDIA GPU with this number.
    Cuda(usize),
}

impl DeviceSpec {
    /// Opens the device.
    ///
    /// # Errors
    /// A GPU that is not there, or a build without CUDA.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(ordinal) => crate::cuda::device(ordinal),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::Device(format!("no device {text:?}: choose cpu, cuda or cuda:NUMBER"));
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

/// Which stages to run through.
#[derive(Args, Clone, Debug)]
pub struct StageOptions {
    /// The stages: none, all (that this build and device can run), or a list of fp16,flash-attn,fused-ops,custom-ptx.
    #[arg(long, default_value = "all", value_name = "LIST")]
    pub stages: StageSpec,
    /// The half-precision type that fp16 stores: f16, or on a GPU bf16, which holds the range of f32 with 8 bits of precision.
    #[arg(long, default_value = "f16", value_name = "TYPE")]
    pub dtype: HalfType,
    /// How custom-ptx stores the weights of layers that have 4 million or more: storage, as everything else is, or fp8, in eight bits
    /// (e4m3) with a scale for each output.
    #[arg(long, default_value = "storage", value_name = "TYPE")]
    pub weights_dtype: WeightsType,
}

/// What `--dtype` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfType(pub DType);

impl FromStr for HalfType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f16" => Ok(Self(DType::F16)),
            "bf16" => Ok(Self(DType::BF16)),
            _ => Err(Error::Stage(format!(
                "no half-precision type {text:?}: choose f16 or bf16, or leave fp16 out of --stages for f32"
            ))),
        }
    }
}

impl std::fmt::Display for HalfType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl HalfType {
    /// Plain Candle on `device`, asking the stages to come for this type, and for weights stored so.
    pub fn reference(self, weights: WeightsType, device: &Device) -> Ops {
        Ops { half: self.0, weights, ..Ops::reference(device) }
    }
}

impl StageOptions {
    /// The same with weights of layers of any size stored as is asked for: for cases and networks that have few large layers or none.
    pub fn of_any_size(&self) -> Self {
        Self { weights_dtype: self.weights_dtype.of_any_size(), ..self.clone() }
    }

    /// Fills the op slots for a device, and says which stages those are.
    ///
    /// # Errors
    /// A stage that is not in this build or cannot run on the device.
    pub fn install(&self, device: &Device) -> Result<(StageSet, Ops)> {
        let set = match &self.stages {
            StageSpec::All => {
                let (set, refused) = StageSet::tried(device);
                // that a CPU has no PTX goes without saying
                for (name, why) in refused.iter().filter(|_| !device.is_cpu()) {
                    eprintln!("note: stage {name} is left out: {why}");
                }
                set
            }
            StageSpec::Named(set) => set.clone(),
        };
        let ops = set.install_over(self.dtype.reference(self.weights_dtype, device))?;
        Ok((set, ops))
    }

    /// Fills the op slots through a part of the stages; weights are as everything else where those are missing that store them otherwise.
    ///
    /// # Errors
    /// As for [`install`](Self::install).
    pub fn install_part(&self, set: &StageSet, device: &Device) -> Result<Ops> {
        set.install_over(self.dtype.reference(self.weights_of(set), device))
    }

    /// How these stages store weights.
    pub fn weights_of(&self, set: &StageSet) -> WeightsType {
        if set.has_fp8() { self.weights_dtype } else { WeightsType::Storage }
    }
}

/// A width and a height, as `WIDTHxHEIGHT` or one number for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// The longest side that is taken anywhere.
const LONGEST_SIDE: u32 = 8192;

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (width, height) = text.split_once('x').unwrap_or((text, text));
        let side = |s: &str| s.parse().ok().filter(|n| (1..=LONGEST_SIDE).contains(n));
        match (side(width), side(height)) {
            (Some(width), Some(height)) => Ok(Self { width, height }),
            _ => Err(Error::Model(format!(
                "size {text:?} is not WIDTHxHEIGHT with sides from 1 to {LONGEST_SIDE}, as in 512x288"
            ))),
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl std::fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}
