//! Launching a kernel, and where tensors lie.
use super::super::{Grid, Params, TensorMap};
use super::wrap;
use crate::Result;
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::sys::{
    self, CUfunction, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig, CUstream,
    CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion, CUtensorMapSwizzle,
};
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaStream, DevicePtr};
use candle_core::{CudaStorage, DType, Storage, Tensor};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

/// A kernel on the stream that all work of its device goes through.
pub struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

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
        let mut params = params;
        let mut arguments = [(&raw mut params).cast()];
        // SAFETY: the caller's promise; the kernel takes one argument.
        unsafe {
            launch(
                self.function.cu_function(),
                self.stream.cu_stream(),
                grid,
                [grid.threads, 1, 1],
                false,
                &mut arguments,
                &mut [],
            )
        }?;
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

/// Launches a function; with `overlap`, it may begin before the kernel ahead has ended, and waits for it itself.
///
/// # Safety
/// As for `cuLaunchKernelEx`: the arguments, or else the buffer of them, are what the function takes.
pub(super) unsafe fn launch(
    function: CUfunction,
    stream: CUstream,
    grid: Grid,
    threads: [u32; 3],
    overlap: bool,
    arguments: &mut [*mut c_void],
    buffer: &mut [*mut c_void],
) -> candle_core::Result<()> {
    let attribute = |id, value| CUlaunchAttribute { id, pad: [0; 4], value };
    let mut attributes = Vec::new();
    if overlap {
        let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attributes.push(attribute(id, CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 }));
    }
    if grid.cluster > 1 {
        let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        let mut value = CUlaunchAttributeValue { pad: [0; 64] };
        value.clusterDim.x = 1;
        value.clusterDim.y = 1;
        value.clusterDim.z = grid.cluster;
        attributes.push(attribute(id, value));
    }
    let [x, y, z] = grid.blocks;
    let config = CUlaunchConfig {
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: threads[0],
        blockDimY: threads[1],
        blockDimZ: threads[2],
        sharedMemBytes: grid.shared,
        hStream: stream,
        attrs: attributes.as_mut_ptr(),
        numAttrs: attributes.len() as u32,
    };
    let pointer = |list: &mut [*mut c_void]| if list.is_empty() { null_mut() } else { list.as_mut_ptr() };
    // SAFETY: the caller's promise; the attributes live until the call returns.
    unsafe { sys::cuLaunchKernelEx(&raw const config, function, pointer(arguments), pointer(buffer)) }
        .result()
        .map_err(wrap)
}

/// The map of boxes of a tensor at `address`, for copies that a kernel asks for; dimensions and boxes from the innermost on, whose values lie side
/// by side, and for each of the others the values from one to the next. What of a box lies outside of the tensor is zeros. 64 values of
/// a box, as 128 bytes or 64, are swizzled over as many bytes.
///
/// # Errors
/// Dimensions or an address that a card cannot map, or another type than f16, bf16 and e4m3.
pub fn tensor_map(
    address: u64,
    dtype: DType,
    dims: &[usize],
    strides: &[usize],
    boxes: &[usize],
) -> candle_core::Result<TensorMap> {
    let kind = match dtype {
        DType::F16 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        DType::BF16 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        DType::F8E4M3 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        other => candle_core::bail!("no map of {other:?}"),
    };
    let swizzle = match dtype.size_in_bytes() {
        1 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        _ => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    if dims.len() != boxes.len() || strides.len() + 1 != dims.len() {
        candle_core::bail!("boxes of {boxes:?} and strides of {strides:?} are none of {dims:?}");
    }
    let start = std::ptr::without_provenance_mut(address as usize);
    let dims: Vec<u64> = dims.iter().map(|n| *n as u64).collect();
    let strides: Vec<u64> = strides.iter().map(|n| (*n * dtype.size_in_bytes()) as u64).collect();
    let boxes: Vec<u32> = boxes.iter().map(|n| *n as u32).collect();
    let each = vec![1u32; dims.len()];
    let mut map = TensorMap([0; 16]);
    // SAFETY: the lists are as long as the rank says, and the map has the size and alignment of the driver's.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            (&raw mut map).cast(),
            kind,
            dims.len() as u32,
            start,
            dims.as_ptr(),
            strides.as_ptr(),
            boxes.as_ptr(),
            each.as_ptr(),
            CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()
    .map_err(wrap)?;
    Ok(map)
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
        DType::U8 => base::<u8>(storage, &stream)?,
        // by its slice: the element's type is that of a crate that is not named here
        DType::F8E4M3 => match &storage.slice {
            CudaStorageSlice::F8E4M3(values) => values.device_ptr(&stream).0,
            _ => candle_core::bail!("a tensor of f8e4m3 is stored as another type: please report this"),
        },
        other => candle_core::bail!("no kernel here takes {other:?}"),
    };
    Ok(base + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
}
