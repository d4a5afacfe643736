//! Week 1: weights and activations in f16 (or bf16), every sum in f32. What changes against the rung below: storage, and on a GPU
//! the tensor cores that take such numbers.
mod gpu;
mod half;

use super::tensor_cores::TensorCores;
use crate::ops::Ops;
use crate::{Error, Result};
use candle_core::DType;
use half::Half;
use std::sync::Arc;

/// The name in the probe.
const STAGE: &str = "fp16";

/// Halves the storage of every slot, to the half-precision type that the slots were asked for.
///
/// # Errors
/// bf16 on a CPU, or a GPU that cannot load the kernels.
pub fn install(ops: Ops) -> Result<Ops> {
    let dtype = ops.half;
    let ops = Ops {
        dtype,
        attention: Arc::new(Half(ops.attention, dtype)),
        conv2d: Arc::new(Half(ops.conv2d, dtype)),
        geglu: Arc::new(Half(ops.geglu, dtype)),
        group_norm: Arc::new(Half(ops.group_norm, dtype)),
        layer_norm: Arc::new(Half(ops.layer_norm, dtype)),
        linear: Arc::new(Half(ops.linear, dtype)),
        resample: Arc::new(Half(ops.resample, dtype)),
        sampler_step: Arc::new(Half(ops.sampler_step, dtype)),
        temporal_blend: Arc::new(Half(ops.temporal_blend, dtype)),
        ..ops
    };
    if ops.device.is_cpu() {
        if dtype != DType::F16 {
            return Err(Error::Stage(
                "on a CPU fp16 stores f16 only: leave --dtype out, or choose --device cuda".into(),
            ));
        }
        return Ok(ops);
    }
    let attention = gpu::PlainAttention::load(&ops.device, dtype)?;
    let sums = Arc::new(gpu::Sums(Arc::new(TensorCores::load(&ops.device, dtype)?)));
    Ok(Ops { attention: Arc::new(attention), conv2d: sums.clone(), geglu: sums.clone(), linear: sums, ..ops })
}
