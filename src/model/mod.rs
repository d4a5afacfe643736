//! The networks, each reading like its paper: no Cargo feature, no branch on a number type, no stage.

pub mod formula;
pub mod live;
pub mod reference;
mod safetensors_file;
mod spec;
mod style;
pub mod unet;
pub mod weights;

pub use live::Live;
pub(crate) use live::memory_cells;
pub use reference::{Reference, SEQUENCE};
pub use safetensors_file::SafetensorsFile;
pub use spec::{ModelSpec, PRESETS, Preset};
pub use style::StyleMix;
pub use weights::{Parameter, Scope, Weights};

use crate::Result;
use crate::ops::Ops;
use candle_core::Tensor;

/// What a stream knows when it draws a frame.
pub struct Given<'a> {
    /// The input frame, `(batch, 3, height, width)`, values in [-1, 1].
    pub frame: &'a Tensor,
    /// The two frames drawn last, newest first, with the noise of `history_timestep` on them; all noise where there is none.
    pub history: [&'a Tensor; 2],
    /// How noisy the history is, as a timestep.
    pub history_timestep: f64,
    /// A weight for each of the network's styles; they sum to 1. Empty for a network without styles.
    pub style: &'a [f64],
    /// What the context memory holds, oldest first: for each kept frame `(batch, 16, 6)`, the mean RGB of input and output in
    /// the cells of a 4x4 grid.
    pub memory: &'a [Tensor],
}

/// What a network makes of [`Given`], once for all calls of a frame.
pub struct Condition {
    /// Images that the network reads beside the sample, in the layout that it wants.
    pub planes: Tensor,
    /// Tokens for cross-attention, `(batch, n, width)`.
    pub tokens: Option<Tensor>,
    /// How noisy the history is, as a timestep.
    pub history_timestep: f64,
}

/// How a network that was trained on streams wants to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Restyling {
    /// Names of the styles; the first, `none`, leaves the input as it is.
    pub styles: Vec<String>,
    /// The noise that history is given, as a timestep.
    pub history_timestep: usize,
    /// Timesteps of a stream's first frame, which has to choose what later frames keep to.
    pub first_frame: Vec<usize>,
}

/// What a stream needs of a network: calls that redraw a frame, conditioned on those drawn before.
pub trait FrameNetwork: Send + Sync {
    /// Width and height must be multiples of this.
    fn multiple(&self) -> usize;
    /// The longest side that a frame is drawn at unless a size is asked for.
    fn usual_side(&self) -> usize;
    /// Timesteps of the diffusion process.
    fn timesteps(&self) -> usize;
    /// How it was trained to be run; `None` for a network without styles.
    fn restyling(&self) -> Option<&Restyling> {
        None
    }
    /// Heads of the attention whose query projection is the layer of this name; `None` for every other layer.
    fn heads(&self, _layer: &str) -> Option<usize> {
        None
    }
    /// Works out what all calls of a frame share.
    ///
    /// # Errors
    /// Shapes that the network does not take.
    fn condition(&self, ops: &Ops, given: &Given<'_>) -> Result<Condition>;
    /// One call: `x` is `(batch, 3, height, width)`, values around [-1, 1], `timestep` lies in `[0, timesteps)`; the result
    /// is the network's estimate of the frame itself, of the same shape.
    ///
    /// # Errors
    /// Shapes that the network does not take.
    fn call(&self, ops: &Ops, x: &Tensor, timestep: f64, condition: &Condition) -> Result<Tensor>;
    /// Calls at `timesteps` on one frame, each given the output of the one before it as the frame drawn before; the last output. For a
    /// network without styles. What does not depend on what other calls drew may be worked out for all at once.
    ///
    /// # Errors
    /// Shapes that the network does not take.
    fn sequence(&self, ops: &Ops, x: &Tensor, timesteps: &[f64], previous: &Tensor) -> Result<Tensor> {
        let mut y = previous.clone();
        for timestep in timesteps {
            y = call_alone(self, ops, x, *timestep, &y)?;
        }
        Ok(y)
    }
}

/// One call with everything that it is conditioned on worked out anew: the frame is `x`, the history `previous`, the style
/// the second where there are any. For measurement.
///
/// # Errors
/// Shapes that the network does not take.
pub fn call_alone<N: FrameNetwork + ?Sized>(
    network: &N,
    ops: &Ops,
    x: &Tensor,
    timestep: f64,
    previous: &Tensor,
) -> Result<Tensor> {
    let restyling = network.restyling();
    let styles = restyling.map_or(0, |r| r.styles.len());
    let given = Given {
        frame: x,
        history: [previous; 2],
        history_timestep: restyling.map_or(0.0, |r| r.history_timestep as f64),
        style: &(0..styles).map(|i| if i == 1 { 1.0 } else { 0.0 }).collect::<Vec<_>>(),
        memory: &[],
    };
    network.call(ops, x, timestep, &network.condition(ops, &given)?)
}

impl FrameNetwork for Reference {
    fn multiple(&self) -> usize {
        reference::MULTIPLE
    }

    fn usual_side(&self) -> usize {
        reference::USUAL_SIDE
    }

    fn timesteps(&self) -> usize {
        reference::TIMESTEPS
    }

    fn heads(&self, layer: &str) -> Option<usize> {
        layer.ends_with(".q_proj").then_some(reference::HEADS)
    }

    fn condition(&self, _: &Ops, given: &Given<'_>) -> Result<Condition> {
        let planes = given.history[0].clone();
        Ok(Condition { planes, tokens: None, history_timestep: given.history_timestep })
    }

    fn call(&self, ops: &Ops, x: &Tensor, timestep: f64, condition: &Condition) -> Result<Tensor> {
        self.forward(ops, x, timestep, &condition.planes)
    }

    fn sequence(&self, ops: &Ops, x: &Tensor, timesteps: &[f64], previous: &Tensor) -> Result<Tensor> {
        let mut outputs = Self::sequence(self, ops, x, timesteps, previous)?;
        outputs.pop().ok_or_else(|| crate::Error::Model("a sequence of no calls draws nothing".into()))
    }
}
