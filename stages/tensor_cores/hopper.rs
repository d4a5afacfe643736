//! The layers that compute capability 9.0 takes in its own way: `cuda-kernels/conv2d_hopper.cu`, `conv3x3_hopper.cu` and `conv2d_narrow_hopper.cu`.
use super::picture::Picture;
use super::{Ending, PackedWeights, prefetched, type_name};
use crate::cuda::{self, Grid, Kernel, Kernels, Params, TensorMap};
use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

/// Channels of a step: 128 bytes of a pixel, as far as the swizzle of shared memory reaches.
const CHUNK: usize = 64;
/// Blocks of a cluster at most, on every card.
const WIDEST_CLUSTER: usize = 8;

/// Which file a tile's kernel is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// `conv2d_hopper.cu`: any kernel, a box of pixels for each tap.
    Conv2d,
    /// `conv3x3_hopper.cu`: a box of pixels with its border for all nine taps.
    Conv3x3,
    /// `conv2d_narrow_hopper.cu`: weights are the left operand.
    Narrow,
    /// The same for weights in eight bits.
    NarrowFp8,
}

impl Kind {
    fn is_narrow(self) -> bool {
        matches!(self, Self::Narrow | Self::NarrowFp8)
    }

    /// Bytes of a weight.
    fn weight_bytes(self) -> usize {
        if self == Self::NarrowFp8 { 1 } else { 2 }
    }
}

/// A tile: for each warp group 64 rows of the left operand, which is pixels or, in a narrow one, weights; and columns of the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    kind: Kind,
    groups: usize,
    columns: usize,
    stages: usize,
}

const fn tile(kind: Kind, groups: usize, columns: usize, stages: usize) -> Tile {
    Tile { kind, groups, columns, stages }
}

/// As in the three files.
pub(super) const TILES: [Tile; 47] = [
    tile(Kind::Conv2d, 1, 32, 8),
    tile(Kind::Conv2d, 1, 64, 6),
    tile(Kind::Conv2d, 1, 96, 5),
    tile(Kind::Conv2d, 2, 64, 4),
    tile(Kind::Conv2d, 2, 96, 3),
    tile(Kind::Conv2d, 2, 128, 3),
    tile(Kind::Conv2d, 2, 192, 4),
    tile(Kind::Conv2d, 1, 32, 16),
    tile(Kind::Conv2d, 1, 64, 13),
    tile(Kind::Conv2d, 2, 64, 8),
    tile(Kind::Conv2d, 2, 128, 6),
    tile(Kind::Conv3x3, 1, 32, 8),
    tile(Kind::Conv3x3, 1, 48, 10),
    tile(Kind::Conv3x3, 1, 64, 8),
    tile(Kind::Conv3x3, 2, 64, 4),
    tile(Kind::Conv3x3, 2, 96, 3),
    tile(Kind::Conv3x3, 1, 192, 6),
    tile(Kind::Conv3x3, 2, 192, 5),
    tile(Kind::Conv3x3, 1, 32, 16),
    tile(Kind::Conv3x3, 1, 96, 12),
    tile(Kind::Conv3x3, 2, 48, 16),
    tile(Kind::Conv3x3, 2, 64, 14),
    tile(Kind::Conv3x3, 2, 96, 9),
    tile(Kind::Narrow, 1, 16, 10),
    tile(Kind::Narrow, 1, 16, 21),
    tile(Kind::Narrow, 2, 16, 6),
    tile(Kind::Narrow, 2, 16, 12),
    tile(Kind::Narrow, 1, 32, 8),
    tile(Kind::Narrow, 1, 32, 18),
    tile(Kind::Narrow, 2, 32, 5),
    tile(Kind::Narrow, 1, 80, 6),
    tile(Kind::Narrow, 1, 80, 12),
    tile(Kind::Narrow, 2, 80, 4),
    tile(Kind::Narrow, 2, 80, 8),
    tile(Kind::NarrowFp8, 1, 16, 18),
    tile(Kind::NarrowFp8, 1, 16, 36),
    tile(Kind::NarrowFp8, 2, 16, 10),
    tile(Kind::NarrowFp8, 2, 16, 22),
    tile(Kind::NarrowFp8, 1, 32, 13),
    tile(Kind::NarrowFp8, 2, 32, 9),
    tile(Kind::NarrowFp8, 2, 32, 18),
    tile(Kind::NarrowFp8, 1, 64, 9),
    tile(Kind::NarrowFp8, 2, 64, 6),
    tile(Kind::NarrowFp8, 2, 64, 13),
    tile(Kind::NarrowFp8, 1, 80, 7),
    tile(Kind::NarrowFp8, 2, 80, 6),
    tile(Kind::NarrowFp8, 2, 80, 12),
];

/// Pixels in a row of what `conv3x3_hopper.cu` asks for: eight, the border, and what makes it a whole swizzle.
const PITCH: usize = 16;

impl Tile {
    fn pixels(self) -> usize {
        if self.kind.is_narrow() { self.columns } else { self.groups * 64 }
    }

    fn outputs(self) -> usize {
        if self.kind.is_narrow() { self.groups * 64 } else { self.columns }
    }

    fn threads(self) -> u32 {
        self.groups as u32 * 128 + 32
    }

    /// Pixels of an image in shared memory, with the border.
    fn image(self) -> [usize; 2] {
        [PITCH, 8 * self.groups + 2]
    }

    /// Bytes of a step's pixels in shared memory, and of its weights.
    fn step(self) -> [usize; 2] {
        let pixels = match self.kind {
            Kind::Conv3x3 => 0,
            _ => self.pixels() * CHUNK * 2,
        };
        [pixels, self.outputs() * CHUNK * self.kind.weight_bytes()]
    }

    /// The stages, two barriers for each, and the outputs' biases and scales.
    fn shared(self) -> u32 {
        let stage = |bytes: usize| bytes + 16;
        let images = match self.kind {
            Kind::Conv3x3 => 2 * stage(self.image().iter().product::<usize>() * CHUNK * 2),
            _ => 0,
        };
        let of_outputs = if self.kind == Kind::NarrowFp8 { 8 } else { 4 };
        (images + self.stages * stage(self.step().iter().sum()) + self.outputs() * of_outputs) as u32
    }

    fn boxes(self, batch: usize, width: usize, height: usize) -> Boxes {
        match self.kind {
            Kind::Conv3x3 => Boxes { width: 8, height: 8 * self.groups, samples: 1 },
            _ => Boxes::over(self.pixels(), batch, width, height),
        }
    }
}

/// The box of a tile's pixels: its sides are powers of two, or it is a part of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Boxes {
    width: usize,
    height: usize,
    samples: usize,
}

impl Boxes {
    /// The box of `pixels` pixels of which there are fewest, and of those the widest.
    fn over(pixels: usize, batch: usize, width: usize, height: usize) -> Self {
        let row = Self { width: pixels, height: 1, samples: 1 };
        let bits = pixels.trailing_zeros();
        let all = (0..=bits).flat_map(|x| (0..=bits - x).map(move |y| (1 << x, 1 << y)));
        let all = all.map(|(width, height)| Self { width, height, samples: pixels / (width * height) });
        let count = |b: &Self| b.cut(batch, width, height).iter().product::<usize>();
        all.chain([row]).min_by_key(|b| (count(b), std::cmp::Reverse(b.width), b.samples)).unwrap_or(row)
    }

    /// Boxes along samples, across and down.
    fn cut(&self, batch: usize, width: usize, height: usize) -> [usize; 3] {
        [batch.div_ceil(self.samples), width.div_ceil(self.width), height.div_ceil(self.height)]
    }
}

/// The choice for one layer at one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Which of [`TILES`].
    tile: usize,
    splits: usize,
    steps_per_split: usize,
    boxes: Boxes,
}

/// The work of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    batch: usize,
    height: usize,
    width: usize,
    outputs: usize,
    /// Of 64 channels of one tap.
    steps: usize,
    /// Whether `conv3x3_hopper.cu` can take it.
    three_by_three: bool,
    /// Bytes of a weight.
    weight_bytes: usize,
}

/// What the choice is reckoned with: fitted to 33 layers of this project's networks, each measured on an H100 with every tile and split,
/// of which it chooses such as take 4 % longer than the best in sum. In microseconds, bytes for a microsecond.
mod cost {
    /// From the second-level cache to all processors, and to one.
    pub const LOADS: f64 = 4.33e6;
    pub const LOADS_ONE: f64 = 65_018.0;
    /// From asking for a step to having it: a block's ring hides as many steps of it as it has stages.
    pub const AHEAD: f64 = 1.7;
    /// The products of a step for a tile of 64 pixels and 96 outputs.
    pub const PRODUCTS: f64 = 0.11;
    /// For a tile of 64 pixels and 96 outputs.
    pub const STORE: f64 = 1.22;
    /// A cluster, and each of its blocks.
    pub const CLUSTER: f64 = 0.18;
    pub const BLOCK: f64 = 0.45;
}

impl Plan {
    /// Every tile with every number of splits, the one that should take the least time on `processors` first, each of which holds
    /// `resident` blocks of each tile.
    fn ranked(shape: Shape, processors: u32, resident: &[u32]) -> Vec<Self> {
        let mut plans: Vec<Self> = TILES
            .iter()
            .enumerate()
            .filter(|(_, t)| {
                t.kind.weight_bytes() == shape.weight_bytes && (t.kind != Kind::Conv3x3 || shape.three_by_three)
            })
            .flat_map(|(tile, t)| {
                let boxes = t.boxes(shape.batch, shape.width, shape.height);
                (1..=WIDEST_CLUSTER).filter_map(move |splits| {
                    let steps_per_split = shape.steps.div_ceil(splits);
                    // each block of a cluster must have work
                    let fits = shape.steps.div_ceil(steps_per_split) == splits;
                    fits.then_some(Self { tile, splits, steps_per_split, boxes })
                })
            })
            .collect();
        let time = |plan: &Self| plan.time(shape, f64::from(processors), f64::from(resident[plan.tile]));
        plans.sort_by(|a, b| time(a).total_cmp(&time(b)));
        plans
    }

    fn blocks(&self, shape: Shape) -> usize {
        let boxes: usize = self.boxes.cut(shape.batch, shape.width, shape.height).iter().product();
        boxes * shape.outputs.div_ceil(TILES[self.tile].outputs()) * self.splits
    }

    /// Estimated microseconds.
    fn time(&self, shape: Shape, processors: f64, resident: f64) -> f64 {
        let tile = TILES[self.tile];
        let blocks = self.blocks(shape) as f64;
        let steps = self.steps_per_split as f64;
        let waves = (blocks / (processors * resident)).ceil();
        let together = (blocks / processors).ceil().min(resident);
        let [pixels, weights] = tile.step();
        let pixels = match tile.kind {
            Kind::Conv3x3 => tile.image().iter().product::<usize>() * CHUNK * 2 / 9,
            _ => pixels.min(shape.batch * shape.height * shape.width * CHUNK * 2),
        };
        let bytes = (pixels + weights) as f64;
        let loads = (blocks * steps * bytes / cost::LOADS).max(waves * steps * bytes * together / cost::LOADS_ONE);
        let meeting = if self.splits > 1 { cost::CLUSTER + cost::BLOCK * self.splits as f64 } else { 0.0 };
        let store = cost::STORE * (tile.pixels() * tile.outputs()) as f64 / (64.0 * 96.0);
        let products = together * cost::PRODUCTS * (tile.pixels() * tile.outputs()) as f64 / (64.0 * 96.0);
        waves * store + meeting + loads.max(waves * steps * products.max(cost::AHEAD / tile.stages as f64))
    }
}

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
    next_bytes: i64,
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
    box_width: i32,
    box_height: i32,
    box_samples: i32,
    x_bits: i32,
    y_bits: i32,
    boxes_x: i32,
    boxes_y: i32,
    activation: i32,
}

// SAFETY: the fields are those of `Conv2dHopperParams` in cuda-kernels/conv2d_hopper.cuh; `Hopper::launch` fills it from tensors whose shapes
// were checked.
unsafe impl Params for Conv2dHopperParams {}

/// The kernels for one storage type.
pub(super) struct Hopper {
    tiles: Vec<(Kernel, u32)>,
    processors: u32,
}

/// Whether the kernels take such a layer: no step takes channels of both inputs, and weights in eight bits, whose order goes by sixteens, begin
/// with such a group at every tap. Few channels fill too little of a step.
pub(super) fn takes(weights: &PackedWeights, stride: usize, x: &Picture, skip: Option<&Picture>) -> bool {
    let channels = x.dims[3];
    let by_groups = weights.scales.is_none() || weights.kernel == 1 || weights.padded_channels.is_multiple_of(16);
    stride == 1 && by_groups && channels >= CHUNK / 2 && (skip.is_none() || channels.is_multiple_of(CHUNK))
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
            let kernel = kernels
                .get(&format!("{kind}_{name}_{}x{}x{}", tile.groups, tile.columns, tile.stages), tile.shared())?;
            let resident = kernel.resident_blocks(tile.threads(), tile.shared())?;
            Ok((kernel, resident.max(1)))
        });
        Ok(Self { tiles: tiles.collect::<crate::Result<_>>()?, processors: cuda::processors(device)? })
    }

    /// What a layer asks of the kernels.
    pub fn shape(weights: &PackedWeights, layer: &Layer<'_>) -> Shape {
        let [batch, height, width] = layer.out;
        // where neighbours do not matter, all pixels are one row
        let [batch, height, width] =
            if layer.in_a_row(weights) { [1, 1, batch * height * width] } else { [batch, height, width] };
        let chunks = layer.x.dims[3].div_ceil(CHUNK) + layer.skip.map_or(0, |skip| skip.dims[3].div_ceil(CHUNK));
        let steps = weights.kernel * weights.kernel * chunks;
        let three_by_three = weights.kernel == 3 && layer.padding == 1;
        let weight_bytes = weights.weight_bytes();
        Shape { batch, height, width, outputs: weights.padded_outputs, steps, three_by_three, weight_bytes }
    }

    /// The plans for such a layer, the one that should be best first.
    pub fn plans(&self, shape: Shape) -> Vec<Plan> {
        let resident: Vec<u32> = self.tiles.iter().map(|(_, resident)| *resident).collect();
        Plan::ranked(shape, self.processors, &resident)
    }

    /// Operands were checked, [`takes`] says that the layer fits, and the plan is one for its shape; `y` is written.
    pub fn launch(&self, weights: &PackedWeights, layer: &Layer<'_>, plan: Plan, y: &Tensor) -> Result<()> {
        let Shape { batch, height, width, outputs, steps, .. } = Self::shape(weights, layer);
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
            cuda::tensor_map(picture.address()?, y.dtype(), &dims, &[CHUNK, box_width, box_height, boxes.samples])
        };
        let x = pixels(layer.x)?;
        let dims = [values.dim(1)?, outputs];
        let weight = cuda::tensor_map(cuda::address(values)?, values.dtype(), &dims, &[CHUNK, tile.outputs()])?;
        let [along_samples, across, down] = boxes.cut(batch, width, height);
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
            next_bytes: layer.next.map_or(0, prefetched),
            batch: int(batch)?,
            height: int(height)?,
            width: int(width)?,
            outputs: int(outputs)?,
            channels: int(layer.x.dims[3])?,
            skip_channels: int(layer.skip.map_or(0, |skip| skip.dims[3]))?,
            kernel: int(weights.kernel)?,
            padding: int(layer.padding)?,
            steps: int(steps)?,
            steps_per_split: int(plan.steps_per_split)?,
            splits: int(plan.splits)?,
            box_width: int(boxes.width)?,
            box_height: int(boxes.height)?,
            box_samples: int(boxes.samples)?,
            x_bits: boxes.width.next_power_of_two().trailing_zeros().cast_signed(),
            y_bits: boxes.height.trailing_zeros().cast_signed(),
            boxes_x: int(across)?,
            boxes_y: int(down)?,
            activation: layer.ending as i32,
        };
        let tiles = outputs.div_ceil(tile.outputs());
        let count = along_samples * across * down;
        if tiles > 65_535 || i32::try_from(count).is_err() {
            candle_core::bail!("a layer of {outputs} outputs at {count} boxes is larger than a grid can be");
        }
        let grid = Grid {
            blocks: [count as u32, tiles as u32, plan.splits as u32],
            threads: tile.threads(),
            shared: tile.shared(),
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

    /// Blocks of each tile that a processor of an H100 holds.
    const RESIDENT: [u32; 47] = [
        2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 1, 1, 2, 1, 1, 1, 1, // pixels are the left operand
        2, 1, 2, 1, 2, 1, 2, 2, 1, 2, 1, // weights are
        2, 1, 2, 1, 2, 2, 1, 2, 2, 1, 2, 2, 1, // in eight bits
    ];

    fn best(shape: Shape) -> Plan {
        Plan::ranked(shape, 132, &RESIDENT)[0]
    }

    #[test]
    fn boxes_cover_every_pixel() {
        for (width, height) in [(64, 64), (4, 4), (8, 8), (1, 1), (4096, 1), (100, 37), (3, 300)] {
            for (pixels, batch) in [(16, 1), (64, 1), (80, 1), (80, 5), (128, 3)] {
                let b = Boxes::over(pixels, batch, width, height);
                assert_eq!(b.width * b.height * b.samples, pixels, "{b:?}");
                assert!(
                    b.height.is_power_of_two() && (b.width.is_power_of_two() || b.height * b.samples == 1),
                    "{b:?}"
                );
                let [samples, across, down] = b.cut(batch, width, height);
                assert!(
                    samples * b.samples >= batch && across * b.width >= width && down * b.height >= height,
                    "{b:?}"
                );
                assert!((across - 1) * b.width < width && (down - 1) * b.height < height, "{b:?}");
            }
        }
        assert_eq!(Boxes::over(64, 1, 64, 64), Boxes { width: 64, height: 1, samples: 1 });
        assert_eq!(Boxes::over(64, 1, 4, 4).width, 16, "where several are one box, the widest");
        assert_eq!(Boxes::over(80, 5, 4, 4), Boxes { width: 4, height: 4, samples: 5 }, "samples share a box");
        assert_eq!(Boxes::over(80, 1, 320, 1), Boxes { width: 80, height: 1, samples: 1 }, "a part of a row");
    }

    #[test]
    fn each_block_of_a_cluster_has_work() {
        for outputs in [8, 96, 192, 3072] {
            for (width, height) in [(64, 64), (16, 16), (4, 4), (4096, 1)] {
                for steps in [1, 2, 3, 9, 27, 54, 432] {
                    let three_by_three = steps % 9 == 0;
                    let shape = Shape { batch: 1, height, width, outputs, steps, three_by_three, weight_bytes: 2 };
                    for plan in Plan::ranked(shape, 132, &RESIDENT) {
                        assert!(
                            plan.splits <= WIDEST_CLUSTER && (plan.splits - 1) * plan.steps_per_split < steps,
                            "{plan:?}"
                        );
                        assert!(plan.splits * plan.steps_per_split >= steps, "{plan:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn few_pixels_are_split_and_many_are_not() {
        let few =
            Shape { batch: 1, height: 4, width: 4, outputs: 3072, steps: 432, three_by_three: true, weight_bytes: 2 };
        assert!(best(few).splits > 1, "{:?}", best(few));
        assert_eq!(TILES[best(few).tile].pixels(), 16, "{:?}", best(few));
        let many = Shape { height: 512, width: 512, outputs: 96, steps: 18, ..few };
        assert_eq!(best(many).splits, 1, "{:?}", best(many));
    }

    #[test]
    fn weights_in_eight_bits_have_tiles_of_their_own() {
        let shape =
            Shape { batch: 5, height: 4, width: 4, outputs: 3072, steps: 432, three_by_three: true, weight_bytes: 1 };
        let plans = Plan::ranked(shape, 132, &RESIDENT);
        assert!(plans.iter().all(|plan| TILES[plan.tile].kind == Kind::NarrowFp8));
        assert!(
            plans.iter().any(|plan| plan.boxes.samples == 5 && plan.blocks(shape) == 48 * plan.splits),
            "weights come once"
        );
    }

    #[test]
    fn shared_memory_fits_what_a_card_has() {
        for tile in TILES {
            assert!(tile.shared() <= 227 << 10, "{tile:?}"); // a block on compute capability 9.0
        }
    }
}
