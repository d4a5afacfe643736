//! `mirage eval`: one call and one sequence of the reference network on given inputs, to compare with the original.
use super::options::{DeviceSpec, WeightsOption};
use super::{Verdict, output};
use crate::model::{Reference, SEQUENCE, SafetensorsFile};
use crate::stages::StageSpec;
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};
use clap::{Args, ValueEnum};
use std::collections::HashMap;
use std::path::PathBuf;

/// Timestep of the single call.
const STEP: f64 = 25.0;

/// Runs the reference network on the inputs of a file and writes what it draws.
///
/// Reads `x` and `previous`, (batch, 3, height, width), any batch, sides that divide by 16. Writes `step_t25`, one call
/// at t = 25, and `sequence`, (5, batch, 3, height, width), the outputs of five calls at t = 0, 10, 20, 30, 40 that
/// each feed the next as `previous`; both in f32.
#[derive(Args)]
#[command(after_help = "Example:
  mirage eval --model reference --base-channels 16 --inputs golden.safetensors --output drawn.safetensors")]
pub struct Arguments {
    /// The network.
    #[arg(long, value_enum, default_value_t = Model::Reference)]
    model: Model,
    /// Channels at the highest resolution; 192 is the network of 880 M parameters.
    #[arg(long, default_value_t = 192, value_name = "N")]
    base_channels: usize,
    /// A safetensors file with `x` and `previous`.
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// The safetensors file to write.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// A safetensors file (f32, f16 or bf16), or `formula`.
    #[arg(long, default_value = "formula", value_name = "FILE")]
    weights: WeightsOption,
    /// The stages: none, all (that this build and device can run), or a list of fp16,flash-attn,fused-ops,custom-ptx.
    #[arg(long, default_value = "none", value_name = "LIST")]
    stages: StageSpec,
    /// Where to run: cpu, cuda or cuda:NUMBER.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceSpec,
    /// Replace the output if it exists.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Model {
    Reference,
}

pub fn run(arguments: &Arguments) -> Result<Verdict> {
    let Model::Reference = arguments.model;
    output::refuse_existing(&arguments.output, arguments.force)?;
    let device = arguments.device.open()?;
    let ops = arguments.stages.resolve(&device).install(&device)?;
    let file = SafetensorsFile::open(&arguments.inputs)?;
    let input = |name: &str| -> Result<Tensor> {
        let shape = file.shape(name).with_context(|| {
            format!("{} has no tensor {name}: it must hold `x` and `previous`", arguments.inputs.display())
        })?;
        ensure!(shape.len() == 4, "{name} is {shape:?}, it must be (batch, 3, height, width)");
        Ok(Tensor::from_vec(file.read_f32(name, shape)?, shape, &device)?.to_dtype(ops.dtype)?)
    };
    let (x, previous) = (input("x")?, input("previous")?);
    let network = Reference::checked(&ops, &arguments.weights.open(&device)?, arguments.base_channels)?;
    let step = network.forward(&ops, &x, STEP, &previous)?;
    let sequence = Tensor::stack(&network.sequence(&ops, &x, &SEQUENCE, &previous)?, 0)?;

    let plain = |t: Tensor| t.to_dtype(DType::F32)?.to_device(&candle_core::Device::Cpu)?.contiguous();
    let drawn = HashMap::from([("step_t25", plain(step)?), ("sequence", plain(sequence)?)]);
    output::write(&arguments.output, &safetensors::serialize(&drawn, None)?, arguments.force)?;
    Ok(Verdict::Passed)
}
