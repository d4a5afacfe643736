//! A sampler as data: the linear form of every denoising step, worked out before the first frame.
use super::timesteps::steps_to_run;
use super::{Error, NoiseSchedule, Result, Spacing, ddim, euler, lcm};

/// The length of the schedule that most latent consistency models were distilled on.
pub const LCM_ORIGINAL_STEPS: usize = 50;

/// The rule that turns a model's output into the next, cleaner sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampler {
    /// Denoising diffusion implicit models, arXiv:2010.02502.
    Ddim {
        /// The share of fresh noise, from 0 (none: the same start gives the same end) to 1 (as much as DDPM).
        eta: f64,
    },
    /// Euler steps of the probability flow ODE over sigmas, arXiv:2206.00364, algorithm 1 with second-order correction left out.
    Euler,
    /// Multistep consistency sampling for latent consistency models, arXiv:2310.04378, algorithm 3.
    Lcm {
        /// The length of the schedule that the model was distilled on; [`LCM_ORIGINAL_STEPS`] for most.
        original_steps: usize,
    },
}

/// What the network was trained to put out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prediction {
    /// The noise in the sample.
    #[default]
    Epsilon,
    /// The clean sample.
    Sample,
    /// `sqrt(alpha_bar) * noise - sqrt(1 - alpha_bar) * clean`, arXiv:2202.00512, appendix D.
    VPrediction,
}

/// Everything that a plan is made from, besides the noise schedule. The names are those of the checkpoints' `scheduler_config.json`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The rule for a step.
    pub sampler: Sampler,
    /// What the network puts out.
    pub prediction: Prediction,
    /// How the timesteps are spread. [`Sampler::Lcm`] has its own way and reads neither this nor `steps_offset`.
    pub spacing: Spacing,
    /// Added to each timestep of [`Spacing::Leading`]; Stable Diffusion uses 1, most others 0.
    pub steps_offset: usize,
    /// Whether the last step of [`Sampler::Ddim`] ends at no noise at all, or at the noise of timestep 0 (Stable Diffusion).
    pub set_alpha_to_one: bool,
    /// Bounds the predicted clean sample to `-clip..=clip`.
    pub clip: Option<f64>,
    /// Denoising steps at strength 1, at least 1.
    pub steps: usize,
    /// How much of the input frame is redrawn, in (0, 1]. Below 1, DDIM and Euler run the last `floor(steps * strength)` of their
    /// steps; LCM runs all, over the cleaner part of its schedule.
    pub strength: f64,
}

impl Settings {
    /// `steps` steps of `sampler` at strength 1 for a model that predicts noise, with the spacing that is usual for the sampler
    /// (linspace for Euler, leading for the others), no offset, no clipping.
    pub fn new(sampler: Sampler, steps: usize) -> Self {
        Self {
            sampler,
            prediction: Prediction::Epsilon,
            spacing: match sampler {
                Sampler::Euler => Spacing::Linspace,
                Sampler::Ddim { .. } | Sampler::Lcm { .. } => Spacing::Leading,
            },
            steps_offset: 0,
            set_alpha_to_one: true,
            clip: None,
            steps,
            strength: 1.0,
        }
    }
}

/// One denoising step as numbers. With `x` the sample, `out` the model's output for `input_scale * x` at `timestep`, and `noise` fresh
/// standard Gaussian noise:
///
/// ```text
/// x0   = x0_from_x * x + x0_from_out * out          then clipped to -clip..=clip
/// next = next_from_x * x + next_from_out * out + next_from_x0 * x0 + next_from_noise * noise
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// What the network is told, in training timesteps; a fraction for Euler with [`Spacing::Linspace`].
    pub timestep: f64,
    /// The network gets `input_scale * x`. 1 for all but Euler.
    pub input_scale: f64,
    /// The weight of `x` in the clean sample.
    pub x0_from_x: f64,
    /// The weight of the model's output in the clean sample.
    pub x0_from_out: f64,
    /// The bound of the clean sample.
    pub clip: Option<f64>,
    /// The weight of `x` in the next sample.
    pub next_from_x: f64,
    /// The weight of the model's output in the next sample.
    pub next_from_out: f64,
    /// The weight of the clipped clean sample in the next sample.
    pub next_from_x0: f64,
    /// The weight of fresh noise in the next sample; 0 where none is needed.
    pub next_from_noise: f64,
}

impl Step {
    /// The clean sample that the model's output stands for, of one value.
    pub fn x0(&self, x: f64, out: f64) -> f64 {
        let x0 = self.x0_from_x * x + self.x0_from_out * out;
        self.clip.map_or(x0, |bound| x0.clamp(-bound, bound))
    }

    /// The next sample, of one value. This defines what a tensor op must compute.
    pub fn next(&self, x: f64, out: f64, noise: f64) -> f64 {
        self.next_from_x * x
            + self.next_from_out * out
            + self.next_from_x0 * self.x0(x, out)
            + self.next_from_noise * noise
    }
}

/// How a sample is begun from an input frame: `signal * frame + noise * gaussian`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Start {
    /// The weight of the frame.
    pub signal: f64,
    /// The weight of standard Gaussian noise.
    pub noise: f64,
}

/// All denoising steps of one frame, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The steps, from the noisiest. Never empty; timesteps decrease strictly.
    pub steps: Vec<Step>,
    /// How to begin from an input frame.
    pub start: Start,
    /// How to begin from nothing: `init_noise_sigma * gaussian`. Only of use at strength 1.
    pub init_noise_sigma: f64,
}

impl Plan {
    /// Works out all steps.
    ///
    /// # Errors
    /// When a setting is out of its range, or no step would run.
    pub fn new(schedule: &NoiseSchedule, settings: &Settings) -> Result<Self> {
        if let Some(clip) = settings.clip
            && !(clip > 0.0 && clip.is_finite())
        {
            return Err(Error::Clip(clip));
        }
        match settings.sampler {
            Sampler::Ddim { eta } => ddim::plan(schedule, settings, eta),
            Sampler::Euler => euler::plan(schedule, settings),
            Sampler::Lcm { original_steps } => lcm::plan(schedule, settings, original_steps),
        }
    }
}

impl Plan {
    /// DDIM without fresh noise through exactly these timesteps, noisiest first, for a network that estimates the clean
    /// sample, bounded to `-clip..=clip`.
    ///
    /// # Errors
    /// Timesteps that are none, do not decrease strictly, or lie past the schedule's last.
    pub fn through(schedule: &NoiseSchedule, timesteps: &[usize], clip: f64) -> Result<Self> {
        ddim::through(schedule, timesteps, clip)
    }
}

impl Settings {
    /// The timesteps at strength 1, and how many of them to skip at this strength.
    pub(super) fn timesteps(&self, train: usize) -> Result<(Vec<f64>, usize)> {
        let timesteps = self.spacing.timesteps(self.steps, train, self.steps_offset)?;
        let skipped = self.steps - steps_to_run(self.steps, self.strength)?;
        Ok((timesteps, skipped))
    }
}

impl Prediction {
    /// The weights of `x` and of the model's output in the clean sample, where `x = signal * clean + noise * gaussian` and
    /// `signal^2 + noise^2 = 1`.
    pub(super) fn x0_weights(self, signal: f64, noise: f64) -> (f64, f64) {
        match self {
            Self::Epsilon => (1.0 / signal, -noise / signal),
            Self::Sample => (0.0, 1.0),
            Self::VPrediction => (signal, -noise),
        }
    }

    /// The weights of `x` and of the model's output in the noise, likewise.
    pub(super) fn noise_weights(self, signal: f64, noise: f64) -> (f64, f64) {
        match self {
            Self::Epsilon => (0.0, 1.0),
            Self::Sample => (1.0 / noise, -signal / noise),
            Self::VPrediction => (noise, signal),
        }
    }
}
