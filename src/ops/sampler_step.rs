//! One update of a diffusion sampler: `x0 = clip(a·x + b·output)`, `next = c·x + d·output + e·x0 + s·noise`.
use super::probe::{Call, Op};
use super::{Ops, bytes};
use crate::diffusion::Step;
use candle_core::{Result, Tensor};

/// The slot.
pub trait SamplerStep: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// All tensors have one shape; `noise` is needed where its coefficient is not zero.
    ///
    /// # Errors
    /// Tensors of different shapes, or no noise where the step needs it.
    fn run(&self, x: &Tensor, output: &Tensor, noise: Option<&Tensor>, step: &Step) -> Result<Tensor>;
}

impl Ops {
    /// Moves `x` one step of the sampler along, given what the network made of it.
    ///
    /// # Errors
    /// Tensors of different shapes, or no noise where the step needs it.
    pub fn sampler_step(&self, x: &Tensor, output: &Tensor, noise: Option<&Tensor>, step: &Step) -> Result<Tensor> {
        let moved =
            |y: &Tensor| (10 * y.elem_count() as u64, bytes(x) + bytes(output) + noise.map_or(0, bytes) + bytes(y));
        let call = Call { op: Op::SamplerStep, site: "sampler", stage: self.sampler_step.stage() };
        self.probe.run(call, moved, || self.sampler_step.run(x, output, noise, step))
    }
}

/// Written out in Candle's elementwise ops.
pub struct Reference;

impl SamplerStep for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn run(&self, x: &Tensor, output: &Tensor, noise: Option<&Tensor>, step: &Step) -> Result<Tensor> {
        let mut x0 = ((x * step.x0_from_x)? + (output * step.x0_from_out)?)?;
        if let Some(clip) = step.clip {
            x0 = x0.clamp(-clip, clip)?;
        }
        let mut next = ((x * step.next_from_x)? + (output * step.next_from_out)?)?;
        next = (next + (x0 * step.next_from_x0)?)?;
        match noise {
            Some(noise) if step.next_from_noise != 0.0 => next + (noise * step.next_from_noise)?,
            None if step.next_from_noise != 0.0 => candle_core::bail!("this sampler step needs noise and got none"),
            _ => Ok(next),
        }
    }
}
