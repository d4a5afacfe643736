//! What is done to a tile of sums before it is stored: bias, shift, activation, residual, rounding.

use super::activation::{gelu, silu};
use super::microkernel::{MAX_COLUMNS, portable::NATIVE_FMA};
use super::values::Values;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// A function applied to each value after bias and shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// The value itself.
    #[default]
    None,
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x · (1 + erf(x / √2)) / 2`, the exact form.
    Gelu,
}

/// What follows the sums of a convolution or linear layer, in this order and in one pass:
/// `activation(sum + bias[n] + shift[sample, n]) + residual`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// One value for each output channel.
    pub bias: Option<&'a [f32]>,
    /// `(batch, output channels)`, added beside the bias; a time embedding, for one.
    pub shift: Option<&'a [f32]>,
    /// Applied after bias and shift.
    pub activation: Activation,
    /// Of the output's shape; added last.
    pub residual: Option<Values<'a>>,
}

/// Where tiles are stored. Threads write disjoint parts of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    F32(*mut f32),
    F16(*mut f16),
}

/// An epilogue with its slices checked, and the output it fills.
pub(super) struct Finish<'a> {
    /// Output channels.
    pub(super) channels: usize,
    /// Output rows (pixels or tokens) of one sample of the batch.
    pub(super) rows_per_sample: usize,
    pub(super) epilogue: Epilogue<'a>,
    pub(super) target: Target,
}

// SAFETY: the only pointer is the output's; each task of a call writes its own rows and columns of
// it, and the call holds the output's exclusive borrow until every task has ended.
unsafe impl Sync for Finish<'_> {}

/// A tile of sums and where it belongs.
pub(super) struct Tile<'a> {
    /// rows × width sums.
    pub(super) sums: &'a [f32],
    /// The gate's sums, in GEGLU: bias and GELU are applied to them and the product is stored.
    pub(super) gate: Option<&'a [f32]>,
    /// Columns of the tile in memory, of which the first `columns` exist in the output.
    pub(super) width: usize,
    pub(super) columns: usize,
    pub(super) first_row: usize,
    pub(super) first_column: usize,
}

/// Finishes and stores a tile.
///
/// # Safety
/// The instruction set is available, the tile lies inside of the output, and no other thread
/// writes that part of it meanwhile.
pub(super) type FinishTile = unsafe fn(&Finish<'_>, Tile<'_>);

/// Vectors of `LANES` values, and how they are converted to half precision and back.
trait Convert<const LANES: usize> {
    /// Safety of both: the instruction set is available.
    unsafe fn widen(half: &[f16; LANES]) -> [f32; LANES];
    unsafe fn narrow(wide: &[f32; LANES]) -> [f16; LANES];
}

struct Portable;

impl Convert<4> for Portable {
    #[inline(always)]
    unsafe fn widen(half: &[f16; 4]) -> [f32; 4] {
        let mut wide = [0.0; 4];
        half.convert_to_f32_slice(&mut wide);
        wide
    }

    #[inline(always)]
    unsafe fn narrow(wide: &[f32; 4]) -> [f16; 4] {
        let mut half = [f16::ZERO; 4];
        half.convert_from_f32_slice(wide);
        half
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Convert, f16};
    use std::arch::x86_64::*;

    pub(super) struct Avx2;

    impl Convert<8> for Avx2 {
        #[inline(always)]
        unsafe fn widen(half: &[f16; 8]) -> [f32; 8] {
            let mut wide = [0.0; 8];
            // SAFETY: both arrays have 8 elements, f16 is a u16 in memory; F16C is available.
            unsafe {
                let half = _mm_loadu_si128(half.as_ptr().cast());
                _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(half));
            }
            wide
        }

        #[inline(always)]
        unsafe fn narrow(wide: &[f32; 8]) -> [f16; 8] {
            let mut half = [f16::ZERO; 8];
            // SAFETY: as in `widen`.
            unsafe {
                let wide = _mm256_loadu_ps(wide.as_ptr());
                let rounded = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(wide);
                _mm_storeu_si128(half.as_mut_ptr().cast(), rounded);
            }
            half
        }
    }

    pub(super) struct Avx512;

    impl Convert<16> for Avx512 {
        #[inline(always)]
        unsafe fn widen(half: &[f16; 16]) -> [f32; 16] {
            let mut wide = [0.0; 16];
            // SAFETY: both arrays have 16 elements, f16 is a u16 in memory; AVX-512F is available.
            unsafe {
                let half = _mm256_loadu_si256(half.as_ptr().cast());
                _mm512_storeu_ps(wide.as_mut_ptr(), _mm512_cvtph_ps(half));
            }
            wide
        }

        #[inline(always)]
        unsafe fn narrow(wide: &[f32; 16]) -> [f16; 16] {
            let mut half = [f16::ZERO; 16];
            // SAFETY: as in `widen`.
            unsafe {
                let wide = _mm512_loadu_ps(wide.as_ptr());
                let rounded = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(wide);
                _mm256_storeu_si256(half.as_mut_ptr().cast(), rounded);
            }
            half
        }
    }
}

/// See [`FinishTile`].
pub(super) unsafe fn finish_portable(finish: &Finish<'_>, tile: Tile<'_>) {
    // SAFETY: as the caller promises.
    unsafe { finish_tile::<NATIVE_FMA, 4, Portable>(finish, tile) }
}

/// See [`FinishTile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn finish_avx2(finish: &Finish<'_>, tile: Tile<'_>) {
    // SAFETY: as the caller promises.
    unsafe { finish_tile::<true, 8, x86::Avx2>(finish, tile) }
}

/// See [`FinishTile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub(super) unsafe fn finish_avx512(finish: &Finish<'_>, tile: Tile<'_>) {
    // SAFETY: as the caller promises.
    unsafe { finish_tile::<true, 16, x86::Avx512>(finish, tile) }
}

/// See [`FinishTile`]; always inlined, so that it is compiled for each instruction set.
#[inline(always)]
unsafe fn finish_tile<const FMA: bool, const LANES: usize, C: Convert<LANES>>(finish: &Finish<'_>, tile: Tile<'_>) {
    // SAFETY: as the caller promises. The choice is made once for a tile, so that each loop over its
    // values is straight.
    unsafe {
        match (&tile.gate, finish.epilogue.activation) {
            (Some(_), _) => finish_rows::<LANES, C>(finish, tile, |value, gate| value * gelu::<FMA>(gate)),
            (None, Activation::None) => finish_rows::<LANES, C>(finish, tile, |value, _| value),
            (None, Activation::Silu) => finish_rows::<LANES, C>(finish, tile, |value, _| silu::<FMA>(value)),
            (None, Activation::Gelu) => finish_rows::<LANES, C>(finish, tile, |value, _| gelu::<FMA>(value)),
        }
    }
}

/// Finishes a tile with one function of value and gate.
///
/// # Safety
/// As [`FinishTile`].
#[inline(always)]
unsafe fn finish_rows<const LANES: usize, C: Convert<LANES>>(
    finish: &Finish<'_>,
    tile: Tile<'_>,
    activate: impl Fn(f32, f32) -> f32,
) {
    let columns = tile.columns;
    let channels = finish.channels;
    let bias = |from: usize| {
        let mut values = [0f32; MAX_COLUMNS];
        if let Some(bias) = finish.epilogue.bias {
            values[..columns].copy_from_slice(&bias[from..from + columns]);
        }
        values
    };
    let biased = bias(tile.first_column);
    let gate_bias = match tile.gate {
        Some(_) => bias(channels + tile.first_column),
        None => biased,
    };
    let mut addend = biased;
    let mut sample = usize::MAX;
    for (index, line) in tile.sums.chunks_exact(tile.width).enumerate() {
        let row = tile.first_row + index;
        if let Some(shift) = finish.epilogue.shift
            && row / finish.rows_per_sample != sample
        {
            sample = row / finish.rows_per_sample;
            let shift = &shift[sample * channels + tile.first_column..][..columns];
            addend = biased;
            for (addend, shift) in addend.iter_mut().zip(shift) {
                *addend += shift;
            }
        }
        let gate_line = match tile.gate {
            Some(gate) => &gate[index * tile.width..][..tile.width],
            None => line,
        };
        let (lines, _) = line.as_chunks::<LANES>();
        let (gates, _) = gate_line.as_chunks::<LANES>();
        let (addends, _) = addend.as_chunks::<LANES>();
        let (gate_biases, _) = gate_bias.as_chunks::<LANES>();
        for (vector, values) in lines.iter().enumerate() {
            let first = vector * LANES;
            let count = columns.saturating_sub(first).min(LANES);
            let mut values = *values;
            for lane in 0..LANES {
                values[lane] =
                    activate(values[lane] + addends[vector][lane], gates[vector][lane] + gate_biases[vector][lane]);
            }
            let start = row * channels + tile.first_column + first;
            match finish.epilogue.residual {
                None => {}
                Some(Values::F32(residual)) => {
                    let residual: [f32; LANES] = read(&residual[start..start + count], 0.0);
                    for lane in 0..LANES {
                        values[lane] += residual[lane];
                    }
                }
                Some(Values::F16(residual)) => {
                    // SAFETY: the instruction set is available.
                    let residual = unsafe { C::widen(&read(&residual[start..start + count], f16::ZERO)) };
                    for lane in 0..LANES {
                        values[lane] += residual[lane];
                    }
                }
            }
            // SAFETY: the caller promises that rows and columns lie inside of the output and that no
            // other thread writes them; `start` is the place of the first of `count` values.
            unsafe {
                match finish.target {
                    Target::F32(target) => write(&values, target.add(start), count),
                    Target::F16(target) => write(&C::narrow(&values), target.add(start), count),
                }
            }
        }
    }
}

/// A vector of values, filled up if fewer are left.
#[inline(always)]
fn read<T: Copy, const LANES: usize>(source: &[T], fill: T) -> [T; LANES] {
    match source.first_chunk() {
        Some(whole) => *whole,
        None => {
            let mut values = [fill; LANES];
            values[..source.len()].copy_from_slice(source);
            values
        }
    }
}

/// Writes the first `count` values.
///
/// # Safety
/// `target` can be written for `count <= LANES` values.
#[inline(always)]
unsafe fn write<T: Copy, const LANES: usize>(values: &[T; LANES], target: *mut T, count: usize) {
    // SAFETY: the caller's promise; an array has its element's alignment.
    unsafe {
        if count == LANES {
            target.cast::<[T; LANES]>().write(*values);
        } else {
            target.copy_from_nonoverlapping(values.as_ptr(), count);
        }
    }
}
