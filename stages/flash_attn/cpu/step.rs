//! The inner loop: logits, online softmax and weighted sum of one tile.

use super::product::{Rows, accumulate};
use crate::stages::simd::{Simd, exp2};

/// A tile of keys and values meets `C` vectors of queries.
pub(super) struct Step<'a> {
    pub(super) head_dim: usize,
    pub(super) count: usize,
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) logits: &'a mut [f32],
    pub(super) maximum: &'a mut [f32],
    pub(super) sum: &'a mut [f32],
    pub(super) out: &'a mut [f32],
}

/// # Safety
/// With `width = C · LANES`: `q` and `out` must hold `head_dim · width` values, `k` and `v`
/// `count · head_dim`, `logits` `count · width`, `maximum` and `sum` `width`.
#[inline(always)]
pub(super) unsafe fn step<S: Simd, const C: usize>(simd: S, step: Step<'_>) {
    let width = C * S::LANES;
    let logits = step.logits.as_mut_ptr();
    // SAFETY: every pointer stays inside the slices, whose lengths the caller vouches for.
    unsafe {
        let mut old = [simd.splat(0.0); C];
        let mut sum = [simd.splat(0.0); C];
        for c in 0..C {
            old[c] = simd.load_ptr(step.maximum.as_ptr().add(c * S::LANES));
            sum[c] = simd.load_ptr(step.sum.as_ptr().add(c * S::LANES));
        }

        // logits = K · Q, and their maximum.
        let mut maximum = old;
        let keys = Rows { base: step.k.as_ptr(), row_stride: step.head_dim, depth_stride: 1, depth: step.head_dim };
        let mut key = 0;
        macro_rules! logits_of {
            ($rows:literal) => {
                while $rows * C <= S::ACCUMULATORS && step.count - key >= $rows {
                    let mut sums = [[simd.splat(0.0); C]; $rows];
                    accumulate::<S, $rows, C>(simd, keys, key, step.q.as_ptr(), &mut sums);
                    for (r, row) in sums.iter().enumerate() {
                        for (c, value) in row.iter().enumerate() {
                            maximum[c] = simd.max(maximum[c], *value);
                            simd.store_ptr(logits.add((key + r) * width + c * S::LANES), *value);
                        }
                    }
                    key += $rows;
                }
            };
        }
        logits_of!(8);
        logits_of!(4);
        logits_of!(2);
        logits_of!(1);

        // What was summed so far was relative to the old maximum.
        let mut correction = [simd.splat(0.0); C];
        for c in 0..C {
            correction[c] = exp2(simd, simd.sub(old[c], maximum[c]));
            sum[c] = simd.mul(sum[c], correction[c]);
        }
        for key in 0..step.count {
            for c in 0..C {
                let at = logits.add(key * width + c * S::LANES);
                let weight = exp2(simd, simd.sub(simd.load_ptr(at), maximum[c]));
                sum[c] = simd.add(sum[c], weight);
                simd.store_ptr(at, weight);
            }
        }
        for c in 0..C {
            simd.store_ptr(step.maximum.as_mut_ptr().add(c * S::LANES), maximum[c]);
            simd.store_ptr(step.sum.as_mut_ptr().add(c * S::LANES), sum[c]);
        }

        // out = out · correction + Vᵀ · weights.
        let values = Rows { base: step.v.as_ptr(), row_stride: 1, depth_stride: step.head_dim, depth: step.count };
        let out = step.out.as_mut_ptr();
        let mut channel = 0;
        macro_rules! output_of {
            ($rows:literal) => {
                while $rows * C <= S::ACCUMULATORS && step.head_dim - channel >= $rows {
                    let mut sums = [[simd.splat(0.0); C]; $rows];
                    for (r, row) in sums.iter_mut().enumerate() {
                        for (c, value) in row.iter_mut().enumerate() {
                            let before = simd.load_ptr(out.add((channel + r) * width + c * S::LANES));
                            *value = simd.mul(before, correction[c]);
                        }
                    }
                    accumulate::<S, $rows, C>(simd, values, channel, logits, &mut sums);
                    for (r, row) in sums.iter().enumerate() {
                        for (c, value) in row.iter().enumerate() {
                            simd.store_ptr(out.add((channel + r) * width + c * S::LANES), *value);
                        }
                    }
                    channel += $rows;
                }
            };
        }
        output_of!(8);
        output_of!(4);
        output_of!(2);
        output_of!(1);
    }
}
