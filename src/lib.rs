//! Live stream diffusion on Candle: video in, redrawn video out, frame by frame.
pub mod bench;
pub mod diffusion;
pub mod media;
