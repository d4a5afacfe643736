//! Writes YUV4MPEG2, 4:2:0 in limited range, to a file or to standard output.
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use super::pending::PendingFile;
use super::yuv::{Matrix, to_420};
use super::{Error, Frame, FrameRate, FrameWriter, OutputSpec, Result};

/// Where the stream goes.
enum Target {
    File(BufWriter<File>, PendingFile),
    /// A pipe: each frame is flushed, for whoever waits for it.
    Stream(BufWriter<Box<dyn Write + Send>>),
}

/// Writes frames as `C420jpeg`, whose chroma is centred, with the matrix that players assume for the height.
pub(super) struct Y4mWriter {
    target: Target,
    path: PathBuf,
    width: usize,
    height: usize,
    matrix: Matrix,
}

impl Y4mWriter {
    pub fn create(pending: PendingFile, spec: &OutputSpec) -> Result<Self> {
        let path = pending.path().to_owned();
        Self::new(Target::File(pending.writer()?, pending), path, spec)
    }

    /// `path` names the stream in messages.
    pub fn stream(stream: Box<dyn Write + Send>, path: PathBuf, spec: &OutputSpec) -> Result<Self> {
        Self::new(Target::Stream(BufWriter::new(stream)), path, spec)
    }

    fn new(target: Target, path: PathBuf, spec: &OutputSpec) -> Result<Self> {
        let (width, height) = (spec.width as usize, spec.height as usize);
        let mut writer = Self { target, path, width, height, matrix: Matrix::for_height(spec.height) };
        let FrameRate { numerator, denominator } = spec.frame_rate;
        writer.put(|out| {
            writeln!(
                out,
                "YUV4MPEG2 W{width} H{height} F{numerator}:{denominator} Ip A1:1 C420jpeg XCOLORRANGE=LIMITED"
            )
        })?;
        Ok(writer)
    }

    fn put(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        match &mut self.target {
            Target::File(out, _) => write(out),
            Target::Stream(out) => write(out).and_then(|()| out.flush()),
        }
        .map_err(|error| Error::writing(&self.path, error))
    }
}

impl FrameWriter for Y4mWriter {
    fn write_frame(&mut self, frame: &Frame) -> Result<()> {
        let planes = to_420(&frame.rgb, self.width, self.height, self.matrix);
        self.put(|out| {
            out.write_all(b"FRAME\n")?;
            out.write_all(&planes)
        })
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.put(|out| out.flush())?;
        match self.target {
            Target::File(_, pending) => pending.commit(),
            Target::Stream(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn write_to(stream: Box<dyn Write + Send>) -> Result<()> {
        let spec = OutputSpec::new(64, 64, FrameRate::DEFAULT);
        let mut writer = Y4mWriter::stream(stream, PathBuf::from("standard output"), &spec)?;
        let frame = Frame { width: 64, height: 64, rgb: vec![9; 64 * 64 * 3], timestamp: Duration::ZERO };
        writer.write_frame(&frame)?;
        Box::new(writer).finish()
    }

    #[test]
    fn a_closed_pipe_is_an_error_of_its_own() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert!(matches!(write_to(Box::new(writer)), Err(Error::OutputClosed)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_said_to_be_full() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = write_to(Box::new(full)).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert!(error.to_string().contains("disk is full while writing standard output"), "{error}");
    }
}
