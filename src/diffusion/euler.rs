//! Euler steps of the probability flow ODE (Karras, Aittala, Aila, Laine, arXiv:2206.00364, algorithm 1, first-order part).
//!
//! The sample is kept as `clean + sigma * gaussian`, and scaled to unit variance only for the network:
//!
//! ```text
//! out  = network(x / sqrt(sigma^2 + 1))
//! x0   = x - sigma out                                         epsilon
//!      = out                                                   sample
//!      = x / (sigma^2 + 1) - sigma / sqrt(sigma^2 + 1) out     v
//! next = x + (x - x0) / sigma (sigma' - sigma) = sigma' / sigma x + (1 - sigma' / sigma) x0
//! ```
use super::sampler::{Plan, Prediction, Settings, Start, Step};
use super::{NoiseSchedule, Result, Spacing};

pub(super) fn plan(schedule: &NoiseSchedule, settings: &Settings) -> Result<Plan> {
    let (timesteps, skipped) = settings.timesteps(schedule.train_timesteps())?;
    let sigma = |t: f64| schedule.sigma(t);
    let noisiest = sigma(timesteps[0]);
    let run = &timesteps[skipped..];
    let steps = run
        .iter()
        .enumerate()
        .map(|(i, &t)| {
            // The last step goes to no noise at all.
            let next = run.get(i + 1).map_or(0.0, |&t| sigma(t));
            step(settings, t, sigma(t), next)
        })
        .collect();
    Ok(Plan {
        steps,
        start: Start { signal: 1.0, noise: sigma(run[0]) },
        // Leading spacing starts below the noisiest timestep: there the share of the signal still counts.
        init_noise_sigma: match settings.spacing {
            Spacing::Linspace | Spacing::Trailing => noisiest,
            Spacing::Leading => noisiest.hypot(1.0),
        },
    })
}

/// The step from `sigma` to `next`.
fn step(settings: &Settings, timestep: f64, sigma: f64, next: f64) -> Step {
    let input_scale = 1.0 / sigma.hypot(1.0);
    let (x0_from_x, x0_from_out) = match settings.prediction {
        Prediction::Epsilon => (1.0, -sigma),
        Prediction::Sample => (0.0, 1.0),
        Prediction::VPrediction => (input_scale * input_scale, -sigma * input_scale),
    };
    Step {
        timestep,
        input_scale,
        x0_from_x,
        x0_from_out,
        clip: settings.clip,
        next_from_x: next / sigma,
        next_from_out: 0.0,
        next_from_x0: 1.0 - next / sigma,
        next_from_noise: 0.0,
    }
}
