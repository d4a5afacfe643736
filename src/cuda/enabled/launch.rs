//! Launching a kernel, and where tensors lie.
use super::super::{Grid, Params};
use super::wrap;
use crate::Result;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaStream, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::{CudaStorage, DType, Storage, Tensor};
use std::sync::Arc;

/// A kernel on the stream that all work of its device goes through.
pub struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

/// A kernel's one argument.
#[repr(transparent)]
struct Argument<P>(P);

// SAFETY: `Params` promises a plain structure laid out as the kernel's.
unsafe impl<P: Params> DeviceRepr for Argument<P> {}

impl Kernel {
    pub(super) fn new(function: CudaFunction, stream: Arc<CudaStream>) -> Self {
        Self { function, stream }
    }

    /// Launches it.
    ///
    /// # Safety
    /// `params` is of the type that the kernel takes, and each address in it stays valid until the work queued so far is done:
    /// tensors of this device do, even when they are dropped at once, since their memory returns to the pool in stream order.
    ///
    /// # Errors
    /// A grid that the card cannot launch, or an earlier error of the device.
    pub unsafe fn launch<P: Params>(&self, grid: Grid, params: P) -> candle_core::Result<()> {
        let [x, y, z] = grid.blocks;
        let config =
            LaunchConfig { grid_dim: (x, y, z), block_dim: (grid.threads, 1, 1), shared_mem_bytes: grid.shared };
        let argument = Argument(params);
        let mut launch = self.stream.launch_builder(&self.function);
        launch.arg(&argument);
        // SAFETY: the caller's promise.
        unsafe { launch.launch(config) }.map_err(wrap)?;
        Ok(())
    }

    /// Blocks of `threads` threads and `shared` bytes that a processor holds at a time.
    ///
    /// # Errors
    /// A block that the card cannot hold.
    pub fn resident_blocks(&self, threads: u32, shared: u32) -> Result<u32> {
        let blocks = self.function.occupancy_max_active_blocks_per_multiprocessor(threads, shared as usize, None);
        Ok(blocks.map_err(wrap)?)
    }
}

/// Where a contiguous tensor's first value lies; the memory is the tensor's.
///
/// # Errors
/// A tensor that is not on an NVIDIA GPU, or of a type that no kernel here takes.
pub fn address(tensor: &Tensor) -> candle_core::Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        candle_core::bail!("a kernel for GPUs was given a tensor of {:?}", tensor.device().location());
    };
    let stream = storage.device.cuda_stream();
    fn base<T: candle_core::cuda_backend::CudaDType>(
        storage: &CudaStorage,
        stream: &CudaStream,
    ) -> candle_core::Result<u64> {
        Ok(storage.as_cuda_slice::<T>()?.device_ptr(stream).0)
    }
    let base = match tensor.dtype() {
        DType::F32 => base::<f32>(storage, &stream)?,
        DType::F16 => base::<half::f16>(storage, &stream)?,
        DType::BF16 => base::<half::bf16>(storage, &stream)?,
        DType::U32 => base::<u32>(storage, &stream)?,
        other => candle_core::bail!("no kernel here takes {other:?}"),
    };
    Ok(base + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
}
