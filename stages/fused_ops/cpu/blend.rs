//! The temporal blend of a frame with the one before.

use super::error::{KernelError, expect_length, expect_nonzero};
use super::rows::for_row_runs;
use crate::stages::simd::{Element, Isa, Kernel, MAX_LANES, Simd};

/// How much of the current frame is taken.
#[derive(Debug, Clone, Copy)]
pub enum Alpha<'a, T> {
    /// The same everywhere.
    Uniform(f32),
    /// One value for each pixel, `(batch, height, width, 1)`.
    PerPixel(&'a [T]),
}

/// `out = alpha · current + (1 − alpha) · previous`.
///
/// `current`, `previous` and `out` are `(pixels, channels)`, dense, with the pixels of all images in a row.
/// Alpha 1 gives `current` and alpha 0 `previous`, exactly.
///
/// # Errors
/// When `channels` is zero or lengths do not fit.
pub fn temporal_blend<T: Element>(
    current: &[T],
    previous: &[T],
    alpha: Alpha<'_, T>,
    channels: usize,
    out: &mut [T],
) -> Result<(), KernelError> {
    temporal_blend_with(Isa::best(), current, previous, alpha, channels, out)
}

/// [`temporal_blend`] with a given instruction set, to compare them.
///
/// # Errors
/// As [`temporal_blend`].
pub fn temporal_blend_with<T: Element>(
    isa: Isa,
    current: &[T],
    previous: &[T],
    alpha: Alpha<'_, T>,
    channels: usize,
    out: &mut [T],
) -> Result<(), KernelError> {
    expect_nonzero("temporal_blend channels", &[channels])?;
    let pixels = out.len() / channels;
    let shape = [pixels, channels];
    expect_length("temporal_blend output", &shape, out.len())?;
    expect_length("temporal_blend current", &shape, current.len())?;
    expect_length("temporal_blend previous", &shape, previous.len())?;
    if let Alpha::PerPixel(alpha) = alpha {
        expect_length("temporal_blend alpha", &[pixels, 1], alpha.len())?;
    }
    for_row_runs(out, channels, |first, out| {
        let run = first * channels..first * channels + out.len();
        isa.run(Run {
            current: &current[run.clone()],
            previous: &previous[run],
            alpha: match alpha {
                Alpha::Uniform(alpha) => Alpha::Uniform(alpha),
                Alpha::PerPixel(alpha) => Alpha::PerPixel(&alpha[first..][..out.len() / channels]),
            },
            channels,
            out,
        });
    });
    Ok(())
}

struct Run<'a, T> {
    current: &'a [T],
    previous: &'a [T],
    alpha: Alpha<'a, T>,
    channels: usize,
    out: &'a mut [T],
}

/// Values for which alpha is written out at once.
const SPREAD: usize = 256;

impl<T: Element> Kernel for Run<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            current,
            previous,
            alpha,
            channels,
            out,
        } = self;
        match alpha {
            Alpha::Uniform(alpha) => blend_uniform(simd, current, previous, alpha, out),
            Alpha::PerPixel(alpha) if channels >= S::LANES || channels > SPREAD => {
                for (pixel, alpha) in alpha.iter().enumerate() {
                    let run = pixel * channels..(pixel + 1) * channels;
                    let (current, previous) = (&current[run.clone()], &previous[run.clone()]);
                    blend_uniform(simd, current, previous, alpha.to_f32(), &mut out[run]);
                }
            }
            Alpha::PerPixel(alpha) => {
                // Few channels: alpha is repeated into full vectors.
                let mut spread = [0.0f32; SPREAD + MAX_LANES];
                let pixels = SPREAD / channels;
                for (block, alpha) in alpha.chunks(pixels).enumerate() {
                    for (target, alpha) in spread.chunks_exact_mut(channels).zip(alpha) {
                        target.fill(alpha.to_f32());
                    }
                    let start = block * pixels * channels;
                    let run = start..start + alpha.len() * channels;
                    let (current, previous) = (&current[run.clone()], &previous[run.clone()]);
                    blend_spread(simd, current, previous, &spread, &mut out[run]);
                }
            }
        }
    }
}

#[inline(always)]
fn blend_uniform<S: Simd, T: Element>(
    simd: S,
    current: &[T],
    previous: &[T],
    alpha: f32,
    out: &mut [T],
) {
    let (near, far) = (simd.splat(alpha), simd.splat(1.0 - alpha));
    let mut at = 0;
    while at + S::LANES <= out.len() {
        let before = simd.mul(T::load(simd, &previous[at..]), far);
        let value = simd.mul_add(T::load(simd, &current[at..]), near, before);
        T::store(simd, &mut out[at..], value);
        at += S::LANES;
    }
    if at < out.len() {
        let before = simd.mul(T::load_some(simd, &previous[at..]), far);
        let value = simd.mul_add(T::load_some(simd, &current[at..]), near, before);
        T::store_some(simd, &mut out[at..], value);
    }
}

#[inline(always)]
fn blend_spread<S: Simd, T: Element>(
    simd: S,
    current: &[T],
    previous: &[T],
    alpha: &[f32],
    out: &mut [T],
) {
    let one = simd.splat(1.0);
    let mut at = 0;
    while at < out.len() {
        let whole = at + S::LANES <= out.len();
        let (now, before) = if whole {
            (
                T::load(simd, &current[at..]),
                T::load(simd, &previous[at..]),
            )
        } else {
            (
                T::load_some(simd, &current[at..]),
                T::load_some(simd, &previous[at..]),
            )
        };
        let near = f32::load(simd, &alpha[at..]);
        let value = simd.mul_add(now, near, simd.mul(before, simd.sub(one, near)));
        if whole {
            T::store(simd, &mut out[at..], value);
        } else {
            T::store_some(simd, &mut out[at..], value);
        }
        at += S::LANES;
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::stages::simd::tests::noise;

    #[test]
    fn mixes_by_one_number_or_by_pixel() {
        for (pixels, channels) in [
            (1, 1),
            (85, 3),
            (300, 4),
            (7, 16),
            (40, 50),
            (3, 300),
            (30_000, 3),
        ] {
            let half = |seed, count| -> Vec<f16> {
                noise(seed, count).into_iter().map(f16::from_f32).collect()
            };
            let (current, previous) = (half(1, pixels * channels), half(2, pixels * channels));
            let alphas: Vec<f16> = half(3, pixels)
                .iter()
                .map(|x| f16::from_f32(x.to_f32().abs()))
                .collect();
            let wide = |values: &[f16]| -> Vec<f32> { values.iter().map(|x| x.to_f32()).collect() };
            let (current32, previous32, alphas32) =
                (wide(&current), wide(&previous), wide(&alphas));
            for isa in Isa::available() {
                for uniform in [true, false] {
                    let alpha32 = if uniform {
                        Alpha::Uniform(0.3)
                    } else {
                        Alpha::PerPixel(&alphas32[..])
                    };
                    let alpha16 = if uniform {
                        Alpha::Uniform(0.3)
                    } else {
                        Alpha::PerPixel(&alphas[..])
                    };
                    let mut out = vec![0.0f32; current.len()];
                    temporal_blend_with(isa, &current32, &previous32, alpha32, channels, &mut out)
                        .unwrap();
                    let mut rounded = vec![f16::ZERO; current.len()];
                    temporal_blend_with(isa, &current, &previous, alpha16, channels, &mut rounded)
                        .unwrap();
                    for i in 0..out.len() {
                        let alpha = if uniform {
                            f64::from(0.3f32)
                        } else {
                            f64::from(alphas32[i / channels])
                        };
                        let exact = alpha * f64::from(current32[i])
                            + (1.0 - alpha) * f64::from(previous32[i]);
                        assert!(
                            (f64::from(out[i]) - exact).abs() < 2e-7,
                            "{isa:?} {pixels} {channels}"
                        );
                        assert!(
                            (rounded[i].to_f64() - exact).abs() <= exact.abs() / 2048.0 + 1e-6,
                            "{isa:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_ends_are_exact_and_lengths_are_checked() {
        let (now, before) = (noise(1, 21), noise(2, 21));
        let mut out = vec![0.0f32; 21];
        temporal_blend(&now, &before, Alpha::Uniform(1.0), 3, &mut out).unwrap();
        assert_eq!(out, now);
        temporal_blend(&now, &before, Alpha::PerPixel(&[0.0; 7]), 3, &mut out).unwrap();
        assert_eq!(out, before);
        assert!(temporal_blend(&now, &before, Alpha::PerPixel(&[0.0; 6]), 3, &mut out).is_err());
        assert!(temporal_blend(&now, &before, Alpha::Uniform(0.5), 2, &mut out).is_err());
        assert!(temporal_blend(&now, &before, Alpha::Uniform(0.5), 0, &mut out).is_err());
    }
}
