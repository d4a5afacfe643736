//! A moving clip that needs no file: hills under a sky that changes, a panning camera, balloons that drift by.
use std::f64::consts::TAU;

use super::frame::MAX_SIDE;
use super::{Frame, FrameRate, FrameReader, Result, VideoInfo};

/// How many balloons drift by.
const BALLOONS: u64 = 5;
/// How near the three ranges of hills are: near ones pass faster.
const DEPTHS: [f64; 3] = [0.35, 0.7, 1.4];
/// Colours of the ranges in red, green and blue, from 0 to 1.
const TINTS: [[f32; 3]; 3] = [[0.45, 0.52, 0.66], [0.25, 0.42, 0.38], [0.16, 0.27, 0.14]];
/// Furrows on the hills: how many radians from the top of the picture to its bottom, and how strong.
const FURROWS: (f64, f32) = (90.0, 0.06);
/// Centre and radius of the sun; lengths here and below are in heights of the picture.
const SUN: ([f32; 2], f32) = ([1.2, 0.22], 0.07);

/// The built-in clip, the same for the same seed, drawn frame by frame at any size.
pub struct TestClip {
    info: VideoInfo,
    seed: u64,
    next: u64,
}

impl TestClip {
    /// A clip of this size, its sides brought between 1 and [`MAX_SIDE`]; without a number of frames it never ends.
    pub fn new(width: u32, height: u32, frame_rate: FrameRate, frames: Option<u64>, seed: u64) -> Self {
        let (width, height) = (width.clamp(1, MAX_SIDE), height.clamp(1, MAX_SIDE));
        let info = VideoInfo { width, height, frame_rate, frames, has_audio: false };
        Self { info, seed, next: 0 }
    }

    /// Time is in f64, so that an endless clip moves smoothly after days too.
    fn draw(&self, seconds: f64) -> Vec<u8> {
        let (width, height) = (self.info.width as usize, self.info.height as usize);
        let scale = 1.0 / height as f32;
        let day = (0.5 + 0.5 * (seconds * 0.25).sin()) as f32;
        let columns: Vec<Column> =
            (0..width).map(|x| Column::new(self.seed, x as f64 / height as f64, seconds)).collect();
        let mut rgb = vec![0; width * height * 3];
        for (y, row) in rgb.chunks_exact_mut(3 * width).enumerate() {
            let v = (y as f32 + 0.5) * scale;
            let row_wave = (f64::from(v) * FURROWS.0).sin_cos();
            let row_wave = (row_wave.0 as f32, row_wave.1 as f32);
            let sky = mix([0.98, 0.72 + 0.1 * day, 0.50 + 0.3 * day], [0.22, 0.42 + 0.1 * day, 0.78], 1.0 - v * 1.3);
            let sees_sun = (v - SUN.0[1]).abs() < SUN.1 + 0.02;
            for (x, (pixel, column)) in row.chunks_exact_mut(3).zip(&columns).enumerate() {
                let behind = if sees_sun { with_sun(sky, (x as f32 + 0.5) * scale, v) } else { sky };
                put(pixel, column.over(behind, v, row_wave, 0.75 + 0.35 * day));
            }
        }
        for index in 0..BALLOONS {
            Balloon::new(self.seed, index, seconds).draw(&mut rgb, width, height);
        }
        rgb
    }
}

fn with_sun(sky: [f32; 3], u: f32, v: f32) -> [f32; 3] {
    let distance = (u - SUN.0[0]).hypot(v - SUN.0[1]);
    mix(sky, [1.0, 0.95, 0.75], 1.0 - (distance - SUN.1) * 60.0)
}

/// The ranges of hills in one column of the picture.
struct Column {
    /// Where each begins, downwards.
    tops: [f32; 3],
    /// Sine and cosine of the furrows' phase: with those of the row they give the furrow without a sine per pixel.
    waves: [(f32, f32); 3],
}

impl Column {
    fn new(seed: u64, u: f64, seconds: f64) -> Self {
        let phase = hash(seed, 99) * TAU;
        let tops = DEPTHS.map(|depth| {
            let place = u * 2.0 + seconds * 0.12 * depth + depth * 7.0 + phase;
            let shape = (place * 1.3).sin() * 0.5 + (place * 2.9 + 1.0).sin() * 0.25 + (place * 6.1).sin() * 0.08;
            0.62 - 0.08 * shape + 0.14 * (depth - 0.35)
        });
        let mut waves = [(0.0, 0.0); 3];
        for ((wave, top), depth) in waves.iter_mut().zip(tops).zip(DEPTHS) {
            // The furrows lie on the hill and pass as fast as it does.
            let (sine, cosine) = ((u + seconds * 0.06 * depth) * 14.0 - top * FURROWS.0).sin_cos();
            *wave = (sine as f32, cosine as f32);
        }
        Self { tops: tops.map(|top| top as f32), waves }
    }

    /// The hills at height `v`, over what is behind them.
    fn over(&self, behind: [f32; 3], v: f32, row: (f32, f32), light: f32) -> [f32; 3] {
        let covered = |i: usize| (v - self.tops[i]) * 220.0;
        // What a nearer hill covers whole need not be drawn.
        let first = (0..3).rev().find(|i| covered(*i) >= 1.0).unwrap_or(0);
        let mut colour = behind;
        for (i, tint) in TINTS.iter().enumerate().skip(first) {
            let share = covered(i);
            if share > 0.0 {
                let (sine, cosine) = self.waves[i];
                let shade = light + FURROWS.1 * (row.0 * cosine + row.1 * sine);
                colour = mix(colour, tint.map(|part| part * shade), share);
            }
        }
        colour
    }
}

/// A striped balloon.
struct Balloon {
    centre: [f32; 2],
    radius: f32,
    colours: [[f32; 3]; 2],
    turn: f32,
}

impl Balloon {
    fn new(seed: u64, index: u64, seconds: f64) -> Self {
        let random = |k: u64| hash(seed, index * 16 + k);
        let speed = 0.06 + 0.10 * random(0);
        let x = (random(1) * 2.4 + seconds * speed).rem_euclid(2.4) - 0.3;
        let y = 0.22 + 0.3 * random(2) + 0.05 * (seconds * (0.5 + random(3)) + random(4) * TAU).sin();
        let hue = random(5);
        let colour = |shift: f64| [0.0, 0.33, 0.67].map(|c| (0.55 + 0.42 * ((hue + shift + c) * TAU).cos()) as f32);
        Self {
            centre: [x as f32, y as f32],
            radius: (0.05 + 0.06 * random(6)) as f32,
            colours: [colour(0.0), colour(0.35)],
            turn: (seconds * (0.4 + random(7))).rem_euclid(TAU) as f32,
        }
    }

    fn draw(&self, rgb: &mut [u8], width: usize, height: usize) {
        let scale = height as f32;
        // A cast brings what lies outside to the edge.
        let span = |centre: f32, most: usize| {
            let begin = ((centre - self.radius) * scale - 1.0) as usize;
            let end = ((centre + self.radius) * scale + 2.0) as usize;
            begin.min(most)..end.min(most)
        };
        for y in span(self.centre[1], height) {
            for x in span(self.centre[0], width) {
                let (u, v) = ((x as f32 + 0.5) / scale, (y as f32 + 0.5) / scale);
                let pixel = &mut rgb[(y * width + x) * 3..][..3];
                let (colour, share) = self.at((u - self.centre[0]) / self.radius, (v - self.centre[1]) / self.radius);
                if share > 0.0 {
                    let below = [pixel[0], pixel[1], pixel[2]].map(|value| f32::from(value) / 255.0);
                    put(pixel, mix(below, colour, share));
                }
            }
        }
    }

    /// Colour and coverage at a place in radii from the centre.
    fn at(&self, x: f32, y: f32) -> ([f32; 3], f32) {
        let distance = x.hypot(y);
        if distance >= 1.0 {
            return ([0.0; 3], 0.0);
        }
        let depth = (1.0 - distance * distance).sqrt();
        let stripe = ((x.atan2(depth.max(0.05)) + self.turn) * 4.0).sin() * 4.0;
        let light = (0.45 + 0.55 * (depth * 0.8 - x * 0.3 - y * 0.45)).clamp(0.25, 1.1);
        let colour = mix(self.colours[0], self.colours[1], stripe + 0.5).map(|c| c * light);
        (colour, (1.0 - distance) * 24.0)
    }
}

/// Between two colours; `share` is brought between 0 and 1.
fn mix(a: [f32; 3], b: [f32; 3], share: f32) -> [f32; 3] {
    let share = share.clamp(0.0, 1.0);
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * share)
}

/// A cast to a byte brings the value between 0 and 255.
fn put(pixel: &mut [u8], colour: [f32; 3]) {
    for (value, colour) in pixel.iter_mut().zip(colour) {
        *value = (colour * 255.0 + 0.5) as u8;
    }
}

/// A number in [0, 1) for a seed and an index (the finaliser of SplitMix64).
fn hash(seed: u64, index: u64) -> f64 {
    let z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> 40) as f64 / f64::from(1u32 << 24)
}

impl FrameReader for TestClip {
    fn info(&self) -> &VideoInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        if self.info.frames.is_some_and(|frames| self.next >= frames) {
            return Ok(None);
        }
        let timestamp = self.info.frame_rate.timestamp(self.next);
        self.next += 1;
        let rgb = self.draw(timestamp.as_secs_f64());
        Ok(Some(Frame { width: self.info.width, height: self.info.height, rgb, timestamp }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(seed: u64, count: u64) -> Vec<Frame> {
        let mut clip = TestClip::new(64, 48, FrameRate::DEFAULT, Some(count), seed);
        std::iter::from_fn(|| clip.next_frame().unwrap()).collect()
    }

    fn mean_change(a: &Frame, b: &Frame) -> f64 {
        let change: u32 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        f64::from(change) / a.rgb.len() as f64
    }

    #[test]
    fn it_moves_smoothly_and_the_seed_decides() {
        let clip = frames(1, 144);
        assert_eq!(clip.len(), 144);
        assert_eq!(clip, frames(1, 144));
        assert_ne!(clip[..2], frames(2, 2));
        for pair in clip.windows(2) {
            let change = mean_change(&pair[0], &pair[1]);
            assert!(change > 0.05 && change < 6.0, "{change}");
        }
        // The light changes slowly, in the upper left corner where nothing else is.
        assert!(clip[0].rgb[1].abs_diff(clip[143].rgb[1]) > 3);
        assert_eq!(clip[30].timestamp, FrameRate::DEFAULT.timestamp(30));
    }

    #[test]
    fn neighbours_are_alike() {
        // Smooth pictures, not noise: most neighbours differ by little.
        let frame = &frames(3, 1)[0];
        let row = frame.rgb.chunks_exact(64 * 3);
        let steps: Vec<u8> = row.flat_map(|row| row.windows(4).map(|w| w[0].abs_diff(w[3]))).collect();
        let large = steps.iter().filter(|step| **step > 24).count();
        assert!(large * 20 < steps.len(), "{large} of {}", steps.len());
    }

    #[test]
    fn any_size_is_drawn_for_as_long_as_wanted() {
        for (width, height, drawn) in [(1, 1, (1, 1)), (0, 3, (1, 3)), (33, 17, (33, 17)), (8192, 1, (8192, 1))] {
            let mut clip = TestClip::new(width, height, FrameRate::DEFAULT, None, 0);
            let frame = clip.next_frame().unwrap().unwrap();
            assert_eq!((frame.width, frame.height), drawn);
            assert_eq!(frame.rgb.len(), (drawn.0 * drawn.1 * 3) as usize);
        }
        let mut days = TestClip::new(64, 48, FrameRate::DEFAULT, None, 0);
        days.next = 24 * 86400 * 30;
        let (a, b) = (days.next_frame().unwrap().unwrap(), days.next_frame().unwrap().unwrap());
        assert!(mean_change(&a, &b) > 0.05);
        assert_eq!(TestClip::new(8, 8, FrameRate::DEFAULT, Some(0), 0).next_frame().unwrap(), None);
    }
}
