//! A build with CUDA.
mod event;
mod graph;
mod launch;
mod memory;
mod module;
mod steps;

pub use event::Timer;
pub use graph::{Marker, graphs, time_in_turns, time_parts};
pub use launch::{Kernel, address, tensor_map};
pub use memory::memory;
pub use module::{Kernels, has_hopper_code, kernels_digest};

use crate::{Error, Result};
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::sys;
use candle_core::{Device, Error as CandleError};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Whether this build can use an NVIDIA GPU.
pub const COMPILED: bool = true;

/// The GPUs that were opened: whoever asks again gets the same stream.
static OPENED: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());

/// The GPU with this number, on a stream of its own, which is the same for all who ask.
///
/// # Errors
/// No driver, no such GPU, or one that the driver or the kernels do not serve.
pub fn device(ordinal: usize) -> Result<Device> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = opened.get(&ordinal) {
        return Ok(device.clone());
    }
    let device = open(ordinal)?;
    opened.insert(ordinal, device.clone());
    Ok(device)
}

fn open(ordinal: usize) -> Result<Device> {
    let refused = |why: String| {
        Error::Device(format!(
            "device cuda:{ordinal} cannot be used: {why}; `nvidia-smi` shows the GPUs and the driver, --device cpu goes without"
        ))
    };
    // a missing driver panics in the library that looks it up
    let opened = std::panic::catch_unwind(|| Device::new_cuda_with_stream(ordinal));
    let device =
        opened.map_err(|_| refused("no NVIDIA driver was found".to_owned()))?.map_err(|e| refused(first_line(&e)))?;
    let cuda = device.as_cuda_device()?;
    let card = compute_capability(cuda).map_err(|e| refused(first_line(&e)))?;
    if let Some(why) = super::refusal(card) {
        return Err(refused(why));
    }
    module::check_variable()?;
    // SAFETY: all work of this program on the device goes through this one stream, so nothing ever waits for another.
    unsafe { cuda.disable_event_tracking() };
    memory::keep(cuda)?;
    Ok(device)
}

/// What generation of card a GPU is.
fn compute_capability(device: &CudaDevice) -> candle_core::Result<(i32, i32)> {
    device.cuda_stream().context().compute_capability().map_err(wrap)
}

/// Streaming multiprocessors of a GPU.
///
/// # Errors
/// A device that is no NVIDIA GPU.
pub fn processors(device: &Device) -> Result<u32> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let count = stream.context().attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    Ok(count.map_err(wrap)?.unsigned_abs())
}

/// Bytes of dynamic shared memory that a block can have at most.
///
/// # Errors
/// A device that is no NVIDIA GPU.
pub fn shared_memory(device: &Device) -> Result<u32> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let most = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    Ok(stream.context().attribute(most).map_err(wrap)?.unsigned_abs())
}

/// Whether work on the device is being recorded, so that nothing can be waited for; never on a CPU.
///
/// # Errors
/// An earlier error of the device.
pub fn recording(device: &Device) -> candle_core::Result<bool> {
    let Device::Cuda(device) = device else { return Ok(false) };
    let status = device.cuda_stream().capture_status().map_err(wrap)?;
    Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
}

/// A GPU's name and the newest CUDA that its driver knows; `None` for a CPU.
pub fn card(device: &Device) -> Option<String> {
    let Device::Cuda(device) = device else { return None };
    let name = device.cuda_stream().context().name().ok()?;
    let mut version = 0;
    // SAFETY: the driver writes one number to where the pointer points.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().ok()?;
    Some(format!("{name}, driver for CUDA {}.{}", version / 1000, version % 1000 / 10))
}

/// A driver's error as Candle's.
fn wrap(e: impl std::error::Error + Send + Sync + 'static) -> CandleError {
    CandleError::wrap(e)
}

/// Candle's errors may carry a backtrace.
fn first_line(e: &CandleError) -> String {
    e.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The stream and context must be bound to the thread that uses them.
fn bind(device: &CudaDevice) -> candle_core::Result<()> {
    device.cuda_stream().context().bind_to_thread().map_err(wrap)
}
