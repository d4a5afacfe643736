//! Week 1: weights and activations in f16, every sum in f32. What changes against the rung below: storage only.
mod cpu;

use crate::ops::Ops;
use crate::{Error, Result};
use candle_core::DType;
use std::sync::Arc;

/// Halves the storage of every slot.
///
/// # Errors
/// A device other than the CPU.
pub fn install(ops: Ops) -> Result<Ops> {
    if !ops.device.is_cpu() {
        return Err(Error::Stage("fp16 runs on the CPU only in this version: leave it out of --stages".into()));
    }
    Ok(Ops {
        dtype: DType::F16,
        attention: Arc::new(cpu::Half(ops.attention)),
        conv2d: Arc::new(cpu::Half(ops.conv2d)),
        geglu: Arc::new(cpu::Half(ops.geglu)),
        group_norm: Arc::new(cpu::Half(ops.group_norm)),
        layer_norm: Arc::new(cpu::Half(ops.layer_norm)),
        linear: Arc::new(cpu::Half(ops.linear)),
        resample: Arc::new(cpu::Half(ops.resample)),
        sampler_step: Arc::new(cpu::Half(ops.sampler_step)),
        temporal_blend: Arc::new(cpu::Half(ops.temporal_blend)),
        ..ops
    })
}
