//! `softmax(q·kᵀ·scale)·v`: scaled dot-product attention (arXiv:1706.03762).
use super::probe::{Call, Op};
use super::{Ops, bytes};
use candle_core::{Result, Tensor};

/// The slot.
pub trait Attention: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// `q` is `(batch, heads, queries, head_dim)`, `k` and `v` are `(batch, heads, tokens, head_dim)`; the result is
    /// shaped as `q`. None of them need be contiguous.
    fn run(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor>;
}

impl Ops {
    /// Runs attention; `site` is the layer's name in the checkpoint.
    pub fn attention(&self, site: &str, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
        let moved = |y: &Tensor| {
            let tokens = k.dim(2).unwrap_or(0) as u64;
            (4 * q.elem_count() as u64 * tokens, bytes(q) + bytes(k) + bytes(v) + bytes(y))
        };
        self.probe.run(Call { op: Op::Attention, site, stage: self.attention.stage() }, moved, || {
            self.attention.run(q, k, v, scale)
        })
    }
}

/// Two matrix products around a softmax, with the whole `(queries, tokens)` matrix in memory.
pub struct Reference;

impl Attention for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn run(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
        let weights = (q.contiguous()?.matmul(&k.transpose(2, 3)?.contiguous()?)? * scale)?;
        candle_nn::ops::softmax_last_dim(&weights)?.matmul(&v.contiguous()?)
    }
}
