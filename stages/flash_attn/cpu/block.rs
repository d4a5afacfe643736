//! One block of queries of one head against all keys.

use std::marker::PhantomData;

use super::step::{Step, step};
use super::{HeadLayout, Heads};
use crate::stages::simd::{Element, Kernel, MAX_LANES, Simd};

/// How a call is cut. Queries are rounded up to whole vectors, so scratch is too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiling {
    /// Queries of a task; each tile of keys is copied once for all of them.
    pub(super) queries: usize,
    /// Keys of a tile.
    keys: usize,
}

/// Query lanes whose logits are held at once, at most.
const MAX_WIDTH: usize = 4 * MAX_LANES;

impl Tiling {
    /// What no call exceeds.
    pub(super) const LARGEST: Self = Self {
        queries: 128,
        keys: 64,
    };

    /// Blocks as large as possible while every thread has a few.
    pub(super) fn new(layout: &HeadLayout, kv_tokens: usize, threads: usize) -> Self {
        let heads = layout.batch * layout.heads;
        let mut queries = Self::LARGEST.queries;
        while threads > 1
            && queries > MAX_LANES * 2
            && heads * layout.tokens.div_ceil(queries) < threads * 4
        {
            queries /= 2;
        }
        Self {
            queries: queries.min(layout.tokens.next_multiple_of(MAX_LANES)),
            keys: Self::LARGEST.keys.min(kv_tokens),
        }
    }

    /// f32 of scratch for one task.
    pub(super) fn scratch_len(&self, head_dim: usize) -> usize {
        let queries = self.queries.next_multiple_of(MAX_WIDTH);
        2 * queries * head_dim
            + 2 * queries
            + 2 * ((self.keys * head_dim).next_multiple_of(MAX_LANES) + MAX_LANES)
            + self.keys * MAX_WIDTH
    }
}

/// The output, written by many tasks at once, each its own rows.
pub(super) struct Output<'a, T> {
    base: *mut T,
    layout: HeadLayout,
    values: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for an exclusive borrow of a slice of `T`; tasks write disjoint rows of it.
unsafe impl<T: Send> Send for Output<'_, T> {}
// SAFETY: as above; nothing is read through it.
unsafe impl<T: Send> Sync for Output<'_, T> {}

impl<'a, T> Output<'a, T> {
    /// `layout` must have passed `extent` against `values` and `expect_disjoint`.
    pub(super) fn new(values: &'a mut [T], layout: HeadLayout) -> Self {
        Self {
            base: values.as_mut_ptr(),
            layout,
            values: PhantomData,
        }
    }

    /// The row of one query.
    ///
    /// # Safety
    /// The indices must lie within the layout, and no other borrow of this row may be alive.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    unsafe fn row(&self, batch: usize, head: usize, token: usize) -> &mut [T] {
        let offset = self.layout.offset(batch, head, token);
        // SAFETY: the layout was checked against the slice, so the row lies inside it.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(offset), self.layout.head_dim) }
    }
}

/// The arguments of one task.
pub(super) struct Block<'a, T> {
    pub(super) q: Heads<'a, T>,
    pub(super) k: Heads<'a, T>,
    pub(super) v: Heads<'a, T>,
    pub(super) output: &'a Output<'a, T>,
    pub(super) scale: f32,
    pub(super) batch: usize,
    pub(super) head: usize,
    /// The first query of the block.
    pub(super) first: usize,
    pub(super) tiling: Tiling,
    pub(super) scratch: &'a mut [f32],
}

impl<T: Element> Kernel for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let queries = self.tiling.queries.min(self.q.layout.tokens - self.first);
        // More columns share each scalar of K and V; fewer waste fewer lanes when queries are few.
        if queries <= S::LANES {
            self.run_columns::<S, 1>(simd, queries);
        } else if queries <= 2 * S::LANES || self.q.layout.head_dim > 4 {
            self.run_columns::<S, 2>(simd, queries);
        } else {
            self.run_columns::<S, 4>(simd, queries);
        }
    }
}

impl<T: Element> Block<'_, T> {
    /// With logits of `C` vectors of queries at once.
    #[inline(always)]
    fn run_columns<S: Simd, const C: usize>(mut self, simd: S, queries: usize) {
        let head_dim = self.q.layout.head_dim;
        let width = C * S::LANES;
        let groups = queries.div_ceil(width);
        let lanes = groups * width;
        let keys = self.tiling.keys;
        let scratch = std::mem::take(&mut self.scratch);
        // (group, channel, lane), (group, lane), (key, channel), (key, lane).
        let (q, rest) = scratch.split_at_mut(lanes * head_dim);
        let (out, rest) = rest.split_at_mut(lanes * head_dim);
        let (maximum, rest) = rest.split_at_mut(lanes);
        let (sum, rest) = rest.split_at_mut(lanes);
        let tile = (keys * head_dim).next_multiple_of(MAX_LANES) + MAX_LANES;
        let (k, rest) = rest.split_at_mut(tile);
        let (v, rest) = rest.split_at_mut(tile);
        let logits = &mut rest[..keys * width];

        self.load_queries::<S, C>(simd, queries, q);
        out.fill(0.0);
        maximum.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        let kv_tokens = self.k.layout.tokens;
        let mut first_key = 0;
        while first_key < kv_tokens {
            let count = keys.min(kv_tokens - first_key);
            let filled = count * head_dim + MAX_LANES;
            let place = (self.batch, self.head);
            copy_tile(simd, &self.k, place, first_key, &mut k[..filled]);
            copy_tile(simd, &self.v, place, first_key, &mut v[..filled]);
            for group in 0..groups {
                let columns = group * width..(group + 1) * width;
                let values = columns.start * head_dim..columns.end * head_dim;
                // SAFETY: each slice was cut to the length that `head_dim`, `count` and `width` need.
                unsafe {
                    step::<S, C>(
                        simd,
                        Step {
                            head_dim,
                            count,
                            q: &q[values.clone()],
                            k: &k[..count * head_dim],
                            v: &v[..count * head_dim],
                            logits: &mut logits[..count * width],
                            maximum: &mut maximum[columns.clone()],
                            sum: &mut sum[columns],
                            out: &mut out[values],
                        },
                    );
                }
            }
            first_key += count;
        }
        self.store_output::<S, C>(simd, queries, out, sum);
    }

    /// Queries times scale and log₂ e (so that exp2 can serve as exp), lanes being queries.
    #[inline(always)]
    fn load_queries<S: Simd, const C: usize>(&self, simd: S, queries: usize, q: &mut [f32]) {
        let head_dim = self.q.layout.head_dim;
        let scale = simd.splat(self.scale * std::f32::consts::LOG2_E);
        let width = C * S::LANES;
        for lane in (0..queries.next_multiple_of(width)).step_by(S::LANES) {
            let target = lane / width * width * head_dim + lane % width;
            for channel in (0..head_dim).step_by(S::LANES) {
                let channels = S::LANES.min(head_dim - channel);
                let mut block = [simd.splat(0.0); MAX_LANES];
                for (i, vector) in block.iter_mut().enumerate().take(S::LANES) {
                    if lane + i < queries {
                        let row = row(&self.q, self.batch, self.head, self.first + lane + i);
                        *vector = load_up_to(simd, &row[channel..]);
                    }
                }
                simd.transpose(&mut block);
                for (i, vector) in block.iter().enumerate().take(channels) {
                    let at = target + (channel + i) * width;
                    f32::store(simd, &mut q[at..], simd.mul(*vector, scale));
                }
            }
        }
    }

    /// Divides by the sums and writes queries back as rows.
    #[inline(always)]
    fn store_output<S: Simd, const C: usize>(
        &self,
        simd: S,
        queries: usize,
        out: &[f32],
        sum: &[f32],
    ) {
        let head_dim = self.q.layout.head_dim;
        let width = C * S::LANES;
        for lane in (0..queries).step_by(S::LANES) {
            let source = lane / width * width * head_dim + lane % width;
            let inverse = simd.div(simd.splat(1.0), f32::load(simd, &sum[lane..]));
            for channel in (0..head_dim).step_by(S::LANES) {
                let channels = S::LANES.min(head_dim - channel);
                let mut block = [simd.splat(0.0); MAX_LANES];
                for (i, vector) in block.iter_mut().enumerate().take(channels) {
                    let at = source + (channel + i) * width;
                    *vector = simd.mul(f32::load(simd, &out[at..]), inverse);
                }
                simd.transpose(&mut block);
                for (i, vector) in block.iter().enumerate().take(S::LANES.min(queries - lane)) {
                    // SAFETY: the query is one of this block's, which no other task writes.
                    let row = unsafe {
                        self.output
                            .row(self.batch, self.head, self.first + lane + i)
                    };
                    let target = &mut row[channel..];
                    if target.len() >= S::LANES {
                        T::store(simd, target, *vector);
                    } else {
                        T::store_some(simd, target, *vector);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn row<'a, T>(heads: &Heads<'a, T>, batch: usize, head: usize, token: usize) -> &'a [T] {
    let start = heads.layout.offset(batch, head, token);
    &heads.values[start..start + heads.layout.head_dim]
}

#[inline(always)]
fn load_up_to<S: Simd, T: Element>(simd: S, values: &[T]) -> S::V {
    if values.len() >= S::LANES {
        T::load(simd, values)
    } else {
        T::load_some(simd, values)
    }
}

/// Copies keys or values from `first` on, densely and as f32: strides of a power of two would make
/// rows fight for the same cache sets, and each value is read once for every vector of queries.
///
/// `tile` has room for [`MAX_LANES`] values more than it takes: rows are copied in whole vectors, and
/// what one writes too much the next one overwrites.
#[inline(always)]
fn copy_tile<S: Simd, T: Element>(
    simd: S,
    heads: &Heads<'_, T>,
    (batch, head): (usize, usize),
    first: usize,
    tile: &mut [f32],
) {
    let head_dim = heads.layout.head_dim;
    let rows = (tile.len() - MAX_LANES) / head_dim;
    for row in 0..rows {
        let start = heads.layout.offset(batch, head, first + row);
        let mut channel = 0;
        while channel < head_dim {
            let source = &heads.values[start + channel..];
            let vector = load_up_to(simd, source);
            f32::store(simd, &mut tile[row * head_dim + channel..], vector);
            channel += S::LANES;
        }
    }
}
