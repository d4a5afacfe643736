//! The layers that compute capability 9.0 takes in its own way: `cuda-kernels/conv2d_hopper.cu`, `conv3x3_hopper.cu` and `conv2d_narrow_hopper.cu`.
mod plan;

use super::divisor::Divisor;
use super::picture::Picture;
use super::{Ending, PackedWeights, prefetched, type_name};
use crate::cuda::{self, Grid, Kernel, Kernels, Params, TensorMap};
use candle_core::{DType, Device, Result, Tensor};
#[cfg(test)]
pub(super) use plan::Boxes;
use plan::{CHUNK, Kind, MOST_SHARED, ROW, Shape};
pub(super) use plan::{Plan, TILES};

/// What a launch takes besides weights; addresses that may be null.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    /// Those of the layer's weights, or of a copy of them.
    pub values: &'a Tensor,
    pub x: &'a Picture,
    pub skip: Option<&'a Picture>,
    pub padding: usize,
    pub bias: u64,
    pub shift: u64,
    pub residual: u64,
    pub ending: Ending,
    /// `(batch, height, width)` of the result.
    pub out: [usize; 3],
    pub next: Option<&'a Tensor>,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Conv2dHopperParams {
    x: TensorMap,
    skip: TensorMap,
    weight: TensorMap,
    bias: u64,
    shift: u64,
    residual: u64,
    scale: u64,
    y: u64,
    next: u64,
    next_bytes: u64,
    batch: i32,
    height: i32,
    width: i32,
    outputs: i32,
    channels: i32,
    skip_channels: i32,
    kernel: i32,
    padding: i32,
    steps: i32,
    steps_per_split: i32,
    splits: i32,
    share: i32,
    share_factor: i32,
    box_width: i32,
    box_height: i32,
    box_samples: i32,
    x_bits: i32,
    y_bits: i32,
    boxes: Divisor,
    activation: i32,
    boxes_x: Divisor,
    early: i32,
    per_tap: Divisor,
}

// SAFETY: the fields are those of `Conv2dHopperParams` in cuda-kernels/conv2d_hopper.cuh; `Hopper::launch` fills it from tensors whose shapes
// were checked.
unsafe impl Params for Conv2dHopperParams {}

/// The kernels for one storage type.
pub(super) struct Hopper {
    /// The kernel of each tile, and blocks of it that a processor holds, alone and where a cluster shares a tile.
    tiles: Vec<(Kernel, [u32; 2])>,
    processors: u32,
    /// Whether the driver takes the map of weights that `conv3x3_hopper.cu` reads.
    maps_taps: bool,
}

/// Weights of a 3x3 convolution for so many outputs, a row of taps at a time: a tap's outputs lie side by side in shared memory, so they come before the taps.
/// That stride is less than the one before it, which the driver's page has no example of; the driver of an H100 takes it.
fn taps_map(values: &Tensor, padded_channels: usize, outputs: usize, tile_outputs: usize) -> Result<TensorMap> {
    let (dims, strides) = ([padded_channels, outputs, ROW * ROW], [values.dim(1)?, padded_channels]);
    cuda::tensor_map(cuda::address(values)?, values.dtype(), &dims, &strides, &[CHUNK, tile_outputs, ROW])
}

/// Whether the kernels take such a layer, with a step of one between output pixels: weights in eight bits, whose order goes by sixteens, begin with such
/// a group at every tap and every input.
pub(super) fn takes(weights: &PackedWeights, stride: usize, x: &Picture, skip: Option<&Picture>) -> bool {
    let channels = x.dims[3];
    let by_groups = weights.scales.is_none()
        || (weights.kernel == 1 || weights.padded_channels.is_multiple_of(16))
            && (skip.is_none() || channels.is_multiple_of(16));
    stride == 1 && by_groups
}

impl Hopper {
    pub fn load(device: &Device, dtype: DType) -> crate::Result<Self> {
        let name = type_name(dtype)?;
        let conv2d = Kernels::load(device, "conv2d_hopper")?;
        let conv3x3 = Kernels::load(device, "conv3x3_hopper")?;
        let narrow = Kernels::load(device, "conv2d_narrow_hopper")?;
        let tiles = TILES.iter().map(|tile| {
            let (kernels, kind) = match tile.kind {
                Kind::Conv2d => (&conv2d, "conv2d_hopper"),
                Kind::Conv3x3 => (&conv3x3, "conv3x3_hopper"),
                Kind::Narrow => (&narrow, "conv2d_narrow_hopper"),
                Kind::NarrowFp8 => (&narrow, "conv2d_narrow_hopper_fp8"),
            };
            let name = format!("{kind}_{name}_{}x{}x{}", tile.groups, tile.columns, tile.stages);
            let kernel = kernels.get(&name, MOST_SHARED as u32)?;
            let resident = |splits| -> crate::Result<u32> {
                Ok(kernel.resident_blocks(tile.threads(), tile.shared(splits) as u32)?.max(1))
            };
            let resident = [resident(1)?, resident(2)?];
            Ok((kernel, resident))
        });
        let sample = Tensor::zeros((CHUNK, ROW * ROW * CHUNK), dtype, device)?;
        let maps_taps = taps_map(&sample, CHUNK, CHUNK, CHUNK).is_ok();
        Ok(Self { tiles: tiles.collect::<crate::Result<_>>()?, processors: cuda::processors(device)?, maps_taps })
    }

    /// What a layer asks of the kernels.
    pub fn shape(weights: &PackedWeights, layer: &Layer<'_>) -> Shape {
        let [batch, height, width] = layer.out;
        // where neighbours do not matter, all pixels are one row
        let [batch, height, width] =
            if layer.in_a_row(weights) { [1, 1, batch * height * width] } else { [batch, height, width] };
        let chunks = layer.x.dims[3].div_ceil(CHUNK) + layer.skip.map_or(0, |skip| skip.dims[3].div_ceil(CHUNK));
        let three_by_three = weights.kernel == 3 && layer.padding == 1;
        let weight_bytes = weights.weight_bytes();
        Shape {
            batch,
            height,
            width,
            outputs: weights.padded_outputs,
            chunks,
            kernel: weights.kernel,
            three_by_three,
            weight_bytes,
        }
    }

    /// The plans for such a layer, the one that should be best first.
    pub fn plans(&self, shape: Shape) -> Vec<Plan> {
        let resident: Vec<[u32; 2]> = self.tiles.iter().map(|(_, resident)| *resident).collect();
        let mut plans = Plan::ranked(shape, self.processors, &resident);
        plans.retain(|plan| self.maps_taps || TILES[plan.tile].kind != Kind::Conv3x3);
        plans
    }

    /// Operands were checked, [`takes`] says that the layer fits, and the plan is one for its shape; `y` is written.
    pub fn launch(&self, weights: &PackedWeights, layer: &Layer<'_>, plan: Plan, y: &Tensor) -> Result<()> {
        let shape = Self::shape(weights, layer);
        let Shape { batch, height, width, outputs, .. } = shape;
        let values = layer.values;
        let tile = TILES[plan.tile];
        let boxes = plan.boxes;
        let [box_width, box_height] = match tile.kind {
            Kind::Conv3x3 => tile.image(),
            _ => [boxes.width, boxes.height],
        };
        let pixels = |picture: &Picture| {
            let [batch, height, width, channels] = picture.dims;
            let dims = if layer.in_a_row(weights) {
                [channels, batch * height * width, 1, 1]
            } else {
                [channels, width, height, batch]
            };
            let [row, sample] = [dims[0] * dims[1], dims[0] * dims[1] * dims[2]];
            let sides = [CHUNK, box_width, box_height, boxes.samples];
            cuda::tensor_map(picture.address()?, y.dtype(), &dims, &[channels, row, sample], &sides)
        };
        let x = pixels(layer.x)?;
        let weight = match tile.kind {
            Kind::Conv3x3 => taps_map(values, weights.padded_channels, outputs, tile.outputs())?,
            _ => {
                let (dims, sides) = ([values.dim(1)?, outputs], [CHUNK, tile.outputs()]);
                cuda::tensor_map(cuda::address(values)?, values.dtype(), &dims, &dims[..1], &sides)?
            }
        };
        let [along_samples, across, down] = boxes.cut(batch, width, height);
        let share = tile.share(plan.splits);
        let int = |n: usize| i32::try_from(n).map_err(candle_core::Error::wrap);
        let params = Conv2dHopperParams {
            x,
            skip: layer.skip.map_or(Ok(x), pixels)?,
            weight,
            bias: layer.bias,
            shift: layer.shift,
            residual: layer.residual,
            scale: weights.scales.as_ref().map_or(Ok(0), cuda::address)?,
            y: cuda::address(y)?,
            next: layer.next.map_or(Ok(0), cuda::address)?,
            next_bytes: layer.next.map_or(0, prefetched).cast_unsigned(),
            batch: int(batch)?,
            height: int(height)?,
            width: int(width)?,
            outputs: int(outputs)?,
            channels: int(layer.x.dims[3])?,
            skip_channels: int(layer.skip.map_or(0, |skip| skip.dims[3]))?,
            kernel: int(weights.kernel)?,
            padding: int(layer.padding)?,
            steps: int(shape.steps(tile.kind))?,
            steps_per_split: int(plan.steps_per_split)?,
            splits: int(plan.splits)?,
            share: int(share)?,
            share_factor: int((1usize << 16).div_ceil(share))?,
            box_width: int(boxes.width)?,
            box_height: int(boxes.height)?,
            box_samples: int(boxes.samples)?,
            x_bits: boxes.width.next_power_of_two().trailing_zeros().cast_signed(),
            y_bits: boxes.height.trailing_zeros().cast_signed(),
            boxes: Divisor::new(across * down)?,
            boxes_x: Divisor::new(across)?,
            per_tap: Divisor::new(shape.chunks)?,
            activation: layer.ending as i32,
            early: plan.early.into(),
        };
        let tiles = outputs.div_ceil(tile.outputs());
        let count = along_samples * across * down;
        if tiles > 65_535 || i32::try_from(count).is_err() {
            candle_core::bail!("a layer of {outputs} outputs at {count} boxes is larger than a grid can be");
        }
        let grid = Grid {
            blocks: [count as u32, tiles as u32, plan.splits as u32],
            threads: tile.threads(),
            shared: tile.shared(plan.splits) as u32,
            cluster: plan.splits as u32,
        };
        // SAFETY: each address is that of a tensor whose shape and type was checked, and the maps are of the boxes that the tile takes.
        unsafe { self.tiles[plan.tile].0.launch(grid, params) }
    }
}

impl Layer<'_> {
    fn in_a_row(&self, weights: &PackedWeights) -> bool {
        weights.kernel == 1 && self.padding == 0 && self.shift == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn no_divisor_looks_like_an_address() {
        // a recording replaces words that lie in a piece of memory: a divisor and its factor are one word, the factor above
        for at in [
            offset_of!(Conv2dHopperParams, boxes),
            offset_of!(Conv2dHopperParams, boxes_x),
            offset_of!(Conv2dHopperParams, per_tap),
        ] {
            assert_eq!(at % 8, 0, "at {at}");
        }
        // as `Conv2dHopperParams` has them in conv2d_hopper.cuh
        assert_eq!(offset_of!(Conv2dHopperParams, bias), 3 * size_of::<TensorMap>());
        assert_eq!(offset_of!(Conv2dHopperParams, early), offset_of!(Conv2dHopperParams, per_tap) - 4);
    }
}
