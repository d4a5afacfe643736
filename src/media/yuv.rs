//! RGB from planar YUV and back: BT.601 or BT.709, limited or full range, with chroma where its siting says it is.
//!
//! Constants are those of ITU-R BT.601-7 and BT.709-6. Chroma is interpolated linearly between its sites, and
//! averaged over the pixels that share a sample when it is made.
use rayon::prelude::*;

/// Which weights of red and blue make luma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matrix {
    Bt601,
    Bt709,
}

impl Matrix {
    /// What players assume of a stream that does not say: BT.601 below 720 rows, BT.709 from there on.
    pub fn for_height(height: u32) -> Self {
        if height < 720 { Self::Bt601 } else { Self::Bt709 }
    }

    /// The weights of red and blue.
    fn weights(self) -> (f32, f32) {
        match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
        }
    }
}

/// Which values stand for black and white.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// 16 to 235 for luma, 16 to 240 for chroma.
    Limited,
    /// 0 to 255.
    Full,
}

/// How many chroma samples there are, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sampling {
    /// No chroma planes.
    Grey,
    /// One sample for two by two pixels, in their middle (JPEG, MPEG-1).
    C420Centre,
    /// The same, in the middle of the left edge (MPEG-2 and later).
    C420Left,
    /// The same, on the upper left pixel (PAL DV).
    C420TopLeft,
    /// One sample for two pixels of a row, on the left one.
    C422,
    /// One sample a pixel.
    C444,
}

impl Sampling {
    /// Across and down: whether chroma is halved, and if so whether a sample lies between two pixels.
    fn axes(self) -> [Axis; 2] {
        match self {
            Self::Grey | Self::C444 => [Axis::Every, Axis::Every],
            Self::C420Centre => [Axis::Between, Axis::Between],
            Self::C420Left => [Axis::On, Axis::Between],
            Self::C420TopLeft => [Axis::On, Axis::On],
            Self::C422 => [Axis::On, Axis::Every],
        }
    }
}

#[derive(Clone, Copy)]
enum Axis {
    /// A sample for every pixel.
    Every,
    /// A sample on every other pixel, from the first.
    On,
    /// A sample between each two pixels.
    Between,
}

/// For a pixel: the two samples around it and the weight of the second.
type Tap = (usize, usize, f32);

impl Axis {
    fn samples(self, pixels: usize) -> usize {
        match self {
            Self::Every => pixels,
            Self::On | Self::Between => pixels.div_ceil(2),
        }
    }

    fn taps(self, pixels: usize) -> Vec<Tap> {
        let last = self.samples(pixels).saturating_sub(1);
        let tap = |pixel: usize| {
            let (half, odd) = (pixel / 2, pixel % 2 == 1);
            match self {
                Self::Every => (pixel, pixel, 0.0),
                Self::On if odd => (half, (half + 1).min(last), 0.5),
                Self::On => (half, half, 0.0),
                Self::Between if odd => (half, (half + 1).min(last), 0.25),
                Self::Between => (half.saturating_sub(1), half, 0.75),
            }
        };
        (0..pixels).map(tap).collect()
    }
}

/// The layout and meaning of a frame's planes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub width: usize,
    pub height: usize,
    pub sampling: Sampling,
    /// Bits a sample; above 8 a sample is two bytes, the low one first.
    pub depth: u32,
    pub matrix: Matrix,
    pub range: Range,
}

/// Turns planes of one layout into RGB.
pub(super) struct ToRgb {
    layout: Layout,
    across: Vec<Tap>,
    down: Vec<Tap>,
    chroma_width: usize,
}

impl ToRgb {
    pub fn new(layout: Layout) -> Self {
        let [across, down] = layout.sampling.axes();
        Self {
            layout,
            across: across.taps(layout.width),
            down: down.taps(layout.height),
            chroma_width: across.samples(layout.width),
        }
    }

    /// `height * width * 3` bytes of RGB. The planes are as long as the layout says; the chroma planes of grey are empty.
    pub fn convert(&self, [y_plane, u_plane, v_plane]: [&[u8]; 3]) -> Vec<u8> {
        let Layout { width, height, sampling, depth, matrix, range } = self.layout;
        let (red, blue) = matrix.weights();
        let green = 1.0 - red - blue;
        let unit = (1u32 << (depth - 8)) as f32;
        let full = ((1u32 << depth) - 1) as f32;
        let (y_zero, y_scale, c_scale) = match range {
            Range::Limited => (16.0 * unit, 255.0 / (219.0 * unit), 255.0 / (224.0 * unit)),
            Range::Full => (0.0, 255.0 / full, 255.0 / full),
        };
        let c_zero = 128.0 * unit;
        let red_v = 2.0 * (1.0 - red) * c_scale;
        let blue_u = 2.0 * (1.0 - blue) * c_scale;
        let green_u = 2.0 * blue * (1.0 - blue) / green * c_scale;
        let green_v = 2.0 * red * (1.0 - red) / green * c_scale;

        let mut rgb = vec![0; width * height * 3];
        let chroma = |plane: &[u8], (above, below, weight): Tap, samples: &mut Vec<f32>, row: &mut Vec<f32>| {
            samples.clear();
            samples.extend((0..self.chroma_width).map(|x| {
                let (a, b) = (
                    self.sample(plane, above * self.chroma_width + x),
                    self.sample(plane, below * self.chroma_width + x),
                );
                a + (b - a) * weight - c_zero
            }));
            row.clear();
            row.extend(
                self.across
                    .iter()
                    .map(|&(left, right, weight)| samples[left] + (samples[right] - samples[left]) * weight),
            );
        };
        rgb.par_chunks_mut(width * 3).enumerate().for_each_init(
            || (Vec::new(), vec![0.0; width], vec![0.0; width]),
            |(samples, u_row, v_row), (row, out)| {
                if sampling != Sampling::Grey {
                    chroma(u_plane, self.down[row], samples, u_row);
                    chroma(v_plane, self.down[row], samples, v_row);
                }
                for (x, pixel) in out.chunks_exact_mut(3).enumerate() {
                    let (u, v) = (u_row[x], v_row[x]);
                    let y = (self.sample(y_plane, row * width + x) - y_zero) * y_scale;
                    // A cast from float saturates at 0 and 255.
                    pixel[0] = (y + red_v * v + 0.5) as u8;
                    pixel[1] = (y - green_u * u - green_v * v + 0.5) as u8;
                    pixel[2] = (y + blue_u * u + 0.5) as u8;
                }
            },
        );
        rgb
    }

    fn sample(&self, plane: &[u8], index: usize) -> f32 {
        if self.layout.depth == 8 {
            f32::from(plane[index])
        } else {
            f32::from(u16::from_le_bytes([plane[2 * index], plane[2 * index + 1]]))
        }
    }
}

/// The three planes, one after another, of 8-bit 4:2:0 with centred chroma in limited range:
/// `height * width` bytes of luma, then twice half of each side, rounded up.
pub(super) fn to_420(rgb: &[u8], width: usize, height: usize, matrix: Matrix) -> Vec<u8> {
    let (red, blue) = matrix.weights();
    let green = 1.0 - red - blue;
    let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
    let mut planes = vec![0; width * height + 2 * half_width * half_height];
    let (y_plane, chroma) = planes.split_at_mut(width * height);
    let (u_plane, v_plane) = chroma.split_at_mut(half_width * half_height);
    let luma = |r: f32, g: f32, b: f32| red * r + green * g + blue * b;
    y_plane.par_chunks_mut(width).zip(rgb.par_chunks(width * 3)).for_each(|(ys, pixels)| {
        for (y, pixel) in ys.iter_mut().zip(pixels.chunks_exact(3)) {
            let value = luma(pixel[0].into(), pixel[1].into(), pixel[2].into());
            *y = (16.5 + value * (219.0 / 255.0)) as u8;
        }
    });
    let rows = u_plane.par_chunks_mut(half_width).zip(v_plane.par_chunks_mut(half_width));
    rows.enumerate().for_each(|(row, (us, vs))| {
        for (column, (u, v)) in us.iter_mut().zip(vs).enumerate() {
            let (mut sum, mut count) = ([0.0f32; 3], 0.0);
            for y in 2 * row..(2 * row + 2).min(height) {
                for x in 2 * column..(2 * column + 2).min(width) {
                    let at = (y * width + x) * 3;
                    for (total, &value) in sum.iter_mut().zip(&rgb[at..at + 3]) {
                        *total += f32::from(value);
                    }
                    count += 1.0;
                }
            }
            let [r, g, b] = sum.map(|total| total / count);
            let y = luma(r, g, b);
            let scale = 224.0 / 255.0 / 2.0;
            *u = (128.5 + (b - y) / (1.0 - blue) * scale) as u8;
            *v = (128.5 + (r - y) / (1.0 - red) * scale) as u8;
        }
    });
    planes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(width: usize, height: usize, sampling: Sampling, matrix: Matrix, range: Range) -> Layout {
        Layout { width, height, sampling, depth: 8, matrix, range }
    }

    fn one(yuv: [u8; 3], matrix: Matrix, range: Range) -> [u8; 3] {
        let rgb = ToRgb::new(layout(1, 1, Sampling::C444, matrix, range)).convert([&yuv[..1], &yuv[1..2], &yuv[2..]]);
        [rgb[0], rgb[1], rgb[2]]
    }

    #[test]
    fn known_colours() {
        use Matrix::{Bt601, Bt709};
        use Range::{Full, Limited};
        // 8-bit code values of the colour bars, from the two recommendations and from JFIF.
        for (yuv, matrix, range, rgb) in [
            ([16, 128, 128], Bt601, Limited, [0, 0, 0]),
            ([235, 128, 128], Bt709, Limited, [255, 255, 255]),
            ([81, 90, 240], Bt601, Limited, [255, 0, 0]),
            ([145, 54, 34], Bt601, Limited, [0, 255, 0]),
            ([41, 240, 110], Bt601, Limited, [0, 0, 255]),
            ([63, 102, 240], Bt709, Limited, [255, 0, 0]),
            ([173, 42, 26], Bt709, Limited, [0, 255, 0]),
            ([32, 240, 118], Bt709, Limited, [0, 0, 255]),
            ([76, 85, 255], Bt601, Full, [255, 0, 0]),
            ([255, 128, 128], Bt601, Full, [255, 255, 255]),
        ] {
            let found = one(yuv, matrix, range);
            for channel in 0..3 {
                assert!(
                    found[channel].abs_diff(rgb[channel]) <= 2,
                    "{yuv:?} {matrix:?} {range:?}: {found:?}, not {rgb:?}"
                );
            }
        }
        assert_eq!(one([0, 128, 128], Bt601, Limited), [0; 3], "below black");
        assert_eq!(one([255, 255, 255], Bt601, Limited)[0], 255, "above white");
    }

    #[test]
    fn ten_bits_mean_the_same_as_eight() {
        for (y, u, v) in [(16u16, 128u16, 128u16), (81, 90, 240), (145, 54, 34), (200, 100, 150)] {
            let wide = |value: u16| (value << 2).to_le_bytes();
            let eight = one([y as u8, u as u8, v as u8], Matrix::Bt709, Range::Limited);
            let mut layout = layout(1, 1, Sampling::C444, Matrix::Bt709, Range::Limited);
            layout.depth = 10;
            assert_eq!(ToRgb::new(layout).convert([&wide(y), &wide(u), &wide(v)]), eight);
        }
    }

    #[test]
    fn chroma_lies_where_its_siting_says() {
        // A ramp of chroma that is linear in position stays linear, shifted by the siting. In grey range units of u,
        // blue rises by 2 * (1 - 0.114) = 1.772 a step.
        let blue = |sampling: Sampling, width: usize, u: &[u8]| -> Vec<f32> {
            let rgb = ToRgb::new(layout(width, 1, sampling, Matrix::Bt601, Range::Full)).convert([
                &vec![128; width],
                u,
                &vec![128; u.len()],
            ]);
            rgb.chunks_exact(3).map(|p| (f32::from(p[2]) - 128.0) / 1.772).collect()
        };
        let near = |found: Vec<f32>, expected: &[f32]| {
            assert_eq!(found.len(), expected.len());
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e).abs() < 0.5, "{found:?}, not {expected:?}");
            }
        };
        let u = [128, 136, 144];
        near(blue(Sampling::C420Left, 6, &u), &[0.0, 4.0, 8.0, 12.0, 16.0, 16.0]);
        near(blue(Sampling::C422, 5, &u), &[0.0, 4.0, 8.0, 12.0, 16.0]);
        near(blue(Sampling::C420Centre, 6, &u), &[0.0, 2.0, 6.0, 10.0, 14.0, 16.0]);
        near(blue(Sampling::C444, 3, &u), &[0.0, 8.0, 16.0]);
    }

    #[test]
    fn rows_are_sited_too() {
        let red = |sampling: Sampling| -> Vec<u8> {
            let rgb = ToRgb::new(layout(1, 4, sampling, Matrix::Bt601, Range::Full)).convert([
                &[100; 4],
                &[128; 2],
                &[128, 148],
            ]);
            rgb.chunks_exact(3).map(|p| p[0]).collect()
        };
        assert_eq!(red(Sampling::C420Left), [100, 107, 121, 128]);
        assert_eq!(red(Sampling::C420TopLeft), [100, 114, 128, 128]);
    }

    #[test]
    fn there_and_back() {
        for (width, height) in [(1, 1), (2, 2), (3, 5), (17, 9)] {
            for matrix in [Matrix::Bt601, Matrix::Bt709] {
                for colour in [[0, 0, 0], [255; 3], [255, 0, 0], [10, 200, 90], [0, 0, 255]] {
                    let rgb = colour.repeat(width * height);
                    let planes = to_420(&rgb, width, height, matrix);
                    let chroma = width.div_ceil(2) * height.div_ceil(2);
                    assert_eq!(planes.len(), width * height + 2 * chroma);
                    let (y, uv) = planes.split_at(width * height);
                    let (u, v) = uv.split_at(chroma);
                    let back = ToRgb::new(layout(width, height, Sampling::C420Centre, matrix, Range::Limited))
                        .convert([y, u, v]);
                    assert!(back.iter().zip(&rgb).all(|(a, b)| a.abs_diff(*b) <= 2), "{colour:?} {matrix:?}");
                }
            }
        }
    }

    #[test]
    fn grey_has_no_chroma() {
        let grey = ToRgb::new(layout(2, 1, Sampling::Grey, Matrix::Bt601, Range::Full));
        assert_eq!(grey.convert([&[7, 200], &[], &[]]), [7, 7, 7, 200, 200, 200]);
    }
}
