//! Division on a GPU by numbers that the host knows: a product and a shift (Granlund and Montgomery, 1994).
use candle_core::Result;

/// A divisor of dividends below 2³¹, laid out as in `common.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Divisor {
    value: u32,
    factor: u32,
    shift: u32,
}

impl Divisor {
    /// # Errors
    /// Zero, or more than 2³⁰.
    pub fn new(value: usize) -> Result<Self> {
        let Some(value) = u32::try_from(value).ok().filter(|value| (1..=1 << 30).contains(value)) else {
            candle_core::bail!("{value} cannot divide here");
        };
        // the smallest power of two that is not below the divisor, less one bit: the factor stays below 2³²
        let shift = value.next_power_of_two().trailing_zeros().saturating_sub(1);
        let factor = (1u64 << (32 + shift)).div_ceil(u64::from(value));
        Ok(Self { value, factor: factor as u32, shift })
    }

    #[cfg(test)]
    fn quotient(self, n: u32) -> u32 {
        if self.value == 1 { n } else { ((u64::from(n) * u64::from(self.factor)) >> 32) as u32 >> self.shift }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_product_and_a_shift_divide(n in 0u32..1 << 31, value in 1usize..1 << 30) {
            prop_assert_eq!(Divisor::new(value).unwrap().quotient(n), n / value as u32);
        }

        #[test]
        fn small_divisors_and_large_dividends_too(n in (1u32 << 31) - 5000..1 << 31, value in 1usize..5000) {
            prop_assert_eq!(Divisor::new(value).unwrap().quotient(n), n / value as u32);
        }
    }

    #[test]
    fn nothing_divides_by_zero() {
        assert!(Divisor::new(0).is_err());
        assert_eq!(Divisor::new(1).unwrap().quotient(7), 7);
    }
}
