//! The one matrix product of attention: rows of scalars times columns of query lanes.

use crate::stages::simd::Simd;

/// Scalars `a[row, depth]` at `base + row · row_stride + depth · depth_stride`.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) base: *const f32,
    pub(super) row_stride: usize,
    pub(super) depth_stride: usize,
    pub(super) depth: usize,
}

/// `sums[r][c] += Σ_depth a[first + r, depth] · b[depth][c]` for `R` rows of `C` vectors, in registers.
///
/// # Safety
/// The scalars of rows `first .. first + R` and `depth · C` vectors at `b` must be valid for reading.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, const R: usize, const C: usize>(
    simd: S,
    rows: Rows,
    first: usize,
    b: *const f32,
    sums: &mut [[S::V; C]; R],
) {
    // A local copy lets the compiler hold the sums in registers through the loop.
    let mut local = *sums;
    // SAFETY: all offsets stay below those that the caller vouches for.
    unsafe {
        let mut a = rows.base.add(first * rows.row_stride);
        let mut b = b;
        for _ in 0..rows.depth {
            let mut columns = [simd.splat(0.0); C];
            for (c, column) in columns.iter_mut().enumerate() {
                *column = simd.load_ptr(b.add(c * S::LANES));
            }
            for (r, row) in local.iter_mut().enumerate() {
                let scalar = simd.splat(*a.add(r * rows.row_stride));
                for (sum, column) in row.iter_mut().zip(columns) {
                    *sum = simd.mul_add(scalar, column, *sum);
                }
            }
            a = a.wrapping_add(rows.depth_stride);
            b = b.wrapping_add(C * S::LANES);
        }
    }
    *sums = local;
}
