//! Week 2: attention without the tokens x tokens matrix. What changes against the rung below: this one slot.
pub mod cpu;
mod gpu;

use crate::cuda;
use crate::ops::{Attention, Ops};
use crate::{Error, Result};
use candle_core::{CpuStorage, DType, Device, Layout, Storage, Tensor};
use cpu::{HeadLayout, Heads, HeadsMut};
use half::f16;
use std::sync::Arc;

/// Replaces attention.
///
/// # Errors
/// On a GPU: a build without its kernels, or storage in f32, which they do not take.
pub fn install(ops: Ops) -> Result<Ops> {
    if ops.device.is_cpu() {
        return Ok(Ops { attention: Arc::new(Tiled), ..ops });
    }
    if !cuda::FLASH_ATTN {
        let why = "flash-attn on a GPU is not in this build: build with `--features flash-attn-cuda`, or leave it out of --stages";
        return Err(Error::Stage(why.into()));
    }
    if ops.dtype == DType::F32 {
        return Err(Error::Stage("flash-attn on a GPU takes half precision: add fp16 to --stages".into()));
    }
    let flash = gpu::Flash::load(&ops.device, ops.dtype)?;
    Ok(Ops { attention: Arc::new(flash), ..ops })
}

/// Tiles and an online softmax; reads its inputs where they lie, as long as each head's values lie together.
struct Tiled;

impl Attention for Tiled {
    fn stage(&self) -> &'static str {
        "flash-attn"
    }

    fn run(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> candle_core::Result<Tensor> {
        let (batch, heads, tokens, head_dim) = q.dims4()?;
        let [q, k, v] = [dense_heads(q)?, dense_heads(k)?, dense_heads(v)?];
        let (q, k, v) = (q.storage_and_layout(), k.storage_and_layout(), v.storage_and_layout());
        // written tokens-major, as the next projection reads it
        let count = batch * heads * tokens * head_dim;
        let layout = HeadLayout::tokens_major(batch, heads, tokens, head_dim);
        let shape = (batch, tokens, heads, head_dim);
        let refused = |e: cpu::AttentionError| candle_core::Error::Msg(e.to_string());
        let scale = scale as f32;
        let y = match (&*q.0, &*k.0, &*v.0) {
            (
                Storage::Cpu(CpuStorage::F32(qs)),
                Storage::Cpu(CpuStorage::F32(ks)),
                Storage::Cpu(CpuStorage::F32(vs)),
            ) => {
                let mut values = vec![0f32; count];
                let out = HeadsMut { values: &mut values, layout };
                cpu::attention(lend(qs, q.1)?, lend(ks, k.1)?, lend(vs, v.1)?, scale, out).map_err(refused)?;
                Tensor::from_vec(values, shape, &Device::Cpu)?
            }
            (
                Storage::Cpu(CpuStorage::F16(qs)),
                Storage::Cpu(CpuStorage::F16(ks)),
                Storage::Cpu(CpuStorage::F16(vs)),
            ) => {
                let mut values = vec![f16::ZERO; count];
                let out = HeadsMut { values: &mut values, layout };
                cpu::attention(lend(qs, q.1)?, lend(ks, k.1)?, lend(vs, v.1)?, scale, out).map_err(refused)?;
                Tensor::from_vec(values, shape, &Device::Cpu)?
            }
            _ => candle_core::bail!("flash-attn takes queries, keys and values that are all f32 or all f16"),
        };
        y.transpose(1, 2)
    }
}

/// Copies only a tensor in which the values of a head do not lie together.
fn dense_heads(t: &Tensor) -> candle_core::Result<Tensor> {
    if t.dim(3)? == 1 || t.stride()[3] == 1 { Ok(t.clone()) } else { t.contiguous() }
}

fn lend<'a, T>(values: &'a [T], layout: &Layout) -> candle_core::Result<Heads<'a, T>> {
    let (batch, heads, tokens, head_dim) = layout.shape().dims4()?;
    let stride = layout.stride();
    Ok(Heads {
        values: &values[layout.start_offset()..],
        layout: HeadLayout {
            batch,
            heads,
            tokens,
            head_dim,
            batch_stride: stride[0],
            head_stride: stride[1],
            token_stride: stride[2],
        },
    })
}
