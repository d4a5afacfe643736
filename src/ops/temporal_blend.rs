//! `y = alpha · current + (1 − alpha) · previous`: mixing a frame with the one before it.
use super::probe::{Call, Op};
use super::{Ops, bytes};
use candle_core::{Result, Tensor};

/// How much of the current frame to keep.
#[derive(Clone, Copy)]
pub enum Blend<'a> {
    /// The same everywhere, in [0, 1].
    Fixed(f64),
    /// Per pixel, `(batch, 1, height, width)`, each in [0, 1].
    Map(&'a Tensor),
}

/// The slot.
pub trait TemporalBlend: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// Runs it on two `(batch, channels, height, width)`.
    ///
    /// # Errors
    /// Frames of different shapes, or a map that does not fit them.
    fn run(&self, current: &Tensor, previous: &Tensor, alpha: Blend<'_>) -> Result<Tensor>;
}

impl Ops {
    /// Mixes a frame with the one before it.
    ///
    /// # Errors
    /// Frames of different shapes, or a map that does not fit them.
    pub fn temporal_blend(&self, current: &Tensor, previous: &Tensor, alpha: Blend<'_>) -> Result<Tensor> {
        let moved = |y: &Tensor| (3 * y.elem_count() as u64, bytes(current) + bytes(previous) + bytes(y));
        let call = Call { op: Op::TemporalBlend, site: "stream.blend", stage: self.temporal_blend.stage() };
        self.probe.run(call, moved, || self.temporal_blend.run(current, previous, alpha))
    }
}

/// Written out in Candle's elementwise ops.
pub struct Reference;

impl TemporalBlend for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn run(&self, current: &Tensor, previous: &Tensor, alpha: Blend<'_>) -> Result<Tensor> {
        let change = (current - previous)?;
        match alpha {
            Blend::Fixed(alpha) => previous + (change * alpha)?,
            Blend::Map(alpha) => previous + change.broadcast_mul(alpha)?,
        }
    }
}
