//! What is written comes back as it should, and nothing older is lost.
use super::*;

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
    for name in ["out.xyz", "out", "no/such/folder/out.gif"] {
        let output = folder.join(name);
        let message = create(text(&output), &spec).err().unwrap().to_string();
        assert!(message.contains(text(&output)), "{message}");
    }
    let still = OutputSpec::new(4, 4, rate(0, 1));
    assert!(matches!(create(text(&folder.join("a.gif")), &still).err(), Some(Error::BadFrameRate { .. })));
}
