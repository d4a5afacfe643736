//! Denoising diffusion implicit models (Song, Meng, Ermon, arXiv:2010.02502).
//!
//! Equation 12, with `a = alpha_bar[t]`, `a' = alpha_bar[t']` and `eps` the predicted noise:
//!
//! ```text
//! x0   = (x - sqrt(1 - a) eps) / sqrt(a)
//! next = sqrt(a') x0 + sqrt(1 - a' - s^2) eps + s noise
//! s    = eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a')                      (equation 16)
//! ```
//!
//! Where x0 is clipped, `eps` stays the model's own. `t'` is `t - train / steps` (whole numbers) for every spacing, as in diffusers, whose results are
//! what checkpoints are tuned by. With leading spacing that is exactly the next timestep; with linspace it is not, so leading or trailing
//! is the better choice here.
use super::sampler::{Plan, Settings, Start, Step};
use super::{Error, NoiseSchedule, Result};

pub(super) fn plan(schedule: &NoiseSchedule, settings: &Settings, eta: f64) -> Result<Plan> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(Error::Eta(eta));
    }
    let train = schedule.train_timesteps();
    let (timesteps, skipped) = settings.timesteps(train)?;
    let distance = train / settings.steps;
    let end = if settings.set_alpha_to_one { 1.0 } else { schedule.alpha_bar(0) };
    let whole = |t: f64| t.round_ties_even() as usize;

    let steps = timesteps[skipped..]
        .iter()
        .map(|&t| {
            let t = whole(t);
            let now = schedule.alpha_bar(t);
            let then = t.checked_sub(distance).map_or(end, |t| schedule.alpha_bar(t));
            step(settings, eta, t, now, then)
        })
        .collect();
    let first = schedule.alpha_bar(whole(timesteps[skipped]));
    Ok(Plan { steps, start: Start { signal: first.sqrt(), noise: (1.0 - first).sqrt() }, init_noise_sigma: 1.0 })
}

/// Through exactly these timesteps, without fresh noise, for a network that estimates the clean sample. The noise left in a
/// sample is worked out from the clipped estimate (`use_clipped_model_output` in diffusers).
pub(super) fn through(schedule: &NoiseSchedule, timesteps: &[usize], clip: f64) -> Result<Plan> {
    let train = schedule.train_timesteps();
    let falls = timesteps.windows(2).all(|pair| pair[0] > pair[1]);
    let Some(&noisiest) = timesteps.first().filter(|first| falls && **first < train) else {
        return Err(Error::Timesteps { train });
    };
    let steps = timesteps.iter().enumerate().map(|(i, &t)| {
        let (now, then) = (schedule.alpha_bar(t), timesteps.get(i + 1).map_or(1.0, |&t| schedule.alpha_bar(t)));
        let kept = ((1.0 - then) / (1.0 - now)).sqrt();
        Step {
            timestep: t as f64,
            input_scale: 1.0,
            x0_from_x: 0.0,
            x0_from_out: 1.0,
            clip: Some(clip),
            next_from_x: kept,
            next_from_out: 0.0,
            next_from_x0: then.sqrt() - kept * now.sqrt(),
            next_from_noise: 0.0,
        }
    });
    let first = schedule.alpha_bar(noisiest);
    let start = Start { signal: first.sqrt(), noise: (1.0 - first).sqrt() };
    Ok(Plan { steps: steps.collect(), start, init_noise_sigma: 1.0 })
}

/// The step from timestep `t`, where `now` of the variance is signal, to where `then` of it is.
fn step(settings: &Settings, eta: f64, t: usize, now: f64, then: f64) -> Step {
    let (signal, noise) = (now.sqrt(), (1.0 - now).sqrt());
    let fresh = eta * ((1.0 - then) / (1.0 - now) * (1.0 - now / then)).max(0.0).sqrt();
    // Rounding can take the difference below zero where eta is 1 and nothing of the old noise stays.
    let kept = (1.0 - then - fresh * fresh).max(0.0).sqrt();
    let (x0_from_x, x0_from_out) = settings.prediction.x0_weights(signal, noise);
    let (noise_from_x, noise_from_out) = settings.prediction.noise_weights(signal, noise);
    Step {
        timestep: t as f64,
        input_scale: 1.0,
        x0_from_x,
        x0_from_out,
        clip: settings.clip,
        next_from_x: kept * noise_from_x,
        next_from_out: kept * noise_from_out,
        next_from_x0: then.sqrt(),
        next_from_noise: fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::super::BetaSchedule;
    use super::*;

    #[test]
    fn through_chosen_timesteps_a_perfect_estimate_is_reached_and_noise_falls() {
        let schedule = NoiseSchedule::new(BetaSchedule::Cosine, 1000).unwrap();
        let plan = through(&schedule, &[999, 949, 499, 255], 1.0).unwrap();
        let (clean, noise) = (0.4, -1.3);
        let mut x = plan.start.signal * clean + plan.start.noise * noise;
        for (i, step) in plan.steps.iter().enumerate() {
            x = step.next(x, clean, 0.0);
            let left = plan.steps.get(i + 1).map_or(1.0, |next| schedule.alpha_bar(next.timestep as usize));
            assert!((x - (left.sqrt() * clean + (1.0 - left).sqrt() * noise)).abs() < 1e-9, "step {i}");
        }
        assert!((x - clean).abs() < 1e-12);
    }

    #[test]
    fn timesteps_that_do_not_fall_are_refused() {
        let schedule = NoiseSchedule::new(BetaSchedule::Cosine, 1000).unwrap();
        for timesteps in [&[][..], &[1000], &[5, 5], &[3, 4]] {
            assert_eq!(through(&schedule, timesteps, 1.0), Err(Error::Timesteps { train: 1000 }));
        }
    }
}
