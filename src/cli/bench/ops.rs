//! A benchmark of single ops: each case checked against its definition, then timed, by whoever runs it on each rung.
use super::Arguments;
use crate::bench::executor::{Executor, OnDevice, Plan, measure};
use crate::bench::report::{Row, Status};
use crate::bench::statistics::Summary;
use crate::cuda;
use crate::ops::probe::Mode;
use crate::ops::{Ops, WeightsType, cases};
use anyhow::{Context as _, Result, ensure};
use candle_core::Device;
use std::time::Duration;

/// An op is short, so it runs often; its row takes a second, a slow one's three runs.
const PLAN: Plan = Plan { warmup: 10, runs: 5000, limit: Duration::from_secs(1) };

/// Hands over a row for each case that holds `filter` and each rung on which another slot runs it.
///
/// # Errors
/// No case holds the filter; whatever a slot reports.
pub fn run(arguments: &Arguments, filter: &str, seed: u64, mut push: impl FnMut(Row) -> Result<()>) -> Result<()> {
    let device = arguments.model.device.open()?;
    let cases: Vec<_> = cases::timed().into_iter().filter(|case| case.to_string().contains(filter)).collect();
    ensure!(!cases.is_empty(), "no op case holds {filter:?}; without a text, --ops measures them all");
    for case in cases {
        let mut known = vec![];
        // the cases are small: layers of any size are stored so
        for rung in arguments.rungs(arguments.weights_dtype.of_any_size(), &device) {
            let of_case = |row| Row { case: Some(case.to_string()), ..row };
            let stages: Vec<String> = rung.stages.names().iter().map(|s| (*s).to_owned()).collect();
            let ops = match rung.install(arguments.dtype, &device) {
                Ok(ops) => ops,
                Err(why) => {
                    push(of_case(Row::untimed(rung.name, stages, Status::Refused(why.to_string()))))?;
                    continue;
                }
            };
            let (who, flops) = look(&case, &ops, seed)?;
            // a rung that leaves this op to one below would only be timed twice
            let run = (who, ops.dtype, if case.has_weights() { ops.weights } else { WeightsType::Storage });
            if known.contains(&run) {
                continue;
            }
            known.push(run);
            let row = timed(&case, &ops, seed, &device)?;
            push(of_case(Row { name: rung.name, stages, flops: Some(flops), ..row }))?;
        }
    }
    Ok(())
}

/// Who runs the case, and its arithmetic.
fn look(case: &cases::Case, ops: &Ops, seed: u64) -> Result<(&'static str, u64)> {
    let prepared = case.prepare(ops, seed)?;
    ops.probe.set(Mode::Time);
    let ran = prepared.run(ops);
    let records = ops.probe.take_records();
    ops.probe.set(Mode::Off);
    ran?;
    Ok((records.last().map_or("none", |r| r.stage), records.iter().map(|r| r.flops).sum()))
}

/// A row without its name.
fn timed(case: &cases::Case, ops: &Ops, seed: u64, device: &Device) -> Result<Row> {
    let outcome = case.check(ops, seed)?;
    let row = Row { error: Some(outcome.error), ..Row::untimed(String::new(), vec![], Status::Timed) };
    if !outcome.passed() {
        return Ok(Row { status: Status::Wrong(outcome.to_string()), ..row });
    }
    let prepared = case.prepare_as_in_a_network(ops, seed)?;
    let work = || prepared.run(ops).map(drop);
    // once as it is: it loads what is loaded lazily
    work()?;
    let mut warnings = vec![];
    let timings = if device.is_cpu() {
        measure(&mut OnDevice(device, || Ok(work()?)), PLAN)?
    } else {
        let recorded = measure(&mut Recorded(device, work), PLAN);
        recorded.or_else(|why| {
            let why = why.to_string();
            let why = why.lines().next().unwrap_or_default();
            warnings.push(format!("cannot be recorded, so its time has launches in it: {why}"));
            measure(&mut OnDevice(device, || Ok(work()?)), PLAN)
        })?
    };
    let sequence = Summary::new(&timings);
    warnings.extend(sequence.as_ref().map_or(vec![], |s| s.warnings(&timings)));
    Ok(Row { warnings, sequence, ..row })
}

/// Runs of an op that follow each other in a recording, so that it waits for no launch.
const TURNS: usize = 8;

/// Times a piece of work on a GPU as it is in a network: in a recording, behind others of its kind.
struct Recorded<'a, F>(&'a Device, F);

impl<F: Fn() -> candle_core::Result<()>> Executor for Recorded<'_, F> {
    fn run(&mut self) -> Result<Duration> {
        let time = cuda::time_in_turns(self.0, TURNS, &|| Ok(()), &|_| (self.1)())?;
        time.context("this device records nothing")
    }
}
