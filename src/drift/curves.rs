//! The curves of a drift test as SVG: a panel for each measure, a line for each input, the accepted band behind them.
use super::measures::Measure;
use super::trace::Trace;
use crate::bench::chart::escape;
use std::fmt::Write;

const WIDTH: f64 = 1080.0;
/// Upper edge of the first panel.
const TOP: f64 = 116.0;
const COLUMNS: usize = 2;
/// Left edge of the first panel and distance to that of the next.
const LEFT: (f64, f64) = (70.0, 524.0);
/// Width and height of a panel, and distance from one row of panels to the next.
const PANEL: (f64, f64, f64) = (440.0, 130.0, 206.0);
/// Points of a line, at most: frames are averaged between them.
const POINTS: usize = 220;
/// Colours that the colour-blind tell apart (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"];

/// The picture; [`chart::png`](crate::bench::chart::png) makes it a PNG.
pub fn svg(traces: &[Trace], title: &str, subtitle: &str) -> String {
    let rows = Measure::ALL.len().div_ceil(COLUMNS);
    let height = TOP + PANEL.2 * rows as f64;
    let mut s = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="24" y="34" font-size="19" fill="#111827">{}</text>
<text x="24" y="56" font-size="13" fill="#4b5563">{}</text>
"##,
        escape(title),
        escape(subtitle)
    );
    for (i, (trace, colour)) in traces.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let x = 24.0 + 120.0 * i as f64;
        let _ = writeln!(
            s,
            r##"<path d="M{x} 77h26" stroke="{colour}" stroke-width="3"/><text x="{}" y="82" font-size="14" fill="#111827">{}</text>"##,
            x + 33.0,
            escape(trace.name)
        );
    }
    let frames = traces.iter().map(|t| t.redrawn.len()).max().unwrap_or(0).max(1);
    for (i, measure) in Measure::ALL.into_iter().enumerate() {
        let (x, y) = (LEFT.0 + LEFT.1 * (i % COLUMNS) as f64, TOP + PANEL.2 * (i / COLUMNS) as f64);
        let lines: Vec<Line> = traces.iter().map(|t| Line::new(&t.departures(measure), frames)).collect();
        panel(&mut s, measure, &lines, (x, y + 14.0), frames);
    }
    s.push_str("</svg>\n");
    s
}

/// Averages over equal stretches of frames: places from 0 to 1, and values, not numbers where there is none.
struct Line(Vec<(f64, f64)>);

impl Line {
    fn new(values: &[f64], frames: usize) -> Self {
        let stretch = frames.div_ceil(POINTS);
        let point = |(i, chunk): (usize, &[f64])| {
            let known: Vec<f64> = chunk.iter().copied().filter(|v| v.is_finite()).collect();
            let place = (i * stretch) as f64 + chunk.len() as f64 / 2.0;
            (place / frames as f64, known.iter().sum::<f64>() / known.len() as f64)
        };
        Self(values.chunks(stretch).enumerate().map(point).collect())
    }

    fn known(&self) -> impl Iterator<Item = f64> {
        self.0.iter().map(|p| p.1).filter(|v| v.is_finite())
    }
}

fn panel(s: &mut String, measure: Measure, lines: &[Line], (x, y): (f64, f64), frames: usize) {
    let (width, height, _) = PANEL;
    let tolerance = measure.tolerance();
    let is_distance = measure == Measure::Palette;
    let least = if is_distance { 0.0 } else { -1.6 * tolerance };
    let (low, high) =
        lines.iter().flat_map(Line::known).fold((least, 1.6 * tolerance), |(low, high), v| (low.min(v), high.max(v)));
    let place = |value: f64| y + height * (high - value) / (high - low);
    let floor = if is_distance { 0.0 } else { -tolerance };
    let _ = writeln!(
        s,
        r##"<text x="{x}" y="{}" font-size="14" fill="#111827">{}</text>
<rect x="{x}" y="{:.1}" width="{width}" height="{:.1}" fill="#e8f5ee"/>
<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="#d1d5db"/>"##,
        y - 8.0,
        measure.title(),
        place(tolerance),
        place(floor) - place(tolerance),
    );
    let step = round_step((high - low) / 5.0);
    for k in (low / step).ceil() as i64..=(high / step).floor() as i64 {
        let value = k as f64 * step;
        let at = place(value);
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let sign = if k > 0 && !is_distance { "+" } else { "" };
        let _ = writeln!(
            s,
            r##"<path d="M{x} {at:.1}h{width}" stroke="#e5e7eb"/><text x="{}" y="{:.1}" font-size="12" text-anchor="end" fill="#6b7280">{sign}{value:.digits$}</text>"##,
            x - 6.0,
            at + 4.0
        );
    }
    let step = round_step(frames as f64 / 4.0);
    for k in 0..=(frames as f64 / step) as i64 {
        let at = x + width * k as f64 * step / frames as f64;
        let _ = writeln!(
            s,
            r##"<text x="{at:.1}" y="{}" font-size="12" text-anchor="middle" fill="#6b7280">{}</text>"##,
            y + height + 16.0,
            k as f64 * step
        );
    }
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let mut path = String::new();
        let mut pen = 'M';
        for (at, value) in &line.0 {
            if value.is_finite() {
                let _ = write!(path, "{pen}{:.1} {:.1}", x + width * at, place(*value));
                pen = 'L';
            } else {
                pen = 'M';
            }
        }
        if !path.is_empty() {
            let _ = writeln!(s, r##"<path d="{path}" stroke="{colour}" stroke-width="1.6" fill="none"/>"##);
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|m| m * power).find(|s| *s >= least * 0.999).unwrap_or(10.0 * power)
}
