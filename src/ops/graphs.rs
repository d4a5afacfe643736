//! Whole pieces of work, which a stage may record once and replay: a frame, a call of a network.
use super::Ops;
use crate::Result;
use candle_core::Tensor;

/// A piece of work: tensors in, tensors out, and nothing else read or changed.
pub type Work<'a> = &'a dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>;

/// The slot: makes recorders.
pub trait Graphs: Send + Sync {
    /// Which stage this is.
    fn stage(&self) -> &'static str;
    /// A recorder for one owner. The owner keeps alive what its work uses besides the inputs, such as weights, as long as it
    /// keeps the recorder.
    fn recorder(&self) -> Box<dyn Recorder>;
}

/// Records work and replays it.
pub trait Recorder: Send + Sync {
    /// What `work` makes of `inputs`. Work under one `key`, on inputs of the same shapes and types, may be replayed from a
    /// recording of an earlier run: so whatever else it depends on belongs into the key.
    ///
    /// # Errors
    /// Whatever `work` finds wrong, or a device that cannot record or replay it.
    fn run(&self, key: &str, inputs: &[Tensor], work: Work<'_>) -> Result<Vec<Tensor>>;
}

impl Ops {
    /// A recorder for one owner, where a stage has them.
    pub fn recorder(&self) -> Option<Box<dyn Recorder>> {
        self.graphs.as_ref().map(|graphs| graphs.recorder())
    }

    /// Runs `work` through `recorder`, if there is one. While the probe looks on, work runs as it is: a replay calls no op.
    ///
    /// # Errors
    /// Whatever `work` finds wrong, or a device that cannot record or replay it.
    pub fn whole(
        &self,
        recorder: Option<&dyn Recorder>,
        key: &str,
        inputs: &[Tensor],
        work: Work<'_>,
    ) -> Result<Vec<Tensor>> {
        match recorder.filter(|_| !self.probe.looks_on()) {
            Some(recorder) => recorder.run(key, inputs, work),
            None => work(inputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::probe::Mode;
    use candle_core::Device;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    struct Counted(Arc<AtomicU32>);

    impl Graphs for Counted {
        fn stage(&self) -> &'static str {
            "counted"
        }

        fn recorder(&self) -> Box<dyn Recorder> {
            Box::new(Self(self.0.clone()))
        }
    }

    impl Recorder for Counted {
        fn run(&self, _: &str, inputs: &[Tensor], work: Work<'_>) -> Result<Vec<Tensor>> {
            self.0.fetch_add(1, Relaxed);
            work(inputs)
        }
    }

    #[test]
    fn work_runs_unrecorded_while_the_probe_looks_on() {
        let recorded = Arc::new(AtomicU32::new(0));
        let ops = Ops { graphs: Some(Arc::new(Counted(recorded.clone()))), ..Ops::reference(&Device::Cpu) };
        let recorder = ops.recorder().unwrap();
        let two = Tensor::new(2f32, &Device::Cpu).unwrap();
        let run =
            || ops.whole(Some(&*recorder), "twice", std::slice::from_ref(&two), &|x| Ok(vec![(&x[0] * 2.0)?])).unwrap();
        for (mode, expected) in [(Mode::Off, 1), (Mode::Count, 1), (Mode::Time, 1), (Mode::Off, 2)] {
            ops.probe.set(mode);
            assert_eq!(run()[0].to_scalar::<f32>().unwrap(), 4.0);
            assert_eq!(recorded.load(Relaxed), expected);
        }
    }
}
