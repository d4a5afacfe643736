//! Frames into an `ffmpeg` process that encodes them, beside the sound of the input.
use super::super::pending::PendingFile;
use super::super::{Error, Frame, FrameWriter, OutputSpec, Result};
use super::failed;
use super::probe::{Source, probe};
use super::process::{Programs, Running};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

/// A container, its encoders from best to plainest, and the sound that it takes as it is.
struct Container {
    muxer: &'static str,
    video: &'static [&'static [&'static str]],
    takes: &'static [&'static str],
    audio: &'static str,
}

const X264: &[&str] = &["libx264", "-preset", "medium", "-crf", "18"];
const MPEG4: &[&str] = &["mpeg4", "-q:v", "3"];
const VP9: &[&str] = &["libvpx-vp9", "-crf", "28", "-b:v", "0", "-row-mt", "1", "-cpu-used", "4"];
const VP8: &[&str] = &["libvpx", "-crf", "8", "-b:v", "4M"];

fn container(path: &Path) -> Container {
    let mp4 = &["aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"];
    match path.extension().unwrap_or_default().to_string_lossy().to_lowercase().as_str() {
        "webm" => Container { muxer: "webm", video: &[VP9, VP8], takes: &["opus", "vorbis"], audio: "libopus" },
        "mov" => Container { muxer: "mov", video: &[X264, MPEG4], takes: &["aac", "mp3", "ac3", "alac"], audio: "aac" },
        "mkv" => Container { muxer: "matroska", video: &[X264, MPEG4, VP9], takes: mp4, audio: "aac" },
        _ => Container { muxer: "mp4", video: &[X264, MPEG4], takes: mp4, audio: "aac" },
    }
}

/// A running `ffmpeg` that encodes into a file beside its destination.
pub struct Writer {
    running: Running,
    pipe: Option<ChildStdin>,
    pending: PendingFile,
    path: PathBuf,
}

impl Writer {
    /// Starts encoding.
    pub fn start(programs: &Programs, path: &Path, spec: &OutputSpec) -> Result<Self> {
        let container = container(path);
        let encoder = choose(programs, path, container.video)?;
        let pending = PendingFile::create(path, spec.force)?;
        let size = format!("{}x{}", spec.width, spec.height);
        let mut command = Command::new(&programs.ffmpeg);
        command.args(["-nostdin", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]);
        command.args(["-s", &size, "-r", &spec.frame_rate.to_string(), "-i", "pipe:0"]);
        let sound = spec.audio_from.as_deref().map(Source::new);
        if let Some(source) = &sound {
            command.args(source.arguments());
        }
        command.args(["-map", "0:v:0"]);
        if let Some(source) = &sound {
            let codec = probe(programs, source)?.audio_codec.unwrap_or_default();
            let copied = container.takes.contains(&codec.as_str());
            command.args(["-map", "1:a:0?", "-c:a", if copied { "copy" } else { container.audio }, "-shortest"]);
        }
        // 4:2:0 needs even sides: an odd one gets a row of its own edge
        let filter = "pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv420p";
        command.args(["-vf", filter, "-c:v"]).args(encoder);
        command.args([
            "-colorspace",
            "bt709",
            "-color_primaries",
            "bt709",
            "-color_trc",
            "bt709",
            "-color_range",
            "tv",
        ]);
        if matches!(container.muxer, "mp4" | "mov") {
            command.args(["-movflags", "+faststart"]);
        }
        command.args(["-f", container.muxer]).arg(pending.temporary_path());
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut running = Running::start(command, path)?;
        let pipe = running.child.stdin.take();
        Ok(Self { running, pipe, pending, path: path.to_owned() })
    }

    /// What `ffmpeg` ended with.
    fn failure(&mut self) -> Error {
        let (_, said) = self.running.wait();
        if said.contains("No space left on device") {
            return Error::DiskFull { path: self.path.clone() };
        }
        failed(&self.path, "write", if said.is_empty() { "it ended early".into() } else { said })
    }
}

/// The first encoder of the list that this `ffmpeg` has.
fn choose(programs: &Programs, path: &Path, wanted: &[&'static [&'static str]]) -> Result<&'static [&'static str]> {
    let output = Command::new(&programs.ffmpeg).args(["-hide_banner", "-encoders"]).stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Io { doing: "start ffmpeg for", path: path.to_owned(), source })?;
    let list = String::from_utf8_lossy(&output.stdout);
    let has = |name: &str| list.lines().any(|line| line.split_whitespace().nth(1) == Some(name));
    wanted.iter().copied().find(|encoder| has(encoder[0])).ok_or_else(|| {
        let names: Vec<&str> = wanted.iter().map(|encoder| encoder[0]).collect();
        failed(path, "write", format!("it has none of the encoders {}; install a full build", names.join(", ")))
    })
}

impl FrameWriter for Writer {
    fn write_frame(&mut self, frame: &Frame) -> Result<()> {
        let written = self.pipe.as_mut().map(|pipe| pipe.write_all(&frame.rgb));
        match written {
            Some(Ok(())) => Ok(()),
            // the pipe says only that it broke; the program says why
            _ => Err(self.failure()),
        }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        drop(self.pipe.take());
        let (good, said) = self.running.wait();
        if !good {
            let full = said.contains("No space left on device");
            return Err(if full {
                Error::DiskFull { path: self.path.clone() }
            } else {
                failed(&self.path, "write", said)
            });
        }
        self.pending.commit()
    }
}
