//! The U-Net against diffusers' own outputs, plain and through every stage that runs here.
use candle_core::{DType, Device, Tensor};
use mirage::model::unet::{UNet, UNetConfig};
use mirage::model::{SafetensorsFile, Weights, formula};
use mirage::ops::Ops;
use mirage::ops::cases::largest_difference;
use mirage::stages::StageSet;
use serde_json::Value;
use std::path::Path;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/unet.safetensors");

struct Call {
    name: String,
    config: UNetConfig,
    sample: Tensor,
    context: Tensor,
    timestep: f64,
    class_label: Option<f64>,
    parameters: u64,
    output: Tensor,
}

fn dims(value: &Value) -> Vec<usize> {
    serde_json::from_value(value.clone()).expect("a shape is a list of sizes")
}

fn calls() -> Vec<Call> {
    let device = &Device::Cpu;
    let file = SafetensorsFile::open(Path::new(FILE)).expect("the golden file is well formed");
    let calls = file.texts().get("calls").expect("the golden file says what was called");
    let calls: serde_json::Map<String, Value> = serde_json::from_str(calls).expect("the calls are JSON");
    let given = |name: &str, shape: &Value| {
        let shape = dims(shape);
        Tensor::from_vec(formula::input(name, shape.iter().product()), shape, device)
            .expect("as many as the shape says")
    };
    calls
        .into_iter()
        .map(|(name, call)| {
            let shape = file.shape(&name).expect("each call has its output").to_vec();
            let output = file.read_f32(&name, &shape).expect("the output is whole");
            Call {
                config: UNetConfig::from_json(&call["config"].to_string())
                    .expect("diffusers' own configuration is read"),
                sample: given("unet.sample", &call["sample"]),
                context: given("unet.context", &call["context"]),
                timestep: call["timestep"].as_f64().expect("a number"),
                class_label: call["class_label"].as_f64(),
                parameters: call["parameters"].as_u64().expect("a number"),
                output: Tensor::from_vec(output, shape, device).expect("as many as the shape says"),
                name,
            }
        })
        .collect()
}

impl Call {
    fn run(&self, ops: &Ops) -> Tensor {
        let weights = Weights::formula(&Device::Cpu);
        let unet = UNet::load(ops, &weights.root(), &self.config).expect("the network loads");
        let stored = |t: &Tensor| t.to_dtype(ops.dtype).expect("a float type");
        let y = unet.forward(ops, &stored(&self.sample), None, self.timestep, &stored(&self.context), self.class_label);
        y.and_then(|y| Ok(y.to_dtype(DType::F32)?)).expect("the network runs")
    }

    /// Share of the largest magnitude.
    fn error(&self, y: &Tensor) -> f64 {
        let largest: f32 = self.output.abs().and_then(|t| t.max_all()?.to_scalar()).expect("an output has values");
        largest_difference(y, &self.output).expect("same shapes") / f64::from(largest)
    }
}

#[test]
fn it_draws_what_diffusers_draws() {
    let calls = calls();
    assert_eq!(calls.len(), 5);
    for call in &calls {
        let error = call.error(&call.run(&Ops::reference(&Device::Cpu)));
        assert!(error <= 1e-4, "{}: {error:.1e}", call.name);
    }
}

#[test]
fn every_set_of_stages_draws_it_too() {
    let device = &Device::Cpu;
    let all = StageSet::all(device);
    let sets = all.prefixes().into_iter().chain(all.names().iter().map(|name| StageSet::of(&[name])));
    for set in sets {
        let ops = set.install(device).expect("`all` holds stages that install");
        for call in calls() {
            let error = call.error(&call.run(&ops));
            // half-precision storage: 2^-11 for each rounding, over some dozens of layers
            let allowed = if ops.dtype == DType::F32 { 1e-4 } else { 3e-2 };
            assert!(error <= allowed, "{} through {set}: {error:.1e}", call.name);
        }
    }
}

#[test]
fn it_has_the_parameters_that_diffusers_counts() {
    for call in calls() {
        let weights = Weights::shapes();
        UNet::load(&Ops::reference(&Device::Cpu), &weights.root(), &call.config).expect("the network loads");
        let count: usize = weights.asked().iter().map(mirage::model::Parameter::count).sum();
        assert_eq!(count as u64, call.parameters, "{}", call.name);
    }
}

#[test]
fn what_it_does_not_take_is_refused_in_words() {
    let calls = calls();
    let live = calls.iter().find(|c| c.name == "live-tiny").expect("there is such a call");
    let ops = Ops::reference(&Device::Cpu);
    let unet = UNet::load(&ops, &Weights::formula(&Device::Cpu).root(), &live.config).expect("the network loads");
    let refusal = |sample: &Tensor, context: &Tensor, label| {
        unet.forward(&ops, sample, None, 1.0, context, label).expect_err("it must be refused").to_string()
    };
    let odd = live.sample.narrow(3, 0, 10).expect("a part");
    assert!(refusal(&odd, &live.context, Some(1.0)).contains("divide by 4"));
    let few = live.sample.narrow(1, 0, 3).expect("a part");
    assert!(refusal(&few, &live.context, Some(1.0)).contains("24"));
    let narrow = live.context.narrow(2, 0, 3).expect("a part");
    assert!(refusal(&live.sample, &narrow, Some(1.0)).contains("16"));
    assert!(refusal(&live.sample, &live.context, None).contains("class label"));
}
