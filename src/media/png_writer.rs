//! Writes PNG: one frame as a still, more as an APNG that repeats for ever.
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use png::{BitDepth, ColorType, Compression, Encoder, EncodingError, Writer};

use super::pending::PendingFile;
use super::{Error, Frame, FrameRate, FrameWriter, OutputSpec, Result};

/// Where the `acTL` chunk begins: after the signature and the `IHDR` chunk.
const ANIMATION_CONTROL: usize = 8 + 25;
/// Its length: 8 bytes of data between length, name and checksum.
const ANIMATION_CONTROL_LENGTH: usize = 20;

/// Writes frames without loss, 8 bits a channel.
pub(super) struct PngWriter {
    pending: PendingFile,
    spec: OutputSpec,
    frames: u32,
    /// The first frame waits until it is known whether there is a second.
    first: Option<Frame>,
    animation: Option<Writer<BufWriter<File>>>,
}

impl PngWriter {
    pub fn create(pending: PendingFile, spec: &OutputSpec) -> Self {
        Self { pending, spec: spec.clone(), frames: 0, first: None, animation: None }
    }
}

impl FrameWriter for PngWriter {
    fn write_frame(&mut self, frame: &Frame) -> Result<()> {
        if self.frames == u32::MAX {
            let source = io::Error::other("an APNG holds no more than 4294967295 frames");
            return Err(Error::writing(self.pending.path(), source));
        }
        self.frames += 1;
        if self.frames == 1 {
            self.first = Some(frame.clone());
            return Ok(());
        }
        let failed = |error| failure(self.pending.path(), error);
        let animation = match &mut self.animation {
            Some(animation) => animation,
            none => {
                // How many frames there will be is written over this at the end.
                let encoder = encoder(self.pending.writer()?, &self.spec, Some(u32::MAX)).map_err(failed)?;
                none.insert(encoder.write_header().map_err(failed)?)
            }
        };
        if let Some(first) = self.first.take() {
            animation.write_image_data(&first.rgb).map_err(failed)?;
        }
        animation.write_image_data(&frame.rgb).map_err(failed)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let failed = |error| failure(self.pending.path(), error);
        match (self.animation, self.first) {
            (Some(animation), _) => {
                animation.finish().map_err(failed)?;
                let chunk = animation_control(&self.spec, self.frames).map_err(failed)?;
                let mut out = self.pending.writer()?;
                out.seek(SeekFrom::Start(ANIMATION_CONTROL as u64))
                    .and_then(|_| out.write_all(&chunk))
                    .and_then(|()| out.flush())
                    .map_err(|error| Error::writing(self.pending.path(), error))?;
            }
            (None, Some(frame)) => write_still(self.pending.writer()?, &frame).map_err(failed)?,
            (None, None) => {}
        }
        self.pending.commit()
    }
}

/// Writes one frame as a still PNG.
pub(super) fn write_still(out: impl Write, frame: &Frame) -> std::result::Result<(), EncodingError> {
    let spec = OutputSpec::new(frame.width, frame.height, FrameRate::DEFAULT);
    let mut writer = encoder(out, &spec, None)?.write_header()?;
    writer.write_image_data(&frame.rgb)?;
    writer.finish()
}

/// A failure of the encoder while writing `path`.
pub(super) fn failure(path: &Path, error: EncodingError) -> Error {
    let source = match error {
        EncodingError::IoError(source) => source,
        error => io::Error::other(error),
    };
    Error::writing(path, source)
}

fn encoder<W: Write>(
    out: W,
    spec: &OutputSpec,
    frames: Option<u32>,
) -> std::result::Result<Encoder<'static, W>, EncodingError> {
    let mut encoder = Encoder::new(out, spec.width, spec.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    if let Some(frames) = frames {
        encoder.set_animated(frames, 0)?;
        let (numerator, denominator) = delay(spec.frame_rate);
        encoder.set_frame_delay(numerator, denominator)?;
    }
    Ok(encoder)
}

/// The `acTL` chunk for this number of frames, checksum included, cut from a header that the encoder writes.
fn animation_control(spec: &OutputSpec, frames: u32) -> std::result::Result<Vec<u8>, EncodingError> {
    let mut header = Vec::new();
    drop(encoder(&mut header, spec, Some(frames))?.write_header()?);
    Ok(header[ANIMATION_CONTROL..ANIMATION_CONTROL + ANIMATION_CONTROL_LENGTH].to_vec())
}

/// Seconds a frame as a fraction of 16-bit numbers; to the nearest that fits where the rate needs more.
fn delay(rate: FrameRate) -> (u16, u16) {
    let (mut numerator, mut denominator) = (f64::from(rate.denominator), f64::from(rate.numerator.max(1)));
    let largest = numerator.max(denominator);
    if largest > 65535.0 {
        (numerator, denominator) = (numerator * 65535.0 / largest, denominator * 65535.0 / largest);
    }
    // A denominator of zero would mean 100.
    (numerator.round() as u16, denominator.round().max(1.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_fit_sixteen_bits() {
        let of = |numerator, denominator| delay(FrameRate { numerator, denominator });
        assert_eq!(of(24, 1), (1, 24));
        assert_eq!(of(30000, 1001), (1001, 30000));
        let (numerator, denominator) = of(24_000_000, 1_001_001);
        assert!((f64::from(denominator) / f64::from(numerator) - 23.976).abs() < 0.01);
        assert_eq!(of(1, u32::MAX), (65535, 1));
    }

    #[test]
    fn the_patched_chunk_is_the_control_chunk() {
        let chunk = animation_control(&OutputSpec::new(3, 2, FrameRate::DEFAULT), 7).unwrap();
        assert_eq!(&chunk[..12], b"\0\0\0\x08acTL\0\0\0\x07");
    }
}
