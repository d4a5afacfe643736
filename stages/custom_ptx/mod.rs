//! Weeks 4 and 9 to 12: kernels that say each instruction themselves.
//!
//! On cards of compute capability 9.0 (H100, H200), convolutions and linear layers ask for whole boxes of memory with one instruction, and
//! multiply them out of shared memory: `cuda-kernels/conv2d_hopper.cu`, for 3x3 kernels `conv3x3_hopper.cu`, for few pixels
//! `conv2d_narrow_hopper.cu`, whose instructions are those of `hopper.cuh`. Where asked for, the weights of large layers are stored in eight bits:
//! `conv2d_narrow_hopper.cu` again, and `conv2d_fp8.cu` for what that cannot take. Other cards, from 8.0 on, have the convolutions of
//! `fused-ops` in their place.
//!
//! On all of them, attention reads short heads where the projection left them (`cuda-kernels/attention.cu`), and what waits for memory only
//! is written in PTX (`cuda-kernels/ptx/*.ptx`).
mod attention;

use crate::ops::Ops;
use crate::stages::memory_bound::{self, Code};
use crate::stages::tensor_cores::{Layers, TensorCores};
use crate::{Error, Result};
use candle_core::DType;
use std::sync::Arc;

/// The name in the probe.
const STAGE: &str = "custom-ptx";

/// Replaces every slot.
///
/// # Errors
/// Storage in f32, weights in eight bits on a card that is not of compute capability 9.0, or a driver that cannot load the kernels.
pub fn install(ops: Ops) -> Result<Ops> {
    if ops.dtype == DType::F32 {
        return Err(Error::Stage("custom-ptx takes half precision: add fp16 to --stages".into()));
    }
    let cores = Arc::new(TensorCores::load_all(&ops.device, ops.dtype, ops.weights)?);
    let layers = Arc::new(Layers { stage: STAGE, cores });
    let ops = memory_bound::install(ops, STAGE, Code::Ptx)?;
    let attention = Arc::new(attention::ShortHeads::load(&ops.device, ops.dtype, ops.attention)?);
    Ok(Ops { attention, conv2d: layers.clone(), geglu: layers.clone(), linear: layers, ..ops })
}
