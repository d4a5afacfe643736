//! exp2, exp and SiLU on vectors.

use super::Simd;

/// 2^f for f in [-0.5, 0.5]: 1 + f·(…), the least-maximum fit of relative error 1.1e-7 (coefficients
/// rounded to f32). The leading 1 is kept exact so that exp2(0) is exactly 1.
const EXP2: [f32; 5] = [
    0.001_326_472_7,
    0.009_671_513,
    0.055_507_336,
    0.240_222_42,
    0.693_147,
];

#[inline(always)]
fn exp2_fraction<S: Simd>(simd: S, fraction: S::V) -> S::V {
    let mut power = simd.splat(EXP2[0]);
    power = simd.mul_add(power, fraction, simd.splat(EXP2[1]));
    power = simd.mul_add(power, fraction, simd.splat(EXP2[2]));
    power = simd.mul_add(power, fraction, simd.splat(EXP2[3]));
    power = simd.mul_add(power, fraction, simd.splat(EXP2[4]));
    simd.mul_add(power, fraction, simd.splat(1.0))
}

/// `2^x`, relative error below 4e-7 for x in [-126, 127.5]; 0 below -126.5, infinite somewhere between
/// 127.5 and 128.5, NaN for NaN.
#[inline(always)]
pub fn exp2<S: Simd>(simd: S, x: S::V) -> S::V {
    // The variable comes second, so that NaN passes.
    let x = simd.min(simd.splat(128.0), simd.max(simd.splat(-127.0), x));
    let whole = simd.round(x);
    simd.scale(exp2_fraction(simd, simd.sub(x, whole)), whole)
}

/// `e^x`, with the accuracy and the limits of [`exp2()`].
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    // ln 2 in two parts (Cody and Waite): the first has few bits, so its product with an integer is exact.
    const LN2_HIGH: f32 = 0.693_359_375;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = simd.min(simd.splat(89.0), simd.max(simd.splat(-88.0), x));
    let whole = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let rest = simd.mul_add(whole, simd.splat(-LN2_HIGH), x);
    let rest = simd.mul_add(whole, simd.splat(-LN2_LOW), rest);
    let fraction = simd.mul(rest, simd.splat(std::f32::consts::LOG2_E));
    simd.scale(exp2_fraction(simd, fraction), whole)
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub fn silu<S: Simd>(simd: S, x: S::V) -> S::V {
    let one = simd.splat(1.0);
    let negated = simd.sub(simd.splat(0.0), x);
    simd.div(x, simd.add(one, exp(simd, negated)))
}
