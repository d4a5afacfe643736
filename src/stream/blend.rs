//! Temporal blend: how much of each new frame is kept and how much stays from the one before, fixed or learned.
use crate::Result;
use crate::model::Scope;
use crate::ops::conv2d::Conv2dKernel;
use crate::ops::{Activation, Blend, Conv2dInput, Conv2dParams, Layer, Ops};
use candle_core::Tensor;

/// The rule.
pub enum BlendRule {
    /// The same share of the new frame everywhere, in (0, 1]; 1 keeps nothing of the frame before.
    Fixed(f64),
    /// A share per pixel, which a small network reads off both frames.
    Learned(BlendNetwork),
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
    /// Mixes the new frame with the one before it, if there is one; all `(batch, 3, height, width)`.
    ///
    /// # Errors
    /// Frames of different shapes, or other than three channels for a learned share.
    pub fn apply(&self, ops: &Ops, current: &Tensor, previous: Option<&Tensor>) -> Result<Tensor> {
        let Some(previous) = previous else {
            return Ok(current.clone());
        };
        Ok(match self {
            Self::Fixed(1.0) => current.clone(),
            Self::Fixed(share) => ops.temporal_blend(current, previous, Blend::Fixed(*share))?,
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
    use candle_core::{DType, Device};

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
        assert!((mean(&rule.apply(&ops, &plane(1.0), Some(&plane(-1.0))).unwrap()) - 0.5).abs() < 1e-6);
        assert_eq!(mean(&rule.apply(&ops, &plane(1.0), None).unwrap()), 1.0);
    }

    #[test]
    fn a_learned_share_lies_between_the_frames() {
        let ops = Ops::reference(&Device::Cpu);
        let weights = Weights::formula(&Device::Cpu);
        let rule = BlendRule::Learned(BlendNetwork::load(&ops, &weights.root().pp("blend")).unwrap());
        let y = rule.apply(&ops, &plane(1.0), Some(&plane(-1.0))).unwrap();
        let values: Vec<f32> = y.flatten_all().unwrap().to_vec1().unwrap();
        assert!(values.iter().all(|v| (-1.0..=1.0).contains(v)));
        assert!(values.iter().any(|v| *v != values[0]), "the share must vary where the padding does");
    }
}
