//! Weeks 3 and 5 to 8: channels-last activations, batch norms folded into the weights, and each convolution or linear
//! layer finished (bias, shift, activation, residual) before its result leaves the registers.
//!
//! A tensor that a slot returns is `(batch, channels, height, width)` to everyone who asks, and channels-last in
//! memory: the next slot finds it as it wants it, and a model need not know.
mod activations;
mod convolution;
pub mod cpu;
mod elementwise;
mod gpu;
mod matrix;
mod norms;

use crate::ops::Ops;
use crate::{Error, Result};
use candle_core::DType;
use cpu::Storage;
use std::sync::Arc;

/// The name in the probe.
const STAGE: &str = "fused-ops";

/// Replaces every slot but attention.
///
/// # Errors
/// On a GPU: storage in f32, which its kernels do not take, or a driver that cannot load them.
pub fn install(ops: Ops) -> Result<Ops> {
    if !ops.device.is_cpu() {
        if ops.dtype == DType::F32 {
            return Err(Error::Stage("fused-ops on a GPU takes half precision: add fp16 to --stages".into()));
        }
        return gpu::install(ops);
    }
    let storage = if ops.dtype == DType::F16 { Storage::F16 } else { Storage::F32 };
    Ok(Ops {
        conv2d: Arc::new(convolution::Fused(storage)),
        geglu: Arc::new(matrix::Fused(storage)),
        group_norm: Arc::new(norms::Fused),
        layer_norm: Arc::new(norms::Fused),
        linear: Arc::new(matrix::Fused(storage)),
        resample: Arc::new(elementwise::Fused),
        sampler_step: Arc::new(elementwise::Fused),
        temporal_blend: Arc::new(elementwise::Fused),
        ..ops
    })
}
