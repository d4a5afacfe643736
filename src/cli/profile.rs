//! `mirage profile`: where the time, the arithmetic and the memory of a call go.
use super::options::{ModelOptions, Size, StageOptions};
use super::table::table;
use super::{Verdict, output};
use crate::bench::{memory, trace::chrome_trace};
use crate::model::{call_alone, formula};
use crate::ops::probe::{Mode, Record};
use anyhow::Result;
use candle_core::Tensor;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Shows time, calls, arithmetic and bytes per op and per layer, and the peak memory of weights and activations.
///
/// One call is run to warm up, then as many as --calls asks are timed op by op.
#[derive(Args)]
#[command(after_help = "Example:
  mirage profile --model reference-medium --stages all --trace trace.json")]
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
    /// Write a timeline for chrome://tracing or Perfetto.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Replace the trace file if it exists.
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
    if let Some(trace) = &arguments.trace {
        output::refuse_existing(trace, arguments.force)?;
    }
    let device = arguments.model.device.open()?;
    let (set, ops) = arguments.stages.install(&device)?;
    let before = memory::current();
    let network = arguments.model.load(&ops)?;
    let weights = memory::current().saturating_sub(before);

    let shape = (arguments.batch as usize, 3, arguments.size.height as usize, arguments.size.width as usize);
    let input = |name: &str| -> Result<Tensor> {
        let values = formula::input(name, shape.0 * shape.1 * shape.2 * shape.3);
        Ok(Tensor::from_vec(values, shape, &device)?.to_dtype(ops.dtype)?)
    };
    let (x, previous) = (input("input.x")?, input("input.previous")?);
    call_alone(&*network, &ops, &x, 0.0, &previous)?;
    device.synchronize()?;

    let at_rest = memory::current();
    memory::reset_peak();
    ops.probe.set(Mode::Time);
    for _ in 0..arguments.calls {
        call_alone(&*network, &ops, &x, 25.0, &previous)?;
    }
    let records = ops.probe.take_records();
    let activations = memory::peak().saturating_sub(at_rest);

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
    Ok(Verdict::Passed)
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
