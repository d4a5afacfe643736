//! Temporal blend: how much of each new frame is kept and how much stays from the one before: fixed, by how much the input moves, or learned.
use crate::Result;
use crate::model::Scope;
use crate::ops::conv2d::Conv2dKernel;
use crate::ops::{Activation, Blend, Conv2dInput, Conv2dParams, Layer, Ops};
use candle_core::{DType, Tensor};

/// The rule.
pub enum BlendRule {
    /// The same share of the new frame everywhere, in (0, 1]; 1 keeps nothing of the frame before.
    Fixed(f64),
    /// A share per pixel, by how much the input has changed there: what stands still does not flicker, what moves leaves no trail.
    Motion(MotionBlend),
    /// A share per pixel, which a small network reads off both frames.
    Learned(BlendNetwork),
}

/// `still + (moving − still) · d² / (d² + change²)`: the share of the new frame at a pixel, `d` being the mean difference of the two input
/// frames around it, in frames of values in [-1, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MotionBlend {
    /// The share where the input stands still, in (0, 1].
    pub still: f64,
    /// The share that is neared where it moves, in (0, 1].
    pub moving: f64,
    /// The difference at which the share is half way between the two.
    pub change: f64,
}

impl MotionBlend {
    /// The share at each pixel, `(batch, 1, height, width)` in f32, of input frames `(batch, 3, height, width)`: small differences tell how much
    /// they move, so these are taken in f32.
    fn share(&self, frame: &Tensor, before: &Tensor) -> candle_core::Result<Tensor> {
        let (frame, before) = (frame.to_dtype(DType::F32)?, before.to_dtype(DType::F32)?);
        let difference = blur(&(frame - before)?.abs()?.mean_keepdim(1)?)?;
        let square = self.change * self.change;
        (difference.sqr()? + square)?.recip()?.affine(-(self.moving - self.still) * square, self.moving)
    }
}

/// Gaussian weights with a deviation of one pixel, from the middle outwards; they sum to 1 with both sides.
const GAUSSIAN: [f64; 4] = [0.399_050_28, 0.242_036_23, 0.054_005_58, 0.004_433_05];

/// Gaussian blur over both sides of `(batch, 1, height, width)`; beyond the edge is the edge.
fn blur(x: &Tensor) -> candle_core::Result<Tensor> {
    let reach = GAUSSIAN.len() - 1;
    let mut x = x.clone();
    for dim in [2, 3] {
        let size = x.dim(dim)?;
        let wide = x.pad_with_same(dim, reach, reach)?;
        let mut sum = (wide.narrow(dim, reach, size)? * GAUSSIAN[0])?;
        for (i, weight) in GAUSSIAN.iter().enumerate().skip(1) {
            let sides = (wide.narrow(dim, reach - i, size)? + wide.narrow(dim, reach + i, size)?)?;
            sum = (sum + (sides * *weight)?)?;
        }
        x = sum;
    }
    Ok(x)
}

/// `sigmoid(conv3x3(cat(current, previous)))`: a share per pixel, from six channels.
pub struct BlendNetwork {
    conv: Layer<dyn Conv2dKernel>,
}

impl BlendNetwork {
    /// Loads `weight`, (1, 6, 3, 3), and `bias`, (1).
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn load(ops: &Ops, w: &Scope<'_>) -> Result<Self> {
        let params = Conv2dParams {
            weight: w.get((1, 6, 3, 3), "weight")?,
            bias: Some(w.get(1, "bias")?),
            norm: None,
            activation: Activation::None,
            stride: 1,
            padding: 1,
        };
        Ok(Self { conv: ops.prepare_conv2d(w.path(), params)? })
    }
}

impl BlendRule {
    /// Mixes the new frame with the one before it, if there is one; `inputs` are what the two were drawn from, the newer first. All are
    /// `(batch, 3, height, width)`.
    ///
    /// # Errors
    /// Frames of different shapes, or other than three channels for a learned share.
    pub fn apply(
        &self,
        ops: &Ops,
        current: &Tensor,
        previous: Option<&Tensor>,
        inputs: [&Tensor; 2],
    ) -> Result<Tensor> {
        let Some(previous) = previous else {
            return Ok(current.clone());
        };
        Ok(match self {
            Self::Fixed(1.0) => current.clone(),
            Self::Fixed(share) => ops.temporal_blend(current, previous, Blend::Fixed(*share))?,
            Self::Motion(motion) => {
                let share = motion.share(inputs[0], inputs[1])?.to_dtype(current.dtype())?;
                ops.temporal_blend(current, previous, Blend::Map(&share))?
            }
            Self::Learned(network) => {
                let input = Conv2dInput { skip: Some(previous), ..current.into() };
                let share = candle_nn::ops::sigmoid(&ops.conv2d(&network.conv, input)?)?;
                ops.temporal_blend(current, previous, Blend::Map(&share))?
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Weights;
    use candle_core::Device;

    fn plane(value: f32) -> Tensor {
        Tensor::full(value, (1, 3, 4, 4), &Device::Cpu).unwrap()
    }

    fn mean(t: &Tensor) -> f32 {
        t.mean_all().unwrap().to_dtype(DType::F32).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn a_fixed_share_is_a_weighted_mean() {
        let ops = Ops::reference(&Device::Cpu);
        let rule = BlendRule::Fixed(0.75);
        assert!(
            (mean(&rule.apply(&ops, &plane(1.0), Some(&plane(-1.0)), [&plane(0.0); 2]).unwrap()) - 0.5).abs() < 1e-6
        );
        assert_eq!(mean(&rule.apply(&ops, &plane(1.0), None, [&plane(0.0); 2]).unwrap()), 1.0);
    }

    #[test]
    fn what_stands_still_keeps_more_of_the_frame_before() {
        let motion = MotionBlend { still: 0.15, moving: 0.95, change: 0.02 };
        let share = |by: f32| mean(&motion.share(&plane(by), &plane(0.0)).unwrap());
        assert!((share(0.0) - 0.15).abs() < 1e-6);
        assert!((share(0.02) - 0.55).abs() < 1e-5, "half way");
        assert!((share(2.0) - 0.95).abs() < 1e-3);
        // a change on one side reaches a few pixels to the other and not further
        let mut values = vec![0f32; 3 * 16];
        for channel in values.chunks_mut(16) {
            channel[..4].fill(1.0);
        }
        let frame = Tensor::from_vec(values, (1, 3, 1, 16), &Device::Cpu).unwrap();
        let share = motion.share(&frame, &frame.zeros_like().unwrap()).unwrap().flatten_all().unwrap();
        let share: Vec<f32> = share.to_vec1().unwrap();
        assert!(share[0] > 0.9 && share[3] > 0.9 && share[5] > 0.5, "{share:?}");
        assert!(share[7..].iter().all(|s| (*s - 0.15).abs() < 1e-6), "{share:?}");
    }

    #[test]
    fn a_learned_share_lies_between_the_frames() {
        let ops = Ops::reference(&Device::Cpu);
        let weights = Weights::formula(&Device::Cpu);
        let rule = BlendRule::Learned(BlendNetwork::load(&ops, &weights.root().pp("blend")).unwrap());
        let y = rule.apply(&ops, &plane(1.0), Some(&plane(-1.0)), [&plane(0.0); 2]).unwrap();
        let values: Vec<f32> = y.flatten_all().unwrap().to_vec1().unwrap();
        assert!(values.iter().all(|v| (-1.0..=1.0).contains(v)));
        assert!(values.iter().any(|v| *v != values[0]), "the share must vary where the padding does");
    }
}
