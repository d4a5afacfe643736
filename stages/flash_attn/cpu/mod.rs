//! Attention on the CPU without the tokens × tokens matrix: tiles and an online softmax
//! (FlashAttention, arXiv:2205.14135, with the loop order of FlashAttention-2, arXiv:2307.08691).
//!
//! A task is a block of queries of one head. It walks over the keys in tiles; for each tile it holds
//! the logits of a few queries, the running maximum and sum of each query, and the unnormalised
//! output. Vector lanes are queries, so maximum and sum need no step across lanes, and a head
//! dimension of 1 or 3 wastes nothing. Memory: one tile a thread, whatever the number of tokens.

mod block;
mod layout;
mod product;
mod step;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use rayon::prelude::*;

use crate::stages::simd::{Element, Isa, Scratch};

use block::{Block, Output, Tiling};
pub use layout::{AttentionError, HeadLayout};

/// The largest head dimension that [`attention`] takes.
pub const MAX_HEAD_DIM: usize = 1024;

/// Multiply-adds below which waking other threads costs more than it saves (some 20 µs of one core).
const PARALLEL_FROM: usize = 1 << 20;

/// What the softmax of one logit costs, in multiply-adds.
const SOFTMAX_COST: usize = 8;

/// A tensor to read: values and where its heads lie in them.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a, T> {
    /// The values.
    pub values: &'a [T],
    /// Their layout; rows may overlap (a stride of 0 repeats a head or a sequence).
    pub layout: HeadLayout,
}

/// A tensor to write.
#[derive(Debug)]
pub struct HeadsMut<'a, T> {
    /// The values.
    pub values: &'a mut [T],
    /// Their layout; rows must not overlap. Values between the rows are left as they are.
    pub layout: HeadLayout,
}

/// `out = softmax(scale · q · kᵀ) · v`, each head on its own, with the best instructions of this machine.
///
/// `q` and `out` are `(batch, heads, tokens, head_dim)`, `k` and `v` `(batch, heads, kv_tokens, head_dim)`,
/// each with its own strides; `head_dim` is 1 to [`MAX_HEAD_DIM`]. Logits, softmax and sums are f32.
/// The result does not depend on the number of threads. Infinite logits give NaN.
///
/// # Errors
/// When sizes do not agree, a size is zero, a slice is too short, or rows of `out` overlap.
pub fn attention<T: Element>(
    q: Heads<'_, T>,
    k: Heads<'_, T>,
    v: Heads<'_, T>,
    scale: f32,
    out: HeadsMut<'_, T>,
) -> Result<(), AttentionError> {
    attention_with(Isa::best(), q, k, v, scale, out)
}

/// [`attention`] with a given instruction set, to compare them.
///
/// # Errors
/// As [`attention`].
///
/// # Panics
/// When the machine lacks `isa`.
pub fn attention_with<T: Element>(
    isa: Isa,
    q: Heads<'_, T>,
    k: Heads<'_, T>,
    v: Heads<'_, T>,
    scale: f32,
    out: HeadsMut<'_, T>,
) -> Result<(), AttentionError> {
    check(&q, &k, &v, &out)?;
    let layout = q.layout;
    let logits = layout.batch * layout.heads * layout.tokens * k.layout.tokens;
    let work = logits.saturating_mul(layout.head_dim + SOFTMAX_COST);
    let parallel = work >= PARALLEL_FROM;
    let threads = if parallel {
        rayon::current_num_threads()
    } else {
        1
    };
    let tiling = Tiling::new(&layout, k.layout.tokens, threads);
    let blocks = layout.tokens.div_ceil(tiling.queries);
    let output = Output::new(out.values, out.layout);

    let run = |task: usize| {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
        }
        let (head, block) = (task / blocks, task % blocks);
        SCRATCH.with_borrow_mut(|scratch| {
            isa.run(Block {
                q,
                k,
                v,
                output: &output,
                scale,
                batch: head / layout.heads,
                head: head % layout.heads,
                first: block * tiling.queries,
                tiling,
                scratch: scratch.take(tiling.scratch_len(layout.head_dim)),
            });
        });
    };
    let tasks = layout.batch * layout.heads * blocks;
    if parallel {
        (0..tasks).into_par_iter().for_each(run);
    } else {
        (0..tasks).for_each(run);
    }
    Ok(())
}

/// Bytes of scratch that each thread holds at most for heads of `head_dim` values.
pub fn scratch_bytes(head_dim: usize) -> usize {
    Tiling::LARGEST.scratch_len(head_dim) * size_of::<f32>()
}

fn check<T>(
    q: &Heads<'_, T>,
    k: &Heads<'_, T>,
    v: &Heads<'_, T>,
    out: &HeadsMut<'_, T>,
) -> Result<(), AttentionError> {
    let lengths = [
        ("q", q.layout, q.values.len()),
        ("k", k.layout, k.values.len()),
        ("v", v.layout, v.values.len()),
        ("out", out.layout, out.values.len()),
    ];
    for (what, layout, found) in lengths {
        let needed = layout.extent(what)?;
        if needed > found {
            return Err(AttentionError::Length {
                what,
                needed,
                found,
            });
        }
    }
    let sizes = |layout: HeadLayout| (layout.batch, layout.heads, layout.tokens, layout.head_dim);
    let (batch, heads, _, head_dim) = sizes(q.layout);
    let keys = (batch, heads, k.layout.tokens, head_dim);
    for (what, found, expected) in [
        ("k", sizes(k.layout), keys),
        ("v", sizes(v.layout), keys),
        ("out", sizes(out.layout), sizes(q.layout)),
    ] {
        if found != expected {
            return Err(AttentionError::Shape {
                what,
                reason: format!(
                    "(batch, heads, tokens, head_dim) is {found:?}, expected {expected:?}"
                ),
            });
        }
    }
    if head_dim > MAX_HEAD_DIM {
        return Err(AttentionError::Shape {
            what: "q",
            reason: format!("head_dim is {head_dim}; at most {MAX_HEAD_DIM} can be run"),
        });
    }
    let queries = batch
        .checked_mul(heads)
        .and_then(|heads| heads.checked_mul(q.layout.tokens));
    if queries
        .and_then(|queries| queries.checked_mul(k.layout.tokens))
        .and_then(|logits| logits.checked_mul(head_dim))
        .is_none()
    {
        return Err(AttentionError::Shape {
            what: "q",
            reason: "so many tokens and heads cannot be computed in any time".to_owned(),
        });
    }
    out.layout.expect_disjoint("out")
}
