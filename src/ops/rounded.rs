//! Plain Candle with every stored value rounded: what a storage type alone costs, and so what a stage may be wrong by.
//!
//! Written apart from the stages that store halves, so that none of them is its own judge.
use super::Ops;
use super::attention::{self, Attention};
use super::conv2d::{Conv2d, Conv2dInput, Conv2dKernel, Conv2dParams};
use super::gaussian::{Draw, Gaussian};
use super::geglu::{Geglu, GegluKernel, GegluParams};
use super::group_norm::{GroupNorm, GroupNormKernel, GroupNormParams};
use super::layer_norm::{LayerNorm, LayerNormKernel, LayerNormParams};
use super::linear::{Linear, LinearKernel, LinearParams};
use super::resample::{Filter, Resample};
use super::rgb8::Rgb8;
use super::sampler_step::SamplerStep;
use super::temporal_blend::{Blend, TemporalBlend};
use crate::diffusion::Step;
use candle_core::{DType, Device, Result, Shape, Tensor};
use std::sync::Arc;

impl Ops {
    /// Plain Candle in f32 on what `through` can hold: the inputs, the weights and the result of each op are rounded.
    pub fn rounded(device: &Device, through: DType) -> Self {
        let plain = Self::reference(device);
        Self {
            attention: Arc::new(Rounded(plain.attention, through)),
            conv2d: Arc::new(Rounded(plain.conv2d, through)),
            gaussian: Arc::new(Rounded(plain.gaussian, through)),
            geglu: Arc::new(Rounded(plain.geglu, through)),
            group_norm: Arc::new(Rounded(plain.group_norm, through)),
            layer_norm: Arc::new(Rounded(plain.layer_norm, through)),
            linear: Arc::new(Rounded(plain.linear, through)),
            resample: Arc::new(Rounded(plain.resample, through)),
            rgb8: Arc::new(Rounded(plain.rgb8, through)),
            sampler_step: Arc::new(Rounded(plain.sampler_step, through)),
            temporal_blend: Arc::new(Rounded(plain.temporal_blend, through)),
            ..plain
        }
    }
}

/// A slot or a kernel whose values are rounded through a type on their way in and out; tensors stay in f32.
struct Rounded<T>(T, DType);

impl<T> Rounded<T> {
    fn round(&self, t: &Tensor) -> Result<Tensor> {
        t.to_dtype(self.1)?.to_dtype(DType::F32)
    }

    fn round_opt(&self, t: Option<&Tensor>) -> Result<Option<Tensor>> {
        t.map(|t| self.round(t)).transpose()
    }

    fn kernel<K>(&self, kernel: K) -> Box<Rounded<K>> {
        Box::new(Rounded(kernel, self.1))
    }
}

impl Attention for Rounded<Arc<dyn Attention>> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn run(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
        let [q, k, v] = [self.round(q)?, self.round(k)?, self.round(v)?];
        // the weights too: they are an operand of the second product
        self.round(&attention::plain([&q, &k, &v], scale, |weights| self.round(&weights))?)
    }
}

impl Conv2d for Rounded<Arc<dyn Conv2d>> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn prepare(&self, p: Conv2dParams) -> Result<Box<dyn Conv2dKernel>> {
        let params = Conv2dParams { weight: self.round(&p.weight)?, ..p };
        Ok(self.kernel(self.0.prepare(params)?))
    }
}

impl Conv2dKernel for Rounded<Box<dyn Conv2dKernel>> {
    fn run(&self, input: Conv2dInput<'_>) -> Result<Tensor> {
        let (x, skip) = (self.round(input.x)?, self.round_opt(input.skip)?);
        let (shift, residual) = (self.round_opt(input.shift)?, self.round_opt(input.residual)?);
        let (skip, shift, residual) = (skip.as_ref(), shift.as_ref(), residual.as_ref());
        let input = Conv2dInput { x: &x, skip, shift, residual, ..input };
        self.round(&self.0.run(input)?)
    }
}

impl Linear for Rounded<Arc<dyn Linear>> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn prepare(&self, p: LinearParams) -> Result<Box<dyn LinearKernel>> {
        let params = LinearParams { weight: self.round(&p.weight)?, ..p };
        Ok(self.kernel(self.0.prepare(params)?))
    }
}

impl LinearKernel for Rounded<Box<dyn LinearKernel>> {
    fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        self.round(&self.0.run(&self.round(x)?, self.round_opt(residual)?.as_ref())?)
    }
}

impl Gaussian for Rounded<Arc<dyn Gaussian>> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn run(&self, draw: Draw, shape: &Shape, device: &Device) -> Result<Tensor> {
        self.round(&self.0.run(draw, shape, device)?)
    }
}

impl Geglu for Rounded<Arc<dyn Geglu>> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn prepare(&self, p: GegluParams) -> Result<Box<dyn GegluKernel>> {
        let params = GegluParams { weight: self.round(&p.weight)?, ..p };
        Ok(self.kernel(self.0.prepare(params)?))
    }
}

impl GegluKernel for Rounded<Box<dyn GegluKernel>> {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        self.round(&self.0.run(&self.round(x)?)?)
    }
}

// The parameters of a norm are few and stored in f32 by every stage: they are not rounded.

impl GroupNorm for Rounded<Arc<dyn GroupNorm>> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn prepare(&self, params: GroupNormParams) -> Result<Box<dyn GroupNormKernel>> {
        Ok(self.kernel(self.0.prepare(params)?))
    }
}

impl GroupNormKernel for Rounded<Box<dyn GroupNormKernel>> {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        self.round(&self.0.run(&self.round(x)?)?)
    }
}

impl LayerNorm for Rounded<Arc<dyn LayerNorm>> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn prepare(&self, params: LayerNormParams) -> Result<Box<dyn LayerNormKernel>> {
        Ok(self.kernel(self.0.prepare(params)?))
    }
}

impl LayerNormKernel for Rounded<Box<dyn LayerNormKernel>> {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        self.round(&self.0.run(&self.round(x)?)?)
    }
}

impl Resample for Rounded<Arc<dyn Resample>> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn run(&self, x: &Tensor, filter: Filter) -> Result<Tensor> {
        self.round(&self.0.run(&self.round(x)?, filter)?)
    }
}

impl Rgb8 for Rounded<Arc<dyn Rgb8>> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn read(&self, pixels: &Tensor, device: &Device) -> Result<Tensor> {
        self.round(&self.0.read(pixels, device)?)
    }

    fn write(&self, picture: &Tensor) -> Result<Tensor> {
        self.0.write(&self.round(picture)?)
    }
}

impl SamplerStep for Rounded<Arc<dyn SamplerStep>> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn run(&self, x: &Tensor, output: &Tensor, noise: Option<&Tensor>, step: &Step) -> Result<Tensor> {
        self.round(&self.0.run(&self.round(x)?, &self.round(output)?, self.round_opt(noise)?.as_ref(), step)?)
    }
}

impl TemporalBlend for Rounded<Arc<dyn TemporalBlend>> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn run(&self, current: &Tensor, previous: &Tensor, alpha: Blend<'_>) -> Result<Tensor> {
        let (current, previous) = (self.round(current)?, self.round(previous)?);
        self.round(&match alpha {
            Blend::Fixed(_) => self.0.run(&current, &previous, alpha)?,
            Blend::Map(map) => self.0.run(&current, &previous, Blend::Map(&self.round(map)?))?,
        })
    }
}
