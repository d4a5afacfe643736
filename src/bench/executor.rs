//! Runs a piece of work again and again: the work itself can be a network, another program or a mock.
use crate::cuda::Timer;
use candle_core::Device;
use std::time::{Duration, Instant};

/// Something that can be timed.
pub trait Executor {
    /// Does the work once, the device synchronised at the end, and says how long it took.
    ///
    /// # Errors
    /// Whatever the work reports.
    fn run(&mut self) -> anyhow::Result<Duration>;
}

/// How often to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Runs that are not counted, first.
    pub warmup: usize,
    /// Counted runs, at least 1.
    pub runs: usize,
    /// No further run begins after this long, once three are counted.
    pub limit: Duration,
}

/// Fewest counted runs when the time runs out.
const FEWEST: usize = 3;

/// Timings of the counted runs, in milliseconds.
///
/// # Errors
/// The first error of the work.
pub fn measure(work: &mut dyn Executor, plan: Plan) -> anyhow::Result<Vec<f64>> {
    for _ in 0..plan.warmup {
        work.run()?;
    }
    let begin = Instant::now();
    let mut timings = Vec::with_capacity(plan.runs);
    while timings.len() < plan.runs.max(1) && (timings.len() < FEWEST || begin.elapsed() < plan.limit) {
        timings.push(work.run()?.as_secs_f64() * 1e3);
    }
    Ok(timings)
}

/// Times what a closure queues on a device: on a GPU between two events of its stream, on a CPU by the wall clock.
pub struct OnDevice<'a, F>(pub &'a Device, pub F);

impl<F: FnMut() -> anyhow::Result<()>> Executor for OnDevice<'_, F> {
    fn run(&mut self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let timer = Timer::start(self.0)?;
        (self.1)()?;
        Ok(timer.map_or_else(|| Ok(begin.elapsed()), Timer::stop)?)
    }
}

/// Times a closure by the wall clock.
pub struct Timed<F>(pub F);

impl<F: FnMut() -> anyhow::Result<()>> Executor for Timed<F> {
    fn run(&mut self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        (self.0)()?;
        Ok(begin.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says how long it took without taking any time.
    struct Mock(Vec<u64>);

    impl Executor for Mock {
        fn run(&mut self) -> anyhow::Result<Duration> {
            anyhow::ensure!(!self.0.is_empty(), "no more runs");
            Ok(Duration::from_millis(self.0.remove(0)))
        }
    }

    const PLAN: Plan = Plan { warmup: 2, runs: 4, limit: Duration::MAX };

    #[test]
    fn the_warm_up_is_not_counted() {
        let mut mock = Mock(vec![90, 80, 1, 2, 3, 4, 5]);
        assert_eq!(measure(&mut mock, PLAN).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(mock.0, [5]);
    }

    #[test]
    fn a_cpu_has_the_wall_clock() {
        let mut work = OnDevice(&Device::Cpu, || {
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        });
        assert!(work.run().unwrap() >= Duration::from_millis(5));
    }

    #[test]
    fn a_limit_leaves_three_runs_and_an_error_ends_all() {
        let plan = Plan { limit: Duration::ZERO, ..PLAN };
        assert_eq!(measure(&mut Mock(vec![0, 0, 7, 8, 9, 10]), plan).unwrap(), [7.0, 8.0, 9.0]);
        assert!(measure(&mut Mock(vec![1, 2, 3]), PLAN).is_err());
    }
}
