//! Frames fed by the clock, as a camera would: how late they leave, and how many are dropped because a newer one came.
use super::report::{Build, Machine, Status, Work};
use super::statistics::Summary;
use crate::media::FrameRate;
use crate::stream::pacing::{Clock, Pacer};
use serde::Serialize;

/// A paced run as `bench --paced --json` writes it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// What ran.
    pub build: Build,
    /// The command line.
    pub command: String,
    /// Seconds since 1970.
    pub unix_time: u64,
    /// What was done for each frame.
    pub work: Work,
    /// The stages that did it; empty for plain Candle.
    pub stages: Vec<String>,
    /// How they stored the weights of large layers: `storage`, as everything else, or `fp8`.
    pub weights_dtype: String,
    /// Whether it was right, so that it was timed.
    pub status: Status,
    /// Largest difference of one call from plain Candle in f32, as a share of the largest magnitude.
    pub error: f64,
    /// Frames fed in a second.
    pub rate: f64,
    /// What came of it, where it was timed.
    pub paced: Option<Paced>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Paced {
    /// Frames fed.
    pub fed: u64,
    /// Frames finished.
    pub finished: u64,
    /// Of those, how many after they were due.
    pub late: u64,
    /// Frames dropped for newer ones.
    pub dropped: u64,
    /// Milliseconds between when a frame's result was due (before the next frame came) and when it left; 0 where in
    /// time.
    pub lateness: Option<Summary>,
}

/// Feeds `frames` frames at `rate`; `work` redraws the one whose number it is given.
///
/// # Errors
/// A rate of zero, and whatever `work` reports.
pub fn run<C: Clock>(
    rate: FrameRate,
    frames: u64,
    clock: C,
    mut work: impl FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<Paced> {
    let mut pacer = Pacer::with_clock(rate, clock)?;
    let mut lateness = vec![];
    while let Some(turn) = pacer.wait(frames) {
        work(turn.frame)?;
        lateness.push(pacer.finish(turn).as_secs_f64() * 1e3);
    }
    let pacing = pacer.pacing();
    Ok(Paced {
        fed: frames,
        finished: pacing.finished,
        late: pacing.late,
        dropped: pacing.dropped,
        lateness: Summary::new(&lateness),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::pacing::ManualClock;
    use std::time::Duration;

    fn paced(milliseconds: u64) -> (Paced, Vec<u64>) {
        let clock = ManualClock::default();
        let mut seen = vec![];
        let rate = FrameRate { numerator: 25, denominator: 1 };
        let paced = run(rate, 6, clock.clone(), |frame| {
            seen.push(frame);
            clock.advance(Duration::from_millis(milliseconds));
            Ok(())
        });
        (paced.unwrap(), seen)
    }

    #[test]
    fn work_that_keeps_up_is_never_late() {
        let (paced, seen) = paced(39);
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        assert_eq!((paced.dropped, paced.late, paced.lateness.unwrap().max), (0, 0, 0.0));
    }

    #[test]
    fn slow_work_drops_frames_for_newer_ones() {
        let (paced, seen) = paced(90); // more than two frames' time; the last frame is never dropped
        assert!(seen == [0, 2, 4, 5], "{seen:?}");
        assert_eq!((paced.fed, paced.finished), (6, 4));
        assert_eq!(paced.dropped as usize, 6 - seen.len());
        assert!(paced.lateness.unwrap().median >= 50.0);
    }
}
