//! `y = h · gelu(g)` with `[h, g] = x·Wᵀ + bias`: the gated feed-forward of a transformer block (arXiv:2002.05202).
use super::probe::{Call, Op};
use super::{Layer, Ops, bytes};
use candle_core::{D, Module, Result, Tensor};

/// The parameters of one GEGLU.
#[derive(Clone)]
pub struct GegluParams {
    /// `(2 · inner, in)`: the hidden half first, then the gate.
    pub weight: Tensor,
    /// `(2 · inner)`.
    pub bias: Tensor,
}

/// The slot: prepares a GEGLU for running.
pub trait Geglu: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// Packs or converts the parameters, once.
    ///
    /// # Errors
    /// Parameters whose shapes do not agree or that the stage cannot take.
    fn prepare(&self, params: GegluParams) -> Result<Box<dyn GegluKernel>>;
}

/// A prepared GEGLU.
pub trait GegluKernel: Send + Sync {
    /// Runs it: `(…, in)` to `(…, inner)`.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    fn run(&self, x: &Tensor) -> Result<Tensor>;
}

impl Ops {
    /// Prepares a GEGLU for the slot that will run it.
    ///
    /// # Errors
    /// Parameters whose shapes do not agree or that the stage cannot take.
    pub fn prepare_geglu(&self, name: &str, params: GegluParams) -> Result<Layer<dyn GegluKernel>> {
        let (_, inputs) = params.weight.dims2()?;
        let bytes = self.stored_bytes([&params.weight, &params.bias]);
        Ok(Layer {
            name: name.to_owned(),
            stage: self.geglu.stage(),
            flops_per_output: 4 * inputs as u64,
            bytes,
            kernel: self.geglu.prepare(params)?,
        })
    }

    /// Runs a prepared GEGLU.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    pub fn geglu(&self, layer: &Layer<dyn GegluKernel>, x: &Tensor) -> Result<Tensor> {
        let moved = |y: &Tensor| (y.elem_count() as u64 * layer.flops_per_output, bytes(x) + layer.bytes + bytes(y));
        self.probe.run(Call { op: Op::Geglu, site: &layer.name, stage: layer.stage }, moved, || layer.kernel.run(x))
    }
}

/// Candle's own linear layer, split, and GELU (erf).
pub struct Reference;

struct ReferenceKernel(candle_nn::Linear);

impl Geglu for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn prepare(&self, p: GegluParams) -> Result<Box<dyn GegluKernel>> {
        Ok(Box::new(ReferenceKernel(candle_nn::Linear::new(p.weight, Some(p.bias)))))
    }
}

impl GegluKernel for ReferenceKernel {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        let both = self.0.forward(x)?.chunk(2, D::Minus1)?;
        &both[0] * both[1].gelu_erf()?
    }
}
