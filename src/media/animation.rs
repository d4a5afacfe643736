//! Reads GIF, APNG and animated WebP, a frame at a time, with their disposal and blending done by the `image` crate.
//!
//! The crate's frame iterators cannot move between threads, so each runs on one of its own; that also lets the
//! next frame decode while the last one is at work.
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{AnimationDecoder, ImageDecoder, ImageError, ImageResult, Rgba, RgbaImage};

use super::scan::{Ending, Format, Scan};
use super::still::{check_size, decoding_error, limits, over_black};
use super::{Error, Frame, FrameRate, FrameReader, Result, VideoInfo};

/// What the decoding thread sends: composed frames with their delays, then `None`.
type Step = Option<ImageResult<(RgbaImage, Duration)>>;

/// Reads an animation; transparent pixels are laid over black. Varying delays show in the frames' timestamps, and
/// the nominal rate is their mean.
pub(super) struct AnimationReader {
    info: VideoInfo,
    path: PathBuf,
    format: Format,
    scan: Scan,
    steps: Receiver<Step>,
    frames: u64,
    clock: Duration,
    done: bool,
}

impl AnimationReader {
    /// Begins decoding `path`, of which `scan` tells the frames and their length.
    pub fn open(path: &Path, format: Format, scan: Scan) -> Result<Self> {
        let failed = |error: ImageError| match scan.ending {
            // The WebP decoder wants all of a file before it gives its first frame.
            Ending::CutOff => Error::Truncated { path: path.to_owned(), format: format.name(), frames: scan.frames },
            _ => decoding_error(path, format, 0, error),
        };
        let file = BufReader::new(File::open(path).map_err(|e| Error::reading(path, e))?);
        let (size, steps) = match format {
            Format::Gif => start(path, GifDecoder::new(file).map_err(failed)?, Ok),
            Format::WebP => start(path, WebPDecoder::new(file).map_err(failed)?, |mut decoder| {
                // The file's own background colour is a hint that browsers ignore.
                decoder.set_background_color(Rgba([0; 4]))?;
                Ok(decoder)
            }),
            _ => start(path, PngDecoder::with_limits(file, limits()).map_err(failed)?, PngDecoder::apng),
        }
        .map_err(|stopped| match stopped {
            Stopped::Before(error) => error,
            Stopped::In(error) => failed(error),
        })?;
        let info = VideoInfo {
            width: size.0,
            height: size.1,
            frame_rate: FrameRate::of(scan.frames, scan.duration).unwrap_or(FrameRate::DEFAULT),
            frames: Some(scan.frames),
            has_audio: false,
        };
        let path = path.to_owned();
        Ok(Self { info, path, format, scan, steps, frames: 0, clock: Duration::ZERO, done: false })
    }

    /// How long all frames last.
    pub fn duration(&self) -> Duration {
        self.scan.duration
    }
}

/// Why decoding did not begin.
enum Stopped {
    Before(Error),
    In(ImageError),
}

/// Checks the size, lets `prepare` turn the picture decoder into an animation decoder, and sets that to work.
fn start<D, A>(
    path: &Path,
    mut decoder: D,
    prepare: impl FnOnce(D) -> ImageResult<A>,
) -> std::result::Result<((u32, u32), Receiver<Step>), Stopped>
where
    D: ImageDecoder,
    A: AnimationDecoder<'static> + Send + 'static,
{
    let size = decoder.dimensions();
    check_size(path, size).map_err(Stopped::Before)?;
    decoder.set_limits(limits()).map_err(Stopped::In)?;
    let decoder = prepare(decoder).map_err(Stopped::In)?;
    // Two frames ahead at most: a long animation is never in memory whole.
    let (sender, steps) = sync_channel(1);
    thread::Builder::new()
        .name("animation".to_owned())
        .spawn(move || {
            for frame in decoder.into_frames() {
                let failed = frame.is_err();
                let step = frame.map(|frame| {
                    let delay = frame.delay().into();
                    (frame.into_buffer(), delay)
                });
                // A send fails when the reader is gone, which ends the work.
                if sender.send(Some(step)).is_err() || failed {
                    return;
                }
            }
            let _ = sender.send(None);
        })
        .map_err(|source| {
            Stopped::Before(Error::Io { doing: "start a thread to read", path: path.to_owned(), source })
        })?;
    Ok((size, steps))
}

impl FrameReader for AnimationReader {
    fn info(&self) -> &VideoInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        if self.done {
            return Ok(None);
        }
        if self.frames == self.scan.frames && self.scan.ending != Ending::Malformed {
            self.done = true;
            return if self.cut_off() { Err(self.truncated()) } else { Ok(None) };
        }
        let failure = match self.steps.recv() {
            Ok(Some(Ok((picture, delay)))) => {
                let timestamp = self.clock;
                self.clock += self.format.shown_for(delay);
                self.frames += 1;
                let (width, height) = picture.dimensions();
                return Ok(Some(Frame { width, height, rgb: over_black(&picture), timestamp }));
            }
            Ok(Some(Err(error))) => decoding_error(&self.path, self.format, self.frames, error),
            Ok(None) if self.scan.ending == Ending::Malformed => {
                self.done = true;
                return Ok(None);
            }
            Ok(None) => self.corrupt("the decoder found fewer frames than the file has blocks for"),
            // The thread has died of a defect in the decoder.
            Err(_) => self.corrupt("the decoder cannot make sense of it"),
        };
        self.done = true;
        Err(if self.cut_off() { self.truncated() } else { failure })
    }
}

impl AnimationReader {
    fn cut_off(&self) -> bool {
        self.scan.ending == Ending::CutOff
    }

    fn truncated(&self) -> Error {
        Error::Truncated { path: self.path.clone(), format: self.format.name(), frames: self.frames }
    }

    fn corrupt(&self, reason: &str) -> Error {
        let (path, format) = (self.path.clone(), self.format.name());
        Error::Corrupt { path, format, frames: self.frames, reason: reason.to_owned() }
    }
}
