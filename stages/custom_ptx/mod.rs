//! Hand-written PTX, for NVIDIA GPUs only. The kernels come with a later rung of the roadmap.
use crate::ops::Ops;
use crate::{Error, Result};

/// Refuses, with the reason; the ladder has refused any device but an NVIDIA GPU before.
pub fn install(_: Ops) -> Result<Ops> {
    Err(Error::Stage("stage custom-ptx has no kernels for this GPU yet: leave it out of --stages".to_owned()))
}
