//! Changes of resolution, the sampler's update and the temporal blend, one launch each.
use super::{Code, Source, Streaming, in_pieces, int};
use crate::cuda::{self, Grid, Kernel, Kernels, Params};
use crate::diffusion::Step;
use crate::ops::resample::{Filter, Resample};
use crate::ops::sampler_step::SamplerStep;
use crate::ops::temporal_blend::{Blend, TemporalBlend};
use crate::stages::tensor_cores::channels_last;
use candle_core::{DType, Device, Result, Tensor};

/// The kernels for one storage type; those that work on channels, for channels by eights and for any.
pub(super) struct Elementwise {
    stage: &'static str,
    dtype: DType,
    code: Code,
    max_pool_2: [Kernel; 2],
    bilinear_2: [Kernel; 2],
    nearest_2: [Kernel; 2],
    sampler_step: Streaming,
    temporal_blend: Streaming,
}

impl Elementwise {
    pub fn load(device: &Device, dtype: DType, stage: &'static str, code: Code) -> crate::Result<Self> {
        let elementwise = Kernels::load(device, "elementwise")?;
        let source = |file: &str| Source::load(device, dtype, code, &elementwise, file);
        let (resample, frame) = (source("resample")?, source("frame")?);
        Ok(Self {
            stage,
            dtype,
            code,
            max_pool_2: resample.both("max_pool_2", 0)?,
            bilinear_2: resample.both("bilinear_2", 0)?,
            nearest_2: resample.both("nearest_2", 0)?,
            sampler_step: Streaming::load(&frame, "sampler_step")?,
            temporal_blend: Streaming::load(&frame, "temporal_blend")?,
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

// SAFETY: the fields are those of `ResampleParams` in cuda-kernels/elementwise.cu, and cuda-kernels/ptx reads
// it so too; `run` below fills it from tensors of the sizes it names.
unsafe impl Params for ResampleArguments {}

impl Resample for Elementwise {
    fn stage(&self) -> &'static str {
        self.stage
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
        let y = unsafe { cuda::output((batch, height_out, width_out, channels), self.dtype, x.device()) }?;
        let arguments = ResampleArguments {
            x: cuda::address(&x)?,
            y: cuda::address(&y)?,
            batch: int(batch)?,
            height: int(height)?,
            width: int(width)?,
            channels: int(channels)?,
        };
        let eights = in_pieces(x.elem_count().max(y.elem_count()), channels, &[arguments.x]);
        let (kernel, threads) = match (eights, self.code, filter) {
            (false, ..) => (&kernels[1], y.elem_count()),
            // a thread writes all four outputs of an input, or all those between the same four inputs
            (true, Code::Ptx, Filter::Nearest2) => (&kernels[0], x.elem_count() / 8),
            (true, Code::Ptx, Filter::Bilinear2) => (&kernels[0], batch * (height + 1) * (width + 1) * channels / 8),
            (true, ..) => (&kernels[0], y.elem_count() / 8),
        };
        // SAFETY: each tensor has the shape that `arguments` says, and the grid is what the kernel counts on.
        unsafe { kernel.launch(Grid::over(threads)?, arguments) }?;
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

// SAFETY: the fields are those of `SamplerParams` in cuda-kernels/elementwise.cu, and cuda-kernels/ptx reads
// it so too; `run` below fills it from tensors of one shape.
unsafe impl Params for SamplerArguments {}

impl SamplerStep for Elementwise {
    fn stage(&self) -> &'static str {
        self.stage
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
        let y = unsafe { cuda::output(shape, self.dtype, x.device()) }?;
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
        let count = y.elem_count();
        let addresses = [arguments.x, arguments.output, arguments.noise, arguments.y];
        let (kernel, each) = self.sampler_step.choose(count, count, addresses);
        // SAFETY: each tensor has as many values as `arguments` says.
        unsafe { kernel.launch(Grid::over(count / each)?, arguments) }?;
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

// SAFETY: the fields are those of `BlendParams` in cuda-kernels/elementwise.cu, and cuda-kernels/ptx reads
// it so too; `run` below fills it from tensors of the sizes it names.
unsafe impl Params for BlendArguments {}

impl TemporalBlend for Elementwise {
    fn stage(&self) -> &'static str {
        self.stage
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
        let y = unsafe { cuda::output(&shape[..], self.dtype, current.device()) }?;
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
        // eight values have eight alphas side by side where they are of one channel
        let (count, pixels) = (y.elem_count(), height * width);
        let addresses = [arguments.current, arguments.previous, arguments.map, arguments.y];
        let (kernel, each) = self.temporal_blend.choose(count, if map.is_some() { pixels } else { count }, addresses);
        // SAFETY: each tensor has the shape that `arguments` says.
        unsafe { kernel.launch(Grid::over(count / each)?, arguments) }?;
        Ok(y)
    }
}
