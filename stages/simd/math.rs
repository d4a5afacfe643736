//! exp2, exp and SiLU on vectors.

use std::f32::consts::LOG2_E;

use super::Simd;

/// 2^f for f in [-0.5, 0.5]: 1 + f·(…), the least-maximum fit of relative error 1.1e-7 (coefficients
/// rounded to f32); the last is near ln 2 but is not it. The leading 1 is kept exact so that
/// exp2(0) is exactly 1.
#[allow(clippy::approx_constant)]
const EXP2: [f32; 5] = [
    0.001_326_472_7,
    0.009_671_513,
    0.055_507_336,
    0.240_222_42,
    0.693_147,
];

/// 1.5·2^23: adding it rounds to an integer (ties to even) and leaves that integer in the low bits.
const SHIFT: f32 = 12_582_912.0;

/// Below this, 2^x is not a normal number any more, and subnormal sums are slow.
const LOWEST: f32 = -125.5;

#[inline(always)]
fn exp2_fraction<S: Simd>(simd: S, fraction: S::V) -> S::V {
    let mut power = simd.splat(EXP2[0]);
    power = simd.mul_add(power, fraction, simd.splat(EXP2[1]));
    power = simd.mul_add(power, fraction, simd.splat(EXP2[2]));
    power = simd.mul_add(power, fraction, simd.splat(EXP2[3]));
    power = simd.mul_add(power, fraction, simd.splat(EXP2[4]));
    simd.mul_add(power, fraction, simd.splat(1.0))
}

/// `2^x` for `x ≤ 127`, relative error below 4e-7; 2^-125.5 for all lower `x`, NaN for NaN.
#[inline(always)]
pub fn exp2<S: Simd>(simd: S, x: S::V) -> S::V {
    // The variable comes second, so that NaN passes.
    let x = simd.max(simd.splat(LOWEST), x);
    let shifted = simd.add(x, simd.splat(SHIFT));
    let whole = simd.sub(shifted, simd.splat(SHIFT));
    simd.scale(exp2_fraction(simd, simd.sub(x, whole)), shifted)
}

/// `e^x`, relative error below 4e-7; `x` is held in [-86.9, 88], NaN gives NaN.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    // ln 2 in two parts (Cody and Waite): the first has few bits, so its product with an integer is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = simd.min(simd.splat(88.0), simd.max(simd.splat(-86.9), x));
    let shifted = simd.mul_add(x, simd.splat(LOG2_E), simd.splat(SHIFT));
    let whole = simd.sub(shifted, simd.splat(SHIFT));
    let rest = simd.mul_add(whole, simd.splat(-LN2_HIGH), x);
    let rest = simd.mul_add(whole, simd.splat(-LN2_LOW), rest);
    simd.scale(
        exp2_fraction(simd, simd.mul(rest, simd.splat(LOG2_E))),
        shifted,
    )
}

/// `x / (1 + e^-x)`, relative error below 5e-7 for x above -86; -6e-37 for all x below -100.
#[inline(always)]
pub fn silu<S: Simd>(simd: S, x: S::V) -> S::V {
    // The variable comes second, so that NaN passes.
    let x = simd.max(simd.splat(-100.0), x);
    let negated = simd.sub(simd.splat(0.0), x);
    simd.div(x, simd.add(simd.splat(1.0), exp(simd, negated)))
}
