//! Noise where it is needed: nothing crosses to the card.
use super::int;
use crate::cuda::{self, Grid, Kernel, Kernels, Params};
use crate::ops::gaussian::{Draw, Gaussian, TOGETHER};
use crate::stages::tensor_cores::type_name;
use candle_core::{DType, Device, Result, Shape, Tensor};

/// The kernel for one storage type.
pub(super) struct Philox {
    stage: &'static str,
    dtype: DType,
    kernel: Kernel,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct GaussianArguments {
    y: u64,
    key: [u32; 2],
    frame: [u32; 2],
    number: u32,
    count: i32,
}

// SAFETY: the fields are those of `GaussianParams` in cuda-kernels/elementwise.cu; `run` below fills it from a tensor of the size it names.
unsafe impl Params for GaussianArguments {}

impl Philox {
    pub fn load(device: &Device, dtype: DType, stage: &'static str) -> crate::Result<Self> {
        let kernel = Kernels::load(device, "elementwise")?.get(&format!("gaussian_{}", type_name(dtype)?), 0)?;
        Ok(Self { stage, dtype, kernel })
    }
}

impl Gaussian for Philox {
    fn stage(&self) -> &'static str {
        self.stage
    }

    fn run(&self, draw: Draw, shape: &Shape, device: &Device) -> Result<Tensor> {
        let count = shape.elem_count();
        // SAFETY: the kernel below writes every value before the stream reads one.
        let y = unsafe { cuda::output(shape, self.dtype, device) }?;
        let [key, frame] = draw.words();
        let arguments =
            GaussianArguments { y: cuda::address(&y)?, key, frame, number: draw.number, count: int(count)? };
        // SAFETY: there are as many values as `arguments` says.
        unsafe { self.kernel.launch(Grid::over(count.div_ceil(TOGETHER))?, arguments) }?;
        Ok(y)
    }
}
