//! The element types that kernels read and write: f32 and f16, computed in f32.

use half::f16;

use super::{MAX_LANES, Simd};

/// A stored number. Kernels widen it to f32, compute, and round once when they store.
pub trait Element: Copy + Send + Sync + Default + sealed::Stored + 'static {
    /// Its value.
    fn to_f32(self) -> f32;
    /// The nearest value of this type.
    fn from_f32(value: f32) -> Self;
    /// Reads a vector.
    ///
    /// # Safety
    /// `source` must be valid for reading `S::LANES` values; it may be unaligned.
    unsafe fn load_ptr<S: Simd>(simd: S, source: *const Self) -> S::V;
    /// Writes a vector.
    ///
    /// # Safety
    /// `target` must be valid for writing `S::LANES` values; it may be unaligned.
    unsafe fn store_ptr<S: Simd>(simd: S, target: *mut Self, vector: S::V);

    /// Reads the first `S::LANES` values, which must be there.
    #[inline(always)]
    fn load<S: Simd>(simd: S, source: &[Self]) -> S::V {
        assert!(source.len() >= S::LANES);
        // SAFETY: checked just above.
        unsafe { Self::load_ptr(simd, source.as_ptr()) }
    }

    /// Writes the first `S::LANES` values, which must be there.
    #[inline(always)]
    fn store<S: Simd>(simd: S, target: &mut [Self], vector: S::V) {
        assert!(target.len() >= S::LANES);
        // SAFETY: checked just above.
        unsafe { Self::store_ptr(simd, target.as_mut_ptr(), vector) }
    }

    /// Reads up to `S::LANES` values and fills the other lanes with zero.
    #[inline(always)]
    fn load_some<S: Simd>(simd: S, source: &[Self]) -> S::V {
        let mut lanes = [Self::default(); MAX_LANES];
        let count = source.len().min(S::LANES);
        lanes[..count].copy_from_slice(&source[..count]);
        Self::load(simd, &lanes)
    }

    /// Writes as many lanes as `target` holds, at most `S::LANES`.
    #[inline(always)]
    fn store_some<S: Simd>(simd: S, target: &mut [Self], vector: S::V) {
        let mut lanes = [Self::default(); MAX_LANES];
        Self::store(simd, &mut lanes, vector);
        let count = target.len().min(S::LANES);
        target[..count].copy_from_slice(&lanes[..count]);
    }
}

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    unsafe fn load_ptr<S: Simd>(simd: S, source: *const Self) -> S::V {
        // SAFETY: the caller holds it.
        unsafe { simd.load_ptr(source) }
    }

    #[inline(always)]
    unsafe fn store_ptr<S: Simd>(simd: S, target: *mut Self, vector: S::V) {
        // SAFETY: the caller holds it.
        unsafe { simd.store_ptr(target, vector) }
    }
}

impl Element for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }

    #[inline(always)]
    unsafe fn load_ptr<S: Simd>(simd: S, source: *const Self) -> S::V {
        // SAFETY: the caller holds it.
        unsafe { simd.load_f16_ptr(source) }
    }

    #[inline(always)]
    unsafe fn store_ptr<S: Simd>(simd: S, target: *mut Self, vector: S::V) {
        // SAFETY: the caller holds it.
        unsafe { simd.store_f16_ptr(target, vector) }
    }
}

mod sealed {
    /// Keeps the set of element types to this module.
    pub trait Stored {}
    impl Stored for f32 {}
    impl Stored for half::f16 {}
}
