//! NVIDIA GPUs: the device, kernels and how they are launched, graphs of whole pieces of work, memory in use.
//!
//! This module and `stages/mod.rs` are the only places that name a Cargo feature. A build without CUDA has the same names,
//! and each says that it cannot: so the code of the stages is the same in every build.
#[cfg(any(feature = "cuda", test))]
mod arena;
mod guard;
#[cfg(not(feature = "cuda"))]
#[path = "disabled.rs"]
mod imp;
#[cfg(feature = "cuda")]
#[path = "enabled/mod.rs"]
mod imp;
mod trial;

pub use guard::{guarded, output};
pub use imp::{
    COMPILED, Kernel, Kernels, Marker, Timer, address, card, device, graphs, has_hopper_code, kernels_digest, memory,
    processors, recording, shared_memory, tensor_map, time_in_turns, time_parts,
};
pub use trial::{whose_turn, with_each_kernel};

#[cfg(feature = "flash-attn-cuda")]
#[path = "enabled/flash_attn.rs"]
mod flash;
#[cfg(not(feature = "flash-attn-cuda"))]
#[path = "flash_attn_disabled.rs"]
mod flash;

pub use flash::{FLASH_ATTN, flash_attn};

/// The oldest cards that the kernels are built for, by compute capability.
#[cfg(any(feature = "cuda", test))]
const OLDEST: (i32, i32) = (8, 0);

/// Why a card of such a compute capability is not served; `None` where it is.
#[cfg(any(feature = "cuda", test))]
fn refusal(card: (i32, i32)) -> Option<String> {
    let ((major, minor), (least, least_minor)) = (card, OLDEST);
    (card < OLDEST).then(|| {
        format!(
            "its compute capability is {major}.{minor}; cards of {least}.{least_minor} and later are served: the A100, H100 and H200, GeForce RTX 30 and later"
        )
    })
}

/// What a kernel takes: one structure, laid out as in the kernel's source.
///
/// # Safety
/// The type is `#[repr(C)]`, holds no reference, and has the fields of the kernel's parameter in the same order and of the same
/// types; each address in it is that of device memory as large as the kernel takes it to be, or null where the kernel allows it.
pub unsafe trait Params: Copy {}

/// Blocks and threads of one launch.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks along x, y and z.
    pub blocks: [u32; 3],
    /// Threads in a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory in a block.
    pub shared: u32,
    /// Blocks along z that form a cluster; 1 where none do.
    pub cluster: u32,
}

/// How a kernel finds boxes of a tensor in memory; only the driver and the card know what is in it.
#[derive(Clone, Copy)]
#[repr(C, align(128))]
pub struct TensorMap(pub [u64; 16]);

impl Grid {
    /// One thread for each of `count` items.
    ///
    /// # Errors
    /// More items than a grid can hold.
    pub fn over(count: usize) -> candle_core::Result<Self> {
        const THREADS: usize = 256;
        let blocks = u32::try_from(count.div_ceil(THREADS)).map_err(candle_core::Error::wrap)?;
        Ok(Self { blocks: [blocks.max(1), 1, 1], threads: THREADS as u32, shared: 0, cluster: 1 })
    }
}

/// Bytes of GPU memory that tensors and graphs hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub current: usize,
    /// The most since the peak was reset.
    pub peak: usize,
}

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn an_older_card_is_told_which_are_served() {
        let said = refusal((7, 5)).unwrap();
        assert!(said.contains("is 7.5") && said.contains("8.0 and later") && said.contains("A100"), "{said}");
        assert_eq!([(8, 0), (8, 9), (9, 0), (12, 0)].map(refusal), [None, None, None, None]);
    }
}
