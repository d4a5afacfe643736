//! `y = (x − mean) / √(var + eps) · weight + bias`, statistics over the last dimension (arXiv:1607.06450).
use super::probe::{Call, Op};
use super::{Layer, Ops, bytes};
use candle_core::{Result, Tensor};

/// The parameters of one layer normalisation.
#[derive(Clone)]
pub struct LayerNormParams {
    /// γ, `(width)`.
    pub weight: Tensor,
    /// β, `(width)`.
    pub bias: Tensor,
    /// Added to the variance.
    pub eps: f64,
}

/// The slot: prepares a layer normalisation for running.
pub trait LayerNorm: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// Converts the parameters, once.
    ///
    /// # Errors
    /// Parameters whose shapes do not agree or that the stage cannot take.
    fn prepare(&self, params: LayerNormParams) -> Result<Box<dyn LayerNormKernel>>;
}

/// A prepared layer normalisation.
pub trait LayerNormKernel: Send + Sync {
    /// Runs it on `(…, width)`.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    fn run(&self, x: &Tensor) -> Result<Tensor>;
}

impl Ops {
    /// Prepares a layer normalisation for the slot that will run it.
    ///
    /// # Errors
    /// Parameters whose shapes do not agree or that the stage cannot take.
    pub fn prepare_layer_norm(&self, name: &str, params: LayerNormParams) -> Result<Layer<dyn LayerNormKernel>> {
        let bytes = self.stored_bytes([&params.weight, &params.bias]);
        Ok(Layer {
            name: name.to_owned(),
            stage: self.layer_norm.stage(),
            flops_per_output: 8,
            bytes,
            kernel: self.layer_norm.prepare(params)?,
        })
    }

    /// Runs a prepared layer normalisation.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    pub fn layer_norm(&self, layer: &Layer<dyn LayerNormKernel>, x: &Tensor) -> Result<Tensor> {
        let moved = |y: &Tensor| (y.elem_count() as u64 * layer.flops_per_output, bytes(x) + layer.bytes + bytes(y));
        self.probe.run(Call { op: Op::LayerNorm, site: &layer.name, stage: layer.stage }, moved, || layer.kernel.run(x))
    }
}

/// Candle's own fused layer normalisation; the input is made contiguous, without which Candle takes a slow path.
pub struct Reference;

struct ReferenceKernel(LayerNormParams);

impl LayerNorm for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn prepare(&self, params: LayerNormParams) -> Result<Box<dyn LayerNormKernel>> {
        Ok(Box::new(ReferenceKernel(params)))
    }
}

impl LayerNormKernel for ReferenceKernel {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm(&x.contiguous()?, &self.0.weight, &self.0.bias, self.0.eps as f32)
    }
}
