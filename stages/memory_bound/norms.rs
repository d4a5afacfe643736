//! Group normalisation with SiLU in two launches, layer normalisation in one.
use super::{Code, Source, int};
use crate::cuda::{self, Grid, Kernel, Kernels, Params};
use crate::ops::Activation;
use crate::ops::group_norm::{GroupNorm, GroupNormKernel, GroupNormParams};
use crate::ops::layer_norm::{LayerNorm, LayerNormKernel, LayerNormParams};
use crate::stages::tensor_cores::{Ending, channels_last};
use candle_core::{DType, Device, Result, Tensor};
use std::sync::Arc;

/// More channels than this have no room in a block; the rung below takes them.
const WIDEST: usize = 4096;
/// Threads of a block, as in `norm.cu`.
const THREADS: usize = 256;
/// A row up to this wide is one warp's, a wider one four warps'.
const WARP_ROW: usize = 1024;

/// The kernels for one storage type, each for channels by eights and for any.
pub(super) struct Norms {
    stage: &'static str,
    dtype: DType,
    code: Code,
    processors: u32,
    sums: [Kernel; 2],
    apply: [Kernel; 2],
    narrow: [Kernel; 2],
    wide: [Kernel; 2],
}

impl Norms {
    pub fn load(device: &Device, dtype: DType, stage: &'static str, code: Code) -> crate::Result<Self> {
        let norm = Kernels::load(device, "norm")?;
        let source = |file: &str| Source::load(device, dtype, code, &norm, file);
        let layer_norm = source("layer_norm")?;
        Ok(Self {
            stage,
            dtype,
            code,
            processors: cuda::processors(device)?,
            sums: source("group_norm_sums")?.both("group_norm_sums", (2 * WIDEST * 4) as u32)?,
            apply: source("group_norm_apply")?.both("group_norm_apply", (2 * WIDEST * 4) as u32)?,
            narrow: layer_norm.both("layer_norm_32", 0)?,
            wide: layer_norm.both("layer_norm_128", 0)?,
        })
    }

    /// Which of two kernels takes values that begin there, of so many channels, followed by this. Those in PTX know no GELU, which no network has behind a norm.
    fn which(&self, x: u64, channels: usize, activation: Activation) -> usize {
        let known = self.code == Code::CudaCpp || activation != Activation::Gelu;
        usize::from(!channels.is_multiple_of(8) || !x.is_multiple_of(16) || !known)
    }
}

/// A norm's slot; `below` takes what is too wide for a block.
pub(super) struct Slot<T: ?Sized> {
    pub norms: Arc<Norms>,
    pub below: Arc<T>,
}

/// A norm's parameters in f32, in memory of their own: kernels read them 16 bytes at a time, and a part of a tensor may begin anywhere.
fn wide(t: &Tensor) -> Result<Tensor> {
    t.to_dtype(DType::F32)?.force_contiguous()
}

struct FusedGroupNorm {
    norms: Arc<Norms>,
    params: GroupNormParams,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct GroupNormArguments {
    x: u64,
    weight: u64,
    bias: u64,
    y: u64,
    partial: u64,
    pixels: i32,
    channels: i32,
    groups: i32,
    blocks: i32,
    pixels_per_block: i32,
    activation: i32,
    eps: f32,
}

// SAFETY: the fields are those of `GroupNormParams` in cuda-kernels/norm.cu, and cuda-kernels/ptx reads
// it so too; `run` below fills it from tensors of the sizes it names.
unsafe impl Params for GroupNormArguments {}

impl GroupNorm for Slot<dyn GroupNorm> {
    fn stage(&self) -> &'static str {
        self.norms.stage
    }

    fn prepare(&self, p: GroupNormParams) -> Result<Box<dyn GroupNormKernel>> {
        let channels = p.weight.dim(0)?;
        if p.groups == 0 || !channels.is_multiple_of(p.groups) || p.bias.dims() != [channels] {
            candle_core::bail!("{channels} channels with {:?} addends do not make {} groups", p.bias.dims(), p.groups);
        }
        if channels > WIDEST {
            return self.below.prepare(p);
        }
        let params = GroupNormParams { weight: wide(&p.weight)?, bias: wide(&p.bias)?, ..p };
        Ok(Box::new(FusedGroupNorm { norms: self.norms.clone(), params }))
    }
}

impl GroupNormKernel for FusedGroupNorm {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        let (norms, p) = (&self.norms, &self.params);
        let x = channels_last(x)?;
        let (batch, height, width, channels) = x.dims4()?;
        if p.weight.dims() != [channels] || x.dtype() != norms.dtype {
            candle_core::bail!(
                "a norm of {:?} channels in {:?} was given {:?} of {channels}",
                p.weight.dims(),
                norms.dtype,
                x.dtype()
            );
        }
        let pixels = height * width;
        let which = norms.which(cuda::address(&x)?, channels, p.activation);
        let columns = channels / if which == 0 { 8 } else { 1 };
        // rows of threads that a block has for its pixels; each row should have a few of them
        let rows = (THREADS / columns).max(1);
        let wanted = (2 * norms.processors as usize / batch).max(1);
        let pixels_per_block = pixels.div_ceil(wanted).max(4 * rows).next_multiple_of(rows);
        let blocks = pixels.div_ceil(pixels_per_block);
        // SAFETY: both are written in full before the stream reads them.
        let (y, partial) = unsafe {
            (
                cuda::output(x.shape(), norms.dtype, x.device())?,
                cuda::output((batch, blocks, p.groups, 2), DType::F32, x.device())?,
            )
        };
        let arguments = GroupNormArguments {
            x: cuda::address(&x)?,
            weight: cuda::address(&p.weight)?,
            bias: cuda::address(&p.bias)?,
            y: cuda::address(&y)?,
            partial: cuda::address(&partial)?,
            pixels: int(pixels)?,
            channels: int(channels)?,
            groups: int(p.groups)?,
            blocks: int(blocks)?,
            pixels_per_block: int(pixels_per_block)?,
            activation: Ending::from(p.activation) as i32,
            eps: p.eps as f32,
        };
        let grid = |shared: usize| Grid {
            blocks: [blocks as u32, batch as u32, 1],
            threads: THREADS as u32,
            shared: shared as u32,
            cluster: 1,
        };
        // SAFETY: each tensor has the shape that `arguments` says, and the shared memory is what `norm.cu` counts on.
        unsafe {
            norms.sums[which].launch(grid(2 * 4 * rows * channels), arguments)?;
            norms.apply[which].launch(grid(2 * 4 * p.groups), arguments)?;
        }
        y.permute((0, 3, 1, 2))
    }
}

struct FusedLayerNorm {
    norms: Arc<Norms>,
    params: LayerNormParams,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct LayerNormArguments {
    x: u64,
    weight: u64,
    bias: u64,
    y: u64,
    rows: i32,
    width: i32,
    eps: f32,
}

// SAFETY: the fields are those of `LayerNormParams` in cuda-kernels/norm.cu, and cuda-kernels/ptx reads
// it so too; `run` below fills it from tensors of the sizes it names.
unsafe impl Params for LayerNormArguments {}

impl LayerNorm for Slot<dyn LayerNorm> {
    fn stage(&self) -> &'static str {
        self.norms.stage
    }

    fn prepare(&self, p: LayerNormParams) -> Result<Box<dyn LayerNormKernel>> {
        if p.weight.dims() != p.bias.dims() {
            candle_core::bail!("factors {:?} and addends {:?} of a norm differ", p.weight.dims(), p.bias.dims());
        }
        if p.weight.dim(0)? > WIDEST {
            return self.below.prepare(p);
        }
        let params = LayerNormParams { weight: wide(&p.weight)?, bias: wide(&p.bias)?, ..p };
        Ok(Box::new(FusedLayerNorm { norms: self.norms.clone(), params }))
    }
}

impl LayerNormKernel for FusedLayerNorm {
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        let (norms, p) = (&self.norms, &self.params);
        let x = x.contiguous()?;
        let width = x.dim(candle_core::D::Minus1)?;
        if p.weight.dims() != [width] || x.dtype() != norms.dtype {
            candle_core::bail!(
                "a norm over {:?} in {:?} was given {:?} {:?}",
                p.weight.dims(),
                norms.dtype,
                x.dtype(),
                x.dims()
            );
        }
        let rows = x.elem_count() / width;
        let which = norms.which(cuda::address(&x)?, width, Activation::None);
        // a thread holds 32 values of a row
        let (kernel, team) = if width <= WARP_ROW { (&norms.narrow[which], 32) } else { (&norms.wide[which], 128) };
        // SAFETY: written in full before the stream reads it.
        let y = unsafe { cuda::output(x.shape(), norms.dtype, x.device()) }?;
        let arguments = LayerNormArguments {
            x: cuda::address(&x)?,
            weight: cuda::address(&p.weight)?,
            bias: cuda::address(&p.bias)?,
            y: cuda::address(&y)?,
            rows: int(rows)?,
            width: int(width)?,
            eps: p.eps as f32,
        };
        let blocks = int(rows.div_ceil(THREADS / team))?.unsigned_abs();
        // SAFETY: each tensor has the shape that `arguments` says.
        unsafe {
            kernel.launch(Grid { blocks: [blocks, 1, 1], threads: THREADS as u32, shared: 0, cluster: 1 }, arguments)
        }?;
        Ok(y)
    }
}
