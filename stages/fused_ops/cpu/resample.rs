//! Doubling of channels-last images, written straight into a slice of the channels of a larger image.

use super::error::{KernelError, expect_length, expect_nonzero};
use super::rows::for_row_runs;
use crate::stages::simd::{Element, Isa, Kernel, Simd};

/// Some of the channels of a dense `(batch, height, width, channels)` image; the others are left as they
/// are. So `cat(up(x), skip)` is two writes into one image, with nothing in between.
#[derive(Debug)]
pub struct ChannelSlice<'a, T> {
    /// The whole image.
    pub values: &'a mut [T],
    /// All of its channels.
    pub channels: usize,
    /// The first channel to write.
    pub first: usize,
}

impl<'a, T> ChannelSlice<'a, T> {
    /// All channels of an image.
    pub fn whole(values: &'a mut [T], channels: usize) -> Self {
        Self { values, channels, first: 0 }
    }

    fn check(&self, what: &'static str, mut shape: [usize; 4]) -> Result<(), KernelError> {
        let written = shape[3];
        if self.first.checked_add(written).is_none_or(|end| end > self.channels) {
            return Err(KernelError::Shape {
                what,
                reason: format!("{written} channels from channel {} on do not fit into {}", self.first, self.channels),
            });
        }
        shape[3] = self.channels;
        expect_length(what, &shape, self.values.len())
    }
}

/// How a doubled image is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upsample {
    /// Each value four times.
    Nearest,
    /// Weights 1/4 and 3/4 by the distance of the pixels' centres (`align_corners = false`), the edge repeated.
    Bilinear,
}

/// Doubles height and width.
///
/// `x` is `(batch, height, width, channels)`, dense; `out` is a slice of the channels of
/// `(batch, 2 · height, 2 · width, …)`.
///
/// # Errors
/// When a size is zero, a slice does not fit its shape, or the channels do not fit into `out`.
pub fn upsample_2x<T: Element>(
    mode: Upsample,
    x: &[T],
    shape: [usize; 4],
    out: ChannelSlice<'_, T>,
) -> Result<(), KernelError> {
    upsample_2x_with(Isa::best(), mode, x, shape, out)
}

/// [`upsample_2x`] with a given instruction set, to compare them.
///
/// # Errors
/// As [`upsample_2x`].
pub fn upsample_2x_with<T: Element>(
    isa: Isa,
    mode: Upsample,
    x: &[T],
    shape: [usize; 4],
    out: ChannelSlice<'_, T>,
) -> Result<(), KernelError> {
    let [batch, height, width, channels] = shape;
    expect_nonzero("upsample input", &shape)?;
    expect_length("upsample input", &shape, x.len())?;
    let doubled = [2 * height, 2 * width];
    out.check("upsample output", [batch, doubled[0], doubled[1], channels])?;
    let (in_row, out_row) = (width * channels, 2 * width * out.channels);
    for_row_runs(out.values, 2 * out_row, |first, values| {
        for (i, pair) in values.chunks_exact_mut(2 * out_row).enumerate() {
            let (image, y) = ((first + i) / height, (first + i) % height);
            let row = |y: usize| &x[(image * height + y) * in_row..][..in_row];
            let (upper, lower) = pair.split_at_mut(out_row);
            let rows = RowPair {
                sources: [row(y.saturating_sub(1)), row(y), row((y + 1).min(height - 1))],
                channels,
                targets: [upper, lower],
                target_channels: out.channels,
                first: out.first,
            };
            match mode {
                Upsample::Bilinear => isa.run(Bilinear(rows)),
                Upsample::Nearest => rows.repeat(),
            }
        }
    });
    Ok(())
}

/// A row of the input with its neighbours, and the two rows of the output that it makes.
struct RowPair<'a, T> {
    sources: [&'a [T]; 3],
    channels: usize,
    targets: [&'a mut [T]; 2],
    target_channels: usize,
    first: usize,
}

impl<T: Element> RowPair<'_, T> {
    fn repeat(self) {
        let written = self.first..self.first + self.channels;
        for target in self.targets {
            let pairs = target.chunks_exact_mut(2 * self.target_channels);
            for (source, pair) in self.sources[1].chunks_exact(self.channels).zip(pairs) {
                let (left, right) = pair.split_at_mut(self.target_channels);
                left[written.clone()].copy_from_slice(source);
                right[written.clone()].copy_from_slice(source);
            }
        }
    }
}

struct Bilinear<'a, T>(RowPair<'a, T>);

impl<T: Element> Kernel for Bilinear<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let channels = self.0.channels;
        let mut at = 0;
        while at + 4 * S::LANES <= channels {
            self.strip::<S, 4>(simd, at);
            at += 4 * S::LANES;
        }
        while at < channels {
            self.strip::<S, 1>(simd, at);
            at += S::LANES;
        }
    }
}

impl<T: Element> Bilinear<'_, T> {
    /// `C` vectors of channels from `at` on, along the row; a single one may be cut short by the last
    /// channel. Each column of the input is mixed with its neighbours above and below once.
    #[inline(always)]
    fn strip<S: Simd, const C: usize>(&mut self, simd: S, at: usize) {
        let RowPair { sources, channels, targets: [upper, lower], target_channels, first } = &mut self.0;
        let count = (*channels - at).min(C * S::LANES);
        let mut before = None;
        let mut here = column::<S, T, C>(simd, sources, at, count);
        let mut next_column = *channels + at;
        let pairs = upper.chunks_exact_mut(2 * *target_channels).zip(lower.chunks_exact_mut(2 * *target_channels));
        for (upper, lower) in pairs {
            // Beyond the edge the last column repeats.
            let after = if next_column < sources[1].len() {
                column::<S, T, C>(simd, sources, next_column, count)
            } else {
                here
            };
            next_column += *channels;
            let sides = [before.unwrap_or(here), after];
            for (row, target) in [upper, lower].into_iter().enumerate() {
                for (side, far) in sides.iter().enumerate() {
                    let start = side * *target_channels + *first + at;
                    let target = &mut target[start..start + count];
                    for c in 0..C {
                        let value = mix(simd, here[row][c], far[row][c]);
                        store_up_to(simd, &mut target[c * S::LANES..], value);
                    }
                }
            }
            before = Some(here);
            here = after;
        }
    }
}

/// One column of the upper and of the lower output row, before it is mixed with the columns beside it.
#[inline(always)]
fn column<S: Simd, T: Element, const C: usize>(
    simd: S,
    sources: &[&[T]; 3],
    start: usize,
    count: usize,
) -> [[S::V; C]; 2] {
    let [above, row, below] = sources;
    let (above, row, below) = (&above[start..start + count], &row[start..start + count], &below[start..start + count]);
    let mut mixed = [[simd.splat(0.0); C]; 2];
    for c in 0..C {
        let here = load_up_to(simd, &row[c * S::LANES..]);
        mixed[0][c] = mix(simd, here, load_up_to(simd, &above[c * S::LANES..]));
        mixed[1][c] = mix(simd, here, load_up_to(simd, &below[c * S::LANES..]));
    }
    mixed
}

#[inline(always)]
fn load_up_to<S: Simd, T: Element>(simd: S, values: &[T]) -> S::V {
    if values.len() >= S::LANES { T::load(simd, values) } else { T::load_some(simd, values) }
}

#[inline(always)]
fn store_up_to<S: Simd, T: Element>(simd: S, target: &mut [T], vector: S::V) {
    if target.len() >= S::LANES {
        T::store(simd, target, vector);
    } else {
        T::store_some(simd, target, vector);
    }
}

/// Three quarters of the near value, one of the far one.
#[inline(always)]
fn mix<S: Simd>(simd: S, near: S::V, far: S::V) -> S::V {
    simd.mul_add(near, simd.splat(0.75), simd.mul(far, simd.splat(0.25)))
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::stages::simd::tests::noise;

    /// torch.nn.Upsample(scale_factor = 2, align_corners = False), from its definition.
    fn plain(mode: Upsample, x: &[f32], [batch, height, width, channels]: [usize; 4]) -> Vec<f64> {
        let place = |at: usize, len: usize| match mode {
            Upsample::Nearest => (at / 2, at / 2, 0.0),
            Upsample::Bilinear => {
                let source = ((at as f64 + 0.5) / 2.0 - 0.5).max(0.0);
                let low = source as usize;
                (low, (low + 1).min(len - 1), source - low as f64)
            }
        };
        let mut out = Vec::new();
        for n in 0..batch {
            for y in 0..2 * height {
                for x_out in 0..2 * width {
                    let ((top, bottom, dy), (left, right, dx)) = (place(y, height), place(x_out, width));
                    for c in 0..channels {
                        let at = |y, x_in| f64::from(x[((n * height + y) * width + x_in) * channels + c]);
                        let upper = at(top, left) * (1.0 - dx) + at(top, right) * dx;
                        let lower = at(bottom, left) * (1.0 - dx) + at(bottom, right) * dx;
                        out.push(upper * (1.0 - dy) + lower * dy);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn doubles_into_a_slice_of_channels_and_touches_nothing_else() {
        for shape in [[1, 1, 1, 1], [2, 3, 5, 3], [1, 4, 1, 16], [1, 2, 3, 37], [2, 33, 40, 20]] {
            let [batch, height, width, channels] = shape;
            let x: Vec<f16> = noise(1, batch * height * width * channels).into_iter().map(f16::from_f32).collect();
            let wide: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
            for mode in [Upsample::Nearest, Upsample::Bilinear] {
                let expected = plain(mode, &wide, shape);
                for isa in Isa::available() {
                    for (before, after) in [(0, 0), (2, 5)] {
                        let all = before + channels + after;
                        let pixels = 4 * batch * height * width;
                        let mut out = vec![9e9f32; pixels * all];
                        let mut halves = vec![f16::MAX; pixels * all];
                        let slice = ChannelSlice { values: &mut out, channels: all, first: before };
                        upsample_2x_with(isa, mode, &wide, shape, slice).unwrap();
                        let slice = ChannelSlice { values: &mut halves, channels: all, first: before };
                        upsample_2x_with(isa, mode, &x, shape, slice).unwrap();
                        for (i, value) in out.iter().enumerate() {
                            let (pixel, c) = (i / all, i % all);
                            if c < before || c >= before + channels {
                                assert!(*value == 9e9 && halves[i] == f16::MAX, "{isa:?} {shape:?} {i}");
                                continue;
                            }
                            let exact = expected[pixel * channels + c - before];
                            assert!((f64::from(*value) - exact).abs() < 2e-7, "{isa:?} {shape:?} {i}");
                            assert!((halves[i].to_f64() - exact).abs() <= exact.abs() / 2048.0 + 1e-6, "{isa:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn slices_that_do_not_fit_are_refused() {
        let mut out = [0.0f32; 4 * 5];
        for (channels, first) in [(5, 4), (5, usize::MAX), (4, 0)] {
            let slice = ChannelSlice { values: &mut out, channels, first };
            assert!(upsample_2x(Upsample::Nearest, &[0.0; 2], [1, 1, 1, 2], slice).is_err());
        }
    }
}
