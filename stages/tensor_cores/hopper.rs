//! The layers that compute capability 9.0 takes in its own way: `cuda-kernels/conv2d_hopper.cu`.
use super::{Ending, Input, PREFETCHED, PackedWeights, lock, type_name};
use crate::cuda::{self, Grid, Kernel, Kernels, Params, TensorMap};
use candle_core::{DType, Device, Result, Tensor};

/// Channels of a step: 128 bytes of a pixel, as far as the swizzle of shared memory reaches.
const CHUNK: usize = 64;
/// Blocks of a cluster at most, on every card.
const WIDEST_CLUSTER: usize = 8;

/// A tile of `conv2d_hopper.cu`: 64 pixels for each warp group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    groups: usize,
    outputs: usize,
    stages: usize,
}

/// As in `conv2d_hopper.cu`.
const TILES: [Tile; 8] = [
    Tile { groups: 1, outputs: 32, stages: 8 },
    Tile { groups: 1, outputs: 64, stages: 6 },
    Tile { groups: 1, outputs: 96, stages: 5 },
    Tile { groups: 1, outputs: 192, stages: 6 },
    Tile { groups: 2, outputs: 64, stages: 4 },
    Tile { groups: 2, outputs: 96, stages: 6 },
    Tile { groups: 2, outputs: 128, stages: 6 },
    Tile { groups: 2, outputs: 192, stages: 5 },
];

impl Tile {
    fn pixels(self) -> usize {
        self.groups * 64
    }

    fn threads(self) -> u32 {
        self.groups as u32 * 128 + 32
    }

    /// The stages, and two barriers for each.
    fn shared(self) -> u32 {
        (self.stages * ((self.pixels() + self.outputs) * CHUNK * 2 + 16)) as u32
    }
}

/// How a picture is cut into boxes of a tile's pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Boxes {
    /// A box is `1 << bits` pixels wide.
    bits: u32,
    across: usize,
    down: usize,
}

impl Boxes {
    /// The boxes of `pixels` pixels, as few as can be, and of those the widest.
    fn over(pixels: usize, width: usize, height: usize) -> Self {
        let shapes = (0..=pixels.ilog2()).map(|bits| Self {
            bits,
            across: width.div_ceil(1 << bits),
            down: height.div_ceil(pixels >> bits),
        });
        let fewest = shapes.min_by_key(|b| (b.across * b.down, std::cmp::Reverse(b.bits)));
        fewest.unwrap_or(Self { bits: 0, across: width, down: height })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// Which of [`TILES`].
    tile: usize,
    splits: usize,
    chunks_per_split: usize,
    boxes: Boxes,
}

/// The work of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    batch: usize,
    height: usize,
    width: usize,
    outputs: usize,
    chunks: usize,
}

/// What the choice is reckoned with: fitted to 33 layers of this project's networks, each measured on an H100 with every tile and split,
/// of which it chooses such as take 4 % longer than the best in sum. In microseconds, bytes for a microsecond.
mod cost {
    /// From the second-level cache to all processors, and to one.
    pub const LOADS: f64 = 4.33e6;
    pub const LOADS_ONE: f64 = 65_018.0;
    /// A step of a block's loop.
    pub const STEP: f64 = 0.287;
    /// For a tile of 64 pixels and 96 outputs.
    pub const STORE: f64 = 1.22;
    /// A cluster, and each of its blocks.
    pub const CLUSTER: f64 = 0.18;
    pub const BLOCK: f64 = 0.45;
}

impl Plan {
    fn choose(shape: Shape, processors: u32, resident: &[u32]) -> Self {
        let candidates = TILES.iter().enumerate().flat_map(|(tile, t)| {
            let boxes = Boxes::over(t.pixels(), shape.width, shape.height);
            [1, 2, 4, WIDEST_CLUSTER].into_iter().filter_map(move |splits| {
                let chunks_per_split = shape.chunks.div_ceil(splits);
                // each block of a cluster must have work
                let fits = shape.chunks.div_ceil(chunks_per_split) == splits;
                fits.then_some(Self { tile, splits, chunks_per_split, boxes })
            })
        });
        let time = |plan: &Self| plan.time(shape, f64::from(processors), f64::from(resident[plan.tile]));
        let best = candidates.min_by(|a, b| time(a).total_cmp(&time(b)));
        best.unwrap_or_else(|| Self {
            tile: 0,
            splits: 1,
            chunks_per_split: shape.chunks,
            boxes: Boxes::over(TILES[0].pixels(), shape.width, shape.height),
        })
    }

    fn blocks(&self, shape: Shape) -> usize {
        shape.batch * self.boxes.across * self.boxes.down * shape.outputs.div_ceil(TILES[self.tile].outputs) * self.splits
    }

    /// Estimated microseconds.
    fn time(&self, shape: Shape, processors: f64, resident: f64) -> f64 {
        let tile = TILES[self.tile];
        let blocks = self.blocks(shape) as f64;
        let steps = self.chunks_per_split as f64;
        let waves = (blocks / (processors * resident)).ceil();
        let together = (blocks / processors).ceil().min(resident);
        let pixels = tile.pixels().min(shape.batch * shape.height * shape.width);
        let bytes = ((pixels + tile.outputs) * CHUNK * 2) as f64;
        let loads = (blocks * steps * bytes / cost::LOADS).max(waves * steps * bytes * together / cost::LOADS_ONE);
        let meeting = if self.splits > 1 { cost::CLUSTER + cost::BLOCK * self.splits as f64 } else { 0.0 };
        let store = cost::STORE * (tile.pixels() * tile.outputs) as f64 / (64.0 * 96.0);
        waves * store + meeting + loads.max(waves * steps * cost::STEP)
    }
}

/// What was worked out for the size of a layer's last call.
pub(super) struct Known {
    shape: Shape,
    plan: Plan,
    weight: TensorMap,
}

/// What a launch takes besides weights and input; addresses that may be null.
pub(super) struct Layer<'a> {
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
    y: u64,
    next: u64,
    next_bytes: i64,
    height: i32,
    width: i32,
    outputs: i32,
    channels: i32,
    skip_channels: i32,
    kernel: i32,
    padding: i32,
    chunks: i32,
    chunks_per_split: i32,
    splits: i32,
    box_bits: i32,
    boxes_x: i32,
    boxes_y: i32,
    activation: i32,
}

// SAFETY: the fields are those of `Conv2dHopperParams` in cuda-kernels/conv2d_hopper.cu; `Hopper::launch` fills it from tensors whose shapes
// were checked.
unsafe impl Params for Conv2dHopperParams {}

/// The kernels for one storage type.
pub(super) struct Hopper {
    tiles: Vec<(Kernel, u32)>,
    processors: u32,
}

/// Whether the kernels take such a layer: boxes begin at multiples of 16 bytes, and no step takes channels of both inputs.
pub(super) fn takes(weights: &PackedWeights, input: &Input<'_>) -> bool {
    let by_eight = |t: &Tensor| t.dims().last().is_some_and(|channels| channels.is_multiple_of(8));
    let apart = input.skip.is_none_or(|skip| by_eight(skip) && input.x.dims()[3].is_multiple_of(CHUNK));
    input.stride == 1 && weights.outputs.is_multiple_of(8) && by_eight(input.x) && apart
}

impl Hopper {
    pub fn load(device: &Device, dtype: DType) -> crate::Result<Self> {
        let name = type_name(dtype)?;
        let kernels = Kernels::load_hopper(device)?;
        let tiles = TILES.iter().map(|tile| {
            let kernel = kernels.get(&format!("conv2d_hopper_{name}_{}x{}", tile.groups, tile.outputs), tile.shared())?;
            let resident = kernel.resident_blocks(tile.threads(), tile.shared())?;
            Ok((kernel, resident.max(1)))
        });
        Ok(Self { tiles: tiles.collect::<crate::Result<_>>()?, processors: cuda::processors(device)? })
    }

    /// Operands were checked, and [`takes`] says that the layer fits; `y` is written.
    pub fn launch(&self, weights: &PackedWeights, input: Input<'_>, layer: Layer<'_>, y: &Tensor) -> Result<()> {
        let channels = input.x.dim(3)?;
        let skip_channels = input.skip.map_or(Ok(0), |skip| skip.dim(3))?;
        let [batch, height, width] = layer.out;
        // where neighbours do not matter, all pixels are one row
        let in_a_row = weights.kernel == 1 && input.padding == 0 && layer.shift == 0;
        let [batch, height, width] = if in_a_row { [1, 1, batch * height * width] } else { [batch, height, width] };
        let chunks = weights.kernel * weights.kernel * (channels.div_ceil(CHUNK) + skip_channels.div_ceil(CHUNK));
        let shape = Shape { batch, height, width, outputs: weights.outputs, chunks };
        let (plan, weight) = self.plan(weights, shape)?;
        let tile = TILES[plan.tile];
        let boxes = [CHUNK, 1 << plan.boxes.bits, tile.pixels() >> plan.boxes.bits, 1];
        let pixels = |t: &Tensor| {
            let (batch, height, width, channels) = t.dims4()?;
            let dims = if in_a_row { [channels, batch * height * width, 1, 1] } else { [channels, width, height, batch] };
            cuda::tensor_map(t, &dims, &boxes)
        };
        let x = pixels(input.x)?;
        let int = |n: usize| i32::try_from(n).map_err(candle_core::Error::wrap);
        let params = Conv2dHopperParams {
            x,
            skip: input.skip.map_or(Ok(x), pixels)?,
            weight,
            bias: layer.bias,
            shift: layer.shift,
            residual: layer.residual,
            y: cuda::address(y)?,
            next: layer.next.map_or(Ok(0), cuda::address)?,
            next_bytes: layer.next.map_or(0, |next| (next.elem_count() * 2).min(PREFETCHED) as i64),
            height: int(height)?,
            width: int(width)?,
            outputs: int(weights.outputs)?,
            channels: int(channels)?,
            skip_channels: int(skip_channels)?,
            kernel: int(weights.kernel)?,
            padding: int(input.padding)?,
            chunks: int(chunks)?,
            chunks_per_split: int(plan.chunks_per_split)?,
            splits: int(plan.splits)?,
            box_bits: plan.boxes.bits.cast_signed(),
            boxes_x: int(plan.boxes.across)?,
            boxes_y: int(plan.boxes.down)?,
            activation: layer.ending as i32,
        };
        let across = batch * plan.boxes.across * plan.boxes.down;
        let down = weights.outputs.div_ceil(tile.outputs);
        if down > 65_535 || i32::try_from(across).is_err() {
            candle_core::bail!("a layer of {} outputs at {across} boxes is larger than a grid can be", weights.outputs);
        }
        let grid = Grid {
            blocks: [across as u32, down as u32, plan.splits as u32],
            threads: tile.threads(),
            shared: tile.shared(),
            cluster: plan.splits as u32,
        };
        // SAFETY: each address is that of a tensor whose shape and type was checked, and the maps are of the boxes that the tile takes.
        unsafe { self.tiles[plan.tile].0.launch(grid, params) }
    }

    /// The plan for such a layer and the map of its weights, worked out when its size changes.
    fn plan(&self, weights: &PackedWeights, shape: Shape) -> Result<(Plan, TensorMap)> {
        let mut known = lock(&weights.hopper);
        if let Some(known) = &*known
            && known.shape == shape
        {
            return Ok((known.plan, known.weight));
        }
        let resident: Vec<u32> = self.tiles.iter().map(|(_, resident)| *resident).collect();
        let plan = Plan::choose(shape, self.processors, &resident);
        let dims = [weights.values.dim(1)?, weights.outputs];
        let weight = cuda::tensor_map(&weights.values, &dims, &[CHUNK, TILES[plan.tile].outputs])?;
        *known = Some(Known { shape, plan, weight });
        Ok((plan, weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of each tile that a processor of an H100 holds.
    const RESIDENT: [u32; 8] = [2, 2, 2, 1, 2, 1, 1, 1];

    #[test]
    fn boxes_cover_every_pixel() {
        for (width, height) in [(64, 64), (4, 4), (8, 8), (1, 1), (4096, 1), (100, 37), (3, 300)] {
            for pixels in [64, 128] {
                let boxes = Boxes::over(pixels, width, height);
                let (wide, high) = (1 << boxes.bits, pixels >> boxes.bits);
                assert!(boxes.across * wide >= width && boxes.down * high >= height, "{boxes:?}");
                assert!((boxes.across - 1) * wide < width && (boxes.down - 1) * high < height, "{boxes:?}");
            }
        }
        assert_eq!(Boxes::over(64, 64, 64), Boxes { bits: 6, across: 1, down: 64 });
        assert_eq!(Boxes::over(64, 4, 4).bits, 6, "where all are one box, the widest");
    }

    #[test]
    fn each_block_of_a_cluster_has_work() {
        for outputs in [8, 96, 192, 3072] {
            for (width, height) in [(64, 64), (16, 16), (4, 4), (4096, 1)] {
                for chunks in [1, 2, 3, 9, 27, 54, 432] {
                    let shape = Shape { batch: 1, height, width, outputs, chunks };
                    let plan = Plan::choose(shape, 132, &RESIDENT);
                    assert!(plan.splits <= WIDEST_CLUSTER && (plan.splits - 1) * plan.chunks_per_split < chunks, "{plan:?}");
                    assert!(plan.splits * plan.chunks_per_split >= chunks, "{plan:?}");
                    assert_eq!(64 % plan.splits, 0, "rows of a tile are shared out evenly");
                }
            }
        }
    }

    #[test]
    fn few_pixels_are_split_and_many_are_not() {
        let few = Plan::choose(Shape { batch: 1, height: 4, width: 4, outputs: 3072, chunks: 432 }, 132, &RESIDENT);
        assert!(few.splits > 1, "{few:?}");
        let many = Plan::choose(Shape { batch: 1, height: 512, width: 512, outputs: 96, chunks: 18 }, 132, &RESIDENT);
        assert_eq!(many.splits, 1, "{many:?}");
    }

    #[test]
    fn shared_memory_fits_what_a_card_has() {
        for tile in TILES {
            assert!(tile.shared() <= 227 << 10, "{tile:?}"); // a block on compute capability 9.0
        }
    }
}
