//! The forward process: how much of the signal is left at each training timestep.
use std::f64::consts::FRAC_PI_2;

use super::{Error, Result};

/// The longest training schedule accepted. It bounds what a hostile configuration can make us allocate (8 MB).
pub const MAX_TRAIN_TIMESTEPS: usize = 1_000_000;

/// Below this, a step would scale by more than 1e15 and f32 tensors could not hold the outcome.
const LEAST_ALPHA_BAR: f64 = 1e-30;

/// The cosine schedule's limit on one beta, as its paper sets it, so that the last step is not a division by zero.
const MAX_COSINE_BETA: f64 = 0.999;

/// How the noise variance `beta` grows over the training timesteps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BetaSchedule {
    /// `beta` grows linearly (DDPM, arXiv:2006.11239). `linear` in checkpoints.
    Linear {
        /// The first beta, above 0.
        start: f64,
        /// The last beta, at least `start` and below 1.
        end: f64,
    },
    /// `sqrt(beta)` grows linearly (latent diffusion, arXiv:2112.10752). `scaled_linear` in checkpoints.
    ScaledLinear {
        /// The first beta, above 0.
        start: f64,
        /// The last beta, at least `start` and below 1.
        end: f64,
    },
    /// The product of `1 - beta` follows a squared cosine (arXiv:2102.09672, eq. 17). `squaredcos_cap_v2` in checkpoints.
    Cosine,
}

/// The products `alpha_bar[t] = (1 - beta[0]) ... (1 - beta[t])` for every training timestep.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    alpha_bars: Vec<f64>,
}

impl NoiseSchedule {
    /// Computes the products for `train_timesteps` timesteps.
    ///
    /// # Errors
    /// When a beta is outside (0, 1) or decreases, when `train_timesteps` is 0 or above [`MAX_TRAIN_TIMESTEPS`], and when
    /// the noise drowns the signal beyond what floating point can hold.
    pub fn new(betas: BetaSchedule, train_timesteps: usize) -> Result<Self> {
        if !(1..=MAX_TRAIN_TIMESTEPS).contains(&train_timesteps) {
            return Err(Error::TrainTimesteps(train_timesteps));
        }
        if let BetaSchedule::Linear { start, end } | BetaSchedule::ScaledLinear { start, end } = betas {
            // A NaN fails each comparison and so lands here as well.
            let valid = start > 0.0 && start <= end && end < 1.0;
            if !valid {
                return Err(Error::Betas { start, end });
            }
        }
        let alpha_bars: Vec<f64> = (0..train_timesteps)
            .scan(1.0, |product, t| {
                *product *= 1.0 - beta(betas, t, train_timesteps);
                Some(*product)
            })
            .collect();
        match alpha_bars.last() {
            Some(&alpha_bar) if alpha_bar < LEAST_ALPHA_BAR => Err(Error::NoSignalLeft { alpha_bar, train_timesteps }),
            _ => Ok(Self { alpha_bars }),
        }
    }

    /// The number of training timesteps, at least 1.
    pub fn train_timesteps(&self) -> usize {
        self.alpha_bars.len()
    }

    /// The share of the signal's variance left at timestep `t`: strictly decreasing in `t` up to rounding, inside (0, 1).
    ///
    /// # Panics
    /// When `t` is not below [`train_timesteps`](Self::train_timesteps).
    pub fn alpha_bar(&self, t: usize) -> f64 {
        self.alpha_bars[t]
    }

    /// Noise over signal at timestep `t`, `sqrt((1 - alpha_bar) / alpha_bar)`: the sigma of EDM (arXiv:2206.00364). Between two
    /// training timesteps it is interpolated linearly; past the ends it stays at the end's value.
    pub fn sigma(&self, t: f64) -> f64 {
        let last = self.alpha_bars.len() - 1;
        let t = t.clamp(0.0, last as f64);
        let below = t.floor() as usize;
        let above = (below + 1).min(last);
        let at = |t: usize| ((1.0 - self.alpha_bars[t]) / self.alpha_bars[t]).sqrt();
        at(below) + (at(above) - at(below)) * t.fract()
    }
}

/// The variance of the noise added in timestep `t` of `count`.
fn beta(betas: BetaSchedule, t: usize, count: usize) -> f64 {
    let position = t as f64 / (count.max(2) - 1) as f64;
    let between = |start: f64, end: f64| start + (end - start) * position;
    match betas {
        BetaSchedule::Linear { start, end } => between(start, end),
        BetaSchedule::ScaledLinear { start, end } => between(start.sqrt(), end.sqrt()).powi(2),
        BetaSchedule::Cosine => {
            let left = |t: usize| {
                let share = t as f64 / count as f64;
                ((share + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2)
            };
            (1.0 - left(t + 1) / left(t)).min(MAX_COSINE_BETA)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: BetaSchedule = BetaSchedule::Linear { start: 1e-4, end: 0.02 };

    #[test]
    fn bad_input_is_an_error() {
        for (start, end) in
            [(0.0, 0.02), (-1.0, 0.02), (0.1, 1.0), (0.2, 0.1), (f64::NAN, 0.1), (0.1, f64::NAN), (0.1, f64::INFINITY)]
        {
            for betas in [BetaSchedule::Linear { start, end }, BetaSchedule::ScaledLinear { start, end }] {
                let error = NoiseSchedule::new(betas, 10).unwrap_err();
                assert!(matches!(error, Error::Betas { .. }), "{error}");
            }
        }
        for count in [0, MAX_TRAIN_TIMESTEPS + 1, usize::MAX] {
            assert_eq!(NoiseSchedule::new(LINEAR, count), Err(Error::TrainTimesteps(count)));
        }
        let flood = BetaSchedule::Linear { start: 0.5, end: 0.9 };
        assert!(matches!(NoiseSchedule::new(flood, 1000), Err(Error::NoSignalLeft { .. })));
    }

    #[test]
    fn one_timestep_uses_the_first_beta() {
        let schedule = NoiseSchedule::new(LINEAR, 1).unwrap();
        assert_eq!(schedule.alpha_bar(0), 1.0 - 1e-4);
    }

    #[test]
    fn alpha_bar_decreases_inside_zero_and_one() {
        for betas in [LINEAR, BetaSchedule::Cosine] {
            for count in [1, 2, 3, 50, 1000] {
                let Ok(schedule) = NoiseSchedule::new(betas, count) else { panic!("{betas:?} {count}") };
                let bars: Vec<f64> = (0..count).map(|t| schedule.alpha_bar(t)).collect();
                assert!(bars.iter().all(|bar| *bar > 0.0 && *bar < 1.0));
                assert!(bars.windows(2).all(|pair| pair[0] > pair[1]));
            }
        }
    }

    #[test]
    fn sigma_interpolates_and_stops_at_the_ends() {
        let schedule = NoiseSchedule::new(LINEAR, 1000).unwrap();
        let middle = (schedule.sigma(10.0) + schedule.sigma(11.0)) / 2.0;
        assert!((schedule.sigma(10.5) - middle).abs() < 1e-15);
        assert_eq!(schedule.sigma(-3.0), schedule.sigma(0.0));
        assert_eq!(schedule.sigma(5000.0), schedule.sigma(999.0));
    }
}
