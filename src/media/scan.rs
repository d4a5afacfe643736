//! Walks the blocks of a picture file without decoding: how many whole frames it holds, how long they last, whether its end is there.
//!
//! Decoders give a count and a length of the animation only after decoding it all, and some fill what is missing
//! of a cut-off file with grey; both are settled here first.
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::time::Duration;

use super::{Error, Result};

/// The picture formats that are decoded in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    WebP,
    Gif,
}

impl Format {
    /// The name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
        }
    }

    /// How long a frame with this stated delay is shown. Browsers show a GIF frame of 10 ms or less, and any
    /// frame of no delay, for 100 ms, and files are made to look right in browsers.
    pub fn shown_for(self, delay: Duration) -> Duration {
        let least = if self == Self::Gif { Duration::from_millis(11) } else { Duration::from_nanos(1) };
        if delay < least { Duration::from_millis(100) } else { delay }
    }
}

/// What the walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Frames whose data is all there.
    pub frames: u64,
    /// How long these frames last together; zero for a still.
    pub duration: Duration,
    /// Whether the file says that it is an animation.
    pub animated: bool,
    pub ending: Ending,
}

/// How the walk ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    /// At the format's own end.
    #[default]
    Complete,
    /// At the file's end, before that.
    CutOff,
    /// At something that breaks the rules, which is left to the decoder to judge.
    Malformed,
}

/// Walks the file at `path` from its start. Memory: one read buffer; time: linear in the file's length.
pub(super) fn scan(path: &Path, format: Format) -> Result<Scan> {
    let mut scan = Scan::default();
    let mut reader = BufReader::new(File::open(path).map_err(|error| Error::reading(path, error))?);
    let walked = match format {
        Format::Png => walk_png(&mut reader, &mut scan),
        Format::Jpeg => walk_jpeg(&mut reader, &mut scan),
        Format::WebP => walk_webp(&mut reader, &mut scan),
        Format::Gif => walk_gif(&mut reader, &mut scan),
    };
    scan.ending = match walked {
        Ok(ending) => ending,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ending::CutOff,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let (path, format, reason) = (path.to_owned(), format.name(), error.to_string());
            return Err(Error::Corrupt { path, format, frames: scan.frames, reason });
        }
        Err(error) => return Err(Error::reading(path, error)),
    };
    Ok(scan)
}

fn bytes<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut buffer = [0; N];
    reader.read_exact(&mut buffer)?;
    Ok(buffer)
}

/// Passes over `count` bytes and fails if they are not all there; a seek alone would go past the end in silence.
fn skip<R: Read + Seek>(reader: &mut BufReader<R>, count: u32) -> io::Result<()> {
    if count > 0 {
        reader.seek_relative(i64::from(count) - 1)?;
        bytes::<1>(reader)?;
    }
    Ok(())
}

/// PNG 1.2 chunks, with the APNG chunks `acTL` and `fcTL`.
fn walk_png<R: Read + Seek>(reader: &mut BufReader<R>, scan: &mut Scan) -> io::Result<Ending> {
    if bytes::<8>(reader)? != *b"\x89PNG\r\n\x1a\n" {
        return Ok(Ending::Malformed);
    }
    let mut begun: Option<Duration> = None;
    loop {
        let length = u32::from_be_bytes(bytes(reader)?);
        let kind: [u8; 4] = bytes(reader)?;
        if length > i32::MAX as u32 {
            return Ok(Ending::Malformed);
        }
        match &kind {
            b"fcTL" if length >= 26 => {
                // The frame before ends where this one begins.
                scan.frames += u64::from(begun.is_some());
                scan.duration += begun.take().unwrap_or_default();
                let control: [u8; 26] = bytes(reader)?;
                let numerator = u16::from_be_bytes([control[20], control[21]]);
                let denominator = match u16::from_be_bytes([control[22], control[23]]) {
                    0 => 100,
                    denominator => denominator,
                };
                let delay = Duration::from_secs(numerator.into()) / denominator.into();
                scan.animated = true;
                begun = Some(Format::Png.shown_for(delay));
                skip(reader, length - 26 + 4)?;
            }
            b"IEND" => {
                bytes::<4>(reader)?;
                scan.duration += begun.unwrap_or_default();
                scan.frames += u64::from(begun.is_some() || !scan.animated);
                return Ok(Ending::Complete);
            }
            _ => skip(reader, length + 4)?,
        }
    }
}

/// The RIFF container of WebP.
fn walk_webp<R: Read + Seek>(reader: &mut BufReader<R>, scan: &mut Scan) -> io::Result<Ending> {
    let head: [u8; 12] = bytes(reader)?;
    if !head.starts_with(b"RIFF") || !head.ends_with(b"WEBP") {
        return Ok(Ending::Malformed);
    }
    let end = 8 + u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
    let mut position = 12;
    while position + 8 <= end {
        let kind: [u8; 4] = bytes(reader)?;
        let length = u32::from_le_bytes(bytes(reader)?);
        position += 8 + u64::from(length) + u64::from(length % 2);
        match &kind {
            b"ANMF" if length >= 16 => {
                let control: [u8; 16] = bytes(reader)?;
                let delay = u32::from_le_bytes([control[12], control[13], control[14], 0]);
                skip_webp_frame(reader, &control, length - 16)?;
                scan.frames += 1;
                scan.duration += Format::WebP.shown_for(Duration::from_millis(delay.into()));
            }
            b"VP8X" if length >= 1 => {
                scan.animated = bytes::<1>(reader)?[0] & 0x02 != 0;
                skip(reader, length - 1)?;
            }
            b"VP8 " | b"VP8L" => {
                skip(reader, length)?;
                scan.frames += u64::from(!scan.animated);
            }
            _ => skip(reader, length)?,
        }
        // Some encoders leave out the padding after the last chunk.
        if length % 2 == 1 && position < end {
            bytes::<1>(reader)?;
        }
    }
    Ok(Ending::Complete)
}

/// Passes over the rest of a frame, `left` bytes. The decoder takes a lossy picture with alpha on trust to have the
/// size that its frame states, and would panic; so that is checked here.
fn skip_webp_frame<R: Read + Seek>(reader: &mut BufReader<R>, control: &[u8; 16], mut left: u32) -> io::Result<()> {
    if left >= 8 {
        let kind: [u8; 4] = bytes(reader)?;
        let length = u32::from_le_bytes(bytes(reader)?);
        left -= 8;
        if &kind == b"ALPH" {
            let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a frame's picture is not of the frame's size");
            // The alpha chunk, padded, is followed by a chunk header and the first ten bytes of the picture.
            let alpha = length.checked_next_multiple_of(2).filter(|&alpha| left >= 18 && alpha <= left - 18);
            let alpha = alpha.ok_or_else(wrong)?;
            skip(reader, alpha)?;
            let head: [u8; 18] = bytes(reader)?;
            left -= alpha + 18;
            let stated = |at: usize| 1 + u32::from_le_bytes([control[at], control[at + 1], control[at + 2], 0]);
            let real = |at: usize| u32::from(u16::from_le_bytes([head[at], head[at + 1]]) & 0x3FFF);
            if (stated(6), stated(9)) != (real(14), real(16)) {
                return Err(wrong());
            }
        }
    }
    skip(reader, left)
}

/// GIF89a blocks.
fn walk_gif<R: Read + Seek>(reader: &mut BufReader<R>, scan: &mut Scan) -> io::Result<Ending> {
    let table = |flags: u8| if flags & 0x80 != 0 { 3 << ((flags & 7) + 1) } else { 0 };
    let head: [u8; 13] = bytes(reader)?;
    if !head.starts_with(b"GIF8") {
        return Ok(Ending::Malformed);
    }
    skip(reader, table(head[10]))?;
    scan.animated = true;
    let mut delay = Duration::ZERO;
    loop {
        match bytes::<1>(reader)?[0] {
            0x21 => {
                let label = bytes::<1>(reader)?[0];
                let length = bytes::<1>(reader)?[0];
                if label == 0xF9 && length >= 4 {
                    let control: [u8; 4] = bytes(reader)?;
                    delay = Duration::from_millis(u64::from(u16::from_le_bytes([control[1], control[2]])) * 10);
                    skip(reader, u32::from(length) - 4)?;
                } else {
                    skip(reader, length.into())?;
                }
                if length != 0 {
                    skip_sub_blocks(reader)?;
                }
            }
            0x2C => {
                let descriptor: [u8; 9] = bytes(reader)?;
                // One byte more: the code size of the picture data.
                skip(reader, table(descriptor[8]) + 1)?;
                skip_sub_blocks(reader)?;
                scan.frames += 1;
                scan.duration += Format::Gif.shown_for(std::mem::take(&mut delay));
            }
            0x3B => return Ok(Ending::Complete),
            _ => return Ok(Ending::Malformed),
        }
    }
}

fn skip_sub_blocks<R: Read + Seek>(reader: &mut BufReader<R>) -> io::Result<()> {
    loop {
        match bytes::<1>(reader)?[0] {
            0 => return Ok(()),
            length => skip(reader, length.into())?,
        }
    }
}

/// JPEG markers up to the end of the first picture.
fn walk_jpeg<R: Read + Seek>(reader: &mut BufReader<R>, scan: &mut Scan) -> io::Result<Ending> {
    skip(reader, 2)?;
    let mut marker = bytes::<2>(reader)?;
    loop {
        if marker[0] != 0xFF {
            return Ok(Ending::Malformed);
        }
        match marker[1] {
            0xD9 => {
                scan.frames = 1;
                return Ok(Ending::Complete);
            }
            // Fill bytes before a marker.
            0xFF => marker = [0xFF, bytes::<1>(reader)?[0]],
            0x01 | 0xD0..=0xD8 => marker = bytes(reader)?,
            kind => {
                let length = u16::from_be_bytes(bytes(reader)?);
                skip(reader, u32::from(length).saturating_sub(2))?;
                marker = if kind == 0xDA { marker_after_scan(reader)? } else { bytes(reader)? };
            }
        }
    }
}

/// Passes over entropy-coded data to the next marker that is neither a stuffed zero nor a restart.
fn marker_after_scan<R: Read>(reader: &mut BufReader<R>) -> io::Result<[u8; 2]> {
    loop {
        let buffer = reader.fill_buf()?;
        let available = buffer.len();
        match buffer.iter().position(|&byte| byte == 0xFF) {
            Some(at) => {
                reader.consume(at + 1);
                match bytes::<1>(reader)?[0] {
                    0x00 | 0xD0..=0xD7 => {}
                    kind => return Ok([0xFF, kind]),
                }
            }
            None if available == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => reader.consume(available),
        }
    }
}
