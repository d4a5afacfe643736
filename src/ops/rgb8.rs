//! Both ends of a frame: pixels of 8 bits, as pictures are stored, and values around zero, as networks take them.
use super::probe::{Call, Op};
use super::{Ops, bytes};
use candle_core::{DType, Device, Result, Tensor};

/// What a slot says of a picture that has no colours.
pub const NOT_NUMBERS: &str = "the network drew values that are not numbers: its weights do not fit it, or half precision overflowed (try --stages without fp16)";

/// The slot.
pub trait Rgb8: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// `(height, width, 3)` in u8 on the processor as `(1, 3, height, width)` on `device`: 0 becomes -1, 255 becomes 1.
    ///
    /// # Errors
    /// Pixels of another shape or type, or a device that cannot hold the picture.
    fn read(&self, pixels: &Tensor, device: &Device) -> Result<Tensor>;
    /// `(1, 3, height, width)` as `(height, width, 3)` in u8 on the processor: -1 becomes 0, 1 becomes 255, what lies between is rounded to
    /// the nearest, what lies beyond is cut off.
    ///
    /// # Errors
    /// Another shape, or a value that is not a number.
    fn write(&self, picture: &Tensor) -> Result<Tensor>;
}

impl Ops {
    /// Pixels, `(height, width, 3)` in u8 on the processor, as the picture `(1, 3, height, width)` on the device, values in [-1, 1].
    ///
    /// # Errors
    /// Pixels of another shape or type, or a device that cannot hold the picture.
    pub fn from_rgb8(&self, pixels: &Tensor) -> Result<Tensor> {
        let moved = |y: &Tensor| (2 * y.elem_count() as u64, bytes(pixels) + bytes(y));
        let call = Call { op: Op::Rgb8, site: "frame.read", stage: self.rgb8.stage() };
        self.probe.run(call, moved, || self.rgb8.read(pixels, &self.device))
    }

    /// A picture, `(1, 3, height, width)`, as pixels, `(height, width, 3)` in u8 on the processor; values beyond [-1, 1] are cut off.
    ///
    /// # Errors
    /// Another shape, or a value that is not a number.
    pub fn to_rgb8(&self, picture: &Tensor) -> Result<Tensor> {
        let moved = |y: &Tensor| (3 * y.elem_count() as u64, bytes(picture) + bytes(y));
        let call = Call { op: Op::Rgb8, site: "frame.write", stage: self.rgb8.stage() };
        self.probe.run(call, moved, || self.rgb8.write(picture))
    }
}

/// Height and width of pixels `(height, width, 3)` in u8.
///
/// # Errors
/// Another shape or type.
pub fn pixels_size(pixels: &Tensor) -> Result<(usize, usize)> {
    match (pixels.dims(), pixels.dtype()) {
        ([height, width, 3], DType::U8) => Ok((*height, *width)),
        (dims, dtype) => candle_core::bail!("pixels are (height, width, 3) in u8, not {dims:?} in {dtype:?}"),
    }
}

/// Height and width of a picture `(1, 3, height, width)`.
///
/// # Errors
/// Another shape.
pub fn picture_size(picture: &Tensor) -> Result<(usize, usize)> {
    match picture.dims() {
        [1, 3, height, width] => Ok((*height, *width)),
        dims => candle_core::bail!("a picture to write is (1, 3, height, width), not {dims:?}"),
    }
}

/// Value by value, on the processor.
pub struct Reference;

impl Rgb8 for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn read(&self, pixels: &Tensor, device: &Device) -> Result<Tensor> {
        let (height, width) = pixels_size(pixels)?;
        let plane = height * width;
        let mut values = vec![0f32; 3 * plane];
        for (i, pixel) in pixels.flatten_all()?.to_vec1::<u8>()?.chunks_exact(3).enumerate() {
            for (channel, byte) in pixel.iter().enumerate() {
                values[channel * plane + i] = f32::from(*byte) / 127.5 - 1.0;
            }
        }
        Tensor::from_vec(values, (1, 3, height, width), device)
    }

    fn write(&self, picture: &Tensor) -> Result<Tensor> {
        let (height, width) = picture_size(picture)?;
        let values = picture.get(0)?.to_dtype(DType::F32)?.permute((1, 2, 0))?.flatten_all()?.to_vec1::<f32>()?;
        if values.iter().any(|v| v.is_nan()) {
            candle_core::bail!("{NOT_NUMBERS}");
        }
        let pixels: Vec<u8> = values.iter().map(|v| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8).collect();
        Tensor::from_vec(pixels, (height, width, 3), &Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_way_there_and_back() {
        let ops = Ops::reference(&Device::Cpu);
        let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).chain(0..=255).collect();
        let pixels = Tensor::from_vec(bytes.clone(), (32, 8, 3), &Device::Cpu).unwrap();
        let picture = ops.from_rgb8(&pixels).unwrap();
        assert_eq!(picture.dims(), [1, 3, 32, 8]);
        // (row 0, column 1, green) is the fifth byte
        let value: f32 = picture.get(0).unwrap().get(1).unwrap().get(0).unwrap().get(1).unwrap().to_scalar().unwrap();
        assert_eq!(value, 4.0 / 127.5 - 1.0);
        let back = ops.to_rgb8(&picture).unwrap();
        assert_eq!(back.dims(), [32, 8, 3]);
        assert_eq!(back.flatten_all().unwrap().to_vec1::<u8>().unwrap(), bytes);
    }

    #[test]
    fn values_beyond_the_range_are_cut_and_nan_is_an_error() {
        let ops = Ops::reference(&Device::Cpu);
        let picture = |values: [f32; 3]| Tensor::from_slice(&values, (1, 3, 1, 1), &Device::Cpu).unwrap();
        let written = ops.to_rgb8(&picture([-9.0, 9.0, 0.0])).unwrap().flatten_all().unwrap();
        assert_eq!(written.to_vec1::<u8>().unwrap(), [0, 255, 128]);
        let said = ops.to_rgb8(&picture([f32::NAN, 0.0, 0.0])).unwrap_err().to_string();
        assert!(said.contains("not numbers"), "{said}");
    }

    #[test]
    fn other_shapes_are_named() {
        let ops = Ops::reference(&Device::Cpu);
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        assert!(ops.from_rgb8(&zeros(&[2, 2, 4], DType::U8)).unwrap_err().to_string().contains("[2, 2, 4]"));
        assert!(ops.from_rgb8(&zeros(&[2, 2, 3], DType::F32)).unwrap_err().to_string().contains("F32"));
        assert!(ops.to_rgb8(&zeros(&[2, 3, 2, 2], DType::F32)).unwrap_err().to_string().contains("[2, 3, 2, 2]"));
    }
}
