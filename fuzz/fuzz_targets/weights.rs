//! Any bytes as a weight file: an error or values, never a panic, never more memory than the file explains.
#![no_main]
use candle_core::Device;
use libfuzzer_sys::fuzz_target;
use mirage::model::{ModelSpec, SafetensorsFile, Weights};
use mirage::ops::Ops;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = SafetensorsFile::from_bytes(data.to_vec(), "fuzzed") else { return };
    if let Ok(wanted) = (ModelSpec::Reference { base: 16 }).parameters() {
        let _ = file.check(&wanted);
        for parameter in &wanted[..4] {
            let _ = file.read_f32(&parameter.name, &parameter.shape);
        }
    }
    if let Some(shape) = file.shape("a") {
        let _ = file.read_f32("a", &shape.to_vec());
    }
    // the live model is built as the file's own texts say
    if let Ok(weights) = Weights::bytes(data.to_vec(), "fuzzed", &Device::Cpu) {
        let _ = ModelSpec::Live.load(&Ops::reference(&Device::Cpu), &weights);
    }
});
