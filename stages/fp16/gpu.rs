//! Half storage on a GPU: convolutions and linear layers on tensor cores with sums in f32, which a pass of its own finishes and rounds
//! once.
//!
//! Candle's half-precision convolution adds in half precision and is slower than its f32 one, so it is the first thing replaced.
use super::STAGE;
use crate::cuda::{self, Grid, Kernel, Kernels, Params};
use crate::ops::attention::Attention;
use crate::ops::conv2d::{Conv2d, Conv2dInput, Conv2dKernel, Conv2dParams};
use crate::ops::geglu::{Geglu, GegluKernel, GegluParams};
use crate::ops::linear::{Linear, LinearKernel, LinearParams};
use crate::stages::tensor_cores::{
    Ending, Epilogue, Input, PackedWeights, TensorCores, by_eights, fold_batch_norm, interleave_gates, type_name,
};
use candle_core::{DType, Device, Result, Tensor};
use std::sync::Arc;

/// The slots that run on tensor cores.
pub(super) struct Sums(pub Arc<TensorCores>);

/// A layer: its packed matrix and what follows the sums.
struct Layer {
    cores: Arc<TensorCores>,
    weights: PackedWeights,
    scale: Option<Tensor>,
    bias: Option<Tensor>,
    ending: Ending,
    stride: usize,
    padding: usize,
}

impl Conv2d for Sums {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, p: Conv2dParams) -> Result<Box<dyn Conv2dKernel>> {
        let (scale, bias) = match &p.norm {
            Some(norm) => {
                let (scale, bias) = fold_batch_norm(norm, p.bias.as_ref())?;
                (Some(scale), Some(bias))
            }
            None => (None, p.bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?),
        };
        Ok(Box::new(Layer {
            weights: PackedWeights::conv2d(&p.weight, self.0.dtype())?,
            cores: self.0.clone(),
            scale: scale.map(|scale| by_eights(&scale, 0)).transpose()?,
            bias: bias.map(|bias| by_eights(&bias, 0)).transpose()?,
            ending: p.activation.into(),
            stride: p.stride,
            padding: p.padding,
        }))
    }
}

impl Conv2dKernel for Layer {
    fn run(&self, input: Conv2dInput<'_>) -> Result<Tensor> {
        let shift = input.shift.map(Tensor::contiguous).transpose()?;
        let epilogue = Epilogue {
            scale: self.scale.as_ref(),
            bias: self.bias.as_ref(),
            shift: shift.as_ref(),
            ending: self.ending,
            residual: input.residual,
        };
        let (stride, padding, upsample) = (self.stride, self.padding, input.upsample);
        self.cores.unfused(&self.weights, Input { x: input.x, skip: input.skip, stride, padding, upsample }, epilogue)
    }
}

impl Layer {
    fn matrix(cores: &Arc<TensorCores>, weight: &Tensor, bias: Option<Tensor>, ending: Ending) -> Result<Self> {
        Ok(Self {
            weights: PackedWeights::linear(weight, cores.dtype())?,
            cores: cores.clone(),
            scale: None,
            bias: bias.map(|bias| by_eights(&bias.to_dtype(DType::F32)?, 0)).transpose()?,
            ending,
            stride: 1,
            padding: 0,
        })
    }

    /// `(…, in)` to `(…, out)`.
    fn rows(&self, x: &Tensor, residual: Option<&Tensor>, outputs: usize) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let inputs = shape.pop().unwrap_or(1);
        shape.push(outputs);
        let pixel = |t: &Tensor, channels: usize| t.reshape((t.elem_count() / channels, channels, 1, 1));
        let (x, residual) = (pixel(x, inputs)?, residual.map(|r| pixel(r, outputs)).transpose()?);
        let input = Input { x: &x, skip: None, stride: 1, padding: 0, upsample: false };
        let bias = self.bias.as_ref();
        let epilogue = Epilogue { scale: None, bias, shift: None, ending: self.ending, residual: residual.as_ref() };
        self.cores.unfused(&self.weights, input, epilogue)?.reshape(shape)
    }
}

impl Linear for Sums {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, p: LinearParams) -> Result<Box<dyn LinearKernel>> {
        Ok(Box::new(Layer::matrix(&self.0, &p.weight, p.bias, p.activation.into())?))
    }
}

impl LinearKernel for Layer {
    fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        self.rows(x, residual, self.weights.outputs())
    }
}

impl Geglu for Sums {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, p: GegluParams) -> Result<Box<dyn GegluKernel>> {
        let bias = Some(interleave_gates(&p.bias)?);
        Ok(Box::new(Layer::matrix(&self.0, &interleave_gates(&p.weight)?, bias, Ending::Geglu)?))
    }
}

impl GegluKernel for Layer {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        self.rows(x, None, self.weights.outputs() / 2)
    }
}

/// Plain attention: products by cuBLAS, the first in f32 so that the softmax sees what was not rounded, its result in the storage
/// type. Heads take turns, so that the matrices of a frame need not all be there at once.
pub(super) struct PlainAttention {
    dtype: DType,
    /// For rows that divide by 8, and for any.
    softmax: [Kernel; 2],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct SoftmaxArguments {
    x: u64,
    y: u64,
    width: i32,
    scale: f32,
}

// SAFETY: the fields are those of `SoftmaxParams` in cuda-kernels/norm.cu; `softmax` below fills it from tensors of that size.
unsafe impl Params for SoftmaxArguments {}

/// Head dims that divide by this let cuBLAS use tensor cores.
const HEAD_DIM_MULTIPLE: usize = 8;
/// Bytes of f32 products at a time, where one head does not need more: about what the second-level cache of the larger cards holds.
const MATRIX_BYTES: usize = 64 << 20;

impl PlainAttention {
    pub fn load(device: &Device, dtype: DType) -> crate::Result<Self> {
        let (name, kernels) = (type_name(dtype)?, Kernels::load(device, "norm")?);
        let get = |ending| kernels.get(&format!("softmax_{name}{ending}"), 0);
        Ok(Self { dtype, softmax: [get("")?, get("_any")?] })
    }

    /// Of `(heads, queries, tokens)` in f32 over the tokens, to the storage type.
    fn softmax(&self, products: &Tensor, scale: f64) -> Result<Tensor> {
        let (heads, queries, tokens) = products.dims3()?;
        // SAFETY: the kernel below writes every value before the stream reads one.
        let y = unsafe { cuda::output(products.shape(), self.dtype, products.device()) }?;
        let arguments = SoftmaxArguments {
            x: cuda::address(products)?,
            y: cuda::address(&y)?,
            width: i32::try_from(tokens).map_err(candle_core::Error::wrap)?,
            scale: scale as f32,
        };
        let blocks = u32::try_from(heads * queries).map_err(candle_core::Error::wrap)?;
        let kernel = &self.softmax[usize::from(!tokens.is_multiple_of(8))];
        // SAFETY: both tensors have a row of `tokens` values for each block.
        unsafe { kernel.launch(Grid { blocks: [blocks, 1, 1], threads: 256, shared: 0, cluster: 1 }, arguments) }?;
        Ok(y)
    }
}

impl Attention for PlainAttention {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
        let (batch, heads, queries, head_dim) = q.dims4()?;
        let tokens = k.dim(2)?;
        if q.dtype() != self.dtype || tokens == 0 {
            candle_core::bail!("attention in {:?} was given {:?} over {tokens} tokens", self.dtype, q.dtype());
        }
        let missing = head_dim.next_multiple_of(HEAD_DIM_MULTIPLE) - head_dim;
        // (batch * heads, n, head_dim)
        let flat = |t: &Tensor| {
            let t = t.contiguous()?.flatten(0, 1)?;
            if missing == 0 { Ok(t) } else { t.pad_with_zeros(2, 0, missing) }
        };
        let (q, k, v) = (flat(q)?.to_dtype(DType::F32)?, flat(k)?.to_dtype(DType::F32)?, flat(v)?);
        let together = (MATRIX_BYTES / (queries * tokens * 4)).clamp(1, batch * heads);
        let turn = |first: usize| {
            let count = together.min(batch * heads - first);
            let part = |t: &Tensor| t.narrow(0, first, count);
            let products = part(&q)?.matmul(&part(&k)?.transpose(1, 2)?)?;
            self.softmax(&products, scale)?.matmul(&part(&v)?)
        };
        let parts = (0..batch * heads).step_by(together).map(turn).collect::<Result<Vec<_>>>()?;
        let y = if let [one] = &parts[..] { one.clone() } else { Tensor::cat(&parts, 0)? };
        let y = y.reshape((batch, heads, queries, head_dim + missing))?;
        if missing == 0 { Ok(y) } else { y.narrow(3, 0, head_dim) }
    }
}
