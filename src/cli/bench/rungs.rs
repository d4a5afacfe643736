//! Which sets of stages a benchmark runs.
use crate::cli::options::HalfType;
use crate::ops::{Ops, WeightsType};
use crate::stages::{LADDER, StageSet, StageSpec};
use crate::{Error, Result};
use candle_core::Device;
use std::str::FromStr;

/// What `bench --stages` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RungSpec {
    /// Plain Candle, then each stage added to those before it.
    Ladder,
    /// All stages, then all but one.
    Ablate,
    /// Plain Candle, then each stage by itself.
    Alone,
    /// Plain Candle and one set.
    Set(StageSpec),
}

impl FromStr for RungSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "ladder" => Ok(Self::Ladder),
            "ablate" => Ok(Self::Ablate),
            "alone" => Ok(Self::Alone),
            _ => text
                .parse()
                .map(Self::Set)
                .map_err(|e: Error| Error::Stage(format!("{e}; a benchmark takes ladder, ablate and alone too"))),
        }
    }
}

/// One set of stages with its name in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// `none`, `+fp16`, `all but fp16`, …
    pub name: String,
    /// What runs.
    pub stages: StageSet,
    /// The stage that must run some call, or the rung is not worth timing.
    pub newest: Option<&'static str>,
    /// How the weights of large layers are stored.
    pub weights: WeightsType,
}

impl Rung {
    fn new(name: String, stages: StageSet) -> Self {
        let newest = stages.names().last().copied();
        Self { name, stages, newest, weights: WeightsType::Storage }
    }

    /// The same with weights stored so, and its name says it.
    fn on_weights(&self, weights: WeightsType) -> Self {
        Self { name: format!("{}{}", self.name, weights.note()), weights, ..self.clone() }
    }

    /// Fills the op slots.
    ///
    /// # Errors
    /// A stage that is not in this build or cannot run on the device, and weights that none of the stages stores so.
    pub fn install(&self, half: HalfType, device: &Device) -> Result<Ops> {
        self.stages.install_over(half.reference(self.weights, device))
    }
}

impl RungSpec {
    /// The rungs on a device, plain Candle first.
    pub fn rungs(&self, device: &Device) -> Vec<Rung> {
        let all = StageSet::all(device);
        let none = Rung::new("none".into(), StageSet::none());
        let mut rungs = vec![none];
        match self {
            Self::Ladder => {
                let mut below = vec![];
                for stage in LADDER {
                    // a stage that cannot run here is a row that says why, and the next stands on those below it
                    let mut names = below.clone();
                    names.push(stage.name);
                    rungs.push(Rung::new(format!("+{}", stage.name), StageSet::of(&names)));
                    if all.names().contains(&stage.name) {
                        below = names;
                    }
                }
            }
            Self::Ablate => {
                rungs.push(Rung::new("all".into(), all.clone()));
                for name in all.names() {
                    rungs.push(Rung::new(format!("all but {name}"), all.without(name)));
                }
            }
            Self::Alone => {
                for stage in LADDER {
                    rungs.push(Rung::new(format!("{} alone", stage.name), StageSet::of(&[stage.name])));
                }
            }
            Self::Set(spec) => {
                let set = spec.resolve(device);
                if set != StageSet::none() {
                    rungs.push(Rung::new(set.to_string(), set));
                }
            }
        }
        rungs
    }

    /// As [`rungs`](Self::rungs), and behind them the first that can store weights in eight bits once more, with weights stored so. Where none
    /// can it is the last, which will say so.
    pub fn rungs_on(&self, weights: WeightsType, device: &Device) -> Vec<Rung> {
        let mut rungs = self.rungs(device);
        if weights != WeightsType::Storage {
            let other = rungs.iter().find(|rung| rung.stages.has_fp8()).or(rungs.last());
            rungs.extend(other.map(|rung| rung.on_weights(weights)));
        }
        rungs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(spec: &str) -> Vec<String> {
        spec.parse::<RungSpec>().unwrap().rungs(&Device::Cpu).into_iter().map(|r| r.name).collect()
    }

    #[test]
    fn each_spec_begins_with_plain_candle() {
        assert_eq!(names("ladder"), ["none", "+fp16", "+flash-attn", "+fused-ops", "+custom-ptx"]);
        assert_eq!(names("none"), ["none"]);
        assert_eq!(names("alone")[1], "fp16 alone");
        assert!("lader".parse::<RungSpec>().unwrap_err().to_string().contains("ladder, ablate"));
    }

    #[test]
    fn a_stage_that_cannot_run_leaves_the_rungs_above_it_whole() {
        let rungs = "ladder".parse::<RungSpec>().unwrap().rungs(&Device::Cpu);
        let last = rungs.last().unwrap();
        assert_eq!(last.newest, Some("custom-ptx"));
        let runnable = StageSet::all(&Device::Cpu).names().len();
        assert_eq!(last.stages.names().len(), runnable + 1);
    }

    #[test]
    fn weights_in_eight_bits_are_a_rung_of_their_own() {
        let last = |spec: &str| {
            let spec = spec.parse::<RungSpec>().unwrap();
            spec.rungs_on("fp8".parse().unwrap(), &Device::Cpu).pop().unwrap()
        };
        assert_eq!(last("ladder").name, "+custom-ptx, fp8 weights");
        assert_eq!(last("fp16,custom-ptx").name, "fp16,custom-ptx, fp8 weights");
        let none = last("none");
        assert_eq!(none.name, "none, fp8 weights");
        let why = none.install(HalfType(candle_core::DType::F16), &Device::Cpu).err().unwrap().to_string();
        assert!(why.contains("add custom-ptx to --stages"), "{why}");
        let ladder = "ladder".parse::<RungSpec>().unwrap();
        assert_eq!(ladder.rungs_on(WeightsType::Storage, &Device::Cpu), ladder.rungs(&Device::Cpu));
    }

    #[test]
    fn ablation_leaves_out_one_at_a_time() {
        let all = StageSet::all(&Device::Cpu);
        let rungs = "ablate".parse::<RungSpec>().unwrap().rungs(&Device::Cpu);
        assert_eq!(rungs.len(), all.names().len() + 2);
        assert!(rungs[2..].iter().all(|r| r.stages.names().len() + 1 == all.names().len()));
    }
}
