//! Frames out of an `ffmpeg` process: raw RGB through a pipe, at a constant rate.
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};

use super::super::{Error, Frame, FrameReader, OpenOptions, Result, VideoInfo};
use super::FfmpegError;
use super::probe::VideoStream;
use super::process::{Process, Programs, Running};
use super::source::Source;

/// The share of the frames that may be missing at the end of a sound file: lengths in containers are rounded.
const MISSING: f64 = 0.03;
/// What `crop` complains of when [`filter`] gives it a size that it cannot cut.
const OTHER_SIZE: &str = "Invalid too big or non positive size";

/// A running `ffmpeg` that decodes.
pub struct Reader {
    running: Running,
    pipe: ChildStdout,
    info: VideoInfo,
    path: PathBuf,
    decoded: (u32, u32),
    live: bool,
    read: u64,
    ended: bool,
}

impl Reader {
    /// Starts decoding.
    pub fn start(
        programs: &Programs,
        source: &Source,
        stream: VideoStream,
        live: bool,
        options: &OpenOptions,
    ) -> Result<Self> {
        let path = source.path();
        let (width, height) = stream.shown;
        let rate = options.frame_rate.unwrap_or(stream.frame_rate);
        let mut command = Command::new(&programs.ffmpeg);
        command.args(["-nostdin", "-v", "error"]).args(source.arguments(live));
        command.args(["-map", &format!("0:{}", stream.index), "-vf", &filter(&stream, live, options)]);
        // With the rate that the filter gives, ffmpeg neither repeats nor drops a frame on the way out.
        command.args(["-r", &rate.to_string(), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let running = Running::start(command, &path)?;
        let Some(pipe) = running.stdout() else {
            return Err(FfmpegError::Unreadable { path, said: "ffmpeg has no output".to_owned() }.into());
        };
        let scaled = |frames| (frames as f64 * rate.as_f64() / stream.frame_rate.as_f64()).round().max(1.0) as u64;
        let frames = stream.frames.filter(|_| !live).map(scaled);
        // The sound of what is live has gone by when the pictures are written.
        let has_audio = source.is_file() && !live && stream.audio_codec.is_some();
        let info = VideoInfo { width, height, frame_rate: rate, frames, has_audio };
        Ok(Self { running, pipe, info, path, decoded: stream.decoded, live, read: 0, ended: false })
    }

    /// The handle to end the process with.
    pub fn process(&self) -> Process {
        self.running.process()
    }

    /// The end of the pipe: a good one, or what went wrong.
    fn end(&mut self, partial: bool) -> Result<Option<Frame>> {
        self.ended = true;
        let ended = self.running.wait();
        let (path, frames) = (self.path.clone(), self.read);
        if ended.said.contains(OTHER_SIZE) {
            return Err(FfmpegError::SizeChanged { path, frames, size: self.decoded }.into());
        }
        let allowed = |expected: u64| (expected as f64 * MISSING).max(2.0);
        let short = self.info.frames.is_some_and(|expected| (frames as f64) < expected as f64 - allowed(expected));
        // A live stream loses packets; a file that needs patching up is not whole.
        if ended.good && !partial && !short && (ended.is_silent() || self.live) {
            return Ok(None);
        }
        let said = match self.info.frames {
            _ if !ended.is_silent() => ended.quote(),
            Some(expected) => format!("nothing, but the file should have {expected} frames"),
            None => "nothing".to_owned(),
        };
        Err(FfmpegError::Damaged { path, frames, said }.into())
    }
}

/// Makes the frames constant in rate, whole, square in their pixels, and RGB.
fn filter(stream: &VideoStream, live: bool, options: &OpenOptions) -> String {
    let (rate, (width, height)) = (options.frame_rate.unwrap_or(stream.frame_rate), stream.shown);
    let mut filters = vec![];
    if !live || options.frame_rate.is_some() {
        filters.push(format!("fps={rate}"));
    }
    if live {
        // Each frame as it comes, whatever its own clock says.
        filters.push(format!("setpts=N/({rate}*TB)"));
    }
    // A frame of another size in mid-stream would be stretched in silence: this makes it an error.
    let (w, h) = stream.decoded;
    filters.push(format!(r"crop=w=if(eq(iw\,{w})*eq(ih\,{h})\,iw\,-1):h=ih:x=0:y=0:exact=1"));
    if stream.interlaced {
        filters.push("yadif=mode=send_frame:deint=interlaced".to_owned());
    }
    let range = stream.range.map(|range| format!(":in_range={range}")).unwrap_or_default();
    filters.push(format!(
        "scale={width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:in_color_matrix={}{range}",
        stream.matrix
    ));
    filters.push("format=rgb24".to_owned());
    filters.join(",")
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
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(Error::reading(&self.path, error)),
            }
        }
        let timestamp = self.info.frame_rate.timestamp(self.read);
        self.read += 1;
        Ok(Some(Frame { width, height, rgb, timestamp }))
    }
}
