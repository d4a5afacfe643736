//! Subjects whose drift is known, since they are plain functions of tensors.
use super::{Redraw, Subject, Variant};
use crate::Result;
use crate::ops::gaussian::{self, Draw};
use candle_core::Tensor;

/// How a synthetic stream misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Not at all: the same function of every input frame.
    None,
    /// Each frame has noise of its own on every pixel, and a brightness and palette of its own by a little.
    Noise,
    /// Each stream draws one of six palettes at its start, and again at each change of style.
    PaletteDraw,
    /// Gets brighter by this much over a thousand frames.
    Brightness(f64),
    /// Gets more saturated by this share over a thousand frames.
    Saturation(f64),
    /// Mixes a blurred copy of its last output into the next.
    Blur,
    /// Each channel's gain does a random walk.
    PaletteWalk,
    /// Draws its first frame for ever.
    Frozen,
    /// Gives the input back.
    PassThrough,
    /// Sound until frame 700, then sinks into grey within fifty frames.
    Collapse,
    /// Sound until this frame, then draws what is not a number.
    NotFinite(u64),
    /// Sound when all remedies are on, brighter frame by frame when they are not.
    NaiveOnly,
}

impl Subject for Fault {
    fn start(&self, variant: Variant, seed: u64) -> Result<Box<dyn Redraw>> {
        let fault = match self {
            Self::NaiveOnly if variant == Variant::Full => Self::None,
            Self::NaiveOnly => Self::Brightness(0.5),
            other => *other,
        };
        Ok(Box::new(Synthetic { fault, seed, index: 0, since: 0, style: 0, last: None, gains: [1.0; 3] }))
    }

    fn styles(&self) -> Option<[String; 2]> {
        Some(["one".into(), "two".into()])
    }
}

struct Synthetic {
    fault: Fault,
    seed: u64,
    index: u64,
    /// The frame at which the style was set.
    since: u64,
    style: usize,
    last: Option<Tensor>,
    gains: [f64; 3],
}

impl Redraw for Synthetic {
    fn step(&mut self, frame: &Tensor) -> Result<Tensor> {
        let drawn = self.draw(frame)?.clamp(-1f32, 1f32)?;
        self.last = Some(drawn.clone());
        self.index += 1;
        Ok(drawn)
    }

    fn set_style(&mut self, style: &str) -> Result<()> {
        self.style = usize::from(style == "two");
        self.since = self.index;
        Ok(())
    }
}

impl Synthetic {
    fn noise(&self, frame: u64, values: &mut [f32]) {
        gaussian::fill(Draw { seed: self.seed, frame, number: 0 }, values);
    }

    fn draw(&mut self, frame: &Tensor) -> Result<Tensor> {
        let sound = gains(&styled(frame, self.style)?, self.gains)?;
        let age = self.index as f64 / 1000.0;
        Ok(match self.fault {
            Fault::None | Fault::NaiveOnly => sound,
            Fault::Noise => {
                let mut values = vec![0f32; frame.elem_count() + 4];
                self.noise(self.index, &mut values);
                let shifts: Vec<f64> = values.drain(..4).map(|v| f64::from(v) * 0.02).collect();
                let noise = Tensor::from_vec(values, frame.shape(), frame.device())?;
                let sound = gains(&sound, [1.0 + shifts[0], 1.0 + shifts[1], 1.0 + shifts[2]])?;
                ((sound + shifts[3])? + (noise * 0.06)?)?
            }
            Fault::PaletteDraw => {
                let mut value = [0f32; 1];
                self.noise(self.since, &mut value);
                let member = f64::from((value[0].abs() * 1000.0) as u32 % 6);
                gains(&sound, [1.0 - 0.1 * member, 0.5 + 0.1 * member, 0.8])?
            }
            Fault::Brightness(by) => (sound + by * 2.0 * age)?,
            Fault::Saturation(by) => {
                let grey = sound.mean_keepdim(1)?.broadcast_as(sound.shape())?;
                (&grey + ((&sound - &grey)? * (1.0 + by * age))?)?
            }
            Fault::Blur => match &self.last {
                Some(last) => ((sound * 0.04)? + (blurred(last)? * 0.96)?)?,
                None => sound,
            },
            Fault::PaletteWalk => {
                let mut steps = [0f32; 3];
                self.noise(self.index, &mut steps);
                self.gains.iter_mut().zip(steps).for_each(|(g, s)| *g = (*g + 0.02 * f64::from(s)).clamp(0.0, 1.5));
                sound
            }
            Fault::Frozen => self.last.clone().unwrap_or(sound),
            Fault::PassThrough => frame.clone(),
            Fault::Collapse => (sound * (1.0 - (self.index as f64 - 700.0).clamp(0.0, 50.0) / 50.0))?,
            Fault::NotFinite(at) if self.index >= at => (sound * f64::NAN)?,
            Fault::NotFinite(_) => sound,
        })
    }
}

/// A restyling without memory: channels swapped and bent, so that it is neither the input nor flat.
fn styled(frame: &Tensor, style: usize) -> Result<Tensor> {
    let turned = match style {
        0 => Tensor::cat(&[frame.narrow(1, 2, 1)?, frame.narrow(1, 0, 1)?, frame.narrow(1, 1, 1)?], 1)?,
        _ => frame.neg()?,
    };
    Ok(((turned * 1.3)?.tanh()? * 0.75)?)
}

fn gains(frame: &Tensor, gains: [f64; 3]) -> Result<Tensor> {
    if gains == [1.0; 3] {
        return Ok(frame.clone());
    }
    let channels = (0..3).map(|c| Ok((frame.narrow(1, c, 1)? * gains[c])?)).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&channels, 1)?)
}

/// The mean over four neighbours and the pixel, the borders repeated.
fn blurred(frame: &Tensor) -> Result<Tensor> {
    let (height, width) = (frame.dim(2)?, frame.dim(3)?);
    let padded = frame.pad_with_same(2, 1, 1)?.pad_with_same(3, 1, 1)?;
    let at = |dy: usize, dx: usize| padded.narrow(2, dy, height)?.narrow(3, dx, width);
    let sum = (((at(0, 1)? + at(2, 1)?)? + at(1, 0)?)? + (at(1, 2)? + at(1, 1)?)?)?;
    Ok((sum * 0.2)?)
}
