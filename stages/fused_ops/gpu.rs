//! The kernels of `cuda-kernels/` in every slot but attention, and whole frames recorded as CUDA graphs.
use super::STAGE;
use crate::cuda;
use crate::ops::Ops;
use crate::stages::memory_bound::{self, Code};
use crate::stages::tensor_cores::{Layers, TensorCores};
use std::sync::Arc;

/// Replaces every slot but attention.
pub(super) fn install(ops: Ops) -> crate::Result<Ops> {
    let layers = Arc::new(Layers { stage: STAGE, cores: Arc::new(TensorCores::load(&ops.device, ops.dtype)?) });
    let graphs = Some(cuda::graphs(&ops.device)?);
    let ops = memory_bound::install(ops, STAGE, Code::CudaCpp)?;
    Ok(Ops { conv2d: layers.clone(), geglu: layers.clone(), linear: layers, graphs, ..ops })
}
