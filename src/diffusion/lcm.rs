//! Multistep consistency sampling for latent consistency models (Luo et al., arXiv:2310.04378, algorithm 3).
//!
//! The network jumps to a clean sample, which fresh noise then takes to the next timestep. With `a = alpha_bar[t]`, `a'` that of the next
//! timestep, `x0` as for DDIM and `t10 = 10 t`:
//!
//! ```text
//! c_skip = 0.25 / (t10^2 + 0.25)     c_out = t10 / sqrt(t10^2 + 0.25)       (boundary condition, appendix B)
//! clean  = c_skip x + c_out x0
//! next   = sqrt(a') clean + sqrt(1 - a') noise, or `clean` after the last step
//! ```
use super::sampler::{Plan, Settings, Start, Step};
use super::timesteps::lcm_timesteps;
use super::{NoiseSchedule, Result};

/// The standard deviation of the data that the boundary condition assumes.
const SIGMA_DATA: f64 = 0.5;
/// What a timestep is multiplied by in the boundary condition.
const TIMESTEP_SCALING: f64 = 10.0;

pub(super) fn plan(schedule: &NoiseSchedule, settings: &Settings, original_steps: usize) -> Result<Plan> {
    let timesteps = lcm_timesteps(settings.steps, schedule.train_timesteps(), original_steps, settings.strength)?;
    let steps = timesteps
        .iter()
        .enumerate()
        .map(|(i, &t)| {
            let then = timesteps.get(i + 1).map_or(1.0, |&t| schedule.alpha_bar(t));
            step(settings, t, schedule.alpha_bar(t), then)
        })
        .collect();
    let first = schedule.alpha_bar(timesteps[0]);
    Ok(Plan { steps, start: Start { signal: first.sqrt(), noise: (1.0 - first).sqrt() }, init_noise_sigma: 1.0 })
}

/// The step from timestep `t`, where `now` of the variance is signal, to where `then` of it is.
fn step(settings: &Settings, t: usize, now: f64, then: f64) -> Step {
    let scaled = t as f64 * TIMESTEP_SCALING;
    let c_skip = SIGMA_DATA * SIGMA_DATA / (scaled * scaled + SIGMA_DATA * SIGMA_DATA);
    let c_out = scaled / scaled.hypot(SIGMA_DATA);
    let (x0_from_x, x0_from_out) = settings.prediction.x0_weights(now.sqrt(), (1.0 - now).sqrt());
    Step {
        timestep: t as f64,
        input_scale: 1.0,
        x0_from_x,
        x0_from_out,
        clip: settings.clip,
        next_from_x: then.sqrt() * c_skip,
        next_from_out: 0.0,
        next_from_x0: then.sqrt() * c_out,
        next_from_noise: (1.0 - then).sqrt(),
    }
}
