//! The norm slots: statistics in one pass, the result with its activation in another.
use super::STAGE;
use super::activations::{Dense, Stored, by_storage, channels_first, made, parameter, refused};
use super::cpu;
use crate::ops::Activation;
use crate::ops::group_norm::{GroupNorm, GroupNormKernel, GroupNormParams};
use crate::ops::layer_norm::{LayerNorm, LayerNormKernel, LayerNormParams};
use candle_core::{Result, Tensor};

pub(super) struct Fused;

/// Scale and offset of a norm as plain f32.
struct Affine {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

struct Group {
    affine: Affine,
    groups: usize,
    activation: Activation,
}

impl GroupNorm for Fused {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, p: GroupNormParams) -> Result<Box<dyn GroupNormKernel>> {
        let affine = Affine { weight: parameter(&p.weight)?, bias: parameter(&p.bias)?, epsilon: p.eps as f32 };
        Ok(Box::new(Group { affine, groups: p.groups, activation: p.activation }))
    }
}

impl GroupNormKernel for Group {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        let y = by_storage!(x, group_norm(self, x))?;
        match self.activation {
            Activation::None | Activation::Silu => Ok(y),
            // no network has it: not worth a kernel
            Activation::Gelu => y.gelu_erf(),
        }
    }
}

fn group_norm<T: Stored>(layer: &Group, x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let norm = cpu::GroupNorm {
        groups: layer.groups,
        epsilon: layer.affine.epsilon,
        weight: &layer.affine.weight,
        bias: &layer.affine.bias,
        silu: layer.activation == Activation::Silu,
    };
    let y = made::<T>((batch, height, width, channels), |y| {
        Dense::channels_last(x)?
            .lend(|x| cpu::group_norm(x, [batch, height * width, channels], &norm, y).map_err(refused))
    })?;
    channels_first(&y)
}

impl LayerNorm for Fused {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, p: LayerNormParams) -> Result<Box<dyn LayerNormKernel>> {
        Ok(Box::new(Affine { weight: parameter(&p.weight)?, bias: parameter(&p.bias)?, epsilon: p.eps as f32 }))
    }
}

impl LayerNormKernel for Affine {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        by_storage!(x, layer_norm(self, x))
    }
}

fn layer_norm<T: Stored>(layer: &Affine, x: &Tensor) -> Result<Tensor> {
    let width = layer.weight.len();
    let rows = x.elem_count() / width.max(1);
    made::<T>(x.shape(), |y| {
        Dense::new(x)?
            .lend(|x| cpu::layer_norm(x, [rows, width], &layer.weight, &layer.bias, layer.epsilon, y).map_err(refused))
    })
}
