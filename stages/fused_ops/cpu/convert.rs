//! Frames of bytes to numbers in [-1, 1] and back.

use super::error::{KernelError, expect_length};
use super::rows::for_row_runs;
use crate::stages::simd::{Element, Isa, Kernel, Simd};

/// `out = byte / 127.5 − 1`, so 0 becomes -1 and 255 becomes 1, exactly.
///
/// Element by element: any layout, RGB8 `(height, width, 3)` among them.
///
/// # Errors
/// When the lengths differ.
pub fn bytes_to_signed<T: Element>(bytes: &[u8], out: &mut [T]) -> Result<(), KernelError> {
    bytes_to_signed_with(Isa::best(), bytes, out)
}

/// [`bytes_to_signed`] with a given instruction set, to compare them.
///
/// # Errors
/// As [`bytes_to_signed`].
pub fn bytes_to_signed_with<T: Element>(
    isa: Isa,
    bytes: &[u8],
    out: &mut [T],
) -> Result<(), KernelError> {
    expect_length("frame bytes", &[out.len()], bytes.len())?;
    for_row_runs(out, 1, |first, out| {
        isa.run(ToSigned {
            bytes: &bytes[first..][..out.len()],
            out,
        });
    });
    Ok(())
}

/// The nearest byte of `(x + 1) · 127.5`; what lies outside [-1, 1] is clipped, NaN becomes 0.
///
/// # Errors
/// When the lengths differ.
pub fn signed_to_bytes<T: Element>(x: &[T], out: &mut [u8]) -> Result<(), KernelError> {
    signed_to_bytes_with(Isa::best(), x, out)
}

/// [`signed_to_bytes`] with a given instruction set, to compare them.
///
/// # Errors
/// As [`signed_to_bytes`].
pub fn signed_to_bytes_with<T: Element>(
    isa: Isa,
    x: &[T],
    out: &mut [u8],
) -> Result<(), KernelError> {
    expect_length("frame values", &[out.len()], x.len())?;
    for_row_runs(out, 1, |first, out| {
        isa.run(ToBytes {
            x: &x[first..][..out.len()],
            out,
        });
    });
    Ok(())
}

/// Values converted at a time, in a buffer that stays in the first-level cache.
const BLOCK: usize = 256;

/// 2^23: a float of this size has no fraction, and its low bits are the integer that was added.
const SHIFT: f32 = 8_388_608.0;

struct ToSigned<'a, T> {
    bytes: &'a [u8],
    out: &'a mut [T],
}

impl<T: Element> Kernel for ToSigned<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut wide = [0.0f32; BLOCK];
        for (bytes, out) in self.bytes.chunks(BLOCK).zip(self.out.chunks_mut(BLOCK)) {
            for (wide, byte) in wide.iter_mut().zip(bytes) {
                // Symmetric about 127.5, and no division.
                *wide = (f32::from(*byte) - 127.5) * (1.0 / 127.5);
            }
            let mut at = 0;
            while at + S::LANES <= out.len() {
                T::store(simd, &mut out[at..], f32::load(simd, &wide[at..]));
                at += S::LANES;
            }
            while at < out.len() {
                out[at] = T::from_f32(wide[at]);
                at += 1;
            }
        }
    }
}

struct ToBytes<'a, T> {
    x: &'a [T],
    out: &'a mut [u8],
}

impl<T: Element> Kernel for ToBytes<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut wide = [0.0f32; BLOCK];
        for (x, out) in self.x.chunks(BLOCK).zip(self.out.chunks_mut(BLOCK)) {
            let mut at = 0;
            while at < x.len() {
                let x = &x[at..];
                let value = if x.len() >= S::LANES {
                    T::load(simd, x)
                } else {
                    T::load_some(simd, x)
                };
                let value = simd.mul_add(value, simd.splat(127.5), simd.splat(127.5));
                // The bound comes second here, so that NaN becomes 0.
                let value = simd.min(simd.max(value, simd.splat(0.0)), simd.splat(255.0));
                f32::store(simd, &mut wide[at..], simd.add(value, simd.splat(SHIFT)));
                at += S::LANES;
            }
            for (byte, wide) in out.iter_mut().zip(&wide) {
                *byte = wide.to_bits() as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn all_bytes_come_back_and_the_ends_are_exact() {
        for len in [256, 257, 300_000] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            for isa in Isa::available() {
                let mut signed = vec![0.0f32; len];
                bytes_to_signed_with(isa, &bytes, &mut signed).unwrap();
                assert_eq!((signed[0], signed[255]), (-1.0, 1.0), "{isa:?}");
                for (value, &byte) in signed.iter().zip(&bytes) {
                    assert!(
                        (f64::from(*value) - (f64::from(byte) / 127.5 - 1.0)).abs() < 1e-7,
                        "{isa:?} {byte}"
                    );
                }
                let mut halves = vec![f16::ZERO; len];
                bytes_to_signed_with(isa, &bytes, &mut halves).unwrap();
                let mut back = vec![0; len];
                signed_to_bytes_with(isa, &signed, &mut back).unwrap();
                assert_eq!(back, bytes, "{isa:?}");
                back.fill(0);
                signed_to_bytes_with(isa, &halves, &mut back).unwrap();
                assert_eq!(back, bytes, "{isa:?}");
            }
        }
    }

    #[test]
    fn what_is_out_of_range_is_clipped() {
        let x = [
            -1.5f32,
            7.0,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            1.003,
            0.0,
        ];
        for isa in Isa::available() {
            let mut out = [9u8; 7];
            signed_to_bytes_with(isa, &x, &mut out).unwrap();
            assert_eq!(out, [0, 255, 0, 255, 0, 255, 128], "{isa:?}");
        }
        assert!(signed_to_bytes(&x, &mut [0; 6]).is_err());
        assert!(bytes_to_signed::<f32>(&[0; 6], &mut [0.0; 7]).is_err());
    }
}
