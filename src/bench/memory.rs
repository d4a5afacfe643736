//! How much memory a run takes: an allocator that counts the bytes in use, for a binary to install as its own.
use crate::cuda;
use candle_core::Device;
use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static CURRENT: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// mimalloc, counting the bytes in use; the binary installs it as the global allocator.
///
/// The counts are relaxed: threads may see them a moment late, and they steer nothing.
pub struct CountingAllocator;

fn grow(bytes: usize) {
    let now = CURRENT.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
}

fn shrink(bytes: usize) {
    CURRENT.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call is handed to mimalloc as it came; counting touches no memory of the caller's.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        let p = unsafe { MiMalloc.alloc(layout) };
        if !p.is_null() {
            grow(layout.size());
        }
        p
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        let p = unsafe { MiMalloc.alloc_zeroed(layout) };
        if !p.is_null() {
            grow(layout.size());
        }
        p
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: `p` came from this allocator with this layout, so from mimalloc.
        unsafe { MiMalloc.dealloc(p, layout) };
        shrink(layout.size());
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc`; `size` is the caller's, under the same contract.
        let q = unsafe { MiMalloc.realloc(p, layout, size) };
        if !q.is_null() {
            shrink(layout.size());
            grow(size);
        }
        q
    }
}

/// Bytes in use; 0 where the counting allocator is not installed.
pub fn current() -> usize {
    CURRENT.load(Relaxed)
}

/// The most bytes that were in use since [`reset_peak`].
pub fn peak() -> usize {
    PEAK.load(Relaxed)
}

/// Begins anew with what is in use now.
pub fn reset_peak() {
    PEAK.store(current(), Relaxed);
}

/// Bytes in use where `device` keeps its tensors: on a GPU its memory pool and its recorded graphs, on a CPU as [`current`].
pub fn current_on(device: &Device) -> usize {
    finish_work(device);
    cuda::memory(device, false).map_or_else(current, |memory| memory.current)
}

/// The most bytes that were in use there since [`reset_peak_on`].
pub fn peak_on(device: &Device) -> usize {
    finish_work(device);
    cuda::memory(device, false).map_or_else(peak, |memory| memory.peak)
}

/// Begins anew with what is in use there now.
pub fn reset_peak_on(device: &Device) {
    finish_work(device);
    if cuda::memory(device, true).is_none() {
        reset_peak();
    }
}

/// What was freed counts as free when the work queued before is done.
fn finish_work(device: &Device) {
    let _ = device.synchronize(); // an error of the device comes up again with the next thing asked of it
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_each_allocation() {
        let layout = Layout::from_size_align(1 << 20, 64).unwrap();
        let before = current();
        // SAFETY: the layout is not empty, and each block is given back once with the layout it then has.
        unsafe {
            let p = CountingAllocator.alloc(layout);
            assert!(!p.is_null());
            assert_eq!(current(), before + (1 << 20));
            let p = CountingAllocator.realloc(p, layout, 3 << 20);
            assert_eq!(current(), before + (3 << 20));
            assert!(peak() >= before + (3 << 20));
            CountingAllocator.dealloc(p, Layout::from_size_align(3 << 20, 64).unwrap());
        }
        assert_eq!(current(), before);
        reset_peak();
        assert!(peak() < before + (1 << 20));
    }
}
