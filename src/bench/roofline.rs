//! What a layer could take at least: the longer of moving its bytes and doing its arithmetic, at the rates that this device was seen
//! to reach (Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model for multicore architectures").
use crate::bench::executor::{OnDevice, Plan, measure};
use crate::ops::probe::Record;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The fastest that a device was seen to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bytes in a second, read and written.
    pub bandwidth: f64,
    /// Multiplications and additions in a second, in the storage type of the stages.
    pub arithmetic: f64,
}

/// What keeps a layer from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Moving its bytes.
    Memory,
    /// Its arithmetic.
    Arithmetic,
}

impl Ceilings {
    /// The least seconds for so much work, and what bounds it.
    pub fn floor(&self, flops: u64, bytes: u64) -> (f64, Bound) {
        let (memory, arithmetic) = (bytes as f64 / self.bandwidth, flops as f64 / self.arithmetic);
        if arithmetic > memory { (arithmetic, Bound::Arithmetic) } else { (memory, Bound::Memory) }
    }

    /// Arithmetic for each byte at which both bounds meet.
    pub fn balance(&self) -> f64 {
        self.arithmetic / self.bandwidth
    }
}

/// One layer, for each call of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name in the checkpoint.
    pub name: String,
    /// The op.
    pub op: String,
    /// Who ran it.
    pub stage: String,
    /// How often it runs.
    pub calls: f64,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Multiplications and additions.
    pub flops: f64,
    /// Bytes of inputs, weights and results.
    pub bytes: f64,
    /// Seconds that it could take at least.
    pub floor: f64,
    /// What bounds it.
    pub bound: Bound,
}

impl Layer {
    /// How near to its floor it is: 1 is there.
    pub fn share(&self) -> f64 {
        self.floor / self.seconds
    }
}

/// What `records` of `calls` calls of a network say of each layer, those that lose the most time first.
pub fn layers(records: &[Record], ceilings: Ceilings, calls: f64) -> Vec<Layer> {
    let mut sums = BTreeMap::<(&str, &str, &str), Layer>::new();
    for r in records {
        // a floor for each call: a layer's calls may differ in size
        let (floor, bound) = ceilings.floor(r.flops, r.bytes);
        let layer = sums.entry((&r.site, r.op.name(), r.stage)).or_insert_with(|| Layer {
            name: r.site.clone(),
            op: r.op.name().to_owned(),
            stage: r.stage.to_owned(),
            calls: 0.0,
            seconds: 0.0,
            flops: 0.0,
            bytes: 0.0,
            floor: 0.0,
            bound,
        });
        layer.calls += 1.0 / calls;
        layer.seconds += r.time.as_secs_f64() / calls;
        layer.flops += r.flops as f64 / calls;
        layer.bytes += r.bytes as f64 / calls;
        layer.floor += floor / calls;
    }
    let mut layers: Vec<Layer> = sums.into_values().collect();
    layers.sort_by(|a, b| (b.seconds - b.floor).total_cmp(&(a.seconds - a.floor)));
    layers
}

/// Runs of each measurement, after two to warm up; the fastest counts.
const PLAN: Plan = Plan { warmup: 2, runs: 10, limit: Duration::from_secs(5) };

/// Sees how fast `device` copies a large tensor and multiplies large matrices in `dtype`.
///
/// # Errors
/// Too little memory for it, or whatever goes wrong on the device.
pub fn ceilings(device: &Device, dtype: DType) -> anyhow::Result<Ceilings> {
    // a CPU multiplies in f32 whatever it stores
    let (copied, side, dtype) = if device.is_cpu() { (64 << 20, 1024, DType::F32) } else { (256 << 20, 8192, dtype) };
    let fastest = |work: &mut dyn FnMut() -> anyhow::Result<()>| -> anyhow::Result<f64> {
        let timings = measure(&mut OnDevice(device, work), PLAN)?;
        Ok(timings.into_iter().fold(f64::INFINITY, f64::min) / 1e3)
    };
    let source = Tensor::ones(copied / 4, DType::F32, device)?;
    let copy = fastest(&mut || {
        source.copy()?;
        Ok(())
    })?;
    drop(source);
    let matrix = Tensor::randn(0f32, 1.0, (side, side), device)?.to_dtype(dtype)?;
    let product = fastest(&mut || {
        matrix.matmul(&matrix)?;
        Ok(())
    })?;
    Ok(Ceilings { bandwidth: 2.0 * copied as f64 / copy, arithmetic: 2.0 * (side as f64).powi(3) / product })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    const CEILINGS: Ceilings = Ceilings { bandwidth: 1e9, arithmetic: 1e12 };

    fn record(site: &str, milliseconds: u64, flops: u64, bytes: u64) -> Record {
        Record {
            op: Op::Linear,
            site: site.to_owned(),
            stage: "none",
            start: Duration::ZERO,
            time: Duration::from_millis(milliseconds),
            flops,
            bytes,
            shape: vec![],
        }
    }

    #[test]
    fn the_longer_of_two_bounds_is_the_floor() {
        assert_eq!(CEILINGS.floor(1_000_000_000, 1_000_000), (1e-3, Bound::Memory));
        assert_eq!(CEILINGS.floor(2_000_000_000, 1_000_000), (2e-3, Bound::Arithmetic));
        assert_eq!(CEILINGS.balance(), 1e3);
    }

    #[test]
    fn what_loses_most_time_comes_first() {
        let records =
            [record("near", 10, 0, 9_000_000), record("far", 8, 0, 1_000_000), record("far", 8, 0, 1_000_000)];
        let layers = layers(&records, CEILINGS, 2.0);
        assert_eq!(layers.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["far", "near"]);
        assert_eq!((layers[0].calls, layers[0].bound), (1.0, Bound::Memory));
        assert!((layers[0].seconds - 8e-3).abs() < 1e-9 && (layers[0].share() - 0.125).abs() < 1e-9);
        assert!((layers[1].share() - 0.9).abs() < 1e-9);
        let text = serde_json::to_string(&layers).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Layer>>(&text).unwrap(), layers);
    }

    #[test]
    fn this_machine_has_ceilings() {
        let ceilings = ceilings(&Device::Cpu, DType::F16).unwrap();
        assert!(ceilings.bandwidth > 1e8 && ceilings.arithmetic > 1e8, "{ceilings:?}");
    }
}
