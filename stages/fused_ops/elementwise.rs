//! The slots that change resolution or mix pictures, each in one pass over channels-last values.
use super::STAGE;
use super::activations::{Dense, Stored, by_storage, channels_first, made, refused};
use super::cpu::{self, Alpha, ChannelSlice, Upsample};
use crate::diffusion::Step;
use crate::ops::resample::{Filter, Resample};
use crate::ops::sampler_step::SamplerStep;
use crate::ops::temporal_blend::{Blend, TemporalBlend};
use candle_core::{Result, Tensor};

pub(super) struct Fused;

impl Resample for Fused {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, x: &Tensor, filter: Filter) -> Result<Tensor> {
        by_storage!(x, resample(x, filter))
    }
}

fn resample<T: Stored>(x: &Tensor, filter: Filter) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let dense = Dense::channels_last(x)?;
    let up = |mode| {
        made::<T>((b, 2 * h, 2 * w, c), |y| {
            dense.lend(|x| cpu::upsample_2x(mode, x, [b, h, w, c], ChannelSlice::whole(y, c)).map_err(refused))
        })
    };
    channels_first(&match filter {
        Filter::MaxPool2 => {
            made::<T>((b, h / 2, w / 2, c), |y| dense.lend(|x| cpu::max_pool_2x2(x, [b, h, w, c], y).map_err(refused)))?
        }
        Filter::Bilinear2 => up(Upsample::Bilinear)?,
        Filter::Nearest2 => up(Upsample::Nearest)?,
    })
}

impl SamplerStep for Fused {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, x: &Tensor, output: &Tensor, noise: Option<&Tensor>, step: &Step) -> Result<Tensor> {
        by_storage!(x, sampler_step(x, output, noise, step))
    }
}

fn sampler_step<T: Stored>(x: &Tensor, output: &Tensor, noise: Option<&Tensor>, step: &Step) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let step = cpu::SamplerStep {
        x0_from_x: step.x0_from_x as f32,
        x0_from_out: step.x0_from_out as f32,
        clip: step.clip.map(|clip| clip as f32),
        next_from_x: step.next_from_x as f32,
        next_from_out: step.next_from_out as f32,
        next_from_x0: step.next_from_x0 as f32,
        next_from_noise: step.next_from_noise as f32,
    };
    let (x, output) = (Dense::channels_last(x)?, Dense::channels_last(output)?);
    let noise = noise.map(Dense::channels_last).transpose()?;
    let y = made::<T>((b, h, w, c), |y| {
        x.lend(|x| {
            output.lend(|output| match &noise {
                Some(noise) => noise.lend(|noise| cpu::sampler_step(&step, x, output, Some(noise), y).map_err(refused)),
                None => cpu::sampler_step(&step, x, output, None, y).map_err(refused),
            })
        })
    })?;
    channels_first(&y)
}

impl TemporalBlend for Fused {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, current: &Tensor, previous: &Tensor, alpha: Blend<'_>) -> Result<Tensor> {
        by_storage!(current, blend(current, previous, alpha))
    }
}

fn blend<T: Stored>(current: &Tensor, previous: &Tensor, alpha: Blend<'_>) -> Result<Tensor> {
    let (b, c, h, w) = current.dims4()?;
    let (current, previous) = (Dense::channels_last(current)?, Dense::channels_last(previous)?);
    let y = made::<T>((b, h, w, c), |y| {
        current.lend(|current| {
            previous.lend(|previous| match alpha {
                Blend::Fixed(alpha) => {
                    let alpha = Alpha::Uniform(alpha as f32);
                    cpu::temporal_blend(current, previous, alpha, c, y).map_err(refused)
                }
                Blend::Map(map) => Dense::channels_last(map)?
                    .lend(|map| cpu::temporal_blend(current, previous, Alpha::PerPixel(map), c, y).map_err(refused)),
            })
        })
    })?;
    channels_first(&y)
}
