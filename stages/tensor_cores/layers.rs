//! Convolutions and linear layers with all that follows them, before the result leaves the processor.
use super::{Ending, Finish, Input, PackedWeights, TensorCores, by_eights, fold_batch_norm, interleave_gates};
use crate::ops::conv2d::{Conv2d, Conv2dInput, Conv2dKernel, Conv2dParams};
use crate::ops::geglu::{Geglu, GegluKernel, GegluParams};
use crate::ops::linear::{Linear, LinearKernel, LinearParams};
use candle_core::{DType, Result, Tensor};
use std::sync::Arc;

/// The slots that run on tensor cores, for the stage of this name.
pub struct Layers {
    /// The stage.
    pub stage: &'static str,
    /// Its kernels.
    pub cores: Arc<TensorCores>,
}

/// `(batch, channels, height, width)` to `(batch, height, width, channels)`, without a copy where it lies so.
///
/// # Errors
/// A tensor of other than four dimensions.
pub fn channels_last(t: &Tensor) -> Result<Tensor> {
    t.permute((0, 2, 3, 1))?.contiguous()
}

/// A layer, its batch normalisation folded into the weights.
struct Layer {
    cores: Arc<TensorCores>,
    weights: PackedWeights,
    bias: Option<Tensor>,
    ending: Ending,
    stride: usize,
    padding: usize,
}

impl Conv2d for Layers {
    fn stage(&self) -> &'static str {
        self.stage
    }

    fn prepare(&self, p: Conv2dParams) -> Result<Box<dyn Conv2dKernel>> {
        let (weights, bias) = match &p.norm {
            Some(norm) => {
                let (scale, bias) = fold_batch_norm(norm, p.bias.as_ref())?;
                (self.cores.pack(&p.weight, Some(&scale))?, Some(bias))
            }
            None => (self.cores.pack(&p.weight, None)?, p.bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?),
        };
        let bias = bias.map(|bias| by_eights(&bias, 0)).transpose()?;
        let (cores, ending) = (self.cores.clone(), p.activation.into());
        Ok(Box::new(Layer { cores, weights, bias, ending, stride: p.stride, padding: p.padding }))
    }
}

impl Conv2dKernel for Layer {
    fn run(&self, input: Conv2dInput<'_>) -> Result<Tensor> {
        let shift = input.shift.map(Tensor::contiguous).transpose()?;
        let finish =
            Finish { bias: self.bias.as_ref(), shift: shift.as_ref(), ending: self.ending, residual: input.residual };
        let (stride, padding, upsample) = (self.stride, self.padding, input.upsample);
        self.cores.fused(&self.weights, Input { x: input.x, skip: input.skip, stride, padding, upsample }, finish)
    }

    fn upsamples(&self) -> bool {
        self.cores.upsamples()
    }
}

impl Layer {
    fn matrix(cores: &Arc<TensorCores>, weight: &Tensor, bias: Option<Tensor>, ending: Ending) -> Result<Self> {
        // a convolution of one pixel
        let weights = cores.pack(&weight.unsqueeze(2)?.unsqueeze(3)?, None)?;
        let bias = bias.map(|bias| by_eights(&bias.to_dtype(DType::F32)?, 0)).transpose()?;
        Ok(Self { cores: cores.clone(), weights, bias, ending, stride: 1, padding: 0 })
    }

    /// `(…, in)` to `(…, out)`: each row a picture of one pixel.
    fn rows(&self, x: &Tensor, residual: Option<&Tensor>, outputs: usize) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let inputs = shape.pop().unwrap_or(1);
        shape.push(outputs);
        let pixel = |t: &Tensor, channels: usize| t.reshape((t.elem_count() / channels, channels, 1, 1));
        let (x, residual) = (pixel(x, inputs)?, residual.map(|r| pixel(r, outputs)).transpose()?);
        let input = Input { x: &x, skip: None, stride: 1, padding: 0, upsample: false };
        let finish = Finish { bias: self.bias.as_ref(), shift: None, ending: self.ending, residual: residual.as_ref() };
        self.cores.fused(&self.weights, input, finish)?.reshape(shape)
    }
}

impl Linear for Layers {
    fn stage(&self) -> &'static str {
        self.stage
    }

    fn prepare(&self, p: LinearParams) -> Result<Box<dyn LinearKernel>> {
        Ok(Box::new(Layer::matrix(&self.cores, &p.weight, p.bias, p.activation.into())?))
    }
}

impl LinearKernel for Layer {
    fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        self.rows(x, residual, self.weights.outputs())
    }
}

impl Geglu for Layers {
    fn stage(&self) -> &'static str {
        self.stage
    }

    fn prepare(&self, p: GegluParams) -> Result<Box<dyn GegluKernel>> {
        let bias = Some(interleave_gates(&p.bias)?);
        Ok(Box::new(Layer::matrix(&self.cores, &interleave_gates(&p.weight)?, bias, Ending::Geglu)?))
    }
}

impl GegluKernel for Layer {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        self.rows(x, None, self.weights.outputs() / 2)
    }
}
