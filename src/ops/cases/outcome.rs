//! What came of a case.
use std::fmt;

/// How far a slot is from the op's definition.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Largest absolute difference from plain Candle in f32.
    pub error: f64,
    /// What is allowed.
    pub tolerance: f64,
    /// Pieces of memory next to which a kernel has written.
    pub overrun: usize,
}

impl fmt::Display for Outcome {
    /// What is wrong, where something is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.overrun > 0 {
            return write!(f, "it writes next to {} of its pieces of memory", self.overrun);
        }
        write!(f, "it differs from its definition by {:.1e}, {:.1e} is allowed", self.error, self.tolerance)
    }
}

impl Outcome {
    /// Whether the error is a number and within bounds, and nothing was written beyond what was to be.
    pub fn passed(&self) -> bool {
        self.error.is_finite() && self.error <= self.tolerance && self.overrun == 0
    }
}
