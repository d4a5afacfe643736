//! The reference network against the output of the original code, tensor by tensor.
mod common;

use candle_core::{DType, Device, Tensor};
use mirage::model::{Reference, SEQUENCE, Weights};
use mirage::stages::{LADDER, StageSet, StageSpec};
use std::collections::HashMap;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/mirage_hello_base16_b1_32x32.safetensors");

/// Largest difference, relative to the largest magnitude of the expected tensor.
fn error(got: &Tensor, want: &Tensor) -> anyhow::Result<f64> {
    let got = got.to_dtype(DType::F32)?;
    let difference = (got - want)?.abs()?.max_all()?.to_scalar::<f32>()?;
    Ok(f64::from(difference) / f64::from(want.abs()?.max_all()?.to_scalar::<f32>()?))
}

/// Every tensor of the golden file as these stages compute it, with its error.
fn run(spec: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let device = Device::Cpu;
    let golden: HashMap<String, Tensor> = candle_core::safetensors::load(GOLDEN, &device)?;
    let ops = spec.parse::<StageSpec>()?.resolve(&device).install(&device)?;
    let network = Reference::checked(&ops, &Weights::formula(&device), 16)?;
    let (x, previous) = (golden["x"].to_dtype(ops.dtype)?, golden["previous"].to_dtype(ops.dtype)?);
    ops.probe.keep_activations();
    let step = network.forward(&ops, &x, 25.0, &previous)?;
    let activations = ops.probe.take_activations();
    let sequence = Tensor::stack(&network.sequence(&ops, &x, &SEQUENCE, &previous)?, 0)?;
    let mut errors = vec![];
    for (name, want) in &golden {
        let got = match name.as_str() {
            "x" | "previous" => continue,
            "step_t25" => &step,
            "sequence" => &sequence,
            other => {
                let module = other.strip_prefix("activation.").unwrap_or(other);
                activations.get(module).ok_or_else(|| anyhow::anyhow!("{module} was not announced"))?
            }
        };
        errors.push((name.clone(), error(got, want)?));
    }
    Ok(errors)
}

fn subsets(names: &[&'static str]) -> Vec<String> {
    (1..1u32 << names.len())
        .map(|bits| {
            let chosen: Vec<_> =
                names.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, n)| *n).collect();
            chosen.join(",")
        })
        .collect()
}

#[test]
fn plain_candle_draws_what_the_original_drew() -> anyhow::Result<()> {
    let errors = run("none")?;
    assert_eq!(errors.len(), 9);
    for (name, error) in errors {
        assert!(error < 1e-4, "{name}: {error:e}");
    }
    Ok(())
}

#[test]
fn every_f32_stage_draws_the_same() -> anyhow::Result<()> {
    let f32_stages: Vec<_> =
        LADDER.iter().filter(|s| s.install.is_some() && !["fp16", "custom-ptx"].contains(&s.name)).collect();
    for spec in subsets(&f32_stages.iter().map(|s| s.name).collect::<Vec<_>>()) {
        for (name, error) in run(&spec)? {
            assert!(error < 1e-4, "{spec}: {name}: {error:e}");
        }
    }
    Ok(())
}

/// Half storage rounds each activation: the bound is twice the error that plain rounding at every op makes.
#[test]
fn half_precision_stages_stay_near() -> anyhow::Result<()> {
    let all = StageSet::all(&Device::Cpu);
    if !all.names().contains(&"fp16") {
        common::skip("fp16 is not in this build");
        return Ok(());
    }
    let plain: HashMap<String, f64> = run("fp16")?.into_iter().collect();
    for (name, error) in &plain {
        assert!(*error < 2e-2, "fp16: {name}: {error:e}");
    }
    let others: Vec<_> = all.names().iter().copied().filter(|n| *n != "fp16").collect();
    for spec in subsets(&others) {
        for (name, error) in run(&format!("fp16,{spec}"))? {
            assert!(error <= 2.0 * plain[&name] + 1e-3, "fp16,{spec}: {name}: {error:e}, plain {:e}", plain[&name]);
        }
    }
    Ok(())
}
