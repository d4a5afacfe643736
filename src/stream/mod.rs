//! The model over time: what it remembers, what noise it draws, when each frame is due.

pub mod history;
pub mod noise;
pub mod pacing;
