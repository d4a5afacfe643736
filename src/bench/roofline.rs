//! What a layer could take at least: the longer of moving its bytes and doing its arithmetic, at the rates that this device was seen
//! to reach (Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model for multicore architectures").
use super::report::{Build, Machine};
use crate::ops::probe::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The roofline of a network's layers, as a command stores it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// What ran.
    pub build: Build,
    /// The command line.
    pub command: String,
    /// What was called, by which stages, on which device.
    pub work: String,
    /// What the floors are reckoned with.
    pub ceilings: Ceilings,
    /// Where the bandwidth comes from.
    pub bandwidth_from: Origin,
    /// Where the arithmetic comes from.
    pub arithmetic_from: Origin,
    /// Those that lose the most time first.
    pub layers: Vec<Layer>,
    /// All layers as one.
    pub total: Layer,
}

/// Where a ceiling comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The device was seen to reach it.
    Measured,
    /// Whoever gave the command says so.
    Given,
}

impl Origin {
    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Given => "given",
        }
    }
}

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

impl Bound {
    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Arithmetic => "arithmetic",
        }
    }
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

/// One layer, or several as one, for each call of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name in the checkpoint.
    pub name: String,
    /// The op; empty where it is several layers.
    pub op: String,
    /// Who ran it; empty where it is several layers.
    pub stage: String,
    /// How often it runs.
    pub calls: f64,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Multiplications and additions.
    pub flops: f64,
    /// Bytes of inputs, weights and results.
    pub bytes: f64,
    /// Arithmetic for each byte.
    pub intensity: f64,
    /// Seconds that it could take at least.
    pub floor: f64,
    /// What bounds it: of calls that differ, what bounds the greater part of the floor.
    pub bound: Bound,
    /// How near to its floor it is: 1 is there. Above 1, its data came from a cache.
    pub share: f64,
}

/// What calls add up to.
#[derive(Clone, Copy, Default)]
struct Sum {
    calls: f64,
    seconds: f64,
    flops: f64,
    bytes: f64,
    /// The floor of those that moving bytes bounds.
    memory: f64,
    /// The floor of those that arithmetic bounds.
    arithmetic: f64,
}

impl Sum {
    fn add_floor(&mut self, floor: f64, bound: Bound) {
        match bound {
            Bound::Memory => self.memory += floor,
            Bound::Arithmetic => self.arithmetic += floor,
        }
    }

    fn named(self, name: &str, op: &str, stage: &str) -> Layer {
        let floor = self.memory + self.arithmetic;
        // JSON knows neither infinity nor NaN
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        Layer {
            name: name.to_owned(),
            op: op.to_owned(),
            stage: stage.to_owned(),
            calls: self.calls,
            seconds: self.seconds,
            flops: self.flops,
            bytes: self.bytes,
            intensity: ratio(self.flops, self.bytes),
            floor,
            bound: if self.arithmetic > self.memory { Bound::Arithmetic } else { Bound::Memory },
            share: ratio(floor, self.seconds),
        }
    }
}

/// What `records` of `calls` calls of a network say of each layer, those that lose the most time first.
pub fn layers(records: &[Record], ceilings: Ceilings, calls: f64) -> Vec<Layer> {
    let mut sums = BTreeMap::<(&str, &str, &str), Sum>::new();
    for r in records {
        let sum = sums.entry((&r.site, r.op.name(), r.stage)).or_default();
        sum.calls += 1.0 / calls;
        sum.seconds += r.time.as_secs_f64() / calls;
        sum.flops += r.flops as f64 / calls;
        sum.bytes += r.bytes as f64 / calls;
        // a floor for each call: a layer's calls may differ in size
        let (floor, bound) = ceilings.floor(r.flops, r.bytes);
        sum.add_floor(floor / calls, bound);
    }
    let mut layers: Vec<Layer> = sums.into_iter().map(|((name, op, stage), sum)| sum.named(name, op, stage)).collect();
    layers.sort_by(|a, b| (b.seconds - b.floor).total_cmp(&(a.seconds - a.floor)));
    layers
}

/// All of `layers` as one.
pub fn total(name: &str, layers: &[Layer]) -> Layer {
    let mut sum = Sum::default();
    for layer in layers {
        sum.calls += layer.calls;
        sum.seconds += layer.seconds;
        sum.flops += layer.flops;
        sum.bytes += layer.bytes;
        sum.add_floor(layer.floor, layer.bound);
    }
    sum.named(name, "", "")
}

#[cfg(test)]
mod tests {
    use super::super::report::machine;
    use super::*;
    use crate::ops::Op;
    use std::time::Duration;

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
        assert!((layers[0].seconds - 8e-3).abs() < 1e-9 && (layers[0].share - 0.125).abs() < 1e-9);
        assert!((layers[1].share - 0.9).abs() < 1e-9);
    }

    #[test]
    fn calls_that_differ_are_bound_by_the_greater_part_of_their_floor() {
        // 1 ms of bytes first, then 3 ms of arithmetic
        let records = [record("a", 5, 0, 1_000_000), record("a", 5, 3_000_000_000, 1_000_000)];
        let layers = layers(&records, CEILINGS, 1.0);
        assert_eq!((layers.len(), layers[0].calls, layers[0].bound), (1, 2.0, Bound::Arithmetic));
        assert!((layers[0].floor - 4e-3).abs() < 1e-9 && (layers[0].share - 0.4).abs() < 1e-9);
        assert!((layers[0].intensity - 1500.0).abs() < 1e-9);
    }

    #[test]
    fn the_total_is_that_of_all_layers() {
        let records = [record("a", 10, 0, 2_000_000), record("b", 10, 6_000_000_000, 1_000_000)];
        let all = total("all", &layers(&records, CEILINGS, 1.0));
        assert_eq!((all.name.as_str(), all.calls, all.bound), ("all", 2.0, Bound::Arithmetic));
        assert!((all.seconds - 20e-3).abs() < 1e-9 && (all.floor - 8e-3).abs() < 1e-9);
        assert!((all.share - 0.4).abs() < 1e-9 && (all.intensity - 2000.0).abs() < 1e-9);
    }

    #[test]
    fn a_roofline_reads_back_the_same() {
        // no time and no bytes: what JSON cannot hold must not come of it
        let records = [record("a", 3, 1_000, 1_000), record("empty", 0, 0, 0)];
        let layers = layers(&records, CEILINGS, 3.0);
        let report = Report {
            machine: machine(),
            build: Build { version: "0.1.0 (abc)".into() },
            command: "mirage profile --roofline".into(),
            work: "reference-tiny at 32x32".into(),
            ceilings: CEILINGS,
            bandwidth_from: Origin::Measured,
            arithmetic_from: Origin::Given,
            total: total("all", &layers),
            layers,
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        for name in [Origin::Given.name(), Origin::Measured.name(), Bound::Memory.name()] {
            assert!(text.contains(&format!("\"{name}\"")), "{text}");
        }
    }
}
