//! The stream: takes one frame, gives one frame, and remembers.
use super::blend::BlendRule;
use super::config::{Sampling, StreamConfig};
use super::convert;
use super::history::History;
use super::inputs::{Draws, Inputs};
use super::memory::{Memory, MemoryConfig, recall};
use super::restyle::{Restyle, check_style, mixed_with_none, restyle};
use crate::diffusion::{BetaSchedule, NoiseSchedule, Plan, Prediction, Sampler, Settings, Start, Step};
use crate::media::Frame;
use crate::model::{Condition, FrameNetwork, Given};
use crate::ops::gaussian::Draw;
use crate::ops::{Ops, Recorder};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// Everything that passes from one frame to the next.
struct State {
    /// Index of the frame that comes next.
    index: u64,
    /// How many frames were drawn since the style was set.
    since: u64,
    /// The input of the frame drawn last.
    before: Option<Tensor>,
    /// The frames drawn last, newest at the end.
    history: History<Tensor>,
    memory: Memory,
}

/// Frames of history that a network sees.
const HISTORY: usize = 2;

impl State {
    fn new(memory: MemoryConfig) -> Self {
        Self { index: 0, since: 0, before: None, history: History::new(HISTORY), memory: Memory::new(memory) }
    }

    /// Takes in what was drawn of a frame.
    fn push(&mut self, frame: &Tensor, drawn: &Tensor) -> Result<()> {
        self.memory.store(frame, drawn, self.since)?;
        self.history.push(drawn.clone());
        self.before = Some(frame.clone());
        self.since += 1;
        self.index += 1;
        Ok(())
    }
}

/// A network over time. Frames are `(batch, 3, height, width)` in f32 or in the storage type, values in [-1, 1].
pub struct Stream {
    network: Arc<dyn FrameNetwork>,
    ops: Ops,
    /// Replays frames, where a stage can; what a frame uses besides its inputs lies in this same structure.
    recorder: Option<Box<dyn Recorder>>,
    config: StreamConfig,
    plan: Option<Plan>,
    restyle: Option<Restyle>,
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
        let restyle = match config.sampling {
            Sampling::Restyle => Some(restyle(&*network, &config)?),
            _ => None,
        };
        let state = State::new(config.memory);
        let recorder = ops.recorder();
        Ok(Self { network, ops, recorder, config, plan, restyle, state })
    }

    /// Redraws the next frame.
    ///
    /// # Errors
    /// A frame of another size than the one before, or one that the network does not take.
    pub fn step(&mut self, frame: &Tensor) -> Result<Tensor> {
        Ok(self.next(frame)?.to_dtype(DType::F32)?)
    }

    /// The next frame, in the storage type of the stages.
    fn next(&mut self, frame: &Tensor) -> Result<Tensor> {
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
        let drawn = self.draw(frame, &self.state)?;
        self.state.push(frame, &drawn)?;
        Ok(drawn)
    }

    /// Redraws the next frame, from a picture to a picture, which a stage may read in its storage type where [`step`](Self::step) is given f32.
    ///
    /// # Errors
    /// As for [`step`](Self::step), and a network that draws what is not a number.
    pub fn step_frame(&mut self, frame: &Frame) -> Result<Frame> {
        let drawn = self.next(&convert::to_tensor(&self.ops, frame)?)?;
        convert::to_frame(&self.ops, &drawn, frame.timestamp)
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
            let mut state = State::new(self.config.memory);
            for (past, drawn) in clip[..i].iter().zip(&outputs) {
                state.push(past, drawn)?;
            }
            outputs.push(self.draw(frame, &state)?);
        }
        outputs.into_iter().map(|y| Ok(y.to_dtype(DType::F32)?)).collect()
    }

    /// Back to the first frame.
    pub fn reset(&mut self) {
        // taken apart, so that a field added later cannot be forgotten here
        let State { index, since, before, history, memory } = &mut self.state;
        (*index, *since, *before) = (0, 0, None);
        history.reset();
        *memory = Memory::new(self.config.memory);
    }

    /// Changes the weights of the styles from the next frame on. Where another style comes in, history and memory of the old
    /// one are forgotten; a change of the shares of the same styles goes on from them.
    ///
    /// # Errors
    /// Weights that are not one for each style, in [0, 1], with the sum 1.
    pub fn restyle(&mut self, style: Vec<f64>) -> Result<()> {
        check_style(&*self.network, &style)?;
        // the first style is `none`, which is a part of every strength below 1
        let others = |weights: &[f64]| weights.iter().skip(1).map(|w| *w > 0.0).collect::<Vec<_>>();
        if others(&style) != others(&self.config.style) {
            self.state.since = 0;
            self.state.history.reset();
            self.state.memory = Memory::new(self.config.memory);
        }
        self.config.style = style;
        Ok(())
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
    fn draw(&self, frame: &Tensor, state: &State) -> Result<Tensor> {
        if self.config.strength == 0.0 {
            return Ok(frame.to_dtype(self.ops.dtype)?);
        }
        let inputs = Inputs {
            frame: frame.clone(),
            // where a style has just come in, nothing drawn before is mixed with it
            before: state.before.clone().filter(|_| !state.history.is_empty()),
            history: state.history.iter().rev().cloned().collect(),
            memory: state.memory.entries().cloned().collect(),
            noise: self.noise(frame, state)?,
        };
        // besides its inputs, a frame depends on the style and on what is given with this stream
        let (counts, style) = (inputs.counts(), &self.config.style);
        let redraw = |tensors: &[Tensor]| Ok(vec![self.redraw(&Inputs::of(tensors, counts))?]);
        let key = format!("frame {counts:?} style {style:?}");
        let mut drawn = self.ops.whole(self.recorder.as_deref(), &key, &inputs.tensors(), &redraw)?;
        drawn.pop().ok_or_else(|| Error::Stream("a frame was drawn and is not there: please report this".into()))
    }

    /// The standard Gaussian noise of a frame, in the order in which [`redraw`](Self::redraw) takes it.
    fn noise(&self, frame: &Tensor, state: &State) -> Result<Vec<Tensor>> {
        let during = |plan: &Plan| plan.steps.iter().filter(|step| step.next_from_noise != 0.0).count();
        let draws = match (&self.plan, &self.restyle) {
            // where the sample begins, and on two frames of history
            (_, Some(restyle)) => 3 + during(&restyle.plans[usize::from(!state.history.is_empty())]),
            (Some(plan), None) => 1 + during(plan),
            (None, None) => 0,
        };
        let draw = |number| Draw { seed: self.config.seed, frame: state.index, number: number as u32 };
        (0..draws).map(|number| Ok(self.ops.gaussian(draw(number), frame.shape())?)).collect()
    }

    /// Draws a frame from `inputs` alone.
    fn redraw(&self, inputs: &Inputs) -> Result<Tensor> {
        let frame = &inputs.frame.to_dtype(self.ops.dtype)?;
        let previous = inputs.history.first();
        // the first frame has none before it: the input stands in
        let before = previous.unwrap_or(frame);
        let mut noise = Draws { left: inputs.noise.iter(), dtype: self.ops.dtype };
        let drawn = match (&self.plan, &self.restyle) {
            (_, Some(restyle)) => self.restyled(restyle, frame, inputs, &mut noise)?,
            (None, None) => self.sequence(frame, before)?,
            (Some(plan), None) => self.image_to_image(plan, frame, before, &mut noise)?,
        };
        let recalled = recall(&self.ops, &inputs.memory, self.config.memory.weight, &drawn)?;
        let moved = [&inputs.frame, inputs.before.as_ref().unwrap_or(&inputs.frame)];
        let blended = self.config.blend.apply(&self.ops, &recalled, previous, moved)?;
        // what leaves the range once would be fed back for ever; a restyled frame was cut to it by its last step
        if self.restyle.is_some() { Ok(blended) } else { Ok(blended.clamp(-1f32, 1f32)?) }
    }

    fn sequence(&self, frame: &Tensor, previous: &Tensor) -> Result<Tensor> {
        let spacing = self.network.timesteps() as f64 / self.config.steps as f64;
        let timesteps: Vec<f64> = (0..self.config.steps).map(|i| i as f64 * spacing).collect();
        let y = self.network.sequence(&self.ops, frame, &timesteps, previous)?;
        // strength as a share: this way of drawing adds no noise that could stand for it
        Ok((frame + ((y - frame)? * self.config.strength)?)?)
    }

    fn image_to_image(&self, plan: &Plan, frame: &Tensor, previous: &Tensor, noise: &mut Draws<'_>) -> Result<Tensor> {
        let start = self.noised(frame, &noise.next()?, plan.start)?;
        let condition = self.network.condition(&self.ops, &without_style(frame, previous))?;
        self.denoise(plan, start, &condition, noise)
    }

    fn restyled(&self, restyle: &Restyle, frame: &Tensor, inputs: &Inputs, noise: &mut Draws<'_>) -> Result<Tensor> {
        let start = noise.next()?;
        // before the second frame the first stands for both
        let history = match &inputs.history[..] {
            [] => None,
            [one] => Some([one, one]),
            [newer, older, ..] => Some([newer, older]),
        };
        let mut noised = |past: Option<&Tensor>| -> Result<Tensor> {
            let noise = noise.next()?;
            past.map_or(Ok(noise.clone()), |past| self.noised(past, &noise, restyle.history))
        };
        let images = [noised(history.map(|h| h[0]))?, noised(history.map(|h| h[1]))?];
        let last = self.network.timesteps() - 1;
        let given = Given {
            frame,
            history: [&images[0], &images[1]],
            history_timestep: history.map_or(last, |_| restyle.history_timestep) as f64,
            style: &mixed_with_none(&self.config.style, self.config.strength),
            memory: &inputs.memory.iter().map(|entry| entry.cells.clone()).collect::<Vec<_>>(),
        };
        let condition = self.network.condition(&self.ops, &given)?;
        self.denoise(&restyle.plans[usize::from(history.is_some())], start, &condition, noise)
    }

    /// `signal * image + noise * gaussian`, which is a sampler's step without an estimate of the frame.
    fn noised(&self, image: &Tensor, gaussian: &Tensor, shares: Start) -> Result<Tensor> {
        let step = Step {
            timestep: 0.0,
            input_scale: 1.0,
            x0_from_x: 0.0,
            x0_from_out: 0.0,
            clip: None,
            next_from_x: shares.signal,
            next_from_out: shares.noise,
            next_from_x0: 0.0,
            next_from_noise: 0.0,
        };
        Ok(self.ops.sampler_step(image, gaussian, None, &step)?)
    }

    /// All steps of a frame, from its noisy start.
    fn denoise(&self, plan: &Plan, start: Tensor, condition: &Condition, noise: &mut Draws<'_>) -> Result<Tensor> {
        let mut x = start;
        for step in &plan.steps {
            let input = if step.input_scale == 1.0 { x.clone() } else { (&x * step.input_scale)? };
            let output = self.network.call(&self.ops, &input, step.timestep, condition)?;
            let noise = if step.next_from_noise != 0.0 { Some(noise.next()?) } else { None };
            x = self.ops.sampler_step(&x, &output, noise.as_ref(), step)?;
        }
        Ok(x)
    }
}

/// What a network without styles is given: the frame before, as it was drawn.
fn without_style<'a>(frame: &'a Tensor, previous: &'a Tensor) -> Given<'a> {
    Given { frame, history: [previous; 2], history_timestep: 0.0, style: &[], memory: &[] }
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
