//! The kernels of `cuda-kernels/` in every slot but attention, and whole frames recorded as CUDA graphs.
mod elementwise;
mod norms;

use crate::cuda;
use crate::ops::Ops;
use crate::stages::fused_ops::STAGE;
use crate::stages::tensor_cores::{Layers, TensorCores};
use std::sync::Arc;

/// Replaces every slot but attention.
pub(super) fn install(ops: Ops) -> crate::Result<Ops> {
    let (device, dtype) = (&ops.device, ops.dtype);
    let layers = Arc::new(Layers { stage: STAGE, cores: Arc::new(TensorCores::load(device, dtype)?) });
    let kernels = cuda::Kernels::load(device)?;
    let norms = norms::Norms::load(&kernels, dtype, cuda::processors(device)?)?;
    let elementwise = Arc::new(elementwise::Elementwise::load(&kernels, dtype)?);
    Ok(Ops {
        conv2d: layers.clone(),
        geglu: layers.clone(),
        linear: layers,
        group_norm: Arc::new(norms::Slot { norms: norms.clone(), below: ops.group_norm }),
        layer_norm: Arc::new(norms::Slot { norms, below: ops.layer_norm }),
        resample: elementwise.clone(),
        sampler_step: elementwise.clone(),
        temporal_blend: elementwise,
        graphs: Some(cuda::graphs(device)?),
        ..ops
    })
}
