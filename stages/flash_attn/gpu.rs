//! Attention on a GPU by candle-flash-attn (FlashAttention-2, arXiv:2307.08691).
use crate::cuda::{self, Grid, Kernel, Kernels, Params};
use crate::ops::Attention;
use candle_core::{DType, Device, Result, Tensor};

/// The kernels take head dims that divide by this.
const HEAD_DIM_MULTIPLE: usize = 8;
/// Values that they read at a time, 16 bytes.
const TOGETHER: usize = 8;
/// The kernels' largest head dim.
const LARGEST_HEAD_DIM: usize = 256;

/// Tiles and an online softmax; a head dim that does not divide by 8 is padded with zeros, which change neither product.
pub(super) struct Flash {
    dtype: DType,
    pad_heads: Kernel,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct PadArguments {
    x: u64,
    y: u64,
    count: i64,
    batch_stride: i64,
    token_stride: i64,
    head_stride: i64,
    tokens: i32,
    heads: i32,
    head_dim: i32,
    padded_dim: i32,
}

// SAFETY: the fields are those of `PadParams` in cuda-kernels/elementwise.cu; `padded` below fills it from tensors of the sizes it names.
unsafe impl Params for PadArguments {}

impl Flash {
    /// # Errors
    /// A type that the kernels do not store.
    pub fn load(device: &Device, dtype: DType) -> crate::Result<Self> {
        let name = if dtype == DType::BF16 { "bf16" } else { "f16" };
        Ok(Self { dtype, pad_heads: Kernels::load(device, "elementwise")?.get(&format!("pad_heads_{name}"), 0)? })
    }

    /// `(batch, heads, tokens, head_dim)` to `(batch, tokens, heads, padded_dim)`, without a copy where nothing is missing and every head begins where 16 bytes
    /// can be read at a time.
    fn tokens_major(&self, t: &Tensor, padded_dim: usize) -> Result<Tensor> {
        let t = t.transpose(1, 2)?; // (batch, tokens, heads, head_dim), as projections leave it
        let (batch, tokens, heads, head_dim) = t.dims4()?;
        if t.dtype() != self.dtype {
            candle_core::bail!("attention in {:?} was given {:?}", self.dtype, t.dtype());
        }
        let t = if t.stride()[3] == 1 || head_dim == 1 { t } else { t.contiguous()? };
        let steps = t.dims().iter().zip(t.stride()).take(3);
        let fits = steps.into_iter().all(|(count, step)| *count == 1 || step.is_multiple_of(TOGETHER));
        if padded_dim == head_dim && fits && cuda::address(&t)?.is_multiple_of(16) {
            return Ok(t);
        }
        // SAFETY: the kernel below writes every value before the stream reads one.
        let y = unsafe { cuda::output((batch, tokens, heads, padded_dim), self.dtype, t.device()) }?;
        let int = |n: usize| i32::try_from(n).map_err(candle_core::Error::wrap);
        let long = |n: usize| i64::try_from(n).map_err(candle_core::Error::wrap);
        let stride = t.stride();
        let arguments = PadArguments {
            x: cuda::address(&t)?,
            y: cuda::address(&y)?,
            count: long(y.elem_count())?,
            batch_stride: long(stride[0])?,
            token_stride: long(stride[1])?,
            head_stride: long(stride[2])?,
            tokens: int(tokens)?,
            heads: int(heads)?,
            head_dim: int(head_dim)?,
            padded_dim: int(padded_dim)?,
        };
        // SAFETY: `t` has the strides and `y` the shape that `arguments` says, and each head's values lie together.
        unsafe { self.pad_heads.launch(Grid::over(y.elem_count())?, arguments) }?;
        Ok(y)
    }
}

impl Attention for Flash {
    fn stage(&self) -> &'static str {
        "flash-attn"
    }

    fn run(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
        let (_, _, _, head_dim) = q.dims4()?;
        if head_dim > LARGEST_HEAD_DIM {
            candle_core::bail!(
                "flash-attn takes head dims up to {LARGEST_HEAD_DIM}, not {head_dim}: leave it out of --stages"
            );
        }
        let padded = head_dim.next_multiple_of(HEAD_DIM_MULTIPLE);
        let [q, k, v] = [self.tokens_major(q, padded)?, self.tokens_major(k, padded)?, self.tokens_major(v, padded)?];
        let y = cuda::flash_attn(&q, &k, &v, scale)?;
        let y = if padded == head_dim { y } else { y.narrow(3, 0, head_dim)? };
        y.transpose(1, 2)
    }
}
