//! A build without CUDA: asking for a GPU is an error that names the feature.
use super::{Grid, Memory, Params, TensorMap};
use crate::ops::graphs::Graphs;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

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

fn not_in_this_build<T>() -> candle_core::Result<T> {
    candle_core::bail!("this build has no CUDA: build with `--features cuda`")
}

/// The kernels of one file; there are none in this build.
pub struct Kernels(Infallible);

impl Kernels {
    /// Loads those of a file of `cuda-kernels/` onto a GPU.
    ///
    /// # Errors
    /// Always: this build has no CUDA.
    pub fn load(_: &Device, _file: &str) -> Result<Self> {
        Ok(not_in_this_build()?)
    }

    /// The kernel of this name.
    ///
    /// # Errors
    /// None: there is no value of this type.
    pub fn get(&self, _: &str, _: u32) -> Result<Kernel> {
        match self.0 {}
    }
}

/// A kernel; there is none in this build.
pub struct Kernel(Infallible);

impl Kernel {
    /// Launches it.
    ///
    /// # Safety
    /// There is no value of this type.
    ///
    /// # Errors
    /// None: there is no value of this type.
    pub unsafe fn launch<P: Params>(&self, _: Grid, _: P) -> candle_core::Result<()> {
        match self.0 {}
    }

    /// Blocks of `threads` that a processor holds at a time.
    ///
    /// # Errors
    /// None: there is no value of this type.
    pub fn resident_blocks(&self, _: u32, _: u32) -> Result<u32> {
        match self.0 {}
    }
}

/// Where a tensor's values lie.
///
/// # Errors
/// Always: this build has no CUDA.
pub fn address(_: &Tensor) -> candle_core::Result<u64> {
    not_in_this_build()
}

/// A map of boxes of a tensor.
///
/// # Errors
/// Always: this build has no CUDA.
pub fn tensor_map(
    _address: u64,
    _: DType,
    _dims: &[usize],
    _strides: &[usize],
    _boxes: &[usize],
) -> candle_core::Result<TensorMap> {
    not_in_this_build()
}

/// Streaming multiprocessors of a GPU.
///
/// # Errors
/// Always: this build has no CUDA.
pub fn processors(_: &Device) -> Result<u32> {
    Ok(not_in_this_build()?)
}

/// Bytes of dynamic shared memory that a block can have at most.
///
/// # Errors
/// Always: this build has no CUDA.
pub fn shared_memory(_: &Device) -> Result<u32> {
    Ok(not_in_this_build()?)
}

/// A GPU's name and the newest CUDA that its driver knows; `None` for a CPU.
pub fn card(_: &Device) -> Option<String> {
    None
}

/// Records work on a GPU.
///
/// # Errors
/// Always: this build has no CUDA.
pub fn graphs(_: &Device) -> Result<Arc<dyn Graphs>> {
    Ok(not_in_this_build()?)
}

/// Memory in use on a GPU; `None` for a CPU.
pub fn memory(_: &Device, _reset_peak: bool) -> Option<Memory> {
    None
}

/// Times work on a GPU.
pub struct Timer(Infallible);

impl Timer {
    /// Starts the clock; `None` for a CPU.
    ///
    /// # Errors
    /// None in this build.
    pub fn start(_: &Device) -> candle_core::Result<Option<Self>> {
        Ok(None)
    }

    /// Time on the GPU since the start, once all work is done.
    ///
    /// # Errors
    /// None: there is no value of this type.
    pub fn stop(self) -> candle_core::Result<Duration> {
        match self.0 {}
    }
}

/// Says where parts of recorded work begin and end.
#[derive(Clone)]
pub struct Marker(Infallible);

impl Marker {
    /// None in this build.
    ///
    /// # Errors
    /// None in this build.
    pub fn new(_: &Device) -> candle_core::Result<Option<Self>> {
        Ok(None)
    }

    /// One part ends, another begins.
    ///
    /// # Errors
    /// None: there is no value of this type.
    pub fn mark(&self) -> candle_core::Result<()> {
        match self.0 {}
    }
}

/// How long each part of recorded work takes.
///
/// # Errors
/// None: there is no marker in this build.
pub fn time_parts(marker: &Marker, _launches: usize, _work: &mut dyn FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    match marker.0 {}
}

/// Time that one of several turns of work takes.
///
/// # Errors
/// None in this build, which has no GPU to time.
pub fn time_in_turns(
    _: &Device,
    _turns: usize,
    _before: &dyn Fn() -> candle_core::Result<()>,
    _work: &dyn Fn(usize) -> candle_core::Result<()>,
) -> candle_core::Result<Option<Duration>> {
    Ok(None)
}

/// Whether work on the device is being recorded.
///
/// # Errors
/// None in this build, which records nothing.
pub fn recording(_: &Device) -> candle_core::Result<bool> {
    Ok(false)
}

/// Whether kernels for compute capability 9.0 alone can run.
///
/// # Errors
/// Always: this build has no CUDA.
pub fn has_hopper_code(_: &Device) -> Result<bool> {
    Ok(not_in_this_build()?)
}

/// A digest of the kernels in this build, which has none.
pub fn kernels_digest() -> String {
    String::new()
}
