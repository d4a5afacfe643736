//! One free run of a stream over a script, measured frame by frame, with fresh streams beside it.
use super::inputs::Script;
use super::measures::{Measure, Pixels, Values};
use super::palette::Palette;
use super::response::Response;
use super::series::Series;
use super::{Redraw, Subject, Variant};
use crate::media::Frame;
use crate::ops::Ops;
use crate::stream::convert::to_frame;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// Frames after which the stream is compared with fresh ones, and shown.
const CHECKPOINTS: [u64; 8] = [100, 250, 500, 1000, 2500, 5000, 10_000, 100_000];
/// Fresh streams at each checkpoint.
const FRESH: u64 = 3;
/// Age of a fresh stream when it is looked at: old enough to have a history, too young to have drifted.
const FRESH_AGE: u64 = 6;
/// Frames that are averaged to compare two streams.
const SKETCH: usize = 4;
/// Most frames at the beginning of a part that are not judged: history and blend fill up, a new style comes through.
const SETTLING: u64 = 10;
/// Fewest frames that the palette at the start is averaged over, where a lap is shorter.
const PALETTE_FRAMES: usize = 8;

/// What a run left behind.
pub struct Trace {
    /// The script's name.
    pub name: &'static str,
    /// Its parts.
    pub parts: Vec<PartTrace>,
    /// A list for each of [`Measure::ALL`], a value a frame. The palette's is not a number until its reference is full.
    pub measures: Vec<Vec<f64>>,
    /// Mean absolute difference between output and input, frame by frame.
    pub redrawn: Vec<f64>,
    /// Comparisons with fresh streams.
    pub fresh: Vec<FreshComparison>,
    /// Frames to look at.
    pub stills: Vec<Still>,
    /// The frame at which the output was not finite, where the run ended.
    pub broken_at: Option<u64>,
}

/// What is known of one part of a run.
pub struct PartTrace {
    /// Its frames.
    pub range: Range<u64>,
    /// Frames after which its input repeats.
    pub period: usize,
    /// RMS contrast of its first input frame.
    pub input_contrast: f64,
    /// How far input and output moved over a lap in the part's second half.
    pub motion: (f64, f64),
}

/// The stream at a checkpoint beside fresh ones on the same input.
pub struct FreshComparison {
    /// How many frames the stream had drawn.
    pub frames: u64,
    /// Distance to the nearest fresh stream, in tolerances of the worst measure.
    pub old: f64,
    /// Largest distance between two of the fresh streams.
    pub fresh: f64,
    /// Laplacian energy over that of the least detailed fresh stream.
    pub detail: f64,
    /// Laplacian energy of the least detailed fresh stream over that of the most detailed one.
    pub detail_spread: f64,
}

/// A frame to look at.
pub struct Still {
    /// Its number, from 1.
    pub number: u64,
    /// What came in.
    pub input: Frame,
    /// What was drawn.
    pub output: Frame,
}

impl Trace {
    /// A measure over a part, without what is not judged; `None` if too little is left.
    pub fn series(&self, measure: Measure, part: &PartTrace) -> Option<Series<'_>> {
        let settled = part.range.start + settling(&part.range);
        let values = self.measures.get(measure as usize)?;
        let range = settled as usize..(part.range.end as usize).min(values.len());
        let skip = values.get(range.clone())?.iter().position(|v| v.is_finite())?;
        let values = &values[range.start + skip..range.end];
        (values.len() >= 20).then_some(Series { values, begin: settled + skip as u64, period: part.period })
    }

    /// How far a measure is from the start on the same input, frame by frame; the palette's distance is that already.
    pub fn departures(&self, measure: Measure) -> Vec<f64> {
        let mut whole = vec![f64::NAN; self.redrawn.len()];
        for series in self.parts.iter().filter_map(|part| self.series(measure, part)) {
            let values = if measure == Measure::Palette { series.values.to_vec() } else { series.departures() };
            whole[series.begin as usize..][..values.len()].copy_from_slice(&values);
        }
        whole
    }
}

/// Frames of a part that are not judged.
fn settling(range: &Range<u64>) -> u64 {
    ((range.end - range.start) / 20).min(SETTLING)
}

/// The checkpoints of a run, and its end.
pub fn checkpoints(frames: u64) -> Vec<u64> {
    let mut found: Vec<u64> = CHECKPOINTS.into_iter().filter(|c| *c < frames).collect();
    found.push(frames);
    found
}

/// Runs a variant of the subject over the script, never reset; `tick` is called once a frame.
///
/// # Errors
/// Whatever the stream refuses, and an output of another shape than its input.
pub fn run(
    subject: &dyn Subject,
    variant: Variant,
    script: &Script,
    seed: u64,
    tick: &mut dyn FnMut(),
) -> Result<Trace> {
    let mut stream = subject.start(variant, seed)?;
    let plain = Ops::reference(&Device::Cpu);
    let frames = script.frames();
    let checkpoints = checkpoints(frames);
    let mut trace = Trace {
        name: script.name,
        parts: vec![],
        measures: vec![vec![]; Measure::ALL.len()],
        redrawn: vec![],
        fresh: vec![],
        stills: vec![],
        broken_at: None,
    };
    let mut newest = VecDeque::new();
    for part in script.parts() {
        if let Some(style) = &part.style {
            stream.set_style(style)?;
        }
        let mut reference = PaletteReference::new(part.period());
        let mut response = Response::new(part.period());
        let judged = part.range.start + settling(&part.range);
        let half = part.range.start.midpoint(part.range.end);
        let mut input_contrast = 0.0;
        for index in part.range.clone() {
            let frame = script.frame(index);
            let (Some(input), Some((output, drawn))) = (Pixels::of(frame)?, draw(&mut *stream, frame)?) else {
                trace.broken_at = Some(index);
                break;
            };
            let phase = (index % part.period() as u64) as usize;
            if index == part.range.start {
                input_contrast = input.values()[Measure::Contrast as usize];
            }
            if index >= half {
                response.add(phase, &input, &output);
            }
            let sketch = Sketch { values: output.values(), palette: output.palette() };
            let shift = if index >= judged { reference.distance(phase, &sketch.palette) } else { None };
            for (list, value) in trace.measures.iter_mut().zip(sketch.values.iter().chain(&[shift.unwrap_or(f64::NAN)]))
            {
                list.push(*value);
            }
            trace.redrawn.push(output.difference(&input));
            if newest.len() == SKETCH {
                newest.pop_front();
            }
            newest.push_back(sketch);
            let number = index + 1;
            if [1, 10].contains(&number) || checkpoints.contains(&number) {
                let shown = |picture: &Tensor| to_frame(&plain, picture, Duration::ZERO);
                trace.stills.push(Still { number, input: shown(frame)?, output: shown(&drawn)? });
            }
            if checkpoints.contains(&number) {
                match compare(subject, variant, script, seed, number, Sketch::mean(&newest))? {
                    Some(comparison) => trace.fresh.push(comparison),
                    None => {
                        trace.broken_at = Some(index);
                        break;
                    }
                }
            }
            tick();
        }
        let motion = response.motion();
        let range = part.range.start..trace.redrawn.len() as u64;
        trace.parts.push(PartTrace { range, period: part.period(), input_contrast, motion });
        if trace.broken_at.is_some() {
            break;
        }
    }
    Ok(trace)
}

/// One step, checked; `None` if the output is not finite.
pub(super) fn draw(stream: &mut dyn Redraw, frame: &Tensor) -> Result<Option<(Pixels, Tensor)>> {
    let drawn = stream.step(frame)?;
    if drawn.dims() != frame.dims() {
        return Err(Error::Stream(format!("a frame of {:?} came back as {:?}", frame.dims(), drawn.dims())));
    }
    Ok(Pixels::of(&drawn)?.map(|pixels| (pixels, drawn)))
}

/// What a stream drew lately: mean measures and mean palette.
struct Sketch {
    values: Values,
    palette: Palette,
}

impl Sketch {
    fn mean<'a>(sketches: impl IntoIterator<Item = &'a Self> + Copy) -> Option<Self> {
        let count = sketches.into_iter().count() as f64;
        let values = std::array::from_fn(|m| sketches.into_iter().map(|s| s.values[m]).sum::<f64>() / count);
        Some(Self { values, palette: Palette::mean(sketches.into_iter().map(|s| &s.palette))? })
    }

    /// In tolerances: 1 is as far as the worst measure may change over a run.
    fn distance(&self, other: &Self) -> f64 {
        let pairs = self.values.iter().zip(other.values).zip(Measure::ALL);
        let values = pairs.map(|((a, b), measure)| (a - b).abs() / measure.tolerance());
        values.fold(self.palette.distance(&other.palette) / Measure::Palette.tolerance(), f64::max)
    }
}

/// Compares the stream with fresh ones that end at the same frame; `None` if one of them draws what is not finite.
fn compare(
    subject: &dyn Subject,
    variant: Variant,
    script: &Script,
    seed: u64,
    frames: u64,
    old: Option<Sketch>,
) -> Result<Option<FreshComparison>> {
    let Some(old) = old else { return Ok(None) };
    let mut fresh: Vec<Sketch> = vec![];
    for i in 1..=FRESH {
        // seeds of their own at every checkpoint, apart from the stream's
        let mut stream = subject.start(variant, seed.wrapping_add(frames * FRESH + i))?;
        let mut sketches = vec![];
        for index in frames.saturating_sub(FRESH_AGE)..frames {
            let part = &script.parts()[script.part_at(index)];
            if let Some(style) = &part.style
                && (sketches.is_empty() || index == part.range.start)
            {
                stream.set_style(style)?;
            }
            let Some((output, _)) = draw(&mut *stream, script.frame(index))? else { return Ok(None) };
            sketches.push(Sketch { values: output.values(), palette: output.palette() });
        }
        let young = &sketches[sketches.len().saturating_sub(SKETCH)..];
        fresh.extend(Sketch::mean(young));
    }
    let pairs = (0..fresh.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let detail = |s: &Sketch| s.values[Measure::Detail as usize];
    let least = fresh.iter().map(detail).fold(f64::INFINITY, f64::min);
    let most = fresh.iter().map(detail).fold(f64::NEG_INFINITY, f64::max);
    Ok(Some(FreshComparison {
        frames,
        old: fresh.iter().map(|f| old.distance(f)).fold(f64::INFINITY, f64::min),
        fresh: pairs.map(|(i, j)| fresh[i].distance(&fresh[j])).fold(0.0, f64::max),
        detail: (detail(&old) - least).exp2(),
        detail_spread: (least - most).exp2(),
    }))
}

/// The colours at the start, for each frame of the lap.
struct PaletteReference {
    wanted: usize,
    seen: usize,
    phases: Vec<Vec<Palette>>,
}

impl PaletteReference {
    fn new(period: usize) -> Self {
        Self { wanted: period.max(PALETTE_FRAMES), seen: 0, phases: vec![vec![]; period] }
    }

    /// Distance from the start on the same input; while the start lasts, takes the palette in and gives nothing.
    fn distance(&mut self, phase: usize, palette: &Palette) -> Option<f64> {
        if self.seen < self.wanted {
            self.phases[phase].push(palette.clone());
            self.seen += 1;
            if self.seen == self.wanted {
                for start in &mut self.phases {
                    *start = Palette::mean(&*start).into_iter().collect();
                }
            }
            return None;
        }
        Some(self.phases[phase].first()?.distance(palette))
    }
}
