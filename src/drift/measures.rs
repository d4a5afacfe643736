//! What is measured on each frame, and how much of a change in it is still no drift.
use super::palette::Palette;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// Luma of gamma-encoded red, green and blue (ITU-R BT.709).
const LUMA: [f32; 3] = [0.2126, 0.7152, 0.0722];
/// The Laplacian energy that rounding to 8 bits alone gives: 20 · (1/255)² / 12.
const DETAIL_FLOOR: f64 = 20.0 / 12.0 / (255.0 * 255.0);
/// A value this near to 0 or 1 is clipped: half a step of 8 bits.
const CLIPPED: f32 = 0.5 / 255.0;

/// One number for each frame; all on pictures in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Mean of the red channel.
    Red,
    /// Mean of the green channel.
    Green,
    /// Mean of the blue channel.
    Blue,
    /// Mean over pixels of the largest less the smallest channel. HSV divides this by the largest, which makes noise of
    /// dark pixels; over-saturation is the usual sign of feedback (FramePack, arXiv 2504.12626, section 4).
    Saturation,
    /// Standard deviation of luma (RMS contrast: Peli, 1990).
    Contrast,
    /// Base-2 logarithm of the mean squared Laplacian of luma (a focus measure: Pech-Pacheco et al., 2000). In
    /// logarithms, since blur divides it and noise multiplies it; over a floor at what 8-bit rounding gives.
    Detail,
    /// Share of channel values at either end of their range.
    Clipped,
    /// Distance of the frame's colours from those at the start on the same input, in ΔE; see [`Palette`].
    Palette,
}

impl Measure {
    /// Every measure, in the order of [`Values`].
    pub const ALL: [Self; 8] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Saturation,
        Self::Contrast,
        Self::Detail,
        Self::Clipped,
        Self::Palette,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Saturation => "saturation",
            Self::Contrast => "contrast",
            Self::Detail => "detail",
            Self::Clipped => "clipped",
            Self::Palette => "palette",
        }
    }

    /// What it is, with its unit, for the title of a curve.
    pub fn title(self) -> &'static str {
        match self {
            Self::Red => "Mean of red, 0 to 1",
            Self::Green => "Mean of green, 0 to 1",
            Self::Blue => "Mean of blue, 0 to 1",
            Self::Saturation => "Saturation, 0 to 1",
            Self::Contrast => "Contrast: deviation of luma, 0 to 1",
            Self::Detail => "Detail: Laplacian energy, doublings",
            Self::Clipped => "Clipped share of values, 0 to 1",
            Self::Palette => "Palette: distance from the start, ΔE",
        }
    }

    /// The largest lasting change that is accepted between the start and the end of a run.
    ///
    /// Each is about what an observer just notices, so that what passes cannot be seen. One step of lightness, ΔE 2.3
    /// (Mahy, Van Eycken and Oosterlinck, 1994), is 0.022 of a grey in sRGB: hence 0.02 for means and contrast, a bit
    /// more for saturation, to which the eye is blunter, and 3 ΔE for palettes, of which the texture's own flicker is a
    /// part. Half a doubling of the Laplacian energy is a fifth in the amplitude of edges. Two values in a hundred at
    /// the ends of the range are two more than a good picture needs.
    pub fn tolerance(self) -> f64 {
        match self {
            Self::Red | Self::Green | Self::Blue | Self::Contrast | Self::Clipped => 0.02,
            Self::Saturation => 0.03,
            Self::Detail => 0.5,
            Self::Palette => 3.0,
        }
    }
}

/// A frame's measures in the order of [`Measure::ALL`] without the palette's, which needs a second frame.
pub type Values = [f64; 7];

/// A picture as planes of red, green and blue, values in [0, 1].
#[derive(Clone, Debug)]
pub struct Pixels {
    planes: Vec<f32>,
    width: usize,
    height: usize,
}

impl Pixels {
    /// From three planes, one after the other, each `width * height` values; more are cut off.
    pub fn new(mut planes: Vec<f32>, width: usize, height: usize) -> Self {
        planes.resize(3 * width * height, 0.0);
        Self { planes, width, height }
    }

    /// From `(1, 3, height, width)` with values in [-1, 1]; what lies beyond is cut off. `None` if a value is not finite.
    ///
    /// # Errors
    /// Another shape.
    pub fn of(frame: &Tensor) -> Result<Option<Self>> {
        let (batch, channels, height, width) = frame.dims4()?;
        if (batch, channels) != (1, 3) {
            return Err(Error::Stream(format!("a frame is (1, 3, height, width), not {:?}", frame.dims())));
        }
        let mut planes = frame.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if planes.iter().any(|v| !v.is_finite()) {
            return Ok(None);
        }
        planes.iter_mut().for_each(|v| *v = (*v * 0.5 + 0.5).clamp(0.0, 1.0));
        Ok(Some(Self { planes, width, height }))
    }

    /// Width and height.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// How many pixels there are.
    pub fn len(&self) -> usize {
        self.width * self.height
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Red, green and blue of a pixel, counted along rows.
    pub fn at(&self, i: usize) -> [f32; 3] {
        let n = self.len();
        [self.planes[i], self.planes[n + i], self.planes[2 * n + i]]
    }

    /// Mean absolute difference of all values.
    pub fn difference(&self, other: &Self) -> f64 {
        let sum: f64 = self.planes.iter().zip(&other.planes).map(|(a, b)| f64::from((a - b).abs())).sum();
        sum / self.planes.len().max(1) as f64
    }

    /// Largest absolute difference of any value.
    pub fn largest_difference(&self, other: &Self) -> f64 {
        self.planes.iter().zip(&other.planes).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
    }

    /// Luma, row by row.
    pub fn luma(&self) -> Vec<f32> {
        (0..self.len()).map(|i| self.at(i).iter().zip(LUMA).map(|(v, l)| v * l).sum()).collect()
    }

    /// All measures but the palette's.
    pub fn values(&self) -> Values {
        let n = self.len().max(1) as f64;
        let mean = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let [red, green, blue] = std::array::from_fn(|c| mean(&self.planes[c * self.len()..][..self.len()]));
        let spread = |[r, g, b]: [f32; 3]| f64::from(r.max(g).max(b) - r.min(g).min(b));
        let saturation = (0..self.len()).map(|i| spread(self.at(i))).sum::<f64>() / n;
        let luma = self.luma();
        let middle = mean(&luma);
        let contrast = (luma.iter().map(|v| (f64::from(*v) - middle).powi(2)).sum::<f64>() / n).sqrt();
        let clipped = self.planes.iter().filter(|v| **v <= CLIPPED || **v >= 1.0 - CLIPPED).count();
        let detail = (laplacian_energy(&luma, self.width) + DETAIL_FLOOR).log2();
        [red, green, blue, saturation, contrast, detail, clipped as f64 / (3.0 * n)]
    }

    /// The colours, for [`Palette::distance`].
    pub fn palette(&self) -> Palette {
        Palette::of(self)
    }
}

/// Mean square of the Laplacian over four neighbours, the border left out.
fn laplacian_energy(luma: &[f32], width: usize) -> f64 {
    let rows: Vec<&[f32]> = luma.chunks_exact(width.max(1)).collect();
    let (mut sum, mut count) = (0.0, 0u64);
    for row in rows.windows(3) {
        for x in 1..width.saturating_sub(1) {
            let around = row[0][x] + row[2][x] + row[1][x - 1] + row[1][x + 1];
            sum += f64::from(around - 4.0 * row[1][x]).powi(2);
            count += 1;
        }
    }
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn pixels(width: usize, height: usize, at: impl Fn(usize, usize) -> [f32; 3]) -> Pixels {
        let plane = |c: usize| (0..width * height).map(|i| at(i % width, i / width)[c]).collect::<Vec<f32>>();
        Pixels::new([plane(0), plane(1), plane(2)].concat(), width, height)
    }

    fn value(pixels: &Pixels, measure: Measure) -> f64 {
        pixels.values()[Measure::ALL.iter().position(|m| *m == measure).unwrap()]
    }

    #[test]
    fn known_pictures_have_known_values() {
        let half = pixels(8, 4, |x, _| if x < 4 { [0.0; 3] } else { [1.0, 0.5, 0.25] });
        let near = |measure, expected: f64| {
            let found = value(&half, measure);
            assert!((found - expected).abs() < 1e-6, "{measure:?}: {found}, not {expected}");
        };
        near(Measure::Red, 0.5);
        near(Measure::Green, 0.25);
        near(Measure::Blue, 0.125);
        near(Measure::Saturation, 0.375);
        let bright = 0.2126 + 0.7152 * 0.5 + 0.0722 * 0.25;
        near(Measure::Contrast, bright / 2.0);
        // all of the black half, and red in the other
        near(Measure::Clipped, 0.5 + 0.5 / 3.0);
        // the edge is seen from both sides, two columns of the six inside
        near(Measure::Detail, (bright * bright / 3.0 + DETAIL_FLOOR).log2());
    }

    #[test]
    fn blur_lowers_detail_and_noise_raises_it() {
        let stripes =
            |sharpness: f32| pixels(32, 32, move |x, _| [0.5 + 0.4 * (sharpness * (x as f32 * 0.8).sin()).tanh(); 3]);
        assert!(value(&stripes(0.5), Measure::Detail) < value(&stripes(5.0), Measure::Detail) - 1.0);
        let flat = pixels(32, 32, |_, _| [0.5; 3]);
        assert!((value(&flat, Measure::Detail) - DETAIL_FLOOR.log2()).abs() < 1e-9);
    }

    #[test]
    fn tensors_are_taken_from_minus_one_to_one() {
        let tensor = |v: Vec<f32>| Tensor::from_vec(v, (1, 3, 1, 1), &Device::Cpu).unwrap();
        assert_eq!(Pixels::of(&tensor(vec![-1.0, 0.0, 7.0])).unwrap().unwrap().at(0), [0.0, 0.5, 1.0]);
        assert!(Pixels::of(&tensor(vec![-1.0, f32::NAN, 1.0])).unwrap().is_none());
        assert!(Pixels::of(&tensor(vec![-1.0, f32::INFINITY, 1.0])).unwrap().is_none());
        let grey = Tensor::zeros((1, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(Pixels::of(&grey).is_err());
    }

    #[test]
    fn the_smallest_pictures_are_measured() {
        for (width, height) in [(1, 1), (2, 3), (3, 2), (3, 3)] {
            assert!(pixels(width, height, |_, _| [0.3; 3]).values().iter().all(|v| v.is_finite()));
        }
    }
}
