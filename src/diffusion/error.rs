//! What can be wrong with a schedule or a plan: which value, what it must be, what to do.

/// A setting that no schedule or plan can be made from.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The betas do not describe a process that adds some noise in each timestep.
    #[error(
        "beta goes from {start} to {end}, but must satisfy 0 < start <= end < 1; Stable Diffusion uses 0.00085 to 0.012"
    )]
    Betas {
        /// The first beta.
        start: f64,
        /// The last beta.
        end: f64,
    },
    /// The number of training timesteps is zero or absurd.
    #[error("{0} training timesteps: must be from 1 to {max}; most models were trained with 1000", max = super::MAX_TRAIN_TIMESTEPS)]
    TrainTimesteps(usize),
    /// So much noise is added that nothing of the signal is left in floating point.
    #[error(
        "the noise schedule leaves {alpha_bar:e} of the signal's variance after {train_timesteps} timesteps, too little to compute with; \
         lower the last beta or the number of training timesteps"
    )]
    NoSignalLeft {
        /// The smallest product of `1 - beta`.
        alpha_bar: f64,
        /// The number of training timesteps.
        train_timesteps: usize,
    },
    /// More denoising steps than the model has timesteps, or none.
    #[error("{steps} denoising steps: must be from 1 to {max}, the number of timesteps to choose from")]
    Steps {
        /// The number asked for.
        steps: usize,
        /// The largest possible number.
        max: usize,
    },
    /// The offset moves the first timestep past the last one that the model knows.
    #[error(
        "steps_offset {offset} moves the noisiest of {steps} steps to timestep {timestep}, past the last, {last}; use offset 0 or fewer steps"
    )]
    Offset {
        /// The offset asked for.
        offset: usize,
        /// The number of denoising steps.
        steps: usize,
        /// The timestep that results.
        timestep: usize,
        /// The last timestep that the model was trained on.
        last: usize,
    },
    /// The strength is not a fraction above zero.
    #[error("strength {0}: must be above 0 and at most 1; 1 ignores the input frame, 0.3 keeps most of it")]
    Strength(f64),
    /// The strength is so low that no step would run.
    #[error(
        "strength {strength} of {steps} steps leaves no step to run; raise the strength to {least:.3} or more, or take more steps"
    )]
    NothingToRun {
        /// The strength asked for.
        strength: f64,
        /// The number of denoising steps.
        steps: usize,
        /// The lowest strength at which one step runs.
        least: f64,
    },
    /// The distillation schedule of LCM does not fit into the training schedule.
    #[error(
        "LCM's original_steps {original}: must be from 1 to {max}, the number of training timesteps; most models were distilled with 50"
    )]
    OriginalSteps {
        /// The number asked for.
        original: usize,
        /// The number of training timesteps.
        max: usize,
    },
    /// LCM has fewer timesteps to choose from than steps to run.
    #[error(
        "LCM cannot take {steps} steps: original_steps {original} at strength {strength} leaves {available} timesteps; \
         take fewer steps or raise the strength"
    )]
    TooFewLcmTimesteps {
        /// The number of denoising steps.
        steps: usize,
        /// The length of the distillation schedule.
        original: usize,
        /// The strength asked for.
        strength: f64,
        /// How many timesteps there are.
        available: usize,
    },
    /// The share of fresh noise in DDIM is not a fraction.
    #[error("eta {0}: must be from 0 (no fresh noise, DDIM) to 1 (as much as DDPM)")]
    Eta(f64),
    /// Chosen timesteps that a sampler cannot go through.
    #[error("timesteps must be at least one, decrease strictly and lie below {train}")]
    Timesteps {
        /// The schedule's length.
        train: usize,
    },
    /// The clipping bound is not a positive number.
    #[error("clip {0}: must be a positive number; images scaled to -1..1 take 1")]
    Clip(f64),
}
