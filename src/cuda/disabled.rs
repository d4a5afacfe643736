//! A build without CUDA: asking for a GPU is an error that names the feature.
use crate::{Error, Result};
use candle_core::Device;

/// Whether this build can use an NVIDIA GPU.
pub const COMPILED: bool = false;

/// The GPU with this number.
///
/// # Errors
/// Always: this build has no CUDA.
pub fn device(ordinal: usize) -> Result<Device> {
    Err(Error::Device(format!(
        "device cuda:{ordinal} is not in this build: build with `--features cuda`, which needs a CUDA toolkit, or choose --device cpu"
    )))
}
