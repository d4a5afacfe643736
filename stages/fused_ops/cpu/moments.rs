//! Mean and variance of channel groups in one pass over memory, without cancellation.

use rayon::prelude::*;

use super::rows::rows_per_task;
use crate::stages::simd::{Element, Isa, Kernel, MAX_LANES, Simd};

/// Number, mean and sum of squared differences from the mean.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moments {
    pub(super) count: f64,
    pub(super) mean: f64,
    pub(super) squares: f64,
}

impl Moments {
    fn merge(&mut self, other: Moments) {
        let count = self.count + other.count;
        if count > 0.0 {
            let delta = other.mean - self.mean;
            self.mean += delta * (other.count / count);
            self.squares += other.squares + delta * delta * (self.count * other.count / count);
            self.count = count;
        }
    }
}

/// The moments of each group of one image.
pub(super) fn image_moments<T: Element>(
    isa: Isa,
    x: &[T],
    channels: usize,
    groups: usize,
) -> Vec<Moments> {
    let run = rows_per_task(channels) * channels;
    let part = |x: &[T]| {
        // Pixels of few channels are read several at a time, so that vectors are full.
        let row = full_row(channels);
        let (rows, rest) = x.split_at(x.len() / row * row);
        let mut moments = vec![Moments::default(); groups];
        let per_group = channels / groups;
        for (values, row) in [(rows, row), (rest, channels)] {
            let (mut mean, mut squares) = (vec![0.0; row], vec![0.0; row]);
            isa.run(Gather {
                x: values,
                row,
                mean: &mut mean,
                squares: &mut squares,
            });
            for (lane, (mean, squares)) in mean.into_iter().zip(squares).enumerate() {
                moments[lane % channels / per_group].merge(Moments {
                    count: (values.len() / row) as f64,
                    mean,
                    squares,
                });
            }
        }
        moments
    };
    let parts: Vec<Vec<Moments>> = if x.len() <= run {
        vec![part(x)]
    } else {
        x.par_chunks(run).map(part).collect()
    };
    let mut total = vec![Moments::default(); groups];
    for part in parts {
        for (total, part) in total.iter_mut().zip(part) {
            total.merge(part);
        }
    }
    total
}

/// Values of as many whole pixels as fill a few vectors evenly.
pub(super) fn full_row(channels: usize) -> usize {
    const LANES: usize = 64;
    if channels >= LANES {
        return channels;
    }
    let even = (1usize << channels.trailing_zeros()).min(16);
    channels * LANES.div_ceil(channels).next_multiple_of(16 / even)
}

/// Mean and squares of each column of `x` as `(rows, row)`.
struct Gather<'a, T> {
    x: &'a [T],
    row: usize,
    mean: &'a mut [f64],
    squares: &'a mut [f64],
}

/// Values whose mean is found before their squares: few enough to be in cache the second time.
const BLOCK_VALUES: usize = 10_240;

/// How a block of rows joins those before it; the same for all columns, so its divisions are done once.
#[derive(Clone, Copy)]
struct Join {
    /// 1 / rows of the block.
    inverse: f64,
    /// Rows of the block / rows so far with it.
    share: f64,
    /// Rows before · rows of the block / rows so far.
    between: f64,
}

impl<T: Element> Kernel for Gather<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let mut done = 0.0;
        let block_rows = (BLOCK_VALUES / self.row).clamp(16, 64);
        for block in self.x.chunks(block_rows * self.row) {
            let count = (block.len() / self.row) as f64;
            let join = Join {
                inverse: 1.0 / count,
                share: count / (done + count),
                between: done * count / (done + count),
            };
            let mut lane = 0;
            while lane + 4 * S::LANES <= self.row {
                self.columns::<S, 4>(simd, block, lane, join);
                lane += 4 * S::LANES;
            }
            while lane + S::LANES <= self.row {
                self.columns::<S, 1>(simd, block, lane, join);
                lane += S::LANES;
            }
            while lane < self.row {
                let mut pivot = 0.0;
                for row in block.chunks_exact(self.row) {
                    pivot += row[lane].to_f32();
                }
                pivot *= join.inverse as f32;
                let (mut sum, mut squares) = (0.0, 0.0);
                for row in block.chunks_exact(self.row) {
                    let difference = row[lane].to_f32() - pivot;
                    sum += difference;
                    squares += difference * difference;
                }
                let columns = lane..lane + 1;
                let (mean, total) = (&mut self.mean[columns.clone()], &mut self.squares[columns]);
                merge_columns(mean, total, &[pivot], &[sum], &[squares], join);
                lane += 1;
            }
            done += count;
        }
    }
}

impl<T: Element> Gather<'_, T> {
    /// `C` vectors of columns from `lane` on, over one block of rows.
    #[inline(always)]
    fn columns<S: Simd, const C: usize>(&mut self, simd: S, block: &[T], lane: usize, join: Join) {
        let mut sums = [simd.splat(0.0); C];
        for row in block.chunks_exact(self.row) {
            let values = &row[lane..lane + C * S::LANES];
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = simd.add(*sum, T::load(simd, &values[c * S::LANES..]));
            }
        }
        // Differences from the block's own rounded mean; what the rounding left is in their sum.
        let inverse = simd.splat(join.inverse as f32);
        let mut pivots = [simd.splat(0.0); C];
        for (pivot, sum) in pivots.iter_mut().zip(sums) {
            *pivot = simd.mul(sum, inverse);
        }
        let mut sums = [simd.splat(0.0); C];
        let mut squares = [simd.splat(0.0); C];
        for row in block.chunks_exact(self.row) {
            let values = &row[lane..lane + C * S::LANES];
            for c in 0..C {
                let difference = simd.sub(T::load(simd, &values[c * S::LANES..]), pivots[c]);
                sums[c] = simd.add(sums[c], difference);
                squares[c] = simd.mul_add(difference, difference, squares[c]);
            }
        }
        let mut parts = [[0.0f32; MAX_LANES]; 3];
        for c in 0..C {
            f32::store(simd, &mut parts[0], pivots[c]);
            f32::store(simd, &mut parts[1], sums[c]);
            f32::store(simd, &mut parts[2], squares[c]);
            let columns = lane + c * S::LANES..lane + (c + 1) * S::LANES;
            merge_columns(
                &mut self.mean[columns.clone()],
                &mut self.squares[columns],
                &parts[0],
                &parts[1],
                &parts[2],
                join,
            );
        }
    }
}

/// Adds a block to its columns, given its sums of differences from a pivot and of their squares.
#[inline(always)]
fn merge_columns(
    mean: &mut [f64],
    total: &mut [f64],
    pivots: &[f32],
    sums: &[f32],
    squares: &[f32],
    join: Join,
) {
    let parts = pivots.iter().zip(sums).zip(squares);
    for ((mean, total), ((&pivot, &sum), &squares)) in mean.iter_mut().zip(total).zip(parts) {
        let sum = f64::from(sum);
        let offset = sum * join.inverse;
        let delta = f64::from(pivot) + offset - *mean;
        *mean += delta * join.share;
        // Rounding can leave a negative trace where all values are equal.
        let own = (f64::from(squares) - sum * offset).max(0.0);
        *total += own + delta * delta * join.between;
    }
}
