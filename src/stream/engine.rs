//! The stream: takes one frame, gives one frame, and remembers.
use super::blend::BlendRule;
use super::history::History;
use super::memory::{Memory, MemoryConfig};
use super::noise::Noise;
use crate::diffusion::{BetaSchedule, NoiseSchedule, Plan, Prediction, Sampler, Settings};
use crate::model::FrameNetwork;
use crate::ops::Ops;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// How a frame is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// As the original project counts a frame: calls at evenly spaced timesteps from 0 up, the frame stays the input,
    /// each output is the next call's previous frame.
    Sequence,
    /// Image to image by a diffusion sampler: noise is added to the frame as `strength` says and then removed.
    Diffusion(Sampler, BetaSchedule),
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
}

/// Everything that passes from one frame to the next.
struct State {
    /// Index of the frame that comes next.
    index: u64,
    /// The frames drawn last, newest at the end.
    history: History<Tensor>,
    memory: Memory,
}

/// A network over time. Frames are `(batch, 3, height, width)` in f32, values in [-1, 1].
pub struct Stream {
    network: Arc<dyn FrameNetwork>,
    ops: Ops,
    config: StreamConfig,
    plan: Option<Plan>,
    state: State,
}

impl Stream {
    /// A stream at its first frame.
    ///
    /// # Errors
    /// Steps, a strength or a blend outside their ranges.
    pub fn new(network: Arc<dyn FrameNetwork>, ops: Ops, config: StreamConfig) -> Result<Self> {
        let timesteps = network.timesteps();
        if config.steps == 0 || config.steps > timesteps {
            let steps = config.steps;
            return Err(Error::Stream(format!("{steps} steps: this network takes 1 to {timesteps}")));
        }
        for (name, value) in [("strength", config.strength), ("memory weight", config.memory.weight)] {
            in_unit(name, value)?;
        }
        if let BlendRule::Fixed(share) = config.blend {
            in_unit("blend", share)?;
        }
        let plan = match config.sampling {
            Sampling::Diffusion(sampler, betas) if config.strength > 0.0 => {
                Some(plan(sampler, betas, &config, timesteps)?)
            }
            _ => None,
        };
        let state = State { index: 0, history: History::new(1), memory: Memory::new(config.memory) };
        Ok(Self { network, ops, config, plan, state })
    }

    /// Redraws the next frame.
    ///
    /// # Errors
    /// A frame of another size than the one before, or one that the network does not take.
    pub fn step(&mut self, frame: &Tensor) -> Result<Tensor> {
        let previous = self.state.history.newest().cloned();
        if let Some(previous) = &previous
            && previous.dims() != frame.dims()
        {
            return Err(Error::Stream(format!(
                "frame {} is {:?}, those before it {:?}: reset the stream when the size changes",
                self.state.index,
                frame.dims(),
                previous.dims()
            )));
        }
        let drawn = self.draw(frame, previous.as_ref(), &self.state.memory, self.state.index)?;
        self.state.memory.store(&drawn, self.state.index)?;
        self.state.history.push(drawn.clone());
        self.state.index += 1;
        Ok(drawn.to_dtype(DType::F32)?)
    }

    /// Redraws a whole clip from its first frame, whatever the stream did before, and leaves the stream as it is.
    ///
    /// This is the definition of [`step`](Self::step): every frame is drawn from the frames before it, no state kept.
    ///
    /// # Errors
    /// As for [`step`](Self::step).
    pub fn forward(&self, clip: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut outputs: Vec<Tensor> = Vec::with_capacity(clip.len());
        for (i, frame) in clip.iter().enumerate() {
            let mut memory = Memory::new(self.config.memory);
            for (j, past) in outputs.iter().enumerate() {
                memory.store(past, j as u64)?;
            }
            outputs.push(self.draw(frame, outputs.last(), &memory, i as u64)?);
        }
        outputs.into_iter().map(|y| Ok(y.to_dtype(DType::F32)?)).collect()
    }

    /// Back to the first frame.
    pub fn reset(&mut self) {
        // taken apart, so that a field added later cannot be forgotten here
        let State { index, history, memory } = &mut self.state;
        *index = 0;
        history.reset();
        *memory = Memory::new(self.config.memory);
    }

    /// How many frames were drawn since the first.
    pub fn frames(&self) -> u64 {
        self.state.index
    }

    /// The op slots that the stream runs on.
    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// One frame, in the storage type of the stages.
    fn draw(&self, frame: &Tensor, previous: Option<&Tensor>, memory: &Memory, index: u64) -> Result<Tensor> {
        let frame = &frame.to_dtype(self.ops.dtype)?;
        if self.config.strength == 0.0 {
            return Ok(frame.clone());
        }
        // the first frame has none before it: the input stands in
        let before = previous.unwrap_or(frame);
        let drawn = match &self.plan {
            None => self.sequence(frame, before)?,
            Some(plan) => self.denoise(plan, frame, before, index)?,
        };
        let recalled = memory.recall(&self.ops, &drawn)?;
        // what leaves the range once would be fed back for ever
        let bounded = self.config.blend.apply(&self.ops, &recalled, previous)?.clamp(-1f32, 1f32)?;
        Ok(bounded)
    }

    fn sequence(&self, frame: &Tensor, previous: &Tensor) -> Result<Tensor> {
        let spacing = self.network.timesteps() as f64 / self.config.steps as f64;
        let mut y = previous.clone();
        for i in 0..self.config.steps {
            y = self.network.call(&self.ops, frame, i as f64 * spacing, &y)?;
        }
        // strength as a share: this way of drawing adds no noise that could stand for it
        Ok((frame + ((y - frame)? * self.config.strength)?)?)
    }

    fn denoise(&self, plan: &Plan, frame: &Tensor, previous: &Tensor, index: u64) -> Result<Tensor> {
        let mut noise = Noise::new(self.config.seed).frame(index);
        let mut draw = || -> Result<Tensor> {
            let mut values = vec![0f32; frame.elem_count()];
            noise.fill(&mut values);
            Ok(Tensor::from_vec(values, frame.shape(), frame.device())?.to_dtype(frame.dtype())?)
        };
        let (signal, deviation) = (plan.start.signal, plan.start.noise);
        let mut x = ((frame * signal)? + (draw()? * deviation)?)?;
        for step in &plan.steps {
            let input = if step.input_scale == 1.0 { x.clone() } else { (&x * step.input_scale)? };
            let output = self.network.call(&self.ops, &input, step.timestep, previous)?;
            let noise = if step.next_from_noise != 0.0 { Some(draw()?) } else { None };
            x = self.ops.sampler_step(&x, &output, noise.as_ref(), step)?;
        }
        Ok(x)
    }
}

/// The sampler's steps for a network that estimates the frame itself.
fn plan(sampler: Sampler, betas: BetaSchedule, config: &StreamConfig, timesteps: usize) -> Result<Plan> {
    let schedule = NoiseSchedule::new(betas, timesteps)?;
    // an LCM schedule cannot be longer than the network's own
    let sampler = match sampler {
        Sampler::Lcm { original_steps } => Sampler::Lcm { original_steps: original_steps.min(timesteps) },
        other => other,
    };
    let settings = Settings {
        prediction: Prediction::Sample,
        clip: Some(1.0),
        strength: config.strength,
        ..Settings::new(sampler, config.steps)
    };
    Ok(Plan::new(&schedule, &settings)?)
}

fn in_unit(name: &str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::Stream(format!("{name} {value} is not between 0 and 1")))
}
