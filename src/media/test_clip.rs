//! A moving clip that needs no file: hills under a sky that changes, a panning camera, balloons that drift by.
use super::{Frame, FrameRate, FrameReader, Result, VideoInfo};
use rayon::prelude::*;
use std::f32::consts::TAU;

/// How many balloons drift by.
const BALLOONS: usize = 5;

/// The built-in clip, the same for the same seed, drawn frame by frame at any size.
pub struct TestClip {
    info: VideoInfo,
    seed: u64,
    next: u64,
}

impl TestClip {
    /// A clip of this size; without a number of frames it never ends.
    pub fn new(width: u32, height: u32, frame_rate: FrameRate, frames: Option<u64>, seed: u64) -> Self {
        let info = VideoInfo { width, height, frame_rate, frames, has_audio: false };
        Self { info, seed, next: 0 }
    }

    fn draw(&self, seconds: f32) -> Vec<u8> {
        let (width, height) = (self.info.width as usize, self.info.height as usize);
        let balloons: Vec<Balloon> = (0..BALLOONS).map(|i| Balloon::new(self.seed, i as u64, seconds)).collect();
        let scale = 1.0 / height.max(1) as f32;
        let hills: Vec<[f32; 3]> = (0..width).map(|x| self.hills(x as f32 * scale, seconds)).collect();
        let mut rgb = vec![0; width * height * 3];
        rgb.par_chunks_exact_mut(3 * width.max(1)).enumerate().for_each(|(y, row)| {
            let v = (y as f32 + 0.5) * scale;
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let u = (x as f32 + 0.5) * scale;
                let mut colour = landscape(u, v, hills[x], seconds);
                for balloon in &balloons {
                    colour = balloon.over(colour, u, v);
                }
                for (value, colour) in pixel.iter_mut().zip(colour) {
                    *value = (colour.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
                }
            }
        });
        rgb
    }

    /// Heights of three ranges at a place, the camera panning: near ones pass faster.
    fn hills(&self, u: f32, seconds: f32) -> [f32; 3] {
        let phase = hash(self.seed, 99) * TAU;
        [0.35, 0.7, 1.4].map(|depth| {
            let place = u * 2.0 + seconds * 0.12 * depth + depth * 7.0 + phase;
            let shape = (place * 1.3).sin() * 0.5 + (place * 2.9 + 1.0).sin() * 0.25 + (place * 6.1).sin() * 0.08;
            0.62 - 0.08 * shape + 0.14 * (depth - 0.35)
        })
    }
}

/// Sky and hills at a place, `v` down from 0 to 1.
fn landscape(u: f32, v: f32, hills: [f32; 3], seconds: f32) -> [f32; 3] {
    let day = 0.5 + 0.5 * (seconds * 0.25).sin();
    let colours = [[0.45, 0.52, 0.66], [0.25, 0.42, 0.38], [0.16, 0.27, 0.14]];
    let mut colour = mix([0.98, 0.72 + 0.1 * day, 0.50 + 0.3 * day], [0.22, 0.42 + 0.1 * day, 0.78], 1.0 - v * 1.3);
    let (du, dv) = (u - 1.2, v - 0.22);
    colour = mix(colour, [1.0, 0.95, 0.75], (1.0 - (du.hypot(dv) - 0.07) * 60.0).clamp(0.0, 1.0));
    for (height, tint) in hills.into_iter().zip(colours) {
        let furrow = 0.04 * ((v - height) * 90.0 + (u + seconds * 0.1) * 14.0).sin();
        let shade = 0.75 + 0.35 * day + furrow;
        colour = mix(colour, tint.map(|c| c * shade), ((v - height) * 220.0).clamp(0.0, 1.0));
    }
    colour
}

/// A striped balloon.
struct Balloon {
    centre: [f32; 2],
    radius: f32,
    colours: [[f32; 3]; 2],
    turn: f32,
}

impl Balloon {
    fn new(seed: u64, index: u64, seconds: f32) -> Self {
        let random = |k: u64| hash(seed, index * 16 + k);
        let speed = 0.06 + 0.10 * random(0);
        let x = (random(1) * 2.4 + seconds * speed).rem_euclid(2.4) - 0.3;
        let y = 0.22 + 0.3 * random(2) + 0.05 * (seconds * (0.5 + random(3)) + random(4) * TAU).sin();
        let hue = random(5);
        let colour = |shift: f32| [0.0, 0.33, 0.67].map(|c: f32| 0.55 + 0.42 * ((hue + shift + c) * TAU).cos());
        Self {
            centre: [x, y],
            radius: 0.05 + 0.06 * random(6),
            colours: [colour(0.0), colour(0.35)],
            turn: seconds * (0.4 + random(7)),
        }
    }

    fn over(&self, below: [f32; 3], u: f32, v: f32) -> [f32; 3] {
        let (x, y) = ((u - self.centre[0]) / self.radius, (v - self.centre[1]) / self.radius);
        let distance = x.hypot(y);
        if distance > 1.05 {
            return below;
        }
        let depth = (1.0 - distance * distance).max(0.0).sqrt();
        let stripe = ((x.atan2(depth.max(0.05)) + self.turn) * 4.0).sin() * 4.0;
        let light = (0.45 + 0.55 * (depth * 0.8 - x * 0.3 - y * 0.45)).clamp(0.25, 1.1);
        let colour = mix(self.colours[0], self.colours[1], (stripe + 0.5).clamp(0.0, 1.0)).map(|c| c * light);
        mix(below, colour, ((1.0 - distance) * 24.0).clamp(0.0, 1.0))
    }
}

fn mix(a: [f32; 3], b: [f32; 3], share: f32) -> [f32; 3] {
    let share = share.clamp(0.0, 1.0);
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * share)
}

/// A number in [0, 1) for a seed and an index (the finaliser of SplitMix64).
fn hash(seed: u64, index: u64) -> f32 {
    let z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> 40) as f32 / (1u32 << 24) as f32
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
        let rgb = self.draw(timestamp.as_secs_f32());
        Ok(Some(Frame { width: self.info.width, height: self.info.height, rgb, timestamp }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(seed: u64) -> Vec<Frame> {
        let mut clip = TestClip::new(64, 48, FrameRate::DEFAULT, Some(12), seed);
        std::iter::from_fn(|| clip.next_frame().unwrap()).collect()
    }

    #[test]
    fn it_moves_smoothly_and_the_seed_decides() {
        let clip = frames(1);
        assert_eq!(clip.len(), 12);
        assert_eq!(clip, frames(1));
        assert_ne!(clip, frames(2));
        for pair in clip.windows(2) {
            let change: u32 = pair[0].rgb.iter().zip(&pair[1].rgb).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
            let mean = f64::from(change) / pair[0].rgb.len() as f64;
            assert!(mean > 0.05 && mean < 12.0, "{mean}");
        }
    }
}
