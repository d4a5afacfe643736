//! Time on the GPU's own clock.
use super::wrap;
use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream};
use std::sync::Arc;
use std::time::Duration;

/// Times work on a GPU between two events of its stream.
pub struct Timer {
    start: CudaEvent,
    stream: Arc<CudaStream>,
}

impl Timer {
    /// Starts the clock; `None` for a CPU.
    ///
    /// # Errors
    /// An earlier error of the device.
    pub fn start(device: &Device) -> candle_core::Result<Option<Self>> {
        let Device::Cuda(device) = device else { return Ok(None) };
        let stream = device.cuda_stream();
        let start = stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(wrap)?;
        Ok(Some(Self { start, stream }))
    }

    /// Time on the GPU since the start, once all work is done.
    ///
    /// # Errors
    /// Whatever went wrong on the device.
    pub fn stop(self) -> candle_core::Result<Duration> {
        let end = self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(wrap)?;
        self.stream.synchronize().map_err(wrap)?;
        let milliseconds = self.start.elapsed_ms(&end).map_err(wrap)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds) / 1e3))
    }
}
