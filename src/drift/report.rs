//! The result of a drift test, as it is written to JSON.
use super::Variant;
use super::engine::EngineDrift;
use super::measures::Measure;
use super::trace::Trace;
use super::verdict::{self, Check};
use crate::bench::report::{Build, Machine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A whole drift test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// What ran.
    pub build: Build,
    /// The command line.
    pub command: String,
    /// Seconds since 1970.
    pub unix_time: u64,
    /// What was asked for.
    pub work: Work,
    /// Whether everything is as it must be: see [`judge`](Self::judge).
    pub passed: bool,
    /// The judged variant, and after it the naive one where that was run too.
    pub runs: Vec<Run>,
    /// Each set of stages against plain f32.
    pub engine: Vec<EngineDrift>,
}

/// What every run did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The network.
    pub model: String,
    /// Where its weights came from.
    pub weights: String,
    /// The stages.
    pub stages: String,
    /// The device.
    pub device: String,
    /// The clip, or nothing for the built-in one.
    pub input: Option<String>,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Frames of each script.
    pub frames: u64,
    /// Seed of the streams.
    pub seed: u64,
}

/// One variant over the scripts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Which remedies were on.
    pub variant: Variant,
    /// Whether it passed every check.
    pub passed: bool,
    /// One for each script that was run.
    pub inputs: Vec<Input>,
}

/// One variant over one script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The script.
    pub name: String,
    /// What was asked of it.
    pub checks: Vec<Check>,
    /// Video drift error of each measure (arXiv 2511.22973), for comparison with other work; not judged.
    pub drift_errors: BTreeMap<Measure, f64>,
    /// Each measure, frame by frame; `null` where there is none.
    pub measures: BTreeMap<Measure, Vec<Option<f32>>>,
}

impl Input {
    /// Judges a trace.
    pub fn new(trace: &Trace) -> Self {
        let list = |m: Measure| {
            let values = trace.measures[m as usize].iter().map(|v| v.is_finite().then_some(*v as f32));
            (m, values.collect())
        };
        Self {
            name: trace.name.into(),
            checks: verdict::checks(trace),
            drift_errors: verdict::drift_errors(trace).into_iter().collect(),
            measures: Measure::ALL.into_iter().map(list).collect(),
        }
    }

    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|c| c.passed)
    }
}

impl Run {
    /// Sums up what was judged.
    pub fn new(variant: Variant, inputs: Vec<Input>) -> Self {
        Self { variant, passed: inputs.iter().all(Input::passed), inputs }
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.inputs.iter().flat_map(|i| &i.checks).filter(|c| !c.passed)
    }
}

impl Report {
    /// Sets [`passed`](Self::passed): the judged variant and the stages passed, and a naive variant run beside it
    /// failed. A naive variant that is judged alone passes when its checks do.
    pub fn judge(&mut self) {
        let mut runs = self.runs.iter();
        let judged = runs.next().is_some_and(|r| r.passed);
        let beside = runs.all(|r| !r.passed);
        self.passed = judged && beside && self.engine.iter().all(|e| e.passed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::machine;

    fn run(variant: Variant, passed: bool) -> Run {
        Run { variant, passed, inputs: vec![] }
    }

    #[test]
    fn a_naive_variant_beside_must_fail() {
        let work = Work {
            model: "m".into(),
            weights: "w".into(),
            stages: "none".into(),
            device: "cpu".into(),
            input: None,
            width: 16,
            height: 16,
            frames: 120,
            seed: 0,
        };
        let (build, command) = (Build { version: "0".into() }, "mirage drift".into());
        let mut report = Report {
            machine: machine(),
            build,
            command,
            unix_time: 1,
            work,
            passed: false,
            runs: vec![],
            engine: vec![],
        };
        let mut judge = |runs: Vec<Run>| {
            report.runs = runs;
            report.judge();
            report.passed
        };
        assert!(!judge(vec![]));
        assert!(judge(vec![run(Variant::Full, true)]));
        assert!(judge(vec![run(Variant::Naive, true)]));
        assert!(judge(vec![run(Variant::Full, true), run(Variant::Naive, false)]));
        assert!(!judge(vec![run(Variant::Full, true), run(Variant::Naive, true)]));
        assert!(!judge(vec![run(Variant::Full, false), run(Variant::Naive, false)]));
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
