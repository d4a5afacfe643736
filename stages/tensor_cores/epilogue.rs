//! What follows a sum, and the epilogue as a pass of its own over the sums.
use super::picture::Picture;
use super::{TensorCores, VECTOR, by_eights};
use crate::cuda::{self, Grid, Params};
use crate::ops::Activation;
use candle_core::{DType, Result, Tensor};

/// What follows a sum. The numbers are those of `common.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Ending {
    /// Nothing.
    None = 0,
    /// SiLU.
    Silu = 1,
    /// GELU (erf).
    Gelu = 2,
    /// Neighbouring outputs are a hidden value and its gate: their product through GELU.
    Geglu = 3,
}

impl From<Activation> for Ending {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::None => Self::None,
            Activation::Silu => Self::Silu,
            Activation::Gelu => Self::Gelu,
        }
    }
}

/// What is done to sums: `ending(sums · scale + bias + shift) + residual`.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// `(outputs)` in f32, [by eights](super::by_eights).
    pub scale: Option<&'a Tensor>,
    /// Likewise.
    pub bias: Option<&'a Tensor>,
    /// `(batch, outputs)` in the storage type.
    pub shift: Option<&'a Tensor>,
    /// What follows.
    pub ending: Ending,
    /// As the result.
    pub residual: Option<&'a Tensor>,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct EpilogueParams {
    sums: u64,
    scale: u64,
    bias: u64,
    shift: u64,
    residual: u64,
    y: u64,
    pixels: i32,
    outputs: i32,
    pixels_per_sample: i32,
    activation: i32,
}

// SAFETY: the fields are those of `EpilogueParams` in cuda-kernels/conv2d.cu; `TensorCores::finish` fills it from tensors whose shapes it has
// checked.
unsafe impl Params for EpilogueParams {}

impl TensorCores {
    /// Finishes the sums of a layer, `(batch, height, width, outputs by eights)` in f32, and rounds them to the storage type.
    ///
    /// # Errors
    /// Tensors that do not fit one another.
    pub(super) fn finish(&self, sums: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let (batch, height, width, outputs) = sums.dims4()?;
        let width_out = if epilogue.ending == Ending::Geglu { outputs / 2 } else { outputs };
        let shape = [batch, height, width, width_out];
        let operand = |t: Option<&Tensor>, shape: &[usize], dtype: DType| match t {
            None => Ok(0),
            Some(t) if t.dims() == shape && t.dtype() == dtype && t.is_contiguous() => cuda::address(t),
            Some(t) => {
                candle_core::bail!("an epilogue was given {:?} {:?}, not {dtype:?} {shape:?}", t.dtype(), t.dims())
            }
        };
        let shift = epilogue.shift.map(|shift| by_eights(shift, 1)).transpose()?;
        let residual = epilogue.residual.map(|residual| self.picture(residual)).transpose()?;
        if let Some(residual) = residual.as_ref().filter(|residual| residual.dims != shape) {
            candle_core::bail!("a residual of {:?} cannot be added to {shape:?}", residual.dims);
        }
        // SAFETY: the kernel below writes every value before the stream reads one.
        let y = unsafe { cuda::output(&shape[..], self.dtype, sums.device()) }?;
        let int = |n: usize| i32::try_from(n).map_err(candle_core::Error::wrap);
        let params = EpilogueParams {
            sums: operand(Some(sums), sums.dims(), DType::F32)?,
            scale: operand(epilogue.scale, &[outputs], DType::F32)?,
            bias: operand(epilogue.bias, &[outputs], DType::F32)?,
            shift: operand(shift.as_ref(), &[batch, outputs], self.dtype)?,
            residual: residual.as_ref().map_or(Ok(0), Picture::address)?,
            y: cuda::address(&y)?,
            pixels: int(batch * height * width)?,
            outputs: int(outputs)?,
            pixels_per_sample: int(height * width)?,
            activation: epilogue.ending as i32,
        };
        let grid = Grid::over(u32::try_from(sums.elem_count() / VECTOR).map_err(candle_core::Error::wrap)? as usize)?;
        // SAFETY: each address is that of a tensor whose shape and type was checked above, and outputs come by eights.
        unsafe { self.epilogue.launch(grid, params) }?;
        Ok(y)
    }
}
