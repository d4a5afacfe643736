//! Frames out of an `ffmpeg` process: raw RGB through a pipe, at a constant rate.
use super::super::{Error, Frame, FrameReader, OpenOptions, Result, VideoInfo};
use super::failed;
use super::probe::{Source, VideoStream};
use super::process::{Programs, Running};
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};

/// A video that ends this much before its container says was cut off.
const MISSING: f64 = 0.05;

/// A running `ffmpeg` that decodes.
pub struct Reader {
    running: Running,
    pipe: ChildStdout,
    info: VideoInfo,
    path: PathBuf,
    read: u64,
    ended: bool,
}

impl Reader {
    /// Starts decoding.
    pub fn start(programs: &Programs, source: &Source, stream: VideoStream, options: &OpenOptions) -> Result<Self> {
        let path = source.path();
        let rate = options.frame_rate.unwrap_or(stream.frame_rate);
        let (width, height) = (stream.width, stream.height);
        let filter = format!(
            "fps={rate},scale={width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:\
             in_color_matrix={}:in_range={},setsar=1,format=rgb24",
            stream.matrix, stream.range
        );
        let filter = if source.is_live() { filter.replacen(&format!("fps={rate},"), "", 1) } else { filter };
        let mut command = Command::new(&programs.ffmpeg);
        command.args(["-nostdin", "-v", "error"]).args(source.arguments());
        command.args(["-map", "0:v:0", "-an", "-sn", "-vf", &filter, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running::start(command, &path)?;
        let pipe = running.child.stdout.take().ok_or_else(|| failed(&path, "read", "it has no output".into()))?;
        let scaled = stream.frames.map(|n| (n as f64 * rate.as_f64() / stream.frame_rate.as_f64()).round() as u64);
        let frames = if source.is_live() { None } else { scaled };
        let info = VideoInfo { width, height, frame_rate: rate, frames, has_audio: stream.audio_codec.is_some() };
        Ok(Self { running, pipe, info, path, read: 0, ended: false })
    }

    /// The end of the pipe: a good one, or what went wrong.
    fn end(&mut self, partial: bool) -> Result<Option<Frame>> {
        self.ended = true;
        let (good, said) = self.running.wait();
        let short = self.info.frames.is_some_and(|n| (self.read as f64) < n as f64 * (1.0 - MISSING));
        if good && !partial && (said.is_empty() || !short) {
            return Ok(None);
        }
        let reason = said.lines().last().unwrap_or("the decoder ended early").to_owned();
        Err(Error::Corrupt { path: self.path.clone(), format: "video", frames: self.read, reason })
    }
}

impl FrameReader for Reader {
    fn info(&self) -> &VideoInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        if self.ended {
            return Ok(None);
        }
        let (width, height) = (self.info.width, self.info.height);
        let mut rgb = vec![0; width as usize * height as usize * 3];
        let mut filled = 0;
        while filled < rgb.len() {
            match self.pipe.read(&mut rgb[filled..]) {
                Ok(0) => return self.end(filled > 0),
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => return Err(Error::reading(&self.path, e)),
            }
        }
        let timestamp = self.info.frame_rate.timestamp(self.read);
        self.read += 1;
        Ok(Some(Frame { width, height, rgb, timestamp }))
    }
}
