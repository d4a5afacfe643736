//! Any size to what a network takes, and back: with bars or by cutting, never by a stretch.
use super::{Error, Frame, Result};
use image::imageops::{self, FilterType};
use image::{ImageBuffer, Rgb, RgbImage};
use std::time::Duration;

/// What to do with a picture of another aspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The whole picture, with black bars around it that are cut off again afterwards.
    Letterbox,
    /// The whole area, with what stands over cut off.
    Crop,
}

/// The size to draw at, `(width, height)`: the wanted one, or the source's own with its longest side at most `longest`;
/// both sides rounded to multiples of `multiple`, at least one.
pub fn network_size(source: (u32, u32), multiple: u32, longest: u32, wanted: Option<(u32, u32)>) -> (u32, u32) {
    let (width, height) = wanted.unwrap_or_else(|| {
        let scale = (f64::from(longest) / f64::from(source.0.max(source.1))).min(1.0);
        ((f64::from(source.0) * scale).round() as u32, (f64::from(source.1) * scale).round() as u32)
    });
    let round = |side: u32| ((side + multiple / 2) / multiple * multiple).max(multiple);
    (round(width), round(height))
}

/// Where a source's picture lies in the picture that is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FitPlan {
    source: (u32, u32),
    target: (u32, u32),
    fit: Fit,
    /// Size of the scaled source: inside the target with bars, around it when cropped.
    scaled: (u32, u32),
}

impl FitPlan {
    /// Plans for sources of one size; sizes are `(width, height)`, no side zero.
    pub fn new(source: (u32, u32), target: (u32, u32), fit: Fit) -> Self {
        let across = f64::from(target.0) / f64::from(source.0.max(1));
        let down = f64::from(target.1) / f64::from(source.1.max(1));
        let scale = match fit {
            Fit::Letterbox => across.min(down),
            Fit::Crop => across.max(down),
        };
        let side = |source: u32, target: u32| {
            let scaled = (f64::from(source) * scale).round() as u32;
            match fit {
                Fit::Letterbox => scaled.clamp(1, target),
                Fit::Crop => scaled.max(target),
            }
        };
        Self { source, target, fit, scaled: (side(source.0, target.0), side(source.1, target.1)) }
    }

    /// Size of what [`restore`](Self::restore) gives: the target without its bars.
    pub fn restored_size(&self) -> (u32, u32) {
        match self.fit {
            Fit::Letterbox => self.scaled,
            Fit::Crop => self.target,
        }
    }

    /// The source as the network takes it.
    ///
    /// # Errors
    /// A frame of another size than planned for.
    pub fn apply(&self, frame: &Frame) -> Result<Frame> {
        let picture = picture(frame, self.source)?;
        let picture = if self.scaled == self.source {
            picture
        } else {
            // what is cut off need not be scaled first, but the filter must see across the cut
            imageops::resize(&picture, self.scaled.0, self.scaled.1, FilterType::CatmullRom)
        };
        let picture = match self.fit {
            _ if self.scaled == self.target => picture,
            Fit::Letterbox => {
                let mut whole: RgbImage = ImageBuffer::from_pixel(self.target.0, self.target.1, Rgb([0, 0, 0]));
                let (x, y) = self.bars();
                imageops::replace(&mut whole, &picture, x.into(), y.into());
                whole
            }
            Fit::Crop => {
                let (x, y) = ((self.scaled.0 - self.target.0) / 2, (self.scaled.1 - self.target.1) / 2);
                imageops::crop_imm(&picture, x, y, self.target.0, self.target.1).to_image()
            }
        };
        Ok(into_frame(picture, frame.timestamp))
    }

    /// What was drawn, without the bars.
    ///
    /// # Errors
    /// A frame of another size than the target.
    pub fn restore(&self, drawn: &Frame) -> Result<Frame> {
        let (width, height) = self.restored_size();
        let picture = picture(drawn, self.target)?;
        if (width, height) == self.target {
            return Ok(into_frame(picture, drawn.timestamp));
        }
        let (x, y) = self.bars();
        Ok(into_frame(imageops::crop_imm(&picture, x, y, width, height).to_image(), drawn.timestamp))
    }

    /// Width of the left bar and height of the upper one.
    fn bars(&self) -> (u32, u32) {
        ((self.target.0 - self.scaled.0) / 2, (self.target.1 - self.scaled.1) / 2)
    }
}

fn picture(frame: &Frame, expected: (u32, u32)) -> Result<RgbImage> {
    let found = (frame.width, frame.height);
    let picture = (found == expected).then(|| RgbImage::from_raw(frame.width, frame.height, frame.rgb.clone()));
    picture.flatten().ok_or(Error::SizeChanged { path: "the stream".into(), frame: 1, expected, found })
}

fn into_frame(picture: RgbImage, timestamp: Duration) -> Frame {
    Frame { width: picture.width(), height: picture.height(), rgb: picture.into_raw(), timestamp }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// White on black, a disc of this radius in the middle.
    fn disc(width: u32, height: u32, radius: f64) -> Frame {
        let inside = |x: u32, y: u32| {
            let (dx, dy) = (f64::from(x) + 0.5 - f64::from(width) / 2.0, f64::from(y) + 0.5 - f64::from(height) / 2.0);
            dx.hypot(dy) < radius
        };
        let picture = RgbImage::from_fn(width, height, |x, y| Rgb([if inside(x, y) { 255 } else { 0 }; 3]));
        into_frame(picture, Duration::ZERO)
    }

    /// Width and height of what is white.
    fn extent(frame: &Frame) -> (u32, u32) {
        let white: Vec<(u32, u32)> = (0..frame.width * frame.height)
            .filter(|i| frame.rgb[3 * *i as usize] > 127)
            .map(|i| (i % frame.width, i / frame.width))
            .collect();
        let span = |f: fn(&(u32, u32)) -> u32| {
            let (min, max) = (white.iter().map(f).min().unwrap(), white.iter().map(f).max().unwrap());
            max - min + 1
        };
        (span(|p| p.0), span(|p| p.1))
    }

    #[test]
    fn a_circle_stays_a_circle() {
        for fit in [Fit::Letterbox, Fit::Crop] {
            for (source, target) in [((320, 180), (64, 64)), ((100, 300), (128, 64)), ((51, 37), (512, 512))] {
                let frame = disc(source.0, source.1, f64::from(source.0.min(source.1)) / 4.0);
                let plan = FitPlan::new(source, target, fit);
                let fitted = plan.apply(&frame).unwrap();
                assert_eq!((fitted.width, fitted.height), target);
                let (w, h) = extent(&fitted);
                let allowed = 1 + w.max(h) / 40;
                assert!(w.abs_diff(h) <= allowed, "{fit:?} {source:?} to {target:?}: {w}x{h}");
            }
        }
    }

    #[test]
    fn bars_are_black_and_come_off_again() {
        let white = Frame { width: 160, height: 90, rgb: vec![255; 160 * 90 * 3], timestamp: Duration::ZERO };
        let plan = FitPlan::new((160, 90), (64, 64), Fit::Letterbox);
        let fitted = plan.apply(&white).unwrap();
        assert_eq!(fitted.rgb[..3], [0, 0, 0]);
        let restored = plan.restore(&fitted).unwrap();
        assert_eq!((restored.width, restored.height), (64, 36));
        assert!(restored.rgb.iter().all(|v| *v == 255));
    }

    #[test]
    fn the_same_size_is_left_as_it_is() {
        let frame = disc(64, 48, 9.0);
        let plan = FitPlan::new((64, 48), (64, 48), Fit::Letterbox);
        assert_eq!(plan.restore(&plan.apply(&frame).unwrap()).unwrap(), frame);
    }

    #[test]
    fn extreme_sizes_work_and_wrong_ones_are_refused() {
        for source in [(1, 1), (1, 4000), (4000, 1)] {
            for fit in [Fit::Letterbox, Fit::Crop] {
                let plan = FitPlan::new(source, (32, 16), fit);
                let frame = disc(source.0, source.1, 1.0);
                let drawn = plan.restore(&plan.apply(&frame).unwrap()).unwrap();
                assert_eq!((drawn.width, drawn.height), plan.restored_size());
            }
        }
        assert!(FitPlan::new((8, 8), (16, 16), Fit::Crop).apply(&disc(9, 8, 1.0)).is_err());
    }

    #[test]
    fn sizes_round_to_what_the_network_takes() {
        assert_eq!(network_size((1920, 1080), 16, 512, None), (512, 288));
        assert_eq!(network_size((100, 60), 16, 512, None), (96, 64));
        assert_eq!(network_size((3, 3), 16, 512, None), (16, 16));
        assert_eq!(network_size((1920, 1080), 16, 512, Some((250, 140))), (256, 144));
    }
}
