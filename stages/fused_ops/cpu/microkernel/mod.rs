//! The inner loops: a tile of the product, held in registers over a run of the inner dimension.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod portable;

use super::epilogue::FinishTile;
use super::transform::Transforms;
use half::f16;

/// The most rows that a tile of any instruction set has.
pub(super) const MAX_ROWS: usize = 14;
/// The most columns that a tile of any instruction set has.
pub(super) const MAX_COLUMNS: usize = 32;

/// A stretch of the inner dimension that lies in one piece in each row of the left operand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Where it starts, in values from the row's first.
    pub(super) offset: usize,
    /// How many values it has.
    pub(super) length: usize,
}

/// `tile[row][column] (+)= sum over k of left[row · stride + k] · right[k][column]`.
///
/// `W` is the storage of the weights; sums are f32.
/// k walks through the runs one after the other, `right` in one piece. `tile` is row-major with
/// as many columns as the kernel is wide; the last argument says whether its values are added to.
///
/// One cache line from `fetch` on is asked for in each step: weights that will be needed next arrive
/// during the products of these.
///
/// # Safety
/// The instruction set is available; `left` can be read at `row · stride + offset + 0..length`
/// for every row of the kernel and every run; `right` holds (sum of lengths) × columns values and
/// `tile` rows × columns; `fetch` may be any address.
pub(super) type Microkernel<W> = unsafe fn(
    left: *const f32,
    stride: usize,
    runs: &[Run],
    right: *const W,
    tile: *mut f32,
    accumulate: bool,
    fetch: *const u8,
);

/// The kernels for one storage of weights, by rows - 1.
#[derive(Clone, Copy)]
pub(super) struct Tiles<W: 'static> {
    /// As wide as a full panel.
    pub(super) full: &'static [Microkernel<W>],
    /// Half as wide, for what is left of the output channels.
    pub(super) narrow: &'static [Microkernel<W>],
}

impl<W> Tiles<W> {
    /// The kernels of full or half width.
    pub(super) fn of_width(&self, full: bool) -> &'static [Microkernel<W>] {
        if full { self.full } else { self.narrow }
    }
}

/// What one instruction set brings.
pub(super) struct KernelSet {
    /// Columns of a full panel of weights.
    pub(super) columns: usize,
    /// Kernels for weights in single precision.
    pub(super) tiles: Tiles<f32>,
    /// Kernels for weights in half precision, if the conversion is cheap beside the products.
    pub(super) half_tiles: Option<Tiles<f16>>,
    /// Bias, activation, residual and store of one tile.
    pub(super) finish: FinishTile,
    /// Converts a panel of weights. Safety: the instruction set is available.
    pub(super) widen: unsafe fn(&[f16], &mut [f32]),
    /// Winograd's transforms.
    pub(super) transforms: &'static Transforms,
}
