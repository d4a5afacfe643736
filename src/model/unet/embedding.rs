//! The embedding of a timestep: sines and cosines through two linear layers.
use super::load::linear;
use crate::Result;
use crate::model::Scope;
use crate::ops::linear::LinearKernel;
use crate::ops::{Activation, Layer, Ops};
use candle_core::Tensor;

/// The longest period of the embedding (arXiv:1706.03762, section 3.5).
const LONGEST_PERIOD: f64 = 10_000.0;

/// Sines and cosines of one timestep at `channels / 2` frequencies, `(1, channels)`.
pub fn sinusoidal(ops: &Ops, timestep: f64, channels: usize, cosine_first: bool, freq_shift: f64) -> Result<Tensor> {
    let half = channels / 2;
    let angle = |i: usize| timestep * (-LONGEST_PERIOD.ln() * i as f64 / (half as f64 - freq_shift)).exp();
    let sines = (0..half).map(|i| angle(i).sin() as f32);
    let cosines = (0..half).map(|i| angle(i).cos() as f32);
    let values: Vec<f32> = if cosine_first { cosines.chain(sines).collect() } else { sines.chain(cosines).collect() };
    Ok(Tensor::from_vec(values, (1, channels), &ops.device)?.to_dtype(ops.dtype)?)
}

/// `linear_2(silu(linear_1(x)))`.
pub struct TimestepEmbedding {
    linear_1: Layer<dyn LinearKernel>,
    linear_2: Layer<dyn LinearKernel>,
}

impl TimestepEmbedding {
    /// From `inputs` to `outputs` channels.
    pub fn load(ops: &Ops, w: &Scope<'_>, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Self {
            linear_1: linear(ops, &w.pp("linear_1"), inputs, outputs, Activation::Silu)?,
            linear_2: linear(ops, &w.pp("linear_2"), outputs, outputs, Activation::None)?,
        })
    }

    /// `(1, inputs)` to `(1, outputs)`.
    pub fn forward(&self, ops: &Ops, x: &Tensor) -> Result<Tensor> {
        Ok(ops.linear(&self.linear_2, &ops.linear(&self.linear_1, x, None)?, None)?)
    }
}
