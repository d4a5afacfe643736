//! Frames in and out through the public interface: formats, timing, odd sizes, and files that are cut off or hostile.
#![allow(clippy::unwrap_used, reason = "what a test cannot make, it fails on")]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::{DynamicImage, ImageFormat, RgbImage, RgbaImage};
use mirage::media::{Error, Frame, FrameRate, FrameReader, OpenOptions, OutputSpec, create, open};

mod hostile;
mod reading;
mod writing;

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
