//! AVX-512: tiles of up to 14 rows by 32 columns, 28 of the 32 registers hold sums.

use super::{KernelSet, MAX_ROWS, Microkernel, Run, Tiles};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::arch::x86_64::*;

/// f32 values in a register.
const LANES: usize = 16;
/// Steps of the inner dimension between two updates of the pointers.
const UNROLL: usize = 2;
/// Pointers into the left operand, each for three rows.
const ROW_GROUPS: usize = MAX_ROWS.div_ceil(3);

/// The same pointer, of which the compiler no longer knows where it comes from.
#[inline(always)]
#[expect(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written through the pointer")]
fn opaque(mut pointer: *const f32) -> *const f32 {
    // SAFETY: no instruction is run; the register is only said to have been written.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags));
    }
    pointer
}

/// A storage of weights.
trait Weight: Copy {
    /// One register of weights.
    ///
    /// # Safety
    /// The machine has AVX-512F; 16 weights can be read.
    unsafe fn load(pointer: *const Self) -> __m512;
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load(pointer: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(pointer) }
    }
}

impl Weight for f16 {
    #[inline(always)]
    unsafe fn load(pointer: *const f16) -> __m512 {
        // SAFETY: the caller's promise; f16 is a u16 in memory.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(pointer.cast())) }
    }
}

/// Writes a block out for each row of a tile. The compiler stops to unroll loops at 14 rows, and sums
/// that a loop indexes are kept in memory: a third of the speed.
macro_rules! for_rows {
    ($row:ident < $rows:ident, $body:block) => {
        for_rows!(@ $row $rows $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    (@ $row:ident $rows:ident $body:block $($index:literal)*) => {
        $({
            const $row: usize = $index;
            if $row < $rows $body
        })*
    };
}

/// The tile of `ROWS` rows by `VECTORS` registers; see [`Microkernel`].
///
/// # Safety
/// As said at [`Microkernel`], for `ROWS` rows and `VECTORS · 16` columns, on a machine with AVX-512F.
#[target_feature(enable = "avx512f")]
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
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        if accumulate {
            for_rows!(ROW < ROWS, {
                for (vector, sum) in sums[ROW].iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(tile.add((ROW * VECTORS + vector) * LANES));
                }
            });
        }
        let mut right = right;
        let mut fetch = fetch;
        for run in runs {
            // One pointer for three rows, which the addressing modes reach as base, base + stride and
            // base + 2 · stride. The compiler would derive all of them from the first pointer by
            // additions in the loop, which take the ports of the multiplications.
            let mut lefts = [left.wrapping_add(run.offset); ROW_GROUPS];
            for (group, left) in lefts.iter_mut().enumerate() {
                *left = left.wrapping_add(3 * group * stride);
                *left = opaque(*left);
            }
            let mut step = |ahead: usize, lefts: &[*const f32; ROW_GROUPS], right: *const W| {
                let mut weights = [_mm512_setzero_ps(); VECTORS];
                for (vector, weight) in weights.iter_mut().enumerate() {
                    *weight = W::load(right.add((ahead * VECTORS + vector) * LANES));
                }
                for_rows!(ROW < ROWS, {
                    let value = _mm512_set1_ps(*lefts[ROW / 3].add(ROW % 3 * stride + ahead));
                    for (sum, weight) in sums[ROW].iter_mut().zip(weights) {
                        *sum = _mm512_fmadd_ps(value, weight, *sum);
                    }
                });
            };
            for _ in 0..run.length / UNROLL {
                for ahead in 0..UNROLL {
                    _mm_prefetch::<_MM_HINT_T1>(fetch.wrapping_add(64 * ahead).cast());
                    step(ahead, &lefts, right);
                }
                fetch = fetch.wrapping_add(64 * UNROLL);
                right = right.add(UNROLL * VECTORS * LANES);
                for left in &mut lefts {
                    *left = left.wrapping_add(UNROLL);
                }
            }
            for _ in 0..run.length % UNROLL {
                step(0, &lefts, right);
                right = right.add(VECTORS * LANES);
                for left in &mut lefts {
                    *left = left.wrapping_add(1);
                }
            }
        }
        for_rows!(ROW < ROWS, {
            for (vector, &sum) in sums[ROW].iter().enumerate() {
                _mm512_storeu_ps(tile.add((ROW * VECTORS + vector) * LANES), sum);
            }
        });
    }
}

/// Converts a panel of weights.
///
/// # Safety
/// The machine has AVX-512F; `target` is as long as `source`.
#[target_feature(enable = "avx512f")]
unsafe fn widen(source: &[f16], target: &mut [f32]) {
    let whole = source.len() / LANES * LANES;
    for (source, target) in source.chunks_exact(LANES).zip(target.chunks_exact_mut(LANES)) {
        // SAFETY: both chunks hold 16 values, and f16 is a u16 in memory.
        unsafe {
            let halves = _mm256_loadu_si256(source.as_ptr().cast());
            _mm512_storeu_ps(target.as_mut_ptr(), _mm512_cvtph_ps(halves));
        }
    }
    source[whole..].convert_to_f32_slice(&mut target[whole..]);
}

/// The kernels of up to 14 rows for one storage and width.
macro_rules! tiles {
    ($weight:ty, $vectors:literal) => {
        tiles!(@ $weight, $vectors, 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@ $weight:ty, $vectors:literal, $($rows:literal)*) => {
        &[$(tile::<$rows, $vectors, $weight> as Microkernel<$weight>),*]
    };
}

pub(in super::super) static KERNELS: KernelSet = KernelSet {
    columns: 2 * LANES,
    tiles: Tiles { full: tiles!(f32, 2), narrow: tiles!(f32, 1) },
    half_tiles: Some(Tiles { full: tiles!(f16, 2), narrow: tiles!(f16, 1) }),
    finish: super::super::epilogue::finish_avx512,
    widen,
    transforms: &super::super::transform::avx512::TRANSFORMS,
};
