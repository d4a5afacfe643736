//! `y = act(x·Wᵀ + bias) + residual`: a linear layer with all that follows it.
use super::probe::{Call, Op};
use super::{Activation, Layer, Ops, bytes};
use candle_core::{Module, Result, Tensor};

/// The parameters of one linear layer.
#[derive(Clone)]
pub struct LinearParams {
    /// `(out, in)`.
    pub weight: Tensor,
    /// `(out)`.
    pub bias: Option<Tensor>,
    /// Applied after the bias.
    pub activation: Activation,
}

/// The slot: prepares a linear layer for running.
pub trait Linear: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// Packs or converts the parameters, once.
    ///
    /// # Errors
    /// Parameters whose shapes do not agree or that the stage cannot take.
    fn prepare(&self, params: LinearParams) -> Result<Box<dyn LinearKernel>>;
}

/// A prepared linear layer.
pub trait LinearKernel: Send + Sync {
    /// Runs it: `x` is `(…, in)`, `residual` and the result are `(…, out)`.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor>;
}

impl Ops {
    /// Prepares a linear layer for the slot that will run it.
    ///
    /// # Errors
    /// Parameters whose shapes do not agree or that the stage cannot take.
    pub fn prepare_linear(&self, name: &str, params: LinearParams) -> Result<Layer<dyn LinearKernel>> {
        let (_, inputs) = params.weight.dims2()?;
        let bytes = self.stored_bytes([&params.weight].into_iter().chain(&params.bias));
        Ok(Layer {
            name: name.to_owned(),
            stage: self.linear.stage(),
            flops_per_output: 2 * inputs as u64,
            bytes,
            kernel: self.linear.prepare(params)?,
        })
    }

    /// Runs a prepared linear layer.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    pub fn linear(&self, layer: &Layer<dyn LinearKernel>, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let moved = |y: &Tensor| {
            let seam = bytes(x) + residual.map_or(0, bytes) + bytes(y);
            (y.elem_count() as u64 * layer.flops_per_output, seam + layer.bytes)
        };
        self.probe.run(Call { op: Op::Linear, site: &layer.name, stage: layer.stage }, moved, || {
            layer.kernel.run(x, residual)
        })
    }
}

/// Candle's own linear layer and activation.
pub struct Reference;

struct ReferenceKernel {
    linear: candle_nn::Linear,
    activation: Activation,
}

impl Linear for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn prepare(&self, p: LinearParams) -> Result<Box<dyn LinearKernel>> {
        Ok(Box::new(ReferenceKernel { linear: candle_nn::Linear::new(p.weight, p.bias), activation: p.activation }))
    }
}

impl LinearKernel for ReferenceKernel {
    fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let y = self.activation.apply(&self.linear.forward(x)?)?;
        match residual {
            Some(residual) => y + residual,
            None => Ok(y),
        }
    }
}
