//! Resamples a video in time: each tick of a constant clock shows the frame that is due.
use std::time::Duration;

use super::{Error, Frame, FrameRate, FrameReader, Result, VideoInfo};

/// Repeats and drops frames of another reader so that they come at a constant rate, at the same speed as before.
pub(super) struct ConstantRate {
    inner: Box<dyn FrameReader>,
    info: VideoInfo,
    end: Option<Duration>,
    tick: u64,
    current: Option<Frame>,
    next: Option<Frame>,
    failure: Option<Error>,
    exhausted: bool,
}

impl ConstantRate {
    /// `duration` says how long the video lasts, where that is known; else its last frame lasts as its nominal rate says.
    pub fn new(inner: Box<dyn FrameReader>, rate: FrameRate, duration: Option<Duration>) -> Self {
        let mut info = inner.info().clone();
        let length = duration.or_else(|| info.frames.map(|frames| info.frame_rate.timestamp(frames)));
        info.frames = length.map(|length| (length.as_secs_f64() * rate.as_f64()).ceil().max(1.0) as u64);
        info.frame_rate = rate;
        Self { inner, info, end: duration, tick: 0, current: None, next: None, failure: None, exhausted: false }
    }

    /// Takes one frame ahead. An error waits until the frames before it are out.
    fn advance(&mut self) {
        self.current = self.next.take().or(self.current.take());
        if !self.exhausted {
            match self.inner.next_frame() {
                Ok(Some(frame)) => self.next = Some(frame),
                Ok(None) => self.exhausted = true,
                Err(error) => (self.exhausted, self.failure) = (true, Some(error)),
            }
        }
    }
}

impl FrameReader for ConstantRate {
    fn info(&self) -> &VideoInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        let due = self.info.frame_rate.timestamp(self.tick);
        if self.current.is_none() && !self.exhausted {
            // Two steps: the first frame, and a look at the second.
            self.advance();
            self.advance();
        }
        while self.next.as_ref().is_some_and(|next| next.timestamp <= due) {
            self.advance();
        }
        let shown = self.current.as_ref().filter(|current| {
            let last = self.inner.info().frame_rate.timestamp(1);
            let end = self.end.unwrap_or(current.timestamp.saturating_add(last));
            // The first tick is always shown, and a frame that is followed by another lasts until that one.
            self.tick == 0 || self.next.is_some() || due < end
        });
        match (shown, self.failure.take_if(|_| shown.is_none())) {
            (Some(frame), _) => {
                self.tick += 1;
                Ok(Some(Frame { timestamp: due, ..frame.clone() }))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of one pixel whose red value is their number, at the given milliseconds; the last step may fail.
    struct Scripted(VideoInfo, Vec<u64>, usize, bool);

    impl FrameReader for Scripted {
        fn info(&self) -> &VideoInfo {
            &self.0
        }
        fn next_frame(&mut self) -> Result<Option<Frame>> {
            let at = self.2;
            self.2 += 1;
            match self.1.get(at) {
                Some(&ms) => Ok(Some(Frame {
                    width: 1,
                    height: 1,
                    rgb: vec![at as u8, 0, 0],
                    timestamp: Duration::from_millis(ms),
                })),
                None if self.3 => Err(Error::NoFrames { path: "scripted".into() }),
                None => Ok(None),
            }
        }
    }

    fn resample(at: &[u64], rate: u32, total: Option<u64>, fails: bool) -> (Vec<u8>, bool) {
        let frame_rate = FrameRate { numerator: 10, denominator: 1 };
        let info = VideoInfo { width: 1, height: 1, frame_rate, frames: Some(at.len() as u64), has_audio: false };
        let inner = Box::new(Scripted(info, at.to_vec(), 0, fails));
        let rate = FrameRate { numerator: rate, denominator: 1 };
        let mut reader = ConstantRate::new(inner, rate, total.map(Duration::from_millis));
        let mut seen = vec![];
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    assert_eq!(frame.timestamp, rate.timestamp(seen.len() as u64));
                    seen.push(frame.rgb[0]);
                }
                Ok(None) => return (seen, false),
                Err(_) => return (seen, true),
            }
        }
    }

    #[test]
    fn frames_repeat_and_drop() {
        assert_eq!(resample(&[0, 100, 200], 20, None, false).0, [0, 0, 1, 1, 2, 2]);
        assert_eq!(resample(&[0, 100, 200, 300], 5, None, false).0, [0, 2]);
        assert_eq!(resample(&[0, 300, 400], 10, Some(700), false).0, [0, 0, 0, 1, 2, 2, 2]);
        assert_eq!(resample(&[0], 10, Some(10), false).0, [0]);
        assert_eq!(resample(&[], 10, None, false).0, [0u8; 0]);
    }

    #[test]
    fn an_error_comes_after_the_frames_before_it() {
        assert_eq!(resample(&[0, 100], 20, None, true), (vec![0, 0, 1, 1], true));
        assert_eq!(resample(&[], 20, None, true), (vec![], true));
    }
}
