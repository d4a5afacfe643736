//! Between pictures of 8 bits and tensors around zero.
use crate::Result;
use crate::media::Frame;
use crate::ops::Ops;
use candle_core::{Device, Tensor};
use std::time::Duration;

/// A picture as `(1, 3, height, width)` on the device of `ops`, in f32 or in its storage type: 0 becomes -1, 255 becomes 1.
///
/// # Errors
/// A device that cannot hold it.
pub fn to_tensor(ops: &Ops, frame: &Frame) -> Result<Tensor> {
    let shape = (frame.height as usize, frame.width as usize, 3);
    Ok(ops.from_rgb8(&Tensor::from_slice(&frame.rgb, shape, &Device::Cpu)?)?)
}

/// The picture of `(1, 3, height, width)`: -1 becomes 0, 1 becomes 255, what lies beyond is cut off.
///
/// # Errors
/// Another shape, or a value that is not a number.
pub fn to_frame(ops: &Ops, picture: &Tensor, timestamp: Duration) -> Result<Frame> {
    let pixels = ops.to_rgb8(picture)?;
    let (height, width, _) = pixels.dims3()?;
    Ok(Frame { width: width as u32, height: height as u32, rgb: pixels.flatten_all()?.to_vec1()?, timestamp })
}
