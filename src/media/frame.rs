//! One picture, its clock, and what is known of a video.
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Error;

/// The most pixels that a frame may have on either side; it keeps a hostile header from asking for all memory.
pub const MAX_SIDE: u32 = 8192;

/// One picture: 8-bit sRGB, rows from the top, no padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `width * height * 3` bytes, red first.
    pub rgb: Vec<u8>,
    /// When the frame is shown, from the start of the video.
    pub timestamp: Duration,
}

/// Frames a second, as the exact fraction that containers store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRate {
    /// Frames …
    pub numerator: u32,
    /// … in this many seconds. Never zero.
    pub denominator: u32,
}

impl Frame {
    /// This picture on the left and another of the same size on the right.
    pub fn beside(&self, other: &Self) -> Self {
        let rows = |frame: &Self| 3 * frame.width as usize;
        let pairs = self.rgb.chunks_exact(rows(self)).zip(other.rgb.chunks_exact(rows(other)));
        let rgb = pairs.flat_map(|(left, right)| left.iter().chain(right).copied()).collect();
        Self { width: self.width + other.width, rgb, ..*self }
    }
}

impl FrameRate {
    /// What pictures without a clock of their own get: 24 frames a second.
    pub const DEFAULT: Self = Self { numerator: 24, denominator: 1 };

    /// `numerator / denominator` in lowest terms; `None` if either is zero or, so reduced, beyond 32 bits.
    pub fn new(numerator: u64, denominator: u64) -> Option<Self> {
        if numerator == 0 || denominator == 0 {
            return None;
        }
        let (mut a, mut b) = (numerator, denominator);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Some(Self { numerator: u32::try_from(numerator / a).ok()?, denominator: u32::try_from(denominator / a).ok()? })
    }

    /// When frame number `frame` (from 0) is shown, to the nearest nanosecond. Zero for a rate of zero.
    pub fn timestamp(self, frame: u64) -> Duration {
        if self.numerator == 0 {
            return Duration::ZERO;
        }
        let scaled = u128::from(frame) * u128::from(self.denominator) * 1_000_000_000;
        let rate = u128::from(self.numerator);
        let nanoseconds = (scaled + rate / 2) / rate;
        let seconds = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX);
        // The remainder is below 10^9 and fits.
        Duration::new(seconds, (nanoseconds % 1_000_000_000) as u32)
    }

    /// How many frames have begun by this time, to the nearest.
    pub fn frames_until(self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.as_f64()).round() as u64
    }

    /// Frames a second.
    pub fn as_f64(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }

    /// The rate at which `frames` fill `duration`; `None` if either is zero.
    pub(super) fn of(frames: u64, duration: Duration) -> Option<Self> {
        let micros = u64::try_from(duration.as_micros()).ok()?;
        Self::new(frames.checked_mul(1_000_000)?, micros).or_else(|| {
            // Too fine a fraction for 32 bits: a thousandth of a frame a second is near enough.
            let rate = frames as f64 / duration.as_secs_f64();
            rate.is_finite().then(|| Self::new((rate * 1000.0).round() as u64, 1000))?
        })
    }
}

impl fmt::Display for FrameRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

impl FromStr for FrameRate {
    type Err = Error;

    /// Reads `24`, `23.976` or `30000/1001`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = |part: &str| -> Option<u64> {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| part.parse().ok())?
        };
        let parse = || -> Option<Self> {
            if let Some((numerator, denominator)) = text.split_once('/') {
                return Self::new(digits(numerator)?, digits(denominator)?);
            }
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            Self::new(digits(whole)?.checked_mul(scale)?.checked_add(digits(fraction)?)?, scale)
        };
        parse().ok_or_else(|| Error::BadFrameRate { text: text.to_owned() })
    }
}

/// What is known of a video before its frames are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoInfo {
    /// Pixels in a row, after rotation.
    pub width: u32,
    /// Rows, after rotation.
    pub height: u32,
    /// Nominal rate.
    pub frame_rate: FrameRate,
    /// How many frames there are, where the container says so; a hint for progress, not a promise.
    pub frames: Option<u64>,
    /// Whether the source has a sound track that a writer could copy.
    pub has_audio: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_side_by_side() {
        let frame = |rgb: &[u8]| Frame { width: 1, height: 2, rgb: rgb.to_vec(), timestamp: Duration::ZERO };
        let both = frame(&[1, 2, 3, 4, 5, 6]).beside(&frame(&[7, 8, 9, 10, 11, 12]));
        assert_eq!((both.width, both.height), (2, 2));
        assert_eq!(both.rgb, [1, 2, 3, 7, 8, 9, 4, 5, 6, 10, 11, 12]);
    }

    #[test]
    fn rates_read_and_print() {
        for (text, numerator, denominator, printed) in [
            ("24", 24, 1, "24"),
            ("23.976", 2997, 125, "2997/125"),
            ("30000/1001", 30000, 1001, "30000/1001"),
            ("60/2", 30, 1, "30"),
            ("0.5", 1, 2, "1/2"),
        ] {
            let rate: FrameRate = text.parse().unwrap();
            assert_eq!(rate, FrameRate { numerator, denominator });
            assert_eq!(rate.to_string(), printed);
        }
        for bad in ["", "0", "-1", "1/0", "0/1", "a", "1.", ".5", "1e3", "nan", "99999999999", "1.00000000000000000001"]
        {
            assert!(bad.parse::<FrameRate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn timestamps_do_not_drift_or_overflow() {
        let ntsc = FrameRate { numerator: 30000, denominator: 1001 };
        assert_eq!(ntsc.timestamp(30000), Duration::from_secs(1001));
        assert_eq!(ntsc.timestamp(1), Duration::from_nanos(33_366_667));
        let slow = FrameRate { numerator: 1, denominator: u32::MAX };
        assert_eq!(slow.timestamp(u64::MAX).as_secs(), u64::MAX);
        assert_eq!(FrameRate { numerator: 0, denominator: 1 }.timestamp(9), Duration::ZERO);
    }

    #[test]
    fn rates_of_durations() {
        assert_eq!(FrameRate::of(48, Duration::from_secs(2)), FrameRate::new(24, 1));
        assert_eq!(FrameRate::of(0, Duration::from_secs(2)), None);
        assert_eq!(FrameRate::of(3, Duration::ZERO), None);
        let odd = FrameRate::of(1_000_003, Duration::from_micros(33_333_433_334)).unwrap();
        assert!((odd.as_f64() - 30.0).abs() < 0.01, "{odd}");
    }
}
