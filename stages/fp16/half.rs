//! Half storage over the rung below: what is stored is f16 or bf16; each op widens to f32, runs the rung below, and rounds its
//! result once.
//!
//! Candle's own f16 path on a CPU is not used: its products round inside the sum. A CPU without half arithmetic gains
//! memory by this, not time; the gain in time comes where `fused-ops` widens weights block by block in the cache.
use super::STAGE;
use crate::diffusion::Step;
use crate::ops::attention::Attention;
use crate::ops::conv2d::{Conv2d, Conv2dInput, Conv2dKernel, Conv2dParams};
use crate::ops::geglu::{Geglu, GegluKernel, GegluParams};
use crate::ops::group_norm::{GroupNorm, GroupNormKernel, GroupNormParams};
use crate::ops::layer_norm::{LayerNorm, LayerNormKernel, LayerNormParams};
use crate::ops::linear::{Linear, LinearKernel, LinearParams};
use crate::ops::resample::{Filter, Resample};
use crate::ops::sampler_step::SamplerStep;
use crate::ops::temporal_blend::{Blend, TemporalBlend};
use candle_core::{DType, Result, Tensor};
use std::sync::Arc;

/// A slot whose inputs, outputs and weights are stored in a half-precision type.
pub(super) struct Half<T: ?Sized>(pub Arc<T>, pub DType);

/// A kernel that keeps its large parameters in half precision and widens them for each call.
struct HalfKernel<T: ?Sized, P> {
    below: Arc<T>,
    params: P,
    dtype: DType,
}

fn widen(t: &Tensor) -> Result<Tensor> {
    t.to_dtype(DType::F32)
}

fn widen_opt(t: Option<&Tensor>) -> Result<Option<Tensor>> {
    t.map(widen).transpose()
}

fn round(t: &Tensor, dtype: DType) -> Result<Tensor> {
    t.to_dtype(dtype)
}

impl Attention for Half<dyn Attention> {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
        round(&self.0.run(&widen(q)?, &widen(k)?, &widen(v)?, scale)?, self.1)
    }
}

impl Conv2d for Half<dyn Conv2d> {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, p: Conv2dParams) -> Result<Box<dyn Conv2dKernel>> {
        let params = Conv2dParams { weight: round(&p.weight, self.1)?, ..p };
        Ok(Box::new(HalfKernel { below: self.0.clone(), params, dtype: self.1 }))
    }
}

impl Conv2dKernel for HalfKernel<dyn Conv2d, Conv2dParams> {
    fn run(&self, input: Conv2dInput<'_>) -> Result<Tensor> {
        let params = Conv2dParams { weight: widen(&self.params.weight)?, ..self.params.clone() };
        let (x, skip) = (widen(input.x)?, widen_opt(input.skip)?);
        let (shift, residual) = (widen_opt(input.shift)?, widen_opt(input.residual)?);
        let (skip, shift, residual) = (skip.as_ref(), shift.as_ref(), residual.as_ref());
        let input = Conv2dInput { x: &x, skip, shift, residual, ..input };
        round(&self.below.prepare(params)?.run(input)?, self.dtype)
    }
}

impl Linear for Half<dyn Linear> {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, p: LinearParams) -> Result<Box<dyn LinearKernel>> {
        let params = LinearParams { weight: round(&p.weight, self.1)?, ..p };
        Ok(Box::new(HalfKernel { below: self.0.clone(), params, dtype: self.1 }))
    }
}

impl LinearKernel for HalfKernel<dyn Linear, LinearParams> {
    fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let params = LinearParams { weight: widen(&self.params.weight)?, ..self.params.clone() };
        round(&self.below.prepare(params)?.run(&widen(x)?, widen_opt(residual)?.as_ref())?, self.dtype)
    }
}

impl Geglu for Half<dyn Geglu> {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, p: GegluParams) -> Result<Box<dyn GegluKernel>> {
        let params = GegluParams { weight: round(&p.weight, self.1)?, ..p };
        Ok(Box::new(HalfKernel { below: self.0.clone(), params, dtype: self.1 }))
    }
}

impl GegluKernel for HalfKernel<dyn Geglu, GegluParams> {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        let params = GegluParams { weight: widen(&self.params.weight)?, ..self.params.clone() };
        round(&self.below.prepare(params)?.run(&widen(x)?)?, self.dtype)
    }
}

// The parameters of a norm are few and its sums are in f32 anyway: they stay as they are.

struct HalfNorm<K: ?Sized>(Box<K>, DType);

impl GroupNorm for Half<dyn GroupNorm> {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, params: GroupNormParams) -> Result<Box<dyn GroupNormKernel>> {
        Ok(Box::new(HalfNorm(self.0.prepare(params)?, self.1)))
    }
}

impl GroupNormKernel for HalfNorm<dyn GroupNormKernel> {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        round(&self.0.run(&widen(x)?)?, self.1)
    }
}

impl LayerNorm for Half<dyn LayerNorm> {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, params: LayerNormParams) -> Result<Box<dyn LayerNormKernel>> {
        Ok(Box::new(HalfNorm(self.0.prepare(params)?, self.1)))
    }
}

impl LayerNormKernel for HalfNorm<dyn LayerNormKernel> {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        round(&self.0.run(&widen(x)?)?, self.1)
    }
}

impl Resample for Half<dyn Resample> {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, x: &Tensor, filter: Filter) -> Result<Tensor> {
        round(&self.0.run(&widen(x)?, filter)?, self.1)
    }
}

impl SamplerStep for Half<dyn SamplerStep> {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, x: &Tensor, output: &Tensor, noise: Option<&Tensor>, step: &Step) -> Result<Tensor> {
        round(&self.0.run(&widen(x)?, &widen(output)?, widen_opt(noise)?.as_ref(), step)?, self.1)
    }
}

impl TemporalBlend for Half<dyn TemporalBlend> {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, current: &Tensor, previous: &Tensor, alpha: Blend<'_>) -> Result<Tensor> {
        let (current, previous) = (widen(current)?, widen(previous)?);
        let blended = match alpha {
            Blend::Fixed(_) => self.0.run(&current, &previous, alpha)?,
            Blend::Map(map) => self.0.run(&current, &previous, Blend::Map(&widen(map)?))?,
        };
        round(&blended, self.1)
    }
}
