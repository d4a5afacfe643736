//! Max-pooling of channels-last images by two.

use super::error::{KernelError, expect_length, expect_nonzero};
use super::rows::for_row_runs;
use crate::stages::simd::{Element, Isa, Kernel, Simd};

/// The largest of each 2×2 square, stride 2; an odd last row or column is left out.
///
/// `x` is `(batch, height, width, channels)`, `out` `(batch, height / 2, width / 2, channels)`, dense.
///
/// # Errors
/// When a size is zero, height or width is below 2, or a slice does not fit its shape.
pub fn max_pool_2x2<T: Element>(x: &[T], shape: [usize; 4], out: &mut [T]) -> Result<(), KernelError> {
    max_pool_2x2_with(Isa::best(), x, shape, out)
}

/// [`max_pool_2x2`] with a given instruction set, to compare them.
///
/// # Errors
/// As [`max_pool_2x2`].
pub fn max_pool_2x2_with<T: Element>(isa: Isa, x: &[T], shape: [usize; 4], out: &mut [T]) -> Result<(), KernelError> {
    let [batch, height, width, channels] = shape;
    let pooled = [batch, height / 2, width / 2, channels];
    expect_nonzero("max_pool input", &shape)?;
    expect_nonzero("max_pool output", &pooled)?;
    expect_length("max_pool input", &shape, x.len())?;
    expect_length("max_pool output", &pooled, out.len())?;
    let (in_row, out_row) = (width * channels, width / 2 * channels);
    for_row_runs(out, out_row, |first, out| {
        for (i, out) in out.chunks_exact_mut(out_row).enumerate() {
            let (image, y) = ((first + i) / (height / 2), (first + i) % (height / 2));
            let rows = &x[(image * height + 2 * y) * in_row..][..2 * in_row];
            let (upper, lower) = rows.split_at(in_row);
            isa.run(PoolRow { upper, lower, channels, out });
        }
    });
    Ok(())
}

struct PoolRow<'a, T> {
    upper: &'a [T],
    lower: &'a [T],
    channels: usize,
    out: &'a mut [T],
}

impl<T: Element> Kernel for PoolRow<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let channels = self.channels;
        let squares = self.upper.chunks_exact(2 * channels).zip(self.lower.chunks_exact(2 * channels));
        for ((upper, lower), out) in squares.zip(self.out.chunks_exact_mut(channels)) {
            let corners = [&upper[..channels], &upper[channels..], &lower[..channels], &lower[channels..]];
            let whole = channels / S::LANES * S::LANES;
            let mut at = 0;
            while at < whole {
                let mut largest = T::load(simd, &corners[0][at..]);
                for corner in &corners[1..] {
                    largest = simd.max(largest, T::load(simd, &corner[at..]));
                }
                T::store(simd, &mut out[at..], largest);
                at += S::LANES;
            }
            while at < channels {
                let mut largest = corners[0][at];
                for corner in &corners[1..] {
                    if corner[at].to_f32() > largest.to_f32() {
                        largest = corner[at];
                    }
                }
                out[at] = largest;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::stages::simd::tests::noise;

    #[test]
    fn takes_the_largest_of_each_square() {
        for shape in [[1, 2, 2, 1], [2, 5, 7, 3], [1, 4, 6, 16], [1, 3, 2, 35], [3, 64, 50, 20]] {
            let [batch, height, width, channels] = shape;
            let x: Vec<f16> = noise(1, batch * height * width * channels).into_iter().map(f16::from_f32).collect();
            let wide: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
            let mut expected = Vec::new();
            for n in 0..batch {
                for y in 0..height / 2 {
                    for x in 0..width / 2 {
                        for c in 0..channels {
                            let at = |dy, dx| wide[((n * height + 2 * y + dy) * width + 2 * x + dx) * channels + c];
                            expected.push(at(0, 0).max(at(0, 1)).max(at(1, 0)).max(at(1, 1)));
                        }
                    }
                }
            }
            for isa in Isa::available() {
                let mut out = vec![0.0f32; expected.len()];
                max_pool_2x2_with(isa, &wide, shape, &mut out).unwrap();
                assert_eq!(out, expected, "{isa:?} {shape:?}");
                let mut out = vec![f16::ZERO; expected.len()];
                max_pool_2x2_with(isa, &x, shape, &mut out).unwrap();
                assert!(out.iter().zip(&expected).all(|(a, b)| a.to_f32() == *b), "{isa:?} {shape:?}");
            }
        }
    }

    #[test]
    fn images_too_small_to_halve_are_refused() {
        assert!(max_pool_2x2::<f32>(&[0.0; 3], [1, 1, 3, 1], &mut []).is_err());
        assert!(max_pool_2x2(&[0.0f32; 4], [1, 2, 2, 1], &mut [0.0; 2]).is_err());
    }
}
