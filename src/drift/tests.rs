//! What the harness says of streams whose drift is known.
use super::inputs::{Inputs, Script};
use super::report::{Input, Run};
use super::subjects::Fault;
use super::verdict::Check;
use super::{Subject, Variant, engine, trace};
use candle_core::Device;
use rayon::prelude::*;

fn scripts(frames: u64, side: u32) -> Vec<Script> {
    let styles = Fault::None.styles();
    Inputs { frames, size: (side, side), clip: &[], styles: styles.as_ref(), device: &Device::Cpu }.scripts().unwrap()
}

fn judge(subject: Fault, scripts: &[Script], seed: u64) -> Run {
    let inputs = scripts
        .par_iter()
        .map(|script| Input::new(&trace::run(&subject, Variant::Full, script, seed, &mut || ()).unwrap()));
    Run::new(Variant::Full, inputs.collect())
}

fn failed(run: &Run) -> Vec<String> {
    run.failures().map(|c| format!("{}: {} ({:.3} for {:.3})", c.input, c.name, c.measured, c.limit)).collect()
}

fn find<'a>(run: &'a Run, input: &str, name: &str) -> &'a Check {
    let found = run.inputs.iter().flat_map(|i| &i.checks).find(|c| c.input == input && c.name == name);
    found.unwrap_or_else(|| panic!("no check {name} on {input}"))
}

#[test]
fn streams_without_drift_pass_on_every_input() {
    let scripts = scripts(1000, 32);
    for fault in [Fault::None, Fault::Noise, Fault::PaletteDraw] {
        let run = judge(fault, &scripts, 1);
        assert!(run.passed, "{fault:?}: {:#?}", failed(&run));
        assert_eq!(run.inputs.len(), 6);
        assert!(run.inputs.iter().all(|i| i.checks.len() >= 24), "checks are missing");
    }
}

#[test]
fn each_fault_fails_by_the_check_that_is_for_it() {
    let scripts = scripts(1000, 32);
    for (fault, input, names) in [
        (Fault::Brightness(0.15), "moving", &["start-end red", "chunks green", "slope blue", "fresh at 1000"][..]),
        (Fault::Brightness(0.15), "black", &["start-end red", "slope green", "fresh at 1000"]),
        (Fault::Saturation(0.8), "moving", &["start-end saturation", "chunks saturation", "slope saturation"]),
        (Fault::Saturation(0.8), "cuts", &["start-end saturation", "slope saturation"]),
        (Fault::Blur, "moving", &["lost detail", "fresh at 100"]),
        (Fault::PaletteWalk, "static", &["start-end palette", "chunks palette"]),
        (Fault::PaletteWalk, "moving", &["start-end palette", "chunks palette"]),
        (Fault::Frozen, "moving", &["frozen output"]),
        (Fault::Frozen, "cuts", &["frozen output"]),
        (Fault::PassThrough, "moving", &["input passed through"]),
        (Fault::PassThrough, "static", &["input passed through"]),
        (Fault::Collapse, "moving", &["start-end contrast", "chunks contrast", "lost detail", "fresh at 1000"]),
    ] {
        let script: Vec<Script> = scripts.iter().filter(|s| s.name == input).cloned().collect();
        let run = judge(fault, &script, 1);
        for name in names {
            assert!(!find(&run, input, name).passed, "{fault:?} on {input} passed {name}: {:#?}", failed(&run));
        }
        if fault == Fault::Collapse {
            assert!(find(&run, input, "fresh at 500").passed, "sound until frame 700");
        }
        if fault == Fault::PassThrough {
            assert_eq!(run.failures().count(), 1, "{:#?}", failed(&run));
        }
    }
}

#[test]
fn every_fault_fails_on_every_moving_input() {
    let scripts: Vec<Script> =
        scripts(1000, 24).into_iter().filter(|s| ["moving", "cuts", "styles"].contains(&s.name)).collect();
    for fault in [
        Fault::Brightness(0.15),
        Fault::Saturation(0.8),
        Fault::Blur,
        Fault::PaletteWalk,
        Fault::Frozen,
        Fault::PassThrough,
        Fault::Collapse,
    ] {
        for input in judge(fault, &scripts, 2).inputs {
            assert!(!input.passed(), "{fault:?} passed on {}", input.name);
        }
    }
}

#[test]
fn twenty_noisy_streams_without_drift_all_pass() {
    let scripts = scripts(400, 24);
    let failures: Vec<String> = (0..20u64)
        .into_par_iter()
        .flat_map_iter(|seed| {
            let run = judge(Fault::Noise, &scripts, seed);
            failed(&run).into_iter().map(move |f| format!("seed {seed}: {f}"))
        })
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_same_seed_is_judged_the_same() {
    let scripts = scripts(120, 16);
    assert_eq!(judge(Fault::Noise, &scripts, 5), judge(Fault::Noise, &scripts, 5));
    assert_ne!(judge(Fault::Noise, &scripts, 5), judge(Fault::Noise, &scripts, 6));
}

#[test]
fn what_is_not_finite_ends_the_run_and_is_named() {
    let run = judge(Fault::NotFinite(57), &scripts(120, 16), 0);
    assert_eq!(run.failures().count(), 6);
    assert!(run.failures().all(|c| c.name == "finite" && c.sentence.contains("Frame 58")));
}

#[test]
fn a_variant_is_handed_to_the_subject() {
    let script = &scripts(120, 16)[0];
    let passed = |variant| Input::new(&trace::run(&Fault::NaiveOnly, variant, script, 0, &mut || ()).unwrap()).passed();
    assert!(passed(Variant::Full));
    assert!(!passed(Variant::Naive));
}

#[test]
fn engine_drift_is_measured_from_the_reference() {
    let script = &scripts(120, 16)[0];
    let staged: [(String, &dyn Subject); 3] = [
        ("same".into(), &Fault::None),
        ("brighter".into(), &Fault::Brightness(0.5)),
        ("broken".into(), &Fault::NotFinite(9)),
    ];
    let found = engine::compare(&Fault::None, &staged, (script, 100, 0), &mut || ()).unwrap();
    assert_eq!((found[0].largest, found[0].passed, found[0].frames), (0.0, true, 100));
    // 0.5 in a thousand frames: the 100th is brighter by 0.0495
    assert!((found[1].worst_frame - 0.0495).abs() < 1e-3 && !found[1].passed, "{:?}", found[1]);
    assert!(found[1].mean < found[1].worst_frame);
    assert_eq!((found[2].worst_frame, found[2].passed), (1.0, false));
}

#[test]
fn variants_are_read_and_unknown_ones_listed() {
    for (variant, name) in Variant::ALL {
        assert_eq!(name.parse::<Variant>().unwrap(), variant);
        assert_eq!(variant.to_string(), name);
    }
    assert!("none".parse::<Variant>().unwrap_err().to_string().contains("no-memory"));
}
