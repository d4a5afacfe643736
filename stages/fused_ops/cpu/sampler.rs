//! One step of a diffusion sampler in one pass over memory.

use super::error::{KernelError, expect_length};
use super::rows::for_row_runs;
use crate::stages::simd::{Element, Isa, Kernel, Simd};

/// A sampler's step as a linear combination:
/// `x0 = x0_from_x · x + x0_from_out · model`, clipped;
/// `next = next_from_x · x + next_from_out · model + next_from_x0 · x0 + next_from_noise · noise`.
///
/// DDIM, Euler and LCM, with the network predicting noise, the sample or velocity, are all of this form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerStep {
    /// Share of the current sample in the predicted clean one.
    pub x0_from_x: f32,
    /// Share of the network's output in the predicted clean sample.
    pub x0_from_out: f32,
    /// The predicted clean sample is held in [-clip, clip]; `None` leaves it as it is.
    pub clip: Option<f32>,
    /// Share of the current sample.
    pub next_from_x: f32,
    /// Share of the network's output.
    pub next_from_out: f32,
    /// Share of the predicted clean sample.
    pub next_from_x0: f32,
    /// Share of the fresh noise.
    pub next_from_noise: f32,
}

/// Writes the next sample.
///
/// All slices have the length of `out`. `noise` may be `None` when [`SamplerStep::next_from_noise`] is 0.
///
/// # Errors
/// When lengths differ, or noise is needed and not given.
pub fn sampler_step<T: Element>(
    step: &SamplerStep,
    x: &[T],
    model: &[T],
    noise: Option<&[T]>,
    out: &mut [T],
) -> Result<(), KernelError> {
    sampler_step_with(Isa::best(), step, x, model, noise, out)
}

/// [`sampler_step`] with a given instruction set, to compare them.
///
/// # Errors
/// As [`sampler_step`].
pub fn sampler_step_with<T: Element>(
    isa: Isa,
    step: &SamplerStep,
    x: &[T],
    model: &[T],
    noise: Option<&[T]>,
    out: &mut [T],
) -> Result<(), KernelError> {
    let len = out.len();
    expect_length("sampler_step x", &[len], x.len())?;
    expect_length("sampler_step model output", &[len], model.len())?;
    match noise {
        Some(noise) => expect_length("sampler_step noise", &[len], noise.len())?,
        None if step.next_from_noise != 0.0 => {
            return Err(KernelError::Shape {
                what: "sampler_step noise",
                reason: format!("the step takes {} of it, so it must be given", step.next_from_noise),
            });
        }
        None => {}
    }
    for_row_runs(out, 1, |first, out| {
        let run = first..first + out.len();
        isa.run(Run {
            step,
            x: &x[run.clone()],
            model: &model[run.clone()],
            noise: noise.map(|noise| &noise[run]),
            out,
        });
    });
    Ok(())
}

struct Run<'a, T> {
    step: &'a SamplerStep,
    x: &'a [T],
    model: &'a [T],
    noise: Option<&'a [T]>,
    out: &'a mut [T],
}

impl<T: Element> Kernel for Run<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = self.out.len();
        let whole = len / S::LANES * S::LANES;
        let mut at = 0;
        while at < whole {
            let mut next = combine(simd, self.step, T::load(simd, &self.x[at..]), T::load(simd, &self.model[at..]));
            if let Some(noise) = self.noise {
                next = simd.mul_add(T::load(simd, &noise[at..]), simd.splat(self.step.next_from_noise), next);
            }
            T::store(simd, &mut self.out[at..], next);
            at += S::LANES;
        }
        if at < len {
            let mut next =
                combine(simd, self.step, T::load_some(simd, &self.x[at..]), T::load_some(simd, &self.model[at..]));
            if let Some(noise) = self.noise {
                let noise = T::load_some(simd, &noise[at..]);
                next = simd.mul_add(noise, simd.splat(self.step.next_from_noise), next);
            }
            T::store_some(simd, &mut self.out[at..], next);
        }
    }
}

/// All but the noise.
#[inline(always)]
fn combine<S: Simd>(simd: S, step: &SamplerStep, x: S::V, model: S::V) -> S::V {
    let from_model = simd.mul(model, simd.splat(step.x0_from_out));
    let mut x0 = simd.mul_add(x, simd.splat(step.x0_from_x), from_model);
    if let Some(clip) = step.clip {
        // The variable comes second, so that NaN passes and is seen.
        x0 = simd.min(simd.splat(clip), simd.max(simd.splat(-clip), x0));
    }
    let direct = simd.mul_add(x, simd.splat(step.next_from_x), simd.mul(model, simd.splat(step.next_from_out)));
    simd.mul_add(x0, simd.splat(step.next_from_x0), direct)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::stages::simd::tests::noise;

    #[test]
    fn every_term_counts_and_the_clean_sample_is_clipped() {
        let mut step = SamplerStep {
            x0_from_x: 1.25,
            x0_from_out: -0.5,
            clip: Some(0.5),
            next_from_x: 0.3,
            next_from_out: 0.4,
            next_from_x0: 0.7,
            next_from_noise: 0.2,
        };
        for len in [0, 1, 15, 16, 33, 70_001] {
            let half = |seed| -> Vec<f16> { noise(seed, len).into_iter().map(f16::from_f32).collect() };
            let (x, model, noise) = (half(1), half(2), half(3));
            let wide = |values: &[f16]| -> Vec<f32> { values.iter().map(|x| x.to_f32()).collect() };
            let (x32, model32, noise32) = (wide(&x), wide(&model), wide(&noise));
            for clip in [Some(0.5), None] {
                step.clip = clip;
                for isa in Isa::available() {
                    let mut out = vec![0.0f32; len];
                    sampler_step_with(isa, &step, &x32, &model32, Some(&noise32), &mut out).unwrap();
                    let mut rounded = vec![f16::ZERO; len];
                    sampler_step_with(isa, &step, &x, &model, Some(&noise), &mut rounded).unwrap();
                    for i in 0..len {
                        let (x, model, noise) = (f64::from(x32[i]), f64::from(model32[i]), f64::from(noise32[i]));
                        let mut x0 = 1.25 * x - 0.5 * model;
                        if let Some(clip) = clip {
                            x0 = x0.clamp(-f64::from(clip), f64::from(clip));
                        }
                        let exact = 0.3 * x + 0.4 * model + 0.7 * x0 + 0.2 * noise;
                        assert!((f64::from(out[i]) - exact).abs() < 5e-7, "{isa:?} {len} {i}");
                        assert!((rounded[i].to_f64() - exact).abs() <= exact.abs() / 2048.0 + 1e-6, "{isa:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn noise_that_is_needed_must_be_given() {
        let mut step = SamplerStep {
            x0_from_x: 0.0,
            x0_from_out: 0.0,
            clip: None,
            next_from_x: 1.0,
            next_from_out: 0.0,
            next_from_x0: 0.0,
            next_from_noise: 0.1,
        };
        let x = [1.0f32, 2.0, f32::NAN];
        let mut out = [0.0f32; 3];
        assert!(sampler_step(&step, &x, &x, None, &mut out).unwrap_err().to_string().contains("must be given"));
        assert!(sampler_step(&step, &x[1..], &x, Some(&x), &mut out).is_err());
        step.next_from_noise = 0.0;
        step.clip = Some(1.0);
        sampler_step(&step, &x, &[0.0; 3], None, &mut out).unwrap();
        assert!(out[0] == 1.0 && out[1] == 2.0 && out[2].is_nan());
    }
}
