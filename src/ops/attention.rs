//! `softmax(q·kᵀ·scale)·v`: scaled dot-product attention (arXiv:1706.03762).
use super::probe::{Call, Op};
use super::{Ops, bytes};
use candle_core::{Result, Tensor};
use sysinfo::System;

/// The slot.
pub trait Attention: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// `q` is `(batch, heads, queries, head_dim)`, `k` and `v` are `(batch, heads, tokens, head_dim)`; the result is
    /// shaped as `q`. None of them need be contiguous.
    ///
    /// # Errors
    /// Shapes that do not agree, or more memory needed than there is.
    fn run(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor>;
}

impl Ops {
    /// Runs attention; `site` is the layer's name in the checkpoint.
    ///
    /// # Errors
    /// Shapes that do not agree, or more memory needed than there is.
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

/// Two matrix products around a softmax, with the whole `(queries, tokens)` matrix in memory; on a GPU some queries at a time where there are
/// too many, as each row of the matrix is its own.
pub struct Reference;

/// Values of a matrix on a GPU at most: Candle's kernels count them in 32 bits, and the matrix, its scaled copy and the softmax are there together.
const AT_A_TIME: usize = 1 << 29;

impl Attention for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn run(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
        let (batch, heads, queries, _) = q.dims4()?;
        if q.device().is_cpu() {
            expect_room([batch, heads, queries, k.dim(2)?], q.dtype().size_in_bytes())?;
        }
        plain([q, k, v], scale, Ok)
    }
}

/// The definition, with `stored` between the softmax and the second product.
pub(super) fn plain([q, k, v]: [&Tensor; 3], scale: f64, stored: impl Fn(Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (batch, heads, queries, _) = q.dims4()?;
    let (keys, values) = (k.transpose(2, 3)?.contiguous()?, v.contiguous()?);
    let rows = |q: &Tensor| {
        let weights = (q.contiguous()?.matmul(&keys)? * scale)?;
        stored(candle_nn::ops::softmax_last_dim(&weights)?)?.matmul(&values)
    };
    let most = if q.device().is_cpu() { queries } else { queries_at_a_time(batch * heads * k.dim(2)?) };
    if queries <= most {
        return rows(q);
    }
    let parts = (0..queries).step_by(most).map(|from| rows(&q.narrow(2, from, most.min(queries - from))?));
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 2)
}

/// Each query has so many values in the matrix.
fn queries_at_a_time(values: usize) -> usize {
    (AT_A_TIME / values.max(1)).max(1)
}

/// A matrix up to this many bytes is not asked about: to ask takes longer than to fill one.
const SMALL: usize = 256 << 20;

/// The system kills the process when memory runs out; this asks first, for the matrix, its scaled copy and the softmax.
fn expect_room(matrix: [usize; 4], value: usize) -> Result<()> {
    let bytes = matrix.iter().try_fold(3 * value, |bytes, size| bytes.checked_mul(*size));
    if bytes.is_some_and(|bytes| bytes <= SMALL || bytes as u64 <= available()) {
        return Ok(());
    }
    let [_, heads, queries, tokens] = matrix;
    let gibibytes = bytes.map_or(f64::INFINITY, |bytes| bytes as f64 / f64::from(1 << 30));
    candle_core::bail!(
        "plain attention over {queries} x {tokens} tokens with {heads} heads needs {gibibytes:.0} GiB of memory, more than \
         there is: add flash-attn to --stages, which needs no such matrix, or draw a smaller picture with --size"
    )
}

/// Bytes that the machine, or the container that this runs in, can still give.
fn available() -> u64 {
    let mut system = System::new();
    system.refresh_memory();
    let free = system.available_memory();
    system.cgroup_limits().map_or(free, |limits| free.min(limits.free_memory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_gpu_takes_as_many_queries_as_it_can_count() {
        assert_eq!(queries_at_a_time(16 * 4096), 8192, "the reference network at 64x64 goes in one piece");
        assert_eq!(queries_at_a_time(16 * 65_536), 512);
        assert_eq!(queries_at_a_time(usize::MAX), 1);
    }

    #[test]
    fn a_matrix_that_no_memory_holds_is_an_error_with_a_way_out() {
        let tokens = Tensor::zeros((1, 16, 1, 1), candle_core::DType::F32, &Device::Cpu);
        let tokens = tokens.and_then(|t| t.broadcast_as((1, 16, 1 << 20, 1))).unwrap();
        let said = Reference.run(&tokens, &tokens, &tokens, 1.0).unwrap_err().to_string();
        assert!(said.contains("flash-attn") && said.contains("196608 GiB"), "{said}");
    }
}
