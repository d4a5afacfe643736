//! Damaged, cut-off and hostile input ends in an error that says what is the matter.
use super::*;

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
