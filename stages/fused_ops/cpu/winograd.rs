//! 3x3 convolutions of stride 1 by Winograd's F(2x2, 3x3): 16 small products for each four outputs.
//!
//! Weights stay packed as they are and are transformed for each region that uses them: that costs
//! one vector operation for every nine or more of the product, and keeps half storage exact.

use super::epilogue::{Finish, Tile};
use super::gather::Image;
use super::microkernel::{MAX_COLUMNS, Run};
use super::pack::PackedWeights;
use super::tasks::{Scratch, run_tasks};
use super::transform::ELEMENTS;
use super::values::Values;

/// Values of the transformed tiles of a region: half of a 2 MiB second-level cache.
const LEFT_VALUES: usize = 256 * 1024;
/// Tiles of a region, which bounds its sums.
const MOST_TILES: usize = 128;
/// Tiles below which transforming the weights costs more than the products save.
const FEWEST_TILES: usize = 16;
/// Input channels whose transformed weights are kept at a time.
const CHANNEL_BLOCK: usize = 128;
/// Tiles that go to the epilogue together.
const FINISHED_TILES: usize = 8;

/// Whether the method fits: a 3x3 kernel at stride 1, whole vectors of channels, and enough tiles
/// and output channels to make up for the transforms.
pub(super) fn fits(image: &Image<'_>, weights: &PackedWeights) -> bool {
    let geometry = image.geometry;
    let tiles = geometry.batch * geometry.out_height.div_ceil(2) * geometry.out_width.div_ceil(2);
    geometry.kernel == [3, 3]
        && geometry.stride == 1
        && image.channels.is_multiple_of(16)
        && image.channels >= 32
        && weights.outputs >= 32
        && tiles >= FEWEST_TILES
}

/// One call.
pub(super) struct Winograd<'a> {
    image: &'a Image<'a>,
    weights: &'a PackedWeights,
    finish: &'a Finish<'a>,
    /// Tiles of a whole sample, and of a region, down and across.
    tiles: [usize; 2],
    region: [usize; 2],
    /// Regions of a sample, down and across.
    regions: [usize; 2],
    /// Panels of a task.
    per_group: usize,
    /// Values from a tile to the next in a transformed element.
    pitch: usize,
}

/// The tiles of a task.
#[derive(Clone, Copy)]
struct Region {
    sample: usize,
    /// First tile, down and across.
    first: [usize; 2],
    /// Tiles, down and across.
    size: [usize; 2],
}

impl<'a> Winograd<'a> {
    /// Cuts the call into tasks; see [`fits`] for when it may be asked to.
    pub(super) fn new(
        image: &'a Image<'a>,
        weights: &'a PackedWeights,
        finish: &'a Finish<'a>,
    ) -> Self {
        let geometry = image.geometry;
        let threads = rayon::current_num_threads();
        let tiles = [
            geometry.out_height.div_ceil(2),
            geometry.out_width.div_ceil(2),
        ];
        // Tiles a multiple of 2 KiB apart would evict each other from a first-level cache.
        let pitch = image.channels + 16 * usize::from(image.channels.is_multiple_of(256));
        let most = (LEFT_VALUES / (ELEMENTS * pitch)).clamp(FEWEST_TILES, MOST_TILES);
        let across = tiles[1].div_ceil(tiles[1].div_ceil(most));
        let down = (most / across).clamp(1, tiles[0]);
        let mut regions = [tiles[0].div_ceil(down), tiles[1].div_ceil(across)];
        let samples = geometry.batch * regions[1];
        // A few tasks more than fit evenly on the threads would leave some idle at the end.
        while regions[0] < tiles[0]
            && regions[0] * samples > threads
            && regions[0] * samples < 8 * threads
            && !(regions[0] * samples).is_multiple_of(threads)
        {
            regions[0] += 1;
        }
        let down = tiles[0].div_ceil(regions[0]);
        regions[0] = tiles[0].div_ceil(down);
        let groups = (2 * threads)
            .div_ceil(regions[0] * samples)
            .min(weights.units());
        Self {
            image,
            weights,
            finish,
            tiles,
            region: [down, across],
            regions,
            per_group: weights.units().div_ceil(groups),
            pitch,
        }
    }

    /// Runs every task.
    ///
    /// # Safety
    /// The epilogue's target holds batch × output height × output width × output channels values
    /// which nothing else reads or writes meanwhile.
    pub(super) unsafe fn run(&self) {
        let batch = self.image.geometry.batch;
        let groups = self.weights.units().div_ceil(self.per_group);
        let regions = batch * self.regions[0] * self.regions[1];
        let tiles = batch * self.tiles[0] * self.tiles[1];
        let work = tiles * ELEMENTS * self.image.channels * self.weights.outputs;
        run_tasks(regions * groups, work, |task, scratch, transformed| {
            // SAFETY: the caller's promise; tasks differ in their pixels or their columns.
            unsafe { self.task(task / groups, task % groups, scratch, transformed) }
        });
    }

    fn region(&self, index: usize) -> Region {
        let [down, across] = self.regions;
        let (sample, index) = (index / (down * across), index % (down * across));
        let first = [
            index / across * self.region[0],
            index % across * self.region[1],
        ];
        Region {
            sample,
            first,
            size: [
                self.region[0].min(self.tiles[0] - first[0]),
                self.region[1].min(self.tiles[1] - first[1]),
            ],
        }
    }

    /// One region by one group of panels. `transformed` names the region whose tiles are in scratch.
    ///
    /// # Safety
    /// As [`run`](Self::run), for the pixels and columns of this task.
    unsafe fn task(
        &self,
        index: usize,
        group: usize,
        scratch: &mut Scratch,
        transformed: &mut Option<usize>,
    ) {
        let region = self.region(index);
        let tiles = region.size[0] * region.size[1];
        let channels = self.image.channels;
        if *transformed != Some(index) {
            self.transform_input(region, scratch);
            *transformed = Some(index);
        }
        let finished_values = 4 * FINISHED_TILES * MAX_COLUMNS;
        scratch
            .sums
            .reserve(ELEMENTS * tiles * MAX_COLUMNS + finished_values);
        scratch
            .panel
            .reserve((ELEMENTS + 9) * CHANNEL_BLOCK * MAX_COLUMNS);
        let left = &scratch.left.as_slice()[..ELEMENTS * tiles * self.pitch];
        let panel = scratch.panel.as_mut_slice();
        let (finished, sums) = scratch.sums.as_mut_slice().split_at_mut(finished_values);
        let kernels = self.weights.isa().kernels();
        let first_unit = group * self.per_group;
        for unit in first_unit..self.weights.units().min(first_unit + self.per_group) {
            let (_, width) = self.weights.unit_columns(unit);
            let table = if width == kernels.columns {
                kernels.full
            } else {
                kernels.half
            };
            let strips = tiles.div_ceil(table.len());
            for first_channel in (0..channels).step_by(CHANNEL_BLOCK) {
                let length = CHANNEL_BLOCK.min(channels - first_channel);
                self.transform_weights(unit, first_channel, length, panel);
                let runs = [Run {
                    offset: first_channel,
                    length,
                }];
                for element in 0..ELEMENTS {
                    let right = &panel[element * length * width..][..length * width];
                    for strip in 0..strips {
                        let start = strip * tiles / strips;
                        let rows = (strip + 1) * tiles / strips - start;
                        let left =
                            &left[(element * tiles + start) * self.pitch..][..rows * self.pitch];
                        let sums = &mut sums[(element * tiles + start) * width..][..rows * width];
                        // SAFETY: `left` was sliced to `rows` rows of `pitch` values, of which the
                        // run takes channels; `right` and `sums` to what the kernel is said to use.
                        unsafe {
                            table[rows - 1](
                                left.as_ptr(),
                                self.pitch,
                                &runs,
                                right.as_ptr(),
                                sums.as_mut_ptr(),
                                first_channel > 0,
                            );
                        }
                    }
                }
            }
            // SAFETY: the caller's promise.
            unsafe { self.finish(region, unit, sums, finished) };
        }
    }

    /// Fills `scratch.left` with `(element, tile, channel)`.
    fn transform_input(&self, region: Region, scratch: &mut Scratch) {
        let geometry = self.image.geometry;
        let channels = self.image.channels;
        let [down, across] = region.size;
        let tiles = down * across;
        scratch.left.reserve(ELEMENTS * tiles * self.pitch);
        let left = scratch.left.as_mut_slice();
        let transform = self.weights.isa().kernels().transforms.input;
        let lines = [2 * down + 2, 2 * across + 2];
        let origin = [2 * region.first[0], 2 * region.first[1]];
        // A single f32 input is read where it lies, with a row of zeros for what is outside of it.
        let direct = match self.image.inputs {
            [input] => match input.values {
                Values::F32(values) => Some(values),
                Values::F16(_) => None,
            },
            _ => None,
        };
        let source = match direct {
            Some(_) => {
                scratch.window.reserve(channels);
                scratch.window.as_mut_slice()[..channels].fill(0.0);
                scratch.window.as_slice()
            }
            None => {
                let size = lines[0] * lines[1] * channels;
                scratch.window.reserve(size);
                let window = &mut scratch.window.as_mut_slice()[..size];
                self.image
                    .window(region.sample, origin, lines, channels, window);
                scratch.window.as_slice()
            }
        };
        let pixel = |y: usize, x: usize| -> *const f32 {
            let Some(values) = direct else {
                return source[(y * lines[1] + x) * channels..][..channels].as_ptr();
            };
            let y = (origin[0] + y).wrapping_sub(geometry.padding);
            let x = (origin[1] + x).wrapping_sub(geometry.padding);
            if y >= geometry.height || x >= geometry.width {
                return source[..channels].as_ptr();
            }
            let place = (region.sample * geometry.height + y) * geometry.width + x;
            values[place * channels..][..channels].as_ptr()
        };
        for tile in 0..tiles {
            let (y, x) = (tile / across * 2, tile % across * 2);
            let mut pixels = [std::ptr::null(); ELEMENTS];
            for (index, place) in pixels.iter_mut().enumerate() {
                *place = pixel(y + index / 4, x + index % 4);
            }
            let target = &mut left[tile * self.pitch..];
            assert!(target.len() >= (ELEMENTS - 1) * tiles * self.pitch + channels);
            // SAFETY: each pixel was sliced to `channels` values, `fits` asked for a multiple of 16,
            // and the target was just seen to hold the last channel of the last element.
            unsafe { transform(&pixels, channels, target.as_mut_ptr(), tiles * self.pitch) };
        }
    }

    /// Fills `panel` with `(element, channel, column)` of one panel for some channels.
    fn transform_weights(&self, unit: usize, first: usize, length: usize, panel: &mut [f32]) {
        let kernels = self.weights.isa().kernels();
        let (_, width) = self.weights.unit_columns(unit);
        let (panel, widened) = panel.split_at_mut(ELEMENTS * CHANNEL_BLOCK * MAX_COLUMNS);
        let mut rows: [&[f32]; 9] = [&[]; 9];
        let mut widened = widened.chunks_exact_mut(CHANNEL_BLOCK * MAX_COLUMNS);
        for (tap, rows) in rows.iter_mut().enumerate() {
            let Some(target) = widened.next() else { break };
            *rows = self.weights.tap_rows(unit, tap, first, length, target);
        }
        let panel = &mut panel[..ELEMENTS * length * width];
        for channel in 0..length {
            let taps = rows.map(|rows| rows[channel * width..][..width].as_ptr());
            let target = panel[channel * width..].as_mut_ptr();
            // SAFETY: each tap was sliced to `width` values, a panel's or half of one; the target
            // holds 16 elements of length × width values, less the channels before this one.
            unsafe { (kernels.transforms.weights)(&taps, width, target, length * width) };
        }
    }

    /// Transforms the sums of one panel back and stores them.
    ///
    /// # Safety
    /// As [`run`](Self::run), for the pixels and columns of this task.
    unsafe fn finish(&self, region: Region, unit: usize, sums: &[f32], finished: &mut [f32]) {
        let geometry = self.image.geometry;
        let kernels = self.weights.isa().kernels();
        let (first_column, width) = self.weights.unit_columns(unit);
        let columns = width.min(self.weights.outputs - first_column);
        let [down, across] = region.size;
        let tiles = down * across;
        let sums = &sums[..ELEMENTS * tiles * width];
        let line = 2 * FINISHED_TILES * width;
        let finished = &mut finished[..2 * line];
        for tile_row in 0..down {
            for first in (0..across).step_by(FINISHED_TILES) {
                let count = FINISHED_TILES.min(across - first);
                for tile in 0..count {
                    let sums = &sums[(tile_row * across + first + tile) * width..];
                    let target = &mut finished[2 * tile * width..];
                    // SAFETY: `sums` holds 16 elements of tiles × width values, less the tiles
                    // before this one; `finished` two lines of 2 · FINISHED_TILES pixels, less those
                    // before this tile.
                    unsafe {
                        (kernels.transforms.output)(
                            sums.as_ptr(),
                            tiles * width,
                            width,
                            target.as_mut_ptr(),
                            line,
                        );
                    }
                }
                let x = 2 * (region.first[1] + first);
                let pixels = (2 * count).min(geometry.out_width - x);
                for (row, finished) in finished.chunks_exact_mut(line).enumerate() {
                    let y = 2 * (region.first[0] + tile_row) + row;
                    if y >= geometry.out_height {
                        break;
                    }
                    let first_row =
                        (region.sample * geometry.out_height + y) * geometry.out_width + x;
                    let tile = Tile {
                        sums: &mut finished[..pixels * width],
                        gate: None,
                        width,
                        columns,
                        first_row,
                        first_column,
                    };
                    // SAFETY: the caller's promise: pixels and columns are this task's own part.
                    unsafe { (kernels.finish)(self.finish, tile) };
                }
            }
        }
    }
}
