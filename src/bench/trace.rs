//! A timeline of op calls in the Chrome trace format: open it in a browser at `chrome://tracing` or in Perfetto.
//!
//! Format: *Trace Event Format*, complete events (`"ph": "X"`), times in microseconds.
use crate::ops::probe::Record;
use serde_json::{Value, json};

/// The records as a trace file.
pub fn chrome_trace(records: &[Record]) -> Value {
    let events: Vec<Value> = records
        .iter()
        .map(|r| {
            json!({
                "name": format!("{} {}", r.op.name(), r.site),
                "cat": r.stage,
                "ph": "X",
                "ts": r.start.as_secs_f64() * 1e6,
                "dur": r.time.as_secs_f64() * 1e6,
                "pid": 1,
                "tid": 1,
                "args": { "op": r.op.name(), "stage": r.stage, "shape": r.shape, "flops": r.flops, "bytes": r.bytes },
            })
        })
        .collect();
    json!({ "displayTimeUnit": "ms", "traceEvents": events })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;
    use std::time::Duration;

    #[test]
    fn times_are_microseconds_from_the_start() {
        let record = Record {
            op: Op::Conv2d,
            site: "enc1".into(),
            stage: "none",
            start: Duration::from_millis(2),
            time: Duration::from_micros(30),
            flops: 4,
            bytes: 8,
            shape: vec![1, 2],
        };
        let trace = chrome_trace(&[record]);
        let event = &trace["traceEvents"][0];
        assert_eq!((event["ts"].as_f64(), event["dur"].as_f64()), (Some(2000.0), Some(30.0)));
        assert_eq!((event["name"].as_str(), event["ph"].as_str()), (Some("conv2d enc1"), Some("X")));
    }
}
