//! Both ends of a frame: what crosses to the card and back is bytes, a quarter of what f32 would be.
use super::{Code, Source, Streaming, int};
use crate::cuda::{self, Grid, Kernels, Params};
use crate::ops::rgb8::{NOT_NUMBERS, Rgb8, picture_size, pixels_size};
use candle_core::{DType, Device, Result, Tensor};

/// The kernels for one storage type: in PTX, where that is the code, for pixels by eights, and those for any number.
pub(super) struct Pixels {
    stage: &'static str,
    dtype: DType,
    read: Streaming,
    write: Streaming,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Rgb8Arguments {
    bytes: u64,
    planes: u64,
    /// Set where a value is no number.
    invalid: u64,
    /// In a plane.
    pixels: i32,
}

// SAFETY: the fields are those of `Rgb8Params` in cuda-kernels/elementwise.cu, and cuda-kernels/ptx reads it so too; `launch` below fills
// it from tensors of the sizes it names.
unsafe impl Params for Rgb8Arguments {}

impl Pixels {
    pub fn load(device: &Device, dtype: DType, stage: &'static str, code: Code) -> crate::Result<Self> {
        let elementwise = Kernels::load(device, "elementwise")?;
        let source = Source::load(device, dtype, code, &elementwise, "rgb8")?;
        let (read, write) = (Streaming::load(&source, "from_rgb8")?, Streaming::load(&source, "to_rgb8")?);
        Ok(Self { stage, dtype, read, write })
    }

    fn launch(kernel: &Streaming, bytes: &Tensor, planes: &Tensor, invalid: Option<&Tensor>) -> Result<()> {
        let pixels = bytes.elem_count() / 3;
        let arguments = Rgb8Arguments {
            bytes: cuda::address(bytes)?,
            planes: cuda::address(planes)?,
            invalid: invalid.map_or(Ok(0), cuda::address)?,
            pixels: int(pixels)?,
        };
        let (kernel, each) = kernel.choose(pixels, pixels, [arguments.bytes, arguments.planes, 0, 0]);
        // SAFETY: there are as many bytes and values as `pixels` says, and a flag where the kernel sets one.
        unsafe { kernel.launch(Grid::over(pixels / each)?, arguments) }
    }
}

impl Rgb8 for Pixels {
    fn stage(&self) -> &'static str {
        self.stage
    }

    fn read(&self, pixels: &Tensor, device: &Device) -> Result<Tensor> {
        let (height, width) = pixels_size(pixels)?;
        let bytes = pixels.to_device(device)?.contiguous()?;
        // SAFETY: the kernel below writes every value before the stream reads one.
        let picture = unsafe { cuda::output((1, 3, height, width), self.dtype, device) }?;
        Self::launch(&self.read, &bytes, &picture, None)?;
        Ok(picture)
    }

    fn write(&self, picture: &Tensor) -> Result<Tensor> {
        let (height, width) = picture_size(picture)?;
        let picture = picture.to_dtype(self.dtype)?.contiguous()?;
        // SAFETY: as above.
        let bytes = unsafe { cuda::output((height, width, 3), DType::U8, picture.device()) }?;
        let invalid = Tensor::zeros(1, DType::U32, picture.device())?;
        Self::launch(&self.write, &bytes, &picture, Some(&invalid))?;
        let pixels = bytes.to_device(&Device::Cpu)?;
        if invalid.to_vec1::<u32>()? != [0] {
            candle_core::bail!("{NOT_NUMBERS}");
        }
        Ok(pixels)
    }
}
