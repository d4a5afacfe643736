//! Any bytes as a picture, an animation or raw video: an error or frames, never a panic.
//!
//! What reads like nothing known would go to ffmpeg, which is not what is tested here: the first byte picks a beginning
//! that our own readers know.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mirage::media::{OpenOptions, open};
use std::io::Write;

const BEGINNINGS: [&[u8]; 6] = [
    b"YUV4MPEG2 W8 H6 F25:1 C420jpeg\nFRAME\n",
    b"YUV4MPEG2 ",
    b"GIF89a",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x40\0\0\0WEBP",
    b"\xff\xd8\xff",
];

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(mut file) = tempfile() else { return };
    let beginning = BEGINNINGS[usize::from(*first) % BEGINNINGS.len()];
    if file.write_all(beginning).and_then(|()| file.write_all(rest)).is_err() {
        return;
    }
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let Ok(mut reader) = open(&path, &OpenOptions::default()) else { return };
    for _ in 0..8 {
        match reader.next_frame() {
            Ok(Some(frame)) => assert_eq!(frame.rgb.len(), frame.width as usize * frame.height as usize * 3),
            Ok(None) | Err(_) => break,
        }
    }
});

/// A file without a name, gone with its handle.
fn tempfile() -> std::io::Result<std::fs::File> {
    let path = std::env::temp_dir().join(format!("mirage-fuzz-{}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
