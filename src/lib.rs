//! Live stream diffusion on Candle: video in, redrawn video out, frame by frame, each frame conditioned on what was
//! drawn before, in real time.
//!
//! Calls go one way: [`cli`] → [`stream`] → [`model`] → [`ops`]. The speed-ups are a ladder of [`stages`], each a Cargo
//! feature and a run-time switch, layered over one plain Candle model so that each one's gain is measured alone.

pub mod bench;
pub mod cli;
pub mod cuda;
pub mod diffusion;
pub mod drift;
mod error;
pub mod media;
pub mod model;
pub mod ops;
#[path = "../stages/mod.rs"]
pub mod stages;
pub mod stream;

pub use error::{Error, Result};
