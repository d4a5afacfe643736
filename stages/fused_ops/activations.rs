//! Between Candle's tensors and the kernels' slices: what is borrowed, what is copied, what comes back.
use super::cpu::{KernelError, Values, ValuesMut};
use crate::stages::simd::Element;
use candle_core::{CpuStorage, DType, Device, Error, Result, Shape, Storage, Tensor, WithDType};
use half::f16;

/// A type that activations are stored in.
pub(super) trait Stored: Element + WithDType {}
impl Stored for f32 {}
impl Stored for f16 {}

/// Calls a function that is generic over [`Stored`] for the type that the tensor is stored in.
macro_rules! by_storage {
    ($tensor:expr, $function:ident($($argument:expr),*)) => {
        match $tensor.dtype() {
            candle_core::DType::F32 => $function::<f32>($($argument),*),
            candle_core::DType::F16 => $function::<half::f16>($($argument),*),
            other => candle_core::bail!("fused-ops takes f32 or f16 on the CPU, not {other:?}"),
        }
    };
}
pub(super) use by_storage;

/// The values of a tensor in its own order, `(…)` row-major; copied only where they lie otherwise.
pub(super) struct Dense(Tensor);

impl Dense {
    /// In the order of the tensor's dimensions.
    pub(super) fn new(t: &Tensor) -> Result<Self> {
        Ok(Self(t.contiguous()?))
    }

    /// `(batch, channels, height, width)` in the order `(batch, height, width, channels)`.
    pub(super) fn channels_last(t: &Tensor) -> Result<Self> {
        Self::new(&t.permute((0, 2, 3, 1))?)
    }

    /// Lends the values to `f`.
    pub(super) fn read<R>(&self, f: impl FnOnce(Values<'_>) -> Result<R>) -> Result<R> {
        let (storage, layout) = self.0.storage_and_layout();
        let range = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
        match &*storage {
            Storage::Cpu(CpuStorage::F32(values)) => f(Values::F32(&values[range])),
            Storage::Cpu(CpuStorage::F16(values)) => f(Values::F16(&values[range])),
            _ => candle_core::bail!("fused-ops takes f32 or f16 on the CPU, not {:?}", self.0.dtype()),
        }
    }
}

impl Dense {
    /// Lends the values, whose type is known, to `f`.
    pub(super) fn lend<T: Stored, R>(&self, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
        let (storage, layout) = self.0.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { candle_core::bail!("fused-ops takes tensors on the CPU") };
        let start = layout.start_offset();
        f(&T::cpu_storage_as_slice(storage)?[start..start + layout.shape().elem_count()])
    }
}

/// A new tensor of `shape`, row-major, filled by `f`.
pub(super) fn made<T: Stored>(shape: impl Into<Shape>, f: impl FnOnce(&mut [T]) -> Result<()>) -> Result<Tensor> {
    let shape = shape.into();
    let mut values = vec![<T as Default>::default(); shape.elem_count()];
    f(&mut values)?;
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// Lends the values of an optional tensor.
pub(super) fn read_opt<R>(t: Option<&Dense>, f: impl FnOnce(Option<Values<'_>>) -> Result<R>) -> Result<R> {
    match t {
        Some(t) => t.read(|values| f(Some(values))),
        None => f(None),
    }
}

/// A new tensor of `shape` in `dtype`, row-major, filled by `f`.
pub(super) fn filled(
    shape: impl Into<Shape>,
    dtype: DType,
    f: impl FnOnce(ValuesMut<'_>) -> Result<()>,
) -> Result<Tensor> {
    let shape = shape.into();
    let count = shape.elem_count();
    if dtype == DType::F16 {
        let mut values = vec![f16::ZERO; count];
        f(ValuesMut::F16(&mut values))?;
        Tensor::from_vec(values, shape, &Device::Cpu)
    } else {
        let mut values = vec![0f32; count];
        f(ValuesMut::F32(&mut values))?;
        Tensor::from_vec(values, shape, &Device::Cpu)
    }
}

/// `(batch, height, width, channels)` seen as `(batch, channels, height, width)`.
pub(super) fn channels_first(t: &Tensor) -> Result<Tensor> {
    t.permute((0, 3, 1, 2))
}

/// A parameter as plain f32.
pub(super) fn parameter(t: &Tensor) -> Result<Vec<f32>> {
    t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// A kernel's refusal, in Candle's terms.
pub(super) fn refused(e: KernelError) -> Error {
    Error::Msg(e.to_string())
}
