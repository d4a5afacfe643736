//! A build with CUDA.
use crate::{Error, Result};
use candle_core::Device;

/// Whether this build can use an NVIDIA GPU.
pub const COMPILED: bool = true;

/// The GPU with this number, on a stream of its own.
///
/// # Errors
/// No driver, no such GPU, or one that the driver does not serve.
pub fn device(ordinal: usize) -> Result<Device> {
    Device::new_cuda_with_stream(ordinal).map_err(|e| {
        Error::Device(format!(
            "device cuda:{ordinal} cannot be used: {e}; `nvidia-smi` shows the GPUs and the driver, --device cpu goes without"
        ))
    })
}
