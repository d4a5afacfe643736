//! A build without candle-flash-attn.
use candle_core::{Result, Tensor};

/// Whether this build has candle-flash-attn.
pub const FLASH_ATTN: bool = false;

/// Attention on `(batch, tokens, heads, head_dim)`.
///
/// # Errors
/// Always: this build has no such kernels.
pub fn flash_attn(_: &Tensor, _: &Tensor, _: &Tensor, _: f64) -> Result<Tensor> {
    candle_core::bail!("flash-attn on a GPU is not in this build: build with `--features flash-attn-cuda`")
}
