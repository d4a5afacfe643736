//! Frames into an `ffmpeg` process that encodes them, then the sound beside them.
//!
//! The sound comes in a second pass that only copies: in one pass, sound that ends early would cut off frames, and
//! sound that cannot be read would cost all of them.
use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use super::super::pending::PendingFile;
use super::super::{Error, Frame, FrameRate, FrameWriter, OutputSpec, Result};
use super::FfmpegError;
use super::encoder::{Container, Installed};
use super::probe::audio_codec;
use super::process::{Ended, Programs, Running};
use super::source::Source;

/// A running `ffmpeg` that encodes into a file beside its destination.
pub struct Writer {
    running: Running,
    pipe: Option<ChildStdin>,
    /// Why the process has ended before its time.
    failure: Option<Ended>,
    pending: PendingFile,
    path: PathBuf,
    size: (u32, u32),
    pads_odd_sides: bool,
    rate: FrameRate,
    frames: u64,
    sound: Option<Sound>,
    note: Option<String>,
}

/// The second pass.
struct Sound {
    ffmpeg: PathBuf,
    container: Container,
    source: Source,
    /// `copy` or an encoder.
    codec: &'static str,
    force: bool,
}

impl Writer {
    /// Starts encoding.
    pub fn start(programs: &Programs, path: &Path, spec: &OutputSpec) -> Result<Self> {
        let container = Container::of(path);
        let installed = Installed::list(programs, path)?;
        let encoder = container.encoder(&installed, path)?;
        let mut notes: Vec<String> = encoder.note.into_iter().map(str::to_owned).collect();
        let mut sound = None;
        if let Some(input) = &spec.audio_from {
            let source = Source::new(input)?;
            if !source.is_file() {
                notes.push(format!("the sound of {input} is not recorded: it is live"));
            } else if let Some(found) = audio_codec(programs, &source)? {
                let codec = container.sound(&found, &installed, path)?;
                let (ffmpeg, container) = (programs.ffmpeg.clone(), Container::of(path));
                sound = Some(Sound { ffmpeg, container, source, codec, force: spec.force });
            }
        }
        let pads_odd_sides = !encoder.takes_odd_sides;
        let (width, height) = padded((spec.width, spec.height), pads_odd_sides);
        let pending = PendingFile::create(path, spec.force)?;
        let mut command = Command::new(&programs.ffmpeg);
        command.args(["-nostdin", "-v", "error", "-y", "-f", "rawvideo", "-pixel_format", "rgb24"]);
        command.args(["-video_size", &format!("{width}x{height}"), "-framerate", &spec.frame_rate.to_string()]);
        command.args(["-i", "pipe:0", "-vf", FILTER]).args(encoder.arguments()).args(TAGS);
        if container.has_index && sound.is_none() {
            command.args(["-movflags", "+faststart"]);
        }
        command.args(["-f", container.muxer, &file(pending.temporary_path())]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let running = Running::start(command, path)?;
        let pipe = running.stdin();
        Ok(Self {
            running,
            pipe,
            failure: None,
            pending,
            path: path.to_owned(),
            size: (spec.width, spec.height),
            pads_odd_sides,
            rate: spec.frame_rate,
            frames: 0,
            sound,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }

    /// Closes the pipe and waits; what the process ended with.
    fn end(&mut self) -> &Ended {
        self.pipe = None;
        let running = &mut self.running;
        self.failure.get_or_insert_with(|| running.wait())
    }

    fn failed(&self, ended: &Ended) -> Error {
        failed(&self.path, self.frames, ended)
    }
}

/// To 4:2:0 with the matrix and range that the tags name.
const FILTER: &str = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp,\
     format=yuv420p,setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv";
/// An older `ffmpeg` takes the tags from here only.
const TAGS: [&str; 8] =
    ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"];

/// A path that cannot be taken for an option or a protocol.
fn file(path: &Path) -> String {
    format!("file:{}", path.display())
}

fn failed(path: &Path, frames: u64, ended: &Ended) -> Error {
    let path = path.to_owned();
    if ["No space left on device", "Disk quota exceeded", "not enough space"].iter().any(|s| ended.said.contains(s)) {
        return Error::DiskFull { path };
    }
    let said = if ended.is_silent() { "nothing".to_owned() } else { ended.quote() };
    FfmpegError::Unwritable { path, frames, said }.into()
}

impl FrameWriter for Writer {
    fn write_frame(&mut self, frame: &Frame) -> Result<()> {
        let bytes = if self.pads_odd_sides { with_even_sides(&frame.rgb, self.size) } else { Cow::from(&frame.rgb) };
        let written = self.pipe.as_mut().is_some_and(|pipe| pipe.write_all(&bytes).is_ok());
        if !written {
            // The pipe says only that it broke; the program says why.
            self.end();
            return Err(self.failure.as_ref().map_or_else(|| Error::OutputClosed, |ended| self.failed(ended)));
        }
        self.frames += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let broke = self.pipe.is_none();
        let good = self.end().good;
        if let Some(ended) = self.failure.take_if(|_| broke || !good) {
            return Err(self.failed(&ended));
        }
        let Some(sound) = self.sound.take() else { return self.pending.commit() };
        match sound.add(&self.pending, &self.path, self.rate.timestamp(self.frames).as_secs_f64()) {
            Ok(with_sound) => with_sound.commit(),
            Err(said) => {
                self.pending.commit()?;
                let audio_from = sound.source.path().display().to_string();
                Err(FfmpegError::SoundLost { path: self.path, audio_from, said }.into())
            }
        }
    }

    fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

impl Sound {
    /// Puts the sound beside the finished pictures, for as many seconds as they last; or says what went wrong.
    fn add(&self, pictures: &PendingFile, path: &Path, seconds: f64) -> std::result::Result<PendingFile, String> {
        let output = PendingFile::create(path, self.force).map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.ffmpeg);
        command.args(["-nostdin", "-v", "error", "-y", "-i", &file(pictures.temporary_path())]);
        command.args(["-t", &format!("{seconds:.6}")]).args(self.source.arguments(false));
        command.args(["-map", "0:v:0", "-map", "1:a:0", "-c:v", "copy", "-c:a", self.codec]);
        if self.container.has_index {
            command.args(["-movflags", "+faststart"]);
        }
        command.args(["-f", self.container.muxer, &file(output.temporary_path())]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let ended = Running::start(command, path).map_err(|error| error.to_string())?.wait();
        if ended.good { Ok(output) } else { Err(ended.quote()) }
    }
}

fn padded((width, height): (u32, u32), pads: bool) -> (u32, u32) {
    if pads { (width.next_multiple_of(2), height.next_multiple_of(2)) } else { (width, height) }
}

/// Repeats the last column and the last row where a side is odd: 4:2:0 shares colour between pairs of pixels.
fn with_even_sides(rgb: &[u8], size: (u32, u32)) -> Cow<'_, [u8]> {
    let even = padded(size, true);
    if even == size || rgb.is_empty() {
        return Cow::from(rgb);
    }
    let stride = size.0 as usize * 3;
    let mut padded = Vec::with_capacity(even.0 as usize * even.1 as usize * 3);
    let mut push = |row: &[u8]| {
        padded.extend_from_slice(row);
        if even.0 > size.0 {
            padded.extend_from_slice(&row[row.len() - 3..]);
        }
    };
    rgb.chunks_exact(stride).for_each(&mut push);
    if even.1 > size.1 {
        push(&rgb[rgb.len() - stride..]);
    }
    Cow::from(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sides_repeat_their_edge() {
        assert_eq!(*with_even_sides(&[1, 2, 3], (1, 1)), [1, 2, 3].repeat(4));
        let wide = with_even_sides(&[1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4], (2, 2)).into_owned();
        assert_eq!(wide, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
        let high = with_even_sides(&[1, 1, 1, 2, 2, 2], (1, 2)).into_owned();
        assert_eq!(high, [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let ended = |said: &str| Ended { good: false, said: said.to_owned() };
        let full = ended("av_interleaved_write_frame(): No space left on device\nConversion failed!\n\n\nx\ny\n");
        assert!(matches!(failed(Path::new("a.mp4"), 3, &full), Error::DiskFull { .. }));
        let other = failed(Path::new("a.mp4"), 3, &ended("bad\n")).to_string();
        assert!(other.contains("a.mp4") && other.contains("3 frames") && other.contains("bad"), "{other}");
    }
}
