//! The reference network, whose milestones the roadmap counts: two U-Nets and a temporal processor.
//!
//! Written from the description of `GPUStressTestModel` in the public project `toddllm/mirage-hello`; parameter names
//! are those of its checkpoint. With 192 base channels it has 880,258,653 parameters.
use super::weights::{Scope, Weights};
use crate::ops::conv2d::Conv2dKernel;
use crate::ops::layer_norm::LayerNormKernel;
use crate::ops::linear::LinearKernel;
use crate::ops::{Activation, BatchNorm, Conv2dInput, Conv2dParams, Filter, Layer, LayerNormParams, LinearParams, Ops};
use crate::{Error, Result};
use candle_core::Tensor;

/// Heads of every attention.
pub const HEADS: usize = 16;
/// Epsilon of every normalisation.
const EPS: f64 = 1e-5;
/// Timesteps of the diffusion process, the scale of the time plane.
pub const TIMESTEPS: usize = 50;
/// Timesteps of the calls that make one sequence, the work that the original project counts as one frame.
pub const SEQUENCE: [f64; 5] = [0.0, 10.0, 20.0, 30.0, 40.0];
/// Width and height must be multiples of this: there are four halvings.
pub const MULTIPLE: usize = 16;

/// Every pixel attends to every other at full resolution, so work grows with the square of the pixels: 64x64 is what the
/// original project runs.
pub const USUAL_SIDE: usize = 64;

/// Four times convolution 3x3, batch normalisation, SiLU.
struct HeavyConvBlock {
    name: String,
    convs: Vec<Layer<dyn Conv2dKernel>>,
}

impl HeavyConvBlock {
    fn load(ops: &Ops, w: &Scope<'_>, inputs: usize, outputs: usize) -> Result<Self> {
        let convs = (0..4)
            .map(|i| {
                let (conv, norm) = (w.pp(format!("conv_layers.{i}")), w.pp(format!("norms.{i}")));
                let inputs = if i == 0 { inputs } else { outputs };
                let params = Conv2dParams {
                    weight: conv.get((outputs, inputs, 3, 3), "weight")?,
                    bias: Some(conv.get(outputs, "bias")?),
                    norm: Some(BatchNorm {
                        weight: norm.get(outputs, "weight")?,
                        bias: norm.get(outputs, "bias")?,
                        running_mean: norm.get(outputs, "running_mean")?,
                        running_var: norm.get(outputs, "running_var")?,
                        eps: EPS,
                    }),
                    activation: Activation::Silu,
                    stride: 1,
                    padding: 1,
                };
                Ok(ops.prepare_conv2d(conv.path(), params)?)
            })
            .collect::<Result<_>>()?;
        Ok(Self { name: w.path().to_owned(), convs })
    }

    /// `cat(x, skip)`: `(b, inputs, h, w)` to `(b, outputs, h, w)`.
    fn forward(&self, ops: &Ops, x: &Tensor, skip: Option<&Tensor>) -> Result<Tensor> {
        let mut y = ops.conv2d(&self.convs[0], Conv2dInput { skip, ..x.into() })?;
        for conv in &self.convs[1..] {
            y = ops.conv2d(conv, &y)?;
        }
        ops.probe.tap(&self.name, &y);
        Ok(y)
    }
}

/// A transformer block over the pixels: `x + attention(norm1(x))`, then `x + ffn(norm2(x))`.
///
/// The original adds the input of the block, not of the norm, to the attention.
struct Attention {
    name: String,
    norm1: Layer<dyn LayerNormKernel>,
    /// `q_proj`, `k_proj` and `v_proj`, which read the same input, as one.
    qkv_proj: Layer<dyn LinearKernel>,
    out_proj: Layer<dyn LinearKernel>,
    norm2: Layer<dyn LayerNormKernel>,
    ffn_in: Layer<dyn LinearKernel>,
    ffn_out: Layer<dyn LinearKernel>,
}

impl Attention {
    fn load(ops: &Ops, w: &Scope<'_>, channels: usize) -> Result<Self> {
        let norm = |name: &str| -> Result<_> {
            let w = w.pp(name);
            let params =
                LayerNormParams { weight: w.get(channels, "weight")?, bias: w.get(channels, "bias")?, eps: EPS };
            Ok(ops.prepare_layer_norm(w.path(), params)?)
        };
        let linear = |name: &str, inputs: usize, outputs: usize, activation| -> Result<_> {
            let w = w.pp(name);
            let (weight, bias) = (w.get((outputs, inputs), "weight")?, Some(w.get(outputs, "bias")?));
            Ok(ops.prepare_linear(w.path(), LinearParams { weight, bias, activation })?)
        };
        let parts = ["q_proj", "k_proj", "v_proj"];
        let qkv = LinearParams {
            weight: w.stacked(&parts, (channels, channels), "weight")?,
            bias: Some(w.stacked(&parts, channels, "bias")?),
            activation: Activation::None,
        };
        Ok(Self {
            name: w.path().to_owned(),
            norm1: norm("norm1")?,
            qkv_proj: ops.prepare_linear(w.pp("qkv_proj").path(), qkv)?,
            out_proj: linear("out_proj", channels, channels, Activation::None)?,
            norm2: norm("norm2")?,
            ffn_in: linear("ffn.0", channels, 4 * channels, Activation::Gelu)?,
            ffn_out: linear("ffn.2", 4 * channels, channels, Activation::None)?,
        })
    }

    /// `(b, c, h, w)` to the same shape.
    fn forward(&self, ops: &Ops, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let x = x.permute((0, 2, 3, 1))?.reshape((b, h * w, c))?; // (b, tokens, c)

        let y = ops.linear(&self.qkv_proj, &ops.layer_norm(&self.norm1, &x)?, None)?;
        let y = y.reshape((b, h * w, 3, HEADS, c / HEADS))?;
        let heads = |i: usize| y.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2); // (b, heads, tokens, head_dim)
        let y = ops.attention(&self.name, &heads(0)?, &heads(1)?, &heads(2)?, 1.0 / ((c / HEADS) as f64).sqrt())?;
        let y = y.transpose(1, 2)?.reshape((b, h * w, c))?; // (b, tokens, c)
        let x = ops.linear(&self.out_proj, &y, Some(&x))?;

        let y = ops.linear(&self.ffn_in, &ops.layer_norm(&self.norm2, &x)?, None)?;
        let x = ops.linear(&self.ffn_out, &y, Some(&x))?;
        let y = x.reshape((b, h, w, c))?.permute((0, 3, 1, 2))?; // (b, c, h, w)
        ops.probe.tap(&self.name, &y);
        Ok(y)
    }
}

/// Four levels down, a bottleneck, four levels up with skip connections.
struct UNet {
    name: String,
    enc1: HeavyConvBlock,
    enc: Vec<(HeavyConvBlock, Attention)>,
    bottleneck: (HeavyConvBlock, Attention, HeavyConvBlock),
    dec: Vec<HeavyConvBlock>,
    output: Layer<dyn Conv2dKernel>,
}

impl UNet {
    fn load(ops: &Ops, w: &Scope<'_>, inputs: usize, outputs: usize, base: usize) -> Result<Self> {
        let block = |name: String, i, o| HeavyConvBlock::load(ops, &w.pp(name), i, o);
        let enc = (2..=4)
            .map(|level| {
                let (inputs, outputs) = (base << (level - 2), base << (level - 1));
                let attention = Attention::load(ops, &w.pp(format!("attn{}", level - 1)), outputs)?;
                Ok((block(format!("enc{level}"), inputs, outputs)?, attention))
            })
            .collect::<Result<_>>()?;
        let dec = (1..=4)
            .rev()
            .map(|level| {
                let channels = base << (level - 1);
                block(format!("dec{level}"), 2 * channels, if level == 1 { base } else { channels / 2 })
            })
            .collect::<Result<_>>()?;
        let out = w.pp("output");
        let output = Conv2dParams {
            weight: out.get((outputs, base, 1, 1), "weight")?,
            bias: Some(out.get(outputs, "bias")?),
            norm: None,
            activation: Activation::None,
            stride: 1,
            padding: 0,
        };
        Ok(Self {
            name: w.path().to_owned(),
            enc1: block("enc1".into(), inputs, base)?,
            enc,
            bottleneck: (
                block("bottleneck.0".into(), 8 * base, 16 * base)?,
                Attention::load(ops, &w.pp("bottleneck.1"), 16 * base)?,
                block("bottleneck.2".into(), 16 * base, 8 * base)?,
            ),
            dec,
            output: ops.prepare_conv2d(out.path(), output)?,
        })
    }

    /// `cat(x, plane)`: `(b, inputs, h, w)` to `(b, outputs, h, w)`.
    fn forward(&self, ops: &Ops, x: &Tensor, plane: Option<&Tensor>) -> Result<Tensor> {
        let down = |x: &Tensor| ops.resample(&format!("{}.down", self.name), x, Filter::MaxPool2);
        let up = |x: &Tensor| ops.resample(&format!("{}.up", self.name), x, Filter::Bilinear2);

        let mut skips = vec![self.enc1.forward(ops, x, plane)?];
        for (conv, attention) in &self.enc {
            let y = conv.forward(ops, &down(&skips[skips.len() - 1])?, None)?;
            skips.push(attention.forward(ops, &y)?);
        }
        let y = self.bottleneck.0.forward(ops, &down(&skips[skips.len() - 1])?, None)?;
        let y = self.bottleneck.1.forward(ops, &y)?;
        let mut y = self.bottleneck.2.forward(ops, &y, None)?;
        ops.probe.tap(&format!("{}.bottleneck", self.name), &y);
        for (conv, skip) in self.dec.iter().zip(skips.iter().rev()) {
            y = conv.forward(ops, &up(&y)?, Some(skip))?;
        }
        let y = ops.conv2d(&self.output, &y)?;
        ops.probe.tap(&self.name, &y);
        Ok(y)
    }
}

/// The reference network, its weights prepared for the stages that will run it.
pub struct Reference {
    unets: [UNet; 2],
    temporal_processor: (HeavyConvBlock, Attention, HeavyConvBlock),
}

impl Reference {
    /// Loads the network with `base` channels at the highest resolution.
    ///
    /// # Errors
    /// A `base` that the network cannot have, and whatever `w` finds wrong with the weights.
    pub fn load(ops: &Ops, w: &Scope<'_>, base: usize) -> Result<Self> {
        check_base(base)?;
        Ok(Self {
            unets: [UNet::load(ops, &w.pp("unets.0"), 4, 3, base)?, UNet::load(ops, &w.pp("unets.1"), 3, 3, base / 2)?],
            temporal_processor: (
                HeavyConvBlock::load(ops, &w.pp("temporal_processor.0"), 6, base)?,
                Attention::load(ops, &w.pp("temporal_processor.1"), base)?,
                HeavyConvBlock::load(ops, &w.pp("temporal_processor.2"), base, 3)?,
            ),
        })
    }

    /// Loads the network after comparing the weights with what it will ask for.
    ///
    /// # Errors
    /// As for [`load`](Self::load); each misfit named.
    pub fn checked(ops: &Ops, weights: &Weights, base: usize) -> Result<Self> {
        weights.check(&super::ModelSpec::Reference { base }.parameters()?)?;
        Self::load(ops, &weights.root(), base)
    }

    /// One call: `x` and `previous` are `(b, 3, h, w)`, `timestep` lies in `[0, 50)`; the result is `(b, 3, h, w)`.
    ///
    /// # Errors
    /// Shapes that the network does not take, and whatever an op finds wrong.
    pub fn forward(&self, ops: &Ops, x: &Tensor, timestep: f64, previous: &Tensor) -> Result<Tensor> {
        self.temporal(ops, &self.images(ops, x, &[timestep])?, previous)
    }

    /// One sequence: calls at `timesteps`, each feeding its output to the next as `previous` while `x` stays; all outputs. The U-Nets see
    /// nothing of what other calls drew, so all timesteps go through them at once, and their weights are read once.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn sequence(&self, ops: &Ops, x: &Tensor, timesteps: &[f64], previous: &Tensor) -> Result<Vec<Tensor>> {
        let (images, batch) = (self.images(ops, x, timesteps)?, x.dim(0)?);
        let mut outputs: Vec<Tensor> = Vec::with_capacity(timesteps.len());
        for i in 0..timesteps.len() {
            let y = images.narrow(0, i * batch, batch)?;
            outputs.push(self.temporal(ops, &y, outputs.last().unwrap_or(previous))?);
        }
        Ok(outputs)
    }

    /// What the U-Nets make of `x` at each of the timesteps, one after another: `(timesteps * b, 3, h, w)`.
    fn images(&self, ops: &Ops, x: &Tensor, timesteps: &[f64]) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        if c != 3 || h % MULTIPLE != 0 || w % MULTIPLE != 0 || h * w == 0 || timesteps.is_empty() {
            return Err(Error::Model(format!(
                "the reference network takes (batch, 3, height, width) with sides that divide by {MULTIPLE}, not {:?}, and at least one timestep",
                x.dims()
            )));
        }
        let plane = |t: &f64| -> Result<Tensor> {
            Ok(Tensor::full((t / TIMESTEPS as f64) as f32, (b, 1, h, w), x.device())?.to_dtype(x.dtype())?)
        };
        let planes = timesteps.iter().map(plane).collect::<Result<Vec<_>>>()?;
        let (x, planes) = match &planes[..] {
            [one] => (x.clone(), one.clone()),
            several => (Tensor::cat(&vec![x; several.len()], 0)?, Tensor::cat(several, 0)?),
        };
        let y = self.unets[0].forward(ops, &x, Some(&planes))?;
        self.unets[1].forward(ops, &y, None)
    }

    /// One call's output from what the U-Nets made of its frame.
    fn temporal(&self, ops: &Ops, image: &Tensor, previous: &Tensor) -> Result<Tensor> {
        if previous.dims() != image.dims() {
            return Err(Error::Model(format!(
                "the frame before is {:?} where {:?} is drawn: both must have one shape",
                previous.dims(),
                image.dims()
            )));
        }
        let y = self.temporal_processor.0.forward(ops, image, Some(previous))?;
        let y = self.temporal_processor.1.forward(ops, &y)?;
        self.temporal_processor.2.forward(ops, &y, None)
    }
}

/// More base channels than this fit no GPU.
const MAX_BASE: usize = 1024;

/// Whether the network can have `base` channels: each attention shares its channels among 16 heads.
///
/// # Errors
/// A number that is not a multiple of 16, or is zero, or fits no GPU.
pub fn check_base(base: usize) -> Result<()> {
    if base == 0 || !base.is_multiple_of(HEADS) || base > MAX_BASE {
        return Err(Error::Model(format!(
            "the reference network cannot have {base} base channels: choose a multiple of {HEADS} up to {MAX_BASE}"
        )));
    }
    Ok(())
}
