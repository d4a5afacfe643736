//! Frames in and out through the public interface: formats, timing, odd sizes, and files that are cut off or hostile.
#![allow(clippy::unwrap_used, reason = "what a test cannot make, it fails on")]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::{DynamicImage, ImageFormat, RgbImage, RgbaImage};
use mirage::media::{Error, Frame, FrameRate, FrameReader, OpenOptions, OutputSpec, create, open};

fn rate(numerator: u32, denominator: u32) -> FrameRate {
    FrameRate { numerator, denominator }
}

/// Writes a file anew; some file systems wait for the disk when one is overwritten in place.
fn put(path: &Path, content: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, content).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn read(path: &Path) -> Box<dyn FrameReader> {
    open(text(path), &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"))
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

fn read_all(path: &Path) -> Vec<Frame> {
    let (frames, error) = frames(read(path));
    assert!(error.is_none(), "{error:?}");
    frames
}

/// The error that opening or reading ends with, and how many frames came before it.
fn failure(input: &str) -> (usize, Error) {
    match open(input, &OpenOptions::default()) {
        Err(error) => (0, error),
        Ok(reader) => {
            let (frames, error) = frames(reader);
            (frames.len(), error.unwrap_or_else(|| panic!("{input} was read without an error")))
        }
    }
}

/// Smooth colours that move with `number`.
fn frame(width: u32, height: u32, number: u32) -> Frame {
    let rgb = (0..width * height)
        .flat_map(|at| {
            let (x, y) = (at % width, at / width);
            let wave = |scale: f32, shift: f32| {
                let angle = (x as f32 * scale + y as f32 * 0.05 + shift + number as f32 * 0.2).sin();
                (127.5 + 100.0 * angle) as u8
            };
            [wave(0.04, 0.0), wave(0.06, 2.0), wave(0.03, 4.0)]
        })
        .collect();
    Frame { width, height, rgb, timestamp: Duration::ZERO }
}

fn write(output: &str, spec: &OutputSpec, count: u32) {
    let mut writer = create(output, spec).unwrap();
    for number in 0..count {
        writer.write_frame(&frame(spec.width, spec.height, number)).unwrap();
    }
    writer.finish().unwrap();
}

fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 / (squares / a.len() as f64).max(1e-9)).log10()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A GIF of 4x2 pixels, each frame one colour, with these delays in hundredths of a second.
fn gif(delays: &[u16]) -> Vec<u8> {
    let mut encoder = gif::Encoder::new(Vec::new(), 4, 2, &[]).unwrap();
    for (number, &delay) in delays.iter().enumerate() {
        let mut frame = gif::Frame::from_rgb(4, 2, &[number as u8 * 10, 99, 200].repeat(8));
        frame.delay = delay;
        encoder.write_frame(&frame).unwrap();
    }
    encoder.into_inner().unwrap()
}

/// An animated WebP of 2x2 pixels; each frame one RGBA colour, shown for so many milliseconds.
fn webp(colours: &[([u8; 4], u32)]) -> Vec<u8> {
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let mut chunk = [&kind[..], &(data.len() as u32).to_le_bytes()[..], data].concat();
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    };
    // Flags: animation and alpha; then the sides less one.
    let mut body = chunk(b"VP8X", &[0x12, 0, 0, 0, 1, 0, 0, 1, 0, 0]);
    body.extend(chunk(b"ANIM", &[255, 255, 255, 255, 0, 0]));
    for (colour, milliseconds) in colours {
        let picture = RgbaImage::from_pixel(2, 2, image::Rgba(*colour));
        let still = encoded(&picture.into(), ImageFormat::WebP);
        let mut data = vec![0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0];
        data.extend(&milliseconds.to_le_bytes()[..3]);
        data.push(0x02);
        data.extend(&still[12..]);
        body.extend(chunk(b"ANMF", &data));
    }
    let mut file = [b"RIFF", &(body.len() as u32 + 4).to_le_bytes()[..], b"WEBP"].concat();
    file.extend(body);
    file
}

fn y4m(header: &str, frame: &[u8], count: usize) -> Vec<u8> {
    let mut bytes = format!("YUV4MPEG2 {header}\n").into_bytes();
    for _ in 0..count {
        bytes.extend(b"FRAME\n");
        bytes.extend(frame);
    }
    bytes
}

#[test]
fn lossless_outputs_come_back_as_they_were() {
    let (_guard, folder) = folder();
    for (width, height) in [(1, 1), (3, 2), (33, 17)] {
        for name in ["many.png", "many.apng", "frames/"] {
            let output = format!("{}/{width}-{name}", folder.display());
            write(&output, &OutputSpec::new(width, height, rate(30000, 1001)), 3);
            let reader = read(Path::new(&output));
            assert_eq!((reader.info().width, reader.info().height, reader.info().frames), (width, height, Some(3)));
            let (back, error) = frames(reader);
            assert!(error.is_none(), "{error:?}");
            assert_eq!(back.len(), 3);
            for (number, frame_back) in back.iter().enumerate() {
                assert_eq!(frame_back.rgb, frame(width, height, number as u32).rgb, "{output} {number}");
            }
        }
    }
    // An APNG keeps the rate exactly enough.
    let reader = read(&folder.join("33-many.png"));
    assert!((reader.info().frame_rate.as_f64() - 29.97).abs() < 0.001, "{}", reader.info().frame_rate);
}

#[test]
fn one_frame_makes_a_still() {
    let (_guard, folder) = folder();
    let path = folder.join("one.png");
    write(text(&path), &OutputSpec::new(5, 4, FrameRate::DEFAULT), 1);
    assert!(!fs::read(&path).unwrap().windows(4).any(|window| window == b"acTL"));
    let options = OpenOptions { frame_rate: Some(rate(10, 1)) };
    let reader = open(text(&path), &options).unwrap();
    assert_eq!((reader.info().frame_rate, reader.info().frames), (rate(10, 1), Some(1)));
    assert_eq!(frames(reader).0, [frame(5, 4, 0)]);
}

#[test]
fn y4m_comes_back_nearly_as_it_was() {
    let (_guard, folder) = folder();
    // 720 rows and more take the other matrix.
    for (width, height) in [(1, 1), (7, 5), (64, 64), (16, 720)] {
        let path = folder.join(format!("{width}x{height}.y4m"));
        write(text(&path), &OutputSpec::new(width, height, rate(24000, 1001)), 3);
        let reader = read(&path);
        assert_eq!(reader.info().frame_rate, rate(24000, 1001));
        assert_eq!(reader.info().frames, Some(3));
        let (back, error) = frames(reader);
        assert!(error.is_none(), "{error:?}");
        for (number, frame_back) in back.iter().enumerate() {
            assert_eq!(frame_back.timestamp, rate(24000, 1001).timestamp(number as u64));
            let likeness = psnr(&frame_back.rgb, &frame(width, height, number as u32).rgb);
            assert!(likeness > 38.0, "{width}x{height} {number}: {likeness} dB");
        }
    }
}

#[test]
fn a_gif_looks_right_and_lasts_as_long_as_it_should() {
    let (_guard, folder) = folder();
    let path = folder.join("out.gif");
    // 24 frames a second are 4.17 ticks a frame: some last 4, some 5, and 48 last two seconds.
    write(text(&path), &OutputSpec::new(96, 64, FrameRate::DEFAULT), 48);
    let reader = read(&path);
    assert_eq!(reader.info().frame_rate, rate(24, 1));
    let (back, error) = frames(reader);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(back.len(), 48);
    for (number, frame_back) in back.iter().enumerate() {
        let exact = FrameRate::DEFAULT.timestamp(number as u64);
        assert!(exact.abs_diff(frame_back.timestamp) <= Duration::from_millis(5), "{number}");
        let likeness = psnr(&frame_back.rgb, &frame(96, 64, number as u32).rgb);
        assert!(likeness > 32.0, "frame {number}: {likeness} dB");
    }
}

#[test]
fn a_gif_keeps_what_stands_still() {
    let (_guard, folder) = folder();
    let path = folder.join("out.gif");
    let mut writer = create(text(&path), &OutputSpec::new(40, 40, FrameRate::DEFAULT)).unwrap();
    let mut moving = frame(40, 40, 0);
    let mut written = vec![];
    for number in 0..4u8 {
        let at = usize::from(number) * 300;
        moving.rgb[at..at + 90].fill(number * 50);
        writer.write_frame(&moving).unwrap();
        written.push(moving.clone());
    }
    writer.write_frame(&moving).unwrap();
    writer.finish().unwrap();
    let back = read_all(&path);
    assert_eq!(back.len(), 5);
    assert_eq!(back[3].rgb, back[4].rgb);
    // The lower half never changed, and a colour counted exactly comes back exactly.
    let half = 40 * 20 * 3;
    assert!(back.iter().all(|frame| frame.rgb[half..] == back[0].rgb[half..]));
    for number in 1..4 {
        let at = number * 300;
        assert_eq!(back[number].rgb[at..at + 90], written[number].rgb[at..at + 90]);
    }
}

#[test]
fn a_fast_gif_drops_frames_and_keeps_its_speed() {
    let (_guard, folder) = folder();
    let path = folder.join("out.gif");
    write(text(&path), &OutputSpec::new(8, 8, rate(60, 1)), 120);
    let reader = read(&path);
    let (count, nominal) = (reader.info().frames.unwrap(), reader.info().frame_rate.as_f64());
    assert!((50..=100).contains(&count), "{count}");
    assert!((count as f64 / nominal - 2.0).abs() < 0.011, "{count} frames at {nominal}");
}

#[test]
fn stated_delays_become_timestamps() {
    let (_guard, folder) = folder();
    let path = folder.join("in.gif");
    // A delay of 0 or 1 is shown as browsers show it, for 100 ms.
    fs::write(&path, gif(&[4, 50, 0, 1, 6])).unwrap();
    let milliseconds = |frames: &[Frame]| frames.iter().map(|f| f.timestamp.as_millis()).collect::<Vec<_>>();
    let reader = read(&path);
    assert_eq!(reader.info().frame_rate, rate(25, 4));
    assert_eq!(milliseconds(&frames(reader).0), [0, 40, 540, 640, 740]);

    let options = OpenOptions { frame_rate: Some(rate(10, 1)) };
    let (resampled, _) = frames(open(text(&path), &options).unwrap());
    let reds: Vec<u8> = resampled.iter().map(|frame| frame.rgb[0] / 10).collect();
    assert_eq!(reds, [0, 1, 1, 1, 1, 1, 2, 3]);
    assert_eq!(milliseconds(&resampled), [0, 100, 200, 300, 400, 500, 600, 700]);

    let path = folder.join("in.webp");
    fs::write(&path, webp(&[([255, 0, 0, 255], 40), ([0, 255, 0, 255], 60), ([0, 0, 255, 255], 100)])).unwrap();
    let reader = read(&path);
    assert_eq!((reader.info().frame_rate, reader.info().frames), (rate(15, 1), Some(3)));
    let (back, error) = frames(reader);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(milliseconds(&back), [0, 40, 100]);
    assert_eq!(back[2].rgb, [0, 0, 255].repeat(4));
}

#[test]
fn transparent_pixels_are_laid_over_black() {
    let (_guard, folder) = folder();
    let picture = RgbaImage::from_pixel(3, 1, image::Rgba([200, 100, 50, 128]));
    for (name, format) in [("a.png", ImageFormat::Png), ("a.webp", ImageFormat::WebP)] {
        let path = folder.join(name);
        fs::write(&path, encoded(&picture.clone().into(), format)).unwrap();
        assert_eq!(read_all(&path)[0].rgb, [100, 50, 25].repeat(3), "{name}");
    }
    let path = folder.join("b.webp");
    fs::write(&path, webp(&[([200, 100, 50, 0], 40)])).unwrap();
    assert_eq!(read_all(&path)[0].rgb, [0; 12]);
}

#[test]
fn animations_are_composed() {
    let (_guard, folder) = folder();
    // One pixel of red on blue, kept; then one of green, after which the canvas is as before it.
    let path = folder.join("in.gif");
    let palette = [0, 0, 255, 255, 0, 0, 0, 255, 0];
    let mut encoder = gif::Encoder::new(Vec::new(), 3, 1, &palette).unwrap();
    for (left, width, colour, dispose) in [
        (0, 3, 0, gif::DisposalMethod::Keep),
        (0, 1, 1, gif::DisposalMethod::Keep),
        (1, 1, 2, gif::DisposalMethod::Previous),
        (2, 1, 2, gif::DisposalMethod::Keep),
    ] {
        let buffer = vec![colour; usize::from(width)].into();
        let frame = gif::Frame { left, width, height: 1, dispose, delay: 5, buffer, ..gif::Frame::default() };
        encoder.write_frame(&frame).unwrap();
    }
    fs::write(&path, encoder.into_inner().unwrap()).unwrap();
    let shown: Vec<String> = read_all(&path)
        .iter()
        .map(|frame| {
            frame
                .rgb
                .chunks(3)
                .map(|p| {
                    if p[0] > 0 {
                        'r'
                    } else if p[1] > 0 {
                        'g'
                    } else {
                        'b'
                    }
                })
                .collect()
        })
        .collect();
    assert_eq!(shown, ["bbb", "rbb", "rgb", "rbg"]);

    let path = folder.join("in.png");
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_animated(2, 0).unwrap();
    encoder.set_frame_delay(1, 4).unwrap();
    encoder.set_blend_op(png::BlendOp::Over).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[255, 0, 0, 255, 255, 0, 0, 255]).unwrap();
    writer.set_frame_dimension(1, 1).unwrap();
    writer.set_frame_position(1, 0).unwrap();
    writer.write_image_data(&[0, 255, 0, 128]).unwrap();
    writer.finish().unwrap();
    fs::write(&path, bytes).unwrap();
    let back = read_all(&path);
    assert_eq!(back[1].timestamp, Duration::from_millis(250));
    assert_eq!(back[1].rgb[..3], [255, 0, 0]);
    assert!(back[1].rgb[3].abs_diff(127) <= 1 && back[1].rgb[4].abs_diff(128) <= 1, "{:?}", back[1].rgb);
}

#[test]
fn stills_of_other_depths_and_turned_ones() {
    let (_guard, folder) = folder();
    let path = folder.join("deep.png");
    let deep = image::ImageBuffer::<image::Rgb<u16>, _>::from_pixel(2, 1, image::Rgb([65535u16, 257 * 100, 0]));
    fs::write(&path, encoded(&deep.into(), ImageFormat::Png)).unwrap();
    assert_eq!(read_all(&path)[0].rgb, [255, 100, 0, 255, 100, 0]);
    let path = folder.join("grey.png");
    fs::write(&path, encoded(&image::GrayImage::from_pixel(1, 2, image::Luma([77])).into(), ImageFormat::Png)).unwrap();
    assert_eq!(read_all(&path)[0].rgb, [77; 6]);

    // Orientation 6: the camera was held upright, so rows become columns.
    let picture = RgbImage::from_fn(32, 16, |x, _| image::Rgb(if x < 16 { [250, 5, 5] } else { [5, 5, 250] }));
    let mut jpeg = encoded(&picture.into(), ImageFormat::Jpeg);
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut segment = vec![0xFF, 0xE1];
    segment.extend((exif.len() as u16 + 2).to_be_bytes());
    segment.extend(exif);
    jpeg.splice(2..2, segment);
    let path = folder.join("turned.jpg");
    fs::write(&path, jpeg).unwrap();
    let turned = &read_all(&path)[0];
    assert_eq!((turned.width, turned.height), (16, 32));
    assert!(turned.rgb[0] > 200 && turned.rgb[2] < 50, "red is on top");
    assert!(turned.rgb[turned.rgb.len() - 1] > 200, "blue is below");
}

#[test]
fn y4m_kinds_of_chroma_and_range() {
    let (_guard, folder) = folder();
    let path = folder.join("in.y4m");
    let wide = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    for (header, frame, colour) in [
        ("W1 H1 F25:1 Cmono", vec![235], [255, 255, 255]),
        ("W1 H1 F25:1", vec![81, 90, 240], [255, 0, 0]),
        ("W1 H1 F25:1 C420jpeg XCOLORRANGE=FULL", vec![76, 85, 255], [254, 0, 0]),
        ("W1 H1 F25:1 Ip A128:117 C420paldv XSOMETHING", vec![81, 90, 240], [255, 0, 0]),
        ("W3 H1 C422", vec![81, 81, 81, 90, 90, 240, 240], [255, 0, 0]),
        ("W1 H1 C444p10", wide(&[324, 360, 960]), [255, 0, 0]),
        ("W1 H1 C420p12", wide(&[1296, 1440, 3840]), [255, 0, 0]),
        ("W3 H3 C420mpeg2", [vec![81; 9], vec![90; 4], vec![240; 4]].concat(), [255, 0, 0]),
    ] {
        fs::write(&path, y4m(header, &frame, 2)).unwrap();
        let back = read_all(&path);
        assert_eq!(back.len(), 2, "{header}");
        for pixel in back[1].rgb.chunks(3) {
            assert!(pixel.iter().zip(colour).all(|(a, b)| a.abs_diff(b) <= 2), "{header}: {pixel:?}");
        }
    }
    fs::write(&path, y4m("W1 H1 F0:0", &[1, 2, 3], 1)).unwrap();
    assert_eq!(read(&path).info().frame_rate, rate(25, 1));
}

#[test]
fn a_folder_plays_in_natural_order_and_one_size() {
    let (_guard, folder) = folder();
    for (name, value) in [("f10.png", 3), ("f9.PNG", 2), ("F1.jpg", 1), (".hidden.png", 9), ("notes.txt", 9)] {
        let picture = RgbImage::from_pixel(8, 8, image::Rgb([value * 40; 3]));
        let format = if name.ends_with("jpg") { ImageFormat::Jpeg } else { ImageFormat::Png };
        fs::write(folder.join(name), encoded(&picture.into(), format)).unwrap();
    }
    let back = read_all(&folder);
    let values: Vec<u8> = back.iter().map(|frame| frame.rgb[0].div_ceil(40)).collect();
    assert_eq!(values, [1, 2, 3]);
    assert_eq!(back[2].timestamp, FrameRate::DEFAULT.timestamp(2));

    fs::write(folder.join("f11.png"), encoded(&RgbImage::new(8, 9).into(), ImageFormat::Png)).unwrap();
    let (count, error) = failure(text(&folder));
    assert_eq!(count, 3);
    let message = error.to_string();
    assert!(matches!(error, Error::SizeChanged { frame: 4, expected: (8, 8), found: (8, 9), .. }), "{message}");
    assert!(message.contains("f11.png"), "{message}");

    fs::write(folder.join("f11.png"), "no picture").unwrap();
    assert!(failure(text(&folder)).1.to_string().contains("f11.png is damaged"));
}

#[test]
fn inputs_that_are_not_there_or_empty() {
    let (_guard, folder) = folder();
    assert!(matches!(failure("no/such/file.gif").1, Error::Missing { .. }));
    assert!(matches!(failure(text(&folder)).1, Error::NoFrames { .. }));
    for (name, content) in [
        ("empty.gif", Vec::new()),
        ("none.gif", gif(&[])),
        ("none.y4m", y4m("W2 H2 F24:1", &[], 0)),
        ("none.webp", webp(&[])),
    ] {
        fs::write(folder.join(name), content).unwrap();
        let (count, error) = failure(text(&folder.join(name)));
        assert!(count == 0 && matches!(error, Error::NoFrames { .. }), "{name}: {error}");
    }
    let zero = OpenOptions { frame_rate: Some(rate(0, 1)) };
    assert!(matches!(open("x.gif", &zero).err(), Some(Error::BadFrameRate { .. })));
}

/// A file cut anywhere is an error, never a panic, and every frame that is whole comes first.
#[test]
fn cut_off_files_say_how_many_frames_were_whole() {
    let (_guard, folder) = folder();
    let animated_png = folder.join("made.png");
    write(text(&animated_png), &OutputSpec::new(4, 2, FrameRate::DEFAULT), 3);
    let jpeg = encoded(&RgbImage::new(16, 16).into(), ImageFormat::Jpeg);
    for (name, content, most) in [
        ("cut.gif", gif(&[5, 5, 5]), 3),
        // Only what follows a PNG frame shows that it is whole.
        ("cut.png", fs::read(&animated_png).unwrap(), 2),
        ("cut.webp", webp(&[([9, 9, 9, 255], 40), ([8, 8, 8, 255], 40)]), 0),
        ("cut.y4m", y4m("W4 H2 F24:1", &[100; 12], 3), 2),
        ("cut.jpg", jpeg, 0),
    ] {
        let path = folder.join(name);
        let mut seen = Vec::new();
        for length in 1..content.len() {
            put(&path, &content[..length]);
            if name == "cut.y4m" && frames_fill(length, content.len()) {
                continue;
            }
            let (count, error) = failure(text(&path));
            match error {
                // The WebP decoder wants nearly all of a file before it gives its first frame.
                Error::Truncated { frames, .. } if name == "cut.webp" => assert!(count == 0 || frames == count as u64),
                Error::Truncated { frames, .. } => assert_eq!(frames, count as u64, "{name} at {length}"),
                Error::Corrupt { .. } if length < 16 => {}
                error => panic!("{name} at {length} of {}: {error}", content.len()),
            }
            seen.push(count);
        }
        if name != "cut.webp" {
            assert!(seen.is_sorted(), "{name}: {seen:?}");
            assert_eq!(seen.last(), Some(&most), "{name}");
        }
    }
}

/// Whether a Y4M file of 3 frames of 12 bytes that was cut to `length` ends just between frames.
fn frames_fill(length: usize, whole: usize) -> bool {
    length + 3 * 18 >= whole && (whole - length).is_multiple_of(18)
}

/// One flipped byte: whatever the decoder makes of it, no panic of ours, no endless file, and one size throughout.
#[test]
fn damaged_files_end() {
    let (_guard, folder) = folder();
    let animated_png = folder.join("made.png");
    write(text(&animated_png), &OutputSpec::new(4, 2, FrameRate::DEFAULT), 3);
    for (name, content) in [
        ("bad.gif", gif(&[5, 5])),
        ("bad.png", fs::read(&animated_png).unwrap()),
        ("bad.webp", webp(&[([9, 9, 9, 255], 40), ([8, 8, 8, 255], 40)])),
        ("bad.y4m", y4m("W4 H2 F24:1", &[100; 12], 2)),
        ("bad.jpg", encoded(&RgbImage::new(16, 16).into(), ImageFormat::Jpeg)),
    ] {
        let path = folder.join(name);
        for at in 0..content.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut damaged = content.clone();
                damaged[at] ^= flip;
                put(&path, &damaged);
                if let Ok(reader) = open(text(&path), &OpenOptions::default()) {
                    assert!(frames(reader).0.len() <= 4, "{name} at {at}");
                }
            }
        }
    }
}

#[test]
fn huge_frames_are_refused_before_they_are_made() {
    let (_guard, folder) = folder();
    let mut png = encoded(&RgbImage::new(1, 1).into(), ImageFormat::Png);
    // The header's checksum has to fit its new sides, so a real encoder writes it.
    let mut header = Vec::new();
    drop(png::Encoder::new(&mut header, 20_000, 20_000).write_header().unwrap());
    png.splice(..33, header[..33].iter().copied());
    let mut gif = gif(&[5]);
    gif[6..10].copy_from_slice(&[0x20, 0x4E, 0x20, 0x4E]);
    for (name, content) in [
        ("huge.png", png),
        ("huge.gif", gif),
        ("huge.y4m", y4m("W20000 H16 F24:1", &[], 0)),
        ("huger.y4m", y4m("W18446744073709551615 H18446744073709551615 F24:1", &[], 0)),
    ] {
        fs::write(folder.join(name), content).unwrap();
        let error = failure(text(&folder.join(name))).1;
        assert!(matches!(error, Error::TooLarge { .. }), "{name}: {error}");
        assert!(error.to_string().contains("the limit is 8192x8192"), "{error}");
    }
    let spec = OutputSpec::new(20_000, 16, FrameRate::DEFAULT);
    assert!(matches!(create(text(&folder.join("huge.gif")), &spec).err(), Some(Error::TooLarge { .. })));
}

#[test]
fn a_webp_frame_must_have_the_size_that_it_states() {
    let (_guard, folder) = folder();
    let path = folder.join("in.webp");
    let mut file = webp(&[([9, 9, 9, 255], 40)]);
    // The frame's picture becomes lossy with alpha, 64 by 2, where the frame says 2 by 2.
    let at = file.windows(4).position(|window| window == b"VP8L").unwrap();
    let picture = b"ALPH\x02\0\0\0\0\0VP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a\x40\0\x02\0";
    file.truncate(at);
    file.extend(picture);
    let (frame, whole) = (16 + picture.len() as u32, file.len() as u32 - 8);
    file[at - 20..at - 16].copy_from_slice(&frame.to_le_bytes());
    file[4..8].copy_from_slice(&whole.to_le_bytes());
    fs::write(&path, file).unwrap();
    let message = failure(text(&path)).1.to_string();
    assert!(message.contains("a frame's picture is not of the frame's size"), "{message}");
}

#[test]
fn hostile_y4m_headers() {
    let (_guard, folder) = folder();
    let path = folder.join("in.y4m");
    for (content, says) in [
        (y4m("W0 H5 F24:1", &[], 0), "no pixels"),
        (y4m("H5 F24:1", &[], 0), "lacks the width or the height"),
        (y4m("W-4 H5", &[], 0), "lacks the width or the height"),
        (y4m("W99999999999999999999 H5", &[], 0), "lacks the width or the height"),
        (y4m("W2 H2 F24", &[], 0), "damaged"),
        (y4m("W2 H2 C410", &[], 0), "\"410\" is not known"),
        (y4m(&"W2 ".repeat(1000), &[], 0), "first line does not end"),
        ([y4m("W1 H1 F24:1", &[1, 2, 3], 1), b"FRAMEX\n123".to_vec()].concat(), "after 1 whole frame"),
        (b"plain text".to_vec(), "does not begin with YUV4MPEG2"),
    ] {
        fs::write(&path, &content).unwrap();
        let message = failure(text(&path)).1.to_string();
        assert!(message.contains(says), "{message}, without {says:?}");
        assert!(message.contains("in.y4m"), "{message}");
    }
}

#[test]
fn content_goes_before_the_name() {
    let (_guard, folder) = folder();
    let path = folder.join("picture.jpg");
    fs::write(&path, gif(&[5, 5])).unwrap();
    assert_eq!(read_all(&path).len(), 2);
    let path = folder.join("text.gif");
    fs::write(&path, "this is no animation at all").unwrap();
    let message = failure(text(&path)).1.to_string();
    assert!(message.contains("text.gif") && message.contains("GIF"), "{message}");
}

#[test]
#[cfg(unix)]
fn a_named_pipe_carries_y4m() {
    let (_guard, folder) = folder();
    let path = folder.join("pipe.y4m");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (end, content) = (path.clone(), y4m("W2 H2 F24:1", &[100; 6], 4));
    let sender = std::thread::spawn(move || fs::write(end, content).unwrap());
    let reader = read(&path);
    assert_eq!(reader.info().frames, None);
    assert_eq!(frames(reader).0.len(), 4);
    sender.join().unwrap();
}

#[test]
fn outputs_that_exist_stay_until_the_new_is_complete() {
    let (_guard, folder) = folder();
    for name in ["out.gif", "out.png", "out.y4m"] {
        let path = folder.join(name);
        let mut spec = OutputSpec::new(4, 4, FrameRate::DEFAULT);
        fs::write(&path, "older").unwrap();
        let error = create(text(&path), &spec).err().unwrap();
        assert!(matches!(error, Error::OutputExists { .. }), "{name}: {error}");
        spec.force = true;
        let mut writer = create(text(&path), &spec).unwrap();
        for number in 0..3 {
            writer.write_frame(&frame(4, 4, number)).unwrap();
        }
        drop(writer);
        assert_eq!(fs::read(&path).unwrap(), b"older", "{name}");
        write(text(&path), &spec, 3);
        assert_eq!(read_all(&path).len(), 3, "{name}");
    }
    assert_eq!(names(&folder), ["out.gif", "out.png", "out.y4m"], "no temporary file stays");
}

#[test]
fn a_folder_of_frames_is_not_mixed() {
    let (_guard, folder) = folder();
    let output = format!("{}/frames/", folder.display());
    let path = folder.join("frames");
    let mut spec = OutputSpec::new(4, 4, FrameRate::DEFAULT);
    drop(create(&output, &spec).unwrap());
    assert!(!path.exists(), "a folder that was made for nothing goes again");
    write(&output, &spec, 3);
    assert_eq!(names(&path), ["frame-000001.png", "frame-000002.png", "frame-000003.png"]);
    let error = create(&output, &spec).err().unwrap();
    assert!(error.to_string().contains("frame-000001.png"), "{error}");

    fs::write(path.join("notes.txt"), "mine").unwrap();
    spec.force = true;
    let mut writer = create(text(&path), &spec).unwrap();
    writer.write_frame(&frame(4, 4, 7)).unwrap();
    drop(writer);
    assert_eq!(read_all(&path).len(), 3, "broken off: the older frames stay");
    let mut writer = create(text(&path), &spec).unwrap();
    for number in 7..9 {
        writer.write_frame(&frame(4, 4, number)).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(names(&path), ["frame-000001.png", "frame-000002.png", "notes.txt"]);
    assert_eq!(read_all(&path)[1].rgb, frame(4, 4, 8).rgb);
}

#[test]
fn writers_refuse_what_they_cannot_keep() {
    let (_guard, folder) = folder();
    let spec = OutputSpec::new(4, 4, FrameRate::DEFAULT);
    for name in ["out.gif", "out.png", "out.y4m", "frames/"] {
        let output = format!("{}/{name}", folder.display());
        let error = create(&output, &spec).unwrap().finish().unwrap_err();
        assert!(matches!(error, Error::NothingWritten { .. }), "{name}: {error}");
        let mut writer = create(&output, &spec).unwrap();
        writer.write_frame(&frame(4, 4, 0)).unwrap();
        let error = writer.write_frame(&frame(4, 5, 0)).unwrap_err();
        assert!(matches!(error, Error::SizeChanged { frame: 2, expected: (4, 4), found: (4, 5), .. }), "{error}");
        let short = Frame { rgb: vec![0; 5], ..frame(4, 4, 0) };
        assert!(matches!(writer.write_frame(&short), Err(Error::BadFrame { frame: 2, bytes: 5, .. })));
        drop(writer);
    }
    assert_eq!(names(&folder), ["frames"]);
    for output in ["out.xyz", "out", "no/such/folder/out.gif"] {
        let message = create(output, &spec).err().unwrap().to_string();
        assert!(message.contains(output), "{message}");
    }
    let still = OutputSpec::new(4, 4, rate(0, 1));
    assert!(matches!(create(text(&folder.join("a.gif")), &still).err(), Some(Error::BadFrameRate { .. })));
}
