//! Drift: whether a stream that runs for thousands of frames on its own output still draws as it did at the start.
//!
//! # How the input's own changes are taken out
//! A picture that gets darker because its input does has not drifted. So every input is a loop, and a frame is compared
//! only with frames that were drawn from *the same input*, one or more laps earlier: what differs between them comes
//! from the stream's past alone. No model of how outputs follow inputs is needed. The second yardstick is a fresh
//! stream, started a few frames before on the same input, which has no past that could have spoilt it.
//!
//! # What is asked
//! [`verdict`] has the checks and their limits, [`measures`] what is measured on each frame. The same checks must fail
//! [`Variant::Naive`]: a test that nothing fails proves nothing.
//!
//! The harness knows no network. It asks a [`Subject`] for streams and feeds them frames.

pub mod curves;
pub mod engine;
pub mod inputs;
pub mod measures;
pub mod palette;
pub mod report;
mod response;
mod scenes;
pub mod series;
pub mod sheet;
pub mod trace;
pub mod verdict;

use crate::{Error, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Something that can be tested for drift: a network with its settings.
pub trait Subject {
    /// A stream at its first frame.
    ///
    /// # Errors
    /// A variant that this subject does not have, or a stream that cannot be set up.
    fn start(&self, variant: Variant, seed: u64) -> Result<Box<dyn Redraw>>;

    /// Two styles that a stream can switch between, the first being the one that it starts with; `None` where there is
    /// only one style, so that the switching input is left out.
    fn styles(&self) -> Option<[String; 2]> {
        None
    }
}

/// A stream under test: takes one frame, gives one frame, and remembers.
pub trait Redraw {
    /// Redraws the next frame: `(1, 3, height, width)` in f32, values in [-1, 1], to the same shape and range.
    ///
    /// # Errors
    /// Whatever the stream refuses.
    fn step(&mut self, frame: &Tensor) -> Result<Tensor>;

    /// Changes the style from the next frame on, without a reset.
    ///
    /// # Errors
    /// A style that the subject does not have.
    fn set_style(&mut self, style: &str) -> Result<()>;
}

/// Which remedies against drift are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// All of them: the stream as it is meant to run.
    Full,
    /// None: the plain feedback of outputs, which must collapse.
    Naive,
    /// All but the noise on the history, which is trusted as it is.
    NoAugmentation,
    /// All but the context memory.
    NoMemory,
    /// All but the temporal blend.
    NoBlend,
}

impl Variant {
    /// Every variant, with the name that the command line takes.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Full, "full"),
        (Self::Naive, "naive"),
        (Self::NoAugmentation, "no-augmentation"),
        (Self::NoMemory, "no-memory"),
        (Self::NoBlend, "no-blend"),
    ];

    /// Whether the history is noised as it was in training.
    pub fn augments(self) -> bool {
        !matches!(self, Self::Naive | Self::NoAugmentation)
    }

    /// Whether the context memory is on.
    pub fn remembers(self) -> bool {
        !matches!(self, Self::Naive | Self::NoMemory)
    }

    /// Whether the temporal blend is on.
    pub fn blends(self) -> bool {
        !matches!(self, Self::Naive | Self::NoBlend)
    }
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(variant, _)| *variant).ok_or_else(|| {
            let known = Self::ALL.map(|(_, name)| name).join(", ");
            Error::Stream(format!("no variant {text:?}: choose one of {known}"))
        })
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(variant, _)| variant == self).map_or("", |(_, name)| name))
    }
}

#[cfg(test)]
mod subjects;
#[cfg(test)]
mod tests;
