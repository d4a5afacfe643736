//! Any size to what a network takes, and back: with bars or by cutting, never by a stretch.
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::{Error, Frame, Result};

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
    let multiple = multiple.max(1);
    let round = |side: u32| (side.saturating_add(multiple / 2) / multiple * multiple).max(multiple);
    (round(width), round(height))
}

/// Where a source's picture lies in the picture that is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FitPlan {
    source: (u32, u32),
    target: (u32, u32),
    fit: Fit,
    /// Size of the picture inside the target: smaller than it where there are bars.
    picture: (u32, u32),
}

impl FitPlan {
    /// Plans for sources of one size; sizes are `(width, height)`, a side of zero counts as 1.
    pub fn new(source: (u32, u32), target: (u32, u32), fit: Fit) -> Self {
        let at_least_one = |size: (u32, u32)| (size.0.max(1), size.1.max(1));
        let (source, target) = (at_least_one(source), at_least_one(target));
        let picture = match fit {
            Fit::Letterbox => {
                let (across, down) = scales(source, target);
                let side = |side: u32, most: u32| ((f64::from(side) * across.min(down)).round() as u32).clamp(1, most);
                (side(source.0, target.0), side(source.1, target.1))
            }
            Fit::Crop => target,
        };
        Self { source, target, fit, picture }
    }

    /// Size of what [`restore`](Self::restore) gives: the target without its bars.
    pub fn restored_size(&self) -> (u32, u32) {
        self.picture
    }

    /// The source as the network takes it, resampled with a Lanczos filter of three lobes.
    ///
    /// # Errors
    /// [`Error::SizeChanged`] and [`Error::BadFrame`] for a frame that is not as planned for.
    pub fn apply(&self, frame: &Frame) -> Result<Frame> {
        check(frame, self.source)?;
        if self.source == self.target {
            return Ok(frame.clone());
        }
        let (width, height) = self.picture;
        let mut rgb = vec![0; width as usize * height as usize * 3];
        self.resample(frame, &mut rgb).ok_or_else(|| bad(frame))?;
        if self.picture != self.target {
            rgb = self.with_bars(&rgb);
        }
        Ok(Frame { width: self.target.0, height: self.target.1, rgb, timestamp: frame.timestamp })
    }

    /// What was drawn, without the bars.
    ///
    /// # Errors
    /// [`Error::SizeChanged`] and [`Error::BadFrame`] for a frame that has not the size of the target.
    pub fn restore(&self, drawn: &Frame) -> Result<Frame> {
        check(drawn, self.target)?;
        let ((width, height), (left, top)) = (self.picture, self.bars());
        let row = width as usize * 3;
        let rows = drawn.rgb.chunks_exact(self.target.0 as usize * 3).skip(top).take(height as usize);
        let rgb = rows.flat_map(|pixels| &pixels[left * 3..left * 3 + row]).copied().collect();
        Ok(Frame { width, height, rgb, timestamp: drawn.timestamp })
    }

    /// Fills `rgb`, of the picture's size; `None` if a buffer has not the size that it is said to have.
    fn resample(&self, frame: &Frame, rgb: &mut [u8]) -> Option<()> {
        let source = ImageRef::new(frame.width, frame.height, &frame.rgb, PixelType::U8x3).ok()?;
        let mut picture = Image::from_slice_u8(self.picture.0, self.picture.1, rgb, PixelType::U8x3).ok()?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
        let options = match self.fit {
            Fit::Letterbox => options,
            Fit::Crop => {
                // Cut from the source to a fraction of a pixel: whole pixels would stretch, and cutting after the
                // resampling would need memory without bound for a narrow source.
                let (across, down) = scales(self.source, self.target);
                let scale = across.max(down);
                let side = |target: u32, source: u32| (f64::from(target) / scale).min(f64::from(source));
                let (width, height) = (side(self.target.0, self.source.0), side(self.target.1, self.source.1));
                let (left, top) = (f64::from(self.source.0) - width, f64::from(self.source.1) - height);
                options.crop(left / 2.0, top / 2.0, width, height)
            }
        };
        Resizer::new().resize(&source, &mut picture, &options).ok()
    }

    fn with_bars(&self, rgb: &[u8]) -> Vec<u8> {
        let (row, (left, top)) = (self.picture.0 as usize * 3, self.bars());
        let stride = self.target.0 as usize * 3;
        let mut whole = vec![0; stride * self.target.1 as usize];
        for (line, pixels) in whole.chunks_exact_mut(stride).skip(top).zip(rgb.chunks_exact(row)) {
            line[left * 3..left * 3 + row].copy_from_slice(pixels);
        }
        whole
    }

    /// Width of the left bar and height of the upper one.
    fn bars(&self) -> (usize, usize) {
        (((self.target.0 - self.picture.0) / 2) as usize, ((self.target.1 - self.picture.1) / 2) as usize)
    }
}

/// How much larger the target is, across and down.
fn scales(source: (u32, u32), target: (u32, u32)) -> (f64, f64) {
    (f64::from(target.0) / f64::from(source.0), f64::from(target.1) / f64::from(source.1))
}

fn check(frame: &Frame, expected: (u32, u32)) -> Result<()> {
    let found = (frame.width, frame.height);
    if found != expected {
        return Err(Error::SizeChanged { path: "the stream".into(), frame: 1, expected, found });
    }
    let bytes = u64::from(found.0) * u64::from(found.1) * 3;
    if frame.rgb.len() as u64 != bytes { Err(bad(frame)) } else { Ok(()) }
}

fn bad(frame: &Frame) -> Error {
    let (width, height, bytes) = (frame.width, frame.height, frame.rgb.len());
    Error::BadFrame { path: "the stream".into(), frame: 1, width, height, bytes }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn grey(width: u32, height: u32, value: impl Fn(u32, u32) -> u8) -> Frame {
        let at = |i: u32| value(i % width, i / width);
        Frame { width, height, rgb: (0..width * height).flat_map(|i| [at(i); 3]).collect(), timestamp: Duration::ZERO }
    }

    /// White on black, a disc of this radius in the middle.
    fn disc(width: u32, height: u32, radius: f64) -> Frame {
        let inside = |x: u32, y: u32| {
            let (dx, dy) = (f64::from(x) + 0.5 - f64::from(width) / 2.0, f64::from(y) + 0.5 - f64::from(height) / 2.0);
            dx.hypot(dy) < radius
        };
        grey(width, height, |x, y| if inside(x, y) { 255 } else { 0 })
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
            for (source, target) in
                [((320, 180), (64, 64)), ((100, 300), (128, 64)), ((510, 370), (512, 512)), ((51, 37), (64, 64))]
            {
                let frame = disc(source.0, source.1, f64::from(source.0.min(source.1)) / 4.0);
                let plan = FitPlan::new(source, target, fit);
                let fitted = plan.apply(&frame).unwrap();
                assert_eq!((fitted.width, fitted.height), target);
                let (w, h) = extent(&fitted);
                assert!(w.abs_diff(h) <= 1, "{fit:?} {source:?} to {target:?}: {w}x{h}");
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
    fn what_is_cropped_is_the_middle() {
        // Black, white and black thirds: cropped to the middle third, all is white but for the filter's edges.
        let frame = grey(96, 32, |x, _| if (32..64).contains(&x) { 255 } else { 0 });
        let plan = FitPlan::new((96, 32), (64, 64), Fit::Crop);
        let fitted = plan.apply(&frame).unwrap();
        assert_eq!(plan.restore(&fitted).unwrap(), fitted);
        assert!((0..64 * 64).all(|i| !(4..60).contains(&(i % 64)) || fitted.rgb[i * 3] > 250));
    }

    #[test]
    fn placement_is_undone_exactly() {
        for (source, target) in [((7, 5), (64, 48)), ((5, 7), (64, 48)), ((300, 2), (33, 17)), ((64, 36), (64, 64))] {
            let plan = FitPlan::new(source, target, Fit::Letterbox);
            let (width, height) = plan.restored_size();
            let drawn = grey(target.0, target.1, |x, y| (x * 3 + y * 7) as u8);
            let restored = plan.restore(&drawn).unwrap();
            let (left, top) = ((target.0 - width) / 2, (target.1 - height) / 2);
            assert_eq!(restored, grey(width, height, |x, y| ((x + left) * 3 + (y + top) * 7) as u8));
            // Every pixel of the picture comes from the source, every other is black.
            let white = plan.apply(&grey(source.0, source.1, |_, _| 255)).unwrap();
            assert!(plan.restore(&white).unwrap().rgb.iter().all(|v| *v == 255));
            assert_eq!(white.rgb.iter().filter(|v| **v == 255).count(), (width * height * 3) as usize);
        }
    }

    #[test]
    fn the_same_size_is_left_as_it_is() {
        let frame = disc(64, 48, 9.0);
        let plan = FitPlan::new((64, 48), (64, 48), Fit::Letterbox);
        assert_eq!(plan.restore(&plan.apply(&frame).unwrap()).unwrap(), frame);
    }

    #[test]
    fn extreme_sizes_work_and_wrong_ones_are_refused() {
        for source in [(1, 1), (1, 8192), (8192, 1), (0, 0)] {
            for fit in [Fit::Letterbox, Fit::Crop] {
                let plan = FitPlan::new(source, (32, 16), fit);
                let frame = disc(source.0.max(1), source.1.max(1), 1.0);
                let drawn = plan.restore(&plan.apply(&frame).unwrap()).unwrap();
                assert_eq!((drawn.width, drawn.height), plan.restored_size());
            }
        }
        let plan = FitPlan::new((8, 8), (16, 16), Fit::Crop);
        assert!(matches!(plan.apply(&disc(9, 8, 1.0)), Err(Error::SizeChanged { .. })));
        let short = Frame { rgb: vec![0; 5], ..disc(8, 8, 1.0) };
        assert!(matches!(plan.apply(&short), Err(Error::BadFrame { .. })));
        // The widest crop of the narrowest source needs no more memory than the target.
        let wide = FitPlan::new((1, 8192), (8192, 16), Fit::Crop).apply(&disc(1, 8192, 1.0)).unwrap();
        assert_eq!((wide.width, wide.height), (8192, 16));
    }

    #[test]
    fn sizes_round_to_what_the_network_takes() {
        assert_eq!(network_size((1920, 1080), 16, 512, None), (512, 288));
        assert_eq!(network_size((100, 60), 16, 512, None), (96, 64));
        assert_eq!(network_size((3, 3), 16, 512, None), (16, 16));
        assert_eq!(network_size((8192, 1), 16, 512, None), (512, 16));
        assert_eq!(network_size((3, 3), 0, 512, Some((u32::MAX, 5))), (u32::MAX, 5));
        assert_eq!(network_size((1920, 1080), 16, 512, Some((250, 140))), (256, 144));
    }
}
