//! Standard Gaussian noise that a seed, a frame and a number determine, whatever was drawn before and wherever it is drawn.
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a function of a key and a
//! counter, so that every value can be worked out by itself, by as many threads as there are. Pairs of its words become pairs of
//! Gaussian values by Box and Muller's transform.
use super::Ops;
use super::bytes;
use super::probe::{Call, Op};
use candle_core::{Device, Result, Shape, Tensor};
use rayon::prelude::*;

/// Which noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Of the stream.
    pub seed: u64,
    /// Whose noise it is.
    pub frame: u64,
    /// Several are drawn for a frame.
    pub number: u32,
}

impl Draw {
    /// Seed and frame as the words that they are to the generator, low ones first.
    pub fn words(self) -> [[u32; 2]; 2] {
        [self.seed, self.frame].map(|n| [n as u32, (n >> 32) as u32])
    }
}

/// The slot.
pub trait Gaussian: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// Values of mean 0 and variance 1; the value at a place depends on the place, counted row by row, and on `draw` alone.
    ///
    /// # Errors
    /// A device that cannot hold them.
    fn run(&self, draw: Draw, shape: &Shape, device: &Device) -> Result<Tensor>;
}

impl Ops {
    /// Standard Gaussian noise on the device.
    ///
    /// # Errors
    /// A device that cannot hold it.
    pub fn gaussian(&self, draw: Draw, shape: &Shape) -> Result<Tensor> {
        let moved = |y: &Tensor| (FLOPS * y.elem_count() as u64, bytes(y));
        let call = Call { op: Op::Gaussian, site: "stream.noise", stage: self.gaussian.stage() };
        self.probe.run(call, moved, || self.gaussian.run(draw, shape, &self.device))
    }
}

/// Of a value, integer operations of the generator included.
const FLOPS: u64 = 30;
/// Values that one counter gives.
pub const TOGETHER: usize = 4;
/// Values that a thread of the processor works out at a time.
const PART: usize = 1 << 14;

/// The ten rounds of Philox4x32.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let wide = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    for _ in 0..10 {
        let [(high, low), (other_high, other_low)] = [wide(0xD251_1F53, counter[0]), wide(0xCD9E_8D57, counter[2])];
        counter = [other_high ^ counter[1] ^ key[0], other_low, high ^ counter[3] ^ key[1], low];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Two words as two independent Gaussian values.
fn box_muller(a: u32, b: u32) -> [f32; 2] {
    const UNIT: f32 = 1.0 / 4_294_967_296.0;
    // never zero, whose logarithm is infinite
    let radius = (-2.0 * ((a as f32 + 0.5) * UNIT).ln()).sqrt();
    let (sin, cos) = (std::f32::consts::TAU * (b as f32 * UNIT)).sin_cos();
    [radius * cos, radius * sin]
}

/// Fills `out` with the first values of a draw.
pub fn fill(draw: Draw, out: &mut [f32]) {
    let [key, [frame, frame_high]] = draw.words();
    out.par_chunks_mut(PART).enumerate().for_each(|(part, out)| {
        for (i, four) in out.chunks_mut(TOGETHER).enumerate() {
            let block = (part * (PART / TOGETHER) + i) as u32;
            let words = philox([block, draw.number, frame, frame_high], key);
            let ([a, b], [c, d]) = (box_muller(words[0], words[1]), box_muller(words[2], words[3]));
            four.copy_from_slice(&[a, b, c, d][..four.len()]);
        }
    });
}

/// Worked out by the processor.
pub struct Reference;

impl Gaussian for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn run(&self, draw: Draw, shape: &Shape, device: &Device) -> Result<Tensor> {
        let mut values = vec![0f32; shape.elem_count()];
        fill(draw, &mut values);
        Tensor::from_vec(values, shape, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const N: usize>(seed: u64, frame: u64, number: u32) -> [f32; N] {
        let mut out = [0.0; N];
        fill(Draw { seed, frame, number }, &mut out);
        out
    }

    #[test]
    fn the_generator_is_philox() {
        // the known answers of the authors' own implementation, Random123
        let all = u32::MAX;
        for (counter, key, words) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([all; 4], [all; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), words);
        }
    }

    #[test]
    fn words_become_gaussian_values() {
        let (low, high) = (box_muller(0, 0), box_muller(u32::MAX, u32::MAX));
        // the smallest first word is the farthest value there is
        assert!((low[0] - 6.763_8).abs() < 1e-3 && low[1] == 0.0, "{low:?}");
        assert!(high.iter().all(|v| v.abs() < 1e-3), "{high:?}");
        // a quarter of the way round
        let [cos, sin] = box_muller(1 << 30, 1 << 30);
        assert!(cos.abs() < 1e-6 && (sin - (4f32.ln() * 2.0).sqrt()).abs() < 1e-5, "{cos} {sin}");
    }

    #[test]
    fn values_depend_on_their_place_alone() {
        let long = values::<{ 3 * PART + 5 }>(5, 9, 1);
        assert_eq!(long[..33], values::<33>(5, 9, 1));
        assert_eq!(long, values::<{ 3 * PART + 5 }>(5, 9, 1));
    }

    #[test]
    fn seed_frame_and_number_each_change_every_value() {
        let base = values::<64>(1, 1, 1);
        let others =
            [values::<64>(2, 1, 1), values::<64>(1, 2, 1), values::<64>(1, 1, 2), values::<64>(1 << 32 | 1, 1, 1)];
        for other in others.into_iter().chain([values::<64>(1, 1 << 32 | 1, 1)]) {
            assert!(base.iter().zip(&other).all(|(a, b)| a != b));
        }
    }

    #[test]
    fn moments_are_those_of_the_standard_normal_and_draws_are_independent() {
        const COUNT: usize = 100_000;
        let draw = |frame, number| {
            let mut out = vec![0.0; COUNT];
            fill(Draw { seed: 3, frame, number }, &mut out);
            out
        };
        let one = draw(11, 0);
        for two in [draw(12, 0), draw(11, 1)] {
            let mean = |f: &dyn Fn(f64, f64) -> f64| {
                let pairs = one.iter().zip(&two);
                pairs.map(|(&a, &b)| f(f64::from(a), f64::from(b))).sum::<f64>() / COUNT as f64
            };
            // six standard errors each: sqrt(var / COUNT) with var 1, 2, 15, 96, 1
            for (name, found, expected, error) in [
                ("mean", mean(&|a, _| a), 0.0, 1.0),
                ("variance", mean(&|a, _| a * a), 1.0, 2f64.sqrt()),
                ("skewness", mean(&|a, _| a.powi(3)), 0.0, 15f64.sqrt()),
                ("fourth moment", mean(&|a, _| a.powi(4)), 3.0, 96f64.sqrt()),
                ("covariance", mean(&|a, b| a * b), 0.0, 1.0),
            ] {
                let bound = 6.0 * error / (COUNT as f64).sqrt();
                assert!((found - expected).abs() < bound, "{name}: {found}");
            }
        }
        // neighbours come from one counter, and from one pair of words
        for distance in 1..6 {
            let products = one.iter().zip(&one[distance..]).map(|(&a, &b)| f64::from(a) * f64::from(b));
            let covariance = products.sum::<f64>() / COUNT as f64;
            assert!(covariance.abs() < 6.0 / (COUNT as f64).sqrt(), "{distance} apart: {covariance}");
        }
    }
}
