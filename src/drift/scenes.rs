//! Built-in scenes, drawn without a file: hills by day, tiles in a room, lights at night.
use crate::media::{Frame, FrameRate, FrameReader, Result, TestClip};
use std::f32::consts::TAU;
use std::time::Duration;

/// Twelve frames a second: enough motion from one frame to the next that a frozen output shows within one lap.
const RATE: FrameRate = FrameRate { numerator: 12, denominator: 1 };

/// A moving picture that differs from the others in brightness, colours and texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// The built-in test clip: hills under a sky, balloons.
    Hills,
    /// A tiled floor that slides by in warm colours, with a ball rolling over it.
    Tiles,
    /// Coloured lights that circle in the dark.
    Lights,
}

impl Scene {
    /// The first `count` frames of the scene.
    ///
    /// # Errors
    /// None in practice: the test clip reads no file.
    pub fn frames(self, count: usize, (width, height): (u32, u32)) -> Result<Vec<Frame>> {
        let draw = |at: fn(f32, f32, f32) -> [f32; 3]| {
            (0..count).map(|i| paint(width, height, RATE.timestamp(i as u64), at)).collect()
        };
        Ok(match self {
            Self::Hills => {
                let mut clip = TestClip::new(width, height, RATE, Some(count as u64), 0);
                let mut frames = vec![];
                while let Some(frame) = clip.next_frame()? {
                    frames.push(frame);
                }
                frames
            }
            Self::Tiles => draw(tiles),
            Self::Lights => draw(lights),
        })
    }
}

/// Fills a frame; `at` gives red, green and blue in [0, 1] for a place in heights of the picture and a time in seconds.
fn paint(width: u32, height: u32, time: Duration, at: fn(f32, f32, f32) -> [f32; 3]) -> Frame {
    let (scale, seconds) = (1.0 / height as f32, time.as_secs_f32());
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height {
        for x in 0..width {
            let colour = at((x as f32 + 0.5) * scale, (y as f32 + 0.5) * scale, seconds);
            rgb.extend(colour.map(|c| (c * 255.0).round().clamp(0.0, 255.0) as u8));
        }
    }
    Frame { width, height, rgb, timestamp: time }
}

fn tiles(x: f32, y: f32, seconds: f32) -> [f32; 3] {
    let ball = ((x - 0.2 - 0.3 * seconds).hypot(y - 0.6), 0.18);
    if ball.0 < ball.1 {
        let light = 1.0 - 0.7 * ball.0 / ball.1;
        return [0.25 * light, 0.45 * light, 0.95 * light];
    }
    let (u, v) = (x * 0.9 + y * 0.35 + seconds * 0.2, y * 0.9 - x * 0.25);
    let even = ((u * 5.0).floor() + (v * 5.0).floor()).rem_euclid(2.0) < 0.5;
    let shade = 0.9 + 0.1 * (u * 40.0).sin();
    let tile = if even { [0.86, 0.72, 0.50] } else { [0.55, 0.24, 0.16] };
    tile.map(|c| c * shade)
}

fn lights(x: f32, y: f32, seconds: f32) -> [f32; 3] {
    let mut colour = [0.03, 0.03, 0.06];
    for (i, tint) in [[1.0, 0.35, 0.2], [0.2, 0.8, 0.9], [0.9, 0.85, 0.3]].into_iter().enumerate() {
        let angle = TAU * (i as f32 / 3.0) + seconds * (0.5 + 0.2 * i as f32);
        let distance = (x - 0.7 - 0.4 * angle.cos()).hypot(y - 0.5 - 0.3 * angle.sin());
        let glow = (-distance * distance * 40.0).exp();
        for (c, t) in colour.iter_mut().zip(tint) {
            *c += t * glow;
        }
    }
    colour
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_move_and_differ() {
        let all = [Scene::Hills, Scene::Tiles, Scene::Lights].map(|s| s.frames(3, (32, 24)).unwrap());
        for frames in &all {
            assert_eq!(frames.len(), 3);
            assert!(frames.iter().all(|f| (f.width, f.height, f.rgb.len()) == (32, 24, 32 * 24 * 3)));
            assert_ne!(frames[0].rgb, frames[2].rgb);
        }
        let mean = |f: &Frame| f.rgb.iter().map(|v| u32::from(*v)).sum::<u32>() / f.rgb.len() as u32;
        let [hills, tiles, lights] = all.map(|f| mean(&f[0]));
        assert!(lights + 40 < tiles && lights + 40 < hills, "{hills} {tiles} {lights}");
    }
}
