//! What a stream is set to, and what each network is usually set to.
use super::blend::{BlendRule, MotionBlend};
use super::memory::MemoryConfig;
use crate::diffusion::{BetaSchedule, Sampler};
use crate::model::FrameNetwork;

/// How a frame is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// As the original project counts a frame: calls at evenly spaced timesteps from 0 up, the frame stays the input,
    /// each output is the next call's previous frame.
    Sequence,
    /// Image to image by a diffusion sampler: noise is added to the frame as `strength` says and then removed.
    Diffusion(Sampler, BetaSchedule),
    /// As a network with styles was trained: each frame from noise alone, by DDIM, conditioned on the input frame, on noised
    /// history, on the memory and on the style; `strength` mixes the style with `none`.
    Restyle,
}

/// What a stream is set to.
pub struct StreamConfig {
    /// How a frame is drawn.
    pub sampling: Sampling,
    /// Calls of the network for each frame, at least 1.
    pub steps: usize,
    /// How much is redrawn, in [0, 1]: 0 leaves the frame as it came in.
    pub strength: f64,
    /// Where the noise comes from: the same seed draws the same bytes.
    pub seed: u64,
    /// The context memory.
    pub memory: MemoryConfig,
    /// How a frame is mixed with the one before.
    pub blend: BlendRule,
    /// For [`Sampling::Restyle`], a weight for each of the network's styles, which sum to 1; else empty.
    pub style: Vec<f64>,
    /// For [`Sampling::Restyle`], the noise that history is given, as a timestep; `None` is what the network was trained for.
    pub history_timestep: Option<usize>,
}

impl StreamConfig {
    /// How a network is usually run: one with styles as it was trained, in the style that comes after `none`; any other in
    /// sequence, with the memory off.
    pub fn usual(network: &dyn FrameNetwork) -> Self {
        let common = Self {
            sampling: Sampling::Sequence,
            steps: 2,
            strength: 0.7,
            seed: 0,
            memory: MemoryConfig { frames: 0, every: 8, weight: 0.2 },
            blend: BlendRule::Fixed(0.8),
            style: vec![],
            history_timestep: None,
        };
        match network.restyling() {
            None => common,
            Some(restyling) => Self {
                sampling: Sampling::Restyle,
                strength: 1.0,
                memory: MemoryConfig { frames: 4, every: 30, weight: 0.0 },
                // what the frame before keeps takes the flicker out of what is drawn anew each time
                blend: BlendRule::Motion(MotionBlend { still: 0.15, moving: 0.95, change: 0.02 }),
                style: (0..restyling.styles.len()).map(|i| if i == 1 { 1.0 } else { 0.0 }).collect(),
                ..common
            },
        }
    }
}
