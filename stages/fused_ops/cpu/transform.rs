//! Winograd's transforms for 3x3 kernels and 2x2 outputs, F(2x2, 3x3), on vectors of channels.
//!
//! `output = Aᵀ [(G g Gᵀ) ∘ (Bᵀ d B)] A` (Lavin and Gray, 2015): 16 products for four outputs instead
//! of 36. The factors are 0, ±1 and ±1/2, so little precision is lost.
#![expect(clippy::needless_range_loop, reason = "rows and columns of small matrices are indexed, as in the formulas")]

/// Elements of a transformed 4x4 tile.
pub(super) const ELEMENTS: usize = 16;

/// Transforms a tile of 4x4 pixels, whose channels start at `pixels[4 · row + column]`: element `e`
/// of channel `c` goes to `target[e · pitch + c]`.
///
/// # Safety
/// The instruction set is available; each pixel can be read and each element written at
/// `0..channels`, a multiple of 16.
pub(super) type TransformInput =
    unsafe fn(pixels: &[*const f32; ELEMENTS], channels: usize, target: *mut f32, pitch: usize);

/// Transforms `count` 3x3 kernels side by side, whose values start at `taps[3 · row + column]`:
/// element `e` of kernel `n` goes to `target[e · pitch + n]`.
///
/// # Safety
/// As [`TransformInput`]; `count` is a multiple of half a panel's columns.
pub(super) type TransformWeights = unsafe fn(taps: &[*const f32; 9], count: usize, target: *mut f32, pitch: usize);

/// Transforms sums back: element `e` of column `n` comes from `sums[e · pitch + n]`, the pixel at
/// `(row, column)` goes to `target[row · line + column · columns + n]`.
///
/// # Safety
/// As [`TransformWeights`].
pub(super) type TransformOutput =
    unsafe fn(sums: *const f32, pitch: usize, columns: usize, target: *mut f32, line: usize);

/// The three transforms of an instruction set.
pub(super) struct Transforms {
    pub(super) input: TransformInput,
    pub(super) weights: TransformWeights,
    pub(super) output: TransformOutput,
}

type Lanes<const LANES: usize> = [f32; LANES];

#[inline(always)]
fn add<const LANES: usize>(a: Lanes<LANES>, b: Lanes<LANES>) -> Lanes<LANES> {
    let mut sum = a;
    for lane in 0..LANES {
        sum[lane] += b[lane];
    }
    sum
}

#[inline(always)]
fn subtract<const LANES: usize>(a: Lanes<LANES>, b: Lanes<LANES>) -> Lanes<LANES> {
    let mut difference = a;
    for lane in 0..LANES {
        difference[lane] -= b[lane];
    }
    difference
}

#[inline(always)]
fn halve<const LANES: usize>(a: Lanes<LANES>) -> Lanes<LANES> {
    let mut half = a;
    for value in &mut half {
        *value *= 0.5;
    }
    half
}

/// Bᵀ of four values.
#[inline(always)]
fn input_line<const LANES: usize>(d: [Lanes<LANES>; 4]) -> [Lanes<LANES>; 4] {
    [subtract(d[0], d[2]), add(d[1], d[2]), subtract(d[2], d[1]), subtract(d[1], d[3])]
}

/// G of three values.
#[inline(always)]
fn weight_line<const LANES: usize>(g: [Lanes<LANES>; 3]) -> [Lanes<LANES>; 4] {
    let ends = add(g[0], g[2]);
    [g[0], halve(add(ends, g[1])), halve(subtract(ends, g[1])), g[2]]
}

/// Aᵀ of four values.
#[inline(always)]
fn output_line<const LANES: usize>(m: [Lanes<LANES>; 4]) -> [Lanes<LANES>; 2] {
    [add(add(m[0], m[1]), m[2]), subtract(subtract(m[1], m[2]), m[3])]
}

/// See [`TransformInput`].
#[inline(always)]
unsafe fn input<const LANES: usize>(pixels: &[*const f32; ELEMENTS], channels: usize, target: *mut f32, pitch: usize) {
    for channel in (0..channels).step_by(LANES) {
        // SAFETY: the caller's promise, for `LANES` channels that start below `channels`; an array
        // of f32 has f32's alignment.
        unsafe {
            let mut lines = [[[0f32; LANES]; 4]; 4];
            for row in 0..4 {
                let mut line = [[0f32; LANES]; 4];
                for column in 0..4 {
                    line[column] = pixels[4 * row + column].add(channel).cast::<Lanes<LANES>>().read();
                }
                lines[row] = input_line(line);
            }
            for column in 0..4 {
                let line = [lines[0][column], lines[1][column], lines[2][column], lines[3][column]];
                for (row, value) in input_line(line).into_iter().enumerate() {
                    let place = target.add((4 * row + column) * pitch + channel);
                    place.cast::<Lanes<LANES>>().write(value);
                }
            }
        }
    }
}

/// See [`TransformWeights`].
#[inline(always)]
unsafe fn weights<const LANES: usize>(taps: &[*const f32; 9], count: usize, target: *mut f32, pitch: usize) {
    for first in (0..count).step_by(LANES) {
        // SAFETY: as in `input`.
        unsafe {
            let mut lines = [[[0f32; LANES]; 4]; 3];
            for row in 0..3 {
                let mut line = [[0f32; LANES]; 3];
                for column in 0..3 {
                    line[column] = taps[3 * row + column].add(first).cast::<Lanes<LANES>>().read();
                }
                lines[row] = weight_line(line);
            }
            for column in 0..4 {
                let line = [lines[0][column], lines[1][column], lines[2][column]];
                for (row, value) in weight_line(line).into_iter().enumerate() {
                    let place = target.add((4 * row + column) * pitch + first);
                    place.cast::<Lanes<LANES>>().write(value);
                }
            }
        }
    }
}

/// See [`TransformOutput`].
#[inline(always)]
unsafe fn output<const LANES: usize>(sums: *const f32, pitch: usize, columns: usize, target: *mut f32, line: usize) {
    for first in (0..columns).step_by(LANES) {
        // SAFETY: as in `input`.
        unsafe {
            let mut lines = [[[0f32; LANES]; 2]; 4];
            for row in 0..4 {
                let mut values = [[0f32; LANES]; 4];
                for column in 0..4 {
                    let place = sums.add((4 * row + column) * pitch + first);
                    values[column] = place.cast::<Lanes<LANES>>().read();
                }
                lines[row] = output_line(values);
            }
            for column in 0..2 {
                let values = [lines[0][column], lines[1][column], lines[2][column], lines[3][column]];
                for (row, value) in output_line(values).into_iter().enumerate() {
                    let place = target.add(row * line + column * columns + first);
                    place.cast::<Lanes<LANES>>().write(value);
                }
            }
        }
    }
}

/// The three transforms, compiled for one instruction set.
macro_rules! transforms {
    ($name:ident, $lanes:literal $(, $feature:literal)?) => {
        pub(super) mod $name {
            use super::{ELEMENTS, Transforms};

            /// See [`TransformInput`](super::TransformInput).
            $(#[target_feature(enable = $feature)])?
            unsafe fn input(p: &[*const f32; ELEMENTS], channels: usize, t: *mut f32, pitch: usize) {
                // SAFETY: the caller's promise is the same.
                unsafe { super::input::<$lanes>(p, channels, t, pitch) }
            }

            /// See [`TransformWeights`](super::TransformWeights).
            $(#[target_feature(enable = $feature)])?
            unsafe fn weights(taps: &[*const f32; 9], count: usize, t: *mut f32, pitch: usize) {
                // SAFETY: the caller's promise is the same.
                unsafe { super::weights::<$lanes>(taps, count, t, pitch) }
            }

            /// See [`TransformOutput`](super::TransformOutput).
            $(#[target_feature(enable = $feature)])?
            unsafe fn output(s: *const f32, pitch: usize, columns: usize, t: *mut f32, line: usize) {
                // SAFETY: the caller's promise is the same.
                unsafe { super::output::<$lanes>(s, pitch, columns, t, line) }
            }

            pub(in super::super) static TRANSFORMS: Transforms = Transforms {
                input,
                weights,
                output,
            };
        }
    };
}

transforms!(portable, 4);
#[cfg(target_arch = "x86_64")]
transforms!(avx2, 8, "avx2,fma");
#[cfg(target_arch = "x86_64")]
transforms!(avx512, 16, "avx512f");
