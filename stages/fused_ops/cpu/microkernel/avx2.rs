//! AVX2 with FMA: tiles of up to 6 rows by 16 columns, 12 of the 16 registers hold sums.

use super::{KernelSet, Microkernel, Run, Tiles};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::arch::x86_64::*;

/// f32 values in a register.
const LANES: usize = 8;

/// A storage of weights.
trait Weight: Copy {
    /// One register of weights.
    ///
    /// # Safety
    /// The machine has AVX2 and F16C; 8 weights can be read.
    unsafe fn load(pointer: *const Self) -> __m256;
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load(pointer: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(pointer) }
    }
}

impl Weight for f16 {
    #[inline(always)]
    unsafe fn load(pointer: *const f16) -> __m256 {
        // SAFETY: the caller's promise; f16 is a u16 in memory.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(pointer.cast())) }
    }
}

/// The tile of `ROWS` rows by `VECTORS` registers; see [`Microkernel`].
///
/// # Safety
/// As said at [`Microkernel`], for `ROWS` rows and `VECTORS · 8` columns, on a machine with AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const ROWS: usize, const VECTORS: usize, W: Weight>(
    left: *const f32,
    stride: usize,
    runs: &[Run],
    right: *const W,
    tile: *mut f32,
    accumulate: bool,
    fetch: *const u8,
) {
    // SAFETY: every pointer below stays inside of what the caller promises: `left` in a row's
    // runs, `right` at k · columns, `tile` at row · columns.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); VECTORS]; ROWS];
        if accumulate {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (vector, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_loadu_ps(tile.add((row * VECTORS + vector) * LANES));
                }
            }
        }
        let mut right = right;
        let mut fetch = fetch;
        for run in runs {
            let mut left = left.add(run.offset);
            for _ in 0..run.length {
                let mut weights = [_mm256_setzero_ps(); VECTORS];
                for (vector, weight) in weights.iter_mut().enumerate() {
                    *weight = W::load(right.add(vector * LANES));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = _mm256_set1_ps(*left.add(row * stride));
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = _mm256_fmadd_ps(value, weight, *sum);
                    }
                }
                _mm_prefetch::<_MM_HINT_T1>(fetch.cast());
                fetch = fetch.wrapping_add(64);
                right = right.add(VECTORS * LANES);
                left = left.add(1);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (vector, &sum) in sums.iter().enumerate() {
                _mm256_storeu_ps(tile.add((row * VECTORS + vector) * LANES), sum);
            }
        }
    }
}

/// Converts a panel of weights.
///
/// # Safety
/// The machine has AVX2, FMA and F16C; `target` is as long as `source`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn widen(source: &[f16], target: &mut [f32]) {
    let whole = source.len() / LANES * LANES;
    for (source, target) in source.chunks_exact(LANES).zip(target.chunks_exact_mut(LANES)) {
        // SAFETY: both chunks hold 8 values, and f16 is a u16 in memory.
        unsafe {
            let halves = _mm_loadu_si128(source.as_ptr().cast());
            _mm256_storeu_ps(target.as_mut_ptr(), _mm256_cvtph_ps(halves));
        }
    }
    source[whole..].convert_to_f32_slice(&mut target[whole..]);
}

/// The kernels of up to 6 rows for one storage and width.
macro_rules! tiles {
    ($weight:ty, $vectors:literal) => {
        tiles!(@ $weight, $vectors, 1 2 3 4 5 6)
    };
    (@ $weight:ty, $vectors:literal, $($rows:literal)*) => {
        &[$(tile::<$rows, $vectors, $weight> as Microkernel<$weight>),*]
    };
}

pub(in super::super) static KERNELS: KernelSet = KernelSet {
    columns: 2 * LANES,
    tiles: Tiles { full: tiles!(f32, 2), narrow: tiles!(f32, 1) },
    half_tiles: Some(Tiles { full: tiles!(f16, 2), narrow: tiles!(f16, 1) }),
    finish: super::super::epilogue::finish_avx2,
    widen,
    transforms: &super::super::transform::avx2::TRANSFORMS,
};
