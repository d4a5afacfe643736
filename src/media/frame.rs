//! One picture, its clock, and what is known of a video.
use std::time::Duration;

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
