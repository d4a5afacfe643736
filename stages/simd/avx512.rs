//! Sixteen lanes with AVX-512F.

use std::arch::x86_64::*;

use half::f16;

use super::{MAX_LANES, Simd, sealed::Token};

/// Proof that this machine has AVX-512F, AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The machine must have AVX-512F, AVX2, FMA and F16C.
    #[inline(always)]
    pub(super) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Token for Avx512 {}

macro_rules! binary {
    ($($name:ident = $intrinsic:ident),*) => {
        $(#[inline(always)]
        fn $name(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` proves that the machine has the instruction.
            unsafe { $intrinsic(a, b) }
        })*
    };
}

impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const ACCUMULATORS: usize = 16;

    binary!(
        add = _mm512_add_ps,
        sub = _mm512_sub_ps,
        mul = _mm512_mul_ps,
        div = _mm512_div_ps,
        max = _mm512_max_ps,
        min = _mm512_min_ps
    );

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` proves that the machine has the instruction.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, source: *const f32) -> __m512 {
        // SAFETY: the caller holds that 16 values can be read; unaligned loads are used.
        unsafe { _mm512_loadu_ps(source) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, target: *mut f32, vector: __m512) {
        // SAFETY: the caller holds that 16 values can be written; unaligned stores are used.
        unsafe { _mm512_storeu_ps(target, vector) }
    }

    #[inline(always)]
    unsafe fn load_f16_ptr(self, source: *const f16) -> __m512 {
        // SAFETY: the caller holds that 16 values of 2 bytes can be read; the load is unaligned.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(source.cast())) }
    }

    #[inline(always)]
    unsafe fn store_f16_ptr(self, target: *mut f16, vector: __m512) {
        // SAFETY: the caller holds that 16 values of 2 bytes can be written; the store is unaligned.
        unsafe {
            _mm256_storeu_si256(
                target.cast(),
                _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(vector),
            );
        }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves that the machine has the instruction.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn scale(self, a: __m512, shifted: __m512) -> __m512 {
        // SAFETY: `self` proves that the machine has the instructions.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), exponent))
        }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        // SAFETY: `self` proves that the machine has the instructions.
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    fn transpose(self, block: &mut [__m512; MAX_LANES]) {
        // SAFETY: `self` proves that the machine has the instructions.
        unsafe {
            // Pairs of rows, then pairs of pairs within 128-bit lanes, then the 128-bit lanes themselves.
            let mut t = *block;
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_ps(block[2 * i], block[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_ps(block[2 * i], block[2 * i + 1]);
            }
            let mut u = t;
            for i in 0..4 {
                u[4 * i] = _mm512_shuffle_ps::<0x44>(t[4 * i], t[4 * i + 2]);
                u[4 * i + 1] = _mm512_shuffle_ps::<0xEE>(t[4 * i], t[4 * i + 2]);
                u[4 * i + 2] = _mm512_shuffle_ps::<0x44>(t[4 * i + 1], t[4 * i + 3]);
                u[4 * i + 3] = _mm512_shuffle_ps::<0xEE>(t[4 * i + 1], t[4 * i + 3]);
            }
            // u[4 g + c] lane l holds rows 4g..4g+4 of column 4 l + c.
            for c in 0..4 {
                let low_a = _mm512_shuffle_f32x4::<0x88>(u[c], u[4 + c]);
                let low_b = _mm512_shuffle_f32x4::<0x88>(u[8 + c], u[12 + c]);
                let high_a = _mm512_shuffle_f32x4::<0xDD>(u[c], u[4 + c]);
                let high_b = _mm512_shuffle_f32x4::<0xDD>(u[8 + c], u[12 + c]);
                block[c] = _mm512_shuffle_f32x4::<0x88>(low_a, low_b);
                block[8 + c] = _mm512_shuffle_f32x4::<0xDD>(low_a, low_b);
                block[4 + c] = _mm512_shuffle_f32x4::<0x88>(high_a, high_b);
                block[12 + c] = _mm512_shuffle_f32x4::<0xDD>(high_a, high_b);
            }
        }
    }
}
