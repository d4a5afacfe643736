//! `y = act((x − mean) / √(var + eps) · weight + bias)`, statistics over each group of channels (arXiv:1803.08494).
use super::probe::{Call, Op};
use super::{Activation, Layer, Ops, bytes};
use candle_core::{Module, Result, Tensor};

/// The parameters of one group normalisation.
#[derive(Clone)]
pub struct GroupNormParams {
    /// γ, `(channels)`.
    pub weight: Tensor,
    /// β, `(channels)`.
    pub bias: Tensor,
    /// Divides the channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Applied last.
    pub activation: Activation,
}

/// The slot: prepares a group normalisation for running.
pub trait GroupNorm: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// Converts the parameters, once.
    ///
    /// # Errors
    /// Parameters whose shapes do not agree or that the stage cannot take.
    fn prepare(&self, params: GroupNormParams) -> Result<Box<dyn GroupNormKernel>>;
}

/// A prepared group normalisation.
pub trait GroupNormKernel: Send + Sync {
    /// Runs it on `(batch, channels, height, width)`.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    fn run(&self, x: &Tensor) -> Result<Tensor>;
}

impl Ops {
    /// Prepares a group normalisation for the slot that will run it.
    ///
    /// # Errors
    /// Parameters whose shapes do not agree or that the stage cannot take.
    pub fn prepare_group_norm(&self, name: &str, params: GroupNormParams) -> Result<Layer<dyn GroupNormKernel>> {
        let bytes = self.stored_bytes([&params.weight, &params.bias]);
        Ok(Layer {
            name: name.to_owned(),
            stage: self.group_norm.stage(),
            flops_per_output: 8,
            bytes,
            kernel: self.group_norm.prepare(params)?,
        })
    }

    /// Runs a prepared group normalisation.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    pub fn group_norm(&self, layer: &Layer<dyn GroupNormKernel>, x: &Tensor) -> Result<Tensor> {
        let moved = |y: &Tensor| (y.elem_count() as u64 * layer.flops_per_output, bytes(x) + layer.bytes + bytes(y));
        self.probe.run(Call { op: Op::GroupNorm, site: &layer.name, stage: layer.stage }, moved, || layer.kernel.run(x))
    }
}

/// Candle's own group normalisation and activation.
pub struct Reference;

struct ReferenceKernel {
    norm: candle_nn::GroupNorm,
    activation: Activation,
}

impl GroupNorm for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn prepare(&self, p: GroupNormParams) -> Result<Box<dyn GroupNormKernel>> {
        let channels = p.weight.dim(0)?;
        let norm = candle_nn::GroupNorm::new(p.weight, p.bias, channels, p.groups, p.eps)?;
        Ok(Box::new(ReferenceKernel { norm, activation: p.activation }))
    }
}

impl GroupNormKernel for ReferenceKernel {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        self.activation.apply(&self.norm.forward(x)?)
    }
}
