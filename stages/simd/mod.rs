//! Vectors of f32 for the CPU kernels: one kernel body, compiled once for each instruction set.
//!
//! A kernel is a struct of its arguments with [`Kernel::run`] generic over [`Simd`]; [`Isa::run`]
//! compiles that body under the right `target_feature` and calls it. Bodies and everything they call
//! must be `#[inline(always)]` and free of closures around vector operations: a function that is not
//! inlined is compiled without the features, and is slow.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod element;
mod isa;
mod math;
mod portable;
mod scratch;

pub use element::Element;
pub use isa::{Isa, Kernel};
pub use math::{exp, exp2, silu};
pub use scratch::Scratch;

use half::f16;

/// The vector operations of one instruction set. A value of an implementing type is the proof that
/// this machine has the instructions, so only [`Isa::run`] makes one.
pub trait Simd: Copy + Send + Sync + sealed::Token {
    /// A vector of [`Self::LANES`] f32.
    type V: Copy;
    /// f32 values in a vector; at most [`MAX_LANES`].
    const LANES: usize;
    /// How many vectors of sums a kernel may keep in registers, with some left for operands.
    const ACCUMULATORS: usize;

    /// All lanes `value`.
    fn splat(self, value: f32) -> Self::V;
    /// Reads `LANES` f32.
    ///
    /// # Safety
    /// `source` must be valid for reading `LANES` values; it may be unaligned.
    unsafe fn load_ptr(self, source: *const f32) -> Self::V;
    /// Writes `LANES` f32.
    ///
    /// # Safety
    /// `target` must be valid for writing `LANES` values; it may be unaligned.
    unsafe fn store_ptr(self, target: *mut f32, vector: Self::V);
    /// Reads `LANES` f16 and widens them.
    ///
    /// # Safety
    /// `source` must be valid for reading `LANES` values; it may be unaligned.
    unsafe fn load_f16_ptr(self, source: *const f16) -> Self::V;
    /// Rounds to the nearest f16 (ties to even) and writes `LANES` of them.
    ///
    /// # Safety
    /// `target` must be valid for writing `LANES` values; it may be unaligned.
    unsafe fn store_f16_ptr(self, target: *mut f16, vector: Self::V);
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger lane; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller lane; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, rounded once where the machine can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a · 2^n`, where `shifted` is `n + 1.5·2^23` for an integer `n`: its low bits are `n`, and are added to
    /// the exponent of `a`. Both `a` and the result must be normal numbers, or `shifted` a quiet NaN.
    fn scale(self, a: Self::V, shifted: Self::V) -> Self::V;
    /// The sum of all lanes, in any order.
    fn sum(self, a: Self::V) -> f32;
    /// Transposes a `LANES × LANES` block in place: lane `j` of vector `i` and lane `i` of vector `j`
    /// change places. Only the first `LANES` vectors are touched.
    fn transpose(self, block: &mut [Self::V; MAX_LANES]);
}

/// The most lanes that a vector has.
pub const MAX_LANES: usize = 16;

mod sealed {
    /// Keeps instruction sets to this module: each is a claim about the machine.
    pub trait Token {}
}

#[cfg(test)]
pub(crate) mod tests;
