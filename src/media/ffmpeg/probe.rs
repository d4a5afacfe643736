//! What `ffprobe` says of an input, none of it believed without bounds.
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::super::frame::MAX_SIDE;
use super::super::{Error, FrameRate, Result};
use super::FfmpegError;
use super::process::{Programs, ask};
use super::source::Source;

/// The most that `ffprobe` may print.
const LONGEST_ANSWER: u64 = 1 << 22;
/// How long it may take; a camera that sleeps needs some seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// A nominal rate above this is a container's time base, not a rate.
const FASTEST: f64 = 240.0;
/// A duration above this is no duration but a damaged header.
const LONGEST_SECONDS: f64 = 1e8;
/// Pixels further from square than this are a damaged header.
const NARROWEST_PIXEL: f64 = 0.1;

/// The first stream of pictures of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoStream {
    /// Number of the stream in the input.
    pub index: u32,
    /// Width and height as shown: upright, with square pixels.
    pub shown: (u32, u32),
    /// Width and height as decoded: upright, pixels as they are.
    pub decoded: (u32, u32),
    /// Nominal rate.
    pub frame_rate: FrameRate,
    /// How long the pictures last, where that is known.
    pub duration: Option<Duration>,
    /// How many there are, if they come at the nominal rate.
    pub frames: Option<u64>,
    /// Codec of the first sound track.
    pub audio_codec: Option<String>,
    /// Name of the matrix for the scale filter.
    pub matrix: &'static str,
    /// `tv` or `pc`; none where the pixel format says it.
    pub range: Option<&'static str>,
    /// Whether two moments share a picture, line by line.
    pub interlaced: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    format: Format,
}

#[derive(Default, Deserialize)]
struct Format {
    duration: Option<String>,
}

#[derive(Deserialize)]
struct Stream {
    index: u32,
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
    field_order: Option<String>,
    #[serde(default)]
    pix_fmt: String,
    #[serde(default)]
    disposition: Disposition,
    #[serde(default)]
    side_data_list: Vec<SideData>,
}

#[derive(Default, Deserialize)]
struct Disposition {
    #[serde(default)]
    attached_pic: u8,
}

#[derive(Deserialize)]
struct SideData {
    rotation: Option<f64>,
}

/// Asks `ffprobe` about the pictures of an input.
///
/// # Errors
/// [`FfmpegError`] for what cannot be read, [`Error::TooLarge`].
pub fn probe(programs: &Programs, source: &Source) -> Result<VideoStream> {
    describe(&answer(programs, source)?, source)
}

/// Codec of the first sound track of an input, if it has one.
///
/// # Errors
/// [`FfmpegError`] for what cannot be read.
pub fn audio_codec(programs: &Programs, source: &Source) -> Result<Option<String>> {
    Ok(first_audio(&answer(programs, source)?))
}

fn answer(programs: &Programs, source: &Source) -> std::result::Result<Answer, FfmpegError> {
    let path = source.path();
    let mut command = Command::new(&programs.ffprobe);
    command.args(["-v", "error", "-show_streams", "-show_format", "-of", "json"]).args(source.arguments(false));
    let Some(answer) = ask(command, &path, LONGEST_ANSWER, PATIENCE)? else {
        return Err(FfmpegError::Stalled { path, seconds: PATIENCE.as_secs() });
    };
    if !answer.ended.good {
        return Err(FfmpegError::Unreadable { path, said: answer.ended.quote() });
    }
    serde_json::from_slice(&answer.output)
        .map_err(|error| FfmpegError::Unreadable { path, said: format!("ffprobe's answer makes no sense ({error})") })
}

fn first_audio(answer: &Answer) -> Option<String> {
    let audio = answer.streams.iter().find(|stream| stream.codec_type == "audio")?;
    Some(audio.codec_name.clone().unwrap_or_default())
}

fn describe(answer: &Answer, source: &Source) -> Result<VideoStream> {
    let path = source.path();
    // The cover of a song is a video stream too.
    let mut videos = answer.streams.iter().filter(|s| s.codec_type == "video" && s.disposition.attached_pic == 0);
    let Some(video) = videos.next() else { return Err(FfmpegError::NoVideo { path }.into()) };
    let (Some(width @ 1..), Some(height @ 1..)) = (video.width, video.height) else {
        let said = "its pictures have no size".to_owned();
        return Err(FfmpegError::Unreadable { path, said }.into());
    };
    let turned = video.side_data_list.iter().filter_map(|d| d.rotation).any(is_quarter_turn);
    let upright = |(width, height)| if turned { (height, width) } else { (width, height) };
    let bounded = |size: (u64, u64)| {
        let (width, height) = upright(size);
        let bound = |side| u32::try_from(side).ok().filter(|side| *side <= MAX_SIDE);
        bound(width).zip(bound(height)).ok_or(Error::TooLarge { path: path.clone(), width, height })
    };
    let decoded = bounded((width, height))?;
    let shown = bounded(square_pixels(video, width, height))?;
    let frame_rate = nominal_rate(video);
    let seconds = |text: &Option<String>| {
        let seconds = text.as_ref()?.parse::<f64>().ok()?;
        (seconds > 0.0 && seconds < LONGEST_SECONDS).then(|| Duration::from_secs_f64(seconds))
    };
    let own = seconds(&video.duration);
    let duration = own.or_else(|| seconds(&answer.format.duration));
    let counted = video.nb_frames.as_ref().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let filled = duration.map(|duration| (duration.as_secs_f64() * frame_rate.as_f64()).round().max(1.0) as u64);
    Ok(VideoStream {
        index: video.index,
        shown,
        decoded,
        frame_rate,
        duration,
        // A track can hold frames that it does not show, and show frames for longer than the rate says.
        frames: filled.or(counted),
        audio_codec: first_audio(answer),
        matrix: matrix(video.color_space.as_deref(), width.min(height)),
        range: range(video.color_range.as_deref(), &video.pix_fmt),
        interlaced: matches!(video.field_order.as_deref(), Some("tt" | "bb" | "tb" | "bt")),
    })
}

/// Whether a rotation in degrees swaps the sides.
fn is_quarter_turn(degrees: f64) -> bool {
    // As near as ffmpeg itself asks for before it transposes instead of rotating inside the same size.
    ((degrees.abs() % 180.0) - 90.0).abs() < 1.0
}

/// The size at which pixels are square; the side that grows is the one that has too few.
fn square_pixels(video: &Stream, width: u64, height: u64) -> (u64, u64) {
    let ratio = video.sample_aspect_ratio.as_ref().and_then(|text| {
        let (a, b) = text.split_once(':')?;
        let ratio = a.parse::<f64>().ok()? / b.parse::<f64>().ok()?;
        (NARROWEST_PIXEL..=1.0 / NARROWEST_PIXEL).contains(&ratio).then_some(ratio)
    });
    match ratio {
        Some(ratio) if ratio >= 1.0 => ((width as f64 * ratio).round() as u64, height),
        Some(ratio) => (width, (height as f64 / ratio).round() as u64),
        None => (width, height),
    }
}

/// The base rate where the mean is close to it; else, for a rate that varies, the mean.
fn nominal_rate(video: &Stream) -> FrameRate {
    let rate = |text: &Option<String>| -> Option<FrameRate> {
        let rate: FrameRate = text.as_ref()?.parse().ok()?;
        (rate.as_f64() <= FASTEST).then_some(rate)
    };
    match (rate(&video.r_frame_rate), rate(&video.avg_frame_rate)) {
        (Some(base), Some(mean)) if (base.as_f64() / mean.as_f64() - 1.0).abs() > 0.05 => mean,
        (Some(base), _) => base,
        (None, mean) => mean.unwrap_or(FrameRate::DEFAULT),
    }
}

/// The name for the scale filter; what is not tagged is taken as players take it, by its size.
fn matrix(tag: Option<&str>, shorter_side: u64) -> &'static str {
    match tag {
        Some("bt709") => "bt709",
        Some("bt470bg" | "smpte170m") => "bt601",
        Some("bt2020nc" | "bt2020_ncl" | "bt2020c" | "bt2020_cl") => "bt2020",
        Some("smpte240m") => "smpte240m",
        Some("fcc") => "fcc",
        _ if shorter_side > 576 => "bt709",
        _ => "bt601",
    }
}

fn range(tag: Option<&str>, pixel_format: &str) -> Option<&'static str> {
    let starts = |names: &[&str]| names.iter().any(|name| pixel_format.starts_with(name));
    match tag {
        // Red, green and blue have no other range than the full one.
        _ if starts(&["rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal", "mono"]) => None,
        Some("pc") => Some("pc"),
        Some("tv") => Some("tv"),
        _ if starts(&["yuvj", "gray", "ya"]) => Some("pc"),
        _ => Some("tv"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: &str) -> Result<VideoStream> {
        describe(&serde_json::from_str(text).unwrap(), &Source::new("clip.mp4").unwrap())
    }

    #[test]
    fn rotation_and_pixel_aspect_change_the_size() {
        let stream = described(
            r#"{"streams":[{"index":0,"codec_type":"audio","codec_name":"aac"},
            {"index":1,"codec_type":"video","width":600,"height":600,"disposition":{"attached_pic":1}},
            {"index":2,"codec_type":"video","width":720,"height":576,"duration":"2.0","nb_frames":"90",
            "sample_aspect_ratio":"16:15","r_frame_rate":"25/1","avg_frame_rate":"25/1","color_range":"pc",
            "field_order":"tt","side_data_list":[{"rotation":-90}]}]}"#,
        )
        .unwrap();
        assert_eq!((stream.index, stream.decoded, stream.shown), (2, (576, 720), (576, 768)));
        assert_eq!((stream.audio_codec.as_deref(), stream.matrix, stream.range), (Some("aac"), "bt601", Some("pc")));
        assert_eq!((stream.frames, stream.interlaced), (Some(50), true));
        for (degrees, turned) in [(90.0, true), (-90.0, true), (270.0, true), (180.0, false), (45.0, false)] {
            assert_eq!(is_quarter_turn(degrees), turned, "{degrees}");
        }
    }

    #[test]
    fn absurd_answers_are_refused_or_bounded() {
        let video = |more: &str| described(&format!(r#"{{"streams":[{{"index":0,"codec_type":"video",{more}}}]}}"#));
        let large = video(r#""width":20000,"height":20"#).unwrap_err();
        assert!(matches!(large, Error::TooLarge { width: 20000, height: 20, .. }), "{large}");
        assert!(large.to_string().contains("8192"), "{large}");
        let wide = video(r#""width":8000,"height":20,"sample_aspect_ratio":"2:1""#);
        assert!(matches!(wide, Err(Error::TooLarge { width: 16000, .. })));
        assert!(video(r#""width":0,"height":5"#).is_err());
        assert!(video(r#""width":18446744073709551615,"height":18446744073709551615"#).is_err());
        let sound = described(r#"{"streams":[{"index":0,"codec_type":"audio"}]}"#);
        assert!(matches!(sound, Err(Error::Ffmpeg(FfmpegError::NoVideo { .. }))));
        for aspect in ["0:1", "1:0", "0:0", "nan:1", "1:99999", "-1:1", "x"] {
            let text = format!(
                r#""width":5,"height":7,"avg_frame_rate":"0/0","r_frame_rate":"90000/1","duration":"-3",
                "nb_frames":"-1","sample_aspect_ratio":"{aspect}""#
            );
            let odd = video(&text).unwrap();
            assert_eq!((odd.shown, odd.frame_rate, odd.frames), ((5, 7), FrameRate::DEFAULT, None));
        }
        assert_eq!(video(r#""width":5,"height":7,"duration":"1e300""#).unwrap().duration, None);
    }

    #[test]
    fn a_varying_rate_gives_its_mean() {
        let rate = |base: &str, mean: &str| {
            let text = format!(
                r#"{{"streams":[{{"index":0,"codec_type":"video","width":5,"height":7,"r_frame_rate":"{base}","avg_frame_rate":"{mean}"}}]}}"#
            );
            described(&text).unwrap().frame_rate.to_string()
        };
        assert_eq!(rate("30000/1001", "2997/101"), "30000/1001");
        assert_eq!(rate("60/1", "2150/101"), "2150/101");
        assert_eq!(rate("90000/1", "25/1"), "25");
        assert_eq!(rate("25/1", "0/0"), "25");
    }

    #[test]
    fn what_is_not_tagged_is_taken_by_its_size() {
        assert_eq!((matrix(None, 576), matrix(None, 720), matrix(Some("bt709"), 1)), ("bt601", "bt709", "bt709"));
        assert_eq!(matrix(Some("unknown"), 1080), "bt709");
        assert_eq!(
            (range(None, "yuv420p"), range(None, "yuvj420p"), range(None, "gray")),
            (Some("tv"), Some("pc"), Some("pc"))
        );
        assert_eq!((range(Some("pc"), "gbrp"), range(Some("tv"), "gray")), (None, Some("tv")));
    }
}
