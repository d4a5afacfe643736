//! A bar chart of a report as SVG and PNG: a bar for each median, a whisker to p95, untimed rows in words.
use super::report::{Report, Status};
use anyhow::{Context, Result};
use resvg::{tiny_skia, usvg};
use std::fmt::Write;
use std::sync::Arc;

/// Room for the bars and what is written behind them.
const BARS: f64 = 520.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 84.0;
const ROW: f64 = 34.0;
const BAR: f64 = 20.0;
/// Most characters of a label to the left of the bars.
const LABEL: usize = 72;
/// Width of one of them on average.
const CHARACTER: f64 = 7.1;

/// The chart as SVG; its text is set in a sans-serif font.
pub fn svg(report: &Report) -> String {
    let largest =
        report.rows.iter().filter_map(|r| r.sequence.as_ref()).map(|s| s.p95.max(s.median)).fold(0.0, f64::max);
    let scale = if largest > 0.0 { BARS / largest } else { 0.0 };
    let label = report.rows.iter().map(|r| r.title().chars().count().min(LABEL)).max().unwrap_or(0);
    let left = 36.0 + CHARACTER * label as f64;
    let width = left + BARS + RIGHT;
    let height = TOP + ROW * report.rows.len() as f64 + 34.0;
    let w = &report.work;
    let mut s = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="24" y="34" font-size="19" fill="#111827">{}</text>
<text x="24" y="58" font-size="13" fill="#4b5563">{}</text>
"##,
        escape(&format!("{}: ms", super::present::work(w))),
        escape(&format!(
            "{}, {} threads; mirage {}",
            report.machine.cpu,
            report.machine.threads,
            report.build.program()
        )),
    );
    for (i, row) in report.rows.iter().enumerate() {
        let y = TOP + ROW * i as f64;
        let middle = y + BAR / 2.0;
        let _ = writeln!(
            s,
            r##"<text x="{}" y="{}" font-size="14" text-anchor="end" fill="#111827">{}</text>"##,
            left - 12.0,
            middle + 5.0,
            escape(&shorten(&row.title(), LABEL))
        );
        let Some(summary) = &row.sequence else {
            let why = match &row.status {
                Status::Timed | Status::NoCall => "not timed: ran no call".to_owned(),
                Status::Refused(why) => format!("refused: {why}"),
                Status::Wrong(why) => format!("wrong, not timed: {why}"),
            };
            let why = escape(&shorten(&why, 84));
            let _ =
                writeln!(s, r##"<text x="{left}" y="{}" font-size="13" fill="#6b7280">{why}</text>"##, middle + 5.0);
            continue;
        };
        let colour = if row.is_peer() { "#9ca3af" } else { "#2563eb" };
        let (length, tail) = (summary.median * scale, summary.p95 * scale);
        let end = left + length.max(tail) + 8.0;
        let speedup = report.none(i).and_then(|n| report.speedup(i, n));
        let speedup = speedup.map_or(String::new(), |v| format!("  ({v:.2} × none)"));
        let _ = writeln!(
            s,
            r##"<rect x="{left}" y="{y}" width="{length:.1}" height="{BAR}" rx="2" fill="{colour}"/>
<path d="M{:.1} {middle}H{:.1}M{:.1} {}v10" stroke="#111827" stroke-width="1.5" fill="none"/>
<text x="{end:.1}" y="{}" font-size="14" fill="#111827">{} ms{speedup}</text>"##,
            left + length,
            left + tail,
            left + tail,
            middle - 5.0,
            middle + 5.0,
            three_digits(summary.median)
        );
    }
    let foot = if w.weights == "formula" {
        super::present::RANDOM_WEIGHTS
    } else {
        "Bars are medians, whiskers reach to p95."
    };
    let _ =
        writeln!(s, r##"<text x="24" y="{}" font-size="12" fill="#6b7280">{}</text>"##, height - 14.0, escape(foot));
    s.push_str("</svg>\n");
    s
}

/// The chart as PNG, twice the size of the SVG, with a font of its own so that it looks the same everywhere.
///
/// # Errors
/// A report with so many rows that the picture cannot be made.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family = fonts.faces().next().and_then(|f| f.families.first().map(|(name, _)| name.clone()));
    fonts.set_sans_serif_family(family.context("the built-in font has no name")?);
    let options = usvg::Options { fontdb: Arc::new(fonts), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).context("the chart is not well formed")?;
    let size = tree.size().to_int_size().scale_by(2.0).context("the chart is too large")?;
    let mut pixels = tiny_skia::Pixmap::new(size.width(), size.height()).context("the chart is too large for a PNG")?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(2.0, 2.0), &mut pixels.as_mut());
    Ok(pixels.encode_png()?)
}

/// As many decimals as three digits need.
fn three_digits(value: f64) -> String {
    let decimals = (2.0 - value.abs().max(1e-3).log10().floor()).clamp(0.0, 5.0) as usize;
    format!("{value:.decimals$}")
}

fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Text as it may stand in an SVG.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::Row;
    use super::super::report::tests::{report, row};
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let texts = [15117.4, 271.24, 4.0, 0.0871].map(three_digits);
        assert_eq!(texts, ["15117", "271", "4.00", "0.0871"]);
    }

    #[test]
    fn a_chart_has_a_bar_for_each_timed_row_and_words_for_the_rest() {
        let refused = Row::untimed("a<b".into(), vec![], Status::Refused("no GPU".into()));
        let svg = svg(&report(vec![row("none", 10.0), row("+fp16", 5.0), refused]));
        assert_eq!(svg.matches("<rect x=").count(), 2);
        assert!(svg.contains("a&lt;b") && svg.contains("refused: no GPU") && svg.contains("(2.00 × none)"));
        let png = png(&svg).unwrap();
        let picture = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!(picture.height(), 2 * 220);
        let dark = picture.pixels().filter(|p| p.0[0] < 100 && p.0[2] < 100).count();
        assert!(dark > 2000, "text is drawn with the built-in font: {dark} dark pixels");
    }
}
