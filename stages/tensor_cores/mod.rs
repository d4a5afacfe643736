//! Convolutions and linear layers on a GPU's tensor cores: weights packed for `cuda-kernels/conv2d.cu`, and its launch.
//!
//! Three stages share it: `fp16` takes the bare sums and finishes them in a pass of its own, `fused-ops` finishes them before they
//! leave the processor, and `custom-ptx` does the same with what only compute capability 9.0 has.
mod divisor;
mod epilogue;
mod hopper;
mod layers;
mod plan;
mod weights;

pub use epilogue::Epilogue;
pub use layers::{Layers, channels_last};
pub use weights::{PackedWeights, fold_batch_norm, interleave_gates};

use crate::cuda::{self, Kernel, Kernels, Params};
use crate::ops::Activation;
use candle_core::{DType, Device, Result, Tensor};
use divisor::Divisor;
use hopper::{Hopper, Layer};
use plan::{Plan, TILES, WORKSPACE_BYTES, WORKSPACE_TILES};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What follows a sum. The numbers are those of `common.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Ending {
    /// Nothing.
    None = 0,
    /// SiLU.
    Silu = 1,
    /// GELU (erf).
    Gelu = 2,
    /// Neighbouring outputs are a hidden value and its gate: their product through GELU.
    Geglu = 3,
}

impl From<Activation> for Ending {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::None => Self::None,
            Activation::Silu => Self::Silu,
            Activation::Gelu => Self::Gelu,
        }
    }
}

/// The name that kernels for a storage type carry.
///
/// # Errors
/// A type that the kernels do not store.
pub fn type_name(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F16 => Ok("f16"),
        DType::BF16 => Ok("bf16"),
        other => candle_core::bail!("these kernels store f16 or bf16, not {other:?}: add fp16 to --stages"),
    }
}

/// The layer after another: its weights, once it is known.
type Next = Arc<Mutex<Option<Tensor>>>;

/// Bytes of the next layer's weights that are fetched ahead: more than a part of the second-level cache would push out what is
/// in use.
const PREFETCHED: usize = 12 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernels on one GPU for one storage type, and the memory in which split sums meet.
pub struct TensorCores {
    dtype: DType,
    tiles: Vec<(Kernel, u32)>,
    any: Kernel,
    epilogue: Kernel,
    processors: u32,
    partial: Tensor,
    arrivals: Tensor,
    /// Of the layer that ran last.
    before: Mutex<Option<Next>>,
    scratch: Mutex<Option<Tensor>>,
    hopper: Option<Hopper>,
}

/// What a call of a layer takes: images as `(batch, height, width, channels)`, contiguous, in the storage type.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The image.
    pub x: &'a Tensor,
    /// Channels after those of `x`.
    pub skip: Option<&'a Tensor>,
    /// Step between output pixels, and zeros on each side.
    pub stride: usize,
    /// See `stride`.
    pub padding: usize,
}

/// What is done to the sums before they are stored, in this order.
#[derive(Clone, Copy)]
pub struct Finish<'a> {
    /// `(outputs)` in f32.
    pub bias: Option<&'a Tensor>,
    /// `(batch, outputs)` in the storage type.
    pub shift: Option<&'a Tensor>,
    /// What follows.
    pub ending: Ending,
    /// As the result.
    pub residual: Option<&'a Tensor>,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Conv2dParams {
    x: u64,
    skip: u64,
    weight: u64,
    bias: u64,
    shift: u64,
    residual: u64,
    y: u64,
    partial: u64,
    arrivals: u64,
    batch: i32,
    height: i32,
    width: i32,
    channels: i32,
    skip_channels: i32,
    padded_channels: i32,
    outputs: i32,
    out_height: i32,
    out_width: i32,
    kernel: i32,
    stride: i32,
    padding: i32,
    k_tiles: i32,
    tiles_per_split: i32,
    splits: i32,
    activation: i32,
    wide: i32,
    next: u64,
    next_bytes: i64,
    area: Divisor,
    row: Divisor,
    tap_channels: Divisor,
    kernel_row: Divisor,
}

// SAFETY: the fields are those of `Conv2dParams` in cuda-kernels/conv2d.cu; `TensorCores::launch` fills it from tensors whose shapes it has checked.
unsafe impl Params for Conv2dParams {}

impl TensorCores {
    /// Loads the kernels.
    ///
    /// # Errors
    /// A device that is no NVIDIA GPU, or a type that the kernels do not store.
    pub fn load(device: &Device, dtype: DType) -> crate::Result<Self> {
        let name = type_name(dtype)?;
        let kernels = Kernels::load(device)?;
        let tiles = TILES.iter().map(|tile| {
            let kernel = kernels.get(&format!("conv2d_{name}_{}x{}", tile.outputs, tile.pixels), tile.shared())?;
            let resident = kernel.resident_blocks(tile.threads, tile.shared())?;
            Ok((kernel, resident.max(1)))
        });
        Ok(Self {
            dtype,
            tiles: tiles.collect::<crate::Result<_>>()?,
            any: kernels.get(&format!("conv2d_{name}_any"), plan::ANY.shared())?,
            epilogue: kernels.get(&format!("epilogue_{name}"), 0)?,
            processors: cuda::processors(device)?,
            partial: Tensor::zeros(WORKSPACE_BYTES / 4, DType::F32, device)?,
            arrivals: Tensor::zeros(WORKSPACE_TILES, DType::U32, device)?,
            before: Mutex::default(),
            scratch: Mutex::default(),
            hopper: None,
        })
    }

    /// Loads the kernels, and beside them those for compute capability 9.0, which take the layers that they can.
    ///
    /// # Errors
    /// As [`load`](Self::load), and another card.
    pub fn load_hopper(device: &Device, dtype: DType) -> crate::Result<Self> {
        Ok(Self { hopper: Some(Hopper::load(device, dtype)?), ..Self::load(device, dtype)? })
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// A layer and then its epilogue as a pass of its own: `(batch, out_height, out_width, outputs)` in the storage type.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    pub fn unfused(&self, weights: &PackedWeights, input: Input<'_>, epilogue: Epilogue<'_>) -> Result<Tensor> {
        self.finish(&self.sums(weights, input)?, epilogue)
    }

    /// A layer with its epilogue fused: `(batch, out_height, out_width, outputs)` in the storage type.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    pub fn fused(&self, weights: &PackedWeights, input: Input<'_>, finish: Finish<'_>) -> Result<Tensor> {
        self.launch(weights, input, Some(finish))
    }

    /// A layer's bare sums, `(batch, out_height, out_width, outputs)` in f32, which hold until the next layer's.
    fn sums(&self, weights: &PackedWeights, input: Input<'_>) -> Result<Tensor> {
        self.launch(weights, input, None)
    }

    /// Memory for so many sums. Layers take turns with it: all of them run on one stream, and each has finished its sums before the
    /// next begins. To ask for memory anew for each would cost as much of the processor's time as a launch.
    fn scratch(&self, shape: &[usize], device: &Device) -> Result<Tensor> {
        let count = shape.iter().product();
        let mut scratch = lock(&self.scratch);
        let kept = match scratch.take().filter(|kept| kept.elem_count() >= count) {
            Some(kept) => kept,
            // SAFETY: what is read of it was written by the kernel that it is given to.
            None => unsafe { Tensor::empty(count, DType::F32, device) }?,
        };
        let sums = kept.narrow(0, 0, count)?.reshape(shape);
        *scratch = Some(kept);
        sums
    }

    fn launch(&self, weights: &PackedWeights, input: Input<'_>, finish: Option<Finish<'_>>) -> Result<Tensor> {
        let (batch, height, width, channels) = input.x.dims4()?;
        let skip_channels = input.skip.map_or(Ok(0), |skip| skip.dim(3))?;
        let expected = [batch, height, width, skip_channels];
        if channels + skip_channels != weights.channels || input.skip.is_some_and(|skip| skip.dims() != expected) {
            candle_core::bail!(
                "a layer of {} channels was given {:?} and {:?} as (batch, height, width, channels)",
                weights.channels,
                input.x.dims(),
                input.skip.map(Tensor::dims)
            );
        }
        let Input { stride, padding, .. } = input;
        if height + 2 * padding < weights.kernel || width + 2 * padding < weights.kernel || stride == 0 {
            candle_core::bail!("{height}x{width} pixels are fewer than a kernel of {} takes", weights.kernel);
        }
        let out = |size: usize| (size + 2 * padding - weights.kernel) / stride + 1;
        let (out_height, out_width) = (out(height), out(width));
        let geglu = finish.is_some_and(|f| f.ending == Ending::Geglu);
        let shape = [batch, out_height, out_width, if geglu { weights.outputs / 2 } else { weights.outputs }];
        let operand = |t: Option<&Tensor>, what: &str, shape: &[usize], dtype: DType| match t {
            None => Ok(0),
            Some(t) if t.dims() == shape && t.dtype() == dtype && t.is_contiguous() => cuda::address(t),
            Some(t) => {
                candle_core::bail!("the {what} is {:?} {:?}, not contiguous {dtype:?} {shape:?}", t.dtype(), t.dims())
            }
        };
        let pixels = batch * out_height * out_width;
        let next = self.next_weights(weights);
        if let (Some(hopper), Some(finish)) = (&self.hopper, finish)
            && hopper::takes(weights, &input)
        {
            // SAFETY: written in full before the stream reads it.
            let y = unsafe { Tensor::empty(&shape[..], self.dtype, input.x.device()) }?;
            let layer = Layer {
                bias: operand(finish.bias, "bias", &[weights.outputs], DType::F32)?,
                shift: operand(finish.shift, "shift", &[batch, weights.outputs], self.dtype)?,
                residual: operand(finish.residual, "residual", &shape, self.dtype)?,
                ending: finish.ending,
                out: [batch, out_height, out_width],
                next: next.as_ref(),
            };
            operand(Some(input.x), "input", input.x.dims(), self.dtype)?;
            operand(input.skip, "skip", &expected, self.dtype)?;
            hopper.launch(weights, input, layer, &y)?;
            return Ok(y);
        }
        let aligned = channels.is_multiple_of(8) && skip_channels.is_multiple_of(8);
        let plan = if aligned { self.plan(weights, pixels) } else { Plan::any(weights.k_tiles) };
        let kernel = if aligned { &self.tiles[plan.tile].0 } else { &self.any };
        let tile = if aligned { TILES[plan.tile] } else { plan::ANY };
        let grid = tile.grid(weights.outputs, pixels, plan.splits)?;
        let y = match finish {
            // SAFETY: the kernel below writes every value before the stream reads one.
            Some(_) => unsafe { Tensor::empty(&shape[..], self.dtype, input.x.device()) }?,
            None => self.scratch(&shape, input.x.device())?,
        };
        let int = |n: usize| i32::try_from(n).map_err(candle_core::Error::wrap);
        let params = Conv2dParams {
            x: operand(Some(input.x), "input", input.x.dims(), self.dtype)?,
            skip: operand(input.skip, "skip", &expected, self.dtype)?,
            weight: cuda::address(&weights.values)?,
            bias: operand(finish.and_then(|f| f.bias), "bias", &[weights.outputs], DType::F32)?,
            shift: operand(finish.and_then(|f| f.shift), "shift", &[batch, weights.outputs], self.dtype)?,
            residual: operand(finish.and_then(|f| f.residual), "residual", &shape, self.dtype)?,
            y: cuda::address(&y)?,
            partial: cuda::address(&self.partial)?,
            arrivals: cuda::address(&self.arrivals)?,
            batch: int(batch)?,
            height: int(height)?,
            width: int(width)?,
            channels: int(channels)?,
            skip_channels: int(skip_channels)?,
            padded_channels: int(weights.padded_channels)?,
            outputs: int(weights.outputs)?,
            out_height: int(out_height)?,
            out_width: int(out_width)?,
            kernel: int(weights.kernel)?,
            stride: int(stride)?,
            padding: int(padding)?,
            k_tiles: int(weights.k_tiles)?,
            tiles_per_split: int(plan.tiles_per_split)?,
            splits: int(plan.splits)?,
            activation: finish.map_or(Ending::None, |f| f.ending) as i32,
            wide: finish.is_none().into(),
            next: next.as_ref().map_or(Ok(0), cuda::address)?,
            next_bytes: next.as_ref().map_or(0, |next| (next.elem_count() * 2).min(PREFETCHED) as i64),
            area: Divisor::new(out_height * out_width)?,
            row: Divisor::new(out_width)?,
            tap_channels: Divisor::new(weights.padded_channels)?,
            kernel_row: Divisor::new(weights.kernel)?,
        };
        int(pixels.max(batch * height * width))?; // pixels are counted in 32 bits there
        // SAFETY: each address is that of a tensor whose shape and type was checked above, and the plan keeps the split sums within
        // `partial` and `arrivals`.
        unsafe { kernel.launch(grid, params) }?;
        Ok(y)
    }

    /// The plan for so many pixels, worked out when their number changes.
    fn plan(&self, weights: &PackedWeights, pixels: usize) -> Plan {
        let mut known = lock(&weights.plan);
        match *known {
            Some((of, plan)) if of == pixels => plan,
            _ => {
                let resident: Vec<u32> = self.tiles.iter().map(|(_, resident)| *resident).collect();
                let plan = Plan::choose(weights.outputs, pixels, weights.k_tiles, self.processors, &resident);
                *known = Some((pixels, plan));
                plan
            }
        }
    }

    /// What ran after `weights` the last time, and that `weights` follow on what ran before them.
    fn next_weights(&self, weights: &PackedWeights) -> Option<Tensor> {
        let mut before = lock(&self.before);
        if let Some(before) = before.replace(weights.next.clone()) {
            *lock(&before) = Some(weights.values.clone());
        }
        lock(&weights.next).clone()
    }
}
