//! Counts and times what the slots run: the only place where an op is counted or timed.
use crate::cuda::Marker;
use candle_core::{Device, Result, Tensor};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The ops of the seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// [`super::Attention`]
    Attention,
    /// [`super::Conv2d`]
    Conv2d,
    /// [`super::Gaussian`]
    Gaussian,
    /// [`super::Geglu`]
    Geglu,
    /// [`super::GroupNorm`]
    GroupNorm,
    /// [`super::LayerNorm`]
    LayerNorm,
    /// [`super::Linear`]
    Linear,
    /// [`super::Resample`]
    Resample,
    /// [`super::Rgb8`]
    Rgb8,
    /// [`super::SamplerStep`]
    SamplerStep,
    /// [`super::TemporalBlend`]
    TemporalBlend,
}

impl Op {
    /// Every op, in the order of their names.
    pub const ALL: [Self; 11] = [
        Self::Attention,
        Self::Conv2d,
        Self::Gaussian,
        Self::Geglu,
        Self::GroupNorm,
        Self::LayerNorm,
        Self::Linear,
        Self::Resample,
        Self::Rgb8,
        Self::SamplerStep,
        Self::TemporalBlend,
    ];

    /// The op's name in tables and files: that of its module.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Conv2d => "conv2d",
            Self::Gaussian => "gaussian",
            Self::Geglu => "geglu",
            Self::GroupNorm => "group_norm",
            Self::LayerNorm => "layer_norm",
            Self::Linear => "linear",
            Self::Resample => "resample",
            Self::Rgb8 => "rgb8",
            Self::SamplerStep => "sampler_step",
            Self::TemporalBlend => "temporal_blend",
        }
    }
}

/// Which op is about to run, where in the network, and who runs it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The op.
    pub op: Op,
    /// The layer's name in the checkpoint.
    pub site: &'a str,
    /// The stage that fills the slot; `none` is plain Candle.
    pub stage: &'static str,
}

/// One timed call.
#[derive(Clone, Debug)]
pub struct Record {
    /// The op.
    pub op: Op,
    /// The layer's name in the checkpoint.
    pub site: String,
    /// The stage that ran it.
    pub stage: &'static str,
    /// From the moment the probe was set to [`Mode::Time`].
    pub start: Duration,
    /// How long it took, the device synchronised before and after.
    pub time: Duration,
    /// Multiplications and additions by the op's formula, whoever ran it.
    pub flops: u64,
    /// Bytes of the activations read and written at the seam, and of the layer's parameters in the storage type.
    pub bytes: u64,
    /// Shape of the result.
    pub shape: Vec<usize>,
}

/// How closely the probe looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all: one relaxed load a call.
    Off,
    /// Counts calls.
    Count,
    /// Counts, and times each call with the device synchronised around it, which slows a GPU down.
    Time,
    /// Lists calls without a time, and has the marker set before and after each.
    Mark,
}

/// Calls so far, by op and stage.
pub type Counts = BTreeMap<(Op, &'static str), u64>;

#[derive(Default)]
struct State {
    counts: Counts,
    records: Vec<Record>,
    since: Option<Instant>,
    taps: Option<BTreeMap<String, Tensor>>,
    marker: Option<Marker>,
}

/// Looks on while the slots run.
#[derive(Default)]
pub struct Probe {
    mode: AtomicU8,
    state: Mutex<State>,
    device: Option<Device>,
}

const OFF: u8 = 0;
const TIME: u8 = Mode::Time as u8;
const MARK: u8 = Mode::Mark as u8;
const TAP: u8 = 4;

impl Probe {
    /// Looks on ops of `device`, which it waits for before and after each call that it times.
    pub fn on(device: &Device) -> Self {
        Self { device: Some(device.clone()), ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // nothing in here panics half-way through a change
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was seen and looks as closely as `mode` says from now on.
    pub fn set(&self, mode: Mode) {
        *self.state() = State { since: Some(Instant::now()), ..State::default() };
        self.mode.store(mode as u8, Relaxed);
    }

    /// Forgets what was seen; lists calls from now on, and marks before and after each, so that [`crate::cuda::time_parts`] can tell how long each
    /// one takes in its place.
    pub fn mark(&self, marker: Marker) {
        self.set(Mode::Mark);
        self.state().marker = Some(marker);
    }

    /// Looks no further, and keeps what was seen.
    pub fn stop(&self) {
        self.mode.store(OFF, Relaxed);
    }

    /// Whether anything is counted, timed or kept.
    pub fn looks_on(&self) -> bool {
        self.mode.load(Relaxed) != OFF
    }

    /// Keeps, from now on, the result of each named module that the network announces with [`tap`](Self::tap).
    pub fn keep_activations(&self) {
        self.state().taps = Some(BTreeMap::new());
        self.mode.fetch_or(TAP, Relaxed);
    }

    /// Hands over the activations kept so far and keeps no more.
    pub fn take_activations(&self) -> BTreeMap<String, Tensor> {
        self.mode.fetch_and(!TAP, Relaxed);
        self.state().taps.take().unwrap_or_default()
    }

    /// A network calls this with the result of each of its named modules.
    pub fn tap(&self, name: &str, value: &Tensor) {
        if self.mode.load(Relaxed) & TAP != 0
            && let Some(taps) = &mut self.state().taps
        {
            taps.insert(name.to_owned(), value.clone());
        }
    }

    /// Calls so far, by op and stage.
    pub fn counts(&self) -> Counts {
        self.state().counts.clone()
    }

    /// Calls so far, in order; empty unless the mode is [`Mode::Time`] or [`Mode::Mark`].
    pub fn take_records(&self) -> Vec<Record> {
        std::mem::take(&mut self.state().records)
    }

    /// Runs one op; `cost` gives its flops and bytes from its result.
    pub(super) fn run(
        &self,
        call: Call<'_>,
        cost: impl FnOnce(&Tensor) -> (u64, u64),
        f: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mode = self.mode.load(Relaxed) & !TAP;
        if mode == OFF {
            return f();
        }
        if mode != TIME && mode != MARK {
            *self.state().counts.entry((call.op, call.stage)).or_default() += 1;
            return f();
        }
        let marker = self.state().marker.clone();
        let mark = || marker.as_ref().map_or(Ok(()), Marker::mark);
        // what was queued between two ops is no part of the second one's time
        if let Some(device) = self.device.as_ref().filter(|_| mode == TIME) {
            device.synchronize()?;
        }
        let begin = Instant::now();
        mark()?;
        let y = f()?;
        mark()?;
        if mode == TIME {
            y.device().synchronize()?;
        }
        let time = if mode == TIME { begin.elapsed() } else { Duration::ZERO };
        let (flops, bytes) = cost(&y);
        let mut state = self.state();
        *state.counts.entry((call.op, call.stage)).or_default() += 1;
        let start = state.since.map_or(Duration::ZERO, |since| begin.duration_since(since));
        state.records.push(Record {
            op: call.op,
            site: call.site.to_owned(),
            stage: call.stage,
            start,
            time,
            flops,
            bytes,
            shape: y.dims().to_vec(),
        });
        Ok(y)
    }
}
