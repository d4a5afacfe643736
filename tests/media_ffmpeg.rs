//! Videos through ffmpeg, made and measured with ffmpeg itself; skipped aloud where it is not installed.
#![allow(clippy::unwrap_used, reason = "what a test cannot make, it fails on")]
use mirage::media::{Error, Frame, FrameRate, OpenOptions, OutputSpec, create, open};
use std::path::Path;
use std::process::Command;

fn ffmpeg(arguments: &[&str]) -> bool {
    let run = Command::new("ffmpeg").args(["-v", "error", "-y"]).args(arguments).status();
    match run {
        Ok(status) => status.success(),
        Err(_) => {
            eprintln!("skipped: ffmpeg is not installed");
            false
        }
    }
}

fn read(path: &Path) -> (Vec<Frame>, Option<Error>) {
    let mut frames = vec![];
    let mut reader = match open(path.to_str().unwrap(), &OpenOptions::default()) {
        Ok(reader) => reader,
        Err(error) => return (frames, Some(error)),
    };
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

fn mean(frame: &Frame) -> [f64; 3] {
    let pixels = f64::from(frame.width * frame.height);
    std::array::from_fn(|c| frame.rgb.iter().skip(c).step_by(3).map(|v| f64::from(*v)).sum::<f64>() / pixels)
}

#[test]
fn colours_survive_every_matrix_and_range() {
    let dir = tempfile::tempdir().unwrap();
    for (size, matrix, range) in
        [("64x48", "bt601", "tv"), ("64x48", "bt709", "tv"), ("64x48", "bt601", "pc"), ("65x49", "bt709", "tv")]
    {
        let path = dir.path().join("c.mkv");
        let source = format!("color=c=0xC83C28:s={size}:r=10:d=1");
        let filter = format!("scale=out_color_matrix={matrix}:out_range={range},format=yuv444p");
        let space = if matrix == "bt601" { "smpte170m" } else { "bt709" };
        let tags = ["-colorspace", space, "-color_range", range];
        let arguments =
            [&["-f", "lavfi", "-i", &source, "-vf", &filter][..], &tags, &["-c:v", "ffv1", path.to_str().unwrap()]];
        if !ffmpeg(&arguments.concat()) {
            return;
        }
        let (frames, error) = read(&path);
        assert!(error.is_none() && frames.len() == 10, "{} frames, {error:?}", frames.len());
        for (got, want) in mean(&frames[5]).into_iter().zip([200.0, 60.0, 40.0]) {
            assert!((got - want).abs() < 2.5, "{size} {matrix} {range}: {:?}", mean(&frames[5]));
        }
    }
}

#[test]
fn a_turned_video_stands_upright_and_uneven_rates_become_even() {
    let dir = tempfile::tempdir().unwrap();
    let (flat, turned) = (dir.path().join("flat.mp4"), dir.path().join("turned.mp4"));
    // frames 3, 4 and 5 of each 10 are missing: a variable rate
    let filter = "select='not(between(mod(n,10),3,5))'";
    let made = ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=64x32:r=20:d=2",
        "-vf",
        filter,
        "-fps_mode",
        "vfr",
        flat.to_str().unwrap(),
    ]) && ffmpeg(&[
        "-display_rotation",
        "90",
        "-i",
        flat.to_str().unwrap(),
        "-c",
        "copy",
        turned.to_str().unwrap(),
    ]);
    if !made {
        return;
    }
    let (frames, error) = read(&turned);
    assert!(error.is_none(), "{error:?}");
    assert_eq!((frames[0].width, frames[0].height), (32, 64));
    let gaps: Vec<_> = frames.windows(2).map(|w| (w[1].timestamp - w[0].timestamp).as_micros()).collect();
    assert!(gaps.iter().all(|g| g.abs_diff(gaps[0]) <= 1), "{gaps:?}");
    let length = frames.last().unwrap().timestamp.as_secs_f64();
    assert!((1.7..=2.2).contains(&length), "{length}");
}

#[test]
fn what_is_written_plays_with_the_sound_of_the_input() {
    let dir = tempfile::tempdir().unwrap();
    let sound = dir.path().join("sound.mp4");
    let input = ["-f", "lavfi", "-i", "testsrc=s=32x32:r=10:d=1", "-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac"];
    if !ffmpeg(&[&input[..], &["-shortest", sound.to_str().unwrap()]].concat()) {
        return;
    }
    for name in ["out.mp4", "out.mkv", "out.mov", "out.webm"] {
        let path = dir.path().join(name);
        let spec = OutputSpec {
            audio_from: Some(sound.display().to_string()),
            ..OutputSpec::new(33, 25, FrameRate { numerator: 10, denominator: 1 })
        };
        let mut writer = create(path.to_str().unwrap(), &spec).unwrap();
        for i in 0..10u8 {
            let rgb = (0..33 * 25).flat_map(|_| [200, 20 * i, 40]).collect();
            writer.write_frame(&Frame { width: 33, height: 25, rgb, timestamp: Default::default() }).unwrap();
        }
        assert!(!path.exists(), "{name} appears when it is complete");
        writer.finish().unwrap();
        let reader = open(path.to_str().unwrap(), &OpenOptions::default()).unwrap();
        assert!(reader.info().has_audio, "{name}");
        let (frames, error) = read(&path);
        assert!(error.is_none() && frames.len().abs_diff(10) <= 1, "{name}: {} frames, {error:?}", frames.len());
        for (got, want) in mean(&frames[5]).into_iter().zip([200.0, 100.0, 40.0]) {
            // the row and column that make the sides even are black
            assert!((got - want).abs() < 16.0, "{name}: {:?}", mean(&frames[5]));
        }
    }
}

#[test]
fn a_cut_off_or_hostile_file_ends_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole.mp4"), dir.path().join("cut.mp4"));
    let input = ["-f", "lavfi", "-i", "testsrc=s=128x96:r=20:d=4", "-movflags", "+faststart"];
    if !ffmpeg(&[&input[..], &[whole.to_str().unwrap()]].concat()) {
        return;
    }
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() * 6 / 10]).unwrap();
    let (frames, error) = read(&cut);
    let said = error.map(|e| e.to_string()).unwrap_or_default();
    assert!(
        !frames.is_empty() && said.contains("cut.mp4") && said.contains("whole frame"),
        "{} frames: {said}",
        frames.len()
    );

    let playlist = dir.path().join("hostile.mp4");
    std::fs::write(&playlist, "#EXTM3U\n#EXTINF:1,\nhttp://localhost:1/x.ts\n").unwrap();
    let (frames, error) = read(&playlist);
    assert!(frames.is_empty() && error.is_some());
}
