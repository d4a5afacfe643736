//! Slices of f32 or f16 values, and the aligned buffers the kernels stream from.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Values to read, in either storage; sums are f32 in both cases.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision storage.
    F16(&'a [f16]),
}

impl Values<'_> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::F16(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the values from `start` on into `target` as f32.
    #[inline]
    pub(super) fn widen(&self, start: usize, target: &mut [f32]) {
        match self {
            Values::F32(values) => target.copy_from_slice(&values[start..start + target.len()]),
            Values::F16(values) => {
                values[start..start + target.len()].convert_to_f32_slice(target);
            }
        }
    }
}

/// Values to write, in either storage. f16 is rounded to nearest even, once, from the f32 sum.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// Half precision storage.
    F16(&'a mut [f16]),
}

impl ValuesMut<'_> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            ValuesMut::F32(values) => values.len(),
            ValuesMut::F16(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A cache line of plain values, so that a vector of them starts on a line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Types for which any bit pattern is a value and which a cache line holds evenly.
pub(super) trait Plain: Copy + sealed::Sealed {}
impl Plain for f32 {}
impl Plain for f16 {}

/// The memory of some plain values.
pub(super) fn as_bytes<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` types have no padding, and any initialised memory may be read as bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
}

/// A growable buffer that starts on a cache line: an AVX-512 load that straddles two lines costs twice.
#[derive(Debug, Clone)]
pub(super) struct AlignedBuffer<T> {
    lines: Vec<Line>,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Plain> AlignedBuffer<T> {
    /// An empty buffer, which holds no memory.
    pub(super) const fn new() -> Self {
        Self { lines: Vec::new(), len: 0, element: std::marker::PhantomData }
    }

    /// A buffer of `len` zeros.
    pub(super) fn zeroed(len: usize) -> Self {
        let mut buffer = Self::new();
        buffer.reserve(len);
        buffer
    }

    /// Makes room for `len` values. What was there stays, what is new is zero.
    pub(super) fn reserve(&mut self, len: usize) {
        if len > self.len {
            let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
            self.lines.resize(lines, Line([0; 64]));
            self.len = len;
        }
    }

    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: `lines` holds at least `len` values' worth of initialised bytes, starts on 64
        // bytes, and every bit pattern is a value of a `Plain` type.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`; the exclusive borrow of `lines` makes the slice the only one.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
