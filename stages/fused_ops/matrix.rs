//! The linear and GEGLU slots: weights packed at load, bias, activation, gate and residual in the kernel's epilogue.
use super::STAGE;
use super::activations::{Dense, filled, parameter, read_opt, refused};
use super::convolution::activation;
use super::cpu::{Activation, Epilogue, PackedWeights, Storage, linear};
use crate::ops::geglu::{Geglu, GegluKernel, GegluParams};
use crate::ops::linear::{Linear, LinearKernel, LinearParams};
use candle_core::{Result, Tensor};

pub(super) struct Fused(pub Storage);

struct Packed {
    weights: PackedWeights,
    bias: Option<Vec<f32>>,
    activation: Activation,
    inputs: usize,
    outputs: usize,
}

impl Linear for Fused {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, p: LinearParams) -> Result<Box<dyn LinearKernel>> {
        let (outputs, inputs) = p.weight.dims2()?;
        Ok(Box::new(Packed {
            weights: PackedWeights::from_linear(&parameter(&p.weight)?, [outputs, inputs], self.0).map_err(refused)?,
            bias: p.bias.as_ref().map(parameter).transpose()?,
            activation: activation(p.activation),
            inputs,
            outputs,
        }))
    }
}

impl Geglu for Fused {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn prepare(&self, p: GegluParams) -> Result<Box<dyn GegluKernel>> {
        let (rows, inputs) = p.weight.dims2()?;
        Ok(Box::new(Packed {
            weights: PackedWeights::from_geglu(&parameter(&p.weight)?, [rows, inputs], self.0).map_err(refused)?,
            bias: Some(parameter(&p.bias)?),
            activation: Activation::None,
            inputs,
            outputs: rows / 2,
        }))
    }
}

impl Packed {
    fn multiply(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == self.inputs => *last = self.outputs,
            _ => candle_core::bail!("linear takes (…, {}), not {:?}", self.inputs, x.dims()),
        }
        let tokens = x.elem_count() / self.inputs;
        let dense = Dense::new(x)?;
        let residual = residual.map(Dense::new).transpose()?;
        filled(shape, x.dtype(), |y| {
            dense.read(|x| {
                read_opt(residual.as_ref(), |residual| {
                    let epilogue =
                        Epilogue { bias: self.bias.as_deref(), shift: None, activation: self.activation, residual };
                    linear(x, [1, tokens], &self.weights, &epilogue, y).map_err(refused)
                })
            })
        })
    }
}

impl LinearKernel for Packed {
    fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        self.multiply(x, residual)
    }
}

impl GegluKernel for Packed {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        self.multiply(x, None)
    }
}
