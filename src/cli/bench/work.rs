//! The work of a benchmark: one sequence of the network, checked against plain Candle before it is timed.
use super::rungs::Rung;
use super::{Arguments, plan};
use crate::bench::executor::{Timed, measure};
use crate::bench::memory;
use crate::bench::report::{Row, Status};
use crate::bench::statistics::Summary;
use crate::model::{FrameNetwork, call_alone};
use crate::ops::Ops;
use crate::ops::cases::largest_difference;
use crate::ops::probe::Mode;
use crate::stages::StageSpec;
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::cell::RefCell;
use std::time::Instant;

/// Error that different orders of summation explain, as a share of the largest magnitude.
const ROUNDING: f64 = 1e-4;

/// What every rung is compared with.
pub struct Bench<'a> {
    arguments: &'a Arguments,
    pub device: Device,
    seed: u64,
    exact: Tensor,
    magnitude: f64,
    /// Error of plain Candle with every stored value rounded to half precision; zero where no such stage is built.
    half_error: f64,
}

impl<'a> Bench<'a> {
    /// Draws the inputs and lets plain Candle say what is right.
    pub fn new(arguments: &'a Arguments) -> Result<Self> {
        let device = arguments.model.device.open()?;
        let seed = arguments.seed.unwrap_or_else(rand::random);
        let mut bench = Self {
            arguments,
            seed,
            exact: Tensor::zeros((), DType::F32, &device)?,
            magnitude: 1.0,
            half_error: 0.0,
            device,
        };
        bench.exact = bench.draw(&Ops::reference(&bench.device))?;
        bench.magnitude = f64::from(bench.exact.abs()?.max_all()?.to_scalar::<f32>()?);
        // a stage that is not built rounds nothing
        let half = "fp16".parse::<StageSpec>().and_then(|s| s.resolve(&bench.device).install(&bench.device));
        if let Ok(ops) = half {
            bench.half_error = bench.error(&bench.draw(&ops)?)?;
        }
        Ok(bench)
    }

    fn draw(&self, ops: &Ops) -> Result<Tensor> {
        let network = self.arguments.model.load(ops)?;
        let [x, previous] = seeded_inputs(self.arguments, ops, self.seed)?;
        Ok(call_alone(&*network, ops, &x, 25.0, &previous)?.to_dtype(DType::F32)?)
    }

    /// Share of the largest magnitude.
    fn error(&self, drawn: &Tensor) -> Result<f64> {
        Ok(largest_difference(drawn, &self.exact)? / self.magnitude)
    }

    /// Checks and times one rung. What keeps a rung from running becomes its row.
    pub fn row(&self, rung: &Rung) -> Result<Row> {
        let stages: Vec<String> = rung.stages.names().iter().map(|s| (*s).to_owned()).collect();
        let untimed = |status| Row::untimed(rung.name.clone(), stages.clone(), status);
        let ops = match rung.stages.install(&self.device) {
            Ok(ops) => ops,
            Err(why) => return Ok(untimed(Status::Refused(why.to_string()))),
        };
        let before = memory::current();
        let network = self.arguments.model.load(&ops)?;
        let weights = memory::current().saturating_sub(before) as u64;

        let inputs = seeded_inputs(self.arguments, &ops, self.seed)?;
        ops.probe.set(Mode::Count);
        let error = self.error(&call_alone(&*network, &ops, &inputs[0], 25.0, &inputs[1])?.to_dtype(DType::F32)?)?;
        let counts = ops.probe.counts();
        ops.probe.set(Mode::Off);
        let allowed = ROUNDING + if ops.dtype == DType::F32 { 0.0 } else { 2.0 * self.half_error };
        // a comparison with NaN is false, and NaN is wrong
        if !matches!(error.partial_cmp(&allowed), Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)) {
            let why = format!(
                "it differs from plain Candle by {error:.1e} of the largest magnitude, {allowed:.1e} is allowed"
            );
            return Ok(Row { error: Some(error), ..untimed(Status::Wrong(why)) });
        }
        if let Some(newest) = rung.newest
            && !counts.keys().any(|(_, stage)| *stage == newest)
        {
            return Ok(Row { error: Some(error), ..untimed(Status::NoCall) });
        }

        let at_rest = memory::current();
        memory::reset_peak();
        let (calls, timings) = self.time(&*network, &ops, &inputs)?;
        let activations = memory::peak().saturating_sub(at_rest) as u64;
        let sequence = Summary::new(&timings);
        Ok(Row {
            call: Summary::new(&calls),
            warnings: sequence.as_ref().map_or(vec![], |s| s.warnings(&timings)),
            sequence,
            activations: Some(activations),
            weights: Some(weights),
            error: Some(error),
            calls: counts
                .into_iter()
                .map(|((op, stage), n)| (format!("{}:{stage}", op.name()), n * u64::from(self.arguments.steps)))
                .collect(),
            ..untimed(Status::Timed)
        })
    }

    /// Milliseconds of every counted call and of every counted sequence.
    fn time(&self, network: &dyn FrameNetwork, ops: &Ops, [x, previous]: &[Tensor; 2]) -> Result<(Vec<f64>, Vec<f64>)> {
        let plan = plan(self.arguments);
        let calls = RefCell::new(vec![]);
        let mut work = Timed(|| {
            let mut last = Instant::now();
            sequence(network, ops, x, previous, self.arguments.steps, |_| {
                calls.borrow_mut().push(last.elapsed().as_secs_f64() * 1e3);
                last = Instant::now();
            })?;
            Ok(())
        });
        let timings = measure(&mut work, plan)?;
        let mut calls = calls.into_inner();
        calls.drain(..calls.len() - timings.len() * usize::from(self.arguments.steps));
        Ok((calls, timings))
    }
}

/// Calls at evenly spaced timesteps, each feeding its output to the next; `done` after each, the device synchronised.
pub fn sequence(
    network: &dyn FrameNetwork,
    ops: &Ops,
    x: &Tensor,
    previous: &Tensor,
    steps: u16,
    mut done: impl FnMut(&Tensor),
) -> Result<Tensor> {
    let spacing = network.timesteps() as f64 / f64::from(steps);
    let mut y = previous.clone();
    for i in 0..steps {
        y = call_alone(network, ops, x, f64::from(i) * spacing, &y)?;
        ops.device.synchronize()?;
        done(&y);
    }
    Ok(y)
}

/// A frame and the one before it, drawn at random from the command's seed.
pub fn inputs(arguments: &Arguments, ops: &Ops) -> Result<[Tensor; 2]> {
    seeded_inputs(arguments, ops, arguments.seed.unwrap_or_else(rand::random))
}

fn seeded_inputs(arguments: &Arguments, ops: &Ops, seed: u64) -> Result<[Tensor; 2]> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shape = (usize::from(arguments.batch), 3, arguments.size.height as usize, arguments.size.width as usize);
    let mut draw = || -> Result<Tensor> {
        let count = shape.0 * shape.1 * shape.2 * shape.3;
        let values: Vec<f32> = (0..count).map(|_| StandardNormal.sample(&mut rng)).collect();
        Ok(Tensor::from_vec(values, shape, &ops.device)?.to_dtype(ops.dtype)?)
    };
    Ok([draw()?, draw()?])
}
