//! Decodes one still picture of any depth, colour model and orientation to RGB.
use std::fs::File;
use std::io::BufReader;
use std::panic;
use std::path::Path;
use std::time::Duration;

use image::codecs::{gif::GifDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{DynamicImage, ImageDecoder, ImageError, Limits};

use super::frame::MAX_SIDE;
use super::scan::{Ending, Format, scan};
use super::{Error, Frame, FrameRate, FrameReader, Result, VideoInfo};

/// Reads the picture at `path`: 16-bit depths are rounded to 8, CMYK and grey become RGB, the EXIF orientation
/// is applied, and transparent pixels are laid over black. Colour profiles are not applied: values count as sRGB.
pub(super) fn decode(path: &Path, format: Format) -> Result<Frame> {
    let found = scan(path, format)?;
    if found.ending == Ending::CutOff {
        return Err(Error::Truncated { path: path.to_owned(), format: format.name(), frames: found.frames });
    }
    // A decoder's defect must not end a stream that others watch.
    panic::catch_unwind(|| decode_whole(path, format)).unwrap_or_else(|_| {
        let reason = "the decoder cannot make sense of it".to_owned();
        Err(Error::Corrupt { path: path.to_owned(), format: format.name(), frames: 0, reason })
    })
}

fn decode_whole(path: &Path, format: Format) -> Result<Frame> {
    let file = BufReader::new(File::open(path).map_err(|e| Error::reading(path, e))?);
    let corrupt = |error: ImageError| decoding_error(path, format, 0, error);
    let mut decoder: Box<dyn ImageDecoder> = match format {
        Format::Png => Box::new(PngDecoder::with_limits(file, limits()).map_err(corrupt)?),
        Format::Jpeg => Box::new(JpegDecoder::new(file).map_err(corrupt)?),
        Format::WebP => Box::new(WebPDecoder::new(file).map_err(corrupt)?),
        Format::Gif => Box::new(GifDecoder::new(file).map_err(corrupt)?),
    };
    check_size(path, decoder.dimensions())?;
    decoder.set_limits(limits()).map_err(corrupt)?;
    let orientation = decoder.orientation().map_err(corrupt)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(corrupt)?;
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    let rgb =
        if picture.color().has_alpha() { over_black(&picture.into_rgba8()) } else { picture.into_rgb8().into_raw() };
    Ok(Frame { width, height, rgb, timestamp: Duration::ZERO })
}

/// What a decoder may use: a few copies of the largest frame in memory. The sides are held against [`MAX_SIDE`] by
/// [`check_size`], which says what they are.
pub(super) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(4 * 8 * u64::from(MAX_SIDE) * u64::from(MAX_SIDE));
    limits
}

/// Refuses a frame beyond [`MAX_SIDE`], or without pixels.
pub(super) fn check_size(path: &Path, (width, height): (u32, u32)) -> Result<()> {
    if width > MAX_SIDE || height > MAX_SIDE {
        let (width, height) = (width.into(), height.into());
        return Err(Error::TooLarge { path: path.to_owned(), width, height });
    }
    if width == 0 || height == 0 {
        return Err(Error::NoFrames { path: path.to_owned() });
    }
    Ok(())
}

/// The decoder's complaint, with the file and how far it got.
pub(super) fn decoding_error(path: &Path, format: Format, frames: u64, error: ImageError) -> Error {
    let path = path.to_owned();
    match error {
        ImageError::IoError(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            Error::Io { doing: "read", path, source }
        }
        ImageError::Unsupported(reason) => {
            Error::UnsupportedInput { path, reason: format!("{reason}; convert it to plain 8-bit RGB first") }
        }
        error => Error::Corrupt { path, format: format.name(), frames, reason: error.to_string() },
    }
}

/// RGB of RGBA pixels, as seen in front of black.
pub(super) fn over_black(rgba: &[u8]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    for pixel in rgba.chunks_exact(4) {
        let alpha = u32::from(pixel[3]);
        rgb.extend(pixel[..3].iter().map(|&value| ((u32::from(value) * alpha + 127) / 255) as u8));
    }
    rgb
}

/// A video of one frame.
pub(super) struct StillReader {
    info: VideoInfo,
    frame: Option<Frame>,
}

impl StillReader {
    pub fn open(path: &Path, format: Format, rate: Option<FrameRate>) -> Result<Self> {
        let frame = decode(path, format)?;
        let info = VideoInfo {
            width: frame.width,
            height: frame.height,
            frame_rate: rate.unwrap_or(FrameRate::DEFAULT),
            frames: Some(1),
            has_audio: false,
        };
        Ok(Self { info, frame: Some(frame) })
    }
}

impl FrameReader for StillReader {
    fn info(&self) -> &VideoInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        Ok(self.frame.take())
    }
}
