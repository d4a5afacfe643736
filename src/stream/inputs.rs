//! What one frame is drawn from, as a list of tensors: so that drawing it can be recorded and replayed.
use super::memory::Entry;
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// All that changes from one frame to the next.
pub(super) struct Inputs {
    /// `(batch, 3, height, width)`, in f32 or as a stage has read it.
    pub frame: Tensor,
    /// The input of the frame drawn last, likewise, where there is one.
    pub before: Option<Tensor>,
    /// The frames drawn last, newest first, in the storage type.
    pub history: Vec<Tensor>,
    /// What the context memory keeps, oldest first.
    pub memory: Vec<Entry>,
    /// Standard Gaussian noise shaped as the frame, in f32 or in the storage type, in the order in which it is taken.
    pub noise: Vec<Tensor>,
}

/// How many tensors of which kind there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    before: bool,
    history: usize,
    memory: usize,
    /// Whether each stored frame has patches.
    patches: bool,
    noise: usize,
}

impl Inputs {
    pub fn counts(&self) -> Counts {
        Counts {
            before: self.before.is_some(),
            history: self.history.len(),
            memory: self.memory.len(),
            patches: self.memory.iter().any(|entry| entry.patches.is_some()),
            noise: self.noise.len(),
        }
    }

    /// In the order in which [`of`](Self::of) reads them.
    pub fn tensors(&self) -> Vec<Tensor> {
        let stored = |entry: &Entry| {
            let patches = entry.patches.iter().flat_map(|(keys, patches)| [keys.clone(), patches.clone()]);
            std::iter::once(entry.cells.clone()).chain(patches).collect::<Vec<_>>()
        };
        let memory = self.memory.iter().flat_map(stored);
        let frame = std::iter::once(self.frame.clone());
        let frame = frame.chain(self.before.iter().cloned());
        frame.chain(self.history.iter().cloned()).chain(memory).chain(self.noise.iter().cloned()).collect()
    }

    /// The inputs that `tensors`, so many of each kind, stand for.
    pub fn of(tensors: &[Tensor], counts: Counts) -> Self {
        let (frame, rest) = tensors.split_at(1);
        let (before, rest) = rest.split_at(usize::from(counts.before));
        let (history, rest) = rest.split_at(counts.history);
        let each = if counts.patches { 3 } else { 1 };
        let (memory, noise) = rest.split_at(counts.memory * each);
        let entry =
            |t: &[Tensor]| Entry { cells: t[0].clone(), patches: counts.patches.then(|| (t[1].clone(), t[2].clone())) };
        Self {
            frame: frame[0].clone(),
            before: before.first().cloned(),
            history: history.to_vec(),
            memory: memory.chunks(each).map(entry).collect(),
            noise: noise.to_vec(),
        }
    }
}

/// The noise of a frame as it is taken.
pub(super) struct Draws<'a> {
    pub left: std::slice::Iter<'a, Tensor>,
    /// The storage type.
    pub dtype: DType,
}

impl Draws<'_> {
    pub fn next(&mut self) -> Result<Tensor> {
        let noise = self.left.next();
        let noise =
            noise.ok_or_else(|| Error::Stream("a frame took more noise than was drawn: please report this".into()))?;
        Ok(noise.to_dtype(self.dtype)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_list_of_tensors_stands_for_the_inputs() {
        let number = |n: f32| Tensor::new(n, &Device::Cpu).unwrap();
        let entry = |n: f32, patches: bool| Entry {
            cells: number(n),
            patches: patches.then(|| (number(n + 0.1), number(n + 0.2))),
        };
        for (patches, before) in [(false, None), (true, Some(number(1.5)))] {
            let inputs = Inputs {
                frame: number(1.0),
                before,
                history: vec![number(2.0)],
                memory: vec![entry(3.0, patches), entry(4.0, patches)],
                noise: vec![number(5.0), number(6.0), number(7.0)],
            };
            let tensors = inputs.tensors();
            let again = Inputs::of(&tensors, inputs.counts());
            let values = |i: &Inputs| i.tensors().iter().map(|t| t.to_scalar::<f32>().unwrap()).collect::<Vec<_>>();
            assert_eq!(values(&again), values(&inputs));
            assert_eq!(again.memory[1].patches.is_some(), patches);
            assert_eq!((again.history.len(), again.noise.len()), (1, 3));
        }
    }
}
