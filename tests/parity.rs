//! Every stage against the definition of each op it replaces, on fresh random inputs.
use candle_core::Device;
use mirage::ops::cases;
use mirage::stages::{LADDER, StageSpec};

fn check(spec: &str) -> anyhow::Result<()> {
    let device = Device::Cpu;
    let ops = spec.parse::<StageSpec>()?.resolve(&device).install(&device)?;
    // fresh inputs at every run; a failure names its seed
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.subsec_nanos().into();
    let mut wrong = vec![];
    for case in cases::all() {
        let outcome = case.check(&ops, seed)?;
        if !outcome.passed() {
            wrong.push(format!("{case}: {outcome}"));
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{spec}, seed {seed}:\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_stage_alone() -> anyhow::Result<()> {
    for stage in LADDER.iter().filter(|s| s.install.is_some() && s.name != "custom-ptx") {
        check(stage.name)?;
    }
    Ok(())
}

#[test]
fn all_stages_together() -> anyhow::Result<()> {
    check("all")
}

#[test]
fn the_check_finds_a_wrong_stage() -> anyhow::Result<()> {
    use candle_core::{Result, Tensor};
    use mirage::ops::{Attention, Ops};
    struct Wrong;
    impl Attention for Wrong {
        fn stage(&self) -> &'static str {
            "wrong"
        }
        fn run(&self, q: &Tensor, _: &Tensor, _: &Tensor, _: f64) -> Result<Tensor> {
            Ok(q.clone())
        }
    }
    let ops = Ops { attention: std::sync::Arc::new(Wrong), ..Ops::reference(&Device::Cpu) };
    let attention: Vec<_> = cases::all().into_iter().filter(|c| c.op() == mirage::ops::Op::Attention).collect();
    for case in attention {
        assert!(!case.check(&ops, 1)?.passed(), "{case}");
    }
    Ok(())
}
