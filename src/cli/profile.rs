//! `mirage profile`: where the time, the arithmetic and the memory of a call go.
use super::options::{ModelOptions, Size, StageOptions};
use super::table::table;
use super::{Verdict, output};
use crate::bench::report::{Build, Machine, machine};
use crate::bench::roofline::{self, Ceilings, Layer};
use crate::bench::{memory, trace::chrome_trace};
use crate::model::{call_alone, formula};
use crate::ops::probe::{Mode, Record};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Shows time, calls, arithmetic and bytes per op and per layer, and the peak memory of weights and activations.
///
/// One call is run to warm up, then as many as --calls asks are timed op by op.
#[derive(Args)]
#[command(after_help = "Example:
  mirage profile --model reference-medium --stages all --trace trace.json
  mirage profile --model reference-880m --stages all --device cuda --roofline")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    stages: StageOptions,
    /// The size of a frame, WIDTHxHEIGHT, sides that divide by 16.
    #[arg(long, default_value = "64x64", value_name = "SIZE")]
    size: Size,
    /// Frames in a batch.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Timed calls of the network.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    calls: u16,
    /// Layers to list, the slowest first.
    #[arg(long, default_value_t = 20, value_name = "N")]
    layers: usize,
    /// Set each layer beside the least time that it could take, by the bytes it moves and the arithmetic it does, and list those that
    /// lose most. How fast the device copies and multiplies is measured first.
    #[arg(long)]
    roofline: bool,
    /// GB/s to reckon with instead of what a copy reaches.
    #[arg(long, value_name = "GB/s", requires = "roofline", value_parser = positive, allow_hyphen_values = true)]
    bandwidth: Option<f64>,
    /// GFLOP/s to reckon with instead of what a product of large matrices reaches.
    #[arg(long, value_name = "GFLOP/s", requires = "roofline", value_parser = positive, allow_hyphen_values = true)]
    arithmetic: Option<f64>,
    /// Write the roofline here.
    #[arg(long, value_name = "FILE", requires = "roofline")]
    json: Option<PathBuf>,
    /// Write a timeline for chrome://tracing or Perfetto.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
}

/// What calls of one kind add up to.
#[derive(Clone, Copy, Default)]
struct Sum {
    calls: u64,
    seconds: f64,
    flops: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, r: &Record) {
        self.calls += 1;
        self.seconds += r.time.as_secs_f64();
        self.flops += r.flops;
        self.bytes += r.bytes;
    }
}

pub fn run(arguments: &Arguments) -> Result<Verdict> {
    for file in arguments.trace.iter().chain(&arguments.json) {
        output::refuse_existing(file, arguments.force)?;
    }
    let device = arguments.model.device.open()?;
    let (set, ops) = arguments.stages.install(&device)?;
    let before = memory::current_on(&device);
    let network = arguments.model.load(&ops)?;
    let weights = memory::current_on(&device).saturating_sub(before);

    let shape = (arguments.batch as usize, 3, arguments.size.height as usize, arguments.size.width as usize);
    let input = |name: &str| -> Result<Tensor> {
        let values = formula::input(name, shape.0 * shape.1 * shape.2 * shape.3);
        Ok(Tensor::from_vec(values, shape, &device)?.to_dtype(ops.dtype)?)
    };
    let (x, previous) = (input("input.x")?, input("input.previous")?);
    call_alone(&*network, &ops, &x, 0.0, &previous)?;
    device.synchronize()?;

    let at_rest = memory::current_on(&device);
    memory::reset_peak_on(&device);
    ops.probe.set(Mode::Time);
    for _ in 0..arguments.calls {
        call_alone(&*network, &ops, &x, 25.0, &previous)?;
    }
    let records = ops.probe.take_records();
    let activations = memory::peak_on(&device).saturating_sub(at_rest);

    say!(
        "{} at {}, batch {}, stages {set} on {}: {} calls",
        arguments.model.model,
        arguments.size,
        arguments.batch,
        arguments.model.device,
        arguments.calls
    );
    let calls = f64::from(arguments.calls);
    print_sums("op, run by", by(&records, |r| format!("{}, {}", r.op.name(), r.stage)), calls, usize::MAX)?;
    print_sums("layer", by(&records, |r| format!("{} ({})", r.site, r.op.name())), calls, arguments.layers)?;
    say!("Peak memory: weights {:.1} MiB, activations {:.1} MiB.", mebi(weights), mebi(activations));
    if let Some(trace) = &arguments.trace {
        output::write(trace, chrome_trace(&records).to_string().as_bytes(), arguments.force)?;
        say!("Timeline: {} (open it at chrome://tracing or ui.perfetto.dev)", trace.display());
    }
    if arguments.roofline {
        drop((network, x, previous));
        show_roofline(arguments, &records, &device, ops.dtype)?;
    }
    Ok(Verdict::Passed)
}

/// A rate that a device can have.
fn positive(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| format!("{text:?} is not a number above 0, such as 3000"))
}

/// What is stored of a roofline.
#[derive(Serialize)]
struct Roofline {
    machine: Machine,
    build: Build,
    command: String,
    work: String,
    ceilings: Ceilings,
    layers: Vec<Layer>,
}

fn show_roofline(arguments: &Arguments, records: &[Record], device: &Device, dtype: DType) -> Result<()> {
    let measured = match (arguments.bandwidth, arguments.arithmetic) {
        (Some(_), Some(_)) => Ceilings { bandwidth: 0.0, arithmetic: 0.0 },
        _ => roofline::ceilings(device, dtype)?,
    };
    let ceilings = Ceilings {
        bandwidth: arguments.bandwidth.map_or(measured.bandwidth, |rate| rate * 1e9),
        arithmetic: arguments.arithmetic.map_or(measured.arithmetic, |rate| rate * 1e9),
    };
    let said = |given: Option<f64>| if given.is_some() { "given" } else { "measured" };
    say!(
        "Roofline: {:.0} GB/s ({}), {:.0} GFLOP/s ({}); they meet at {:.0} flop for each byte. Each layer is timed with the device \
         idle before and after it, so a short one on a GPU also carries its launch.",
        ceilings.bandwidth / 1e9,
        said(arguments.bandwidth),
        ceilings.arithmetic / 1e9,
        said(arguments.arithmetic),
        ceilings.balance()
    );
    let layers = roofline::layers(records, ceilings, f64::from(arguments.calls));
    let mut table =
        table(&["layer", "op, run by", "ms", "GFLOP", "MB", "flop/byte", "floor ms", "bound", "share of floor"], 2);
    let row = |name: String, by: String, all: &[&Layer], bound: &str| {
        let sum = |value: fn(&Layer) -> f64| all.iter().map(|layer| value(layer)).sum::<f64>();
        let (seconds, flops, bytes, floor) = (sum(|l| l.seconds), sum(|l| l.flops), sum(|l| l.bytes), sum(|l| l.floor));
        [
            name,
            by,
            format!("{:.3}", seconds * 1e3),
            format!("{:.3}", flops / 1e9),
            format!("{:.2}", bytes / 1e6),
            format!("{:.0}", flops / bytes.max(1.0)),
            format!("{:.4}", floor * 1e3),
            bound.to_owned(),
            format!("{:.1} %", 100.0 * floor / seconds),
        ]
    };
    for layer in layers.iter().take(arguments.layers) {
        let bound = if layer.bound == roofline::Bound::Memory { "memory" } else { "arithmetic" };
        table.add_row(row(layer.name.clone(), format!("{}, {}", layer.op, layer.stage), &[layer], bound));
    }
    let rest: Vec<&Layer> = layers.iter().skip(arguments.layers).collect();
    if !rest.is_empty() {
        table.add_row(row(format!("{} others", rest.len()), String::new(), &rest, ""));
    }
    table.add_row(row("all".to_owned(), String::new(), &layers.iter().collect::<Vec<_>>(), ""));
    say!("{table}");
    if let Some(path) = &arguments.json {
        let stored = Roofline {
            machine: machine().with(device),
            build: Build { version: super::version().replace('\n', "; ") },
            command: super::command_line(),
            work: format!("{} at {}, batch {}", arguments.model.model, arguments.size, arguments.batch),
            ceilings,
            layers,
        };
        let mut json = serde_json::to_vec_pretty(&stored)?;
        json.push(b'\n');
        output::write(path, &json, arguments.force)?;
        say!("Roofline: {}", path.display());
    }
    Ok(())
}

fn mebi(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn by(records: &[Record], key: impl Fn(&Record) -> String) -> Vec<(String, Sum)> {
    let mut sums = BTreeMap::<String, Sum>::new();
    for r in records {
        sums.entry(key(r)).or_default().add(r);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    sums
}

/// A table of sums for each call of the network, with a line for what is not listed and one for all.
fn print_sums(title: &str, sums: Vec<(String, Sum)>, calls: f64, most: usize) -> Result<()> {
    let mut total = Sum::default();
    let mut rest = Sum::default();
    for (i, (_, s)) in sums.iter().enumerate() {
        for sum in [Some(&mut total), Some(&mut rest).filter(|_| i >= most)].into_iter().flatten() {
            *sum = Sum {
                calls: sum.calls + s.calls,
                seconds: sum.seconds + s.seconds,
                flops: sum.flops + s.flops,
                bytes: sum.bytes + s.bytes,
            };
        }
    }
    let mut table = table(&[title, "calls", "ms", "share", "GFLOP", "GFLOP/s", "MB", "GB/s"], 1);
    let left = sums.len().saturating_sub(most);
    let others = (left > 0).then(|| (format!("{left} others"), rest));
    for (name, s) in sums.into_iter().take(most).chain(others).chain([("all".to_owned(), total)]) {
        table.add_row([
            name,
            format!("{}", s.calls as f64 / calls),
            format!("{:.3}", s.seconds * 1e3 / calls),
            format!("{:.1} %", 100.0 * s.seconds / total.seconds),
            format!("{:.3}", s.flops as f64 / 1e9 / calls),
            format!("{:.1}", s.flops as f64 / 1e9 / s.seconds),
            format!("{:.2}", s.bytes as f64 / 1e6 / calls),
            format!("{:.2}", s.bytes as f64 / 1e9 / s.seconds),
        ]);
    }
    say!("{table}");
    Ok(())
}
