//! Which sets of stages a benchmark runs.
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
}

impl Rung {
    fn new(name: String, stages: StageSet) -> Self {
        let newest = stages.names().last().copied();
        Self { name, stages, newest }
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
    fn ablation_leaves_out_one_at_a_time() {
        let all = StageSet::all(&Device::Cpu);
        let rungs = "ablate".parse::<RungSpec>().unwrap().rungs(&Device::Cpu);
        assert_eq!(rungs.len(), all.names().len() + 2);
        assert!(rungs[2..].iter().all(|r| r.stages.names().len() + 1 == all.names().len()));
    }
}
