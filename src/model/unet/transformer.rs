//! The transformer of a U-Net: over the pixels of a level, which also read the conditioning tokens.
use super::UNetConfig;
use super::load::{group_norm, layer_norm, linear};
use crate::Result;
use crate::model::Scope;
use crate::ops::geglu::GegluKernel;
use crate::ops::group_norm::GroupNormKernel;
use crate::ops::layer_norm::LayerNormKernel;
use crate::ops::linear::LinearKernel;
use crate::ops::{Activation, GegluParams, Layer, LinearParams, Ops};
use candle_core::Tensor;

/// Width of the feed-forward layer over that of the tokens.
const FEED_FORWARD: usize = 4;
/// Of the group normalisation before a transformer; the ResNet blocks have their own.
const EPS: f64 = 1e-6;

/// `to_out(attention(to_q(x), to_k(context), to_v(context)))`.
struct Attention {
    /// The name of the query projection, by which a probe knows the attention.
    name: String,
    heads: usize,
    projections: Projections,
    to_out: Layer<dyn LinearKernel>,
}

/// Layers that read the same input run as one.
enum Projections {
    /// `to_q`, `to_k` and `to_v` of the pixels.
    Own(Layer<dyn LinearKernel>),
    /// `to_q` of the pixels, `to_k` and `to_v` of the context.
    Cross(Layer<dyn LinearKernel>, Layer<dyn LinearKernel>),
}

impl Attention {
    fn load(ops: &Ops, w: &Scope<'_>, channels: usize, context: Option<usize>, heads: usize) -> Result<Self> {
        let stacked = |layers: &[&str], name: &str, inputs: usize| -> Result<_> {
            let weight = w.stacked(layers, (channels, inputs), "weight")?;
            let params = LinearParams { weight, bias: None, activation: Activation::None };
            Ok(ops.prepare_linear(w.pp(name).path(), params)?)
        };
        let projections = match context {
            None => Projections::Own(stacked(&["to_q", "to_k", "to_v"], "to_qkv", channels)?),
            Some(context) => {
                Projections::Cross(stacked(&["to_q"], "to_q", channels)?, stacked(&["to_k", "to_v"], "to_kv", context)?)
            }
        };
        let to_out = linear(ops, &w.pp("to_out.0"), channels, channels, Activation::None)?;
        Ok(Self { name: w.pp("to_q").path().to_owned(), heads, projections, to_out })
    }

    /// `x` is `(b, tokens, c)`, `context` `(b, n, width)`, which self-attention does not read; `residual` is added to the result.
    fn forward(&self, ops: &Ops, x: &Tensor, context: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let (b, tokens, c) = x.dims3()?;
        let dim = c / self.heads;
        // part `i` of (b, n, parts * c) as (b, heads, n, head_dim), where it lies
        let part = |t: &Tensor, i: usize| -> candle_core::Result<Tensor> {
            let (b, n, wide) = t.dims3()?;
            t.reshape((b, n, wide / c, self.heads, dim))?.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)
        };
        let [q, k, v] = match &self.projections {
            Projections::Own(to_qkv) => {
                let y = ops.linear(to_qkv, x, None)?;
                [part(&y, 0)?, part(&y, 1)?, part(&y, 2)?]
            }
            Projections::Cross(to_q, to_kv) => {
                let y = ops.linear(to_kv, context, None)?;
                [part(&ops.linear(to_q, x, None)?, 0)?, part(&y, 0)?, part(&y, 1)?]
            }
        };
        let y = ops.attention(&self.name, &q, &k, &v, 1.0 / (dim as f64).sqrt())?;
        let y = y.transpose(1, 2)?.reshape((b, tokens, c))?; // (b, tokens, c)
        Ok(ops.linear(&self.to_out, &y, Some(residual))?)
    }
}

/// `x + self_attention(norm1(x))`, `x + cross_attention(norm2(x), context)`, `x + feed_forward(norm3(x))`, in turn.
struct BasicTransformerBlock {
    norm1: Layer<dyn LayerNormKernel>,
    attn1: Attention,
    norm2: Layer<dyn LayerNormKernel>,
    attn2: Attention,
    norm3: Layer<dyn LayerNormKernel>,
    ff_in: Layer<dyn GegluKernel>,
    ff_out: Layer<dyn LinearKernel>,
}

impl BasicTransformerBlock {
    fn load(ops: &Ops, w: &Scope<'_>, channels: usize, context: usize, heads: usize) -> Result<Self> {
        let (ff, inner) = (w.pp("ff.net"), FEED_FORWARD * channels);
        let proj = ff.pp("0.proj");
        let geglu =
            GegluParams { weight: proj.get((2 * inner, channels), "weight")?, bias: proj.get(2 * inner, "bias")? };
        Ok(Self {
            norm1: layer_norm(ops, &w.pp("norm1"), channels)?,
            attn1: Attention::load(ops, &w.pp("attn1"), channels, None, heads)?,
            norm2: layer_norm(ops, &w.pp("norm2"), channels)?,
            attn2: Attention::load(ops, &w.pp("attn2"), channels, Some(context), heads)?,
            norm3: layer_norm(ops, &w.pp("norm3"), channels)?,
            ff_in: ops.prepare_geglu(proj.path(), geglu)?,
            ff_out: linear(ops, &ff.pp("2"), inner, channels, Activation::None)?,
        })
    }

    fn forward(&self, ops: &Ops, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let y = ops.layer_norm(&self.norm1, x)?;
        let x = self.attn1.forward(ops, &y, &y, x)?;
        let y = ops.layer_norm(&self.norm2, &x)?;
        let x = self.attn2.forward(ops, &y, context, &x)?;
        let y = ops.geglu(&self.ff_in, &ops.layer_norm(&self.norm3, &x)?)?;
        Ok(ops.linear(&self.ff_out, &y, Some(&x))?)
    }
}

/// `x + proj_out(blocks(proj_in(norm(x))))` over the pixels as tokens (diffusers' `Transformer2DModel`).
pub struct Transformer {
    norm: Layer<dyn GroupNormKernel>,
    proj_in: Layer<dyn LinearKernel>,
    blocks: Vec<BasicTransformerBlock>,
    proj_out: Layer<dyn LinearKernel>,
}

impl Transformer {
    /// For level `level`, finest 0.
    pub fn load(ops: &Ops, w: &Scope<'_>, config: &UNetConfig, level: usize) -> Result<Self> {
        let (channels, heads) = (config.block_out_channels[level], config.attention_head_dim.at(level));
        let blocks = (0..config.transformer_layers_per_block.at(level)).map(|i| {
            let w = w.pp(format!("transformer_blocks.{i}"));
            BasicTransformerBlock::load(ops, &w, channels, config.cross_attention_dim, heads)
        });
        // a 1x1 convolution is a linear layer over the pixels, stored with two more dimensions
        let proj = |name: &str| -> Result<Layer<dyn LinearKernel>> {
            let w = w.pp(name);
            if config.use_linear_projection {
                return linear(ops, &w, channels, channels, Activation::None);
            }
            // `reshape` would copy a tensor that is only a shape, before anybody knows whether a file holds as much
            let weight = w.get((channels, channels, 1, 1), "weight")?.squeeze(3)?.squeeze(2)?;
            let bias = Some(w.get(channels, "bias")?);
            Ok(ops.prepare_linear(w.path(), LinearParams { weight, bias, activation: Activation::None })?)
        };
        Ok(Self {
            norm: group_norm(ops, &w.pp("norm"), channels, config.norm_num_groups, EPS, Activation::None)?,
            proj_in: proj("proj_in")?,
            blocks: blocks.collect::<Result<_>>()?,
            proj_out: proj("proj_out")?,
        })
    }

    /// Heads of the attention whose query projection is the layer of this name.
    pub fn heads(&self, layer: &str) -> Option<usize> {
        let mut attentions = self.blocks.iter().flat_map(|block| [&block.attn1, &block.attn2]);
        attentions.find(|attention| attention.name == layer).map(|attention| attention.heads)
    }

    /// `x` is `(b, c, h, w)`, `context` `(b, n, width)`.
    pub fn forward(&self, ops: &Ops, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let tokens = |t: &Tensor| t.permute((0, 2, 3, 1))?.reshape((b, h * w, c)); // (b, h * w, c)
        let mut y = ops.linear(&self.proj_in, &tokens(&ops.group_norm(&self.norm, x)?)?, None)?;
        for block in &self.blocks {
            y = block.forward(ops, &y, context)?;
        }
        let y = ops.linear(&self.proj_out, &y, Some(&tokens(x)?))?;
        Ok(y.reshape((b, h, w, c))?.permute((0, 3, 1, 2))?) // (b, c, h, w)
    }
}
