//! Eight lanes with AVX2, FMA and F16C.

use std::arch::x86_64::*;

use half::f16;

use super::{MAX_LANES, Simd, sealed::Token};

/// Proof that this machine has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The machine must have AVX2, FMA and F16C.
    #[inline(always)]
    pub(super) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Token for Avx2 {}

macro_rules! binary {
    ($($name:ident = $intrinsic:ident),*) => {
        $(#[inline(always)]
        fn $name(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: `self` proves that the machine has the instruction.
            unsafe { $intrinsic(a, b) }
        })*
    };
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const ACCUMULATORS: usize = 8;

    binary!(
        add = _mm256_add_ps,
        sub = _mm256_sub_ps,
        mul = _mm256_mul_ps,
        div = _mm256_div_ps,
        max = _mm256_max_ps,
        min = _mm256_min_ps
    );

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: `self` proves that the machine has the instruction.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, source: *const f32) -> __m256 {
        // SAFETY: the caller holds that 8 values can be read; unaligned loads are used.
        unsafe { _mm256_loadu_ps(source) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, target: *mut f32, vector: __m256) {
        // SAFETY: the caller holds that 8 values can be written; unaligned stores are used.
        unsafe { _mm256_storeu_ps(target, vector) }
    }

    #[inline(always)]
    unsafe fn load_f16_ptr(self, source: *const f16) -> __m256 {
        // SAFETY: the caller holds that 8 values of 2 bytes can be read; the load is unaligned.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(source.cast())) }
    }

    #[inline(always)]
    unsafe fn store_f16_ptr(self, target: *mut f16, vector: __m256) {
        // SAFETY: the caller holds that 8 values of 2 bytes can be written; the store is unaligned.
        unsafe {
            _mm_storeu_si128(
                target.cast(),
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector),
            );
        }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` proves that the machine has the instruction.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn scale(self, a: __m256, shifted: __m256) -> __m256 {
        // SAFETY: `self` proves that the machine has the instructions.
        unsafe {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent))
        }
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        // SAFETY: `self` proves that the machine has the instructions.
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        }
    }

    #[inline(always)]
    fn transpose(self, block: &mut [__m256; MAX_LANES]) {
        // SAFETY: `self` proves that the machine has the instructions.
        unsafe {
            let mut t = *block;
            for i in 0..4 {
                t[2 * i] = _mm256_unpacklo_ps(block[2 * i], block[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(block[2 * i], block[2 * i + 1]);
            }
            let mut u = t;
            for i in 0..2 {
                u[4 * i] = _mm256_shuffle_ps::<0x44>(t[4 * i], t[4 * i + 2]);
                u[4 * i + 1] = _mm256_shuffle_ps::<0xEE>(t[4 * i], t[4 * i + 2]);
                u[4 * i + 2] = _mm256_shuffle_ps::<0x44>(t[4 * i + 1], t[4 * i + 3]);
                u[4 * i + 3] = _mm256_shuffle_ps::<0xEE>(t[4 * i + 1], t[4 * i + 3]);
            }
            for c in 0..4 {
                block[c] = _mm256_permute2f128_ps::<0x20>(u[c], u[4 + c]);
                block[4 + c] = _mm256_permute2f128_ps::<0x31>(u[c], u[4 + c]);
            }
        }
    }
}
