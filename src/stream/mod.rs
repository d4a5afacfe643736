//! The model over time: each frame is redrawn by a few denoising steps, conditioned on what was drawn before.

mod blend;
pub mod convert;
mod engine;
pub mod history;
mod memory;
pub mod noise;
pub mod pacing;

pub use blend::{BlendNetwork, BlendRule};
pub use engine::{Sampling, Stream, StreamConfig};
pub use memory::{Memory, MemoryConfig};
