//! Writes GIF: a palette of its own for every frame, pixels that did not change left as they are, right mean timing.
use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;

use color_quant::NeuQuant;
use gif::{DisposalMethod, Encoder, EncodingError, Repeat};
use rayon::prelude::*;

use super::pending::PendingFile;
use super::{Error, Frame, FrameRate, FrameWriter, OutputSpec, Result};

/// GIF counts time in hundredths of a second, and browsers slow down frames that are shown for less than two.
const TICKS_PER_SECOND: u128 = 100;
const SHORTEST: u64 = 2;
/// One palette entry is kept for "as before".
const COLOURS: usize = 255;
/// Pixels that train a palette: about what NeuQuant's own speed 10 takes of a frame of 512x512.
const SAMPLES: usize = 26_000;

/// Writes frames that repeat for ever. Above 50 frames a second, frames that no player would show in time are left
/// out, so that the speed stays right.
pub(super) struct GifWriter {
    encoder: Encoder<BufWriter<File>>,
    pending: PendingFile,
    rate: FrameRate,
    frames: u64,
    /// The last picture that was taken, its encoding, and the tick at which it appears; its delay shows at the next.
    last: Option<(Vec<u8>, gif::Frame<'static>, u64)>,
}

impl GifWriter {
    pub fn create(pending: PendingFile, spec: &OutputSpec) -> Result<Self> {
        // `create` has held the sides against MAX_SIDE.
        let (width, height) = (spec.width as u16, spec.height as u16);
        let failed = |error| failure(&pending, error);
        let mut encoder = Encoder::new(pending.writer()?, width, height, &[]).map_err(failed)?;
        encoder.set_repeat(Repeat::Infinite).map_err(failed)?;
        Ok(Self { encoder, pending, rate: spec.frame_rate, frames: 0, last: None })
    }

    /// The tick at which frame number `frame` appears, so rounded that errors never add up.
    fn tick(&self, frame: u64) -> u64 {
        let scaled = u128::from(frame) * u128::from(self.rate.denominator) * TICKS_PER_SECOND;
        let rate = u128::from(self.rate.numerator.max(1));
        u64::try_from((scaled + rate / 2) / rate).unwrap_or(u64::MAX)
    }

    fn write_last(&mut self, until: u64) -> Result<Option<Vec<u8>>> {
        let Some((rgb, mut encoded, since)) = self.last.take() else { return Ok(None) };
        let delay = until.saturating_sub(since).max(SHORTEST);
        encoded.delay = u16::try_from(delay).unwrap_or(u16::MAX);
        self.encoder.write_frame(&encoded).map_err(|error| failure(&self.pending, error))?;
        Ok(Some(rgb))
    }
}

impl FrameWriter for GifWriter {
    fn write_frame(&mut self, frame: &Frame) -> Result<()> {
        let now = self.tick(self.frames);
        self.frames += 1;
        if self.last.as_ref().is_some_and(|(_, _, since)| now.saturating_sub(*since) < SHORTEST) {
            return Ok(());
        }
        let before = self.write_last(now)?;
        let encoded = quantise(frame, before.as_deref());
        self.last = Some((frame.rgb.clone(), encoded, now));
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.write_last(self.tick(self.frames))?;
        let Self { encoder, pending, .. } = *self;
        let out = encoder.into_inner().map_err(|error| failure(&pending, error))?;
        out.into_inner().map_err(|error| Error::writing(pending.path(), error.into_error()))?;
        pending.commit()
    }
}

/// Reduces a frame to a palette. Pixels equal to those `before` become transparent: they keep the colour that they
/// were given first, so what stands still does not flicker from palette to palette.
fn quantise(frame: &Frame, before: Option<&[u8]>) -> gif::Frame<'static> {
    let pixels = frame.rgb.as_chunks::<3>().0;
    let before = before.map(|before| before.as_chunks::<3>().0);
    let changed = |at: usize| before.is_none_or(|before| before[at] != pixels[at]);

    let mut exact = HashMap::new();
    let mut last = None;
    for (at, &pixel) in pixels.iter().enumerate() {
        // Equal neighbours are common where colours are few.
        if last != Some(pixel) && changed(at) {
            let next = exact.len();
            exact.entry(pixel).or_insert(next);
            last = Some(pixel);
            if exact.len() > COLOURS {
                break;
            }
        }
    }
    let (mut palette, network) = if exact.len() <= COLOURS {
        let mut palette = vec![0; exact.len() * 3];
        for (colour, &index) in &exact {
            palette[index * 3..index * 3 + 3].copy_from_slice(colour);
        }
        (palette, None)
    } else {
        let sample: Vec<u8> = (0..pixels.len()).filter(|&at| changed(at)).flat_map(|at| rgba(&pixels[at])).collect();
        let speed = (sample.len() / 4 / SAMPLES).clamp(1, 30) as i32;
        let network = NeuQuant::new(speed, COLOURS, &sample);
        (network.color_map_rgb(), Some(network))
    };
    let same = (palette.len() / 3) as u8;
    let transparent = before.map(|_| same);
    if before.is_some() {
        palette.extend([0; 3]);
    }
    let width = frame.width as usize;
    let index = |(at, pixel): (usize, &[u8; 3])| match &network {
        _ if !changed(at) => same,
        Some(network) => {
            let offset = dither(at % width, at / width);
            network.index_of(&rgba(&pixel.map(|value| value.saturating_add_signed(offset)))) as u8
        }
        None => exact.get(pixel).map_or(0, |&index| index as u8),
    };
    let indices: Vec<u8> = pixels.par_iter().enumerate().map(index).collect();
    gif::Frame {
        width: frame.width as u16,
        height: frame.height as u16,
        dispose: DisposalMethod::Keep,
        transparent,
        palette: Some(palette),
        buffer: indices.into(),
        ..gif::Frame::default()
    }
}

/// The ordered dither of Bayer, 8 by 8, from -4 to 3: it hides the steps of smooth gradients, and as it depends on the
/// place alone, it does not crawl from frame to frame.
fn dither(x: usize, y: usize) -> i8 {
    let mut rank = 0;
    for bit in 0..3 {
        let (x, y) = (x >> bit & 1, y >> bit & 1);
        rank = rank << 2 | (x ^ y) << 1 | y;
    }
    // 64 ranks for 8 levels.
    (rank / 8) as i8 - 4
}

fn rgba(&[red, green, blue]: &[u8; 3]) -> [u8; 4] {
    [red, green, blue, 255]
}

fn failure(pending: &PendingFile, error: EncodingError) -> Error {
    let source = match error {
        EncodingError::Io(source) => source,
        error => std::io::Error::other(error),
    };
    Error::writing(pending.path(), source)
}
