//! candle-flash-attn: FlashAttention-2 (arXiv:2307.08691).
use candle_core::{Result, Tensor};

/// Whether this build has candle-flash-attn.
pub const FLASH_ATTN: bool = true;

/// Attention on `(batch, tokens, heads, head_dim)` in f16 or bf16; the head dim divides by 8 and is at most 256.
///
/// # Errors
/// Shapes or types that the kernels do not take.
pub fn flash_attn(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    candle_flash_attn::flash_attn(q, k, v, scale as f32, false)
}
