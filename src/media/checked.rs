//! Holds every reader and writer to the promises of their traits: one size, at least one frame.
use std::path::PathBuf;

use super::{Error, Frame, FrameReader, FrameWriter, Result, VideoInfo};

/// Passes frames on while they have the size of the first.
pub(super) struct CheckedReader {
    inner: Box<dyn FrameReader>,
    path: PathBuf,
    frames: u64,
}

impl CheckedReader {
    pub fn new(inner: Box<dyn FrameReader>, path: PathBuf) -> Self {
        Self { inner, path, frames: 0 }
    }
}

impl FrameReader for CheckedReader {
    fn info(&self) -> &VideoInfo {
        self.inner.info()
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        let path = || self.path.clone();
        let Some(frame) = self.inner.next_frame()? else {
            return if self.frames == 0 { Err(Error::NoFrames { path: path() }) } else { Ok(None) };
        };
        let expected = (self.inner.info().width, self.inner.info().height);
        let found = (frame.width, frame.height);
        self.frames += 1;
        if found != expected {
            return Err(Error::SizeChanged { path: path(), frame: self.frames, expected, found });
        }
        Ok(Some(frame))
    }

    fn dropped(&self) -> Option<u64> {
        self.inner.dropped()
    }
}

/// Passes frames on while they have the size of the first, and completes no file without a frame.
pub(super) struct CheckedWriter {
    inner: Box<dyn FrameWriter>,
    path: PathBuf,
    size: (u32, u32),
    frames: u64,
}

impl CheckedWriter {
    pub fn new(inner: Box<dyn FrameWriter>, path: PathBuf, size: (u32, u32)) -> Self {
        Self { inner, path, size, frames: 0 }
    }
}

impl FrameWriter for CheckedWriter {
    fn write_frame(&mut self, frame: &Frame) -> Result<()> {
        let path = || self.path.clone();
        let (number, width, height) = (self.frames + 1, frame.width, frame.height);
        if (width, height) != self.size {
            return Err(Error::SizeChanged {
                path: path(),
                frame: number,
                expected: self.size,
                found: (width, height),
            });
        }
        let bytes = frame.rgb.len();
        if bytes as u64 != u64::from(width) * u64::from(height) * 3 {
            return Err(Error::BadFrame { path: path(), frame: number, width, height, bytes });
        }
        self.inner.write_frame(frame)?;
        self.frames = number;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        if self.frames == 0 {
            return Err(Error::NothingWritten { path: self.path });
        }
        self.inner.finish()
    }

    fn note(&self) -> Option<&str> {
        self.inner.note()
    }
}
