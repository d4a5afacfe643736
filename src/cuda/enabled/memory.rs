//! The memory pool that tensors come from: it keeps what it has, and knows how much of it was in use.
use super::super::Memory;
use super::{bind, wrap};
use candle_core::Device;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::result::{device::get_default_mem_pool, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::{self, CUgraphMem_attribute, CUmemPool_attribute, CUmemoryPool};

fn pool(device: &CudaDevice) -> candle_core::Result<CUmemoryPool> {
    bind(device)?;
    // SAFETY: the device is one that the driver gave; its default pool lives as long as it does.
    unsafe { get_default_mem_pool(device.cuda_stream().context().cu_device()) }.map_err(wrap)
}

/// Memory that was freed stays in the pool. By default it returns to the driver at each synchronisation, which costs more than
/// a frame.
pub(super) fn keep(device: &CudaDevice) -> candle_core::Result<()> {
    let mut most = u64::MAX;
    let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is a 64-bit count of bytes, and so is what the pointer points to.
    unsafe { mem_pool::set_attribute(pool(device)?, threshold, (&raw mut most).cast()) }.map_err(wrap)
}

/// Memory in use by tensors and by recorded graphs; `None` for a CPU. With `reset_peak`, the peak begins anew afterwards.
pub fn memory(device: &Device, reset_peak: bool) -> Option<Memory> {
    let Device::Cuda(device) = device else { return None };
    let pool = pool(device).ok()?;
    let card = device.cuda_stream().context().cu_device();
    let tensors = |attribute| {
        let mut bytes = 0u64;
        // SAFETY: the attributes asked for are 64-bit counts of bytes.
        unsafe { mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }.ok().map(|()| bytes as usize)
    };
    let graphs = |attribute| {
        let mut bytes = 0u64;
        // SAFETY: as above.
        unsafe { sys::cuDeviceGetGraphMemAttribute(card, attribute, (&raw mut bytes).cast()) }
            .result()
            .ok()
            .map(|()| bytes as usize)
    };
    let used = Memory {
        current: tensors(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?
            + graphs(CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT)?,
        peak: tensors(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?
            + graphs(CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_USED_MEM_HIGH)?,
    };
    if reset_peak {
        let mut zero = 0u64;
        let high = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        // SAFETY: a high-water mark is reset by writing a 64-bit zero.
        unsafe { mem_pool::set_attribute(pool, high, (&raw mut zero).cast()) }.ok()?;
        let high = CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_USED_MEM_HIGH;
        // SAFETY: as above.
        unsafe { sys::cuDeviceSetGraphMemAttribute(card, high, (&raw mut zero).cast()) }.result().ok()?;
    }
    Some(used)
}
