//! What `ffprobe` says of an input, none of it believed without bounds.
use super::super::frame::MAX_SIDE;
use super::super::{Error, FrameRate, Result};
use super::failed;
use super::process::{Programs, Running};
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The most that `ffprobe` may print.
const LONGEST_ANSWER: u64 = 1 << 20;
/// A nominal rate above this is a container's time base, not a rate.
const FASTEST: f64 = 240.0;

/// An input as `ffmpeg` takes it.
pub struct Source {
    name: String,
    /// The input format of a capture device.
    format: Option<&'static str>,
    address: String,
}

impl Source {
    /// Tells files, addresses and capture devices apart.
    pub fn new(input: &str) -> Self {
        let device = |format, address: &str| Self { name: input.into(), format: Some(format), address: address.into() };
        if input.starts_with("/dev/video") {
            return device("v4l2", input);
        }
        for format in ["v4l2", "avfoundation", "dshow"] {
            if let Some(address) = input.strip_prefix(format).and_then(|rest| rest.strip_prefix(':')) {
                return device(format, address);
            }
        }
        // a file called `-x` or `concat:a|b` is a file, not an option or a protocol
        let address = if input.contains("://") { input.to_owned() } else { format!("file:{input}") };
        Self { name: input.to_owned(), format: None, address }
    }

    /// The capture format, where it is a device.
    pub fn format(&self) -> Option<&'static str> {
        self.format
    }

    /// A camera or an address: frames come when they come.
    pub fn is_live(&self) -> bool {
        self.format.is_some() || self.address.starts_with("rtsp://") || self.address.starts_with("rtmp://")
    }

    /// The name that the user gave.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(&self.name)
    }

    /// Arguments up to and with the input.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<&str> = vec![];
        if let Some(format) = self.format {
            arguments.extend(["-f", format]);
        } else if self.address.starts_with("file:") {
            // a hostile playlist in a file must not fetch anything
            arguments.extend(["-protocol_whitelist", "file,pipe,crypto,data"]);
        }
        if self.address.starts_with("rtsp://") {
            arguments.extend(["-rtsp_transport", "tcp"]);
        }
        if self.is_live() {
            arguments.extend(["-fflags", "nobuffer", "-flags", "low_delay"]);
        }
        arguments.extend(["-i", &self.address]);
        arguments.into_iter().map(str::to_owned).collect()
    }
}

/// The first video stream of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoStream {
    /// As shown: after rotation, with square pixels.
    pub width: u32,
    /// As shown.
    pub height: u32,
    pub frame_rate: FrameRate,
    pub frames: Option<u64>,
    pub audio_codec: Option<String>,
    /// Name of the matrix for the scale filter.
    pub matrix: &'static str,
    /// `tv` or `pc`.
    pub range: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    #[serde(default)]
    codec_type: String,
    codec_name: Option<String>,
    width: Option<u64>,
    height: Option<u64>,
    avg_frame_rate: Option<String>,
    r_frame_rate: Option<String>,
    nb_frames: Option<String>,
    duration: Option<String>,
    sample_aspect_ratio: Option<String>,
    color_space: Option<String>,
    color_range: Option<String>,
    pix_fmt: Option<String>,
    #[serde(default)]
    side_data_list: Vec<SideData>,
}

#[derive(Deserialize)]
struct SideData {
    rotation: Option<f64>,
}

/// Asks `ffprobe`.
pub fn probe(programs: &Programs, source: &Source) -> Result<VideoStream> {
    let path = source.path();
    let mut command = Command::new(&programs.ffprobe);
    command.args(["-v", "error", "-show_streams", "-of", "json"]).args(source.arguments());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running::start(command, &path)?;
    let mut text = String::new();
    if let Some(stdout) = running.child.stdout.take() {
        stdout.take(LONGEST_ANSWER).read_to_string(&mut text).map_err(|e| Error::reading(&path, e))?;
    }
    let (good, said) = running.wait();
    if !good {
        return Err(failed(&path, "read", said));
    }
    let answer: Answer = serde_json::from_str(&text).map_err(|e| failed(&path, "probe", e.to_string()))?;
    describe(&answer, &path)
}

fn describe(answer: &Answer, path: &Path) -> Result<VideoStream> {
    let unsupported = |reason: &str| Error::UnsupportedInput { path: path.to_owned(), reason: reason.to_owned() };
    let video = answer.streams.iter().find(|s| s.codec_type == "video");
    let video = video.ok_or_else(|| unsupported("it has no video stream; name a file with pictures"))?;
    let (Some(width @ 1..), Some(height @ 1..)) = (video.width, video.height) else {
        return Err(unsupported("its video stream has no size; the file may be damaged"));
    };
    let (mut width, mut height) = (pixel_aspect(video, width), height);
    let quarter = video.side_data_list.iter().filter_map(|d| d.rotation).any(|r| (r.abs() / 90.0).round() % 2.0 == 1.0);
    if quarter {
        std::mem::swap(&mut width, &mut height);
    }
    let limit = u64::from(MAX_SIDE);
    if width > limit || height > limit {
        return Err(Error::TooLarge { path: path.to_owned(), width, height });
    }
    let rate = |text: &Option<String>| -> Option<FrameRate> {
        let rate: FrameRate = text.as_ref()?.parse().ok()?;
        (rate.as_f64() <= FASTEST).then_some(rate)
    };
    let frame_rate = rate(&video.avg_frame_rate).or_else(|| rate(&video.r_frame_rate)).unwrap_or(FrameRate::DEFAULT);
    let seconds = video.duration.as_ref().and_then(|d| d.parse::<f64>().ok()).filter(|d| *d > 0.0 && *d < 1e9);
    let counted = video.nb_frames.as_ref().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let full =
        video.color_range.as_deref() == Some("pc") || video.pix_fmt.as_ref().is_some_and(|p| p.starts_with("yuvj"));
    Ok(VideoStream {
        // both are at most MAX_SIDE
        width: width as u32,
        height: height as u32,
        frame_rate,
        frames: counted.or_else(|| seconds.map(|s| (s * frame_rate.as_f64()).round() as u64)),
        audio_codec: answer.streams.iter().find(|s| s.codec_type == "audio").and_then(|s| s.codec_name.clone()),
        matrix: match video.color_space.as_deref() {
            Some("bt709") => "bt709",
            Some("bt470bg" | "smpte170m") => "bt601",
            Some("bt2020nc" | "bt2020_ncl" | "bt2020c") => "bt2020",
            Some("smpte240m") => "smpte240m",
            // untagged: what players assume by size
            _ if height.min(width) >= 720 => "bt709",
            _ => "bt601",
        },
        range: if full { "pc" } else { "tv" },
    })
}

/// The width in square pixels.
fn pixel_aspect(video: &Stream, width: u64) -> u64 {
    let ratio = video.sample_aspect_ratio.as_ref().and_then(|text| {
        let (a, b) = text.split_once(':')?;
        let (a, b) = (a.parse::<f64>().ok()?, b.parse::<f64>().ok()?);
        (a > 0.0 && b > 0.0).then_some(a / b)
    });
    ratio.map_or(width, |r| (width as f64 * r).round().max(1.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: &str) -> Result<VideoStream> {
        describe(&serde_json::from_str(text).unwrap(), Path::new("clip.mp4"))
    }

    #[test]
    fn rotation_and_pixel_aspect_change_the_size() {
        let stream = described(
            r#"{"streams":[{"codec_type":"audio","codec_name":"aac"},{"codec_type":"video","width":720,"height":576,
            "sample_aspect_ratio":"16:15","avg_frame_rate":"25/1","nb_frames":"50","color_range":"pc",
            "side_data_list":[{"rotation":-90}]}]}"#,
        )
        .unwrap();
        assert_eq!((stream.width, stream.height, stream.frames), (576, 768, Some(50)));
        assert_eq!((stream.audio_codec.as_deref(), stream.matrix, stream.range), (Some("aac"), "bt601", "pc"));
    }

    #[test]
    fn absurd_answers_are_refused_or_bounded() {
        let large = described(r#"{"streams":[{"codec_type":"video","width":20000,"height":20000}]}"#);
        assert!(matches!(large, Err(Error::TooLarge { width: 20000, .. })));
        assert!(described(r#"{"streams":[{"codec_type":"audio"}]}"#).is_err());
        assert!(described(r#"{"streams":[{"codec_type":"video","width":0,"height":5}]}"#).is_err());
        let odd = described(
            r#"{"streams":[{"codec_type":"video","width":5,"height":7,"avg_frame_rate":"0/0","r_frame_rate":"90000/1","duration":"-3"}]}"#,
        );
        let odd = odd.unwrap();
        assert_eq!((odd.frame_rate, odd.frames), (FrameRate::DEFAULT, None));
    }

    #[test]
    fn a_name_cannot_smuggle_in_an_option_or_a_protocol() {
        for name in ["-y", "concat:a|b", "http:x", "a b"] {
            let arguments = Source::new(name).arguments();
            assert_eq!(arguments.last().map(String::as_str), Some(format!("file:{name}").as_str()));
            assert!(arguments.contains(&"-protocol_whitelist".to_owned()));
        }
        assert!(Source::new("/dev/video0").is_live() && Source::new("rtsp://camera/1").is_live());
        assert_eq!(Source::new("avfoundation:0").arguments()[..2], ["-f", "avfoundation"]);
    }
}
