//! The work of a benchmark: one sequence of the network, checked against plain Candle before it is timed.
use super::rungs::Rung;
use super::{Arguments, plan};
use crate::bench::executor::{OnDevice, Timed, measure};
use crate::bench::memory;
use crate::bench::report::{Row, Status};
use crate::bench::statistics::Summary;
use crate::model::{FrameNetwork, call_alone};
use crate::ops::cases::largest_difference;
use crate::ops::probe::{Counts, Mode};
use crate::ops::{Ops, Recorder, WeightsType};
use anyhow::{Context as _, Result};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::cell::RefCell;
use std::time::Instant;

/// Error that different orders of summation explain, as a share of the largest magnitude.
const ROUNDING: f64 = 1e-4;
/// Draws of the inputs from which the error of half precision is known: the largest difference in a frame varies from one to the next, and not by
/// much less from one right order of summation to another. In thirteen draws of the reference network it lay between 1.4e-2 and 4.5e-2; with three of them for
/// the bound, a right rung was refused now and then.
const DRAWS: u64 = 6;

/// What every rung is compared with.
pub struct Bench<'a> {
    arguments: &'a Arguments,
    pub device: Device,
    seed: u64,
    plain: Truth,
    /// On the weights that a rung stores in eight bits, where one does.
    fp8: Option<Truth>,
}

/// What plain Candle draws.
struct Truth {
    exact: Tensor,
    magnitude: f64,
    /// Error of plain Candle with every stored value rounded to half precision.
    half_error: f64,
}

impl Truth {
    fn of(exact: Tensor) -> Result<Self> {
        let magnitude = f64::from(exact.abs()?.max_all()?.to_scalar::<f32>()?);
        Ok(Self { exact, magnitude, half_error: 0.0 })
    }

    /// Share of the largest magnitude.
    fn error(&self, drawn: &Tensor) -> Result<f64> {
        Ok(largest_difference(drawn, &self.exact)? / self.magnitude)
    }
}

/// What one call through a set of stages showed.
pub struct Check {
    /// How far it is from plain Candle, as a share of the largest magnitude.
    pub error: f64,
    /// The same from plain Candle on the weights that are stored, where they are stored in fewer bits than everything else.
    pub stored_error: Option<f64>,
    /// Who ran how many calls of which op.
    pub counts: Counts,
    /// Timed, unless something speaks against timing it.
    pub status: Status,
}

impl<'a> Bench<'a> {
    /// Draws the inputs and lets plain Candle say what is right.
    pub fn new(arguments: &'a Arguments, seed: u64) -> Result<Self> {
        let device = arguments.model.device.open()?;
        let truth = |weights: WeightsType| -> Result<Truth> {
            let draw = |ops: Ops| -> Result<Vec<Tensor>> {
                let ops = ops.on_weights(weights);
                let network = arguments.model.load(&ops)?;
                let call = |draw| -> Result<Tensor> {
                    let [x, previous] = inputs(arguments, seed.wrapping_add(draw), &ops)?;
                    Ok(call_alone(&*network, &ops, &x, 25.0, &previous)?.to_dtype(DType::F32)?)
                };
                (0..DRAWS).map(call).collect()
            };
            let exact = draw(Ops::reference(&device))?.into_iter().map(Truth::of).collect::<Result<Vec<_>>>()?;
            // not by a stage that stores halves: it would be its own judge
            let rounded = draw(Ops::rounded(&device, arguments.dtype.0))?;
            let mut half_error = 0.0f64;
            for (truth, rounded) in exact.iter().zip(&rounded) {
                let error = truth.error(rounded)?;
                // unlike `max`, this keeps what is not a number
                half_error = if error.is_nan() || error > half_error { error } else { half_error };
            }
            let first = exact.into_iter().next().context("nothing was drawn")?;
            Ok(Truth { half_error, ..first })
        };
        let plain = truth(WeightsType::Storage)?;
        let fp8 = match arguments.weights_dtype {
            WeightsType::Storage => None,
            weights => Some(truth(weights)?),
        };
        Ok(Self { arguments, seed, plain, fp8, device })
    }

    /// What plain Candle draws on the weights that these slots store.
    fn truth(&self, ops: &Ops) -> &Truth {
        self.fp8.as_ref().filter(|_| ops.weights != WeightsType::Storage).unwrap_or(&self.plain)
    }

    /// A frame and the one before it, drawn at random from the seed.
    pub fn inputs(&self, ops: &Ops) -> Result<[Tensor; 2]> {
        inputs(self.arguments, self.seed, ops)
    }

    /// Compares one call with plain Candle, and sees whether the stage `newest` runs any of it.
    pub fn check(
        &self,
        network: &dyn FrameNetwork,
        ops: &Ops,
        inputs: &[Tensor; 2],
        newest: Option<&str>,
    ) -> Result<Check> {
        ops.probe.set(Mode::Count);
        let drawn = call_alone(network, ops, &inputs[0], 25.0, &inputs[1])?.to_dtype(DType::F32)?;
        let counts = ops.probe.counts();
        ops.probe.set(Mode::Off);
        let error = self.plain.error(&drawn)?;
        let (stored_error, whose) = match ops.weights {
            WeightsType::Storage => (None, ""),
            WeightsType::Fp8 { .. } => (Some(self.truth(ops).error(&drawn)?), " on the weights that it stores"),
        };
        let (judged, allowed) = (stored_error.unwrap_or(error), self.allowed(ops));
        let status = if !judged.is_finite() {
            Status::Wrong("it gives values that are not numbers".to_owned())
        } else if !allowed.is_finite() {
            Status::Wrong(
                "it cannot be checked: plain Candle overflows when values are rounded to half precision".to_owned(),
            )
        } else if judged > allowed {
            Status::Wrong(format!(
                "it differs from plain Candle{whose} by {judged:.1e} of the largest magnitude, {allowed:.1e} is allowed"
            ))
        } else if newest.is_some_and(|newest| !counts.keys().any(|(_, stage)| *stage == newest)) {
            Status::NoCall
        } else {
            self.replay_fault(network, ops, inputs)?.map_or(Status::Timed, Status::Wrong)
        };
        Ok(Check { error, stored_error, counts, status })
    }

    /// Checks and times one rung. What keeps a rung from running becomes its row.
    pub fn row(&self, rung: &Rung) -> Result<Row> {
        let stages: Vec<String> = rung.stages.names().iter().map(|s| (*s).to_owned()).collect();
        let untimed = |status| Row::untimed(rung.name.clone(), stages.clone(), status);
        let ops = match rung.install(self.arguments.dtype, &self.device) {
            Ok(ops) => ops,
            Err(why) => return Ok(untimed(Status::Refused(why.to_string()))),
        };
        let before = memory::current_on(&self.device);
        let network = self.arguments.model.load(&ops)?;
        let weights = memory::current_on(&self.device).saturating_sub(before) as u64;

        let inputs = self.inputs(&ops)?;
        let Check { error, stored_error, counts, status } = self.check(&*network, &ops, &inputs, rung.newest)?;
        if status != Status::Timed {
            return Ok(Row { error: Some(error), stored_error, ..untimed(status) });
        }

        if let Some(why) = self.together_fault(&*network, &ops, &inputs)? {
            return Ok(Row { error: Some(error), stored_error, ..untimed(Status::Wrong(why)) });
        }
        let counts = self.of_a_sequence(counts, &*network, &ops, &inputs)?;

        let at_rest = memory::current_on(&self.device);
        memory::reset_peak_on(&self.device);
        let (calls, timings) = self.time(&*network, &ops, &inputs)?;
        let activations = memory::peak_on(&self.device).saturating_sub(at_rest) as u64;
        let sequence = Summary::new(&timings);
        Ok(Row {
            call: Summary::new(&calls),
            warnings: sequence.as_ref().map_or(vec![], |s| s.warnings(&timings)),
            sequence,
            activations: Some(activations),
            weights: Some(weights),
            error: Some(error),
            stored_error,
            calls: counts.into_iter().map(|((op, stage), n)| (format!("{}:{stage}", op.name()), n)).collect(),
            ..untimed(Status::Timed)
        })
    }

    /// Why a sequence whose calls were worked out together is not what its calls draw one after another, if it is not.
    fn together_fault(&self, network: &dyn FrameNetwork, ops: &Ops, inputs: &[Tensor; 2]) -> Result<Option<String>> {
        if !self.arguments.together {
            return Ok(None);
        }
        let apart = sequence(network, ops, inputs, self.arguments.steps, |_| Ok(()))?;
        let together = self.whole_sequence(network, ops, None, inputs)?;
        let (error, allowed) =
            (largest_difference(&together, &apart)? / self.truth(ops).magnitude, 2.0 * self.allowed(ops));
        let why =
            format!("worked out together it differs by {error:.1e} of the largest magnitude, {allowed:.1e} is allowed");
        Ok((error > allowed || !error.is_finite()).then_some(why))
    }

    /// How far a call may be from plain Candle, as a share of the largest magnitude.
    fn allowed(&self, ops: &Ops) -> f64 {
        ROUNDING + if ops.dtype == DType::F32 { 0.0 } else { 2.0 * self.truth(ops).half_error }
    }

    /// Who runs how many calls of which op in a sequence, given that of one call.
    fn of_a_sequence(
        &self,
        of_a_call: Counts,
        network: &dyn FrameNetwork,
        ops: &Ops,
        inputs: &[Tensor; 2],
    ) -> Result<Counts> {
        if !self.arguments.together {
            let steps = u64::from(self.arguments.steps);
            return Ok(of_a_call.into_iter().map(|(who, n)| (who, n * steps)).collect());
        }
        ops.probe.set(Mode::Count);
        self.whole_sequence(network, ops, None, inputs)?;
        let counts = ops.probe.counts();
        ops.probe.set(Mode::Off);
        Ok(counts)
    }

    /// Milliseconds of every counted call and of every counted sequence. On a GPU the calls of a sequence are queued together, and
    /// each is said to take its share.
    fn time(&self, network: &dyn FrameNetwork, ops: &Ops, inputs: &[Tensor; 2]) -> Result<(Vec<f64>, Vec<f64>)> {
        let (plan, steps) = (plan(self.arguments), self.arguments.steps);
        if !self.device.is_cpu() || self.arguments.together {
            let recorder = ops.recorder();
            let mut work = OnDevice(&self.device, || {
                self.whole_sequence(network, ops, recorder.as_deref(), inputs)?;
                Ok(())
            });
            let timings = measure(&mut work, plan)?;
            return Ok((timings.iter().map(|ms| ms / f64::from(steps)).collect(), timings));
        }
        let calls = RefCell::new(vec![]);
        let mut work = Timed(|| {
            let mut last = Instant::now();
            sequence(network, ops, inputs, steps, |_| {
                calls.borrow_mut().push(last.elapsed().as_secs_f64() * 1e3);
                last = Instant::now();
                Ok(())
            })?;
            Ok(())
        });
        let timings = measure(&mut work, plan)?;
        let mut calls = calls.into_inner();
        calls.drain(..calls.len() - timings.len() * usize::from(steps));
        Ok((calls, timings))
    }

    /// Why a recorded sequence is not what it should be, if it is not: the bytes of the sequence as it is, also for other inputs than it
    /// was recorded with.
    fn replay_fault(&self, network: &dyn FrameNetwork, ops: &Ops, inputs: &[Tensor; 2]) -> Result<Option<String>> {
        let Some(recorder) = ops.recorder() else { return Ok(None) };
        let run = |inputs: &[Tensor; 2]| self.whole_sequence(network, ops, Some(&*recorder), inputs);
        let swapped = [inputs[1].clone(), inputs[0].clone()];
        run(inputs)?; // as it is, the next one is recorded
        for inputs in [inputs, &swapped] {
            let (plain, replayed) = (self.whole_sequence(network, ops, None, inputs)?, run(inputs)?);
            let difference = largest_difference(&plain, &replayed)?;
            if difference != 0.0 {
                return Ok(Some(format!("its recording differs from the run that was recorded by {difference:.1e}")));
            }
        }
        Ok(None)
    }

    /// A sequence as one piece of work, recorded where a stage can.
    pub fn whole_sequence(
        &self,
        network: &dyn FrameNetwork,
        ops: &Ops,
        recorder: Option<&dyn Recorder>,
        inputs: &[Tensor; 2],
    ) -> crate::Result<Tensor> {
        let (steps, together) = (self.arguments.steps, self.arguments.together);
        let calls = |t: &[Tensor]| {
            let drawn = if together {
                network.sequence(ops, &t[0], &timesteps(network, steps), &t[1])?
            } else {
                sequence(network, ops, &[t[0].clone(), t[1].clone()], steps, |_| Ok(()))?
            };
            Ok(vec![drawn])
        };
        let mut drawn = ops.whole(recorder, &format!("{steps} calls"), inputs, &calls)?;
        drawn.pop().ok_or_else(|| crate::Error::Model("a sequence drew nothing: please report this".into()))
    }
}

/// A frame and the one before it, drawn at random from the seed.
fn inputs(arguments: &Arguments, seed: u64, ops: &Ops) -> Result<[Tensor; 2]> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shape = (usize::from(arguments.batch), 3, arguments.size.height as usize, arguments.size.width as usize);
    let mut draw = || -> Result<Tensor> {
        let count = shape.0 * shape.1 * shape.2 * shape.3;
        let values: Vec<f32> = (0..count).map(|_| StandardNormal.sample(&mut rng)).collect();
        Ok(Tensor::from_vec(values, shape, &ops.device)?.to_dtype(ops.dtype)?)
    };
    Ok([draw()?, draw()?])
}

/// Calls at evenly spaced timesteps, each feeding its output to the next; `done` after each.
pub fn sequence(
    network: &dyn FrameNetwork,
    ops: &Ops,
    [x, previous]: &[Tensor; 2],
    steps: u16,
    mut done: impl FnMut(&Tensor) -> crate::Result<()>,
) -> crate::Result<Tensor> {
    let mut y = previous.clone();
    for timestep in timesteps(network, steps) {
        y = call_alone(network, ops, x, timestep, &y)?;
        done(&y)?;
    }
    Ok(y)
}

fn timesteps(network: &dyn FrameNetwork, steps: u16) -> Vec<f64> {
    let spacing = network.timesteps() as f64 / f64::from(steps);
    (0..steps).map(|i| f64::from(i) * spacing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::{Conv2d, Conv2dInput, Conv2dKernel, Conv2dParams};
    use clap::Parser;
    use std::sync::Arc;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// A convolution whose result is off by a factor.
    struct Scaled<T>(T, f64);

    impl Conv2d for Scaled<Arc<dyn Conv2d>> {
        fn stage(&self) -> &'static str {
            "scaled"
        }

        fn prepare(&self, params: Conv2dParams) -> candle_core::Result<Box<dyn Conv2dKernel>> {
            Ok(Box::new(Scaled(self.0.prepare(params)?, self.1)))
        }
    }

    impl Conv2dKernel for Scaled<Box<dyn Conv2dKernel>> {
        fn run(&self, input: Conv2dInput<'_>) -> candle_core::Result<Tensor> {
            self.0.run(input)? * self.1
        }
    }

    #[test]
    fn a_half_precision_stage_is_not_its_own_judge() {
        let command =
            Command::try_parse_from(["bench", "--model", "reference-tiny", "--size", "16x16", "--seed", "1"]).unwrap();
        let bench = Bench::new(&command.arguments, 1).unwrap();
        let status = |factor, newest| {
            let plain = Ops::rounded(&bench.device, DType::F16);
            let conv2d = Arc::new(Scaled(plain.conv2d.clone(), factor));
            let ops = Ops { dtype: DType::F16, conv2d, ..plain };
            let network = command.arguments.model.load(&ops).unwrap();
            let inputs = bench.inputs(&ops).unwrap();
            bench.check(&*network, &ops, &inputs, newest).unwrap().status
        };
        assert_eq!(status(1.0, Some("scaled")), Status::Timed);
        assert_eq!(status(1.0, Some("other")), Status::NoCall);
        assert!(matches!(status(1.05, None), Status::Wrong(why) if why.contains("differs from plain Candle")));
        assert!(matches!(status(f64::NAN, None), Status::Wrong(why) if why.contains("not numbers")));
    }
}
