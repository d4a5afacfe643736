//! The product of image rows and packed weights: cut into tasks, blocked for caches, spread over threads.

use super::epilogue::{Finish, Tile};
use super::gather::Image;
use super::microkernel::{MAX_COLUMNS, MAX_ROWS, Microkernel, Run};
use super::pack::{PackedWeights, Panel};
use super::tasks::{Scratch, run_tasks};
use super::values::{AlignedBuffer, Values};
use half::f16;
use std::ops::Range;

/// Rows of the output that a task works on when they need no window.
const ROWS_PER_REGION: usize = 16 * MAX_ROWS;
/// Values of a window copied for a task: half of a 2 MiB second-level cache is left to weights.
const WINDOW_VALUES: usize = 128 * 1024;
/// Output pixels of a task with a window, which bounds its sums.
const WINDOW_PIXELS: usize = 2048;
/// Sums that a task keeps between blocks.
const SUMS_VALUES: usize = 128 * 1024;
/// From this width on, a tile reads pixels where they lie in the window and needs no im2col.
const WINDOW_WIDTH: usize = 12;

/// Rows up to which kernels convert weights as they go: a copy that is used so few times does not pay.
const FEW_ROWS: usize = 28;

/// How the left operand reaches the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    /// Read where it lies.
    InPlace,
    /// im2col rows, copied block by block.
    Columns,
    /// A window of the padded image, copied once; each tile lies in one output row.
    Window,
}

/// One call: operands, epilogue, and how it is cut.
pub(super) struct Product<'a> {
    image: &'a Image<'a>,
    weights: &'a PackedWeights,
    finish: &'a Finish<'a>,
    feed: Feed,
    /// Values from a pixel to the next in the left operand that is copied (or read in place).
    pitch: usize,
    /// Output rows of a region: image rows for windows, else pixels or tokens.
    region_rows: usize,
    /// Regions of one sample (windows) or of all of it.
    regions: usize,
    /// Groups that the panels are cut into.
    groups: usize,
}

/// A stretch of output rows (pixels or tokens) and how the tiles walk its left operand.
struct Region {
    first_row: usize,
    /// Lines of `length` output rows each; a tile stays in its line.
    lines: usize,
    length: usize,
    /// Values from a line to the next, and from an output row to the next.
    line_stride: usize,
    row_stride: usize,
}

/// One block of the inner dimension by one unit of panels.
struct Step {
    block: usize,
    unit: usize,
    /// Where the unit's sums wait between blocks.
    slot: usize,
    /// The block and unit that follow, whose weights are fetched meanwhile.
    next: Option<(usize, usize)>,
}

impl<'a> Product<'a> {
    /// Chooses feed, regions and groups. The arguments have been checked against each other.
    pub(super) fn new(image: &'a Image<'a>, weights: &'a PackedWeights, finish: &'a Finish<'a>) -> Self {
        let geometry = image.geometry;
        let rows = geometry.batch * geometry.out_height * geometry.out_width;
        let threads = rayon::current_num_threads();
        // Rows a multiple of 2 KiB apart share few lines of a first-level cache: 14 evict each other.
        let aliased = |values: usize| (values * 4).is_multiple_of(2048);
        let pointwise = geometry.kernel == [1, 1] && geometry.stride == 1 && geometry.padding == 0;
        // A kernel that leaves pixels out would make a window of what is never read.
        let overlapping = geometry.kernel.iter().all(|&size| geometry.stride <= size);
        let single = matches!(image.inputs, [input] if matches!(input.values, Values::F32(_)));
        let feed = if pointwise && single && !aliased(image.channels) {
            Feed::InPlace
        } else if !pointwise && overlapping && geometry.out_width >= WINDOW_WIDTH {
            Feed::Window
        } else {
            Feed::Columns
        };
        let units = weights.units();
        // A few tasks more than fit evenly on the threads would leave some idle at the end.
        let balanced = |regions: usize, most: usize, samples: usize| {
            (regions..=most.min(regions + threads))
                .find(|regions| {
                    let tasks = regions * samples;
                    tasks < threads || tasks.is_multiple_of(threads) || tasks >= 8 * threads
                })
                .unwrap_or(regions)
        };
        let (pitch, region_rows, regions) = match feed {
            Feed::Window => {
                let pitch = image.channels + 16 * usize::from(aliased(image.channels * geometry.stride));
                let columns = (geometry.out_width - 1) * geometry.stride + geometry.kernel[1];
                let halo = geometry.kernel[0].saturating_sub(geometry.stride);
                let rows = (WINDOW_VALUES / (columns * pitch)).saturating_sub(halo) / geometry.stride;
                let rows = rows.min(WINDOW_PIXELS / geometry.out_width).max(1);
                let regions = balanced(geometry.out_height.div_ceil(rows), geometry.out_height, geometry.batch);
                let rows = geometry.out_height.div_ceil(regions);
                (pitch, rows, geometry.out_height.div_ceil(rows))
            }
            Feed::InPlace | Feed::Columns => {
                let regions = balanced(rows.div_ceil(ROWS_PER_REGION), rows.div_ceil(MAX_ROWS), 1);
                let region_rows = rows.div_ceil(regions).next_multiple_of(MAX_ROWS);
                let pitch = if feed == Feed::InPlace {
                    image.channels
                } else {
                    weights.block_length().next_multiple_of(16) + 16
                };
                (pitch, region_rows, rows.div_ceil(region_rows))
            }
        };
        let tasks = match feed {
            Feed::Window => regions * geometry.batch,
            _ => regions,
        };
        let kept = match feed {
            Feed::Window => 1,
            // Sums of all blocks but the last wait in scratch, for each panel of the group.
            _ => (units * region_rows * MAX_COLUMNS * weights.parts).div_ceil(SUMS_VALUES),
        };
        let groups = (2 * threads).div_ceil(tasks).max(kept).min(units);
        let per_group = units.div_ceil(groups);
        Self { image, weights, finish, feed, pitch, region_rows, regions, groups: units.div_ceil(per_group) }
    }

    /// Runs every task, on as many threads as are worth waking.
    ///
    /// # Safety
    /// The epilogue's target holds batch × output height × output width × output channels values
    /// which nothing else reads or writes meanwhile.
    pub(super) unsafe fn run(&self) {
        let geometry = self.image.geometry;
        let samples = match self.feed {
            Feed::Window => geometry.batch,
            _ => 1,
        };
        let tasks = samples * self.regions * self.groups;
        let rows = geometry.batch * geometry.out_height * geometry.out_width;
        let inner = self.image.channels * geometry.kernel[0] * geometry.kernel[1];
        let work = rows.saturating_mul(inner).saturating_mul(self.weights.outputs);
        run_tasks(tasks, work, |task, scratch, packed| {
            // SAFETY: the caller's promise; tasks differ in their rows or their columns.
            unsafe { self.task(task / self.groups, task % self.groups, scratch, packed) }
        });
    }

    /// One region by one group of panels. `packed` names the region whose window is in scratch.
    ///
    /// # Safety
    /// As [`run`](Self::run), for the rows and columns of this task.
    unsafe fn task(&self, region_index: usize, group: usize, scratch: &mut Scratch, packed: &mut Option<usize>) {
        let units = self.weights.units();
        let per_group = units.div_ceil(self.groups);
        let units = group * per_group..units.min((group + 1) * per_group);
        let blocks = self.weights.blocks();
        let region = self.region(region_index);
        let rows = region.lines * region.length;
        let slots = match self.feed {
            Feed::Window => 1,
            _ => units.len(),
        };
        let kept = if blocks == 1 { MAX_ROWS } else { rows * slots };
        scratch.sums.reserve(kept * MAX_COLUMNS * self.weights.parts);
        scratch.panel.reserve(self.weights.block_length() * MAX_COLUMNS * self.weights.parts);
        let Scratch { left, sums, panel, runs, .. } = scratch;
        let (sums, panel) = (sums.as_mut_slice(), panel.as_mut_slice());
        // SAFETY (all three calls of `block`): the left operand covers what `region` and `runs`
        // walk, as `region`, `window` and `columns` lay it out for the same sizes.
        if self.feed == Feed::Window {
            if *packed != Some(region_index) {
                self.copy_window(region_index, &region, left);
                *packed = Some(region_index);
            }
            for unit in units.clone() {
                for block in 0..blocks {
                    self.window_runs(block, runs);
                    let next = match (block + 1 < blocks, unit + 1 < units.end) {
                        (true, _) => Some((block + 1, unit)),
                        (false, true) => Some((0, unit + 1)),
                        (false, false) => None,
                    };
                    // SAFETY: see above.
                    unsafe {
                        let step = Step { block, unit, slot: 0, next };
                        self.block(&region, &step, left.as_slice(), runs, sums, panel)
                    };
                }
            }
            return;
        }
        for block in 0..blocks {
            let (first, length) = self.weights.block_range(block);
            runs.clear();
            let left = if self.feed == Feed::InPlace {
                runs.push(Run { offset: first, length });
                match self.image.inputs {
                    [super::gather::NhwcInput { values: Values::F32(values), .. }] => {
                        &values[region.first_row * self.pitch..]
                    }
                    _ => unreachable!("only a single f32 input is read in place"),
                }
            } else {
                runs.push(Run { offset: 0, length });
                left.reserve(rows * self.pitch);
                let left = &mut left.as_mut_slice()[..rows * self.pitch];
                self.image.columns(region.first_row, first, length, self.pitch, left);
                left
            };
            for (slot, unit) in Range::clone(&units).enumerate() {
                let next = match (slot + 1 < units.len(), block + 1 < blocks) {
                    (true, _) => Some((block, unit + 1)),
                    (false, true) => Some((block + 1, units.start)),
                    (false, false) => None,
                };
                let step = Step { block, unit, slot, next };
                // SAFETY: see above.
                unsafe { self.block(&region, &step, left, runs, sums, panel) };
            }
        }
    }

    /// Where a region lies.
    fn region(&self, index: usize) -> Region {
        let geometry = self.image.geometry;
        let first = index % self.regions * self.region_rows;
        if self.feed == Feed::Window {
            let sample = index / self.regions;
            return Region {
                first_row: (sample * geometry.out_height + first) * geometry.out_width,
                lines: self.region_rows.min(geometry.out_height - first),
                length: geometry.out_width,
                line_stride: geometry.stride * self.window_columns() * self.pitch,
                row_stride: geometry.stride * self.pitch,
            };
        }
        let rows = geometry.batch * geometry.out_height * geometry.out_width;
        Region {
            first_row: first,
            lines: 1,
            length: self.region_rows.min(rows - first),
            line_stride: 0,
            row_stride: self.pitch,
        }
    }

    /// Columns of the padded image that the kernel passes over.
    fn window_columns(&self) -> usize {
        let geometry = self.image.geometry;
        (geometry.out_width - 1) * geometry.stride + geometry.kernel[1]
    }

    fn copy_window(&self, index: usize, region: &Region, left: &mut AlignedBuffer<f32>) {
        let geometry = self.image.geometry;
        let columns = self.window_columns();
        let rows = (region.lines - 1) * geometry.stride + geometry.kernel[0];
        left.reserve(rows * columns * self.pitch);
        self.image.window(
            index / self.regions,
            [index % self.regions * self.region_rows * geometry.stride, 0],
            [rows, columns],
            self.pitch,
            left.as_mut_slice(),
        );
    }

    /// The runs of a block in a window: channels of neighbouring pixels follow each other unless
    /// the pitch keeps them apart.
    fn window_runs(&self, block: usize, runs: &mut Vec<Run>) {
        let (first, length) = self.weights.block_range(block);
        let channels = self.image.channels;
        let kernel_width = self.image.geometry.kernel[1];
        let joined = if self.pitch == channels { kernel_width * channels } else { channels };
        let line = self.window_columns() * self.pitch;
        runs.clear();
        let mut done = 0;
        while done < length {
            let k = first + done;
            let (tap, channel) = (k / channels, k % channels);
            let offset = tap / kernel_width * line + tap % kernel_width * self.pitch + channel;
            let count = (joined - k % joined).min(length - done);
            runs.push(Run { offset, length: count });
            done += count;
        }
    }

    /// One block of the inner dimension by one panel (and its gate) for all tiles of a region.
    ///
    /// # Safety
    /// `left` covers `line · line_stride + row · row_stride + run` for every line, row and run; the
    /// output is this task's own.
    unsafe fn block(
        &self,
        region: &Region,
        step: &Step,
        left: &[f32],
        runs: &[Run],
        sums: &mut [f32],
        converted: &mut [f32],
    ) {
        let weights = self.weights;
        let kernels = weights.isa().kernels();
        let (_, width) = weights.unit_columns(step.unit);
        let full = width == kernels.columns;
        let values = weights.block_range(step.block).1 * width;
        let rows = region.lines * region.length;
        let mut wide = [std::ptr::null::<f32>(); 2];
        let mut half = [std::ptr::null::<f16>(); 2];
        for part in 0..weights.parts {
            match weights.panel(step.block, step.unit, part) {
                Panel::F32(panel) => wide[part] = panel.as_ptr(),
                Panel::F16(panel) if rows <= FEW_ROWS && kernels.half_tiles.is_some() => {
                    half[part] = panel.as_ptr();
                }
                Panel::F16(panel) => {
                    let target = &mut converted[part * values..(part + 1) * values];
                    // SAFETY: weights are packed only for an available instruction set.
                    unsafe { (kernels.widen)(panel, target) };
                    wide[part] = target.as_ptr();
                }
            }
        }
        // SAFETY: the caller's promise; each panel holds `values` weights, and the pointers that are
        // set are those of the table that is used.
        unsafe {
            match kernels.half_tiles {
                Some(tiles) if !half[0].is_null() => {
                    self.tiles(region, step, left, runs, sums, tiles.of_width(full), half);
                }
                _ => {
                    let table = kernels.tiles.of_width(full);
                    self.tiles(region, step, left, runs, sums, table, wide);
                }
            }
        }
    }

    /// The tiles of one block, by the kernels of one storage of weights.
    ///
    /// # Safety
    /// As [`block`](Self::block); `right` points to the block's panel, and its gate's if there is one.
    #[expect(clippy::too_many_arguments, reason = "the state of the innermost loops")]
    unsafe fn tiles<W>(
        &self,
        region: &Region,
        step: &Step,
        left: &[f32],
        runs: &[Run],
        sums: &mut [f32],
        table: &[Microkernel<W>],
        right: [*const W; 2],
    ) {
        let weights = self.weights;
        let &Step { block, unit, slot, next } = step;
        let next = next.map_or(&[][..], |(block, unit)| weights.panel_bytes(block, unit));
        let mut fetched = 0;
        let kernels = weights.isa().kernels();
        let (first_column, width) = weights.unit_columns(unit);
        let columns = width.min(weights.outputs - first_column);
        let (_, length) = weights.block_range(block);
        let parts = weights.parts;
        let (first, last) = (block == 0, block + 1 == weights.blocks());
        let region_size = region.lines * region.length;
        let tiles = region.length.div_ceil(table.len());
        for line in 0..region.lines {
            for tile in 0..tiles {
                // Tiles of nearly equal height waste no registers on a short last one.
                let start = tile * region.length / tiles;
                let rows = (tile + 1) * region.length / tiles - start;
                let row = line * region.length + start;
                // With a single block no sum waits, so all tiles share one place that stays cached.
                let (pitch, place) = if first && last {
                    (MAX_ROWS * width, 0)
                } else {
                    (region_size * width, slot * parts * region_size * MAX_COLUMNS + row * width)
                };
                let from = line * region.line_stride + start * region.row_stride;
                let left = &left[from..];
                for (part, right) in right.iter().enumerate().take(parts) {
                    let sums = &mut sums[place + part * pitch..][..rows * width];
                    // Each tile asks for its stretch of the next panel; later ones for what is near.
                    let fetch = next.get(fetched..).map_or(right.cast(), <[u8]>::as_ptr);
                    fetched += length * 64;
                    // SAFETY: the caller's promise for `left`; `right` holds length × width values,
                    // where the runs' lengths add up to length; `sums` was sliced to the tile.
                    unsafe {
                        table[rows - 1](
                            left.as_ptr(),
                            region.row_stride,
                            runs,
                            *right,
                            sums.as_mut_ptr(),
                            !first,
                            fetch,
                        );
                    }
                }
                if last {
                    let tile = Tile {
                        sums: &sums[place..][..rows * width],
                        gate: (parts == 2).then(|| &sums[place + pitch..][..rows * width]),
                        width,
                        columns,
                        first_row: region.first_row + row,
                        first_column,
                    };
                    // SAFETY: the caller's promise: rows and columns are this task's own part.
                    unsafe { (kernels.finish)(self.finish, tile) };
                }
            }
        }
    }
}
