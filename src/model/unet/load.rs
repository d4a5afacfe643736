//! The layers of a U-Net as its checkpoint names them, prepared by the slots that will run them.
use crate::Result;
use crate::model::Scope;
use crate::ops::conv2d::Conv2dKernel;
use crate::ops::group_norm::GroupNormKernel;
use crate::ops::layer_norm::LayerNormKernel;
use crate::ops::linear::LinearKernel;
use crate::ops::{Activation, Conv2dParams, GroupNormParams, Layer, LayerNormParams, LinearParams, Ops};

/// A convolution with a bias that keeps the size at stride 1: 3x3 with a padding of 1, or 1x1.
pub fn conv(
    ops: &Ops,
    w: &Scope<'_>,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
) -> Result<Layer<dyn Conv2dKernel>> {
    let params = Conv2dParams {
        weight: w.get((outputs, inputs, kernel, kernel), "weight")?,
        bias: Some(w.get(outputs, "bias")?),
        norm: None,
        activation: Activation::None,
        stride,
        padding: kernel / 2,
    };
    Ok(ops.prepare_conv2d(w.path(), params)?)
}

/// A linear layer with a bias.
pub fn linear(
    ops: &Ops,
    w: &Scope<'_>,
    inputs: usize,
    outputs: usize,
    activation: Activation,
) -> Result<Layer<dyn LinearKernel>> {
    let (weight, bias) = (w.get((outputs, inputs), "weight")?, Some(w.get(outputs, "bias")?));
    Ok(ops.prepare_linear(w.path(), LinearParams { weight, bias, activation })?)
}

/// Group normalisation, with what follows it.
pub fn group_norm(
    ops: &Ops,
    w: &Scope<'_>,
    channels: usize,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Layer<dyn GroupNormKernel>> {
    let (weight, bias) = (w.get(channels, "weight")?, w.get(channels, "bias")?);
    Ok(ops.prepare_group_norm(w.path(), GroupNormParams { weight, bias, groups, eps, activation })?)
}

/// Layer normalisation with PyTorch's epsilon.
pub fn layer_norm(ops: &Ops, w: &Scope<'_>, width: usize) -> Result<Layer<dyn LayerNormKernel>> {
    let (weight, bias) = (w.get(width, "weight")?, w.get(width, "bias")?);
    Ok(ops.prepare_layer_norm(w.path(), LayerNormParams { weight, bias, eps: 1e-5 })?)
}
