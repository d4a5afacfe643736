//! How a layer is cut over a GPU's processors: the tile of a block, and into how many parts the sums are split.
use crate::cuda::Grid;
use candle_core::Result;
use serde::{Deserialize, Serialize};

/// Values along the inner dimension that a block takes in at a time, as in `conv2d.cu`.
pub(super) const TILE_K: usize = 64;

/// A tile of `conv2d.cu`, of `conv2d_fp8.cu`, or of `conv3x3.cu`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tile {
    pub outputs: usize,
    pub pixels: usize,
    pub threads: u32,
    /// Warps that make the same sums from different steps along the inner dimension.
    warps_k: usize,
    stages: usize,
    /// Where weights are stored in eight bits.
    stages_fp8: usize,
    /// Whether its pixels are a box of them, for 3x3 kernels, which comes once for nine taps.
    pub boxes: bool,
    cost: Cost,
}

const fn tile([outputs, pixels]: [usize; 2], threads: u32, warps_k: usize, stages: [usize; 2], cost: Cost) -> Tile {
    Tile { outputs, pixels, threads, warps_k, stages: stages[0], stages_fp8: stages[1], boxes: false, cost }
}

/// As in the three files; those of `conv3x3.cu` come last.
pub(super) const TILES: [Tile; 9] = [
    tile([128, 128], 256, 1, [3, 4], cost::LARGE),
    tile([128, 64], 128, 2, [4, 6], cost::TALL),
    tile([64, 64], 128, 4, [4, 6], cost::SQUARE),
    tile([64, 32], 128, 4, [4, 6], cost::SMALL),
    tile([128, 16], 128, 2, [5, 8], cost::NARROW),
    Tile { boxes: true, ..tile([128, 128], 256, 1, [3, 3], cost::LARGE) },
    Tile { boxes: true, ..tile([128, 64], 128, 2, [4, 4], cost::TALL) },
    Tile { boxes: true, ..tile([64, 64], 128, 4, [6, 6], cost::SQUARE) },
    Tile { boxes: true, ..tile([64, 32], 128, 4, [6, 6], cost::SMALL) },
];

/// Pixels in a row of a box, and with the border.
const BOX: [usize; 2] = [8, 10];
/// Taps for which a box comes once.
pub(super) const TAPS: usize = 9;

/// The work of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub batch: usize,
    /// Of the result.
    pub height: usize,
    pub width: usize,
    pub outputs: usize,
    /// Steps of 64 along the inner dimension.
    pub steps: usize,
    /// Likewise where the taps of 64 channels come before the next 64; `None` where `conv3x3.cu` cannot take it.
    pub steps_by_boxes: Option<usize>,
    /// Bytes of a weight.
    pub weight_bytes: usize,
}

impl Shape {
    pub fn steps(&self, tile: Tile) -> Option<usize> {
        if tile.boxes { self.steps_by_boxes } else { Some(self.steps) }
    }
}

/// Memory for split sums.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;
/// Tiles whose parts may meet in it.
pub(super) const WORKSPACE_TILES: usize = 4096;

impl Tile {
    /// Bytes of shared memory in a block: the stages, whose weights take so many bytes each, and two boxes, and afterwards the sums of its warps.
    pub fn shared(self, weight_bytes: usize) -> u32 {
        let stages = if weight_bytes == 1 { self.stages_fp8 } else { self.stages };
        let (pixels, boxes) = if self.boxes { (0, 2 * self.image()) } else { (self.pixels, 0) };
        let stages = stages * (self.outputs * weight_bytes + pixels * 2) * TILE_K + boxes * 2 * TILE_K;
        let sums = self.warps_k * self.pixels * (self.outputs + 4) * 4;
        stages.max(sums) as u32
    }

    /// Pixels of a box with its border.
    fn image(self) -> usize {
        BOX[1] * (self.pixels / BOX[0] + 2)
    }

    /// Boxes across and down a picture of this size.
    pub fn boxes(self, width: usize, height: usize) -> [usize; 2] {
        [width.div_ceil(BOX[0]), height.div_ceil(self.pixels / BOX[0])]
    }

    /// Tiles along pixels and outputs.
    fn tiles(self, shape: &Shape) -> [usize; 2] {
        let along_pixels = if self.boxes {
            shape.batch * self.boxes(shape.width, shape.height).iter().product::<usize>()
        } else {
            (shape.batch * shape.height * shape.width).div_ceil(self.pixels)
        };
        [along_pixels, shape.outputs.div_ceil(self.outputs)]
    }

    /// Blocks along pixels, outputs and splits.
    ///
    /// # Errors
    /// More than a grid can hold.
    pub fn grid(self, shape: &Shape, splits: usize) -> Result<Grid> {
        let [pixels, outputs] = self.tiles(shape);
        let blocks = [pixels, outputs, splits];
        if blocks[1] > 65_535 || blocks[2] > 65_535 || blocks[0] > i32::MAX as usize {
            candle_core::bail!("a layer of {shape:?} is larger than a grid can be");
        }
        let shared = self.shared(shape.weight_bytes);
        Ok(Grid { blocks: blocks.map(|n| n as u32), threads: self.threads, shared, cluster: 1 })
    }
}

/// The choice for one layer at one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Which of [`TILES`].
    pub tile: usize,
    pub splits: usize,
    pub tiles_per_split: usize,
}

/// What a tile is reckoned with, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    /// Multiplications and additions in a nanosecond, by one processor.
    flops: f64,
    /// A turn of a block's loop, whatever else the processor does.
    turn: f64,
    /// Before the first products and after the last.
    ends: f64,
}

/// Fitted to 132 layers of this project's networks, each measured on an H100 with every tile and split of `conv2d.cu`, of which it chooses such as
/// take 2 % longer than the best in sum; a box is reckoned as its tile there, with fewer loads. The numbers are only good for comparing plans: a cost
/// that never decides is not what it says. In nanoseconds, bytes for a nanosecond.
mod cost {
    use super::Cost;

    pub const LARGE: Cost = Cost { flops: 1_631.0, turn: 246.0, ends: 353.0 };
    pub const TALL: Cost = Cost { flops: 4_311.0, turn: 79.0, ends: 54_620.0 };
    pub const SQUARE: Cost = Cost { flops: 4_916.0, turn: 762.0, ends: 4_785.0 };
    pub const SMALL: Cost = Cost { flops: 25_166.0, turn: 721.0, ends: 1_266.0 };
    pub const NARROW: Cost = Cost { flops: 1_906.0, turn: 1_250.0, ends: 1_464.0 };
    /// From the second-level cache to one processor.
    pub const LOADS: f64 = 49.2;
    /// For each byte of a tile's sums.
    pub const STORE: f64 = 0.169;
    /// The meeting of the parts, and what one block adds of them.
    pub const MEETING: f64 = 415.0;
    pub const ADDING: f64 = 5.94;
}

impl Plan {
    /// All plans, the one first that should take the least time on `processors`, each of which holds `resident` blocks of each tile.
    pub fn ranked(shape: &Shape, processors: u32, resident: &[u32]) -> Vec<Self> {
        let mut plans: Vec<Self> = Self::candidates(shape).filter(|plan| plan.tile < resident.len()).collect();
        let time = |plan: &Self| plan.time(shape, processors, resident[plan.tile]);
        plans.sort_by(|a, b| time(a).total_cmp(&time(b)));
        plans
    }

    /// Every tile with every number of splits that its parts have room for.
    fn candidates(shape: &Shape) -> impl Iterator<Item = Self> {
        TILES.iter().enumerate().flat_map(move |(tile, t)| {
            let count: usize = t.tiles(shape).iter().product();
            let steps = shape.steps(*t).unwrap_or_default();
            (1..=steps.min(64)).filter_map(move |splits| {
                let tiles_per_split = steps.div_ceil(splits);
                // each split must have work, or it would wait for what never comes
                let fits = steps.div_ceil(tiles_per_split) == splits
                    && (splits == 1
                        || count <= WORKSPACE_TILES && count * splits * t.outputs * t.pixels * 4 <= WORKSPACE_BYTES);
                fits.then_some(Self { tile, splits, tiles_per_split })
            })
        })
    }

    /// Estimated nanoseconds.
    fn time(&self, shape: &Shape, processors: u32, resident: u32) -> f64 {
        let tile = TILES[self.tile];
        let blocks = tile.tiles(shape).iter().product::<usize>() * self.splits;
        let (turns, processors, resident) = (self.tiles_per_split as f64, processors as f64, f64::from(resident));
        // blocks that share a processor share its throughput; a block alone cannot be faster than its turns
        let waves = (blocks as f64 / (processors * resident)).ceil();
        let together = (blocks as f64 / processors).ceil().min(waves * resident);
        let products = (2 * tile.outputs * tile.pixels * TILE_K) as f64 / tile.cost.flops;
        let pixels = if tile.boxes { tile.image() / TAPS } else { tile.pixels };
        let loads = ((tile.outputs * shape.weight_bytes + pixels * 2) * TILE_K) as f64 / cost::LOADS;
        let busy = together * turns * products.max(loads);
        let alone = waves * turns * tile.cost.turn;
        let part = (tile.outputs * tile.pixels * 4) as f64;
        let meeting =
            if self.splits > 1 { cost::MEETING + (self.splits as f64 + 1.0) * part / cost::ADDING } else { 0.0 };
        waves * tile.cost.ends + cost::STORE * part + busy.max(alone) + meeting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of each tile that a processor of an H100 holds.
    const RESIDENT: [u32; 9] = [1, 2, 2, 4, 2, 2, 2, 2, 3];

    fn shape(outputs: usize, [height, width]: [usize; 2], steps: usize) -> Shape {
        let steps_by_boxes = steps.is_multiple_of(TAPS).then_some(steps);
        Shape { batch: 1, height, width, outputs, steps, steps_by_boxes, weight_bytes: 2 }
    }

    #[test]
    fn every_split_has_work_and_parts_have_room() {
        for shape in [
            shape(3072, [4, 4], 432),
            shape(192, [64, 64], 27),
            shape(3, [64, 64], 27),
            shape(64, [128, 128], 9),
            shape(768, [1, 64], 1),
        ] {
            let mut tiles = std::collections::BTreeSet::new();
            for plan in Plan::candidates(&shape) {
                tiles.insert(plan.tile);
                let tile = TILES[plan.tile];
                let steps = shape.steps(tile).unwrap();
                assert!((plan.splits - 1) * plan.tiles_per_split < steps, "{plan:?}");
                assert!(plan.splits * plan.tiles_per_split >= steps, "{plan:?}");
                let parts = tile.tiles(&shape).iter().product::<usize>() * plan.splits * tile.outputs * tile.pixels * 4;
                assert!(plan.splits == 1 || parts <= WORKSPACE_BYTES, "{plan:?}");
            }
            assert_eq!(tiles.len(), if shape.steps_by_boxes.is_some() { 9 } else { 5 });
        }
    }

    #[test]
    fn few_pixels_are_split_and_many_are_not() {
        let few = Plan::ranked(&shape(3072, [4, 4], 432), 132, &RESIDENT)[0];
        assert!(few.splits > 3, "{few:?}");
        let many = Plan::ranked(&shape(128, [512, 512], 18), 132, &RESIDENT)[0];
        assert_eq!(many.splits, 1, "{many:?}");
    }

    #[test]
    fn boxes_cover_every_pixel() {
        for (width, height) in [(64, 64), (8, 8), (9, 9), (100, 37), (1, 300)] {
            for tile in TILES.iter().filter(|tile| tile.boxes) {
                let [across, down] = tile.boxes(width, height);
                let high = tile.pixels / 8;
                assert!(across * 8 >= width && (across - 1) * 8 < width, "{tile:?}");
                assert!(down * high >= height && (down - 1) * high < height, "{tile:?}");
            }
        }
    }

    #[test]
    fn shared_memory_fits_what_a_card_has() {
        for tile in TILES {
            assert!(tile.shared(2) <= 99 << 10, "{tile:?}"); // a block on compute capability 8.6
            // two blocks on compute capability 9.0, which keeps a kilobyte for each
            assert!(2 * (tile.shared(1) + 1024) <= 228 << 10, "{tile:?}");
        }
    }

    #[test]
    fn a_grid_that_no_card_holds_is_refused() {
        assert!(TILES[2].grid(&shape(64 * 70_000, [8, 8], 1), 1).is_err());
        assert_eq!(TILES[0].grid(&shape(129, [1, 257], 3), 3).unwrap().blocks, [3, 2, 3]);
        assert_eq!(TILES[5].grid(&shape(129, [17, 20], 9), 1).unwrap().blocks, [6, 2, 1]);
    }
}
