//! Four lanes in plain arrays, which the compiler maps to whatever vectors the target has.

use half::f16;

use super::{MAX_LANES, Simd, sealed::Token};

/// Runs anywhere.
#[derive(Clone, Copy)]
pub struct Portable;

impl Token for Portable {}

const LANES: usize = 4;

macro_rules! binary {
    ($($name:ident = |$a:ident, $b:ident| $value:expr),*) => {
        $(#[inline(always)]
        fn $name(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
            let mut result = [0.0; LANES];
            for lane in 0..LANES {
                let ($a, $b) = (a[lane], b[lane]);
                result[lane] = $value;
            }
            result
        })*
    };
}

impl Simd for Portable {
    type V = [f32; LANES];
    const LANES: usize = LANES;
    const ACCUMULATORS: usize = 8;

    binary!(
        add = |a, b| a + b,
        sub = |a, b| a - b,
        mul = |a, b| a * b,
        div = |a, b| a / b,
        max = |a, b| if a > b { a } else { b },
        min = |a, b| if a < b { a } else { b },
        scale = |a, shifted| f32::from_bits(a.to_bits().wrapping_add(shifted.to_bits() << 23))
    );

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load_ptr(self, source: *const f32) -> [f32; LANES] {
        // SAFETY: the caller holds that `LANES` values can be read.
        unsafe { source.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, target: *mut f32, vector: [f32; LANES]) {
        // SAFETY: the caller holds that `LANES` values can be written.
        unsafe { target.cast::<[f32; LANES]>().write_unaligned(vector) }
    }

    #[inline(always)]
    unsafe fn load_f16_ptr(self, source: *const f16) -> [f32; LANES] {
        // SAFETY: the caller holds that `LANES` values can be read.
        unsafe { source.cast::<[f16; LANES]>().read_unaligned() }.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn store_f16_ptr(self, target: *mut f16, vector: [f32; LANES]) {
        // SAFETY: the caller holds that `LANES` values can be written.
        unsafe {
            target
                .cast::<[f16; LANES]>()
                .write_unaligned(vector.map(f16::from_f32));
        }
    }

    #[inline(always)]
    fn mul_add(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        let mut result = [0.0; LANES];
        for lane in 0..LANES {
            // `f32::mul_add` is a library call where the target is not known to have the instruction.
            result[lane] = if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                a[lane].mul_add(b[lane], c[lane])
            } else {
                a[lane] * b[lane] + c[lane]
            };
        }
        result
    }

    #[inline(always)]
    fn sum(self, a: [f32; LANES]) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }

    #[inline(always)]
    fn transpose(self, block: &mut [[f32; LANES]; MAX_LANES]) {
        let original = *block;
        for (i, row) in block.iter_mut().enumerate().take(LANES) {
            for (j, value) in row.iter_mut().enumerate() {
                *value = original[j][i];
            }
        }
    }
}
