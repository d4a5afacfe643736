//! How a layer is cut over the processors of a card of compute capability 9.0: the tile of a block, and over how many blocks of a cluster its sums
//! are split.
use serde::{Deserialize, Serialize};

/// Channels of a step: 128 bytes of a pixel, as far as the swizzle of shared memory reaches.
pub const CHUNK: usize = 64;
/// Blocks of a cluster at most, on every card: `MOST_SPLITS` in `conv2d_hopper.cuh`.
const WIDEST_CLUSTER: usize = 8;

/// Which file a tile's kernel is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
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
    pub fn is_narrow(self) -> bool {
        matches!(self, Self::Narrow | Self::NarrowFp8)
    }

    /// Bytes of a weight.
    pub fn weight_bytes(self) -> usize {
        if self == Self::NarrowFp8 { 1 } else { 2 }
    }
}

/// A tile: for each warp group 64 rows of the left operand, which is pixels or, in a narrow one, weights; and columns of the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    pub kind: Kind,
    pub groups: usize,
    pub columns: usize,
    pub stages: usize,
}

const fn tile(kind: Kind, groups: usize, columns: usize, stages: usize) -> Tile {
    Tile { kind, groups, columns, stages }
}

/// As in the three files.
pub const TILES: [Tile; 60] = [
    tile(Kind::Conv2d, 1, 32, 8),
    tile(Kind::Conv2d, 1, 64, 5),
    tile(Kind::Conv2d, 1, 64, 6),
    tile(Kind::Conv2d, 1, 96, 4),
    tile(Kind::Conv2d, 1, 96, 5),
    tile(Kind::Conv2d, 2, 64, 4),
    tile(Kind::Conv2d, 2, 96, 3),
    tile(Kind::Conv2d, 2, 128, 3),
    tile(Kind::Conv2d, 2, 192, 4),
    tile(Kind::Conv2d, 1, 32, 16),
    tile(Kind::Conv2d, 1, 64, 12),
    tile(Kind::Conv2d, 2, 64, 7),
    tile(Kind::Conv2d, 2, 128, 4),
    tile(Kind::Conv2d, 2, 128, 6),
    tile(Kind::Conv3x3, 1, 32, 6),
    tile(Kind::Conv3x3, 1, 48, 4),
    tile(Kind::Conv3x3, 1, 64, 2),
    tile(Kind::Conv3x3, 1, 64, 3),
    tile(Kind::Conv3x3, 1, 64, 6),
    tile(Kind::Conv3x3, 2, 32, 8),
    tile(Kind::Conv3x3, 2, 48, 5),
    tile(Kind::Conv3x3, 2, 64, 5),
    tile(Kind::Conv3x3, 2, 96, 3),
    tile(Kind::Conv3x3, 1, 96, 4),
    tile(Kind::Conv3x3, 1, 192, 2),
    tile(Kind::Conv3x3, 1, 96, 2),
    tile(Kind::Conv3x3, 2, 32, 4),
    tile(Kind::Conv3x3, 2, 48, 3),
    tile(Kind::Conv3x3, 2, 64, 2),
    tile(Kind::Conv3x3, 1, 32, 12),
    tile(Kind::Conv3x3, 1, 48, 9),
    tile(Kind::Narrow, 1, 16, 5),
    tile(Kind::Narrow, 1, 16, 10),
    tile(Kind::Narrow, 2, 16, 3),
    tile(Kind::Narrow, 2, 16, 6),
    tile(Kind::Narrow, 1, 32, 4),
    tile(Kind::Narrow, 1, 32, 8),
    tile(Kind::Narrow, 2, 32, 2),
    tile(Kind::Narrow, 2, 32, 5),
    tile(Kind::Narrow, 1, 64, 3),
    tile(Kind::Narrow, 1, 64, 6),
    tile(Kind::Narrow, 2, 64, 2),
    tile(Kind::Narrow, 2, 64, 4),
    tile(Kind::Narrow, 1, 80, 3),
    tile(Kind::Narrow, 1, 80, 5),
    tile(Kind::Narrow, 2, 80, 2),
    tile(Kind::Narrow, 2, 80, 3),
    tile(Kind::NarrowFp8, 1, 16, 8),
    tile(Kind::NarrowFp8, 1, 16, 17),
    tile(Kind::NarrowFp8, 2, 16, 5),
    tile(Kind::NarrowFp8, 2, 16, 10),
    tile(Kind::NarrowFp8, 1, 32, 6),
    tile(Kind::NarrowFp8, 2, 32, 3),
    tile(Kind::NarrowFp8, 2, 32, 8),
    tile(Kind::NarrowFp8, 1, 64, 3),
    tile(Kind::NarrowFp8, 2, 64, 2),
    tile(Kind::NarrowFp8, 2, 64, 5),
    tile(Kind::NarrowFp8, 1, 80, 3),
    tile(Kind::NarrowFp8, 1, 80, 6),
    tile(Kind::NarrowFp8, 2, 80, 5),
];

/// Taps of a step of `conv3x3_hopper.cu`, and steps of 64 channels.
pub const ROW: usize = 3;
/// Bytes to which what `conv3x3_hopper.cu` asks for is aligned.
const ALIGNED: usize = 1024;
/// Bytes of shared memory that a block may have.
pub const MOST_SHARED: usize = 227 << 10;

impl Tile {
    pub fn pixels(self) -> usize {
        if self.kind.is_narrow() { self.columns } else { self.groups * 64 }
    }

    pub fn outputs(self) -> usize {
        if self.kind.is_narrow() { self.groups * 64 } else { self.columns }
    }

    pub fn threads(self) -> u32 {
        self.groups as u32 * 128 + 64
    }

    /// Pixels of an image in shared memory, with the border.
    pub fn image(self) -> [usize; 2] {
        [10, 8 * self.groups + 2]
    }

    /// Its bytes.
    pub fn image_bytes(self) -> usize {
        (self.image().iter().product::<usize>() * CHUNK * 2).next_multiple_of(ALIGNED)
    }

    /// Bytes of a step's pixels in shared memory, none where an image serves three steps, and of its weights.
    pub fn step(self) -> [usize; 2] {
        let weights = self.outputs() * CHUNK * self.kind.weight_bytes();
        match self.kind {
            Kind::Conv3x3 => [0, ROW * weights],
            _ => [self.pixels() * CHUNK * 2, weights],
        }
    }

    /// Steps that come as one stage: `TOGETHER` in `conv2d_narrow_hopper.cu`.
    fn together(self) -> usize {
        if self.kind.is_narrow() { 2 } else { 1 }
    }

    /// Pixels of the tile that each of so many blocks of a cluster finishes.
    pub fn share(self, splits: usize) -> usize {
        self.pixels().div_ceil(splits)
    }

    /// The stages, two barriers for each, another barrier, the outputs' biases and scales, and where a cluster shares a tile, the parts of the
    /// sums: as in `conv2d_hopper.cuh`.
    pub fn shared(self, splits: usize) -> usize {
        let stage = |bytes: usize| bytes + 16;
        let step: usize = self.step().iter().sum();
        let stages = match self.kind {
            Kind::Conv3x3 => 2 * stage(self.image_bytes()) + self.stages * stage(step),
            _ => self.stages * stage(self.together() * step),
        };
        let scales = if self.kind == Kind::NarrowFp8 { self.outputs() } else { 4 };
        let parts = if splits > 1 { splits * self.share(splits) * (self.outputs() + 4) } else { 0 };
        stages + 16 + (self.outputs() + scales + parts) * 4
    }

    pub fn boxes(self, batch: usize, width: usize, height: usize) -> Boxes {
        match self.kind {
            Kind::Conv3x3 => Boxes { width: 8, height: 8 * self.groups, samples: 1 },
            _ => Boxes::over(self.pixels(), batch, width, height),
        }
    }
}

/// The box of a tile's pixels: its width and height are powers of two, or it is a part of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boxes {
    pub width: usize,
    pub height: usize,
    pub samples: usize,
}

impl Boxes {
    /// The box of `pixels` pixels of which there are fewest, and of those the widest.
    pub fn over(pixels: usize, batch: usize, width: usize, height: usize) -> Self {
        let row = Self { width: pixels, height: 1, samples: 1 };
        let bits = pixels.trailing_zeros();
        let all = (0..=bits).flat_map(|x| (0..=bits - x).map(move |y| (1 << x, 1 << y)));
        let all = all.map(|(width, height)| Self { width, height, samples: pixels / (width * height) });
        let count = |b: &Self| b.cut(batch, width, height).iter().product::<usize>();
        all.chain([row]).min_by_key(|b| (count(b), std::cmp::Reverse(b.width), b.samples)).unwrap_or(row)
    }

    /// Boxes along samples, across and down.
    pub fn cut(&self, batch: usize, width: usize, height: usize) -> [usize; 3] {
        [batch.div_ceil(self.samples), width.div_ceil(self.width), height.div_ceil(self.height)]
    }
}

/// The choice for one layer at one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which of [`TILES`].
    pub tile: usize,
    pub splits: usize,
    pub steps_per_split: usize,
    pub boxes: Boxes,
    /// Whether the next kernel may begin at once, beside this one: what it does before it waits then takes no time of its own, but what it asks for
    /// may hold up what this one asks for. Which of the two counts is measured.
    pub early: bool,
}

/// The work of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub outputs: usize,
    /// Of the inputs, in 64s.
    pub chunks: usize,
    pub kernel: usize,
    /// Whether `conv3x3_hopper.cu` can take it.
    pub three_by_three: bool,
    /// Bytes of a weight.
    pub weight_bytes: usize,
}

impl Shape {
    pub fn steps(&self, kind: Kind) -> usize {
        self.chunks * if kind == Kind::Conv3x3 { ROW } else { self.kernel * self.kernel }
    }
}

/// What the choice is reckoned with: fitted to 33 layers of this project's networks, each measured on an H100 with every tile and split of earlier
/// kernels (commit 7ba6c83), of which it chose such as took 4 % longer than the best in sum. The present ones meet faster; it only says what is tried
/// first. In microseconds, bytes for a microsecond.
mod cost {
    /// From the second-level cache to all processors, and to one.
    pub const LOADS: f64 = 4.33e6;
    pub const LOADS_ONE: f64 = 65_018.0;
    /// From asking for a step to having it: a block's ring hides as many steps of it as are in it.
    pub const AHEAD: f64 = 1.7;
    /// The products of a tap for a tile of 64 pixels and 96 outputs.
    pub const PRODUCTS: f64 = 0.11;
    /// For a tile of 64 pixels and 96 outputs.
    pub const STORE: f64 = 1.22;
    /// A cluster, and each of its blocks.
    pub const CLUSTER: f64 = 0.18;
    pub const BLOCK: f64 = 0.45;
}

impl Plan {
    /// Every tile with every number of splits, the one that should take the least time on `processors` first, each of which holds
    /// `resident` blocks of each tile, alone and where a cluster shares it.
    pub fn ranked(shape: Shape, processors: u32, resident: &[[u32; 2]]) -> Vec<Self> {
        let mut plans: Vec<Self> = TILES
            .iter()
            .enumerate()
            .filter(|(_, t)| {
                t.kind.weight_bytes() == shape.weight_bytes && (t.kind != Kind::Conv3x3 || shape.three_by_three)
            })
            .flat_map(|(tile, t)| {
                let boxes = t.boxes(shape.batch, shape.width, shape.height);
                (1..=WIDEST_CLUSTER).filter_map(move |splits| {
                    let steps = shape.steps(t.kind);
                    let steps_per_split = steps.div_ceil(splits);
                    // each block of a cluster must have work
                    let fits = steps.div_ceil(steps_per_split) == splits && t.shared(splits) <= MOST_SHARED;
                    fits.then_some(Self { tile, splits, steps_per_split, boxes, early: false })
                })
            })
            .collect();
        let resident = |plan: &Self| resident[plan.tile][usize::from(plan.splits > 1)];
        let time = |plan: &Self| plan.time(shape, f64::from(processors), f64::from(resident(plan)));
        plans.sort_by(|a, b| time(a).total_cmp(&time(b)));
        plans
    }

    pub fn blocks(&self, shape: Shape) -> usize {
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
            Kind::Conv3x3 => tile.image_bytes() / ROW,
            _ => pixels.min(shape.batch * shape.height * shape.width * CHUNK * 2),
        };
        let bytes = (pixels + weights) as f64;
        // in steps of one tap of 64 channels
        let taps = if tile.kind == Kind::Conv3x3 { ROW as f64 } else { 1.0 };
        let ahead = 1.0 / (tile.stages * tile.together()) as f64;
        let loads = (blocks * steps * bytes / cost::LOADS).max(waves * steps * bytes * together / cost::LOADS_ONE);
        let meeting = if self.splits > 1 { cost::CLUSTER + cost::BLOCK * self.splits as f64 } else { 0.0 };
        let store = cost::STORE * (tile.pixels() * tile.outputs()) as f64 / (64.0 * 96.0);
        let products = taps * together * cost::PRODUCTS * (tile.pixels() * tile.outputs()) as f64 / (64.0 * 96.0);
        waves * store + meeting + loads.max(waves * steps * products.max(cost::AHEAD * ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of each tile that a processor of an H100 holds, by their shared memory.
    fn resident() -> Vec<[u32; 2]> {
        TILES.map(|tile| [1, 2].map(|splits| ((228 << 10) / (tile.shared(splits) + 1024)).max(1) as u32)).to_vec()
    }

    fn best(shape: Shape) -> Plan {
        Plan::ranked(shape, 132, &resident())[0]
    }

    /// The widest layer of the reference network at 64x64.
    const WIDEST: Shape = Shape {
        batch: 1,
        height: 4,
        width: 4,
        outputs: 3072,
        chunks: 48,
        kernel: 3,
        three_by_three: true,
        weight_bytes: 2,
    };

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
                for (chunks, kernel) in [(1, 1), (2, 1), (3, 1), (1, 3), (3, 3), (6, 3), (48, 3)] {
                    let three_by_three = kernel == 3;
                    let shape =
                        Shape { batch: 1, height, width, outputs, chunks, kernel, three_by_three, weight_bytes: 2 };
                    for plan in Plan::ranked(shape, 132, &resident()) {
                        let steps = shape.steps(TILES[plan.tile].kind);
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
        let few = best(WIDEST);
        assert!(few.splits > 1, "{few:?}");
        assert_eq!(TILES[few.tile].pixels(), 16, "{few:?}");
        let many = Shape { height: 512, width: 512, outputs: 96, chunks: 2, ..WIDEST };
        assert_eq!(best(many).splits, 1, "{:?}", best(many));
    }

    #[test]
    fn weights_in_eight_bits_have_tiles_of_their_own() {
        let shape = Shape { batch: 5, weight_bytes: 1, ..WIDEST };
        let plans = Plan::ranked(shape, 132, &resident());
        assert!(plans.iter().all(|plan| TILES[plan.tile].kind == Kind::NarrowFp8));
        assert!(
            plans.iter().any(|plan| plan.boxes.samples == 5 && plan.blocks(shape) == 48 * plan.splits),
            "weights come once"
        );
    }

    #[test]
    fn shared_memory_fits_what_a_card_has() {
        for tile in TILES {
            assert!(tile.shared(1) <= MOST_SHARED, "{tile:?}");
            // the sums take the place of the stages where no cluster shares them
            assert!(tile.pixels() * (tile.outputs() + 4) * 4 <= tile.shared(1), "{tile:?}");
        }
    }

    #[test]
    fn a_cluster_shares_all_pixels_of_a_tile() {
        for pixels in TILES.map(Tile::pixels) {
            for splits in 1..=WIDEST_CLUSTER {
                let share = pixels.div_ceil(splits);
                // as the kernels find the block that finishes a pixel
                let factor = (1usize << 16).div_ceil(share);
                assert!((0..pixels).all(|pixel| (pixel * factor) >> 16 == pixel / share), "{pixels} by {splits}");
            }
        }
    }
}
