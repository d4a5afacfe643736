//! Any text as the name of a model, stages, sizes, rates and tolerances: an error or a value that prints and reads back.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mirage::bench::compare::Tolerance;
use mirage::media::FrameRate;
use mirage::model::ModelSpec;
use mirage::stages::StageSpec;

fuzz_target!(|text: &str| {
    if let Ok(spec) = text.parse::<ModelSpec>() {
        assert_eq!(spec.to_string().parse::<ModelSpec>().ok(), Some(spec));
    }
    if let Ok(spec) = text.parse::<StageSpec>() {
        assert_eq!(spec.to_string().parse::<StageSpec>().ok(), Some(spec));
    }
    if let Ok(rate) = text.parse::<FrameRate>() {
        assert_eq!(rate.to_string().parse::<FrameRate>().ok(), Some(rate));
    }
    if let Ok(Tolerance(share)) = text.parse::<Tolerance>() {
        assert!(share >= 0.0);
    }
});
