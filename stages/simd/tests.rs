//! Every instruction set against f64.

use super::*;

/// Numbers in [-1, 1) that differ from seed to seed.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

struct Map<'a> {
    function: u8,
    values: &'a mut [f32],
}

impl Kernel for Map<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for chunk in self.values.chunks_exact_mut(S::LANES) {
            let x = f32::load(simd, chunk);
            let y = match self.function {
                0 => exp2(simd, x),
                1 => exp(simd, x),
                _ => silu(simd, x),
            };
            f32::store(simd, chunk, y);
        }
    }
}

struct Transpose<'a>(&'a mut [f32]);

impl Kernel for Transpose<'_> {
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> usize {
        let mut block = [simd.splat(-1.0); MAX_LANES];
        for (i, vector) in block.iter_mut().enumerate().take(S::LANES) {
            *vector = f32::load(simd, &self.0[i * S::LANES..]);
        }
        simd.transpose(&mut block);
        for (i, vector) in block.iter().enumerate().take(S::LANES) {
            f32::store(simd, &mut self.0[i * S::LANES..], *vector);
        }
        S::LANES
    }
}

#[test]
fn exponentials_are_accurate_to_a_few_roundings() {
    let inputs: Vec<f32> = (0..160_000)
        .map(|i| (i as f32 - 80_000.0) * 1.0837e-3)
        .collect();
    for isa in Isa::available() {
        for (function, reference) in [(0, f64::exp2 as fn(f64) -> f64), (1, f64::exp)] {
            let mut outputs = inputs.clone();
            isa.run(Map {
                function,
                values: &mut outputs,
            });
            let worst = inputs.iter().zip(&outputs).fold(0.0f64, |worst, (&x, &y)| {
                let exact = reference(f64::from(x));
                worst.max(((f64::from(y) - exact) / exact).abs())
            });
            assert!(worst < 4e-7, "{isa:?} function {function}: {worst:e}");
        }
        let mut outputs = inputs.clone();
        isa.run(Map {
            function: 2,
            values: &mut outputs,
        });
        for (&x, &y) in inputs.iter().zip(&outputs) {
            let x = f64::from(x);
            let exact = x / (1.0 + (-x).exp());
            assert!(
                (f64::from(y) - exact).abs() <= 5e-7 * exact.abs() + 1e-30,
                "{isa:?} silu({x}) {y}"
            );
        }
    }
}

#[test]
fn extremes_of_the_exponentials() {
    let inputs = [
        0.0,
        -0.0,
        -1e4,
        1e4,
        f32::NEG_INFINITY,
        f32::INFINITY,
        f32::NAN,
        f32::MIN,
    ];
    for isa in Isa::available() {
        for function in 0..3 {
            let mut y = [0.0; 16];
            y[..8].copy_from_slice(&inputs);
            isa.run(Map {
                function,
                values: &mut y,
            });
            if function < 2 {
                assert_eq!((y[0], y[1]), (1.0, 1.0), "{isa:?}");
                assert!(
                    y[2] < 2e-38 && y[4] < 2e-38 && y[7] < 2e-38,
                    "{isa:?} {y:?}"
                );
            } else {
                assert_eq!((y[0], y[3], y[5]), (0.0, 1e4, f32::INFINITY), "{isa:?}");
                for low in [y[2], y[4], y[7]] {
                    assert!(low.abs() < 1e-36, "{isa:?} {y:?}");
                }
            }
            if function == 1 {
                assert!(y[3] > 1e38 && y[5] > 1e38, "{isa:?} {y:?}");
            }
            assert!(y[6].is_nan(), "{isa:?} function {function}");
        }
    }
}

#[test]
fn transposing_swaps_rows_and_columns() {
    for isa in Isa::available() {
        let mut values: Vec<f32> = (0..256).map(|i| i as f32).collect();
        let lanes = isa.run(Transpose(&mut values));
        for i in 0..lanes {
            for j in 0..lanes {
                assert_eq!(
                    values[i * lanes + j],
                    (j * lanes + i) as f32,
                    "{isa:?} {i} {j}"
                );
            }
        }
    }
}

#[test]
fn scratch_is_aligned_and_grows() {
    let mut scratch = Scratch::new();
    for len in [1, 16, 1000, 17] {
        let values = scratch.take(len);
        assert!(values.len() >= len && values.as_ptr().addr().is_multiple_of(64));
    }
}
