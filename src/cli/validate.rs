//! `mirage validate`: every op against its definition on this machine, and whether a network suits tensor cores.
use super::Verdict;
use super::options::{DeviceSpec, Size, StageOptions};
use super::table::table;
use crate::bench::readiness::{self, Shape};
use crate::model::{FrameNetwork, ModelSpec, Parameter, Weights};
use crate::ops::Ops;
use crate::ops::cases::{self, Outcome};
use crate::stages::StageSet;
use anyhow::{Context as _, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use clap::Args;

/// Checks the stages on this machine, and a network's sizes against what tensor cores want.
///
/// First each case of each op runs through the stages and through plain Candle in f32, on fresh random inputs; a
/// difference beyond what rounding explains is a failure, and on a GPU a kernel that writes next to its result. Then each layer of the network whose channels, head dim or
/// number of pixels leaves tensor cores idle is listed with what to change; that is advice, not a failure.
#[derive(Args)]
#[command(after_help = "Exit code 1 when an op is wrong.

Environment:
  MIRAGE_CUDA_ARCH=compute_80  has any NVIDIA GPU run the code for compute capability 8.0

Examples:
  mirage validate --model reference-880m --stages all
  MIRAGE_CUDA_ARCH=compute_80 mirage validate --device cuda --random 100")]
pub struct Arguments {
    /// The network to judge.
    #[arg(long, default_value = "reference-880m", value_name = "NAME")]
    model: ModelSpec,
    #[command(flatten)]
    stages: StageOptions,
    /// Where to run: cpu, cuda or cuda:NUMBER.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceSpec,
    /// The size of a frame, WIDTHxHEIGHT, sides that divide by 16.
    #[arg(long, default_value = "64x64", value_name = "SIZE")]
    size: Size,
    /// Frames in a batch.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Cases of random shapes to check beside those of every run.
    #[arg(long, default_value_t = 0, value_name = "N")]
    random: u16,
    /// Check each kernel that could run a case, not the one that this machine would choose: a GPU has some 70 for a convolution or a linear layer.
    #[arg(long)]
    every_kernel: bool,
    /// Seed of the random shapes and inputs; without it, a fresh one.
    #[arg(long)]
    seed: Option<u64>,
}

pub fn run(arguments: &Arguments) -> Result<Verdict> {
    // shapes alone: no weights are needed to judge sizes
    let shapes = Weights::shapes();
    let network = arguments.model.load(&Ops::reference(&Device::Cpu), &shapes)?;
    let (size, multiple) = (arguments.size, network.multiple() as u32);
    ensure!(
        size.width.is_multiple_of(multiple) && size.height.is_multiple_of(multiple),
        "--size {size}: {} takes sides that divide by {multiple}, such as {}x{}",
        arguments.model,
        size.width.next_multiple_of(multiple),
        size.height.next_multiple_of(multiple)
    );
    let device = arguments.device.open()?;
    // the cases are small: weights in eight bits are checked in all of them
    let (set, ops) = arguments.stages.of_any_size().install(&device)?;
    let seed = arguments.seed.unwrap_or_else(rand::random);
    say!("Ops through {set}{} on {}, seed {seed}:", ops.weights.note(), arguments.device);
    if !device.is_cpu() {
        say!("More memory than there is: {}; what follows runs all the same.", out_of_memory(&device)?);
    }
    let mut table = table(&["case", "run by", "largest error", "allowed", ""], 2);
    let (mut checked, mut wrong, mut kernels) = (0, 0, 0);
    for case in cases::all().into_iter().chain(cases::drawn(arguments.random.into(), seed)) {
        ops.probe.set(crate::ops::probe::Mode::Count);
        let (outcome, count) = if arguments.every_kernel {
            case.check_every_kernel(&ops, seed)
        } else {
            case.check(&ops, seed).map(|outcome| (outcome, 1))
        }
        .with_context(|| format!("{case}, seed {seed}, cannot be run"))?;
        kernels += count;
        let stage = ops.probe.counts().keys().find(|(op, _)| *op == case.op()).map_or("", |(_, stage)| *stage);
        checked += 1;
        wrong += usize::from(!outcome.passed());
        let verdict = match outcome {
            _ if outcome.passed() => "ok",
            Outcome { overrun: 1.., .. } => "WRITES BEYOND ITS MEMORY",
            _ => "WRONG",
        };
        let (error, allowed) = (format!("{:.1e}", outcome.error), format!("{:.1e}", outcome.tolerance));
        table.add_row([case.to_string().as_str(), stage, &error, &allowed, verdict]);
    }
    say!("{table}");
    let beyond = if device.is_cpu() { "" } else { ", and write nothing beyond their results" };
    let each = if kernels > checked { format!(" through {kernels} choices of a kernel") } else { String::new() };
    say!("{} of {checked} cases agree with their definition{each}{beyond}.", checked - wrong);

    readiness_report(arguments, &set, &*network, &shapes.asked())?;
    Ok(if wrong == 0 { Verdict::Passed } else { Verdict::Failed })
}

/// What is said where a GPU is asked for more memory than it has: an error, after which it must go on.
fn out_of_memory(device: &Device) -> Result<String> {
    const FAR_TOO_MUCH: usize = 1 << 42;
    match Tensor::zeros(FAR_TOO_MUCH, DType::U8, device) {
        Ok(_) => bail!("{FAR_TOO_MUCH} bytes were promised, which no GPU has: results from here cannot be trusted"),
        Err(e) => Ok(e.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

fn readiness_report(
    arguments: &Arguments,
    set: &StageSet,
    network: &dyn FrameNetwork,
    parameters: &[Parameter],
) -> Result<()> {
    let shape = Shape {
        batch: arguments.batch.into(),
        height: arguments.size.height as usize,
        width: arguments.size.width as usize,
        multiple: network.multiple(),
    };
    let findings = readiness::findings(parameters, shape, |layer| network.heads(layer));
    say!("\nTensor-core readiness of {} at {}, batch {}:", arguments.model, arguments.size, arguments.batch);
    for (stage, layout) in [
        ("fp16", "weights and activations are f32: tensor cores want halves; add fp16 to --stages"),
        ("fused-ops", "activations are channels-first: tensor cores want channels-last; add fused-ops to --stages"),
    ] {
        if !set.names().contains(&stage) {
            say!("  {layout}");
        }
    }
    if findings.is_empty() {
        say!("  every layer's sizes fit.");
        return Ok(());
    }
    let mut table = table(&["layer", "fault", "change"], 3);
    for f in &findings {
        table.add_row([&f.layer, &f.fault, &f.change]);
    }
    say!("{table}");
    say!("{} findings in {} tensors.", findings.len(), parameters.len());
    Ok(())
}
