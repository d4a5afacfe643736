//! The ResNet block of a U-Net, which takes in the timestep, and the changes of size between levels.
use super::UNetConfig;
use super::load::{conv, group_norm, linear};
use crate::Result;
use crate::model::Scope;
use crate::ops::conv2d::Conv2dKernel;
use crate::ops::group_norm::GroupNormKernel;
use crate::ops::linear::LinearKernel;
use crate::ops::{Activation, Conv2dInput, Layer, Ops};
use candle_core::Tensor;

/// `shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time)))`, with `x` a level's input, or it and a skip.
pub struct ResnetBlock {
    norm1: Layer<dyn GroupNormKernel>,
    conv1: Layer<dyn Conv2dKernel>,
    time_emb_proj: Layer<dyn LinearKernel>,
    norm2: Layer<dyn GroupNormKernel>,
    conv2: Layer<dyn Conv2dKernel>,
    conv_shortcut: Option<Layer<dyn Conv2dKernel>>,
}

impl ResnetBlock {
    /// From `inputs` to `outputs` channels, skip included.
    pub fn load(ops: &Ops, w: &Scope<'_>, config: &UNetConfig, inputs: usize, outputs: usize) -> Result<Self> {
        let norm = |name: &str, channels| {
            group_norm(ops, &w.pp(name), channels, config.norm_num_groups, config.norm_eps, Activation::Silu)
        };
        let time = super::time_embed_dim(config);
        let shortcut = (inputs != outputs).then(|| conv(ops, &w.pp("conv_shortcut"), inputs, outputs, 1, 1));
        Ok(Self {
            norm1: norm("norm1", inputs)?,
            conv1: conv(ops, &w.pp("conv1"), inputs, outputs, 3, 1)?,
            time_emb_proj: linear(ops, &w.pp("time_emb_proj"), time, outputs, Activation::None)?,
            norm2: norm("norm2", outputs)?,
            conv2: conv(ops, &w.pp("conv2"), outputs, outputs, 3, 1)?,
            conv_shortcut: shortcut.transpose()?,
        })
    }

    /// What the block adds for a timestep, `(1, outputs)`; `time` is `silu` of the embedding, `(1, time)`.
    pub fn shift(&self, ops: &Ops, time: &Tensor) -> Result<Tensor> {
        Ok(ops.linear(&self.time_emb_proj, time, None)?)
    }

    /// `x` and `skip` are `(b, channels, h, w)`, together `inputs`; `shift` is what [`shift`](Self::shift) gave.
    pub fn forward(&self, ops: &Ops, x: &Tensor, skip: Option<&Tensor>, shift: &Tensor) -> Result<Tensor> {
        let joined = skip.map(|skip| join_channels(x, skip)).transpose()?;
        let x = joined.as_ref().unwrap_or(x);
        let time = shift.broadcast_as((x.dim(0)?, shift.dim(1)?))?.contiguous()?;
        let y = ops.group_norm(&self.norm1, x)?;
        let y = ops.conv2d(&self.conv1, Conv2dInput { shift: Some(&time), ..(&y).into() })?;
        let y = ops.group_norm(&self.norm2, &y)?;
        let shortcut = self.conv_shortcut.as_ref().map(|conv| ops.conv2d(conv, x)).transpose()?;
        Ok(ops.conv2d(&self.conv2, Conv2dInput { residual: Some(shortcut.as_ref().unwrap_or(x)), ..(&y).into() })?)
    }
}

/// `cat(x, skip)` along the channels, as it lies best: images with their channels last in memory stay so.
fn join_channels(x: &Tensor, skip: &Tensor) -> Result<Tensor> {
    if x.stride()[1] != 1 {
        return Ok(Tensor::cat(&[x, skip], 1)?);
    }
    let last = |t: &Tensor| t.permute((0, 2, 3, 1))?.contiguous();
    Ok(Tensor::cat(&[last(x)?, last(skip)?], 3)?.permute((0, 3, 1, 2))?)
}

/// Half the size by a convolution of stride 2.
pub struct Downsample(Layer<dyn Conv2dKernel>);

impl Downsample {
    /// Keeps the number of channels.
    pub fn load(ops: &Ops, w: &Scope<'_>, channels: usize) -> Result<Self> {
        Ok(Self(conv(ops, &w.pp("conv"), channels, channels, 3, 2)?))
    }

    /// `(b, c, h, w)` to `(b, c, h/2, w/2)`.
    pub fn forward(&self, ops: &Ops, x: &Tensor) -> Result<Tensor> {
        Ok(ops.conv2d(&self.0, x)?)
    }
}

/// Twice the size by the nearest pixel, then a convolution.
pub struct Upsample(Layer<dyn Conv2dKernel>);

impl Upsample {
    /// Keeps the number of channels.
    pub fn load(ops: &Ops, w: &Scope<'_>, channels: usize) -> Result<Self> {
        Ok(Self(conv(ops, &w.pp("conv"), channels, channels, 3, 1)?))
    }

    /// `(b, c, h, w)` to `(b, c, 2h, 2w)`.
    pub fn forward(&self, ops: &Ops, x: &Tensor) -> Result<Tensor> {
        Ok(ops.conv2d(&self.0, Conv2dInput { upsample: true, ..x.into() })?)
    }
}
