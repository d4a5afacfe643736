//! Convolutions and linear layers on a GPU's tensor cores: weights packed for `cuda-kernels/conv2d.cuh`, and its launch.
//!
//! Three stages share it: `fp16` takes the bare sums and finishes them in a pass of its own, `fused-ops` finishes them before they
//! leave the processor, and `custom-ptx` does the same with what only compute capability 9.0 has.
mod divisor;
mod epilogue;
mod hopper;
mod layers;
mod picture;
mod plan;
mod tuner;
mod weights;

pub use epilogue::{Ending, Epilogue};
pub use layers::{Layers, channels_last};
pub use weights::{PackedWeights, by_eights, fold_batch_norm, interleave_gates};

use crate::Error;
use crate::cuda::{self, Kernel, Kernels, Params};
use crate::ops::WeightsType;
use candle_core::{DType, Device, Result, Tensor};
use divisor::Divisor;
use hopper::Hopper;
use picture::Picture;
use plan::{Plan, TAPS, TILE_K, TILES, WORKSPACE_BYTES, WORKSPACE_TILES};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tuner::{Choice, Tuner, Work};

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

/// Values in the 16 bytes that a thread moves at a time, as in `common.cuh`.
const VECTOR: usize = 8;

/// Bytes of the next layer's weights that are fetched ahead: with more, a layer of 42 MB took longer on an H100, and smaller ones no less.
const PREFETCHED: usize = 5 << 20;

/// Bytes of these weights that are fetched ahead.
fn prefetched(weights: &Tensor) -> i64 {
    (weights.elem_count() * weights.dtype().size_in_bytes()).min(PREFETCHED) as i64
}

/// A result as it is stored, `(batch, height, width, outputs by eights)`, as the layer's `(batch, outputs, height, width)`.
fn shown(y: &Tensor, weights: &PackedWeights, ending: Ending) -> Result<Tensor> {
    let outputs = if ending == Ending::Geglu { weights.outputs() / 2 } else { weights.outputs() };
    let y = y.permute((0, 3, 1, 2))?;
    if y.dim(1)? == outputs { Ok(y) } else { y.narrow(1, 0, outputs) }
}

/// Kernels that are tried for a layer, those that should be best; where there are some for compute capability 9.0, of the others a fourth as many.
const CANDIDATES: usize = 56;

/// The kernels for a storage type in these files, one for each tile that weights of so many bytes have, and how many blocks of each a processor holds.
fn tiles(files: &[(&str, &Kernels)], dtype: &str, weight_bytes: usize) -> crate::Result<Vec<(Kernel, u32)>> {
    let mut tiles = vec![];
    for (file, kernels) in files {
        for tile in TILES.iter().filter(|tile| tile.boxes == (*file == "conv3x3")) {
            let shared = tile.shared(weight_bytes);
            let kernel = kernels.get(&format!("{file}_{dtype}_{}x{}", tile.outputs, tile.pixels), shared)?;
            let resident = kernel.resident_blocks(tile.threads, shared)?;
            tiles.push((kernel, resident.max(1)));
        }
    }
    Ok(tiles)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernels on one GPU for one storage type, and the memory in which split sums meet.
pub struct TensorCores {
    dtype: DType,
    /// The kernel of each tile, and blocks of it that a processor holds.
    tiles: Vec<(Kernel, u32)>,
    /// The same for weights in eight bits, where layers have them.
    tiles_fp8: Vec<(Kernel, u32)>,
    weights: WeightsType,
    epilogue: Kernel,
    gather: Kernel,
    processors: u32,
    partial: Tensor,
    arrivals: Tensor,
    /// Of the layer that ran last.
    before: Mutex<Option<Next>>,
    scratch: Mutex<Option<Tensor>>,
    hopper: Option<Hopper>,
    tuner: Tuner,
}

/// What a call of a layer takes: pictures as `(batch, channels, height, width)` in the storage type; those that lie channels-last are
/// read where they are.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The picture.
    pub x: &'a Tensor,
    /// Channels after those of `x`.
    pub skip: Option<&'a Tensor>,
    /// Step between output pixels, and zeros on each side.
    pub stride: usize,
    /// See `stride`.
    pub padding: usize,
    /// Whether each pixel of `x` is read as four, so that it has twice the height and the width.
    pub upsample: bool,
}

/// What is done to the sums before they are stored, in this order.
#[derive(Clone, Copy)]
pub struct Finish<'a> {
    /// `(outputs)` in f32, [by eights](by_eights).
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
    all_channels: i32,
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
    scale: u64,
    steps: i32,
    boxes_x: i32,
    boxes_y: i32,
    upsample: i32,
}

// SAFETY: the fields are those of `Conv2dParams` in cuda-kernels/conv2d.cuh; `TensorCores::launch` fills it from tensors whose shapes it has checked.
unsafe impl Params for Conv2dParams {}

impl TensorCores {
    /// Loads the kernels.
    ///
    /// # Errors
    /// A device that is no NVIDIA GPU, or a type that the kernels do not store.
    pub fn load(device: &Device, dtype: DType) -> crate::Result<Self> {
        Self::choosing_from("mma", device, dtype)
    }

    /// With the choices that are kept for this family of kernels.
    fn choosing_from(family: &str, device: &Device, dtype: DType) -> crate::Result<Self> {
        let name = type_name(dtype)?;
        let [conv2d, conv3x3] = [Kernels::load(device, "conv2d")?, Kernels::load(device, "conv3x3")?];
        Ok(Self {
            dtype,
            tiles: tiles(&[("conv2d", &conv2d), ("conv3x3", &conv3x3)], name, dtype.size_in_bytes())?,
            tiles_fp8: vec![],
            weights: WeightsType::Storage,
            epilogue: conv2d.get(&format!("epilogue_{name}"), 0)?,
            gather: Kernels::load(device, "elementwise")?.get(&format!("gather_{name}"), 0)?,
            processors: cuda::processors(device)?,
            partial: Tensor::zeros(WORKSPACE_BYTES / 4, DType::F32, device)?,
            arrivals: Tensor::zeros(WORKSPACE_TILES, DType::U32, device)?,
            before: Mutex::default(),
            scratch: Mutex::default(),
            hopper: None,
            tuner: Tuner::new(device, dtype, family),
        })
    }

    /// Loads the kernels, and beside them, where the card is of compute capability 9.0, those for it, which take the layers that they can; and
    /// those for weights that are stored as `weights`.
    ///
    /// # Errors
    /// As [`load`](Self::load), and weights in eight bits on another card.
    pub fn load_all(device: &Device, dtype: DType, weights: WeightsType) -> crate::Result<Self> {
        if !cuda::has_hopper_code(device)? {
            if weights == WeightsType::Storage {
                return Self::load(device, dtype);
            }
            return Err(Error::Stage(
                "--weights-dtype fp8 needs a card of compute capability 9.0 (H100, H200), and MIRAGE_CUDA_ARCH unset: leave it out here"
                    .into(),
            ));
        }
        let hopper = Some(Hopper::load(device, dtype)?);
        let tiles_fp8 = match weights {
            WeightsType::Storage => vec![],
            WeightsType::Fp8 { .. } => {
                let kernels = Kernels::load(device, "conv2d_fp8")?;
                tiles(&[("conv2d_fp8", &kernels)], type_name(dtype)?, DType::F8E4M3.size_in_bytes())?
            }
        };
        Ok(Self { hopper, tiles_fp8, weights, ..Self::choosing_from("wgmma", device, dtype)? })
    }

    /// A layer's weights, `(outputs, channels, kernel, kernel)`, as they are stored, times a factor for each output.
    ///
    /// # Errors
    /// A kernel that is not square, or another number of factors.
    pub fn pack(&self, weight: &Tensor, factors: Option<&Tensor>) -> Result<PackedWeights> {
        if self.weights.quantises(weight) {
            return PackedWeights::fp8(weight, factors);
        }
        match factors {
            None => PackedWeights::conv2d(weight, self.dtype),
            Some(factors) => {
                let weight = weight.to_dtype(DType::F32)?.broadcast_mul(&factors.reshape(((), 1, 1, 1))?)?;
                PackedWeights::conv2d(&weight, self.dtype)
            }
        }
    }

    /// Whether a layer may enlarge its input while it reads it, as `conv2d.cuh` does. Kernels for compute capability 9.0 ask for whole boxes of pixels, and
    /// it is faster to run them on what was enlarged before: on an H100 a frame of 512x512 took 1.74 ms so, and 1.76 with these layers in `conv2d.cuh`.
    /// Without such kernels it made no difference there (2.56 and 2.57 ms), but for what is written and read again.
    pub fn upsamples(&self) -> bool {
        self.hopper.is_none()
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// A layer and then its epilogue as a pass of its own: `(batch, outputs, out_height, out_width)` in the storage type.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    pub fn unfused(&self, weights: &PackedWeights, input: Input<'_>, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let sums = self.launch(weights, input, None)?;
        shown(&self.finish(&sums, epilogue)?, weights, epilogue.ending)
    }

    /// A layer with its epilogue fused: `(batch, outputs, out_height, out_width)` in the storage type.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    pub fn fused(&self, weights: &PackedWeights, input: Input<'_>, finish: Finish<'_>) -> Result<Tensor> {
        shown(&self.launch(weights, input, Some(finish))?, weights, finish.ending)
    }

    /// Memory for so many sums. Layers take turns with it: all of them run on one stream, and each has finished its sums before the
    /// next begins. To ask for memory anew for each would cost as much of the processor's time as a launch.
    fn scratch(&self, shape: &[usize], device: &Device) -> Result<Tensor> {
        let count = shape.iter().product();
        let mut scratch = lock(&self.scratch);
        let kept = match scratch.take().filter(|kept| kept.elem_count() >= count) {
            Some(kept) => kept,
            // SAFETY: what is read of it was written by the kernel that it is given to.
            None => unsafe { cuda::output(count, DType::F32, device) }?,
        };
        let sums = kept.narrow(0, 0, count)?.reshape(shape);
        *scratch = Some(kept);
        sums
    }

    /// A layer as `(batch, out_height, out_width, outputs)` with outputs by eights: finished in the storage type, or without `finish` its
    /// bare sums in f32, which hold until the next layer's.
    fn launch(&self, weights: &PackedWeights, input: Input<'_>, finish: Option<Finish<'_>>) -> Result<Tensor> {
        let Input { stride, padding, .. } = input;
        let given = input.x.dim(1)? + input.skip.map_or(Ok(0), |skip| skip.dim(1))?;
        if given != weights.channels {
            candle_core::bail!(
                "a layer of {} channels was given {:?} and {:?} as (batch, channels, height, width)",
                weights.channels,
                input.x.dims(),
                input.skip.map(Tensor::dims)
            );
        }
        let [batch, height, width] = input.size()?;
        let (x, skip) = self.pictures(input)?;
        let channels = x.dims[3];
        // unless it was while both were copied into one
        let upsample = x.dims[1] < height;
        let skip_channels = skip.as_ref().map_or(0, |skip| skip.dims[3]);
        if height + 2 * padding < weights.kernel || width + 2 * padding < weights.kernel || stride == 0 {
            candle_core::bail!("{height}x{width} pixels are fewer than a kernel of {} takes", weights.kernel);
        }
        let out = |size: usize| (size + 2 * padding - weights.kernel) / stride + 1;
        let (out_height, out_width) = (out(height), out(width));
        let outputs = weights.padded_outputs;
        let ending = finish.map_or(Ending::None, |f| f.ending);
        let shape = [batch, out_height, out_width, if ending == Ending::Geglu { outputs / 2 } else { outputs }];
        let operand = |t: Option<&Tensor>, what: &str, shape: &[usize], dtype: DType| match t {
            None => Ok(0),
            Some(t) if t.dims() == shape && t.dtype() == dtype && t.is_contiguous() => cuda::address(t),
            Some(t) => {
                candle_core::bail!("the {what} is {:?} {:?}, not contiguous {dtype:?} {shape:?}", t.dtype(), t.dims())
            }
        };
        let bias = operand(finish.and_then(|f| f.bias), "bias", &[outputs], DType::F32)?;
        let shift = finish.and_then(|f| f.shift).map(|shift| by_eights(shift, 1)).transpose()?;
        let shift = operand(shift.as_ref(), "shift", &[batch, outputs], self.dtype)?;
        let residual = finish.and_then(|f| f.residual).map(|residual| self.picture(residual)).transpose()?;
        if let Some(residual) = residual.as_ref().filter(|residual| residual.dims != shape) {
            candle_core::bail!("a residual of {:?} cannot be added to {shape:?}", residual.dims);
        }
        let residual = residual.as_ref().map_or(Ok(0), Picture::address)?;
        let y = match finish {
            // SAFETY: the kernel below writes every value before the stream reads one.
            Some(_) => unsafe { cuda::output(&shape[..], self.dtype, input.x.device()) }?,
            None => self.scratch(&shape, input.x.device())?,
        };
        let pixels = batch * out_height * out_width;
        let int = |n: usize| i32::try_from(n).map_err(candle_core::Error::wrap);
        int(pixels.max(batch * height * width))?; // pixels are counted in 32 bits there
        // `conv3x3.cu` reads the channels of one input in a step
        let by_boxes = weights.kernel == 3
            && (stride, padding) == (1, 1)
            && weights.scales.is_none()
            && (skip.is_none() || channels.is_multiple_of(TILE_K));
        let shape_of_work = plan::Shape {
            batch,
            height: out_height,
            width: out_width,
            outputs,
            steps: weights.k_tiles,
            steps_by_boxes: by_boxes.then(|| TAPS * (channels.div_ceil(TILE_K) + skip_channels.div_ceil(TILE_K))),
            weight_bytes: weights.weight_bytes(),
        };
        let any = |plan: Plan, values: &Tensor, next: Option<&Tensor>| -> Result<()> {
            let tile = TILES[plan.tile];
            let [boxes_x, boxes_y] = tile.boxes(out_width, out_height);
            let params = Conv2dParams {
                x: x.address()?,
                skip: skip.as_ref().map_or(Ok(0), Picture::address)?,
                weight: cuda::address(values)?,
                bias,
                shift,
                residual,
                y: cuda::address(&y)?,
                partial: cuda::address(&self.partial)?,
                arrivals: cuda::address(&self.arrivals)?,
                batch: int(batch)?,
                height: int(height)?,
                width: int(width)?,
                channels: int(channels)?,
                skip_channels: int(skip_channels)?,
                all_channels: int(weights.padded_channels)?,
                outputs: int(outputs)?,
                out_height: int(out_height)?,
                out_width: int(out_width)?,
                kernel: int(weights.kernel)?,
                stride: int(stride)?,
                padding: int(padding)?,
                k_tiles: int(weights.k_tiles)?,
                tiles_per_split: int(plan.tiles_per_split)?,
                splits: int(plan.splits)?,
                activation: ending as i32,
                wide: finish.is_none().into(),
                next: next.map_or(Ok(0), cuda::address)?,
                next_bytes: next.map_or(0, prefetched),
                area: Divisor::new(out_height * out_width)?,
                row: Divisor::new(out_width)?,
                tap_channels: Divisor::new(weights.padded_channels)?,
                kernel_row: Divisor::new(weights.kernel)?,
                scale: weights.scales.as_ref().map_or(Ok(0), cuda::address)?,
                steps: int(shape_of_work.steps(tile).unwrap_or_default())?,
                boxes_x: int(boxes_x)?,
                boxes_y: int(boxes_y)?,
                upsample: upsample.into(),
            };
            let grid = tile.grid(&shape_of_work, plan.splits)?;
            // SAFETY: each address is that of a tensor whose shape and type was checked above, and the plan keeps the split sums within
            // `partial` and `arrivals`.
            unsafe { self.tiles(weights)[plan.tile].0.launch(grid, params) }
        };
        // a pass of its own finishes what this stage's kernels leave as bare sums: those of `conv2d.cuh` alone do that, and alone read a pixel as four
        let hopper = self
            .hopper
            .as_ref()
            .filter(|_| finish.is_some() && !upsample && hopper::takes(weights, stride, &x, skip.as_ref()));
        let layer = hopper::Layer {
            values: &weights.values,
            x: &x,
            skip: skip.as_ref(),
            padding,
            bias,
            shift,
            residual,
            ending,
            out: [batch, out_height, out_width],
            next: None,
        };
        let run = |choice: Choice, values: &Tensor, next: Option<&Tensor>| match (choice, hopper) {
            (Choice::Any(plan), _) => any(plan, values, next),
            (Choice::Hopper(plan), Some(hopper)) => {
                hopper.launch(weights, &hopper::Layer { values, next, ..layer }, plan, &y)
            }
            (Choice::Hopper(_), None) => candle_core::bail!("a kernel was chosen that this layer cannot take"),
        };
        let candidates = || {
            let special = hopper.map_or_else(Vec::new, |hopper| hopper.plans(Hopper::shape(weights, &layer)));
            let others = if special.is_empty() { CANDIDATES } else { CANDIDATES / 4 };
            let any = self.ranked(weights, &shape_of_work).into_iter().take(others).map(Choice::Any);
            special.into_iter().take(CANDIDATES).map(Choice::Hopper).chain(any).collect()
        };
        let work = Work {
            batch,
            height,
            width,
            channels,
            skip_channels,
            outputs,
            kernel: weights.kernel,
            stride,
            padding,
            upsample,
            residual: residual != 0,
            shift: shift != 0,
            wide: finish.is_none(),
            geglu: ending == Ending::Geglu,
            fp8: weights.scales.is_some(),
        };
        let choice = self.tuner.choose(work, input.x, &weights.values, &candidates, &run)?;
        run(choice, &weights.values, self.next_weights(weights).as_ref())?;
        Ok(y)
    }

    /// The kernels for such weights.
    fn tiles(&self, weights: &PackedWeights) -> &[(Kernel, u32)] {
        if weights.scales.is_some() { &self.tiles_fp8 } else { &self.tiles }
    }

    /// The plans for such work, the one that should be best first.
    fn ranked(&self, weights: &PackedWeights, shape: &plan::Shape) -> Vec<Plan> {
        let resident: Vec<u32> = self.tiles(weights).iter().map(|(_, resident)| *resident).collect();
        Plan::ranked(shape, self.processors, &resident)
    }

    /// What ran after `weights` the last time, and that `weights` follow on what ran before them. In a recording that is of the same work, whose owner keeps its
    /// weights: the recorder runs the work once just before, so the last layer's next is the first.
    fn next_weights(&self, weights: &PackedWeights) -> Option<Tensor> {
        let mut before = lock(&self.before);
        if let Some(before) = before.replace(weights.next.clone()) {
            *lock(&before) = Some(weights.values.clone());
        }
        lock(&weights.next).clone()
    }
}
