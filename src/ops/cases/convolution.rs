//! Cases of convolutions, whose inputs may have half the size of what is convolved.
use super::values::Values;
use super::{Follow, Prepared};
use crate::ops::{Conv2dInput, Conv2dParams, Ops};
use candle_core::Result;

/// What [`Case::Conv2d`](super::Case::Conv2d) and [`Case::UpsampledConv2d`](super::Case::UpsampledConv2d) say.
pub(super) struct Convolution {
    pub batch: usize,
    /// Channels of `x` and of `skip` (0: none).
    pub inputs: [usize; 2],
    pub outputs: usize,
    /// Height and width of `x`.
    pub size: usize,
    pub kernel: usize,
    pub stride: usize,
    pub follow: Follow,
    pub upsample: bool,
}

impl Convolution {
    /// # Errors
    /// A slot that cannot prepare it.
    pub fn prepare(&self, ops: &Ops, d: &mut Values) -> Result<Prepared> {
        let &Self { batch, inputs: [channels, skip], outputs, size, kernel, stride, follow, upsample } = self;
        let bound = (2.0 / ((channels + skip) * kernel * kernel) as f64).sqrt();
        let params = Conv2dParams {
            weight: d.weight((outputs, channels + skip, kernel, kernel), bound)?,
            bias: Some(d.vector(outputs, 0.0, 0.1)?),
            norm: if follow.norm { Some(d.batch_norm(outputs)?) } else { None },
            activation: follow.activation,
            stride,
            padding: kernel / 2,
        };
        let layer = ops.prepare_conv2d("case", params)?;
        let convolved = if upsample { 2 * size } else { size };
        let out = (convolved + 2 * (kernel / 2) - kernel) / stride + 1;
        let x = d.input((batch, channels, size, size))?;
        let skip = if skip > 0 { Some(d.input((batch, skip, convolved, convolved))?) } else { None };
        let shift = if follow.shift { Some(d.input((batch, outputs))?) } else { None };
        let residual = if follow.residual { Some(d.input((batch, outputs, out, out))?) } else { None };
        Ok(Prepared::new(move |ops| {
            let (skip, shift, residual) = (skip.as_ref(), shift.as_ref(), residual.as_ref());
            ops.conv2d(&layer, Conv2dInput { x: &x, skip, shift, residual, upsample })
        }))
    }
}
