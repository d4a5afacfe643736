//! Hand-written PTX. The kernels come with a later rung of the roadmap; off an NVIDIA GPU there is nothing to run them.
use crate::ops::Ops;
use crate::{Error, Result};

/// Refuses, with the reason.
pub fn install(ops: Ops) -> Result<Ops> {
    Err(Error::Stage(if ops.device.is_cuda() {
        "custom-ptx has no kernels for this GPU yet: leave it out of --stages".to_owned()
    } else {
        "custom-ptx is PTX, the assembly of NVIDIA GPUs, and this device is a CPU: leave it out of --stages, or choose --device cuda".to_owned()
    }))
}
