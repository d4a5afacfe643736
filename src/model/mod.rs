//! The networks, each reading like its paper: no Cargo feature, no branch on a number type, no stage.

pub mod formula;
pub mod reference;
mod safetensors_file;
mod spec;
pub mod unet;
pub mod weights;

pub use reference::Reference;
pub use safetensors_file::SafetensorsFile;
pub use spec::{ModelSpec, PRESETS, Preset};
pub use weights::{Parameter, Scope, Weights};

use crate::Result;
use crate::ops::Ops;
use candle_core::Tensor;

/// What a stream needs of a network: one call that redraws a frame, conditioned on the one drawn before.
pub trait FrameNetwork: Send + Sync {
    /// Width and height must be multiples of this.
    fn multiple(&self) -> usize;
    /// The longest side that a frame is drawn at unless a size is asked for.
    fn usual_side(&self) -> usize;
    /// Timesteps of the diffusion process.
    fn timesteps(&self) -> usize;
    /// One call: `x` and `previous` are `(batch, 3, height, width)`, values around [-1, 1], `timestep` lies in
    /// `[0, timesteps)`; the result is the network's estimate of the frame itself, of the same shape.
    ///
    /// # Errors
    /// Shapes that the network does not take.
    fn call(&self, ops: &Ops, x: &Tensor, timestep: f64, previous: &Tensor) -> Result<Tensor>;
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

    fn call(&self, ops: &Ops, x: &Tensor, timestep: f64, previous: &Tensor) -> Result<Tensor> {
        self.forward(ops, x, timestep, previous)
    }
}
