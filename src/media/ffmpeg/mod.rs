//! Everything that this crate does not read or write itself, through an `ffmpeg` process where one is installed.
mod encoder;
mod error;
mod live;
mod probe;
mod process;
mod read;
mod source;
mod write;

pub use error::FfmpegError;

use std::path::Path;

use super::{FrameReader, FrameWriter, OpenOptions, OutputSpec, Result};
use process::Programs;
use source::Source;

/// Opens a file, an address or a camera. The frames come at a constant rate, upright, with square pixels.
///
/// Of a file every frame is given. What is live (a camera, RTSP, an address without an end) gives the newest frame to
/// who asks, and [`FrameReader::dropped`] counts those that nobody took; its timestamps say when a frame came.
/// Dropping the reader ends the process.
///
/// # Errors
/// [`FfmpegError`]; [`Error::TooLarge`](super::Error::TooLarge) above the limit; reading ends with
/// [`FfmpegError::Damaged`] after the last frame of a damaged file.
pub fn open(input: &str, options: &OpenOptions) -> Result<Box<dyn FrameReader>> {
    open_with(Programs::find("reading", Path::new(input)), input, options)
}

fn open_with(
    programs: std::result::Result<Programs, FfmpegError>,
    input: &str,
    options: &OpenOptions,
) -> Result<Box<dyn FrameReader>> {
    let source = Source::new(input)?;
    let programs = programs?;
    let stream = probe::probe(&programs, &source)?;
    let live = source.is_live(stream.duration.is_some());
    let reader = read::Reader::start(&programs, &source, stream, live, options)?;
    if !live {
        return Ok(Box::new(reader));
    }
    let process = reader.process();
    Ok(Box::new(live::Newest::new(reader, input, live::PATIENCE, move || process.kill())?))
}

/// Whether an input names a capture device: `/dev/video0`, `v4l2:/dev/video0`, `avfoundation:0`, `dshow:video=NAME`.
pub fn is_device(input: &str) -> bool {
    Source::device(input).is_some()
}

/// Writes MP4, MOV, MKV (H.264) or WebM (VP9), the sound of `spec.audio_from` beside the pictures.
///
/// The file gets its name in [`finish`](FrameWriter::finish) only. A lesser encoder than these, where `ffmpeg` lacks
/// them, is told in [`FrameWriter::note`].
///
/// # Errors
/// [`FfmpegError`]; [`Error::OutputExists`](super::Error::OutputExists) unless `spec.force`;
/// [`Error::DiskFull`](super::Error::DiskFull).
pub fn create(output: &str, spec: &OutputSpec) -> Result<Box<dyn FrameWriter>> {
    let path = Path::new(output);
    let programs = Programs::find("writing", path)?;
    Ok(Box::new(write::Writer::start(&programs, path, spec)?))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn without_ffmpeg_the_error_says_what_to_do() {
        let programs = Programs::find_in(Some(OsStr::new("/no/such/folder")), "reading", Path::new("clip.mp4"));
        let error = open_with(programs, "clip.mp4", &OpenOptions::default()).err().unwrap().to_string();
        for word in ["reading clip.mp4", "ffprobe", "apt install", "brew install", "winget install", "GIF", "Y4M"] {
            assert!(error.contains(word), "{error}");
        }
    }
}
