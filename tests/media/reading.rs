//! Every kind of input gives the frames that it holds.
use super::*;

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
