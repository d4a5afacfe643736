//! Videos in and out through `ffmpeg`: colours, time, rotation, sound, and inputs that are damaged or hostile.
#![allow(clippy::unwrap_used, reason = "what a test cannot make, it fails on")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mirage::media::{Error, FfmpegError, Frame, FrameRate, FrameReader, OpenOptions, OutputSpec, create, open};
use tempfile::TempDir;

/// A folder to work in; none, with the reason printed, where `ffmpeg` is not installed.
fn folder() -> Option<TempDir> {
    let runs = |name: &str| Command::new(name).arg("-version").output().is_ok_and(|output| output.status.success());
    if runs("ffmpeg") && runs("ffprobe") {
        return Some(tempfile::tempdir().unwrap());
    }
    common::skip("ffmpeg and ffprobe are not installed");
    None
}

/// Runs `ffmpeg` with arguments that hold no spaces, and the name of the output last.
fn ffmpeg(arguments: &str, output: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(arguments.split_whitespace()).arg(output);
    assert!(command.status().unwrap().success(), "{arguments}");
}

fn make(folder: &TempDir, name: &str, arguments: &str) -> PathBuf {
    let path = folder.path().join(name);
    ffmpeg(arguments, &path);
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// All frames up to the end or the first error.
fn frames(mut reader: Box<dyn FrameReader>) -> (Vec<Frame>, Option<Error>) {
    let mut frames = Vec::new();
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

fn read_at(path: &Path, frame_rate: Option<FrameRate>) -> Vec<Frame> {
    let (frames, error) = frames(open(text(path), &OpenOptions { frame_rate }).unwrap_or_else(|e| panic!("{e}")));
    assert!(error.is_none(), "{error:?}");
    frames
}

fn read(path: &Path) -> Vec<Frame> {
    read_at(path, None)
}

fn pixel(frame: &Frame, x: u32, y: u32) -> [u8; 3] {
    let at = (y * frame.width + x) as usize * 3;
    frame.rgb[at..at + 3].try_into().unwrap()
}

#[track_caller]
fn assert_near(found: [u8; 3], expected: [u8; 3], tolerance: u8, what: &str) {
    assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= tolerance), "{what}: {found:?}, not {expected:?}");
}

/// One answer of `ffprobe` about a stream, such as `v:0` and `nb_read_packets`.
fn asked(path: &Path, stream: &str, entry: &str) -> String {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-count_packets", "-select_streams", stream, "-of", "csv=p=0"]);
    let output = command.args(["-show_entries", &format!("stream={entry}")]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().trim_end_matches(',').to_owned()
}

fn rate(text: &str) -> FrameRate {
    text.parse().unwrap()
}

/// A disc that moves over two colours.
fn frame(width: u32, height: u32, number: u32) -> Frame {
    let colour = |i: u32| if i % width < (number * 3) % width { [200, 40, 30] } else { [20, 60, 160] };
    let rgb = (0..width * height).flat_map(colour).collect();
    Frame { width, height, rgb, timestamp: Duration::ZERO }
}

fn write(path: &Path, spec: &OutputSpec, count: u32) -> Result<(), Error> {
    let mut writer = create(text(path), spec)?;
    for number in 0..count {
        writer.write_frame(&frame(spec.width, spec.height, number))?;
    }
    writer.finish()
}

#[test]
fn colours_are_right_for_every_matrix_and_range() {
    let Some(folder) = folder() else { return };
    let colour = [40, 120, 200];
    let cases = [
        ("709 limited", "320x240", "bt709", "tv", "-colorspace bt709 -color_range tv"),
        ("709 full", "320x240", "bt709", "pc", "-colorspace bt709 -color_range pc"),
        ("601 limited", "1280x720", "bt601", "tv", "-colorspace smpte170m -color_range tv"),
        ("601 PAL", "1280x720", "bt601", "tv", "-colorspace bt470bg -color_range tv"),
        ("2020 limited", "320x240", "bt2020", "tv", "-colorspace bt2020nc -color_range tv"),
        ("untagged small", "320x240", "bt601", "tv", ""),
        ("untagged large", "1280x720", "bt709", "tv", ""),
    ];
    for (name, size, matrix, range, tags) in cases {
        let path = make(
            &folder,
            "colour.mp4",
            &format!(
                "-f lavfi -i color=c=0x2878c8:s={size}:r=5:d=0.4,format=rgb24 \
                 -vf scale=out_color_matrix={matrix}:out_range={range}:flags=accurate_rnd+full_chroma_int,format=yuv420p \
                 -c:v libx264 -qp 1 {tags}"
            ),
        );
        assert_near(pixel(&read(&path)[0], 5, 5), colour, 3, name);
    }
    for (name, format) in [("rgb", "bgr0"), ("yuv444p10", "yuv444p10le")] {
        let arguments =
            format!("-f lavfi -i color=c=0x2878c8:s=65x33:r=5:d=0.4,format=rgb24 -c:v ffv1 -pix_fmt {format}");
        assert_near(pixel(&read(&make(&folder, "colour.mkv", &arguments))[1], 64, 32), colour, 3, name);
    }
    let grey =
        make(&folder, "grey.mkv", "-f lavfi -i color=c=0xc8c8c8:s=64x32:r=5:d=0.4,format=rgb24,format=gray -c:v ffv1");
    assert_near(pixel(&read(&grey)[0], 3, 3), [200; 3], 2, "grey");
}

#[test]
fn sharp_chroma_stays_where_it_is_at_odd_sizes() {
    let Some(folder) = folder() else { return };
    for (name, arguments) in [("a.webm", "-c:v libvpx-vp9 -crf 4 -b:v 0"), ("a.mkv", "-c:v ffv1 -pix_fmt yuv420p")] {
        // Otherwise the conversion for the encoder reads past the edge of an odd row.
        let whole = "-vf scale=flags=bicubic+full_chroma_inp+accurate_rnd";
        let half = |colour, width| format!("color={colour}:s={width}x17:r=10:d=0.5,format=rgb24");
        let halves = format!("-f lavfi -i {}[a];{}[b];[a][b]hstack {whole}", half("red", 16), half("blue", 17));
        let path = make(&folder, name, &format!("{halves} {arguments}"));
        let found = read(&path);
        assert_eq!((found.len(), found[0].width, found[0].height, found[0].rgb.len()), (5, 33, 17, 33 * 17 * 3));
        assert_near(pixel(&found[4], 8, 16), [254, 0, 0], 12, name);
        assert_near(pixel(&found[4], 32, 16), [0, 0, 254], 12, name);
    }
}

#[test]
fn rotated_and_anamorphic_videos_stand_upright() {
    let Some(folder) = folder() else { return };
    let halves = "-f lavfi -i color=red:s=64x48:r=5:d=1,drawbox=x=32:w=32:c=blue:t=fill -c:v libx264 -qp 1";
    let path = make(&folder, "turned.mp4", halves);
    // A quarter turn clockwise in the matrix of the track's header.
    let mut bytes = fs::read(&path).unwrap();
    let header = bytes.windows(4).position(|four| four == b"tkhd").unwrap();
    let matrix: [u32; 9] = [0, 0x10000, 0, 0xffff_0000, 0, 0, 48 << 16, 0, 0x4000_0000];
    let matrix: Vec<u8> = matrix.iter().flat_map(|number| number.to_be_bytes()).collect();
    bytes[header + 44..header + 80].copy_from_slice(&matrix);
    fs::write(&path, bytes).unwrap();
    let first = &read(&path)[0];
    assert_eq!((first.width, first.height), (48, 64));
    assert_near(pixel(first, 24, 8), [254, 0, 0], 6, "above");
    assert_near(pixel(first, 24, 56), [0, 0, 254], 6, "below");

    let path = make(&folder, "wide.mkv", "-f lavfi -i testsrc=s=72x58:r=5:d=1,setsar=16/9 -c:v ffv1");
    let first = &read(&path)[0];
    assert_eq!((first.width, first.height), (128, 58));
}

#[test]
fn a_varying_rate_becomes_constant_at_the_same_speed() {
    let Some(folder) = folder() else { return };
    let source = "-f lavfi -i color=red:s=32x32:r=10:d=2,drawbox=c=blue:t=fill:enable='gte(t,1.45)'";
    let path = make(&folder, "vfr.mkv", &format!("{source},select='lt(n,5)+gt(n,14)' -c:v ffv1"));
    let found = read_at(&path, Some(rate("10")));
    assert_eq!(found.len(), 20);
    for (n, frame) in found.iter().enumerate() {
        assert_eq!(frame.timestamp, rate("10").timestamp(n as u64));
        let expected = if n < 15 { [254, 0, 0] } else { [0, 0, 254] };
        assert_near(pixel(frame, 9, 9), expected, 6, &format!("frame {n}"));
    }
    // At its own rate it lasts as long.
    let reader = open(text(&path), &OpenOptions::default()).unwrap();
    let nominal = reader.info().frame_rate.as_f64();
    let seconds = frames(reader).0.len() as f64 / nominal;
    assert!((seconds - 2.0).abs() < 0.25, "{seconds} s at {nominal}");
}

#[test]
fn rates_are_exact_and_can_be_asked_for() {
    let Some(folder) = folder() else { return };
    let path = make(&folder, "ntsc.mp4", "-f lavfi -i testsrc=s=64x48:r=30000/1001 -frames:v 30 -c:v libx264");
    let reader = open(text(&path), &OpenOptions::default()).unwrap();
    let info = reader.info().clone();
    assert_eq!((info.frame_rate, info.frames, info.has_audio), (rate("30000/1001"), Some(30), false));
    assert_eq!(reader.dropped(), None);
    assert_eq!(frames(reader).0.len(), 30);
    for (asked, count) in [("10", 10), ("60", 60)] {
        let found = read_at(&path, Some(rate(asked))).len();
        assert!(found.abs_diff(count) <= 1, "{found} frames at {asked}");
    }
}

#[test]
fn what_is_written_reads_back() {
    let Some(folder) = folder() else { return };
    for extension in ["mp4", "mov", "mkv", "webm"] {
        for (width, height) in [(64, 48), (33, 17), (1, 1)] {
            let path = folder.path().join(format!("{width}x{height}.{extension}"));
            write(&path, &OutputSpec::new(width, height, rate("25")), 6).unwrap_or_else(|e| panic!("{e}"));
            let found = read(&path);
            let even = |side: u32| if extension == "webm" { side } else { side.next_multiple_of(2) };
            assert_eq!((found.len(), found[0].width, found[0].height), (6, even(width), even(height)), "{path:?}");
            let last = &found[5];
            if width > 8 {
                let original = frame(width, height, 5);
                for (x, y) in [(4, 4), (width - 1, height - 1)] {
                    assert_near(pixel(last, x, y), pixel(&original, x, y), 12, &format!("{path:?}"));
                }
                assert_near(pixel(last, last.width - 1, last.height - 1), [20, 60, 160], 12, "the padded edge");
            }
        }
    }
    let mp4 = folder.path().join("64x48.mp4");
    assert_eq!(asked(&mp4, "v:0", "color_range,color_space,color_transfer,color_primaries"), "tv,bt709,bt709,bt709");
    let bytes = fs::read(&mp4).unwrap();
    let at = |name: &[u8]| bytes.windows(4).position(|four| four == name).unwrap();
    assert!(at(b"moov") < at(b"mdat"), "the index comes last");
    // Nothing lies about but the outputs.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 12);
}

#[test]
fn an_older_file_stays_until_the_new_one_is_complete() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("out.mp4");
    fs::write(&path, "older").unwrap();
    let mut spec = OutputSpec::new(32, 32, rate("25"));
    assert!(matches!(write(&path, &spec, 3), Err(Error::OutputExists { .. })));
    spec.force = true;
    let mut writer = create(text(&path), &spec).unwrap();
    for number in 0..3 {
        writer.write_frame(&frame(32, 32, number)).unwrap();
    }
    drop(writer);
    assert_eq!(fs::read(&path).unwrap(), b"older");
    assert!(matches!(write(&path, &spec, 0), Err(Error::NothingWritten { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"older");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    write(&path, &spec, 3).unwrap();
    assert_eq!(read(&path).len(), 3);
}

#[test]
fn sound_is_copied_and_never_costs_a_frame() {
    let Some(folder) = folder() else { return };
    let pictures = "-f lavfi -i testsrc=s=64x48:r=25:d=1.2";
    let long = make(&folder, "long.mp4", &format!("{pictures} -f lavfi -i sine=d=3 -c:v libx264 -c:a aac"));
    let short = make(&folder, "short.mp4", &format!("{pictures} -f lavfi -i sine=d=0.4 -c:v libx264 -c:a aac"));
    assert!(open(text(&long), &OpenOptions::default()).unwrap().info().has_audio);
    for (source, name, codec, seconds) in [
        (&long, "a.mp4", "aac", 0.8),
        (&long, "a.mov", "aac", 0.8),
        (&long, "a.mkv", "aac", 0.8),
        (&long, "a.webm", "opus", 0.8),
        (&short, "b.mp4", "aac", 0.4),
    ] {
        let path = folder.path().join(name);
        let spec = OutputSpec { audio_from: Some(text(source).to_owned()), ..OutputSpec::new(64, 48, rate("25")) };
        write(&path, &spec, 20).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(asked(&path, "v:0", "nb_read_packets"), "20", "{name}");
        let sound = asked(&path, "a:0", "codec_name,nb_read_packets");
        let (found, packets) = sound.split_once(',').unwrap_or_else(|| panic!("{name} has no sound: {sound}"));
        assert_eq!(found, codec, "{name}");
        let packet = if codec == "opus" { 0.02 } else { 1024.0 / 44100.0 };
        let found = packets.parse::<f64>().unwrap() * packet;
        assert!((found - seconds).abs() < 0.1, "{name}: {found} s of sound");
    }
    // What has no sound gives none.
    let silent = folder.path().join("silent.mp4");
    let mute = make(&folder, "mute.mp4", &format!("{pictures} -c:v libx264"));
    write(&silent, &OutputSpec { audio_from: Some(text(&mute).to_owned()), ..OutputSpec::new(8, 8, rate("25")) }, 2)
        .unwrap();
    assert_eq!(asked(&silent, "a", "codec_name"), "");
}

#[test]
fn sound_that_vanishes_leaves_the_pictures() {
    let Some(folder) = folder() else { return };
    let source = make(&folder, "a.mp4", "-f lavfi -i testsrc=s=64x48:d=1 -f lavfi -i sine=d=1 -c:v libx264 -c:a aac");
    let path = folder.path().join("out.mp4");
    let spec = OutputSpec { audio_from: Some(text(&source).to_owned()), ..OutputSpec::new(64, 48, rate("25")) };
    let mut writer = create(text(&path), &spec).unwrap();
    assert_eq!(writer.note(), None);
    writer.write_frame(&frame(64, 48, 0)).unwrap();
    fs::remove_file(&source).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(matches!(error, Error::Ffmpeg(FfmpegError::SoundLost { .. })), "{error}");
    assert_eq!(read(&path).len(), 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn damaged_videos_give_their_frames_and_then_an_error() {
    let Some(folder) = folder() else { return };
    let source = "-f lavfi -i testsrc=s=160x120:r=25:d=2 -c:v libx264 -g 10";
    let whole = fs::read(make(&folder, "whole.mp4", &format!("{source} -movflags +faststart"))).unwrap();
    let path = folder.path().join("damaged.mp4");

    fs::write(&path, &whole[..whole.len() * 6 / 10]).unwrap();
    let (found, error) = frames(open(text(&path), &OpenOptions::default()).unwrap());
    let error = error.unwrap();
    assert!(matches!(error, Error::Ffmpeg(FfmpegError::Damaged { frames: 10..=40, .. })), "{error}");
    let said = error.to_string();
    assert!(said.contains("damaged.mp4") && said.contains(&format!("{} whole frames", found.len())), "{said}");
    assert!(!said.contains(" @ 0x"), "{said}");

    let mut corrupt = whole.clone();
    let begin = whole.windows(4).position(|four| four == b"mdat").unwrap() + 2000;
    corrupt.iter_mut().skip(begin).step_by(97).for_each(|byte| *byte ^= 0x5a);
    fs::write(&path, corrupt).unwrap();
    let (_, error) = frames(open(text(&path), &OpenOptions::default()).unwrap());
    assert!(matches!(error, Some(Error::Ffmpeg(FfmpegError::Damaged { .. }))), "{error:?}");

    // Without its index there is nothing to read; the same for what is no video.
    let unfinished = fs::read(make(&folder, "unfinished.mp4", source)).unwrap();
    for content in [&unfinished[..unfinished.len() / 2], b"no video at all, but rather some text".as_slice()] {
        fs::write(&path, content).unwrap();
        let error = open(text(&path), &OpenOptions::default()).err().unwrap();
        assert!(matches!(error, Error::Ffmpeg(FfmpegError::Unreadable { .. })), "{error}");
        assert!(error.to_string().contains("damaged.mp4"), "{error}");
    }
    let missing = open(text(&folder.path().join("missing.mp4")), &OpenOptions::default()).err().unwrap();
    assert!(matches!(missing, Error::Missing { .. }), "{missing}");
}

#[test]
fn a_truncated_matroska_is_noticed() {
    let Some(folder) = folder() else { return };
    let path = make(&folder, "a.mkv", "-f lavfi -i testsrc=s=160x120:r=25:d=2 -c:v libx264 -g 10");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let (found, error) = frames(open(text(&path), &OpenOptions::default()).unwrap());
    assert!(matches!(error, Some(Error::Ffmpeg(FfmpegError::Damaged { .. }))), "{error:?}");
    assert!(!found.is_empty() && found.len() < 45, "{}", found.len());
}

#[test]
fn sizes_that_change_or_are_too_large_are_refused() {
    let Some(folder) = folder() else { return };
    let mut both = vec![];
    for (name, size) in [("a.ts", "160x120"), ("b.ts", "80x120")] {
        let arguments = format!("-f lavfi -i testsrc=s={size}:r=25:d=1 -c:v mpeg2video -f mpegts");
        both.extend(fs::read(make(&folder, name, &arguments)).unwrap());
    }
    let path = folder.path().join("both.ts");
    fs::write(&path, both).unwrap();
    let (found, error) = frames(open(text(&path), &OpenOptions::default()).unwrap());
    assert!(matches!(error, Some(Error::Ffmpeg(FfmpegError::SizeChanged { size: (160, 120), .. }))), "{error:?}");
    assert!(found.len() > 15 && found.iter().all(|frame| frame.width == 160));

    let huge = make(&folder, "huge.mkv", "-f lavfi -i color=s=20000x16:r=1:d=1 -c:v ffv1");
    let error = open(text(&huge), &OpenOptions::default()).err().unwrap();
    assert!(matches!(error, Error::TooLarge { width: 20000, .. }), "{error}");
    let sound = make(&folder, "sound.mkv", "-f lavfi -i sine=d=0.2");
    let error = open(text(&sound), &OpenOptions::default()).err().unwrap();
    assert!(matches!(error, Error::Ffmpeg(FfmpegError::NoVideo { .. })), "{error}");
}

#[test]
fn hostile_names_are_only_names() {
    let Some(folder) = folder() else { return };
    let clip = fs::read(make(&folder, "clip.mp4", "-f lavfi -i testsrc=s=32x32:r=5:d=1 -c:v libx264")).unwrap();
    for name in ["-y.mp4", "concat:a|b.mp4", "%03d.mp4", "a b'\"$(id).mp4", "http:.mp4", "ünï.mp4", "x;y,z[0]=1.mp4"]
    {
        let path = folder.path().join(name);
        fs::write(&path, &clip).unwrap();
        assert_eq!(read(&path).len(), 5, "{name}");
        let spec = OutputSpec { force: true, audio_from: Some(text(&path).into()), ..OutputSpec::new(8, 8, rate("5")) };
        let output = folder.path().join(format!("out{name}"));
        write(&output, &spec, 2).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(read(&output).len(), 2, "{name}");
    }
    let error = open("concat://a|b", &OpenOptions::default()).err().unwrap();
    assert!(matches!(error, Error::Ffmpeg(FfmpegError::UnknownProtocol { .. })), "{error}");
}

#[test]
fn a_playlist_in_a_file_fetches_nothing() {
    let Some(folder) = folder() else { return };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let address = format!("http://{}/a.ts", server.local_addr().unwrap());
    let hls = format!("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{address}\n#EXT-X-ENDLIST\n");
    let concat = format!("ffconcat version 1.0\nfile '{address}'\n");
    for content in [hls, concat] {
        let path = folder.path().join("video.mp4");
        fs::write(&path, content).unwrap();
        assert!(open(text(&path), &OpenOptions::default()).is_err());
        let knocked = server.accept();
        assert!(knocked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "it was fetched");
    }
}

/// Answers every request with what `answer` writes; the address.
fn serve(answer: impl Fn(&mut TcpStream) + Clone + Send + 'static) -> String {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/stream", server.local_addr().unwrap());
    thread::spawn(move || {
        for connection in server.incoming() {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut connection = connection.unwrap();
                let mut request = [0; 4096];
                let _ = connection.read(&mut request);
                answer(&mut connection);
            });
        }
    });
    address
}

#[test]
fn of_a_live_stream_the_newest_frame_wins() {
    let Some(_folder) = folder() else { return };
    let address = serve(|connection| {
        let _ = connection.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n");
        let arguments = "-nostdin -v quiet -re -f lavfi -i testsrc=s=64x48:r=50:d=60 -c:v mpeg2video -g 5 -f mpegts";
        let mut command = Command::new("ffmpeg");
        command.args(arguments.split_whitespace()).args(["-flush_packets", "1", "pipe:1"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The reader hangs up when it has enough.
        let _ = std::io::copy(&mut child.stdout.take().unwrap(), connection);
        let _ = child.kill();
        let _ = child.wait();
    });
    let mut reader = open(&address, &OpenOptions::default()).unwrap();
    assert_eq!((reader.info().frames, reader.info().has_audio), (None, false));
    let first = reader.next_frame().unwrap().unwrap();
    thread::sleep(Duration::from_millis(600));
    let second = reader.next_frame().unwrap().unwrap();
    assert!(second.timestamp - first.timestamp > Duration::from_millis(300), "an old frame was kept");
    assert!(reader.dropped().unwrap() > 5, "{:?}", reader.dropped());
    let begin = Instant::now();
    drop(reader);
    assert!(begin.elapsed() < Duration::from_secs(5), "the stream was not let go");
}

#[test]
fn of_a_file_behind_an_address_every_frame_is_read() {
    let Some(folder) = folder() else { return };
    // The duration in its header makes it a file: nothing is dropped, however long each frame takes.
    let sources = "-f lavfi -i testsrc=s=64x48:r=25:d=1 -f lavfi -i sine=d=1";
    let clip = fs::read(make(&folder, "clip.mkv", &format!("{sources} -c:v ffv1 -c:a flac"))).unwrap();
    let address = serve(move |connection| {
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", clip.len());
        // The reader hangs up when it has enough.
        let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&clip));
    });
    let mut reader = open(&address, &OpenOptions::default()).unwrap();
    assert!(reader.info().has_audio);
    assert_eq!((reader.info().frames, reader.dropped()), (Some(25), None));
    for n in 0..25 {
        assert_eq!(reader.next_frame().unwrap().unwrap().timestamp, rate("25").timestamp(n));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((reader.next_frame().unwrap(), reader.dropped()), (None, None));
}
