//! Reads a folder of pictures as a video, in the order in which a person would number them.
use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use super::open::sniff_file;
use super::{Error, Frame, FrameRate, FrameReader, Result, VideoInfo, still};

/// The endings of names that count as pictures.
const PICTURES: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Reads a picture a frame. Names beginning with a dot and other kinds of files are passed over; of an animation
/// the first frame counts.
pub(super) struct FolderReader {
    info: VideoInfo,
    pictures: Vec<PathBuf>,
    first: Option<Frame>,
    frames: usize,
}

impl FolderReader {
    pub fn open(folder: &Path, rate: Option<FrameRate>) -> Result<Self> {
        let pictures = pictures_in(folder)?;
        let Some(first) = pictures.first() else {
            return Err(Error::NoFrames { path: folder.to_owned() });
        };
        let first = decode(first)?;
        let info = VideoInfo {
            width: first.width,
            height: first.height,
            frame_rate: rate.unwrap_or(FrameRate::DEFAULT),
            frames: Some(pictures.len() as u64),
            has_audio: false,
        };
        Ok(Self { info, pictures, first: Some(first), frames: 0 })
    }
}

impl FrameReader for FolderReader {
    fn info(&self) -> &VideoInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        let Some(path) = self.pictures.get(self.frames) else { return Ok(None) };
        let mut frame = match self.first.take() {
            Some(frame) => frame,
            None => decode(path)?,
        };
        let number = self.frames as u64;
        let (expected, found) = ((self.info.width, self.info.height), (frame.width, frame.height));
        if expected != found {
            // Said here, where the name of the picture is known.
            return Err(Error::SizeChanged { path: path.clone(), frame: number + 1, expected, found });
        }
        frame.timestamp = self.info.frame_rate.timestamp(number);
        self.frames += 1;
        Ok(Some(frame))
    }
}

fn decode(path: &Path) -> Result<Frame> {
    let format = sniff_file(path)?.ok_or_else(|| Error::Corrupt {
        path: path.to_owned(),
        format: "PNG, JPEG or WebP",
        frames: 0,
        reason: "its content is none of these".to_owned(),
    })?;
    still::decode(path, format)
}

/// The pictures in `folder`, in natural order.
pub(super) fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::reading(folder, error);
    let mut pictures = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if !name.starts_with('.') && PICTURES.contains(&&*extension) && path.is_file() {
            pictures.push(path);
        }
    }
    pictures.sort_by_cached_key(|path| NaturalKey(path.file_name().unwrap_or_default().to_string_lossy().into_owned()));
    Ok(pictures)
}

/// A name whose runs of digits compare as numbers: `2.png` comes before `10.png`.
#[derive(PartialEq, Eq)]
struct NaturalKey(String);

impl Ord for NaturalKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut a, mut b) = (self.0.as_bytes(), other.0.as_bytes());
        loop {
            let (x, y) = match (a.first(), b.first()) {
                (Some(x), Some(y)) => (*x, *y),
                // Names that differ in leading zeros only still get one order.
                (None, None) => return self.0.cmp(&other.0),
                (x, y) => return x.is_some().cmp(&y.is_some()),
            };
            let order = if x.is_ascii_digit() && y.is_ascii_digit() {
                let (number_a, number_b) = (take_number(&mut a), take_number(&mut b));
                // Without leading zeros the longer number is the larger, so no number is too long to compare.
                number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b))
            } else {
                (a, b) = (&a[1..], &b[1..]);
                x.cmp(&y)
            };
            if order != Ordering::Equal {
                return order;
            }
        }
    }
}

impl PartialOrd for NaturalKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Splits the leading digits off `text` and returns them without leading zeros.
fn take_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_number_them() {
        let ordered = [
            "0.png",
            "1.png",
            "2.png",
            "02b.png",
            "10.png",
            "99999999999999999999998.png",
            "99999999999999999999999.png",
            "a.png",
            "a1.png",
            "a1b2.png",
            "a1b11.png",
            "a01c.png",
            "b.png",
        ];
        let mut shuffled: Vec<NaturalKey> = ordered.iter().rev().map(|name| NaturalKey((*name).to_owned())).collect();
        shuffled.sort();
        let sorted: Vec<&str> = shuffled.iter().map(|key| key.0.as_str()).collect();
        assert_eq!(sorted, ordered);
    }
}
