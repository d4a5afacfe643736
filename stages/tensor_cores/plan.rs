//! How a layer is cut over a GPU's processors: the tile of a block, and into how many parts the sums are split.
use crate::cuda::{self, Grid};
use candle_core::Result;
use serde::{Deserialize, Serialize};

/// Values along the inner dimension that a block takes in at a time, as in `conv2d.cu`.
pub(super) const TILE_K: usize = 64;

/// A tile of `conv2d.cu` and of `conv2d_fp8.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub outputs: usize,
    pub pixels: usize,
    pub threads: u32,
    /// Warps that make the same sums from different steps along the inner dimension.
    warps_k: usize,
    stages: usize,
    /// Where weights are stored in eight bits.
    stages_fp8: usize,
}

/// As in `conv2d.cu` and in `conv2d_fp8.cu`.
pub(super) const TILES: [Tile; 5] = [
    Tile { outputs: 128, pixels: 128, threads: 256, warps_k: 1, stages: 3, stages_fp8: 4 },
    Tile { outputs: 128, pixels: 64, threads: 128, warps_k: 2, stages: 4, stages_fp8: 6 },
    Tile { outputs: 64, pixels: 64, threads: 128, warps_k: 4, stages: 4, stages_fp8: 6 },
    Tile { outputs: 64, pixels: 32, threads: 128, warps_k: 4, stages: 4, stages_fp8: 6 },
    Tile { outputs: 128, pixels: 16, threads: 128, warps_k: 2, stages: 5, stages_fp8: 8 },
];

/// Memory for split sums.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;
/// Tiles whose parts may meet in it.
pub(super) const WORKSPACE_TILES: usize = 4096;

impl Tile {
    /// Bytes of shared memory in a block: the stages, whose weights take so many bytes each, and afterwards the sums of its warps.
    pub fn shared(self, weight_bytes: usize) -> u32 {
        let stages = if weight_bytes == 1 { self.stages_fp8 } else { self.stages };
        let stages = stages * (self.outputs * weight_bytes + self.pixels * 2) * TILE_K;
        let sums = self.warps_k * self.pixels * (self.outputs + 4) * 4;
        stages.max(sums) as u32
    }

    fn count(self, outputs: usize, pixels: usize) -> usize {
        outputs.div_ceil(self.outputs) * pixels.div_ceil(self.pixels)
    }

    /// Blocks along pixels, outputs and splits, whose weights take so many bytes each.
    ///
    /// # Errors
    /// More than a grid can hold.
    pub fn grid(self, outputs: usize, pixels: usize, splits: usize, weight_bytes: usize) -> Result<Grid> {
        let blocks = [pixels.div_ceil(self.pixels), outputs.div_ceil(self.outputs), splits];
        if blocks[1] > 65_535 || blocks[2] > 65_535 || blocks[0] > i32::MAX as usize {
            candle_core::bail!("a layer of {outputs} outputs at {pixels} pixels is larger than a grid can be");
        }
        let shared = self.shared(weight_bytes);
        Ok(Grid { blocks: blocks.map(|n| n as u32), threads: self.threads, shared, cluster: cuda::ALONE })
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

/// What the choice is reckoned with: fitted to 132 layers of this project's networks, each measured on an H100 with every tile and
/// split, of which it chooses such as take 2 % longer than the best in sum. The numbers are only good for comparing plans: a
/// cost that never decides is not what it says. In nanoseconds, bytes for a nanosecond, multiplications and additions likewise.
mod cost {
    /// From the second-level cache to one processor.
    pub const LOADS: f64 = 49.2;
    /// By one processor, for each tile.
    pub const FLOPS: [f64; 5] = [1_631.0, 4_311.0, 4_916.0, 25_166.0, 1_906.0];
    /// A turn of a block's loop, whatever else the processor does.
    pub const TURN: [f64; 5] = [246.0, 79.0, 762.0, 721.0, 1_250.0];
    /// Before the first products and after the last.
    pub const ENDS: [f64; 5] = [353.0, 54_620.0, 4_785.0, 1_266.0, 1_464.0];
    /// For each byte of a tile's sums.
    pub const STORE: f64 = 0.169;
    /// The meeting of the parts, and what one block adds of them.
    pub const MEETING: f64 = 415.0;
    pub const ADDING: f64 = 5.94;
}

impl Plan {
    /// All plans, the one first that should take the least time on `processors`, each of which holds `resident` blocks of each tile, where
    /// weights take so many bytes each.
    pub fn ranked(
        outputs: usize,
        pixels: usize,
        k_tiles: usize,
        weight_bytes: usize,
        processors: u32,
        resident: &[u32],
    ) -> Vec<Self> {
        let mut plans: Vec<Self> = Self::candidates(outputs, pixels, k_tiles).collect();
        let time = |plan: &Self| plan.time(outputs, pixels, weight_bytes, processors, resident[plan.tile]);
        plans.sort_by(|a, b| time(a).total_cmp(&time(b)));
        plans
    }

    /// Every tile with every number of splits that its parts have room for.
    pub fn candidates(outputs: usize, pixels: usize, k_tiles: usize) -> impl Iterator<Item = Self> {
        TILES.iter().enumerate().flat_map(move |(tile, t)| {
            let count = t.count(outputs, pixels);
            (1..=k_tiles.min(64)).filter_map(move |splits| {
                let tiles_per_split = k_tiles.div_ceil(splits);
                // each split must have work, or it would wait for what never comes
                let fits = k_tiles.div_ceil(tiles_per_split) == splits
                    && (splits == 1
                        || count <= WORKSPACE_TILES && count * splits * t.outputs * t.pixels * 4 <= WORKSPACE_BYTES);
                fits.then_some(Self { tile, splits, tiles_per_split })
            })
        })
    }

    /// Estimated nanoseconds.
    fn time(&self, outputs: usize, pixels: usize, weight_bytes: usize, processors: u32, resident: u32) -> f64 {
        let tile = TILES[self.tile];
        let blocks = tile.count(outputs, pixels) * self.splits;
        let (turns, processors, resident) = (self.tiles_per_split as f64, processors as f64, f64::from(resident));
        // blocks that share a processor share its throughput; a block alone cannot be faster than its turns
        let waves = (blocks as f64 / (processors * resident)).ceil();
        let together = (blocks as f64 / processors).ceil().min(waves * resident);
        let products = (2 * tile.outputs * tile.pixels * TILE_K) as f64 / cost::FLOPS[self.tile];
        let loads = ((tile.outputs * weight_bytes + tile.pixels * 2) * TILE_K) as f64 / cost::LOADS;
        let busy = together * turns * products.max(loads);
        let alone = waves * turns * cost::TURN[self.tile];
        let part = (tile.outputs * tile.pixels * 4) as f64;
        let meeting =
            if self.splits > 1 { cost::MEETING + (self.splits as f64 + 1.0) * part / cost::ADDING } else { 0.0 };
        waves * cost::ENDS[self.tile] + cost::STORE * part + busy.max(alone) + meeting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of each tile that a processor of an H100 holds.
    const RESIDENT: [u32; 5] = [1, 2, 2, 4, 2];

    #[test]
    fn every_split_has_work_and_parts_have_room() {
        for (outputs, pixels, k_tiles) in
            [(3072, 16, 432), (192, 4096, 27), (3, 4096, 27), (64, 16384, 9), (768, 64, 1)]
        {
            let mut count = 0;
            for plan in Plan::candidates(outputs, pixels, k_tiles) {
                count += 1;
                assert!((plan.splits - 1) * plan.tiles_per_split < k_tiles, "{plan:?}");
                assert!(plan.splits * plan.tiles_per_split >= k_tiles, "{plan:?}");
                let tile = TILES[plan.tile];
                let parts = tile.count(outputs, pixels) * plan.splits * tile.outputs * tile.pixels * 4;
                assert!(plan.splits == 1 || parts <= WORKSPACE_BYTES, "{plan:?}");
            }
            assert!(count >= TILES.len());
        }
    }

    #[test]
    fn few_pixels_are_split_and_many_are_not() {
        let few = Plan::ranked(3072, 16, 432, 2, 132, &RESIDENT)[0];
        assert!(few.splits > 3, "{few:?}");
        let many = Plan::ranked(128, 262_144, 18, 2, 132, &RESIDENT)[0];
        assert_eq!(many.splits, 1, "{many:?}");
    }

    #[test]
    fn shared_memory_fits_what_a_card_has() {
        for tile in TILES {
            assert!(tile.shared(2) <= 163 << 10, "{tile:?}"); // a block on compute capability 8.0
            // two blocks on compute capability 9.0, which keeps a kilobyte for each
            assert!(2 * (tile.shared(1) + 1024) <= 228 << 10, "{tile:?}");
        }
    }

    #[test]
    fn a_grid_that_no_card_holds_is_refused() {
        assert!(TILES[2].grid(64 * 70_000, 64, 1, 2).is_err());
        assert_eq!(TILES[0].grid(129, 257, 3, 2).unwrap().blocks, [3, 2, 3]);
    }
}
