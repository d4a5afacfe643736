//! What goes into which container, with what the installed `ffmpeg` has.
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::FfmpegError;
use super::process::{Programs, ask};

/// The most that a list of encoders may take, and how long.
const LONGEST_LIST: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// How pictures are encoded.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoder {
    name: &'static str,
    options: &'static [&'static str],
    /// Whether the sides may be odd although the colour has half as many pixels.
    pub takes_odd_sides: bool,
    /// What to tell whoever gets this one for want of a better.
    pub note: Option<&'static str>,
}

impl Encoder {
    /// Arguments that choose it.
    pub fn arguments(&self) -> impl Iterator<Item = &'static str> {
        ["-c:v", self.name].into_iter().chain(self.options.iter().copied())
    }
}

const X264: Encoder =
    Encoder { name: "libx264", options: &["-preset", "medium", "-crf", "18"], takes_odd_sides: false, note: None };
const OPENH264: Encoder = Encoder {
    name: "libopenh264",
    options: &["-b:v", "8M"],
    takes_odd_sides: false,
    note: Some("this ffmpeg has no libx264: the video is H.264 by libopenh264, larger for the same quality"),
};
const MPEG4: Encoder = Encoder {
    name: "mpeg4",
    options: &["-q:v", "2"],
    takes_odd_sides: false,
    note: Some("this ffmpeg has no H.264 encoder: the video is MPEG-4 part 2, which browsers do not play"),
};
const VP9: Encoder = Encoder {
    name: "libvpx-vp9",
    options: &["-crf", "24", "-b:v", "0", "-row-mt", "1", "-deadline", "good", "-cpu-used", "4"],
    takes_odd_sides: true,
    note: None,
};
const VP8: Encoder = Encoder {
    name: "libvpx",
    options: &["-crf", "8", "-b:v", "8M", "-deadline", "good", "-cpu-used", "4"],
    takes_odd_sides: true,
    note: Some("this ffmpeg has no libvpx-vp9: the video is VP8, larger for the same quality"),
};

/// A container, its encoders from the best to the plainest, and the sound that it takes.
#[derive(Debug)]
pub struct Container {
    /// The name that `ffmpeg` gives it.
    pub muxer: &'static str,
    pictures: &'static [Encoder],
    /// Sound that is copied as it is; none means any.
    copied: Option<&'static [&'static str]>,
    /// Encoders for other sound.
    sound: &'static [&'static str],
    /// Whether the index can go to the front, for players that read over a network.
    pub has_index: bool,
}

const H264: &[Encoder] = &[X264, OPENH264, MPEG4];
const MP4: Container = Container {
    muxer: "mp4",
    pictures: H264,
    copied: Some(&["aac", "mp3", "ac3", "eac3", "alac", "opus"]),
    sound: &["aac"],
    has_index: true,
};
const MOV: Container = Container {
    muxer: "mov",
    copied: Some(&["aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be", "pcm_s24be"]),
    ..MP4
};
const MKV: Container = Container { muxer: "matroska", copied: None, has_index: false, ..MP4 };
const WEBM: Container = Container {
    muxer: "webm",
    pictures: &[VP9, VP8],
    copied: Some(&["opus", "vorbis"]),
    sound: &["libopus", "libvorbis"],
    has_index: false,
};

impl Container {
    /// By the end of the output's name; MP4 if that says nothing.
    pub fn of(path: &Path) -> Self {
        match path.extension().unwrap_or_default().to_string_lossy().to_lowercase().as_str() {
            "webm" => WEBM,
            "mov" => MOV,
            "mkv" => MKV,
            _ => MP4,
        }
    }

    /// The best encoder for the pictures that `ffmpeg` has.
    pub fn encoder(&self, installed: &Installed, path: &Path) -> Result<&'static Encoder, FfmpegError> {
        self.pictures.iter().find(|encoder| installed.has(encoder.name)).ok_or_else(|| {
            let tried: Vec<&str> = self.pictures.iter().map(|encoder| encoder.name).collect();
            FfmpegError::NoEncoder { path: path.to_owned(), tried: tried.join(", ") }
        })
    }

    /// What becomes of sound of this codec: `copy`, or the encoder for it.
    pub fn sound(&self, codec: &str, installed: &Installed, path: &Path) -> Result<&'static str, FfmpegError> {
        if self.copied.is_none_or(|copied| copied.contains(&codec)) {
            return Ok("copy");
        }
        self.sound
            .iter()
            .copied()
            .find(|name| installed.has(name))
            .ok_or_else(|| FfmpegError::NoEncoder { path: path.to_owned(), tried: self.sound.join(", ") })
    }
}

/// The encoders that an installed `ffmpeg` has.
pub struct Installed(String);

impl Installed {
    /// Asks for the list.
    pub fn list(programs: &Programs, path: &Path) -> Result<Self, FfmpegError> {
        let mut command = Command::new(&programs.ffmpeg);
        command.args(["-hide_banner", "-v", "error", "-encoders"]);
        match ask(command, path, LONGEST_LIST, PATIENCE)? {
            Some(answer) => Ok(Self(String::from_utf8_lossy(&answer.output).into_owned())),
            None => Err(FfmpegError::Stalled { path: path.to_owned(), seconds: PATIENCE.as_secs() }),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.lines().any(|line| line.split_whitespace().nth(1) == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(names: &[&str]) -> Installed {
        let lines = names.iter().map(|name| format!(" V....D {name}   The {name} codec (codec libx264 aac)\n"));
        Installed("Encoders:\n V..... = Video\n ------\n".to_owned() + &lines.collect::<String>())
    }

    #[test]
    fn the_best_encoder_that_is_there_is_taken() {
        let chosen = |name: &str, has: &[&str]| {
            let path = Path::new(name);
            Container::of(path).encoder(&installed(has), path).map(|encoder| (encoder.name, encoder.note.is_some()))
        };
        assert_eq!(chosen("a.mp4", &["mpeg4", "libx264"]).unwrap(), ("libx264", false));
        assert_eq!(chosen("a.MOV", &["mpeg4"]).unwrap(), ("mpeg4", true));
        assert_eq!(chosen("a.webm", &["libx264", "libvpx-vp9"]).unwrap(), ("libvpx-vp9", false));
        let error = chosen("a.webm", &["libx264"]).unwrap_err().to_string();
        assert!(error.contains("libvpx-vp9") && error.contains("a.webm"), "{error}");
    }

    #[test]
    fn sound_is_copied_where_the_container_takes_it() {
        let has = installed(&["aac", "libvorbis"]);
        let sound = |name: &str, codec: &str| {
            let path = Path::new(name);
            Container::of(path).sound(codec, &has, path)
        };
        assert_eq!(sound("a.mp4", "aac").unwrap(), "copy");
        assert_eq!(sound("a.mp4", "vorbis").unwrap(), "aac");
        assert_eq!(sound("a.webm", "opus").unwrap(), "copy");
        assert_eq!(sound("a.webm", "aac").unwrap(), "libvorbis");
        assert_eq!(sound("a.mkv", "pcm_s16le").unwrap(), "copy");
    }
}
