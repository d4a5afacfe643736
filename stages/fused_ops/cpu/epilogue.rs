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
    /// rows × width sums; overwritten on the way.
    pub(super) sums: &'a mut [f32],
    /// The gate's sums, in GEGLU: bias and GELU are applied to them and the product is stored.
    pub(super) gate: Option<&'a mut [f32]>,
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

/// See [`FinishTile`].
pub(super) unsafe fn finish_portable(finish: &Finish<'_>, tile: Tile<'_>) {
    // SAFETY: as the caller promises.
    unsafe { finish_tile::<NATIVE_FMA>(finish, tile) }
}

/// See [`FinishTile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn finish_avx2(finish: &Finish<'_>, tile: Tile<'_>) {
    // SAFETY: as the caller promises.
    unsafe { finish_tile::<true>(finish, tile) }
}

/// See [`FinishTile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub(super) unsafe fn finish_avx512(finish: &Finish<'_>, tile: Tile<'_>) {
    // SAFETY: as the caller promises.
    unsafe { finish_tile::<true>(finish, tile) }
}

/// See [`FinishTile`]; always inlined, so that it is compiled for each instruction set.
#[inline(always)]
unsafe fn finish_tile<const FMA: bool>(finish: &Finish<'_>, tile: Tile<'_>) {
    let Tile { sums, mut gate, width, columns, first_row, first_column } = tile;
    let channels = finish.channels;
    let Epilogue { bias, shift, activation, residual } = finish.epilogue;
    let mut addend = [0f32; MAX_COLUMNS];
    if let Some(bias) = bias {
        addend[..columns].copy_from_slice(&bias[first_column..first_column + columns]);
    }
    let biased = addend;
    let mut gate_bias = [0f32; MAX_COLUMNS];
    if let (Some(bias), Some(_)) = (bias, &gate) {
        let start = channels + first_column;
        gate_bias[..columns].copy_from_slice(&bias[start..start + columns]);
    }
    let mut sample = usize::MAX;
    for (index, line) in sums.chunks_exact_mut(width).enumerate() {
        let row = first_row + index;
        let start = row * channels + first_column;
        if let Some(shift) = shift
            && row / finish.rows_per_sample != sample
        {
            sample = row / finish.rows_per_sample;
            let shift = &shift[sample * channels + first_column..][..columns];
            addend = biased;
            for (addend, shift) in addend.iter_mut().zip(shift) {
                *addend += shift;
            }
        }
        for (value, addend) in line.iter_mut().zip(&addend) {
            *value += addend;
        }
        match activation {
            Activation::None => {}
            Activation::Silu => line.iter_mut().for_each(|value| *value = silu::<FMA>(*value)),
            Activation::Gelu => line.iter_mut().for_each(|value| *value = gelu::<FMA>(*value)),
        }
        if let Some(gate) = &mut gate {
            let gate = &mut gate[index * width..][..width];
            for ((value, gate), bias) in line.iter_mut().zip(gate).zip(&gate_bias) {
                *value *= gelu::<FMA>(*gate + bias);
            }
        }
        let line = &mut line[..columns];
        match residual {
            None => {}
            Some(Values::F32(residual)) => {
                for (value, residual) in line.iter_mut().zip(&residual[start..start + columns]) {
                    *value += residual;
                }
            }
            Some(Values::F16(residual)) => {
                let mut wide = [0f32; MAX_COLUMNS];
                residual[start..start + columns].convert_to_f32_slice(&mut wide[..columns]);
                for (value, residual) in line.iter_mut().zip(&wide) {
                    *value += residual;
                }
            }
        }
        // SAFETY: the caller promises that rows and columns lie inside of the output and that no
        // other thread writes them; `start` is the place of the first of `columns` values.
        unsafe {
            match finish.target {
                Target::F32(target) => std::slice::from_raw_parts_mut(target.add(start), columns).copy_from_slice(line),
                Target::F16(target) => {
                    std::slice::from_raw_parts_mut(target.add(start), columns).convert_from_f32_slice(line);
                }
            }
        }
    }
}
