//! Finds the writer for an output by its name, and refuses what cannot end well before any work is done.
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use super::checked::CheckedWriter;
use super::folder_writer::FolderWriter;
use super::frame::MAX_SIDE;
use super::gif_writer::GifWriter;
use super::pending::PendingFile;
use super::png_writer::PngWriter;
use super::y4m_writer::Y4mWriter;
use super::{Error, FrameRate, FrameWriter, Result, ffmpeg};

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// Pixels in a row, 1 to [`MAX_SIDE`].
    pub width: u32,
    /// Rows, 1 to [`MAX_SIDE`].
    pub height: u32,
    /// The constant rate; frames are shown in turn, whatever their timestamps say.
    pub frame_rate: FrameRate,
    /// Whether what is there already is replaced, once the new is complete.
    pub force: bool,
    /// The input whose sound goes along, where the output can hold sound.
    pub audio_from: Option<String>,
}

impl OutputSpec {
    /// Overwrites nothing, and carries no sound.
    pub fn new(width: u32, height: u32, frame_rate: FrameRate) -> Self {
        Self { width, height, frame_rate, force: false, audio_from: None }
    }
}

/// Opens `output` for writing: `.gif`, `.png` and `.apng` (a still if there is one frame only, else APNG), `.y4m`,
/// a folder of PNG pictures (an existing one, or a name that ends in `/`), `-` for Y4M on standard output; `.mp4`,
/// `.webm`, `.mov` and `.mkv` go to `ffmpeg`.
///
/// A file gets its name in [`finish`](FrameWriter::finish), so an older one stays until then, and stays if the work
/// is broken off.
///
/// # Errors
/// [`Error::OutputExists`], [`Error::FolderHasFrames`], [`Error::UnknownOutput`], [`Error::TooLarge`],
/// [`Error::BadFrameRate`], [`Error::OutputIsTerminal`], [`Error::Io`]; and while writing, [`Error::SizeChanged`],
/// [`Error::BadFrame`], [`Error::DiskFull`], [`Error::OutputClosed`], [`Error::NothingWritten`], [`Error::NotMoved`].
pub fn create(output: &str, spec: &OutputSpec) -> Result<Box<dyn FrameWriter>> {
    let path = PathBuf::from(if output == "-" { "standard output" } else { output });
    check(&path, spec)?;
    let writer: Box<dyn FrameWriter> = if output == "-" {
        if io::stdout().is_terminal() {
            return Err(Error::OutputIsTerminal);
        }
        Box::new(Y4mWriter::stream(Box::new(io::stdout()), path.clone(), spec)?)
    } else if output.ends_with(['/', std::path::MAIN_SEPARATOR]) || path.is_dir() {
        Box::new(FolderWriter::create(&path, spec.force)?)
    } else {
        file_writer(output, &path, spec)?
    };
    Ok(Box::new(CheckedWriter::new(writer, path, (spec.width, spec.height))))
}

fn check(path: &Path, spec: &OutputSpec) -> Result<()> {
    let FrameRate { numerator, denominator } = spec.frame_rate;
    if numerator == 0 || denominator == 0 {
        return Err(Error::BadFrameRate { text: format!("{numerator}/{denominator}") });
    }
    let (width, height) = (spec.width, spec.height);
    if width == 0 || height == 0 {
        return Err(Error::BadFrame { path: path.to_owned(), frame: 1, width, height, bytes: 0 });
    }
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(Error::TooLarge { path: path.to_owned(), width: width.into(), height: height.into() });
    }
    Ok(())
}

fn file_writer(output: &str, path: &Path, spec: &OutputSpec) -> Result<Box<dyn FrameWriter>> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let pending = || PendingFile::create(path, spec.force);
    match extension.as_str() {
        "gif" => Ok(Box::new(GifWriter::create(pending()?, spec)?)),
        "png" | "apng" => Ok(Box::new(PngWriter::create(pending()?, spec))),
        "y4m" => Ok(Box::new(Y4mWriter::create(pending()?, spec)?)),
        "mp4" | "webm" | "mov" | "mkv" => {
            if !spec.force && path.symlink_metadata().is_ok() {
                return Err(Error::OutputExists { path: path.to_owned() });
            }
            ffmpeg::create(output, spec)
        }
        _ => Err(Error::UnknownOutput { path: path.to_owned() }),
    }
}
