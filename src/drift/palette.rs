//! How far apart the colours of two pictures are, wherever in the picture they lie.
//!
//! The distance is the sliced Wasserstein distance (Rabin, Peyré, Delon and Bernot, 2011) between the clouds of colours
//! in CIELAB: along each of 13 directions both clouds are projected on a line, where the earth mover's distance is the
//! area between the cumulative histograms. A histogram's bins know no nearness: a palette shifted by one bin is as far
//! as one of other colours, and a slow walk shows as a leap. The earth mover's distance grows with the walk itself, is
//! in units of ΔE, and does not care where in the picture a colour is, so motion alone does not raise it.
use super::measures::Pixels;
use palette::{FromColor, Lab, Srgb};

/// Bins on each line.
const BINS: usize = 128;
/// Width of a bin in ΔE; bins are filled by linear interpolation, so that a shift of less than a bin counts in full.
const WIDTH: f32 = 3.0;
/// Colours that are looked at, at most; a larger picture is sampled on a regular grid.
const SAMPLES: usize = 4096;
/// Makes the distance of a shift by one ΔE in any direction 1, within 8 %: the mean |cosine| to the 13 directions, which
/// lies between 0.465 and 0.514.
const MEAN_COSINE: f64 = 0.5;
const DIAGONAL: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// One over the square root of three.
const CORNER: f32 = 0.577_350_26;

/// Axes, face diagonals and body diagonals of a cube: the 13 directions that spread most evenly for so few.
const DIRECTIONS: [[f32; 3]; 13] = [
    [1.0, 0.0, 0.0],
    [0.0, 1.0, 0.0],
    [0.0, 0.0, 1.0],
    [DIAGONAL, DIAGONAL, 0.0],
    [DIAGONAL, -DIAGONAL, 0.0],
    [DIAGONAL, 0.0, DIAGONAL],
    [DIAGONAL, 0.0, -DIAGONAL],
    [0.0, DIAGONAL, DIAGONAL],
    [0.0, DIAGONAL, -DIAGONAL],
    [CORNER, CORNER, CORNER],
    [CORNER, CORNER, -CORNER],
    [CORNER, -CORNER, CORNER],
    [CORNER, -CORNER, -CORNER],
];

/// The colours of a picture, or the mean of those of several.
#[derive(Clone, Debug)]
pub struct Palette {
    /// Cumulative share of the colours, direction by direction.
    cumulative: Vec<f32>,
}

impl Palette {
    /// The colours of one picture.
    pub fn of(pixels: &Pixels) -> Self {
        let mut shares = vec![0f32; DIRECTIONS.len() * BINS];
        let step = pixels.len().div_ceil(SAMPLES).max(1);
        let share = 1.0 / pixels.len().div_ceil(step).max(1) as f32;
        for i in (0..pixels.len()).step_by(step) {
            let [red, green, blue] = pixels.at(i);
            let lab: Lab = Lab::from_color(Srgb::new(red, green, blue));
            let colour = [lab.l - 50.0, lab.a, lab.b];
            for (line, direction) in shares.chunks_exact_mut(BINS).zip(DIRECTIONS) {
                let along: f32 = colour.iter().zip(direction).map(|(c, d)| c * d).sum();
                let place = (along / WIDTH + BINS as f32 / 2.0).clamp(0.0, (BINS - 2) as f32);
                let bin = place as usize;
                let upper = place - bin as f32;
                line[bin] += share * (1.0 - upper);
                line[bin + 1] += share * upper;
            }
        }
        for line in shares.chunks_exact_mut(BINS) {
            let mut sum = 0.0;
            for value in line {
                sum += *value;
                *value = sum;
            }
        }
        Self { cumulative: shares }
    }

    /// The mean of several palettes, each with the same weight; `None` of none.
    pub fn mean<'a>(palettes: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut palettes = palettes.into_iter();
        let mut sum = palettes.next()?.clone();
        let mut count = 1.0;
        for palette in palettes {
            sum.cumulative.iter_mut().zip(&palette.cumulative).for_each(|(s, v)| *s += v);
            count += 1.0;
        }
        sum.cumulative.iter_mut().for_each(|s| *s /= count);
        Some(sum)
    }

    /// Distance in ΔE (CIE 1976): what a shift of all colours by that much would give.
    pub fn distance(&self, other: &Self) -> f64 {
        let area: f64 = self.cumulative.iter().zip(&other.cumulative).map(|(a, b)| f64::from((a - b).abs())).sum();
        area * f64::from(WIDTH) / DIRECTIONS.len() as f64 / MEAN_COSINE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(rgb: [f32; 3]) -> Palette {
        Palette::of(&Pixels::new(rgb.iter().flat_map(|v| [*v; 16]).collect(), 4, 4))
    }

    #[test]
    fn a_shift_counts_in_delta_e_whatever_its_direction() {
        let grey = [0.5f32; 3];
        for other in [[0.51, 0.51, 0.51], [0.55, 0.5, 0.5], [0.5, 0.5, 0.7], [0.9, 0.1, 0.2], [0.0, 0.0, 1.0]] {
            let [a, b] = [grey, other].map(|[r, g, b]| -> Lab { Lab::from_color(Srgb::new(r, g, b)) });
            let expected = f64::from(((a.l - b.l).powi(2) + (a.a - b.a).powi(2) + (a.b - b.b).powi(2)).sqrt());
            let found = flat(grey).distance(&flat(other));
            assert!((found / expected - 1.0).abs() < 0.09, "{other:?}: {found} for {expected}");
        }
        assert_eq!(flat(grey).distance(&flat(grey)), 0.0);
    }

    #[test]
    fn black_and_white_are_a_hundred_apart() {
        let distance = flat([0.0; 3]).distance(&flat([1.0; 3]));
        assert!((distance - 100.0).abs() < 9.0, "{distance}");
    }

    #[test]
    fn places_do_not_matter_and_shares_do() {
        let half = |left: f32, right: f32| {
            let plane: Vec<f32> = (0..64).map(|i| if i % 8 < 4 { left } else { right }).collect();
            Palette::of(&Pixels::new([plane.clone(), plane.clone(), plane].concat(), 8, 8))
        };
        assert!(half(0.2, 0.8).distance(&half(0.8, 0.2)) < 1e-6);
        let (near, far) = (half(0.2, 0.8).distance(&half(0.2, 0.7)), half(0.2, 0.8).distance(&half(0.2, 0.2)));
        assert!(near > 1.0 && far > 3.0 * near, "{near} {far}");
        let mean = Palette::mean([&half(0.2, 0.2), &half(0.8, 0.8)]).unwrap();
        assert!(mean.distance(&half(0.2, 0.8)) < 1e-3);
    }
}
