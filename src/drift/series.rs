//! What a measure does over a part of a run: its windows against each other, ten chunks, its slope, always on equal inputs.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Uniform};
use std::ops::Range;

/// Share of a run that is its start, and its end (FramePack, arXiv 2504.12626, section 4: start-end contrast).
const WINDOW: f64 = 0.15;
/// Chunks of a run.
const CHUNKS: usize = 10;
/// Resamples of the bootstrap; only their standard deviation is used, which 300 give to 4 %.
const RESAMPLES: usize = 300;
/// Standard errors on each side of the slope's interval. One run has some 70 slopes (8 measures, 6 inputs of up to 3
/// parts); at 3.5, one false alarm is expected in 30 runs, before the size of the change is asked for.
const STANDARD_ERRORS: f64 = 3.5;

/// One measure over one part, on an input that repeats.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// A value a frame, all finite.
    pub values: &'a [f64],
    /// Index of the first value's frame in the run.
    pub begin: u64,
    /// Frames after which the input repeats, at least 1.
    pub period: usize,
}

/// A straight line through a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// Change over the whole series.
    pub change: f64,
    /// Half the width of the interval around it.
    pub half_width: f64,
}

impl Slope {
    /// Whether the interval leaves zero out.
    pub fn is_significant(&self) -> bool {
        self.change.abs() > self.half_width
    }
}

impl Series<'_> {
    /// Which frame of the lap a value belongs to.
    fn phase(&self, i: usize) -> usize {
        ((self.begin + i as u64) % self.period as u64) as usize
    }

    /// Mean of a window, frame by frame, less the mean of the `base` on the same input; inputs that the base does not
    /// have are left out. `None` if that leaves nothing.
    pub fn against(&self, base: Range<usize>, window: Range<usize>) -> Option<f64> {
        let base = self.phase_means(base);
        let differences = window.filter_map(|i| Some(self.values[i] - base[self.phase(i)]?));
        let (sum, count) = differences.fold((0.0, 0u64), |(sum, count), d| (sum + d, count + 1));
        (count > 0).then(|| sum / count as f64)
    }

    /// Start-end contrast of FramePack: the last 15 % less the first 15 %.
    pub fn start_end(&self) -> Option<f64> {
        let n = self.values.len();
        self.against(self.start(), n - self.start().len()..n)
    }

    /// The first 15 %.
    pub fn start(&self) -> Range<usize> {
        0..(self.values.len() as f64 * WINDOW) as usize
    }

    /// The second to tenth of ten chunks, each less the first (the parts of BlockVid's drift error).
    pub fn chunks(&self) -> Vec<f64> {
        let edge = |k: usize| self.values.len() * k / CHUNKS;
        (1..CHUNKS).filter_map(|k| self.against(0..edge(1), edge(k)..edge(k + 1))).collect()
    }

    /// Each value less the start's mean on the same input; not a number where the start lacks that input.
    pub fn departures(&self) -> Vec<f64> {
        let base = self.phase_means(self.start());
        (0..self.values.len()).map(|i| base[self.phase(i)].map_or(f64::NAN, |b| self.values[i] - b)).collect()
    }

    /// The least-squares line with a constant of its own for each frame of the lap, so that the input's motion is no
    /// part of it. The interval comes from a moving-block bootstrap of the residuals (Künsch, 1989), since neighbouring
    /// frames are alike. `None` if no input comes twice.
    pub fn slope(&self, seed: u64) -> Option<Slope> {
        let n = self.values.len();
        let mut sums = vec![(0.0, 0.0, 0.0); self.period];
        for (i, value) in self.values.iter().enumerate() {
            let sum = &mut sums[self.phase(i)];
            *sum = (sum.0 + 1.0, sum.1 + i as f64, sum.2 + value);
        }
        let centred = |i: usize| {
            let (count, times, values) = sums[self.phase(i)];
            (i as f64 - times / count, self.values[i] - values / count)
        };
        let points: Vec<(f64, f64)> = (0..n).map(centred).collect();
        let xx: f64 = points.iter().map(|(x, _)| x * x).sum();
        if xx == 0.0 {
            return None;
        }
        let slope = points.iter().map(|(x, y)| x * y).sum::<f64>() / xx;
        let residuals: Vec<f64> = points.iter().map(|(x, y)| y - slope * x).collect();
        let error = self.bootstrap(&points, &residuals, seed) / xx;
        Some(Slope { change: slope * n as f64, half_width: STANDARD_ERRORS * error * n as f64 })
    }

    /// Standard deviation of `Σ x · residual` over resamples of the residuals in blocks.
    fn bootstrap(&self, points: &[(f64, f64)], residuals: &[f64], seed: u64) -> f64 {
        let n = points.len();
        // n^(1/3) is the order that is best for a variance; doubled, since a stream remembers longer than a few frames
        let block = ((2.0 * (n as f64).cbrt()).ceil() as usize).max(self.period).min(n / 4).max(1);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let Ok(starts) = Uniform::new(0, n) else { return 0.0 };
        // twice around, so that a block may begin anywhere
        let circle = [residuals, residuals].concat();
        let mut squares = 0.0;
        for _ in 0..RESAMPLES {
            let mut sum = 0.0;
            for block in points.chunks(block) {
                let drawn = &circle[starts.sample(&mut rng)..];
                sum += block.iter().zip(drawn).map(|((x, _), r)| x * r).sum::<f64>();
            }
            squares += sum * sum;
        }
        (squares / RESAMPLES as f64).sqrt()
    }

    fn phase_means(&self, range: Range<usize>) -> Vec<Option<f64>> {
        let mut sums = vec![(0.0, 0u64); self.period];
        for i in range {
            let sum = &mut sums[self.phase(i)];
            *sum = (sum.0 + self.values[i], sum.1 + 1);
        }
        sums.into_iter().map(|(sum, count)| (count > 0).then(|| sum / count as f64)).collect()
    }
}

/// The drift error of BlockVid (VDE; arXiv 2511.22973): departures of chunks 2 to N from the first as shares of it,
/// weighted N - 1 to 1 so that early drift counts most, summed. A first chunk below `floor` counts as the floor, where
/// the paper's becomes infinite.
pub fn drift_error(first: f64, departures: &[f64], floor: f64) -> f64 {
    let weights = (1..=departures.len()).rev();
    let sum: f64 = departures.iter().zip(weights).map(|(d, w)| d.abs() * w as f64).sum();
    sum / first.abs().max(floor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gaussian::{self, Draw};

    fn noise(seed: u64, n: usize) -> Vec<f32> {
        let mut values = vec![0.0; n];
        gaussian::fill(Draw { seed, frame: 0, number: 0 }, &mut values);
        values
    }

    /// A lap of large swings, noise, and a trend.
    fn values(n: usize, noise_size: f64, trend: f64, seed: u64) -> Vec<f64> {
        let swing = |i: usize| ((i % 20) as f64 * 0.7).sin();
        let noise = noise(seed, n);
        (0..n).map(|i| swing(i) + noise_size * f64::from(noise[i]) + trend * i as f64 / n as f64).collect()
    }

    #[test]
    fn the_input_swings_are_taken_out() {
        let values = values(1000, 0.0, 0.0, 0);
        let series = Series { values: &values, begin: 7, period: 20 };
        assert!(series.start_end().unwrap().abs() < 1e-9);
        assert!(series.chunks().iter().all(|d| d.abs() < 1e-9));
        assert_eq!(series.chunks().len(), 9);
        assert!(series.slope(0).unwrap().change.abs() < 1e-9);
        assert!(series.departures().iter().all(|d| d.abs() < 1e-9));
    }

    #[test]
    fn a_trend_is_found_in_its_size() {
        let values = values(1000, 0.05, 0.3, 1);
        let series = Series { values: &values, begin: 0, period: 20 };
        let slope = series.slope(0).unwrap();
        assert!((slope.change - 0.3).abs() < 0.03 && slope.is_significant(), "{slope:?}");
        assert!((series.start_end().unwrap() - 0.3 * 0.85).abs() < 0.02);
        assert!((series.chunks()[8] - 0.3 * 0.9).abs() < 0.03);
    }

    #[test]
    fn the_interval_is_as_wide_as_chance_makes_slopes() {
        // white noise: the change over n frames has the standard deviation σ · sqrt(12 / n)
        let expected = STANDARD_ERRORS * 0.1 * (12.0f64 / 600.0).sqrt();
        let slopes: Vec<Slope> = (0..40)
            .map(|seed| Series { values: &values(600, 0.1, 0.0, seed), begin: 0, period: 20 }.slope(seed).unwrap())
            .collect();
        let mean = slopes.iter().map(|s| s.half_width).sum::<f64>() / slopes.len() as f64;
        assert!((mean / expected - 1.0).abs() < 0.15, "{mean} for {expected}");
        assert!(slopes.iter().all(|s| !s.is_significant()));
    }

    #[test]
    fn noise_that_lasts_widens_the_interval() {
        // an autoregressive series of coefficient 0.8 has slopes three times as uncertain as white noise of its size
        let white = noise(3, 1000);
        let mut lasting = vec![0.0f64; 1000];
        for i in 1..1000 {
            lasting[i] = 0.8 * lasting[i - 1] + 0.6 * f64::from(white[i]);
        }
        let white: Vec<f64> = white.into_iter().map(f64::from).collect();
        let width = |values: &[f64]| Series { values, begin: 0, period: 1 }.slope(0).unwrap().half_width;
        let ratio = width(&lasting) / width(&white);
        assert!(ratio > 2.0, "{ratio}");
    }

    #[test]
    fn inputs_that_do_not_come_twice_are_left_out() {
        let series = Series { values: &[1.0, 2.0, 3.0, 4.0], begin: 0, period: 4 };
        assert_eq!(series.against(0..2, 2..4), None);
        assert_eq!(series.slope(0), None);
        let series = Series { values: &[1.0, 2.0, 3.0, 9.0], begin: 0, period: 3 };
        assert_eq!(series.against(0..2, 2..4), Some(8.0));
    }

    #[test]
    fn the_drift_error_weighs_early_chunks_most() {
        assert_eq!(drift_error(2.0, &[1.0, 0.0, 0.0], 0.1), 1.5);
        assert_eq!(drift_error(-2.0, &[0.0, 0.0, -1.0], 0.1), 0.5);
        assert_eq!(drift_error(0.0, &[1.0], 0.5), 2.0);
    }
}
