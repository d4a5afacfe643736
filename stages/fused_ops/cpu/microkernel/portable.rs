//! Any machine: arrays of sums that the compiler keeps in whatever vector registers there are.

use super::{KernelSet, Microkernel, Run, Tiles};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// aarch64 has 32 registers of four values, so a tile of 6 x 16 fits; elsewhere 16 are assumed.
const COLUMNS: usize = if cfg!(target_arch = "aarch64") { 16 } else { 8 };

/// Whether `mul_add` is one instruction and not a library call.
pub(in super::super) const NATIVE_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// The tile of `ROWS` rows by `COLUMNS` columns; see [`Microkernel`].
///
/// # Safety
/// As said at [`Microkernel`], for `ROWS` rows and `COLUMNS` columns.
unsafe fn tile<const ROWS: usize, const COLUMNS: usize>(
    left: *const f32,
    stride: usize,
    runs: &[Run],
    right: *const f32,
    tile: *mut f32,
    accumulate: bool,
    _fetch: *const u8,
) {
    // SAFETY: every pointer below stays inside of what the caller promises: `left` in a row's
    // runs, `right` at k · columns, `tile` of rows · columns values; arrays of f32 have f32's
    // alignment.
    unsafe {
        let tile = &mut *tile.cast::<[[f32; COLUMNS]; ROWS]>();
        let mut sums = [[0f32; COLUMNS]; ROWS];
        if accumulate {
            sums = *tile;
        }
        let mut right = right.cast::<[f32; COLUMNS]>();
        for run in runs {
            let mut left = left.add(run.offset);
            for _ in 0..run.length {
                let weights = *right;
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = *left.add(row * stride);
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = if NATIVE_FMA { value.mul_add(weight, *sum) } else { value * weight + *sum };
                    }
                }
                right = right.add(1);
                left = left.add(1);
            }
        }
        *tile = sums;
    }
}

/// Converts a panel of weights.
///
/// # Safety
/// None is asked for; the type is shared with the other instruction sets.
unsafe fn widen(source: &[f16], target: &mut [f32]) {
    source.convert_to_f32_slice(target);
}

pub(in super::super) static KERNELS: KernelSet = KernelSet {
    columns: COLUMNS,
    tiles: Tiles {
        full: &[
            tile::<1, COLUMNS> as Microkernel<f32>,
            tile::<2, COLUMNS>,
            tile::<3, COLUMNS>,
            tile::<4, COLUMNS>,
            #[cfg(target_arch = "aarch64")]
            tile::<5, COLUMNS>,
            #[cfg(target_arch = "aarch64")]
            tile::<6, COLUMNS>,
        ],
        narrow: &[
            tile::<1, { COLUMNS / 2 }> as Microkernel<f32>,
            tile::<2, { COLUMNS / 2 }>,
            tile::<3, { COLUMNS / 2 }>,
            tile::<4, { COLUMNS / 2 }>,
            #[cfg(target_arch = "aarch64")]
            tile::<5, { COLUMNS / 2 }>,
            #[cfg(target_arch = "aarch64")]
            tile::<6, { COLUMNS / 2 }>,
        ],
    },
    half_tiles: None,
    finish: super::super::epilogue::finish_portable,
    widen,
    transforms: &super::super::transform::portable::TRANSFORMS,
};
