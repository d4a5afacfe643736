//! Finds the reader for an input: by what the file begins with, then by its name.
use std::fs::{self, File};
use std::io::{self, Cursor, IsTerminal, Read};
use std::path::{Path, PathBuf};

use super::animation::AnimationReader;
use super::checked::CheckedReader;
use super::folder_reader::FolderReader;
use super::rate::ConstantRate;
use super::scan::{Ending, Format, scan};
use super::still::StillReader;
use super::y4m_reader::{self, Y4mReader};
use super::{Error, FrameRate, FrameReader, Result, ffmpeg};

/// How an input is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// The rate of the frames. A still or a folder of pictures has no rate of its own and gets this one, or
    /// [`FrameRate::DEFAULT`]. A video is resampled in time to it: frames repeat or drop, the speed stays.
    pub frame_rate: Option<FrameRate>,
}

/// Opens `input`: a picture (PNG, JPEG, WebP), an animation (GIF, APNG, WebP), a folder of pictures, a Y4M file or
/// pipe, `-` for Y4M on standard input; a camera, an address such as `rtsp://…` and every other file go to `ffmpeg`.
///
/// What a file is, its content decides before its name does. Transparent pixels are laid over black.
///
/// # Errors
/// [`Error::Missing`], [`Error::NoFrames`], [`Error::TooLarge`], [`Error::Truncated`], [`Error::Corrupt`],
/// [`Error::UnsupportedInput`], [`Error::BadFrameRate`] for a rate of zero, [`Error::Io`]; and while reading,
/// [`Error::SizeChanged`].
pub fn open(input: &str, options: &OpenOptions) -> Result<Box<dyn FrameReader>> {
    if let Some(rate) = options.frame_rate
        && (rate.numerator == 0 || rate.denominator == 0)
    {
        return Err(Error::BadFrameRate { text: format!("{}/{}", rate.numerator, rate.denominator) });
    }
    let (reader, path) = find_reader(input, options)?;
    Ok(Box::new(CheckedReader::new(reader, path)))
}

fn find_reader(input: &str, options: &OpenOptions) -> Result<(Box<dyn FrameReader>, PathBuf)> {
    let path = PathBuf::from(input);
    if input == "-" {
        let path = PathBuf::from("standard input");
        if io::stdin().is_terminal() {
            let reason = "it is a terminal; send Y4M video into it, or name a file".to_owned();
            return Err(Error::UnsupportedInput { path, reason });
        }
        let reader = Box::new(Y4mReader::new(Box::new(io::stdin()), path.clone(), None)?);
        return Ok((resampled(reader, options, None), path));
    }
    if input.contains("://") || ffmpeg::is_device(input) {
        return Ok((ffmpeg::open(input, options)?, path));
    }
    let metadata = fs::metadata(&path).map_err(|e| Error::reading(&path, e))?;
    if metadata.is_dir() {
        return Ok((Box::new(FolderReader::open(&path, options.frame_rate)?), path));
    }
    let mut file = File::open(&path).map_err(|e| Error::reading(&path, e))?;
    let head = read_head(&mut file).map_err(|e| Error::reading(&path, e))?;
    if head.is_empty() {
        return Err(Error::NoFrames { path });
    }
    let content = sniff(&head);
    if content == Some(Content::Y4m) || (!metadata.is_file() && named(&path) == Some(Content::Y4m)) {
        // A pipe cannot go back to its start, so what was read is put in front again.
        let source = Box::new(Cursor::new(head).chain(io::BufReader::new(file)));
        let length = metadata.is_file().then_some(metadata.len());
        let reader = Box::new(Y4mReader::new(source, path.clone(), length)?);
        return Ok((resampled(reader, options, None), path));
    }
    if !metadata.is_file() {
        let reason = "it is no regular file, and only Y4M can be read from a pipe".to_owned();
        return Err(Error::UnsupportedInput { path, reason });
    }
    drop(file);
    let reader = match content.or_else(|| named(&path)) {
        Some(Content::Picture(format)) => open_picture(&path, format, options)?,
        Some(Content::Y4m) => {
            let reason = "it does not begin with YUV4MPEG2".to_owned();
            return Err(Error::Corrupt { path, format: "Y4M", frames: 0, reason });
        }
        Some(Content::Video) | None => ffmpeg::open(input, options)?,
    };
    Ok((reader, path))
}

fn open_picture(path: &Path, format: Format, options: &OpenOptions) -> Result<Box<dyn FrameReader>> {
    let scan = scan(path, format)?;
    let owned = path.to_owned();
    match scan.ending {
        Ending::CutOff if scan.frames == 0 => {
            return Err(Error::Truncated { path: owned, format: format.name(), frames: 0 });
        }
        Ending::Complete if scan.frames == 0 => return Err(Error::NoFrames { path: owned }),
        _ => {}
    }
    if !scan.animated {
        return Ok(Box::new(StillReader::open(path, format, options.frame_rate)?));
    }
    let reader = AnimationReader::open(path, format, scan)?;
    let duration = reader.duration();
    Ok(resampled(Box::new(reader), options, Some(duration)))
}

fn resampled(
    reader: Box<dyn FrameReader>,
    options: &OpenOptions,
    duration: Option<std::time::Duration>,
) -> Box<dyn FrameReader> {
    match options.frame_rate {
        Some(rate) => Box::new(ConstantRate::new(reader, rate, duration)),
        None => reader,
    }
}

/// Which reader a content is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Picture(Format),
    Y4m,
    /// A container that `ffmpeg` takes apart, whatever the file's name says.
    Video,
}

/// As many bytes as tell the contents apart.
fn read_head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(16).read_to_end(&mut head)?;
    Ok(head)
}

fn sniff(head: &[u8]) -> Option<Content> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if at(0, b"\x89PNG\r\n\x1a\n") {
        Some(Content::Picture(Format::Png))
    } else if at(0, b"\xFF\xD8\xFF") {
        Some(Content::Picture(Format::Jpeg))
    } else if at(0, b"RIFF") && at(8, b"WEBP") {
        Some(Content::Picture(Format::WebP))
    } else if at(0, b"GIF87a") || at(0, b"GIF89a") {
        Some(Content::Picture(Format::Gif))
    } else if at(0, y4m_reader::MAGIC) {
        Some(Content::Y4m)
    } else if at(4, b"ftyp") || at(0, b"\x1A\x45\xDF\xA3") || at(8, b"AVI ") {
        Some(Content::Video)
    } else {
        None
    }
}

/// What a file ought to be by its name; it decides where the content says nothing, and then gets a decoder's complaint.
fn named(path: &Path) -> Option<Content> {
    match path.extension()?.to_str()?.to_lowercase().as_str() {
        "png" | "apng" => Some(Content::Picture(Format::Png)),
        "jpg" | "jpeg" => Some(Content::Picture(Format::Jpeg)),
        "webp" => Some(Content::Picture(Format::WebP)),
        "gif" => Some(Content::Picture(Format::Gif)),
        "y4m" => Some(Content::Y4m),
        _ => None,
    }
}

/// The picture format of a file, by its content.
pub(super) fn sniff_file(path: &Path) -> Result<Option<Format>> {
    let head = File::open(path).and_then(|mut file| read_head(&mut file)).map_err(|e| Error::reading(path, e))?;
    match sniff(&head) {
        Some(Content::Picture(format)) => Ok(Some(format)),
        _ => Ok(None),
    }
}
