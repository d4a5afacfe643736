//! Everything that this crate does not read or write itself, through an `ffmpeg` process where one is installed.
mod live;
mod probe;
mod process;
mod read;
mod write;

use super::{Error, FrameReader, FrameWriter, OpenOptions, OutputSpec, Result};
use process::Programs;
use std::path::Path;

/// Opens a file, an address or a camera with `ffmpeg`.
///
/// # Errors
/// [`Error::NoFfmpeg`], [`Error::Ffmpeg`] with what it said, [`Error::TooLarge`], [`Error::UnsupportedInput`].
pub fn open(input: &str, options: &OpenOptions) -> Result<Box<dyn FrameReader>> {
    let programs = Programs::find(Path::new(input))?;
    let source = probe::Source::new(input);
    let stream = probe::probe(&programs, &source)?;
    let reader = read::Reader::start(&programs, &source, stream, options)?;
    Ok(if source.is_live() { Box::new(live::Newest::new(reader)) } else { Box::new(reader) })
}

/// Whether an input names a capture device: `/dev/video0`, `avfoundation:0`, `dshow:video=NAME`.
pub fn is_device(input: &str) -> bool {
    probe::Source::new(input).format().is_some()
}

/// Writes MP4, MOV, MKV or WebM with `ffmpeg`, the sound of `spec.audio_from` beside the pictures.
///
/// # Errors
/// [`Error::NoFfmpeg`], [`Error::Ffmpeg`] with what it said, [`Error::DiskFull`].
pub fn create(output: &str, spec: &OutputSpec) -> Result<Box<dyn FrameWriter>> {
    let programs = Programs::find(Path::new(output))?;
    Ok(Box::new(write::Writer::start(&programs, Path::new(output), spec)?))
}

/// `ffmpeg` was started and failed.
fn failed(path: &Path, doing: &'static str, said: String) -> Error {
    Error::Ffmpeg { doing, path: path.to_owned(), said }
}
