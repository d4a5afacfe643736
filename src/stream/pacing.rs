//! Frames on the clock: when each one arrives and is due, how late it was, which were dropped.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::media::FrameRate;

const NANOS: u128 = 1_000_000_000;

/// Where a [`Pacer`] gets its time from, so that it can be tested without waiting.
pub trait Clock {
    /// Time since some fixed moment. Never goes back.
    fn now(&self) -> Duration;
    /// Returns after `duration` or later.
    fn sleep(&self, duration: Duration);
}

/// The machine's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock that moves only when told to or slept on. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Moves the time on, as work of that length would.
    pub fn advance(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

/// A frame rate of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{numerator} frames in {denominator} seconds is no rate to pace by; give a rate above 0, such as 24"
)]
pub struct InvalidRate {
    /// Frames …
    pub numerator: u32,
    /// … in this many seconds.
    pub denominator: u32,
}

/// A frame taken for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "give it back to `Pacer::finish` when the frame is out"]
pub struct Turn {
    /// The number of the frame, from 0.
    pub frame: u64,
    /// When it arrived, on the pacer's clock.
    pub arrived: Duration,
    /// When its result is due: when the frame after it arrives.
    pub due: Duration,
}

/// What became of the frames so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pacing {
    /// Frames taken and finished.
    pub finished: u64,
    /// Of those, how many after they were due.
    pub late: u64,
    /// Frames never taken, since a newer one had arrived.
    pub dropped: u64,
    /// The largest lateness.
    pub worst: Duration,
    /// The sum of all latenesses.
    pub total: Duration,
}

/// Hands out frames as a live source would and keeps the books. When work is slower than the rate, the newest frame
/// wins and those between are dropped: the delay stays bounded.
#[derive(Debug, Clone)]
pub struct Pacer<C = SystemClock> {
    clock: C,
    rate: FrameRate,
    /// When frame 0 arrives; set by the first wait, so that loading and warming up cost no frames.
    start: Option<Duration>,
    /// The frame after the last one taken.
    next: Option<u64>,
    pacing: Pacing,
}

impl Pacer<SystemClock> {
    /// Paces by the machine's clock.
    ///
    /// # Errors
    /// When the rate has a zero in it.
    pub fn new(rate: FrameRate) -> Result<Self, InvalidRate> {
        Self::with_clock(rate, SystemClock::default())
    }
}

impl<C: Clock> Pacer<C> {
    /// Paces by the clock given.
    ///
    /// # Errors
    /// When the rate has a zero in it.
    pub fn with_clock(rate: FrameRate, clock: C) -> Result<Self, InvalidRate> {
        let FrameRate {
            numerator,
            denominator,
        } = rate;
        if numerator == 0 || denominator == 0 {
            return Err(InvalidRate {
                numerator,
                denominator,
            });
        }
        Ok(Self {
            clock,
            rate,
            start: None,
            next: None,
            pacing: Pacing::default(),
        })
    }

    /// For a recording of `frames` frames played as if live: waits until a frame that was not taken yet has arrived, and takes the
    /// newest. `None` after the last. The first call takes frame 0 at once and starts the clock.
    pub fn wait(&mut self, frames: u64) -> Option<Turn> {
        let last = frames.checked_sub(1)?;
        let start = *self.start.get_or_insert_with(|| self.clock.now());
        let next = self.next.unwrap_or(0);
        if next > last {
            return None;
        }
        loop {
            let elapsed = self.clock.now().saturating_sub(start);
            let newest = self.newest_at(elapsed).min(last);
            if newest >= next {
                let arrived = start.saturating_add(self.arrival(newest));
                let due = start.saturating_add(self.arrival(newest.saturating_add(1)));
                return Some(self.turn(newest, arrived, due));
            }
            self.clock.sleep(self.arrival(next).saturating_sub(elapsed));
        }
    }

    /// For a source with a clock of its own, such as a camera: takes frame number `frame`, which has just arrived. Numbers left out
    /// since the last one count as dropped; the first may be any, and one that goes back means that the source began anew.
    pub fn take(&mut self, frame: u64) -> Turn {
        let arrived = self.clock.now();
        self.turn(frame, arrived, arrived.saturating_add(self.arrival(1)))
    }

    /// Records that the result of a frame is out now. Returns how late that is; zero when on time.
    pub fn finish(&mut self, turn: Turn) -> Duration {
        let lateness = self.clock.now().saturating_sub(turn.due);
        let pacing = &mut self.pacing;
        pacing.finished += 1;
        pacing.late += u64::from(!lateness.is_zero());
        pacing.worst = pacing.worst.max(lateness);
        pacing.total = pacing.total.saturating_add(lateness);
        lateness
    }

    /// The books so far.
    pub fn pacing(&self) -> Pacing {
        self.pacing
    }

    /// Starts over: the next wait takes frame 0, and the books are empty.
    pub fn reset(&mut self) {
        // Taken apart by name, so that a field added later cannot be forgotten here.
        let Self {
            clock: _,
            rate: _,
            start,
            next,
            pacing,
        } = self;
        (*start, *next, *pacing) = (None, None, Pacing::default());
    }

    fn turn(&mut self, frame: u64, arrived: Duration, due: Duration) -> Turn {
        let left_out = self.next.map_or(0, |next| frame.saturating_sub(next));
        self.pacing.dropped = self.pacing.dropped.saturating_add(left_out);
        self.next = Some(frame.saturating_add(1));
        Turn {
            frame,
            arrived,
            due,
        }
    }

    /// When a frame arrives after frame 0. From the exact fraction, rounded up to a nanosecond: it never drifts.
    fn arrival(&self, frame: u64) -> Duration {
        // 64 + 32 + 30 bits: fits.
        let scaled = u128::from(frame) * u128::from(self.rate.denominator) * NANOS;
        let nanos = scaled.div_ceil(u128::from(self.rate.numerator));
        u64::try_from(nanos / NANOS).map_or(Duration::MAX, |seconds| {
            Duration::new(seconds, (nanos % NANOS) as u32)
        })
    }

    /// The newest frame that has arrived so long after frame 0.
    fn newest_at(&self, elapsed: Duration) -> u64 {
        let scaled = elapsed
            .as_nanos()
            .saturating_mul(u128::from(self.rate.numerator));
        let frame = scaled / (u128::from(self.rate.denominator) * NANOS);
        u64::try_from(frame).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pacer(numerator: u32, denominator: u32) -> (Pacer<ManualClock>, ManualClock) {
        let clock = ManualClock::default();
        clock.advance(17 * MS);
        let rate = FrameRate {
            numerator,
            denominator,
        };
        let pacer = Pacer::with_clock(rate, clock.clone()).expect("a valid rate");
        (pacer, clock)
    }

    #[test]
    fn fast_work_takes_every_frame_on_time_and_does_not_drift() {
        let (mut pacer, clock) = pacer(30_000, 1001);
        let frames = 30_000;
        for frame in 0..frames {
            let turn = pacer.wait(frames).unwrap();
            assert_eq!(turn.frame, frame);
            assert_eq!(turn.arrived, clock.now());
            clock.advance(5 * MS);
            assert_eq!(pacer.finish(turn), Duration::ZERO);
        }
        assert_eq!(pacer.wait(frames), None);
        let expected = Pacing {
            finished: frames,
            ..Pacing::default()
        };
        assert_eq!(pacer.pacing(), expected);
        // 29,999 periods of 1001 / 30000 s, the 17 ms before and the 5 ms of the last frame.
        let end = Duration::from_nanos(1_000_966_633_334) + 22 * MS;
        assert_eq!(clock.now(), end);
    }

    #[test]
    fn slow_work_takes_the_newest_and_counts_what_was_dropped() {
        let (mut pacer, clock) = pacer(25, 1);
        let mut taken = vec![];
        while let Some(turn) = pacer.wait(10) {
            taken.push(turn.frame);
            clock.advance(100 * MS);
            let lateness = pacer.finish(turn);
            assert_eq!(lateness, clock.now() - turn.due);
        }
        // Frames arrive each 40 ms; the work is done at 100, 200, 300 and 400 ms.
        assert_eq!(taken, [0, 2, 5, 7, 9]);
        let pacing = pacer.pacing();
        assert_eq!(
            (pacing.finished, pacing.dropped, pacing.late),
            (5, 5, 5),
            "{pacing:?}"
        );
        // Frame 9 has been there since 360 ms, is due at 400 ms and out at 500 ms.
        assert_eq!((pacing.worst, pacing.total), (100 * MS, 380 * MS));
    }

    #[test]
    fn one_slow_frame_is_caught_up_with() {
        let (mut pacer, clock) = pacer(10, 1);
        let latenesses: Vec<_> = [30, 350, 30, 30]
            .map(|work| {
                let turn = pacer.wait(100).unwrap();
                clock.advance(work * MS);
                (turn.frame, pacer.finish(turn))
            })
            .into();
        let zero = Duration::ZERO;
        assert_eq!(latenesses, [(0, zero), (1, 250 * MS), (4, zero), (5, zero)]);
        assert_eq!(pacer.pacing().dropped, 2);
    }

    #[test]
    fn done_exactly_when_due_is_on_time() {
        let (mut pacer, clock) = pacer(20, 1);
        for frame in 0..50 {
            let turn = pacer.wait(50).unwrap();
            assert_eq!(turn.frame, frame);
            clock.advance(50 * MS);
            pacer.finish(turn);
        }
        assert_eq!((pacer.pacing().late, pacer.pacing().dropped), (0, 0));
    }

    #[test]
    fn a_camera_brings_its_own_numbers() {
        let (mut pacer, clock) = pacer(25, 1);
        for (frame, dropped) in [
            (7, 0),
            (8, 0),
            (11, 2),
            (0, 2),
            (1, 2),
            (u64::MAX, u64::MAX),
        ] {
            let turn = pacer.take(frame);
            assert_eq!((turn.frame, turn.due - turn.arrived), (frame, 40 * MS));
            clock.advance(41 * MS);
            assert_eq!(pacer.finish(turn), MS);
            assert_eq!(pacer.pacing().dropped, dropped, "frame {frame}");
        }
    }

    #[test]
    fn reset_starts_over() {
        let (mut pacer, clock) = pacer(25, 1);
        for _ in 0..3 {
            let turn = pacer.wait(9).unwrap();
            clock.advance(90 * MS);
            pacer.finish(turn);
        }
        pacer.reset();
        assert_eq!(pacer.pacing(), Pacing::default());
        let turn = pacer.wait(9).unwrap();
        assert_eq!((turn.frame, turn.arrived), (0, clock.now()));
    }

    #[test]
    fn extreme_rates_and_clips_neither_overflow_nor_hang() {
        for (numerator, denominator) in [(u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX), (1, 1)]
        {
            let (mut pacer, clock) = pacer(numerator, denominator);
            for _ in 0..3 {
                let turn = pacer.wait(u64::MAX).unwrap();
                assert!(turn.due >= turn.arrived);
                clock.advance(MS);
                pacer.finish(turn);
            }
            assert_eq!(pacer.wait(0), None);
            assert!(pacer.arrival(u64::MAX) > Duration::ZERO);
        }
        for (numerator, denominator) in [(0, 1), (1, 0), (0, 0)] {
            let rate = FrameRate {
                numerator,
                denominator,
            };
            assert!(Pacer::new(rate).is_err());
        }
    }

    #[test]
    fn every_arrival_counts_as_arrived() {
        for (numerator, denominator) in [(24, 1), (30_000, 1001), (7, 3), (1, 7), (997, 1)] {
            let (pacer, _) = pacer(numerator, denominator);
            for frame in [0, 1, 2, 3, 1000, 12_345, 1 << 40] {
                let arrival = pacer.arrival(frame);
                assert_eq!(pacer.newest_at(arrival), frame);
                if frame > 0 {
                    assert_eq!(
                        pacer.newest_at(arrival - Duration::from_nanos(1)),
                        frame - 1
                    );
                }
            }
        }
    }

    #[test]
    fn the_system_clock_waits_for_the_next_frame() {
        let rate = FrameRate {
            numerator: 200,
            denominator: 1,
        };
        let mut pacer = Pacer::new(rate).unwrap();
        let first = pacer.wait(1000).unwrap();
        let second = pacer.wait(1000).unwrap();
        assert!(second.frame > first.frame && pacer.clock.now() >= second.arrived);
    }
}
