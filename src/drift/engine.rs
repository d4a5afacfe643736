//! Engine drift: how far the stages take a stream away from plain f32, when each runs on its own output.
use super::inputs::Script;
use super::measures::Pixels;
use super::trace::draw;
use super::{Redraw, Subject, Variant};
use crate::Result;
use serde::{Deserialize, Serialize};

/// The most that a frame may differ in the mean, values in [0, 1]: the tolerance of a channel's mean, so that a stage
/// changes what is drawn by less than an eye sees. A single step is checked far more strictly where the stages are; here
/// rounding is fed back, and a picture may take another of two equal ways.
const LIMIT: f64 = 0.02;

/// One set of stages against plain Candle in f32, same seed, same input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineDrift {
    /// The stages.
    pub stages: String,
    /// Frames that both drew.
    pub frames: u64,
    /// Largest difference of any value of any frame, on [0, 1].
    pub largest: f64,
    /// Mean difference over all values of all frames.
    pub mean: f64,
    /// Mean difference over the values of the frame where it is largest.
    pub worst_frame: f64,
    /// What the worst frame may have.
    pub limit: f64,
    /// Whether it stays below.
    pub passed: bool,
}

/// Runs each staged subject beside the reference over the first `frames` frames of the script; `tick` is called once a
/// frame.
///
/// # Errors
/// Whatever a stream refuses.
pub fn compare(
    reference: &dyn Subject,
    staged: &[(String, &dyn Subject)],
    (script, frames, seed): (&Script, u64, u64),
    tick: &mut dyn FnMut(),
) -> Result<Vec<EngineDrift>> {
    let start = |subject: &dyn Subject| subject.start(Variant::Full, seed);
    let mut reference = start(reference)?;
    let mut streams = staged.iter().map(|(_, subject)| start(*subject)).collect::<Result<Vec<_>>>()?;
    let new = |(stages, _): &(String, &dyn Subject)| EngineDrift {
        stages: stages.clone(),
        frames: 0,
        largest: 0.0,
        mean: 0.0,
        worst_frame: 0.0,
        limit: LIMIT,
        passed: true,
    };
    let mut found: Vec<EngineDrift> = staged.iter().map(new).collect();
    for index in 0..frames.min(script.frames()) {
        let wanted = pixels(&mut *reference, script, index)?;
        for (stream, drift) in streams.iter_mut().zip(&mut found) {
            let drawn = pixels(&mut **stream, script, index)?;
            drift.add(wanted.as_ref(), drawn.as_ref());
        }
        tick();
    }
    Ok(found)
}

fn pixels(stream: &mut dyn Redraw, script: &Script, index: u64) -> Result<Option<Pixels>> {
    Ok(draw(stream, script.frame(index))?.map(|(pixels, _)| pixels))
}

impl EngineDrift {
    /// Takes a frame in; one that is not finite on one side only is as far off as can be.
    fn add(&mut self, wanted: Option<&Pixels>, drawn: Option<&Pixels>) {
        let (mean, largest) = match (wanted, drawn) {
            (Some(a), Some(b)) => (a.difference(b), a.largest_difference(b)),
            (None, None) => (0.0, 0.0),
            _ => (1.0, 1.0),
        };
        self.frames += 1;
        self.mean += (mean - self.mean) / self.frames as f64;
        self.largest = self.largest.max(largest);
        self.worst_frame = self.worst_frame.max(mean);
        self.passed = self.worst_frame <= self.limit;
    }
}
