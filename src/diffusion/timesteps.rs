//! Which training timesteps a run of few denoising steps visits.
use super::{Error, Result};

/// How timesteps are spread over the training schedule (arXiv:2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spacing {
    /// Multiples of `train / steps` from 0 upward: ends at the cleanest timestep, may start well below the noisiest.
    #[default]
    Leading,
    /// Evenly from the noisiest to the cleanest, both included.
    Linspace,
    /// Multiples of `train / steps` from the noisiest downward.
    Trailing,
}

impl Spacing {
    /// The `steps` timesteps for a model trained on `train`, from the noisiest down. `offset` is added where the spacing is
    /// [`Leading`](Self::Leading) (the checkpoints' `steps_offset`); the other spacings have no use for it.
    ///
    /// [`Linspace`](Self::Linspace) gives fractions, which samplers over sigmas take as they are and others round.
    ///
    /// # Errors
    /// When `steps` is not in `1..=train`, or the offset leads past the last timestep.
    pub fn timesteps(self, steps: usize, train: usize, offset: usize) -> Result<Vec<f64>> {
        if !(1..=train).contains(&steps) {
            return Err(Error::Steps { steps, max: train });
        }
        let from_clean = 0..steps;
        Ok(match self {
            Self::Leading => {
                let distance = train / steps;
                let noisiest = ((steps - 1) * distance).saturating_add(offset);
                if noisiest >= train {
                    return Err(Error::Offset { offset, steps, timestep: noisiest, last: train - 1 });
                }
                from_clean.rev().map(|i| (i * distance + offset) as f64).collect()
            }
            Self::Linspace => {
                let last = (train - 1) as f64;
                // With one step there is no distance: the only timestep is 0, as in diffusers.
                let distance = last / (steps.max(2) - 1) as f64;
                from_clean.rev().map(|i| if i > 0 && i + 1 == steps { last } else { i as f64 * distance }).collect()
            }
            Self::Trailing => {
                let train = train as f64;
                // NumPy's arange adds multiples of the rounded first difference. Doing the same makes exact halves round the same way.
                let distance = (train - train / steps as f64) - train;
                from_clean.map(|i| (train + i as f64 * distance).round_ties_even() - 1.0).collect()
            }
        })
    }
}

/// How many of `steps` run when an input frame is redrawn at `strength`: the last `floor(steps * strength)`, which start from the
/// frame with noise added.
///
/// # Errors
/// When `strength` is outside (0, 1], or none would run.
pub(super) fn steps_to_run(steps: usize, strength: f64) -> Result<usize> {
    check_strength(strength)?;
    match ((steps as f64 * strength) as usize).min(steps) {
        0 => Err(Error::NothingToRun { strength, steps, least: 1.0 / steps as f64 }),
        run => Ok(run),
    }
}

/// The timesteps of a latent consistency model (arXiv:2310.04378, section 4.3): `steps` of the `original` evenly spaced ones that it was
/// distilled on, of which `strength` keeps the cleaner part. From the noisiest down.
///
/// # Errors
/// When `original` is not in `1..=train`, `strength` is outside (0, 1], or fewer than `steps` timesteps are left.
pub(super) fn lcm_timesteps(steps: usize, train: usize, original: usize, strength: f64) -> Result<Vec<usize>> {
    if !(1..=train).contains(&original) {
        return Err(Error::OriginalSteps { original, max: train });
    }
    check_strength(strength)?;
    if steps == 0 {
        return Err(Error::Steps { steps, max: original });
    }
    let available = (original as f64 * strength) as usize;
    if available < steps {
        return Err(Error::TooFewLcmTimesteps { steps, original, strength, available });
    }
    let distance = train / original;
    let stride = available as f64 / steps as f64;
    Ok((0..steps)
        .map(|i| {
            let skipped = (i as f64 * stride) as usize;
            (available - skipped) * distance - 1
        })
        .collect())
}

fn check_strength(strength: f64) -> Result<()> {
    if strength > 0.0 && strength <= 1.0 { Ok(()) } else { Err(Error::Strength(strength)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_steps_decreases_strictly_inside_the_schedule() {
        for spacing in [Spacing::Leading, Spacing::Linspace, Spacing::Trailing] {
            for train in [1, 2, 7, 50, 1000] {
                for steps in 1..=train {
                    let timesteps = spacing.timesteps(steps, train, 0).unwrap();
                    assert_eq!(timesteps.len(), steps);
                    let rounded: Vec<f64> = timesteps.iter().map(|t| t.round_ties_even()).collect();
                    for ts in [&timesteps, &rounded] {
                        assert!(ts.windows(2).all(|pair| pair[0] > pair[1]), "{spacing:?} {steps}/{train}");
                        assert!(ts[0] <= (train - 1) as f64 && ts[steps - 1] >= 0.0);
                    }
                }
                assert_eq!(spacing.timesteps(0, train, 0), Err(Error::Steps { steps: 0, max: train }));
                assert!(spacing.timesteps(train + 1, train, 0).is_err());
                assert!(spacing.timesteps(usize::MAX, train, 0).is_err());
            }
        }
    }

    #[test]
    fn an_offset_past_the_end_is_an_error() {
        assert_eq!(Spacing::Leading.timesteps(2, 1000, 1).unwrap(), [501.0, 1.0]);
        for (steps, offset) in [(1000, 1), (2, 500), (1, usize::MAX)] {
            assert!(matches!(Spacing::Leading.timesteps(steps, 1000, offset), Err(Error::Offset { .. })));
        }
    }

    #[test]
    fn strength_keeps_the_cleaner_steps() {
        for (steps, strength, run) in [(50, 1.0, 50), (50, 0.6, 30), (4, 0.5, 2), (3, 0.5, 1), (1, 1.0, 1)] {
            assert_eq!(steps_to_run(steps, strength), Ok(run));
        }
        assert!(matches!(steps_to_run(4, 0.2), Err(Error::NothingToRun { .. })));
        for strength in [0.0, -0.5, 1.01, f64::NAN, f64::INFINITY] {
            assert!(matches!(steps_to_run(4, strength), Err(Error::Strength(_))));
            assert!(matches!(lcm_timesteps(4, 1000, 50, strength), Err(Error::Strength(_))));
        }
    }

    #[test]
    fn lcm_picks_from_the_distillation_schedule() {
        assert_eq!(lcm_timesteps(4, 1000, 50, 1.0).unwrap(), [999, 759, 499, 259]);
        assert_eq!(lcm_timesteps(1, 1000, 50, 0.5).unwrap(), [499]);
        assert_eq!(lcm_timesteps(1, 1, 1, 1.0).unwrap(), [0]);
        assert!(matches!(lcm_timesteps(0, 1000, 50, 1.0), Err(Error::Steps { .. })));
        assert!(matches!(lcm_timesteps(51, 1000, 50, 1.0), Err(Error::TooFewLcmTimesteps { .. })));
        for original in [0, 1001] {
            assert!(matches!(lcm_timesteps(1, 1000, original, 1.0), Err(Error::OriginalSteps { .. })));
        }
    }
}
