//! A conditional U-Net in the layout of diffusers' `UNet2DConditionModel`: names as in its checkpoints, any configuration
//! that `config.json` can say of the parts built here (arXiv:2112.10752; Stable Diffusion 1.5, 2.1 and SD-Turbo among them).
mod config;
mod embedding;
mod load;
mod resnet;
mod transformer;

pub use config::{ClassEmbedType, DownBlockType, MidBlockType, PerLevel, UNetConfig, UpBlockType};

use crate::model::Scope;
use crate::ops::conv2d::Conv2dKernel;
use crate::ops::group_norm::GroupNormKernel;
use crate::ops::{Activation, Conv2dInput, Layer, Ops};
use crate::{Error, Result};
use candle_core::Tensor;
use embedding::{TimestepEmbedding, sinusoidal};
use load::{conv, group_norm};
use resnet::{Downsample, ResnetBlock, Upsample};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use transformer::Transformer;

/// Channels of the embedded timestep.
fn time_embed_dim(config: &UNetConfig) -> usize {
    4 * config.block_out_channels[0]
}

/// ResNet blocks, each followed by a transformer where the level has them.
struct Level<Resize> {
    blocks: Vec<(ResnetBlock, Option<Transformer>)>,
    resize: Option<Resize>,
}

/// The network, its weights prepared for the stages that will run it.
pub struct UNet {
    config: UNetConfig,
    time_embedding: TimestepEmbedding,
    class_embedding: Option<TimestepEmbedding>,
    conv_in: Layer<dyn Conv2dKernel>,
    down: Vec<Level<Downsample>>,
    mid: (ResnetBlock, Transformer, ResnetBlock),
    up: Vec<Level<Upsample>>,
    conv_norm_out: Layer<dyn GroupNormKernel>,
    conv_out: Layer<dyn Conv2dKernel>,
    shifts: Mutex<HashMap<Moment, Arc<[Tensor]>>>,
}

/// A timestep and a class label, to the bit.
type Moment = (u64, Option<u64>);

/// Moments for which the network remembers what its ResNet blocks add: more than a sampler has steps.
const REMEMBERED: usize = 64;

impl UNet {
    /// Loads the network that `config` describes.
    ///
    /// # Errors
    /// Whatever `w` finds wrong with the weights.
    pub fn load(ops: &Ops, w: &Scope<'_>, config: &UNetConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (last, time) = (channels.len() - 1, time_embed_dim(config));
        let resnet = |w: &Scope<'_>, i: usize, inputs, outputs| {
            ResnetBlock::load(ops, &w.pp(format!("resnets.{i}")), config, inputs, outputs)
        };
        let attention =
            |w: &Scope<'_>, i: usize, level| Transformer::load(ops, &w.pp(format!("attentions.{i}")), config, level);

        let down = (0..=last).map(|level| {
            let w = w.pp(format!("down_blocks.{level}"));
            let attends = config.down_block_types[level] == DownBlockType::CrossAttnDownBlock2D;
            let (before, here) = (channels[level.saturating_sub(1)], channels[level]);
            let blocks = (0..config.layers_per_block).map(|i| {
                let inputs = if i == 0 { before } else { here };
                let transformer = attends.then(|| attention(&w, i, level)).transpose()?;
                Ok((resnet(&w, i, inputs, here)?, transformer))
            });
            let blocks = blocks.collect::<Result<_>>()?;
            let resize = (level < last).then(|| Downsample::load(ops, &w.pp("downsamplers.0"), here)).transpose()?;
            Ok(Level { blocks, resize })
        });
        let up = (0..=last).map(|i| {
            let w = w.pp(format!("up_blocks.{i}"));
            let attends = config.up_block_types[i] == UpBlockType::CrossAttnUpBlock2D;
            let level = last - i;
            let (below, here, above) =
                (channels[last.min(level + 1)], channels[level], channels[level.saturating_sub(1)]);
            let blocks = (0..=config.layers_per_block).map(|j| {
                let from_below = if j == 0 { below } else { here };
                // the level's first skip came from the level above it
                let skip = if j == config.layers_per_block { above } else { here };
                let transformer = attends.then(|| attention(&w, j, level)).transpose()?;
                Ok((resnet(&w, j, from_below + skip, here)?, transformer))
            });
            let blocks = blocks.collect::<Result<_>>()?;
            let resize = (i < last).then(|| Upsample::load(ops, &w.pp("upsamplers.0"), here)).transpose()?;
            Ok(Level { blocks, resize })
        });
        let mid = w.pp("mid_block");
        let class = config
            .class_embed_type
            .map(|ClassEmbedType::Timestep| TimestepEmbedding::load(ops, &w.pp("class_embedding"), channels[0], time));
        Ok(Self {
            time_embedding: TimestepEmbedding::load(ops, &w.pp("time_embedding"), channels[0], time)?,
            class_embedding: class.transpose()?,
            conv_in: conv(ops, &w.pp("conv_in"), config.in_channels, channels[0], 3, 1)?,
            down: down.collect::<Result<_>>()?,
            mid: (
                resnet(&mid, 0, channels[last], channels[last])?,
                attention(&mid, 0, last)?,
                resnet(&mid, 1, channels[last], channels[last])?,
            ),
            up: up.collect::<Result<_>>()?,
            conv_norm_out: group_norm(
                ops,
                &w.pp("conv_norm_out"),
                channels[0],
                config.norm_num_groups,
                config.norm_eps,
                Activation::Silu,
            )?,
            conv_out: conv(ops, &w.pp("conv_out"), channels[0], config.out_channels, 3, 1)?,
            config: config.clone(),
            shifts: Mutex::default(),
        })
    }

    /// One call: `sample` is `(b, in_channels, h, w)`, or its first channels where `rest` holds the others; `context` the conditioning tokens, `(b, n, cross_attention_dim)`,
    /// `class_label` the second timestep of networks that take one; the result is `(b, out_channels, h, w)`.
    ///
    /// # Errors
    /// Shapes that the network does not take, a class label where none belongs or none where one does.
    pub fn forward(
        &self,
        ops: &Ops,
        sample: &Tensor,
        rest: Option<&Tensor>,
        timestep: f64,
        context: &Tensor,
        class_label: Option<f64>,
    ) -> Result<Tensor> {
        self.check(sample, rest, context)?;
        let shifts = self.shifts(ops, timestep, class_label)?;
        let mut shifts = shifts.iter();
        let mut shift =
            || shifts.next().ok_or_else(|| Error::Model("a ResNet block of this U-Net has no shift".into()));
        let centre = |t: &Tensor| if self.config.center_input_sample { (t * 2.0)? - 1.0 } else { Ok(t.clone()) };
        let (sample, rest) = (centre(sample)?, rest.map(centre).transpose()?);

        let mut x = ops.conv2d(&self.conv_in, Conv2dInput { skip: rest.as_ref(), ..(&sample).into() })?;
        let mut skips = vec![x.clone()];
        for level in &self.down {
            for (resnet, transformer) in &level.blocks {
                x = resnet.forward(ops, &x, None, shift()?)?;
                if let Some(transformer) = transformer {
                    x = transformer.forward(ops, &x, context)?;
                }
                skips.push(x.clone());
            }
            if let Some(downsample) = &level.resize {
                x = downsample.forward(ops, &x)?;
                skips.push(x.clone());
            }
        }
        x = self.mid.0.forward(ops, &x, None, shift()?)?;
        x = self.mid.1.forward(ops, &x, context)?;
        x = self.mid.2.forward(ops, &x, None, shift()?)?;
        for level in &self.up {
            for (resnet, transformer) in &level.blocks {
                let skip = skips.pop(); // one was pushed for each of these blocks
                x = resnet.forward(ops, &x, skip.as_ref(), shift()?)?;
                if let Some(transformer) = transformer {
                    x = transformer.forward(ops, &x, context)?;
                }
            }
            if let Some(upsample) = &level.resize {
                x = upsample.forward(ops, &x)?;
            }
        }
        Ok(ops.conv2d(&self.conv_out, &ops.group_norm(&self.conv_norm_out, &x)?)?)
    }

    /// Heads of the attention whose query projection is the layer of this name.
    pub fn heads(&self, layer: &str) -> Option<usize> {
        let down = self.down.iter().flat_map(|level| &level.blocks);
        let up = self.up.iter().flat_map(|level| &level.blocks);
        let transformers = down.chain(up).filter_map(|(_, transformer)| transformer.as_ref());
        transformers.chain([&self.mid.1]).find_map(|transformer| transformer.heads(layer))
    }

    /// What each ResNet block adds, in the order in which they run. It is the same in every frame at the same step, and so worked out once.
    fn shifts(&self, ops: &Ops, timestep: f64, class_label: Option<f64>) -> Result<Arc<[Tensor]>> {
        // nothing panics while it is held
        let remembered = || self.shifts.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = (timestep.to_bits(), class_label.map(f64::to_bits));
        if let Some(known) = remembered().get(&moment) {
            return Ok(known.clone());
        }
        let time = self.embed(ops, timestep, class_label)?;
        let down = self.down.iter().flat_map(|level| &level.blocks).map(|(block, _)| block);
        let up = self.up.iter().flat_map(|level| &level.blocks).map(|(block, _)| block);
        let blocks = down.chain([&self.mid.0, &self.mid.2]).chain(up);
        let shifts: Arc<[Tensor]> = blocks.map(|block| block.shift(ops, &time)).collect::<Result<_>>()?;
        // what is made while work is recorded lies in the recording's memory; and what a recording reads must never go
        let mut remembered = remembered();
        if ops.recording()? || remembered.len() == REMEMBERED {
            return Ok(shifts);
        }
        Ok(remembered.entry(moment).or_insert(shifts).clone())
    }

    /// `silu` of the embedded timestep and class label, `(1, time)`: every ResNet block begins with it.
    fn embed(&self, ops: &Ops, timestep: f64, class_label: Option<f64>) -> Result<Tensor> {
        let c = &self.config;
        let sines = |t| sinusoidal(ops, t, c.block_out_channels[0], c.flip_sin_to_cos, c.freq_shift);
        let time = self.time_embedding.forward(ops, &sines(timestep)?)?;
        let sum = match (&self.class_embedding, class_label) {
            (Some(class), Some(label)) => (time + class.forward(ops, &sines(label)?)?)?,
            (None, None) => time,
            (Some(_), None) => return Err(Error::Model("this U-Net needs a class label, a second timestep".into())),
            (None, Some(_)) => return Err(Error::Model("this U-Net takes no class label".into())),
        };
        Ok(sum.silu()?)
    }

    fn check(&self, sample: &Tensor, rest: Option<&Tensor>, context: &Tensor) -> Result<()> {
        let (c, multiple) = (&self.config, self.config.multiple());
        let more = rest.map_or(Ok(0), |rest| rest.dim(1))?;
        let sample_fits = matches!(sample.dims(), [_, channels, h, w]
            if channels + more == c.in_channels && h * w > 0 && h % multiple == 0 && w % multiple == 0);
        let context_fits = matches!((sample.dims(), context.dims()), ([b, ..], [batch, n, width])
            if b == batch && *n > 0 && *width == c.cross_attention_dim);
        if sample_fits && context_fits {
            return Ok(());
        }
        Err(Error::Model(format!(
            "this U-Net takes (batch, {}, height, width) with sides that divide by {multiple} and tokens (batch, n, {}), not \
             {:?} and {:?}",
            c.in_channels,
            c.cross_attention_dim,
            sample.dims(),
            context.dims()
        )))
    }
}
