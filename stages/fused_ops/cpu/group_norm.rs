//! GroupNorm over channels-last images, with SiLU: one pass over memory for the statistics, one to apply.

use rayon::prelude::*;

use super::error::{KernelError, expect_length, expect_nonzero};
use super::moments::{Moments, full_row, image_moments};
use super::rows::for_row_runs;
use crate::stages::simd::{Element, Isa, Kernel, Simd, silu};

/// What a group norm does besides its input.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm<'a> {
    /// How many groups the channels are cut into; divides their number.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Factor of each channel.
    pub weight: &'a [f32],
    /// Added to each channel after the factor.
    pub bias: &'a [f32],
    /// Whether SiLU follows.
    pub silu: bool,
}

/// `out = act((x − mean) / sqrt(variance + epsilon) · weight + bias)`, mean and biased variance over the
/// pixels and channels of a group (arXiv:1803.08494).
///
/// `x` and `out` are `(batch, pixels, channels)`, dense. Statistics are taken about local means and
/// merged in f64 (Chan, Golub and LeVeque), so that a large mean costs no digits; the result does not
/// depend on the number of threads.
///
/// # Errors
/// When a size is zero, a slice does not fit its shape, or `groups` does not divide the channels.
pub fn group_norm<T: Element>(
    x: &[T],
    [batch, pixels, channels]: [usize; 3],
    norm: &GroupNorm<'_>,
    out: &mut [T],
) -> Result<(), KernelError> {
    group_norm_with(Isa::best(), x, [batch, pixels, channels], norm, out)
}

/// [`group_norm`] with a given instruction set, to compare them.
///
/// # Errors
/// As [`group_norm`].
pub fn group_norm_with<T: Element>(
    isa: Isa,
    x: &[T],
    shape: [usize; 3],
    norm: &GroupNorm<'_>,
    out: &mut [T],
) -> Result<(), KernelError> {
    let [_, pixels, channels] = shape;
    expect_nonzero("group_norm input", &shape)?;
    expect_length("group_norm input", &shape, x.len())?;
    expect_length("group_norm output", &shape, out.len())?;
    expect_length("group_norm weight", &[channels], norm.weight.len())?;
    expect_length("group_norm bias", &[channels], norm.bias.len())?;
    if norm.groups == 0 || !channels.is_multiple_of(norm.groups) {
        return Err(KernelError::Shape {
            what: "group_norm",
            reason: format!("{} groups do not divide {channels} channels", norm.groups),
        });
    }
    let image = pixels * channels;
    let one = |(x, out): (&[T], &mut [T])| {
        let statistics = image_moments(isa, x, channels, norm.groups);
        let coefficients = Coefficients::new(&statistics, channels, norm);
        let row = coefficients.factor.len();
        for_row_runs(out, row, |first, out| {
            isa.run(Apply {
                x: &x[first * row..][..out.len()],
                out,
                coefficients: &coefficients,
                silu: norm.silu,
            });
        });
    };
    if x.len() > image {
        x.par_chunks(image)
            .zip(out.par_chunks_mut(image))
            .for_each(one);
    } else {
        one((x, out));
    }
    Ok(())
}

/// `(x − mean) · factor + offset`, one of each for every column of a row.
struct Coefficients {
    mean: Vec<f32>,
    factor: Vec<f32>,
    offset: Vec<f32>,
}

impl Coefficients {
    fn new(groups: &[Moments], channels: usize, norm: &GroupNorm<'_>) -> Self {
        let row = full_row(channels);
        let per_group = channels / groups.len();
        let mut coefficients = Self {
            mean: Vec::with_capacity(row),
            factor: Vec::with_capacity(row),
            offset: Vec::with_capacity(row),
        };
        for column in 0..row {
            let channel = column % channels;
            let moments = groups[channel / per_group];
            let variance = moments.squares / moments.count;
            let factor =
                f64::from(norm.weight[channel]) / (variance + f64::from(norm.epsilon)).sqrt();
            let mean = moments.mean as f32;
            // The part of the mean that f32 cannot hold goes into the offset.
            let rest = moments.mean - f64::from(mean);
            coefficients.mean.push(mean);
            coefficients.factor.push(factor as f32);
            coefficients
                .offset
                .push((f64::from(norm.bias[channel]) - rest * factor) as f32);
        }
        coefficients
    }
}

struct Apply<'a, T> {
    x: &'a [T],
    out: &'a mut [T],
    coefficients: &'a Coefficients,
    silu: bool,
}

impl<T: Element> Kernel for Apply<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Coefficients {
            mean,
            factor,
            offset,
        } = self.coefficients;
        let row = factor.len();
        for (x, out) in self.x.chunks(row).zip(self.out.chunks_mut(row)) {
            // Zipped vectors rather than indices: their bounds are checked once a row.
            let columns = mean
                .chunks_exact(S::LANES)
                .zip(factor.chunks_exact(S::LANES))
                .zip(offset.chunks_exact(S::LANES));
            let vectors = x
                .chunks_exact(S::LANES)
                .zip(out.chunks_exact_mut(S::LANES))
                .zip(columns);
            for ((x, out), ((mean, factor), offset)) in vectors {
                let value = normalise(
                    simd,
                    T::load(simd, x),
                    f32::load(simd, mean),
                    f32::load(simd, factor),
                    f32::load(simd, offset),
                    self.silu,
                );
                T::store(simd, out, value);
            }
            let at = x.len() / S::LANES * S::LANES;
            if at < x.len() {
                let value = normalise(
                    simd,
                    T::load_some(simd, &x[at..]),
                    f32::load_some(simd, &mean[at..]),
                    f32::load_some(simd, &factor[at..]),
                    f32::load_some(simd, &offset[at..]),
                    self.silu,
                );
                T::store_some(simd, &mut out[at..], value);
            }
        }
    }
}

#[inline(always)]
fn normalise<S: Simd>(simd: S, x: S::V, mean: S::V, factor: S::V, offset: S::V, act: bool) -> S::V {
    let value = simd.mul_add(simd.sub(x, mean), factor, offset);
    if act { silu(simd, value) } else { value }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::stages::simd::tests::noise;

    fn plain(x: &[f32], [batch, pixels, channels]: [usize; 3], norm: &GroupNorm<'_>) -> Vec<f64> {
        let mut out = vec![0.0; x.len()];
        let per_group = channels / norm.groups;
        for n in 0..batch {
            for group in 0..norm.groups {
                let places: Vec<usize> = (0..pixels)
                    .flat_map(|p| {
                        (0..per_group)
                            .map(move |c| (n * pixels + p) * channels + group * per_group + c)
                    })
                    .collect();
                let count = places.len() as f64;
                let mean = places.iter().map(|&i| f64::from(x[i])).sum::<f64>() / count;
                let variance = places
                    .iter()
                    .map(|&i| (f64::from(x[i]) - mean).powi(2))
                    .sum::<f64>()
                    / count;
                for &i in &places {
                    let c = i % channels;
                    let value = (f64::from(x[i]) - mean)
                        / (variance + f64::from(norm.epsilon)).sqrt()
                        * f64::from(norm.weight[c])
                        + f64::from(norm.bias[c]);
                    out[i] = if norm.silu {
                        value / (1.0 + (-value).exp())
                    } else {
                        value
                    };
                }
            }
        }
        out
    }

    #[test]
    fn agrees_with_the_plain_form() {
        for (shape, groups, mean, bound) in [
            ([1, 1, 1], 1, 0.0, 1e-6),
            ([2, 35, 3], 3, 0.0, 2e-6),
            ([1, 1001, 7], 1, 0.5, 2e-6),
            ([2, 130, 32], 8, 0.0, 2e-6),
            ([1, 77, 96], 32, 3.0, 2e-6),
            ([1, 2000, 66], 2, 0.0, 2e-6),
            ([1, 9, 1000], 4, 0.0, 2e-6),
            // f32 holds 1e4 + x to 5e-4, but what it holds is normalised to the last digit.
            ([1, 3000, 20], 4, 1e4, 3e-6),
            ([1, 4097, 130], 2, -3e4, 3e-6),
        ] {
            let [batch, pixels, channels] = shape;
            let x: Vec<f32> = noise(1, batch * pixels * channels)
                .iter()
                .map(|x| x + mean)
                .collect();
            let (weight, bias) = (noise(2, channels), noise(3, channels));
            for silu in [false, true] {
                let norm = GroupNorm {
                    groups,
                    epsilon: 1e-5,
                    weight: &weight,
                    bias: &bias,
                    silu,
                };
                let expected = plain(&x, shape, &norm);
                for isa in Isa::available() {
                    let mut out = vec![0.0f32; x.len()];
                    group_norm_with(isa, &x, shape, &norm, &mut out).unwrap();
                    for (value, exact) in out.iter().zip(&expected) {
                        assert!(
                            (f64::from(*value) - exact).abs() < bound,
                            "{isa:?} {shape:?} {value} {exact}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn one_far_value_does_not_spoil_the_rest() {
        // The first value is what a careless pivot would be taken from.
        let mut x = noise(4, 64 * 64 * 8);
        x[0] = 1e6;
        let norm = GroupNorm {
            groups: 1,
            epsilon: 1e-5,
            weight: &[1.0; 8],
            bias: &[0.0; 8],
            silu: false,
        };
        let expected = plain(&x, [1, 4096, 8], &norm);
        for isa in Isa::available() {
            let mut out = vec![0.0f32; x.len()];
            group_norm_with(isa, &x, [1, 4096, 8], &norm, &mut out).unwrap();
            for (value, exact) in out.iter().zip(&expected) {
                assert!(
                    (f64::from(*value) - exact).abs() <= 1e-6 * (1.0 + exact.abs()),
                    "{isa:?} {value} {exact}"
                );
            }
        }
    }

    #[test]
    fn a_constant_image_becomes_its_bias_and_halves_are_rounded_once() {
        let x = vec![f16::from_f32(123.0); 40 * 24];
        let bias = noise(5, 24);
        let norm = GroupNorm {
            groups: 3,
            epsilon: 1e-5,
            weight: &[2.0; 24],
            bias: &bias,
            silu: false,
        };
        let half: Vec<f16> = noise(6, 40 * 24).into_iter().map(f16::from_f32).collect();
        let wide: Vec<f32> = half.iter().map(|x| x.to_f32()).collect();
        let expected = plain(&wide, [1, 40, 24], &norm);
        for isa in Isa::available() {
            let mut out = vec![f16::ZERO; x.len()];
            group_norm_with(isa, &x, [1, 40, 24], &norm, &mut out).unwrap();
            assert!(
                out.iter()
                    .enumerate()
                    .all(|(i, &y)| y == f16::from_f32(bias[i % 24])),
                "{isa:?}"
            );
            group_norm_with(isa, &half, [1, 40, 24], &norm, &mut out).unwrap();
            for (value, exact) in out.iter().zip(&expected) {
                assert!(
                    (value.to_f64() - exact).abs() <= exact.abs() / 2048.0 + 3e-6,
                    "{isa:?}"
                );
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let norm = GroupNorm {
            groups: 3,
            epsilon: 1e-5,
            weight: &[1.0; 8],
            bias: &[1.0; 8],
            silu: false,
        };
        let mut out = [0.0f32; 16];
        assert!(
            group_norm(&[0.0f32; 16], [1, 2, 8], &norm, &mut out)
                .unwrap_err()
                .to_string()
                .contains("3 groups")
        );
        assert!(group_norm(&[0.0f32; 15], [1, 2, 8], &norm, &mut out).is_err());
        assert!(group_norm::<f32>(&[], [0, 2, 8], &norm, &mut []).is_err());
    }
}
