//! Gaussian noise that a seed and a frame number determine, whatever was drawn before.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

/// A source of standard Gaussian noise with random access by frame: each frame has a ChaCha8 stream of its own.
///
/// It holds no position. A video that is reset, joined in the middle, or run frame by frame instead of as a whole gets the
/// same values, and so does every machine: the generator is integer arithmetic, and the Gaussian transform (ziggurat) is a table
/// but for the few values that the platform's `exp` accepts or its `ln` computes, in `f64`, before the rounding to `f32`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noise {
    generator: ChaCha8Rng,
}

impl Noise {
    /// The noise of one seed.
    pub fn new(seed: u64) -> Self {
        Self {
            generator: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// The noise of frame number `frame`, from its beginning.
    pub fn frame(&self, frame: u64) -> FrameNoise {
        let mut generator = self.generator.clone();
        generator.set_stream(frame);
        FrameNoise { generator }
    }
}

/// The noise of one frame, drawn in order: what begins the sample first, then what each step asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameNoise {
    generator: ChaCha8Rng,
}

impl FrameNoise {
    /// Fills `out` with the next values, of mean 0 and variance 1. Two calls give what one call for both lengths gives.
    pub fn fill(&mut self, out: &mut [f32]) {
        for value in out {
            *value = StandardNormal.sample(&mut self.generator);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const N: usize>(seed: u64, frame: u64) -> [f32; N] {
        let mut out = [0.0; N];
        Noise::new(seed).frame(frame).fill(&mut out);
        out
    }

    /// FNV-1a over the little-endian bytes.
    fn digest(values: &[f32]) -> u64 {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            })
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        assert_eq!(
            values::<4>(0, 0).map(f32::to_bits),
            [0x3f33_30a1, 0xbe13_84e5, 0x3e9b_13e9, 0xbfaf_f012]
        );
        assert_eq!(
            values::<4>(42, 7).map(f32::to_bits),
            [0xbf38_9569, 0xbf36_a608, 0x3f67_27cd, 0xbcaf_07cf]
        );
        assert_eq!(
            values::<2>(u64::MAX, u64::MAX).map(f32::to_bits),
            [0xbf73_d465, 0xbefd_31d3]
        );
        assert_eq!(digest(&values::<10_000>(1, 2)), 0x2c6b_599b_79c9_5ff8);
    }

    #[test]
    fn a_frame_needs_no_earlier_frame() {
        let noise = Noise::new(5);
        let mut played = [0.0; 33];
        for frame in 0..10 {
            noise.frame(frame).fill(&mut played);
        }
        assert_eq!(played, values::<33>(5, 9));
    }

    #[test]
    fn draws_follow_each_other() {
        let mut frame = Noise::new(5).frame(9);
        let mut parts = [0.0; 33];
        let (first, second) = parts.split_at_mut(20);
        frame.fill(first);
        frame.fill(&mut []);
        frame.fill(second);
        assert_eq!(parts, values::<33>(5, 9));
    }

    #[test]
    fn seed_and_frame_each_change_every_value() {
        let base = values::<64>(1, 1);
        for other in [values::<64>(2, 1), values::<64>(1, 2)] {
            assert!(base.iter().zip(&other).all(|(a, b)| a != b));
        }
    }

    #[test]
    fn moments_are_those_of_the_standard_normal_and_frames_are_independent() {
        const COUNT: usize = 100_000;
        let mut one = vec![0.0; COUNT];
        let mut two = vec![0.0; COUNT];
        let noise = Noise::new(3);
        noise.frame(11).fill(&mut one);
        noise.frame(12).fill(&mut two);
        let mean = |f: &dyn Fn(f64, f64) -> f64| {
            let pairs = one.iter().zip(&two);
            pairs
                .map(|(&a, &b)| f(f64::from(a), f64::from(b)))
                .sum::<f64>()
                / COUNT as f64
        };
        // Six standard errors each: sqrt(var / COUNT) with var 1, 2, 15, 96, 1.
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
}
