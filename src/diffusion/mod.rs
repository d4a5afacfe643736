//! Noise schedules and samplers, reduced to a list of numbers per step that a tensor op applies.
//!
//! [`Plan::new`] does all the mathematics once, in `f64`: it picks the timesteps and turns the sampler's formula into the
//! coefficients of one linear form, [`Step`]. Whatever runs the network then needs no schedule, no branch on the sampler and no table.

mod ddim;
mod error;
mod euler;
mod lcm;
mod sampler;
mod schedule;
mod timesteps;

pub use error::Error;
pub use sampler::{LCM_ORIGINAL_STEPS, Plan, Prediction, Sampler, Settings, Start, Step};
pub use schedule::{BetaSchedule, MAX_TRAIN_TIMESTEPS, NoiseSchedule};
pub use timesteps::Spacing;

/// What this module returns.
pub type Result<T> = std::result::Result<T, Error>;
