//! The ops that a stage may replace: a file per op with its formula, its trait and its plain definition.
//!
//! [`Ops`] is a value with one slot per op. [`Ops::reference`] fills every slot with plain Candle, which *is* the
//! op's definition; a stage replaces the slots that it accelerates. An op with weights is prepared once, when the
//! model is loaded, by the slot that will run it (folded, packed, halved …), and the layer keeps what came of it:
//! so a model built on one set of slots can never run on another.

pub mod attention;
pub mod cases;

pub mod conv2d;
pub mod fp8;
pub mod gaussian;
pub mod geglu;
pub mod graphs;
pub mod group_norm;
pub mod layer_norm;
pub mod linear;
pub mod probe;
pub mod resample;
pub mod rgb8;
mod rounded;
pub mod sampler_step;
pub mod temporal_blend;

use candle_core::{DType, Device, Result, Tensor};
use std::sync::Arc;

pub use attention::Attention;
pub use conv2d::{BatchNorm, Conv2d, Conv2dInput, Conv2dParams};
pub use fp8::WeightsType;
pub use gaussian::Gaussian;
pub use geglu::{Geglu, GegluParams};
pub use graphs::{Graphs, Recorder};
pub use group_norm::{GroupNorm, GroupNormParams};
pub use layer_norm::{LayerNorm, LayerNormParams};
pub use linear::{Linear, LinearParams};
pub use probe::{Call, Op, Probe};
pub use resample::{Filter, Resample};
pub use rgb8::Rgb8;
pub use sampler_step::SamplerStep;
pub use temporal_blend::{Blend, TemporalBlend};

/// The nonlinearity at the end of a fused op.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `y = x`.
    #[default]
    None,
    /// `y = x · sigmoid(x)`.
    Silu,
    /// `y = x · Φ(x)` with the exact normal distribution function (erf), not the tanh approximation.
    Gelu,
}

impl Activation {
    /// The plain definition.
    ///
    /// # Errors
    /// A type of number that the function is not defined for.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x.clone()),
            Self::Silu => x.silu(),
            Self::Gelu => x.gelu_erf(),
        }
    }
}

/// Who runs each op. A stage replaces the fields that it accelerates and leaves the rest.
#[derive(Clone)]
pub struct Ops {
    /// How weights and activations are stored between ops; every sum is in f32.
    pub dtype: DType,
    /// The half-precision type that a stage which stores halves takes: f16 or bf16.
    pub half: DType,
    /// How a stage that can store weights otherwise is to store them.
    pub weights: WeightsType,
    /// Where tensors live.
    pub device: Device,
    /// `softmax(q·kᵀ·scale)·v`.
    pub attention: Arc<dyn Attention>,
    /// Convolution with its epilogue.
    pub conv2d: Arc<dyn Conv2d>,
    /// Standard Gaussian noise.
    pub gaussian: Arc<dyn Gaussian>,
    /// Gated linear unit with GELU.
    pub geglu: Arc<dyn Geglu>,
    /// Records whole pieces of work and replays them, where a stage can.
    pub graphs: Option<Arc<dyn Graphs>>,
    /// Group normalisation, optionally with SiLU.
    pub group_norm: Arc<dyn GroupNorm>,
    /// Layer normalisation.
    pub layer_norm: Arc<dyn LayerNorm>,
    /// Matrix product with its epilogue.
    pub linear: Arc<dyn Linear>,
    /// Pooling and upsampling.
    pub resample: Arc<dyn Resample>,
    /// From and to pixels of 8 bits.
    pub rgb8: Arc<dyn Rgb8>,
    /// One update of a diffusion sampler.
    pub sampler_step: Arc<dyn SamplerStep>,
    /// Mixing a frame with the one before.
    pub temporal_blend: Arc<dyn TemporalBlend>,
    /// Counts and times what the slots run.
    pub probe: Arc<Probe>,
}

impl Ops {
    /// Plain Candle in f32: the definition of every op, and what every stage is checked against.
    pub fn reference(device: &Device) -> Self {
        Self {
            dtype: DType::F32,
            half: DType::F16,
            weights: WeightsType::Storage,
            device: device.clone(),
            attention: Arc::new(attention::Reference),
            conv2d: Arc::new(conv2d::Reference),
            gaussian: Arc::new(gaussian::Reference),
            geglu: Arc::new(geglu::Reference),
            graphs: None,
            group_norm: Arc::new(group_norm::Reference),
            layer_norm: Arc::new(layer_norm::Reference),
            linear: Arc::new(linear::Reference),
            resample: Arc::new(resample::Reference),
            rgb8: Arc::new(rgb8::Reference),
            sampler_step: Arc::new(sampler_step::Reference),
            temporal_blend: Arc::new(temporal_blend::Reference),
            probe: Arc::new(Probe::on(device)),
        }
    }
}

impl Ops {
    /// Whether what runs now is being recorded: tensors made now belong to the recording, and must not outlive it.
    ///
    /// # Errors
    /// An earlier error of the device.
    pub fn recording(&self) -> Result<bool> {
        crate::cuda::recording(&self.device)
    }
}

/// An op's weights as the slot that will run them prepared them, and the layer's name in the checkpoint, as `unets.0.enc1.conv_layers.0`.
pub struct Layer<K: ?Sized> {
    name: String,
    stage: &'static str,
    flops_per_output: u64,
    /// Bytes of the parameters, which each call reads.
    bytes: u64,
    kernel: Box<K>,
}

/// Bytes that a tensor's elements occupy.
pub(crate) fn bytes(t: &Tensor) -> u64 {
    (t.elem_count() * t.dtype().size_in_bytes()) as u64
}

#[cfg(test)]
mod tests {
    use super::probe::Mode;
    use super::*;

    #[test]
    fn a_call_moves_the_layers_weights_as_stored() {
        let (device, dtype) = (Device::Cpu, DType::F32);
        let weight = Tensor::zeros((2, 3), dtype, &device).unwrap();
        let bias = Some(Tensor::zeros(2, dtype, &device).unwrap());
        let params = LinearParams { weight, bias, activation: Activation::None };
        let x = Tensor::zeros((5, 3), dtype, &device).unwrap();
        let moved = |ops: &Ops| {
            let layer = ops.prepare_linear("layer", params.clone()).unwrap();
            ops.probe.set(Mode::Time);
            ops.linear(&layer, &x, None).unwrap();
            ops.probe.take_records()[0].bytes
        };
        let plain = Ops::reference(&device);
        // input, result, matrix and bias, at 4 bytes a number
        assert_eq!(moved(&plain), 4 * (15 + 10 + 6 + 2));
        // half storage halves what the layer holds; the tensors at the seam are still in f32 here
        assert_eq!(moved(&Ops { dtype: DType::F16, ..plain }), 4 * (15 + 10) + 2 * (6 + 2));
    }

    #[test]
    fn rounding_through_a_type_keeps_what_it_can_hold() {
        let device = Device::Cpu;
        let x = Tensor::new(&[[1.0f32, 1.0 + 1e-4]], &device).unwrap();
        let weight = Tensor::new(&[[1.0f32, 0.0], [0.0, 1.0]], &device).unwrap();
        let params = LinearParams { weight, bias: None, activation: Activation::None };
        for (through, second) in [(DType::F16, 1.0f32), (DType::F32, 1.0 + 1e-4)] {
            let ops = Ops::rounded(&device, through);
            let layer = ops.prepare_linear("layer", params.clone()).unwrap();
            let y = ops.linear(&layer, &x, None).unwrap();
            assert_eq!(y.to_vec2::<f32>().unwrap(), [[1.0, second]]);
        }
    }
}
