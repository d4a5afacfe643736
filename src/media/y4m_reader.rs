//! Reads YUV4MPEG2: from a file, a named pipe, or standard input.
use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use y4m::Colorspace;

use super::frame::MAX_SIDE;
use super::yuv::{Layout, Matrix, Range, Sampling, ToRgb};
use super::{Error, Frame, FrameRate, FrameReader, Result, VideoInfo};

/// What a stream begins with.
pub(super) const MAGIC: &[u8] = b"YUV4MPEG2 ";
/// The longest header that is read; the decoder has the same limit.
const MAX_HEADER: usize = 1024;

/// Reads planar YUV of 8, 10 or 12 bits. The format does not state the matrix: BT.601 is taken below 720 rows,
/// BT.709 from there on. `XCOLORRANGE=FULL` is heeded, limited range is taken else. Fields of interlaced video are
/// not separated, and pixels count as square.
pub(super) struct Y4mReader {
    info: VideoInfo,
    path: PathBuf,
    decoder: y4m::Decoder<Counted>,
    consumed: Arc<AtomicU64>,
    to_rgb: ToRgb,
    frames: u64,
    done: bool,
}

/// Counts the bytes that were read, which tells a cut-off frame from the end between frames.
struct Counted {
    source: Box<dyn Read + Send>,
    consumed: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.source.read(buffer) {
                // The decoder takes an interruption for a failure.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(count) => {
                    self.consumed.fetch_add(count as u64, Ordering::Relaxed);
                    return Ok(count);
                }
                failed => return failed,
            }
        }
    }
}

impl Y4mReader {
    /// Reads the header. `path` is for messages, `length` is the stream's length in bytes where it is known.
    pub fn new(mut source: Box<dyn Read + Send>, path: PathBuf, length: Option<u64>) -> Result<Self> {
        let header = read_header(&mut source, &path)?;
        let range = checked_range(&header, &path)?;
        let header_length = header.len() as u64;
        let consumed = Arc::new(AtomicU64::new(0));
        let source = Box::new(Cursor::new(header).chain(source));
        let counted = Counted { source, consumed: Arc::clone(&consumed) };
        let side = MAX_SIDE as usize;
        let decoder = y4m::Decoder::new_with_limits(counted, y4m::Limits { bytes: side * side * 3 * 2 })
            .map_err(|error| failure(&path, 0, error))?;

        let (sampling, name) = sampling(decoder.get_colorspace());
        let Some(sampling) = sampling else {
            return Err(unsupported(&path, name));
        };
        let (width, height) = (decoder.get_width(), decoder.get_height());
        let depth = decoder.get_bit_depth() as u32;
        // The sides fit: `checked_range` has held them against MAX_SIDE.
        let matrix = Matrix::for_height(height as u32);
        let rate = decoder.get_framerate();
        let frame_bytes = frame_bytes(&decoder);
        let info = VideoInfo {
            width: width as u32,
            height: height as u32,
            // 0:0 means unknown; the decoder's own default is 25.
            frame_rate: FrameRate::new(rate.num as u64, rate.den as u64)
                .unwrap_or(FrameRate { numerator: 25, denominator: 1 }),
            frames: length.map(|length| length.saturating_sub(header_length) / frame_bytes),
            has_audio: false,
        };
        let to_rgb = ToRgb::new(Layout { width, height, sampling, depth, matrix, range });
        Ok(Self { info, path, decoder, consumed, to_rgb, frames: 0, done: false })
    }
}

impl FrameReader for Y4mReader {
    fn info(&self) -> &VideoInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        if self.done {
            return Ok(None);
        }
        let before = self.consumed.load(Ordering::Relaxed);
        let rgb = match self.decoder.read_frame() {
            Ok(frame) => self.to_rgb.convert([frame.get_y_plane(), frame.get_u_plane(), frame.get_v_plane()]),
            Err(error) => {
                self.done = true;
                let between = self.consumed.load(Ordering::Relaxed) == before;
                return match error {
                    y4m::Error::EOF if between => Ok(None),
                    error => Err(failure(&self.path, self.frames, error)),
                };
            }
        };
        let timestamp = self.info.frame_rate.timestamp(self.frames);
        self.frames += 1;
        Ok(Some(Frame { width: self.info.width, height: self.info.height, rgb, timestamp }))
    }
}

/// The first line, with its newline.
fn read_header(source: &mut dyn Read, path: &std::path::Path) -> Result<Vec<u8>> {
    let mut header = Vec::new();
    let mut limited = source.take(MAX_HEADER as u64);
    let mut byte = [0];
    while header.last() != Some(&b'\n') {
        match limited.read(&mut byte) {
            Ok(0) if header.is_empty() => return Err(Error::NoFrames { path: path.to_owned() }),
            Ok(0) if header.len() == MAX_HEADER => {
                return Err(corrupt(path, 0, "its first line does not end"));
            }
            Ok(0) => return Err(Error::Truncated { path: path.to_owned(), format: "Y4M", frames: 0 }),
            Ok(_) => header.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::reading(path, error)),
        }
    }
    if !header.starts_with(MAGIC) {
        return Err(corrupt(path, 0, "it does not begin with YUV4MPEG2"));
    }
    Ok(header)
}

/// Looks through the header before the decoder does, which would multiply its sides unchecked; returns the range.
fn checked_range(header: &[u8], path: &std::path::Path) -> Result<Range> {
    let mut sides = [None, None];
    let mut range = Range::Limited;
    for parameter in header[MAGIC.len()..].trim_ascii_end().split(|&byte| byte == b' ') {
        let Some((&kind, value)) = parameter.split_first() else { continue };
        let value = String::from_utf8_lossy(value);
        match kind {
            b'W' => sides[0] = value.parse::<u64>().ok(),
            b'H' => sides[1] = value.parse::<u64>().ok(),
            b'X' if value == "COLORRANGE=FULL" => range = Range::Full,
            b'C' if !COLOURS.contains(&&*value) => return Err(unsupported(path, &value)),
            _ => {}
        }
    }
    match sides {
        [Some(0), _] | [_, Some(0)] => Err(corrupt(path, 0, "its frames have no pixels")),
        [Some(width), Some(height)] if width.max(height) > u64::from(MAX_SIDE) => {
            Err(Error::TooLarge { path: path.to_owned(), width, height })
        }
        [Some(_), Some(_)] => Ok(range),
        _ => Err(corrupt(path, 0, "its header lacks the width or the height")),
    }
}

const COLOURS: [&str; 14] = [
    "mono", "mono12", "420", "420jpeg", "420mpeg2", "420paldv", "420p10", "420p12", "422", "422p10", "422p12", "444",
    "444p10", "444p12",
];

/// Where the chroma of a colour space lies. Plain 4:2:0 is centred, as in the format's own manual; deep 4:2:0 comes
/// from video codecs, which have it on the left.
fn sampling(colours: Colorspace) -> (Option<Sampling>, &'static str) {
    let sampling = match colours {
        Colorspace::Cmono | Colorspace::Cmono12 => Sampling::Grey,
        Colorspace::C420 | Colorspace::C420jpeg => Sampling::C420Centre,
        Colorspace::C420mpeg2 | Colorspace::C420p10 | Colorspace::C420p12 => Sampling::C420Left,
        Colorspace::C420paldv => Sampling::C420TopLeft,
        Colorspace::C422 | Colorspace::C422p10 | Colorspace::C422p12 => Sampling::C422,
        Colorspace::C444 | Colorspace::C444p10 | Colorspace::C444p12 => Sampling::C444,
        _ => return (None, "newer than this reader"),
    };
    (Some(sampling), "")
}

/// The bytes of a frame with its shortest header.
fn frame_bytes(decoder: &y4m::Decoder<Counted>) -> u64 {
    let (width, height) = (decoder.get_width() as u64, decoder.get_height() as u64);
    let (across, down) = (width.div_ceil(2), height.div_ceil(2));
    let chroma = match sampling(decoder.get_colorspace()).0 {
        None | Some(Sampling::Grey) => 0,
        Some(Sampling::C444) => 2 * width * height,
        Some(Sampling::C422) => 2 * across * height,
        Some(_) => 2 * across * down,
    };
    (width * height + chroma) * decoder.get_bytes_per_sample() as u64 + b"FRAME\n".len() as u64
}

fn corrupt(path: &std::path::Path, frames: u64, reason: &str) -> Error {
    Error::Corrupt { path: path.to_owned(), format: "Y4M", frames, reason: reason.to_owned() }
}

fn unsupported(path: &std::path::Path, colours: &str) -> Error {
    let reason = format!("its Y4M colour space {colours:?} is not known; use one of {}", COLOURS.join(", "));
    Error::UnsupportedInput { path: path.to_owned(), reason }
}

fn failure(path: &std::path::Path, frames: u64, error: y4m::Error) -> Error {
    match error {
        y4m::Error::EOF => Error::Truncated { path: path.to_owned(), format: "Y4M", frames },
        y4m::Error::IoError(source) => Error::reading(path, source),
        y4m::Error::ParseError(_) if frames > 0 => corrupt(path, frames, "no frame begins where one should"),
        error => corrupt(path, frames, &error.to_string()),
    }
}
