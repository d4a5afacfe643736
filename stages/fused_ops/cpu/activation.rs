//! SiLU and GELU as branch-free polynomials that the compiler vectorises inside of each epilogue.
//!
//! `FMA` says whether `mul_add` is one instruction where the function is inlined: the same source
//! serves AVX-512, AVX2 and plain targets, and no target calls the library's `fmaf` per value.

/// `a · b + c`, rounded once where the hardware can.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// e^x to 2 units in the last place; overflows to infinity, underflows to zero, keeps NaN.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Beyond these the result is 0 or infinity anyway. Comparisons, not min and max, keep NaN.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    // Adding 1.5 · 2^23 rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = multiply_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let power = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let rounded = shifted - ROUND;
    // ln 2 in two parts: the first has few enough bits that its product is exact.
    let rest = multiply_add::<FMA>(rounded, -0.693_359_4, x);
    let rest = multiply_add::<FMA>(rounded, 2.121_944_4e-4, rest);
    // Taylor's series of (e^r - 1 - r) / r² on |r| <= ln(2) / 2; the last term left out is 3e-9.
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        sum = multiply_add::<FMA>(sum, rest, coefficient);
    }
    let sum = multiply_add::<FMA>(sum * rest, rest, rest) + 1.0;
    // 2^power in two factors, since 2^128 and 2^-150 are no floats though the result may be one.
    let half = power >> 1;
    let scale = |power: i32| f32::from_bits((power.wrapping_add(127) as u32) << 23);
    sum * scale(half) * scale(power.wrapping_sub(half))
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(super) fn silu<const FMA: bool>(x: f32) -> f32 {
    x / (1.0 + exp::<FMA>(-x))
}

/// `x · Φ(x)` with the normal distribution Φ(x) = (1 + erf(x / √2)) / 2.
///
/// Φ(-a) = e^(-a²/2) · t · Q(t) with t = 1 / (1 + 0.35 a) holds its relative precision in the tail,
/// where 1 + erf would cancel. Q was fitted at the Chebyshev nodes of 0 <= a <= 14.5, to 4e-8.
#[inline(always)]
pub(super) fn gelu<const FMA: bool>(x: f32) -> f32 {
    const Q: [f32; 9] = [
        -0.029_732_276,
        0.146_783_98,
        -0.261_410_56,
        0.165_510_16,
        -0.027_321_91,
        0.107_212_5,
        0.119_425_096,
        0.139_914_33,
        0.139_618_64,
    ];
    let a = x.abs();
    let t = 1.0 / multiply_add::<FMA>(a, 0.35, 1.0);
    let mut q = Q[0];
    for coefficient in &Q[1..] {
        q = multiply_add::<FMA>(q, t, *coefficient);
    }
    let square = a * a;
    let mut tail = exp::<FMA>(-0.5 * square) * (t * q);
    if FMA {
        // What rounding took from the square would be magnified by the exponential.
        let lost = multiply_add::<FMA>(a, a, -square);
        let corrected = multiply_add::<FMA>(tail * -0.5, lost, tail);
        // infinity - infinity is NaN, which must not replace a tail of zero.
        tail = if a > 14.5 { tail } else { corrected };
    }
    let distribution = if x < 0.0 { tail } else { 1.0 - tail };
    x * distribution
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its series and erfc by its continued fraction, in f64.
    fn normal(x: f64) -> f64 {
        let z = x.abs() / std::f64::consts::SQRT_2;
        let tail = if z < 3.0 {
            let (mut term, mut sum, mut n) = (z, z, 0.0);
            while term.abs() > 1e-18 {
                n += 1.0;
                term *= -z * z / n;
                sum += term / (2.0 * n + 1.0);
            }
            0.5 - sum / std::f64::consts::PI.sqrt()
        } else {
            let fraction = (1..200).rev().fold(z, |f, n| z + 0.5 * n as f64 / f);
            0.5 * (-z * z).exp() / (fraction * std::f64::consts::PI.sqrt())
        };
        if x < 0.0 { tail } else { 1.0 - tail }
    }

    fn largest_error(from: f64, to: f64, ours: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        (0..=200_000)
            .map(|i| (from + (to - from) * i as f64 / 200_000.0) as f32)
            .map(|x| (ours(x) as f64 - exact(x as f64)).abs() / exact(x as f64).abs().max(1e-36))
            .fold(0.0, f64::max)
    }

    #[test]
    fn activations_match_double_precision() {
        let silu64 = |x: f64| x / (1.0 + (-x).exp());
        let gelu64 = |x: f64| x * normal(x);
        assert!(largest_error(-87.0, 88.5, exp::<false>, f64::exp) < 2.5e-7);
        assert!(largest_error(-87.0, 88.5, exp::<true>, f64::exp) < 2.5e-7);
        assert!(largest_error(-80.0, 80.0, silu::<true>, silu64) < 5e-7);
        assert!(largest_error(-80.0, 80.0, silu::<false>, silu64) < 5e-7);
        assert!(largest_error(-12.0, 12.0, gelu::<true>, gelu64) < 1e-6);
        // Without fused multiply-add the tail loses what rounding takes from the square.
        assert!(largest_error(-4.0, 12.0, gelu::<false>, gelu64) < 1e-6);
        assert!(largest_error(-12.0, -4.0, gelu::<false>, gelu64) < 6e-6);
    }

    #[test]
    fn ends_of_the_range_are_those_of_the_formulas() {
        assert_eq!(exp::<true>(-200.0), 0.0);
        assert_eq!(exp::<true>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<true>(200.0), f32::INFINITY);
        assert!(exp::<true>(f32::NAN).is_nan());
        assert_eq!(silu::<true>(f32::INFINITY), f32::INFINITY);
        assert!(silu::<true>(f32::NAN).is_nan());
        assert_eq!(gelu::<true>(f32::INFINITY), f32::INFINITY);
        assert_eq!(gelu::<false>(1e30), 1e30);
        assert_eq!(gelu::<true>(1e30), 1e30);
        assert_eq!(gelu::<true>(-1e30), 0.0);
        assert!(gelu::<true>(f32::NAN).is_nan());
    }
}
