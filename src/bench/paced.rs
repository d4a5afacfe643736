//! Frames fed by the clock, as a camera would: how late they leave, and how many are dropped because a newer one came.
use super::statistics::Summary;
use crate::media::FrameRate;
use crate::stream::pacing::{Clock, Pacer, Pacing};

/// What came of it.
pub struct Paced {
    /// Milliseconds between when a frame's result was due (before the next frame came) and when it left; 0 where in time.
    pub lateness: Option<Summary>,
    /// Frames finished, late and dropped.
    pub pacing: Pacing,
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
    Ok(Paced { lateness: Summary::new(&lateness), pacing: pacer.pacing() })
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
        assert_eq!((paced.pacing.dropped, paced.lateness.unwrap().max), (0, 0.0));
    }

    #[test]
    fn slow_work_drops_frames_for_newer_ones() {
        let (paced, seen) = paced(90); // more than two frames' time; the last frame is never dropped
        assert!(seen == [0, 2, 4, 5], "{seen:?}");
        assert_eq!(paced.pacing.dropped as usize, 6 - seen.len());
        assert!(paced.lateness.unwrap().median >= 50.0);
    }
}
