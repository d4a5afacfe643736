//! A contact sheet: what came in and what was drawn, a pair of rows for each input, a column for each frame shown.
use super::trace::{Still, Trace};
use crate::bench::chart::{self, escape};
use crate::media::Frame;
use anyhow::{Context, Result};
use image::imageops::{self, FilterType};
use image::{ImageFormat, RgbImage};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Cursor;

/// The longest side of a picture, in units of the drawing.
const LONGEST: f64 = 96.0;
/// Between pictures.
const GAP: f64 = 6.0;
/// Between the pairs of rows of two inputs.
const GROUP_GAP: f64 = 16.0;
/// Room for the names of inputs, and for the title and the numbers of frames.
const MARGIN: (f64, f64) = (104.0, 92.0);
/// [`chart::png`] draws at twice the size.
const SCALE: f64 = 2.0;

/// The sheet as PNG.
///
/// # Errors
/// A sheet that is too large to draw.
pub fn png(traces: &[Trace], title: &str) -> Result<Vec<u8>> {
    let numbers: BTreeSet<u64> = traces.iter().flat_map(|t| &t.stills).map(|s| s.number).collect();
    let first = traces.iter().find_map(|t| t.stills.first());
    let (width, height) = first.map_or((1.0, 1.0), |s| (f64::from(s.input.width), f64::from(s.input.height)));
    let (cell_width, cell_height) = (LONGEST * width / width.max(height), LONGEST * height / width.max(height));
    let column = |i: usize| MARGIN.0 + i as f64 * (cell_width + GAP);
    let row = |i: usize| MARGIN.1 + (i / 2) as f64 * GROUP_GAP + i as f64 * (cell_height + GAP);
    let sheet_width = column(numbers.len()).max(620.0) + 18.0;
    let sheet_height = row(2 * traces.len()) + 6.0;

    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{sheet_width:.0}" height="{sheet_height:.0}" font-family="sans-serif">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="24" y="34" font-size="19" fill="#111827">{}</text>
<text x="24" y="56" font-size="13" fill="#4b5563">Upper row of each pair: the input. Lower row: what was drawn, never reset.</text>
"##,
        escape(title)
    );
    for (i, number) in numbers.iter().enumerate() {
        let _ = writeln!(
            svg,
            r##"<text x="{}" y="{}" font-size="13" text-anchor="middle" fill="#4b5563">{number}</text>"##,
            column(i) + cell_width / 2.0,
            MARGIN.1 - 8.0
        );
    }
    for (i, trace) in traces.iter().enumerate() {
        let _ = writeln!(
            svg,
            r##"<text x="{}" y="{}" font-size="14" text-anchor="end" fill="#111827">{}</text>"##,
            MARGIN.0 - 12.0,
            row(2 * i + 1) - GAP / 2.0 + 5.0,
            escape(trace.name)
        );
    }
    svg.push_str("</svg>\n");

    let mut sheet = image::load_from_memory(&chart::png(&svg)?)?.to_rgb8();
    for (i, trace) in traces.iter().enumerate() {
        for Still { number, input, output } in &trace.stills {
            let x = column(numbers.range(..number).count());
            for (picture, y) in [(input, row(2 * i)), (output, row(2 * i + 1))] {
                let picture = scaled(picture, cell_width * SCALE, cell_height * SCALE)?;
                imageops::replace(&mut sheet, &picture, (x * SCALE) as i64, (y * SCALE) as i64);
            }
        }
    }
    let mut bytes = Cursor::new(vec![]);
    sheet.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

/// Enlarged pixels stay squares, so that lost detail is not mistaken for a filter's work.
fn scaled(frame: &Frame, width: f64, height: f64) -> Result<RgbImage> {
    let picture = RgbImage::from_raw(frame.width, frame.height, frame.rgb.clone()).context("a frame lacks pixels")?;
    let (width, height) = (width.round().max(1.0) as u32, height.round().max(1.0) as u32);
    let filter = if width >= frame.width { FilterType::Nearest } else { FilterType::Triangle };
    Ok(imageops::resize(&picture, width, height, filter))
}

#[cfg(test)]
mod tests {
    use super::super::inputs::Inputs;
    use super::super::subjects::Fault;
    use super::super::{Variant, curves, trace};
    use super::*;
    use candle_core::Device;

    #[test]
    fn both_pictures_show_every_input() {
        let inputs = Inputs { frames: 120, size: (32, 16), clip: &[], styles: None, device: &Device::Cpu };
        let run = |fault| {
            let scripts = inputs.scripts().unwrap();
            scripts.iter().map(|s| trace::run(&fault, Variant::Full, s, 0, &mut || ()).unwrap()).collect::<Vec<_>>()
        };
        let traces = run(Fault::Brightness(2.0));
        let sheet = image::load_from_memory(&png(&traces, "a <title>").unwrap()).unwrap().to_rgb8();
        assert_eq!(sheet.width(), 2 * 638);
        // the first input frame is in its place, as it is
        let corner = sheet.get_pixel(2 * 104, 2 * 92).0;
        assert_eq!(corner[..], traces[0].stills[0].input.rgb[..3]);

        let svg = curves::svg(&traces, "a <title>", "b & c");
        assert!(svg.contains("a &lt;title&gt;") && svg.contains("b &amp; c"));
        for trace in &traces {
            assert!(svg.contains(trace.name));
        }
        assert_eq!(svg.matches(r#"stroke-width="1.6""#).count(), 8 * traces.len());
        assert!(!svg.contains("NaN"));
        chart::png(&svg).unwrap();
        // a run that broke at once leaves pictures too
        let broken = run(Fault::NotFinite(0));
        png(&broken, "broken").unwrap();
        assert!(!curves::svg(&broken, "broken", "").contains("NaN"));
    }
}
