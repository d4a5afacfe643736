//! Writes a folder of numbered PNG pictures.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::folder_reader::pictures_in;
use super::pending::PendingFile;
use super::png_writer::{failure, write_still};
use super::{Error, Frame, FrameWriter, Result};

/// Writes `frame-000001.png` and so on. Into an empty folder each picture goes as soon as it is whole; where frames
/// are to be replaced, the new ones wait in a hidden folder inside until all are there.
pub(super) struct FolderWriter {
    folder: PathBuf,
    staging: Option<TempDir>,
    made: bool,
    frames: u64,
}

impl FolderWriter {
    /// Makes the folder if it is not there. One with pictures is refused unless `replace`, which removes earlier
    /// `frame-NNNNNN.png` at the end and leaves every other file alone.
    pub fn create(folder: &Path, replace: bool) -> Result<Self> {
        let cannot = |doing, source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::writing(folder, source),
            _ => Error::Io { doing, path: folder.to_owned(), source },
        };
        let made = !folder.exists();
        if made {
            fs::create_dir_all(folder).map_err(|source| cannot("create", source))?;
        }
        let existing = pictures_in(folder)?;
        let staging = match existing.first() {
            Some(example) if !replace => {
                let example = example.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(Error::FolderHasFrames { path: folder.to_owned(), example });
            }
            Some(_) => {
                let made = tempfile::Builder::new().prefix(".mirage-").tempdir_in(folder);
                Some(made.map_err(|source| cannot("write into", source))?)
            }
            None => None,
        };
        Ok(Self { folder: folder.to_owned(), staging, made, frames: 0 })
    }

    fn name(frame: u64) -> String {
        format!("frame-{frame:06}.png")
    }
}

impl FrameWriter for FolderWriter {
    fn write_frame(&mut self, frame: &Frame) -> Result<()> {
        let folder = self.staging.as_ref().map_or(self.folder.as_path(), TempDir::path);
        let path = folder.join(Self::name(self.frames + 1));
        let pending = PendingFile::create(&path, false)?;
        write_still(pending.writer()?, frame).map_err(|error| failure(&path, error))?;
        // Waiting for the disk at every picture would hold up the stream.
        pending.place()?;
        self.frames += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let Some(staging) = self.staging.take() else { return Ok(()) };
        let moved = || -> io::Result<()> {
            for number in 1..=self.frames {
                let name = Self::name(number);
                fs::rename(staging.path().join(&name), self.folder.join(&name))?;
            }
            Ok(())
        };
        if let Err(source) = moved() {
            let kept = staging.keep();
            return Err(Error::NotMoved { path: self.folder.clone(), kept, source });
        }
        // Frames of a longer video that was here before would play on after ours.
        for path in pictures_in(&self.folder)? {
            if frame_number(&path).is_some_and(|number| number > self.frames) {
                fs::remove_file(&path).map_err(|source| Error::Io { doing: "remove", path, source })?;
            }
        }
        Ok(())
    }
}

impl Drop for FolderWriter {
    fn drop(&mut self) {
        if self.made && self.frames == 0 {
            // Fails, as it should, if someone has put something there.
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// The number in a name that this writer gives.
fn frame_number(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("frame-")?.strip_suffix(".png")?;
    let ours = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    ours.then(|| digits.parse().ok())?
}
