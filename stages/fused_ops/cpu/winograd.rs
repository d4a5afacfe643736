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

/// Values of the transformed tiles of a region. Of several blocks of channels, one at a time is read.
const LEFT_VALUES: usize = 512 * 1024;
/// Panels of a task, if sums of several blocks wait for each.
const MOST_PANELS: usize = 4;
/// Tiles of a region, which bounds its sums: with one block of channels, and with several, whose
/// sums wait.
const MOST_TILES: [usize; 2] = [128, 64];
/// Tiles below which transforming the weights costs more than the products save.
const FEWEST_TILES: usize = 16;
/// Input channels whose transformed weights are kept at a time.
const CHANNEL_BLOCK: usize = 128;
/// Values between the elements of a transform, beyond what they take: a transform touches all 16
/// elements at once, which powers of two apart would share one set of a first-level cache.
const SKEW: usize = 16;
/// Tiles that go to the epilogue together.
const FINISHED_TILES: usize = 8;

/// Whether the method fits: a 3x3 kernel at stride 1, whole vectors of channels, and enough tiles
/// and output channels to make up for the transforms.
pub(super) fn fits(image: &Image<'_>, weights: &PackedWeights) -> bool {
    let geometry = image.geometry;
    // A region lies in one sample, so that a batch of small images has no more tiles for its weights.
    let tiles = geometry.out_height.div_ceil(2) * geometry.out_width.div_ceil(2);
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
    pub(super) fn new(image: &'a Image<'a>, weights: &'a PackedWeights, finish: &'a Finish<'a>) -> Self {
        let geometry = image.geometry;
        let threads = rayon::current_num_threads();
        let tiles = [geometry.out_height.div_ceil(2), geometry.out_width.div_ceil(2)];
        // Tiles a multiple of 2 KiB apart would evict each other from a first-level cache.
        let pitch = image.channels + 16 * usize::from(image.channels.is_multiple_of(256));
        let most = (LEFT_VALUES / (ELEMENTS * pitch))
            .clamp(FEWEST_TILES, MOST_TILES[usize::from(image.channels > CHANNEL_BLOCK)]);
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
            .max(if image.channels > CHANNEL_BLOCK { weights.units().div_ceil(MOST_PANELS) } else { 1 })
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
        let first = [index / across * self.region[0], index % across * self.region[1]];
        Region {
            sample,
            first,
            size: [self.region[0].min(self.tiles[0] - first[0]), self.region[1].min(self.tiles[1] - first[1])],
        }
    }

    /// One region by one group of panels. `transformed` names the region whose tiles are in scratch.
    ///
    /// # Safety
    /// As [`run`](Self::run), for the pixels and columns of this task.
    unsafe fn task(&self, index: usize, group: usize, scratch: &mut Scratch, transformed: &mut Option<usize>) {
        let region = self.region(index);
        let tiles = region.size[0] * region.size[1];
        let channels = self.image.channels;
        if *transformed != Some(index) {
            self.transform_input(region, scratch);
            *transformed = Some(index);
        }
        let units = group * self.per_group..self.weights.units().min((group + 1) * self.per_group);
        let blocks = channels.div_ceil(CHANNEL_BLOCK);
        // With a single block the sums of a panel are finished before the next panel's begin.
        let slots = if blocks == 1 { 1 } else { units.len() };
        let slot_values = ELEMENTS * (tiles * MAX_COLUMNS + SKEW);
        let finished_values = 4 * FINISHED_TILES * MAX_COLUMNS;
        scratch.sums.reserve(slots * slot_values + finished_values);
        scratch.panel.reserve(ELEMENTS * SKEW + (ELEMENTS + 9) * CHANNEL_BLOCK * MAX_COLUMNS);
        let left = scratch.left.as_slice();
        let panel = scratch.panel.as_mut_slice();
        let (finished, sums) = scratch.sums.as_mut_slice().split_at_mut(finished_values);
        for block in 0..blocks {
            for (slot, unit) in units.clone().enumerate() {
                let sums = &mut sums[slot % slots * slot_values..][..slot_values];
                let next = match (unit + 1 < units.end, block + 1 < blocks) {
                    (true, _) => Some((block, unit + 1)),
                    (false, true) => Some((block + 1, units.start)),
                    (false, false) => None,
                };
                self.multiply(tiles, [block, unit], next, left, panel, sums);
                if block + 1 == blocks {
                    // SAFETY: the caller's promise.
                    unsafe { self.finish(region, unit, sums, finished) };
                }
            }
        }
    }

    /// The 16 products of one panel over one block of channels, added to `sums` after the first.
    /// `next` names the block and unit that follow.
    fn multiply(
        &self,
        tiles: usize,
        [block, unit]: [usize; 2],
        next: Option<(usize, usize)>,
        left: &[f32],
        panel: &mut [f32],
        sums: &mut [f32],
    ) {
        let kernels = self.weights.isa().kernels();
        let (_, width) = self.weights.unit_columns(unit);
        let table = kernels.tiles.of_width(width == kernels.columns);
        let offset = block * CHANNEL_BLOCK;
        let length = CHANNEL_BLOCK.min(self.image.channels - offset);
        self.transform_weights(unit, offset, length, panel);
        let runs = [Run { offset, length }];
        let strips = tiles.div_ceil(table.len());
        for element in 0..ELEMENTS {
            let right = &panel[element * (length * width + SKEW)..][..length * width];
            let left = &left[element * (tiles * self.pitch + SKEW)..][..tiles * self.pitch];
            let sums = &mut sums[element * (tiles * width + SKEW)..][..tiles * width];
            // While the elements are multiplied, the next weights to be transformed arrive.
            let next = match next {
                Some((block, unit)) if element < 9 => self.weights.tap_bytes(unit, element, block * CHANNEL_BLOCK),
                _ => &[],
            };
            for strip in 0..strips {
                let start = strip * tiles / strips;
                let rows = (strip + 1) * tiles / strips - start;
                let left = &left[start * self.pitch..][..rows * self.pitch];
                let sums = &mut sums[start * width..][..rows * width];
                // SAFETY: `left` was sliced to `rows` rows of `pitch` values, of which the run takes
                // channels; `right` and `sums` to what the kernel is said to use.
                unsafe {
                    table[rows - 1](
                        left.as_ptr(),
                        self.pitch,
                        &runs,
                        right.as_ptr(),
                        sums.as_mut_ptr(),
                        block > 0,
                        next.get(strip * length * 64..).map_or(right.as_ptr().cast(), <[u8]>::as_ptr),
                    );
                }
            }
        }
    }

    /// Fills `scratch.left` with `(element, tile, channel)`.
    fn transform_input(&self, region: Region, scratch: &mut Scratch) {
        let geometry = self.image.geometry;
        let channels = self.image.channels;
        let [down, across] = region.size;
        let tiles = down * across;
        let element = tiles * self.pitch + SKEW;
        scratch.left.reserve(ELEMENTS * element);
        let left = scratch.left.as_mut_slice();
        let transform = self.weights.isa().kernels().transforms.input;
        let lines = [2 * down + 2, 2 * across + 2];
        let origin = [2 * region.first[0], 2 * region.first[1]];
        // A single f32 input is read where it lies; what is outside of it is read from zeros.
        let direct = match self.image.inputs {
            [input] => match input.values {
                Values::F32(values) => Some(values),
                Values::F16(_) => None,
            },
            _ => None,
        };
        let size = match direct {
            Some(_) => channels,
            None => lines[0] * lines[1] * channels,
        };
        scratch.window.reserve(size);
        let window = &mut scratch.window.as_mut_slice()[..size];
        match direct {
            Some(_) => window.fill(0.0),
            None => self.image.window(region.sample, origin, lines, channels, window),
        }
        let window = &*window;
        // Where the region starts in the source, whose size is (height, width).
        let (source, start, [height, width]) = match direct {
            Some(values) => {
                let sample = geometry.height * geometry.width * channels;
                let values = &values[region.sample * sample..][..sample];
                let start = origin.map(|origin| origin.wrapping_sub(geometry.padding));
                (values, start, [geometry.height, geometry.width])
            }
            None => (window, [0, 0], lines),
        };
        let zeros = window.as_ptr();
        for tile in 0..tiles {
            let y = start[0].wrapping_add(tile / across * 2);
            let x = start[1].wrapping_add(tile % across * 2);
            let mut pixels = [zeros; ELEMENTS];
            // Before the first row or column, wrapping makes the place huge: also outside.
            if y < height && y + 4 <= height && x < width && x + 4 <= width {
                let first = &source[(y * width + x) * channels..((y + 3) * width + x + 4) * channels];
                for (index, place) in pixels.iter_mut().enumerate() {
                    *place = first.as_ptr().wrapping_add((index / 4 * width + index % 4) * channels);
                }
            } else {
                for (index, place) in pixels.iter_mut().enumerate() {
                    let (y, x) = (y.wrapping_add(index / 4), x.wrapping_add(index % 4));
                    if y < height && x < width {
                        *place = source[(y * width + x) * channels..][..channels].as_ptr();
                    }
                }
            }
            let target = &mut left[tile * self.pitch..];
            assert!(target.len() >= (ELEMENTS - 1) * element + channels);
            // SAFETY: each pixel's channels were sliced, alone or in a stretch that holds all 16, or
            // are zeros, of which there are `channels` when the input is read in place and which no
            // pixel needs when a window holds the whole region; `fits` asked for a multiple of 16
            // channels; the target was just seen to hold the last channel of the last element.
            unsafe { transform(&pixels, channels, target.as_mut_ptr(), element) };
        }
    }

    /// Fills `panel` with `(element, channel, column)` of one panel for some channels.
    fn transform_weights(&self, unit: usize, first: usize, length: usize, panel: &mut [f32]) {
        let kernels = self.weights.isa().kernels();
        let (_, width) = self.weights.unit_columns(unit);
        let values = length * width;
        let (panel, widened) = panel.split_at_mut(ELEMENTS * (values + SKEW));
        let mut taps = [std::ptr::null(); 9];
        let widened = widened.chunks_exact_mut(values);
        for (tap, (place, target)) in taps.iter_mut().zip(widened).enumerate() {
            let rows = self.weights.tap_rows(unit, tap, first, length, target);
            *place = rows[..values].as_ptr();
        }
        // SAFETY: `panel` has room for nine taps after the transformed elements, so every tap points
        // to `values` values, a multiple of a panel's width; the target holds 16 elements of them.
        unsafe {
            (kernels.transforms.weights)(&taps, values, panel.as_mut_ptr(), values + SKEW);
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
        let element = tiles * width + SKEW;
        let sums = &sums[..ELEMENTS * element];
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
                        (kernels.transforms.output)(sums.as_ptr(), element, width, target.as_mut_ptr(), line);
                    }
                }
                let x = 2 * (region.first[1] + first);
                let pixels = (2 * count).min(geometry.out_width - x);
                for (row, finished) in finished.chunks_exact(line).enumerate() {
                    let y = 2 * (region.first[0] + tile_row) + row;
                    if y >= geometry.out_height {
                        break;
                    }
                    let first_row = (region.sample * geometry.out_height + y) * geometry.out_width + x;
                    let tile =
                        Tile { sums: &finished[..pixels * width], gate: None, width, columns, first_row, first_column };
                    // SAFETY: the caller's promise: pixels and columns are this task's own part.
                    unsafe { (kernels.finish)(self.finish, tile) };
                }
            }
        }
    }
}
