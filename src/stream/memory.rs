//! The context memory: features of past frames, read by attention, so that what left the picture can come back the same.
//!
//! It keeps the first frame of a stream for good, the anchor, and a ring of later ones. There are two ways to read it. A network
//! trained on streams reads *cells*, the mean colours of a frame and of what was drawn of it, in its own cross-attention.
//! Any other network is helped from outside by *patches*: a stored frame is cut into 8x8 pixels, each patch's feature is its
//! pixels with the mean taken off, scaled to length one; the patches of the current output are the queries, the stored
//! features the keys, the stored patches the values of an attention with one head. That needs no training.
use crate::Result;
use crate::model::memory_cells;
use crate::ops::Ops;
use crate::stream::history::History;
use candle_core::{D, DType, Tensor};

/// Pixels along each side of a patch.
const PATCH: usize = 8;
/// Inverse temperature: features of length one that agree by 0.9 weigh e^(0.1 · 20) less than the same patch.
const SHARPNESS: f64 = 20.0;
/// Keeps flat patches, which have no feature, from dividing by nothing.
const EPS: f64 = 1e-4;

/// How the memory is kept and read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryConfig {
    /// Frames that are kept, the first among them; 0 turns the memory off.
    pub frames: usize,
    /// A frame is stored each time this many have gone by.
    pub every: usize,
    /// How much of the patches that were read goes into the output, in [0, 1].
    pub weight: f64,
}

/// Features of past frames.
pub struct Memory {
    config: MemoryConfig,
    anchor: Option<Entry>,
    ring: History<Entry>,
}

/// What is kept of one frame.
#[derive(Clone)]
pub(super) struct Entry {
    /// `(batch, 16, 6)`: mean RGB of the input, then of the output, in each cell of a 4x4 grid; in f32.
    pub cells: Tensor,
    /// Where patches are read: keys of length one and the patches themselves, `(batch, patches, values)`.
    pub patches: Option<(Tensor, Tensor)>,
}

impl Memory {
    /// An empty memory.
    pub fn new(config: MemoryConfig) -> Self {
        Self { config, anchor: None, ring: History::new(config.frames.saturating_sub(1)) }
    }

    /// Stores what was `drawn` of `frame`, both `(batch, 3, height, width)`, if its turn has come: frame 0 and each `every`
    /// after it.
    ///
    /// # Errors
    /// Frames of different shapes, or sides that do not divide by 4 (by 8 where patches are read).
    pub fn store(&mut self, frame: &Tensor, drawn: &Tensor, index: u64) -> Result<()> {
        if self.config.frames == 0 || !index.is_multiple_of(self.config.every.max(1) as u64) {
            return Ok(());
        }
        let patches = (self.config.weight > 0.0).then(|| -> Result<_> {
            let patches = cut(drawn)?;
            Ok((features(&patches)?, patches))
        });
        let entry = Entry { cells: memory_cells(frame, drawn)?, patches: patches.transpose()? };
        if self.anchor.is_none() {
            self.anchor = Some(entry);
        } else {
            self.ring.push(entry);
        }
        Ok(())
    }

    /// What is kept, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.anchor.iter().chain(self.ring.iter())
    }
}

/// What the stored frames have for each patch of `frame`, mixed into it by `weight`.
///
/// # Errors
/// A frame of another shape than those stored.
pub(super) fn recall(ops: &Ops, entries: &[Entry], weight: f64, frame: &Tensor) -> Result<Tensor> {
    let stored: Vec<&(Tensor, Tensor)> = entries.iter().filter_map(|entry| entry.patches.as_ref()).collect();
    if stored.is_empty() {
        return Ok(frame.clone());
    }
    let (_, c, h, w) = frame.dims4()?;
    let keys: Vec<&Tensor> = stored.iter().map(|(keys, _)| keys).collect();
    let values: Vec<&Tensor> = stored.iter().map(|(_, patches)| patches).collect();
    let column = |all: &[&Tensor]| Tensor::cat(all, 1)?.unsqueeze(1); // (b, 1 head, frames * patches, values)
    let queries = features(&cut(frame)?)?.unsqueeze(1)?;
    let read = ops.attention("stream.memory", &queries, &column(&keys)?, &column(&values)?, SHARPNESS)?;
    let recalled = paste(&read.squeeze(1)?, c, h, w)?;
    Ok((frame + ((recalled - frame)? * weight)?)?)
}

/// `(b, c, h, w)` to `(b, patches, c * 64)`.
fn cut(frame: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = frame.dims4()?;
    let t = frame.contiguous()?.reshape((b, c, h / PATCH, PATCH, w / PATCH, PATCH))?;
    Ok(t.permute((0, 2, 4, 1, 3, 5))?.reshape((b, h / PATCH * (w / PATCH), c * PATCH * PATCH))?)
}

/// The inverse of [`cut`].
fn paste(patches: &Tensor, c: usize, h: usize, w: usize) -> Result<Tensor> {
    let b = patches.dim(0)?;
    let t = patches.contiguous()?.reshape((b, h / PATCH, w / PATCH, c, PATCH, PATCH))?;
    Ok(t.permute((0, 3, 1, 4, 2, 5))?.reshape((b, c, h, w))?)
}

/// Patches without their mean, at length one; in f32 inside, since squares of small values vanish in f16.
fn features(patches: &Tensor) -> Result<Tensor> {
    let wide = patches.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let length = (centred.sqr()?.sum_keepdim(D::Minus1)? + EPS)?.sqrt()?;
    Ok(centred.broadcast_div(&length)?.to_dtype(patches.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    const CONFIG: MemoryConfig = MemoryConfig { frames: 2, every: 3, weight: 1.0 };

    fn noise(seed: u64) -> Tensor {
        let values = crate::model::formula::input(&format!("memory.{seed}"), 3 * 16 * 24);
        Tensor::from_vec(values, (1, 3, 16, 24), &Device::Cpu).unwrap()
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        crate::ops::cases::largest_difference(a, b).unwrap()
    }

    #[test]
    fn cutting_and_pasting_are_inverse() {
        let frame = noise(0);
        assert_eq!(difference(&paste(&cut(&frame).unwrap(), 3, 16, 24).unwrap(), &frame), 0.0);
    }

    #[test]
    fn an_empty_memory_changes_nothing() {
        let ops = Ops::reference(&Device::Cpu);
        assert_eq!(difference(&recall(&ops, &[], CONFIG.weight, &noise(0)).unwrap(), &noise(0)), 0.0);
    }

    #[test]
    fn a_stored_frame_is_recalled_from_a_damaged_one() {
        let ops = Ops::reference(&Device::Cpu);
        let mut memory = Memory::new(CONFIG);
        for i in 0..6 {
            memory.store(&noise(20 + i), &noise(i), i).unwrap(); // 0 and 3 stay
        }
        assert_eq!(memory.entries().count(), 2);
        let damaged = (noise(3) + (noise(9) * 0.2).unwrap()).unwrap();
        let entries: Vec<Entry> = memory.entries().cloned().collect();
        let recalled = recall(&ops, &entries, CONFIG.weight, &damaged).unwrap();
        assert!(difference(&recalled, &noise(3)) < 0.1 * difference(&damaged, &noise(3)));
    }

    #[test]
    fn the_first_frame_stays_and_cells_hold_means() {
        let mut memory = Memory::new(MemoryConfig { every: 1, ..CONFIG });
        let plane = |value: f32| Tensor::full(value, (1, 3, 16, 24), &Device::Cpu).unwrap();
        for i in 0..5 {
            memory.store(&plane(-0.5), &plane(0.1 * i as f32), i).unwrap();
        }
        let cells: Vec<Vec<Vec<f32>>> =
            memory.entries().map(|entry| entry.cells.squeeze(0).unwrap().to_vec2().unwrap()).collect();
        assert_eq!((cells.len(), cells[0].len()), (2, 16));
        for (cells, drawn) in cells.iter().zip([0.0, 0.4]) {
            let want = [-0.5, -0.5, -0.5, drawn, drawn, drawn];
            assert!(cells.iter().flatten().zip(want.iter().cycle()).all(|(a, b)| (a - b).abs() < 1e-6), "{cells:?}");
        }
    }
}
