//! One call of the reference network through each rung that can run here: `cargo bench --bench frame`.
//!
//! Weights are by formula: this measures speed, what is drawn is no video.
use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mirage::model::{ModelSpec, Reference, Weights, formula};
use mirage::stages::StageSet;

fn frame(c: &mut Criterion) {
    let device = Device::Cpu;
    let input = |name: &str| {
        let values = formula::input(name, 3 * 64 * 64);
        Tensor::from_vec(values, (1, 3, 64, 64), &device).expect("the shape holds the values")
    };
    for base in [16, 32] {
        let mut group = c.benchmark_group(format!("{} 64x64, one call", ModelSpec::Reference { base }));
        group.sample_size(10);
        for rung in StageSet::all(&device).prefixes() {
            let ops = rung.install(&device).expect("`all` holds stages that install");
            let network = Reference::checked(&ops, &Weights::formula(&device), base).expect("weights by formula fit");
            let [x, previous] = ["input.x", "input.previous"].map(|name| {
                let t = input(name).to_dtype(ops.dtype);
                t.expect("the CPU converts between number types")
            });
            group.bench_function(BenchmarkId::from_parameter(&rung), |b| {
                b.iter(|| -> mirage::Result<f32> {
                    let y = network.forward(&ops, &x, 25.0, &previous)?;
                    // the last value is read, so that nothing is left undone
                    Ok(y.flatten_all()?.get(y.elem_count() - 1)?.to_dtype(DType::F32)?.to_scalar::<f32>()?)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, frame);
criterion_main!(benches);
