//! Changes of resolution, the sampler's update and the temporal blend, one launch each.
use crate::cuda::{self, Grid, Kernel, Kernels, Params};
use crate::diffusion::Step;
use crate::ops::resample::{Filter, Resample};
use crate::ops::sampler_step::SamplerStep;
use crate::ops::temporal_blend::{Blend, TemporalBlend};
use crate::stages::fused_ops::STAGE;
use crate::stages::tensor_cores::{channels_last, type_name};
use candle_core::{DType, Result, Tensor};

/// The kernels for one storage type; those that work on channels, for channels by eights and for any.
pub(super) struct Elementwise {
    dtype: DType,
    max_pool_2: [Kernel; 2],
    bilinear_2: [Kernel; 2],
    nearest_2: [Kernel; 2],
    sampler_step: Kernel,
    temporal_blend: Kernel,
}

impl Elementwise {
    pub fn load(kernels: &Kernels, dtype: DType) -> crate::Result<Self> {
        let name = type_name(dtype)?;
        let get = |kernel: &str, ending: &str| kernels.get(&format!("{kernel}_{name}{ending}"), 0);
        let both = |kernel: &str| -> crate::Result<[Kernel; 2]> { Ok([get(kernel, "")?, get(kernel, "_any")?]) };
        Ok(Self {
            dtype,
            max_pool_2: both("max_pool_2")?,
            bilinear_2: both("bilinear_2")?,
            nearest_2: both("nearest_2")?,
            sampler_step: get("sampler_step", "")?,
            temporal_blend: get("temporal_blend", "")?,
        })
    }

    /// A contiguous operand in the storage type.
    fn operand(&self, t: &Tensor, shape: &[usize]) -> Result<Tensor> {
        if t.dims() != shape || t.dtype() != self.dtype {
            candle_core::bail!("{:?} {:?} where {:?} {shape:?} is needed", t.dtype(), t.dims(), self.dtype);
        }
        t.contiguous()
    }
}

fn int(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(candle_core::Error::wrap)
}

fn long(n: usize) -> Result<i64> {
    i64::try_from(n).map_err(candle_core::Error::wrap)
}

#[derive(Clone, Copy)]
#[repr(C)]
struct ResampleArguments {
    x: u64,
    y: u64,
    batch: i32,
    height: i32,
    width: i32,
    channels: i32,
}

// SAFETY: the fields are those of `ResampleParams` in cuda-kernels/elementwise.cu; `run` below fills it from tensors of the sizes it names.
unsafe impl Params for ResampleArguments {}

impl Resample for Elementwise {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, x: &Tensor, filter: Filter) -> Result<Tensor> {
        let x = channels_last(x)?;
        let (batch, height, width, channels) = x.dims4()?;
        let x = self.operand(&x, &[batch, height, width, channels])?;
        let (kernels, height_out, width_out) = match filter {
            Filter::MaxPool2 => (&self.max_pool_2, height / 2, width / 2),
            Filter::Bilinear2 => (&self.bilinear_2, height * 2, width * 2),
            Filter::Nearest2 => (&self.nearest_2, height * 2, width * 2),
        };
        if height_out * width_out == 0 {
            candle_core::bail!("{height}x{width} pixels cannot be halved");
        }
        // SAFETY: the kernel below writes every value before the stream reads one.
        let y = unsafe { Tensor::empty((batch, height_out, width_out, channels), self.dtype, x.device()) }?;
        let arguments = ResampleArguments {
            x: cuda::address(&x)?,
            y: cuda::address(&y)?,
            batch: int(batch)?,
            height: int(height)?,
            width: int(width)?,
            channels: int(channels)?,
        };
        let (kernel, step) = if channels.is_multiple_of(8) { (&kernels[0], 8) } else { (&kernels[1], 1) };
        // SAFETY: each tensor has the shape that `arguments` says.
        unsafe { kernel.launch(Grid::over(y.elem_count() / step)?, arguments) }?;
        y.permute((0, 3, 1, 2))
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct SamplerArguments {
    x: u64,
    output: u64,
    noise: u64,
    y: u64,
    count: i64,
    x0_from_x: f32,
    x0_from_out: f32,
    clip: f32,
    next_from_x: f32,
    next_from_out: f32,
    next_from_x0: f32,
    next_from_noise: f32,
}

// SAFETY: the fields are those of `SamplerParams` in cuda-kernels/elementwise.cu; `run` below fills it from tensors of one shape.
unsafe impl Params for SamplerArguments {}

impl SamplerStep for Elementwise {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, x: &Tensor, output: &Tensor, noise: Option<&Tensor>, step: &Step) -> Result<Tensor> {
        let shape = x.dims();
        let noise = noise.filter(|_| step.next_from_noise != 0.0);
        if noise.is_none() && step.next_from_noise != 0.0 {
            candle_core::bail!("this sampler step needs noise and got none");
        }
        let (x, output) = (self.operand(x, shape)?, self.operand(output, shape)?);
        let noise = noise.map(|noise| self.operand(noise, shape)).transpose()?;
        // SAFETY: the kernel below writes every value before the stream reads one.
        let y = unsafe { Tensor::empty(shape, self.dtype, x.device()) }?;
        let arguments = SamplerArguments {
            x: cuda::address(&x)?,
            output: cuda::address(&output)?,
            noise: noise.as_ref().map_or(Ok(0), cuda::address)?,
            y: cuda::address(&y)?,
            count: long(y.elem_count())?,
            x0_from_x: step.x0_from_x as f32,
            x0_from_out: step.x0_from_out as f32,
            clip: step.clip.unwrap_or(0.0) as f32,
            next_from_x: step.next_from_x as f32,
            next_from_out: step.next_from_out as f32,
            next_from_x0: step.next_from_x0 as f32,
            next_from_noise: step.next_from_noise as f32,
        };
        // SAFETY: each tensor has as many values as `arguments` says.
        unsafe { self.sampler_step.launch(Grid::over(y.elem_count())?, arguments) }?;
        Ok(y)
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct BlendArguments {
    current: u64,
    previous: u64,
    map: u64,
    y: u64,
    count: i64,
    channels: i32,
    pixels: i32,
    alpha: f32,
}

// SAFETY: the fields are those of `BlendParams` in cuda-kernels/elementwise.cu; `run` below fills it from tensors of the sizes it names.
unsafe impl Params for BlendArguments {}

impl TemporalBlend for Elementwise {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, current: &Tensor, previous: &Tensor, alpha: Blend<'_>) -> Result<Tensor> {
        let (batch, channels, height, width) = current.dims4()?;
        let shape = [batch, channels, height, width];
        let (current, previous) = (self.operand(current, &shape)?, self.operand(previous, &shape)?);
        let (map, alpha) = match alpha {
            Blend::Fixed(alpha) => (None, alpha),
            Blend::Map(map) => (Some(self.operand(map, &[batch, 1, height, width])?), 0.0),
        };
        // SAFETY: the kernel below writes every value before the stream reads one.
        let y = unsafe { Tensor::empty(&shape[..], self.dtype, current.device()) }?;
        let arguments = BlendArguments {
            current: cuda::address(&current)?,
            previous: cuda::address(&previous)?,
            map: map.as_ref().map_or(Ok(0), cuda::address)?,
            y: cuda::address(&y)?,
            count: long(y.elem_count())?,
            channels: int(channels)?,
            pixels: int(height * width)?,
            alpha: alpha as f32,
        };
        // SAFETY: each tensor has the shape that `arguments` says.
        unsafe { self.temporal_blend.launch(Grid::over(y.elem_count())?, arguments) }?;
        Ok(y)
    }
}
