//! Between pictures of 8 bits and tensors around zero.
use crate::media::Frame;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::time::Duration;

/// A picture as `(1, 3, height, width)` in f32: 0 becomes -1, 255 becomes 1.
///
/// # Errors
/// A device that cannot hold it.
pub fn to_tensor(frame: &Frame, device: &Device) -> Result<Tensor> {
    let (width, height) = (frame.width as usize, frame.height as usize);
    let plane = width * height;
    let mut values = vec![0f32; 3 * plane];
    for (i, pixel) in frame.rgb.chunks_exact(3).enumerate() {
        for (channel, byte) in pixel.iter().enumerate() {
            values[channel * plane + i] = f32::from(*byte) / 127.5 - 1.0;
        }
    }
    Ok(Tensor::from_vec(values, (1, 3, height, width), device)?)
}

/// The first picture of `(batch, 3, height, width)`: -1 becomes 0, 1 becomes 255, what lies beyond is cut off.
///
/// # Errors
/// Another shape, or a value that is not a number.
pub fn to_frame(picture: &Tensor, timestamp: Duration) -> Result<Frame> {
    let (_, channels, height, width) = picture.dims4()?;
    if channels != 3 {
        return Err(Error::Stream(format!("a picture has 3 channels, not {channels}")));
    }
    let values = picture.get(0)?.to_dtype(DType::F32)?.permute((1, 2, 0))?.flatten_all()?.to_vec1::<f32>()?;
    if values.iter().any(|v| v.is_nan()) {
        return Err(Error::Stream(
            "the network drew values that are not numbers: its weights do not fit it, or half precision overflowed (try --stages without fp16)".into(),
        ));
    }
    let rgb = values.iter().map(|v| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8).collect();
    Ok(Frame { width: width as u32, height: height as u32, rgb, timestamp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_way_there_and_back() {
        let rgb: Vec<u8> = (0..=255).chain((0..=255).rev()).chain(0..=255).collect();
        let frame = Frame { width: 16, height: 16, rgb, timestamp: Duration::from_millis(40) };
        let tensor = to_tensor(&frame, &Device::Cpu).unwrap();
        assert_eq!(tensor.dims(), [1, 3, 16, 16]);
        assert_eq!(to_frame(&tensor, frame.timestamp).unwrap(), frame);
    }

    #[test]
    fn values_beyond_the_range_are_cut_and_nan_is_an_error() {
        let t = Tensor::from_vec(vec![-9f32, 9.0, 0.0], (1, 3, 1, 1), &Device::Cpu).unwrap();
        assert_eq!(to_frame(&t, Duration::ZERO).unwrap().rgb, [0, 255, 128]);
        let t = Tensor::from_vec(vec![f32::NAN, 0.0, 0.0], (1, 3, 1, 1), &Device::Cpu).unwrap();
        assert!(to_frame(&t, Duration::ZERO).is_err());
    }
}
