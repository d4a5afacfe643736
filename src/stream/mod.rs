//! The model over time: each frame is redrawn by a few denoising steps, conditioned on what was drawn before.

mod blend;
mod config;
pub mod convert;
mod engine;
pub mod history;
mod inputs;
mod memory;
pub mod pacing;
mod restyle;

pub use blend::{BlendNetwork, BlendRule, MotionBlend};
pub use config::{Sampling, StreamConfig};
pub use engine::Stream;
pub use memory::{Memory, MemoryConfig};
