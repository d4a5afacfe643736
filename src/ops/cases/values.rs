//! The values that a case is run on.
use crate::ops::{BatchNorm, Ops};
use candle_core::{DType, Device, Result, Tensor};
use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Powers of two by which a score of [`Values::peaked`] is larger than another.
pub(super) const HIGHEST_PEAK: f64 = 200.0;

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
    /// Whether inputs begin one value into their memory, as a part of a tensor may.
    one_value_on: bool,
}

impl Values {
    pub fn new(seed: u64, ops: &Ops) -> Self {
        Self {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            device: ops.device.clone(),
            dtype: ops.dtype,
            channels_last: false,
            one_value_on: false,
        }
    }

    /// The same with images channels-last.
    pub fn channels_last(self) -> Self {
        Self { channels_last: true, ..self }
    }

    /// The same with inputs that begin one value into their memory.
    pub fn one_value_on(self) -> Self {
        Self { one_value_on: true, ..self }
    }

    fn normal(&mut self, shape: impl Into<candle_core::Shape>, mean: f64, deviation: f64) -> Result<Tensor> {
        let shape = shape.into();
        let mut next = || -> f64 { StandardNormal.sample(&mut self.rng) };
        let values: Vec<f32> = (0..shape.elem_count()).map(|_| (mean + deviation * next()) as f32).collect();
        Tensor::from_vec(values, shape, &self.device)
    }

    pub fn input(&mut self, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if !self.channels_last || shape.rank() != 4 {
            return self.in_order(shape);
        }
        let values = self.normal(shape, 0.0, 1.0)?.to_dtype(self.dtype)?;
        self.placed(values.permute((0, 2, 3, 1))?.contiguous()?)?.permute((0, 3, 1, 2))
    }

    /// Inputs whose dimensions lie in memory as they are named, however images lie.
    pub fn in_order(&mut self, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        let values = self.normal(shape, 0.0, 1.0)?.to_dtype(self.dtype)?;
        self.placed(values)
    }

    /// Values where they are to begin.
    fn placed(&self, values: Tensor) -> Result<Tensor> {
        if !self.one_value_on {
            return Ok(values);
        }
        let whole = Tensor::cat(&[&Tensor::zeros(1, values.dtype(), &self.device)?, &values.flatten_all()?], 0)?;
        whole.narrow(0, 1, values.elem_count())?.reshape(values.shape())
    }

    /// `(height, width, 3)` in u8, on the processor.
    pub fn pixels(&mut self, height: usize, width: usize) -> Result<Tensor> {
        let bytes: Vec<u8> = (0..height * width * 3).map(|_| self.rng.random()).collect();
        Tensor::from_vec(bytes, (height, width, 3), &Device::Cpu)
    }

    /// Values that f16 and bf16 hold.
    pub fn coarse(&mut self, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        let values = self.normal(shape, 0.0, 1.0)?.to_dtype(DType::BF16)?.to_dtype(self.dtype)?;
        self.placed(values)
    }

    /// Queries, keys and values as the networks have them: `(batch, tokens, heads, dim)` seen as `(batch, heads, tokens, dim)`.
    pub fn plain(&mut self, b: usize, heads: usize, [queries, tokens]: [usize; 2], dim: usize) -> Result<[Tensor; 3]> {
        let mut input = |count: usize| self.in_order((b, count, heads, dim))?.transpose(1, 2);
        Ok([input(queries)?, input(tokens)?, input(tokens)?])
    }

    /// Queries, keys and values, `(batch, heads, queries or tokens, dim)`, whose scores over the square root of `dim` are larger by so many
    /// powers of two as stand below, from 64 tokens to the next; and large values.
    pub fn peaked(&mut self, b: usize, heads: usize, [queries, tokens]: [usize; 2], dim: usize) -> Result<[Tensor; 3]> {
        const PEAKS: [f64; 6] = [0.0, 20.0, 60.0, 126.5, HIGHEST_PEAK, 40.0];
        let peaks = (0..tokens).map(|token| PEAKS[(token / 64).min(PEAKS.len() - 1)]);
        let [q, k] = self.with_peaks(b, heads, queries, peaks.collect(), dim)?;
        let v = self.normal((b, tokens, heads, dim), 0.0, 100.0)?;
        self.by_heads([q, k, v])
    }

    /// Likewise with the first token's scores so many powers of two above the others', and zeros as its values where the others have a mean: what is
    /// left of those is their share of a row's weights.
    pub fn falling(
        &mut self,
        b: usize,
        heads: usize,
        [queries, tokens]: [usize; 2],
        dim: usize,
    ) -> Result<[Tensor; 3]> {
        const PEAK: f64 = 16.0;
        let peaks = (0..tokens).map(|token| if token == 0 { PEAK } else { 0.0 });
        let [q, k] = self.with_peaks(b, heads, queries, peaks.collect(), dim)?;
        let first = Tensor::zeros((b, 1, heads, dim), DType::F32, &self.device)?;
        let v = Tensor::cat(&[&first, &self.normal((b, tokens - 1, heads, dim), 100.0, 10.0)?], 1)?;
        self.by_heads([q, k, v])
    }

    /// Queries, keys and values as the networks have them, with one key in each head that is not a number: that of the first token in the first
    /// head, of the second in the second, and from the first again.
    pub fn undefined(
        &mut self,
        b: usize,
        heads: usize,
        [queries, tokens]: [usize; 2],
        dim: usize,
    ) -> Result<[Tensor; 3]> {
        let [q, k, v] = self.plain(b, heads, [queries, tokens], dim)?;
        let marks = (0..tokens * heads).map(|i| if i / heads == i % heads % tokens { f32::NAN } else { 0.0 });
        let marks = Tensor::from_iter(marks, &self.device)?.reshape((1, tokens, heads, 1))?.to_dtype(self.dtype)?;
        let k = self.placed(k.transpose(1, 2)?.broadcast_add(&marks)?)?;
        Ok([q, k.transpose(1, 2)?, v])
    }

    /// Queries and keys, `(batch, queries or tokens, heads, dim)`: a token's scores are larger by so many powers of two.
    fn with_peaks(
        &mut self,
        b: usize,
        heads: usize,
        queries: usize,
        peaks: Vec<f64>,
        dim: usize,
    ) -> Result<[Tensor; 2]> {
        const FIRST: f64 = 4.0;
        // the first value of each query times that of a key makes the peak, whatever the others do
        let step = (dim as f64).sqrt() / (FIRST * std::f64::consts::LOG2_E);
        let tokens = peaks.len();
        let peaks: Vec<f32> = peaks.into_iter().map(|peak| (peak * step) as f32).collect();
        let peaks = Tensor::from_vec(peaks, (1, tokens, 1, 1), &self.device)?.broadcast_as((b, tokens, heads, 1))?;
        let firsts = Tensor::full(FIRST as f32, (b, queries, heads, 1), &self.device)?;
        let mut with_first = |first: &Tensor, count: usize| -> Result<Tensor> {
            let rest = self.normal((b, count, heads, dim - 1), 0.0, 1.0)?;
            Tensor::cat(&[&first.contiguous()?, &rest], 3)
        };
        Ok([with_first(&firsts, queries)?, with_first(&peaks, tokens)?])
    }

    /// As the storage type has them, seen as `(batch, heads, tokens, dim)`.
    fn by_heads(&self, tensors: [Tensor; 3]) -> Result<[Tensor; 3]> {
        let [q, k, v] = tensors.map(|t| self.placed(t.to_dtype(self.dtype)?)?.transpose(1, 2));
        Ok([q?, k?, v?])
    }

    /// Values in (0, 1).
    pub fn share(&mut self, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        let shares = candle_nn::ops::sigmoid(&self.normal(shape, 0.0, 1.0)?)?;
        self.placed(shares.to_dtype(self.dtype)?)
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
