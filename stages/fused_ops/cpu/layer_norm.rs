//! LayerNorm over the last dimension.

use super::error::{KernelError, expect_length, expect_nonzero};
use super::rows::for_row_runs;
use crate::stages::simd::{Element, Isa, Kernel, Simd};

/// `out = (x − mean) / sqrt(variance + epsilon) · weight + bias` for each row (arXiv:1607.06450), with
/// the biased variance.
///
/// `x` and `out` are `(rows, channels)`, dense. Sums are f32 in many lanes, taken about the row's own
/// mean, so that a large mean costs no digits.
///
/// # Errors
/// When a size is zero or a slice does not fit its shape.
pub fn layer_norm<T: Element>(
    x: &[T],
    shape: [usize; 2],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    out: &mut [T],
) -> Result<(), KernelError> {
    layer_norm_with(Isa::best(), x, shape, weight, bias, epsilon, out)
}

/// [`layer_norm`] with a given instruction set, to compare them.
///
/// # Errors
/// As [`layer_norm`].
pub fn layer_norm_with<T: Element>(
    isa: Isa,
    x: &[T],
    shape: [usize; 2],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    out: &mut [T],
) -> Result<(), KernelError> {
    let [_, channels] = shape;
    expect_nonzero("layer_norm input", &shape)?;
    expect_length("layer_norm input", &shape, x.len())?;
    expect_length("layer_norm output", &shape, out.len())?;
    expect_length("layer_norm weight", &[channels], weight.len())?;
    expect_length("layer_norm bias", &[channels], bias.len())?;
    for_row_runs(out, channels, |first, out| {
        isa.run(Rows {
            x: &x[first * channels..][..out.len()],
            weight,
            bias,
            epsilon,
            out,
        });
    });
    Ok(())
}

struct Rows<'a, T> {
    x: &'a [T],
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
    out: &'a mut [T],
}

impl<T: Element> Kernel for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let channels = self.weight.len();
        let inverse_count = 1.0 / channels as f32;
        for (x, out) in self
            .x
            .chunks_exact(channels)
            .zip(self.out.chunks_exact_mut(channels))
        {
            let pivot = sum(simd, x) * inverse_count;
            let (rest, squares) = sums_about(simd, x, pivot);
            // What the pivot's rounding left of the mean.
            let rest = rest * inverse_count;
            let variance = (squares * inverse_count - rest * rest).max(0.0);
            let inverse = 1.0 / (variance + self.epsilon).sqrt();
            apply(simd, x, self.weight, self.bias, [pivot, rest, inverse], out);
        }
    }
}

/// Four vectors of partial sums hide the latency of the additions.
const CHAINS: usize = 4;

#[inline(always)]
fn sum<S: Simd, T: Element>(simd: S, x: &[T]) -> f32 {
    let mut sums = [simd.splat(0.0); CHAINS];
    let mut chunks = x.chunks_exact(CHAINS * S::LANES);
    for chunk in &mut chunks {
        for (c, sum) in sums.iter_mut().enumerate() {
            *sum = simd.add(*sum, T::load(simd, &chunk[c * S::LANES..]));
        }
    }
    let mut rest = chunks.remainder().chunks_exact(S::LANES);
    for chunk in &mut rest {
        sums[0] = simd.add(sums[0], T::load(simd, chunk));
    }
    let mut total = across(simd, sums);
    for value in rest.remainder() {
        total += value.to_f32();
    }
    total
}

/// Sums of `x − pivot` and of its square.
#[inline(always)]
fn sums_about<S: Simd, T: Element>(simd: S, x: &[T], pivot: f32) -> (f32, f32) {
    let about = simd.splat(pivot);
    let mut sums = [simd.splat(0.0); CHAINS];
    let mut squares = [simd.splat(0.0); CHAINS];
    let mut chunks = x.chunks_exact(CHAINS * S::LANES);
    for chunk in &mut chunks {
        for c in 0..CHAINS {
            let difference = simd.sub(T::load(simd, &chunk[c * S::LANES..]), about);
            sums[c] = simd.add(sums[c], difference);
            squares[c] = simd.mul_add(difference, difference, squares[c]);
        }
    }
    let mut rest = chunks.remainder().chunks_exact(S::LANES);
    for chunk in &mut rest {
        let difference = simd.sub(T::load(simd, chunk), about);
        sums[0] = simd.add(sums[0], difference);
        squares[0] = simd.mul_add(difference, difference, squares[0]);
    }
    let (mut sum, mut square) = (across(simd, sums), across(simd, squares));
    for value in rest.remainder() {
        let difference = value.to_f32() - pivot;
        sum += difference;
        square += difference * difference;
    }
    (sum, square)
}

/// The sum of all lanes.
#[inline(always)]
fn across<S: Simd>(simd: S, sums: [S::V; CHAINS]) -> f32 {
    simd.sum(simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3])))
}

#[inline(always)]
fn apply<S: Simd, T: Element>(
    simd: S,
    x: &[T],
    weight: &[f32],
    bias: &[f32],
    [pivot, rest, inverse]: [f32; 3],
    out: &mut [T],
) {
    let (pivots, rests, inverses) = (simd.splat(pivot), simd.splat(rest), simd.splat(inverse));
    // Zipped vectors rather than indices: their bounds are checked once a row.
    let columns = weight
        .chunks_exact(S::LANES)
        .zip(bias.chunks_exact(S::LANES));
    let vectors = x
        .chunks_exact(S::LANES)
        .zip(out.chunks_exact_mut(S::LANES))
        .zip(columns);
    for ((x, out), (weight, bias)) in vectors {
        let centred = simd.sub(simd.sub(T::load(simd, x), pivots), rests);
        let factor = simd.mul(f32::load(simd, weight), inverses);
        let value = simd.mul_add(centred, factor, f32::load(simd, bias));
        T::store(simd, out, value);
    }
    let mut at = x.len() / S::LANES * S::LANES;
    while at < x.len() {
        let centred = x[at].to_f32() - pivot - rest;
        out[at] = T::from_f32(centred * (weight[at] * inverse) + bias[at]);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::stages::simd::tests::noise;

    fn plain(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f64> {
        let channels = weight.len();
        let mut out = Vec::new();
        for row in x.chunks(channels) {
            let mean = row.iter().copied().map(f64::from).sum::<f64>() / channels as f64;
            let variance = row
                .iter()
                .map(|&x| (f64::from(x) - mean).powi(2))
                .sum::<f64>()
                / channels as f64;
            for (c, &x) in row.iter().enumerate() {
                out.push(
                    (f64::from(x) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[c])
                        + f64::from(bias[c]),
                );
            }
        }
        out
    }

    #[test]
    fn agrees_with_the_plain_form() {
        for ([rows, channels], mean) in [
            ([1, 1], 0.0),
            ([5, 3], 0.0),
            ([300, 17], 2.0),
            ([1500, 64], 0.0),
            ([9, 100], -1e4),
            ([3, 3072], 3e4),
        ] {
            let x: Vec<f32> = noise(1, rows * channels).iter().map(|x| x + mean).collect();
            let (weight, bias) = (noise(2, channels), noise(3, channels));
            let expected = plain(&x, &weight, &bias);
            for isa in Isa::available() {
                let mut out = vec![0.0f32; x.len()];
                layer_norm_with(isa, &x, [rows, channels], &weight, &bias, 1e-5, &mut out).unwrap();
                for (value, exact) in out.iter().zip(&expected) {
                    assert!(
                        (f64::from(*value) - exact).abs() < 3e-6,
                        "{isa:?} {rows} {channels} {value} {exact}"
                    );
                }
            }
        }
    }

    #[test]
    fn constant_rows_and_halves() {
        let half: Vec<f16> = noise(4, 33 * 20).into_iter().map(f16::from_f32).collect();
        let wide: Vec<f32> = half.iter().map(|x| x.to_f32()).collect();
        let (weight, bias) = (noise(2, 20), noise(3, 20));
        let expected = plain(&wide, &weight, &bias);
        for isa in Isa::available() {
            let mut out = vec![f16::ZERO; half.len()];
            layer_norm_with(isa, &half, [33, 20], &weight, &bias, 1e-5, &mut out).unwrap();
            for (value, exact) in out.iter().zip(&expected) {
                assert!(
                    (value.to_f64() - exact).abs() <= exact.abs() / 2048.0 + 3e-6,
                    "{isa:?}"
                );
            }
            let mut out = vec![0.0f32; 40];
            layer_norm_with(isa, &[1e6f32; 40], [2, 20], &weight, &bias, 1e-5, &mut out).unwrap();
            assert!(
                out.iter()
                    .enumerate()
                    .all(|(i, &y)| (y - bias[i % 20]).abs() < 1e-6),
                "{isa:?}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let ones = [1.0; 4];
        assert!(layer_norm(&[0.0f32; 8], [2, 4], &ones, &ones[1..], 1e-5, &mut [0.0; 8]).is_err());
        assert!(layer_norm(&[0.0f32; 8], [2, 4], &ones, &ones, 1e-5, &mut [0.0; 7]).is_err());
        assert!(layer_norm::<f32>(&[], [0, 4], &ones, &ones, 1e-5, &mut []).is_err());
    }
}
