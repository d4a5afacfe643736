//! `mirage profile`: where the time, the arithmetic and the memory of a call go.
use super::options::{ModelOptions, Size, StageOptions};
use super::table::table;
use super::{Verdict, output};
use crate::bench::report::{Build, machine};
use crate::bench::roofline::{self, Ceilings, Layer, Origin};
use crate::bench::{ceilings, memory, trace::chrome_trace};
use crate::cuda::{Marker, time_parts};
use crate::model::{call_alone, formula};
use crate::ops::Ops;
use crate::ops::probe::{Mode, Record};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Shows time, calls, arithmetic and bytes per op and per layer, and the peak memory of weights and activations.
///
/// One call is run to warm up, then as many as --calls asks are timed op by op. Where calls are recorded (fused-ops on a GPU), each layer is timed
/// in its place in the recording, as the median of so many.
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
    let mut call = || call_alone(&*network, &ops, &x, 25.0, &previous);
    // work that is recorded as a whole is looked at as a whole: on its own, a short layer would show its launch
    let (records, between) = match Marker::new(&device)?.filter(|_| ops.graphs.is_some()) {
        Some(marker) => in_place(&ops, &marker, usize::from(arguments.calls), &mut call)?,
        None => {
            ops.probe.set(Mode::Time);
            for _ in 0..arguments.calls {
                call()?;
            }
            (ops.probe.take_records(), None)
        }
    };
    let activations = memory::peak_on(&device).saturating_sub(at_rest);

    let work = format!(
        "{} at {}, batch {}, stages {set}{} on {}",
        arguments.model.model,
        arguments.size,
        arguments.batch,
        ops.weights.note(),
        arguments.model.device
    );
    say!("{work}: {} calls", arguments.calls);
    if let Some(between) = between {
        say!(
            "Each layer was timed in its place in a recorded call, between two events, which keep it from overlapping with its neighbours; between \
             layers there were {:.3} ms.",
            between.as_secs_f64() * 1e3
        );
    }
    let calls = if between.is_some() { 1.0 } else { f64::from(arguments.calls) };
    print_sums("op, run by", by(&records, |r| format!("{}, {}", r.op.name(), r.stage)), calls, usize::MAX)?;
    print_sums("layer", by(&records, |r| format!("{} ({})", r.site, r.op.name())), calls, arguments.layers)?;
    say!("Peak memory: weights {:.1} MiB, activations {:.1} MiB.", mebi(weights), mebi(activations));
    if let Some(trace) = &arguments.trace {
        output::write(trace, chrome_trace(&records).to_string().as_bytes(), arguments.force)?;
        say!("Timeline: {} (open it at chrome://tracing or ui.perfetto.dev)", trace.display());
    }
    if arguments.roofline {
        drop((network, x, previous)); // large matrices must fit beside what is left
        show_roofline(arguments, work, &records, calls, &device, ops.dtype)?;
    }
    Ok(Verdict::Passed)
}

/// A rate that a device can have: far beyond these, a floor would be 0 or infinite.
fn positive(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (1e-12..=1e12).contains(value));
    value.ok_or_else(|| format!("{text:?} is no rate: give a number above 0, such as 3000"))
}

/// What was given, in thousands of millions a second, or what is measured instead.
fn ceiling(given: Option<f64>, measure: impl FnOnce() -> Result<f64>) -> Result<(f64, Origin)> {
    Ok(match given {
        Some(rate) => (rate * 1e9, Origin::Given),
        None => (measure()?, Origin::Measured),
    })
}

/// The layers of a recorded call with the time that each takes there, and the time between them.
fn in_place(
    ops: &Ops,
    marker: &Marker,
    calls: usize,
    call: &mut dyn FnMut() -> crate::Result<Tensor>,
) -> Result<(Vec<Record>, Option<Duration>)> {
    let parts = time_parts(marker, calls, &mut || {
        ops.probe.mark(marker.clone());
        call().map(drop)
    })?;
    let mut records = ops.probe.take_records();
    ops.probe.set(Mode::Off);
    let mut start = Duration::ZERO;
    // what is before a layer, and the layer
    for (record, part) in records.iter_mut().zip(parts.chunks(2)) {
        record.start = start + part[0];
        record.time = part.get(1).copied().unwrap_or_default();
        start = record.start + record.time;
    }
    Ok((records, Some(parts.iter().step_by(2).sum())))
}

fn show_roofline(
    arguments: &Arguments,
    work: String,
    records: &[Record],
    calls: f64,
    device: &Device,
    dtype: DType,
) -> Result<()> {
    let (bandwidth, bandwidth_from) = ceiling(arguments.bandwidth, || ceilings::bandwidth(device))?;
    let (arithmetic, arithmetic_from) = ceiling(arguments.arithmetic, || ceilings::arithmetic(device, dtype))?;
    let ceilings = Ceilings { bandwidth, arithmetic };
    say!(
        "Roofline: {:.1} GB/s ({}), {:.1} GFLOP/s ({}); they meet at {:.1} flop for each byte.",
        bandwidth / 1e9,
        bandwidth_from.name(),
        arithmetic / 1e9,
        arithmetic_from.name(),
        ceilings.balance()
    );
    let layers = roofline::layers(records, ceilings, calls);
    let total = roofline::total("all", &layers);
    print_layers(&layers, arguments.layers, &total)?;
    if let Some(path) = &arguments.json {
        let report = roofline::Report {
            machine: machine().with(device),
            build: Build { version: super::version().replace('\n', "; ") },
            command: super::command_line(),
            work,
            ceilings,
            bandwidth_from,
            arithmetic_from,
            layers,
            total,
        };
        let mut json = serde_json::to_vec_pretty(&report)?;
        json.push(b'\n');
        output::write(path, &json, arguments.force)?;
        say!("Roofline: {}", path.display());
    }
    Ok(())
}

/// A table of layers beside their floors, with a line for what is not listed and one for all.
fn print_layers(layers: &[Layer], most: usize, total: &Layer) -> Result<()> {
    let titles =
        ["layer", "op, run by", "calls", "ms", "GFLOP", "MB", "flop/byte", "floor ms", "bound", "share of floor"];
    let mut table = table(&titles, 2);
    let row = |layer: &Layer, by: String, bound: &str| {
        [
            layer.name.clone(),
            by,
            format!("{:.0}", layer.calls),
            format!("{:.3}", layer.seconds * 1e3),
            format!("{:.3}", layer.flops / 1e9),
            format!("{:.2}", layer.bytes / 1e6),
            format!("{:.1}", layer.intensity),
            format!("{:.4}", layer.floor * 1e3),
            bound.to_owned(),
            format!("{:.1} %", 100.0 * layer.share),
        ]
    };
    let (listed, rest) = layers.split_at(most.min(layers.len()));
    for layer in listed {
        table.add_row(row(layer, format!("{}, {}", layer.op, layer.stage), layer.bound.name()));
    }
    if !rest.is_empty() {
        let others = roofline::total(&format!("{} others", rest.len()), rest);
        table.add_row(row(&others, String::new(), ""));
    }
    table.add_row(row(total, String::new(), ""));
    say!("{table}");
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
