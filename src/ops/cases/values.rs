//! The values that a case is run on.
use crate::ops::{BatchNorm, Ops};
use candle_core::{DType, Device, Result, Tensor};
use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Draws the same values whatever the storage type is.
pub(super) struct Values {
    /// What they are drawn from.
    pub seed: u64,
    rng: ChaCha8Rng,
    device: Device,
    /// Storage type of inputs.
    dtype: DType,
    /// Whether images lie in memory with their channels last.
    channels_last: bool,
}

impl Values {
    pub fn new(seed: u64, ops: &Ops) -> Self {
        Self {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            device: ops.device.clone(),
            dtype: ops.dtype,
            channels_last: false,
        }
    }

    /// The same with images channels-last.
    pub fn channels_last(self) -> Self {
        Self { channels_last: true, ..self }
    }

    fn normal(&mut self, shape: impl Into<candle_core::Shape>, mean: f64, deviation: f64) -> Result<Tensor> {
        let shape = shape.into();
        let mut next = || -> f64 { StandardNormal.sample(&mut self.rng) };
        let values: Vec<f32> = (0..shape.elem_count()).map(|_| (mean + deviation * next()) as f32).collect();
        Tensor::from_vec(values, shape, &self.device)
    }

    pub fn input(&mut self, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        let values = self.normal(shape, 0.0, 1.0)?.to_dtype(self.dtype)?;
        if self.channels_last && values.rank() == 4 {
            return values.permute((0, 2, 3, 1))?.contiguous()?.permute((0, 3, 1, 2));
        }
        Ok(values)
    }

    /// `(height, width, 3)` in u8, on the processor.
    pub fn pixels(&mut self, height: usize, width: usize) -> Result<Tensor> {
        let bytes: Vec<u8> = (0..height * width * 3).map(|_| self.rng.random()).collect();
        Tensor::from_vec(bytes, (height, width, 3), &Device::Cpu)
    }

    /// Values in (0, 1).
    pub fn share(&mut self, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        let shares = candle_nn::ops::sigmoid(&self.normal(shape, 0.0, 1.0)?)?;
        shares.to_dtype(self.dtype)
    }

    pub fn weight(&mut self, shape: impl Into<candle_core::Shape>, deviation: f64) -> Result<Tensor> {
        self.normal(shape, 0.0, deviation)
    }

    pub fn vector(&mut self, count: usize, mean: f64, deviation: f64) -> Result<Tensor> {
        self.normal(count, mean, deviation)
    }

    pub fn batch_norm(&mut self, channels: usize) -> Result<BatchNorm> {
        Ok(BatchNorm {
            weight: self.vector(channels, 1.0, 0.1)?,
            bias: self.vector(channels, 0.0, 0.1)?,
            running_mean: self.vector(channels, 0.0, 0.1)?,
            running_var: self.vector(channels, 1.0, 0.1)?.abs()?,
            eps: 1e-5,
        })
    }
}
