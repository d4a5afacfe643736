//! The inputs of a drift test: endless loops, held in memory for one lap, so that any number of frames costs the same.
use super::scenes::Scene;
use crate::media::Frame;
use crate::ops::Ops;
use crate::stream::convert::to_tensor;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::ops::Range;

/// The fewest frames of a test: below it, windows of 15 % and ten chunks hold too little to judge.
pub const FEWEST_FRAMES: u64 = 120;
/// Laps in the shortest part of a script, at least: each of ten chunks then sees nearly every frame of the loop.
const LAPS: u64 = 12;
/// The longest lap, in frames.
const LONGEST_LAP: u64 = 96;
/// The most bytes that the frames of one lap take: a lap of larger pictures is shorter.
const LAP_BYTES: u64 = 512 << 20;
/// The shortest lap that still holds three scenes.
const SHORTEST_LAP: u64 = 6;

/// A stretch of a script in which one loop runs in one style.
#[derive(Clone, Debug)]
pub struct Part {
    /// The frames of the script that it covers.
    pub range: Range<u64>,
    /// Frame `i` of the script shows `lap[i % lap.len()]`; each `(1, 3, height, width)` in f32.
    lap: Vec<Tensor>,
    /// The style that is set when the part begins, if the subject has styles.
    pub style: Option<String>,
}

impl Part {
    /// Frames after which the input repeats; 1 where it stands still.
    pub fn period(&self) -> usize {
        self.lap.len()
    }
}

/// What a stream is fed, frame by frame.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its name, as reports give it.
    pub name: &'static str,
    parts: Vec<Part>,
}

impl Script {
    /// The parts, one after the other from frame 0.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// How many frames there are.
    pub fn frames(&self) -> u64 {
        self.parts.last().map_or(0, |p| p.range.end)
    }

    /// Index of the part that frame `index` is in.
    pub fn part_at(&self, index: u64) -> usize {
        self.parts.iter().position(|p| index < p.range.end).unwrap_or(self.parts.len() - 1)
    }

    /// The input frame with this index.
    pub fn frame(&self, index: u64) -> &Tensor {
        let part = &self.parts[self.part_at(index)];
        &part.lap[(index % part.lap.len() as u64) as usize]
    }

    fn whole(name: &'static str, frames: u64, lap: Vec<Tensor>) -> Self {
        Self { name, parts: vec![Part { range: 0..frames, lap, style: None }] }
    }
}

/// What the scripts are made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Frames of each script.
    pub frames: u64,
    /// Pixels in a row, and rows.
    pub size: (u32, u32),
    /// A clip to use in place of the built-in one, its frames of the size above; only the first
    /// [`clip_frames`](Self::clip_frames) are used. Empty for the built-in clip.
    pub clip: &'a [Frame],
    /// The styles to switch between, if the subject has any.
    pub styles: Option<&'a [String; 2]>,
    /// Where the frames are put.
    pub device: &'a Device,
}

impl Inputs<'_> {
    /// How many frames of a clip the longest lap needs: it is run forth and back.
    pub fn clip_frames(&self) -> usize {
        self.lap(self.frames) / 2 + 1
    }

    /// Every script: `moving`, `static`, `cuts`, `black`, `frozen` and, where there are styles, `styles`.
    ///
    /// # Errors
    /// Too few frames, a picture too large for a lap of it to be kept, a device that cannot hold it.
    pub fn scripts(&self) -> Result<Vec<Script>> {
        if self.frames < FEWEST_FRAMES {
            return Err(Error::Stream(format!(
                "{} frames are too few to tell drift from noise: ask for {FEWEST_FRAMES} or more",
                self.frames
            )));
        }
        let (width, height) = self.size;
        if self.longest_lap() < SHORTEST_LAP {
            return Err(Error::Stream(format!(
                "pictures of {width}x{height} are too large to keep a lap of: choose a smaller --size"
            )));
        }
        let frames = self.frames;
        let moving = self.main(self.lap(frames))?;
        let still = vec![moving[0].clone()];
        let black = vec![Tensor::full(-1f32, (1, 3, height as usize, width as usize), self.device)?];
        let mut scripts = vec![
            Script::whole("moving", frames, moving),
            Script::whole("static", frames, still),
            Script::whole("cuts", frames, self.cuts(self.lap(frames))?),
            Script::whole("black", frames, black),
            self.frozen()?,
        ];
        if let Some(styles) = self.styles {
            scripts.push(self.switching(styles)?);
        }
        Ok(scripts)
    }

    /// Moves for a third, then stands still where it stopped.
    fn frozen(&self) -> Result<Script> {
        let stop = self.frames / 3;
        let moves = Part { range: 0..stop, lap: self.main(self.lap(stop))?, style: None };
        let last = moves.lap[((stop - 1) % moves.lap.len() as u64) as usize].clone();
        let stands = Part { range: stop..self.frames, lap: vec![last], style: None };
        Ok(Script { name: "frozen", parts: vec![moves, stands] })
    }

    /// Another style at a third, back at two thirds; the clip goes on.
    fn switching(&self, [first, second]: &[String; 2]) -> Result<Script> {
        let [a, b] = [self.frames / 3, self.frames * 2 / 3];
        let lap = self.main(self.lap(a))?;
        let part = |range, style: &String| Part { range, lap: lap.clone(), style: Some(style.clone()) };
        let parts = vec![part(0..a, first), part(a..b, second), part(b..self.frames, first)];
        Ok(Script { name: "styles", parts })
    }

    /// Cuts between three scenes, each a third of a lap.
    fn cuts(&self, lap: usize) -> Result<Vec<Tensor>> {
        let each = (lap / 3).max(1);
        let mut frames = self.tensors(&self.clip_or(Scene::Hills, each)?)?;
        for scene in [Scene::Tiles, Scene::Lights] {
            frames.extend(self.tensors(&scene.frames(each, self.size)?)?);
        }
        Ok(frames)
    }

    /// The clip forth and back, without a jump and without a repeated frame at the turns.
    fn main(&self, lap: usize) -> Result<Vec<Tensor>> {
        let forth = self.tensors(&self.clip_or(Scene::Hills, lap / 2 + 1)?)?;
        let back: Vec<Tensor> = forth.iter().skip(1).rev().skip(1).cloned().collect();
        Ok(forth.into_iter().chain(back).collect())
    }

    fn clip_or(&self, scene: Scene, count: usize) -> Result<Vec<Frame>> {
        if self.clip.is_empty() {
            return Ok(scene.frames(count, self.size)?);
        }
        Ok(self.clip.iter().take(count).cloned().collect())
    }

    fn tensors(&self, frames: &[Frame]) -> Result<Vec<Tensor>> {
        let ops = Ops::reference(self.device);
        frames.iter().map(|f| to_tensor(&ops, f)).collect()
    }

    /// An even number of frames, so that a part of `frames` frames has at least [`LAPS`] laps.
    fn lap(&self, frames: u64) -> usize {
        ((frames / LAPS).min(self.longest_lap()) / 2 * 2).max(2) as usize
    }

    fn longest_lap(&self) -> u64 {
        let bytes = u64::from(self.size.0) * u64::from(self.size.1) * 12;
        LONGEST_LAP.min(LAP_BYTES / bytes.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripts(frames: u64, clip: &[Frame]) -> Result<Vec<Script>> {
        let styles = ["ink".to_owned(), "oil".to_owned()];
        Inputs { frames, size: (16, 16), clip, styles: Some(&styles), device: &Device::Cpu }.scripts()
    }

    fn change(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().mean_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn every_script_covers_every_frame_and_repeats_often_enough() {
        for frames in [120, 121, 1000, 10_000] {
            for script in scripts(frames, &[]).unwrap() {
                assert_eq!(script.frames(), frames, "{}", script.name);
                let mut next = 0;
                for part in script.parts() {
                    assert_eq!(part.range.start, next);
                    next = part.range.end;
                    let length = next - part.range.start;
                    assert!(length / part.period() as u64 >= LAPS.min(length), "{} {frames}", script.name);
                }
                let (first, last) = (script.frame(0), script.frame(frames - 1));
                assert_eq!(first.dims(), last.dims());
            }
        }
    }

    #[test]
    fn a_loop_never_jumps_and_cuts_do() {
        let all = scripts(1000, &[]).unwrap();
        let steps = |name: &str| -> Vec<f32> {
            let script = all.iter().find(|s| s.name == name).unwrap();
            (1..300).map(|i| change(script.frame(i), script.frame(i - 1))).collect()
        };
        let largest = |name: &str| steps(name).into_iter().fold(0.0, f32::max);
        let moving = largest("moving");
        assert!(moving > 0.0 && largest("cuts") > 4.0 * moving, "{moving} {}", largest("cuts"));
        assert_eq!((largest("static"), largest("black")), (0.0, 0.0));
        // the frozen input moves, then stands; nothing jumps when it does
        let frozen = steps("frozen");
        assert!(frozen.iter().all(|s| *s <= moving * 1.01));
        let script = all.iter().find(|s| s.name == "frozen").unwrap();
        assert_eq!(change(script.frame(332), script.frame(999)), 0.0);
    }

    #[test]
    fn a_clip_of_one_frame_stands_still() {
        let clip = Scene::Tiles.frames(1, (16, 16)).unwrap();
        let all = scripts(120, &clip).unwrap();
        assert_eq!(all[0].parts()[0].period(), 1);
    }

    #[test]
    fn too_few_frames_and_too_large_pictures_are_refused() {
        assert!(scripts(119, &[]).unwrap_err().to_string().contains("120"));
        let inputs = Inputs { frames: 120, size: (8192, 8192), clip: &[], styles: None, device: &Device::Cpu };
        assert!(inputs.scripts().unwrap_err().to_string().contains("--size"));
    }
}
