//! The checks: each with what was measured, the limit, and a sentence that says what it means.
use super::measures::Measure;
use super::series::{self, Series, Slope};
use super::trace::{PartTrace, Trace};
use serde::{Deserialize, Serialize};

/// A chunk is a tenth of a part: two thirds of the start-end windows' length, and the worst of nine is taken.
const CHUNK_TOLERANCES: f64 = 2.0;
/// Distance that a stream may have from the nearest fresh one, beyond the largest between two fresh ones: as much as
/// the tolerance of one measure.
const FRESH_ALLOWANCE: f64 = 1.0;
/// Share of the input's motion that an output must show. Restyling flattens regions and so loses some; a frozen output
/// has none.
const LEAST_MOTION: f64 = 0.1;
/// Input motion below which nothing can be said of the output's, a quarter of a step of 8 bits.
const STILL: f64 = 0.001;
/// Least mean difference from the input, five steps of 8 bits: below it nobody sees that anything was redrawn.
const LEAST_REDRAWN: f64 = 0.02;
/// Contrast below which an input is flat, so that an output that is flat too is no fault.
const FLAT: f64 = 0.01;
/// Share of the Laplacian energy that must be left. Looser than the tolerance of detail, since fresh streams are seen
/// for four frames only.
const LEAST_DETAIL: f64 = 0.6;

/// Which side of its limit a measured value must be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// At most the limit.
    AtMost,
    /// At least the limit.
    AtLeast,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The script.
    pub input: String,
    /// What was asked: the test and, where it has one, the measure, as `slope saturation`.
    pub name: String,
    /// What was found.
    pub measured: f64,
    /// What is accepted.
    pub limit: f64,
    /// On which side of the limit the measured value must be.
    pub bound: Bound,
    /// Whether it is.
    pub passed: bool,
    /// The same in words.
    pub sentence: String,
}

impl Check {
    fn at_most(trace: &Trace, name: String, measured: f64, limit: f64, sentence: String) -> Self {
        // a value that is not a number passes no check
        let passed = measured <= limit;
        Self { input: trace.name.into(), name, measured, limit, bound: Bound::AtMost, passed, sentence }
    }

    fn at_least(trace: &Trace, name: &str, measured: f64, limit: f64, sentence: String) -> Self {
        let passed = measured >= limit;
        let (input, name) = (trace.name.into(), name.into());
        Self { input, name, measured, limit, bound: Bound::AtLeast, passed, sentence }
    }

    /// How near the limit it is: above 1 is failed.
    pub fn strain(&self) -> f64 {
        match self.bound {
            Bound::AtMost => self.measured / self.limit,
            Bound::AtLeast => self.limit / self.measured,
        }
    }
}

/// Every check of one run. Where a script has parts, each check takes the worst of them.
pub fn checks(trace: &Trace) -> Vec<Check> {
    if let Some(frame) = trace.broken_at {
        let sentence = format!("Frame {} has values that are not finite numbers; the run ended there.", frame + 1);
        return vec![Check::at_most(trace, "finite".into(), 1.0, 0.0, sentence)];
    }
    let mut found = vec![];
    for measure in Measure::ALL {
        found.extend(start_end(trace, measure));
        found.extend(chunks(trace, measure));
        found.extend(slope(trace, measure));
    }
    found.extend(fresh(trace));
    found.extend(frozen(trace));
    found.extend(passed_through(trace));
    found.extend(lost_detail(trace));
    found
}

/// VDE of each measure over the whole script's longest part, as BlockVid defines it.
pub fn drift_errors(trace: &Trace) -> Vec<(Measure, f64)> {
    let longest = trace.parts.iter().max_by_key(|p| p.range.end - p.range.start);
    let error = |measure| {
        let series = trace.series(measure, longest?)?;
        let first = &series.values[..series.values.len() / 10];
        let first = first.iter().sum::<f64>() / first.len().max(1) as f64;
        let mut departures = series.chunks();
        // shares of an energy, not of its logarithm
        let first = if measure == Measure::Detail {
            departures.iter_mut().for_each(|d| *d = d.exp2() - 1.0);
            1.0
        } else {
            first
        };
        Some((measure, series::drift_error(first, &departures, measure.tolerance())))
    };
    Measure::ALL.into_iter().filter_map(error).collect()
}

/// The part for which `of` is furthest from zero, and what it is there.
fn worst(trace: &Trace, measure: Measure, of: impl Fn(Series<'_>) -> Option<f64>) -> Option<f64> {
    let values = trace.parts.iter().filter_map(|part| of(trace.series(measure, part)?));
    values.max_by(|a, b| a.abs().total_cmp(&b.abs()))
}

fn start_end(trace: &Trace, measure: Measure) -> Option<Check> {
    let change = worst(trace, measure, |s| s.start_end())?;
    let (name, limit) = (measure.name(), measure.tolerance());
    let sentence =
        format!("From the first to the last 15 % of frames, on equal inputs, {name} changed by {change:+.3}.");
    Some(Check::at_most(trace, format!("start-end {name}"), change.abs(), limit, sentence))
}

fn chunks(trace: &Trace, measure: Measure) -> Option<Check> {
    let largest = |s: Series<'_>| s.chunks().into_iter().max_by(|a, b| a.abs().total_cmp(&b.abs()));
    let change = worst(trace, measure, largest)?;
    let (name, limit) = (measure.name(), CHUNK_TOLERANCES * measure.tolerance());
    let sentence = format!("Of ten chunks, the one furthest from the first has {name} {change:+.3} away from it.");
    Some(Check::at_most(trace, format!("chunks {name}"), change.abs(), limit, sentence))
}

fn slope(trace: &Trace, measure: Measure) -> Option<Check> {
    let of = |part: &PartTrace| trace.series(measure, part)?.slope(part.range.start);
    // a change fails when it is more than chance and more than an eye sees
    let limit = |slope: &Slope| measure.tolerance().max(slope.half_width);
    let strain = |slope: &Slope| slope.change.abs() / limit(slope);
    let slope = trace.parts.iter().filter_map(of).max_by(|a, b| strain(a).total_cmp(&strain(b)))?;
    let (name, Slope { change, half_width }) = (measure.name(), slope);
    let significant = if slope.is_significant() { "more" } else { "no more" };
    let sentence = format!(
        "Its trend takes {name} {change:+.3} ± {half_width:.3} from the first frame to the last, {significant} than chance would."
    );
    Some(Check::at_most(trace, format!("slope {name}"), change.abs(), limit(&slope), sentence))
}

fn fresh(trace: &Trace) -> Vec<Check> {
    // over all checkpoints, since three fresh streams may happen to choose the same palette at one of them
    let spread = trace.fresh.iter().map(|c| c.fresh).fold(0.0, f64::max);
    let check = |c: &super::trace::FreshComparison| {
        let sentence = format!(
            "After {} frames the stream is {:.2} tolerances from the nearest of three fresh ones, which are up to {spread:.2} apart.",
            c.frames, c.old
        );
        Check::at_most(trace, format!("fresh at {}", c.frames), c.old, spread + FRESH_ALLOWANCE, sentence)
    };
    trace.fresh.iter().map(check).collect()
}

fn frozen(trace: &Trace) -> Option<Check> {
    let moving = trace.parts.iter().map(|p| p.motion).filter(|(input, _)| *input > STILL);
    let share = moving.map(|(input, output)| output / input).min_by(f64::total_cmp)?;
    let sentence = format!("Over a lap, the output moves {share:.2} times as far as the input.");
    Some(Check::at_least(trace, "frozen output", share, LEAST_MOTION, sentence))
}

fn passed_through(trace: &Trace) -> Option<Check> {
    let of = |part: &PartTrace| {
        let frames = trace.redrawn.get(part.range.start as usize..part.range.end as usize)?;
        let chunks = frames.chunks(frames.len().div_ceil(10).max(1));
        chunks.map(|c| c.iter().sum::<f64>() / c.len() as f64).min_by(f64::total_cmp)
    };
    let parts = trace.parts.iter().filter(|p| p.input_contrast > FLAT);
    let least = parts.filter_map(of).min_by(f64::total_cmp)?;
    let sentence = format!("In the tenth that is nearest to the input, the output is {least:.3} from it.");
    Some(Check::at_least(trace, "input passed through", least, LEAST_REDRAWN, sentence))
}

fn lost_detail(trace: &Trace) -> Option<Check> {
    let kept = |part: &PartTrace| Some(trace.series(Measure::Detail, part)?.start_end()?.exp2());
    let start = trace.parts.iter().filter_map(kept);
    // palettes differ in contrast and so in energy: as far as fresh streams lie apart, a stream may lie below them
    let spread = trace.fresh.iter().map(|c| c.detail_spread).fold(1.0, f64::min);
    let beside = trace.fresh.iter().map(|c| c.detail / spread);
    let least = start.chain(beside).min_by(f64::total_cmp)?;
    let sentence = format!(
        "The Laplacian energy falls to {least:.2} of what it was at the start, or of the least that fresh streams may have."
    );
    Some(Check::at_least(trace, "lost detail", least, LEAST_DETAIL, sentence))
}
