//! The convolution slot: batch norm folded and weights packed at load, everything else in the kernel's epilogue.
use super::STAGE;
use super::activations::{Dense, channels_first, filled, parameter, read_opt, refused};
use super::cpu::{
    Activation, BatchNorm, Epilogue, ImageSize, NhwcInput, PackedWeights, Storage, Walk, conv2d, conv2d_output_size,
    fold_batch_norm,
};
use crate::ops::conv2d::{Conv2d, Conv2dInput, Conv2dKernel, Conv2dParams};
use candle_core::{Result, Tensor};

pub(super) struct Fused(pub Storage);

struct Packed {
    weights: PackedWeights,
    bias: Option<Vec<f32>>,
    activation: Activation,
    walk: Walk,
    kernel: [usize; 2],
    outputs: usize,
}

/// The kernels' name for an activation.
pub(super) fn activation(a: crate::ops::Activation) -> Activation {
    match a {
        crate::ops::Activation::None => Activation::None,
        crate::ops::Activation::Silu => Activation::Silu,
        crate::ops::Activation::Gelu => Activation::Gelu,
    }
}

impl Conv2d for Fused {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, p: Conv2dParams) -> Result<Box<dyn Conv2dKernel>> {
        let (outputs, inputs, kh, kw) = p.weight.dims4()?;
        let mut weight = parameter(&p.weight)?;
        let mut bias = p.bias.as_ref().map(parameter).transpose()?;
        if let Some(norm) = &p.norm {
            let [gamma, beta] = [parameter(&norm.weight)?, parameter(&norm.bias)?];
            let [mean, variance] = [parameter(&norm.running_mean)?, parameter(&norm.running_var)?];
            let norm = BatchNorm { gamma: &gamma, beta: &beta, mean: &mean, variance: &variance, epsilon: norm.eps };
            fold_batch_norm(&mut weight, bias.get_or_insert_with(|| vec![0.0; outputs]), &norm).map_err(refused)?;
        }
        Ok(Box::new(Packed {
            weights: PackedWeights::from_conv2d(&weight, [outputs, inputs, kh, kw], self.0).map_err(refused)?,
            bias,
            activation: activation(p.activation),
            walk: Walk { stride: p.stride, padding: p.padding },
            kernel: [kh, kw],
            outputs,
        }))
    }
}

impl Conv2dKernel for Packed {
    fn run(&self, input: Conv2dInput<'_>) -> Result<Tensor> {
        input.as_it_is()?;
        let (batch, channels, height, width) = input.x.dims4()?;
        let size = ImageSize { batch, height, width };
        let [out_height, out_width] = conv2d_output_size(size, self.kernel, self.walk).map_err(refused)?;
        let x = Dense::channels_last(input.x)?;
        let skip = input.skip.map(Dense::channels_last).transpose()?;
        let skip_channels = input.skip.map_or(Ok(0), |s| s.dim(1))?;
        let residual = input.residual.map(Dense::channels_last).transpose()?;
        let shift = input.shift.map(parameter).transpose()?;
        let y = filled((batch, out_height, out_width, self.outputs), input.x.dtype(), |y| {
            x.read(|x| {
                read_opt(skip.as_ref(), |skip| {
                    read_opt(residual.as_ref(), |residual| {
                        let first = NhwcInput { values: x, channels };
                        let second = skip.map(|values| NhwcInput { values, channels: skip_channels });
                        let inputs: Vec<NhwcInput<'_>> = std::iter::once(first).chain(second).collect();
                        let epilogue = Epilogue {
                            bias: self.bias.as_deref(),
                            shift: shift.as_deref(),
                            activation: self.activation,
                            residual,
                        };
                        conv2d(&inputs, size, &self.weights, self.walk, &epilogue, y).map_err(refused)
                    })
                })
            })
        })?;
        channels_first(&y)
    }
}
