//! Every op case through each rung that can run here: `cargo bench --bench ops`.
use candle_core::Device;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mirage::ops::cases;
use mirage::ops::probe::Mode;
use mirage::stages::StageSet;

fn ops(c: &mut Criterion) {
    let device = Device::Cpu;
    let rungs = StageSet::all(&device).prefixes();
    for case in cases::all().into_iter().chain(cases::timed()) {
        let mut group = c.benchmark_group(case.to_string());
        let mut before = None;
        for rung in &rungs {
            let ops = rung.install(&device).expect("`all` holds stages that install");
            let prepared = case.prepare_as_in_a_network(&ops, 1).expect("the case fits its op");
            ops.probe.set(Mode::Count);
            prepared.run(&ops).expect("the case runs");
            let who = ops.probe.counts().into_keys().map(|(_, stage)| stage).next();
            ops.probe.set(Mode::Off);
            // a rung that leaves this op to the one below would only be timed twice
            if who != before {
                before = who;
                let check = case.check(&ops, 2).expect("the case runs");
                assert!(check.passed(), "{case} through {rung} is wrong: {check:?}");
                group.bench_function(BenchmarkId::from_parameter(rung), |b| b.iter(|| prepared.run(&ops)));
            }
        }
        group.finish();
    }
}

criterion_group!(benches, ops);
criterion_main!(benches);
