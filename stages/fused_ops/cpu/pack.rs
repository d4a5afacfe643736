//! Weights laid out once, at load, in the order in which the kernels read them.

use super::error::{KernelError, expect_length, expect_nonzero, product};
use super::isa::Isa;
use super::values::{AlignedBuffer, as_bytes};
use half::f16;
use rayon::prelude::*;

/// How packed weights are held. Sums are f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// As they were given.
    #[default]
    F32,
    /// Rounded once to half precision: half the memory and half the reading.
    F16,
}

#[derive(Debug, Clone)]
enum Data {
    F32(AlignedBuffer<f32>),
    F16(AlignedBuffer<f16>),
}

/// The weights of one panel in one block of the inner dimension.
pub(super) enum Panel<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

/// The longest block of the inner dimension: a panel of 32 columns then takes 48 KiB, so that the
/// tiles after the first read it from near caches.
const LONGEST_BLOCK: usize = 384;

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Winograd where it fits and pays, else direct.
    #[default]
    Auto,
    /// Every product of the definition, each summed in f32.
    Direct,
}

/// The weights of a convolution or linear layer, packed for one instruction set.
///
/// The inner dimension (kernel row, kernel column, input channel) is cut into blocks of equal
/// length, the output channels into panels as wide as a kernel's tile. In memory: block, panel,
/// inner index, column; the last panel is filled up with zeros.
#[derive(Debug, Clone)]
pub struct PackedWeights {
    isa: Isa,
    /// Output channels; in GEGLU those after the product.
    pub(super) outputs: usize,
    /// Input channels.
    pub(super) channels: usize,
    /// Kernel height and width.
    pub(super) kernel: [usize; 2],
    /// 2 when each panel is followed by its gate's, else 1.
    pub(super) parts: usize,
    /// Length of the inner dimension.
    inner: usize,
    /// Length of each block but the last, which may be shorter.
    block: usize,
    pub(super) method: Method,
    data: Data,
}

impl PackedWeights {
    /// Packs the weights of a convolution, `(outputs, inputs, kernel height, kernel width)` row-major,
    /// for the best instructions of this machine.
    ///
    /// # Errors
    /// A size of zero, or a slice that does not fill the shape.
    pub fn from_conv2d(weight: &[f32], shape: [usize; 4], storage: Storage) -> Result<Self, KernelError> {
        Self::from_conv2d_for(Isa::best(), weight, shape, storage)
    }

    /// As [`from_conv2d`](Self::from_conv2d), for the instructions named.
    ///
    /// # Errors
    /// As there, and instructions that this machine does not have.
    pub fn from_conv2d_for(isa: Isa, weight: &[f32], shape: [usize; 4], storage: Storage) -> Result<Self, KernelError> {
        Self::pack(isa, weight, shape, storage, 1)
    }

    /// Packs the weights of a linear layer, `(outputs, inputs)` row-major.
    ///
    /// # Errors
    /// As [`from_conv2d`](Self::from_conv2d).
    pub fn from_linear(weight: &[f32], [outputs, inputs]: [usize; 2], storage: Storage) -> Result<Self, KernelError> {
        Self::from_conv2d(weight, [outputs, inputs, 1, 1], storage)
    }

    /// Packs a linear layer `(2 · outputs, inputs)` whose first half is to be multiplied with the
    /// GELU of its second half (GEGLU), so that both halves of a tile are computed together.
    ///
    /// # Errors
    /// As [`from_conv2d`](Self::from_conv2d), and an odd number of rows.
    pub fn from_geglu(weight: &[f32], shape: [usize; 2], storage: Storage) -> Result<Self, KernelError> {
        Self::from_geglu_for(Isa::best(), weight, shape, storage)
    }

    /// As [`from_geglu`](Self::from_geglu), for the instructions named.
    ///
    /// # Errors
    /// As there, and instructions that this machine does not have.
    pub fn from_geglu_for(
        isa: Isa,
        weight: &[f32],
        [rows, inputs]: [usize; 2],
        storage: Storage,
    ) -> Result<Self, KernelError> {
        if !rows.is_multiple_of(2) {
            return Err(KernelError::Shape {
                what: "GEGLU weights",
                reason: format!("{rows} rows do not split into a value half and a gate half"),
            });
        }
        Self::pack(isa, weight, [rows, inputs, 1, 1], storage, 2)
    }

    fn pack(isa: Isa, weight: &[f32], shape: [usize; 4], storage: Storage, parts: usize) -> Result<Self, KernelError> {
        const WHAT: &str = "weights (outputs, inputs, kernel height, kernel width)";
        if !isa.is_available() {
            return Err(KernelError::Shape {
                what: "instruction set",
                reason: format!("this machine does not have {isa:?}; take Isa::best()"),
            });
        }
        expect_nonzero(WHAT, &shape)?;
        expect_length(WHAT, &shape, weight.len())?;
        let [rows, channels, height, width] = shape;
        let inner = product(WHAT, &shape[1..])?;
        let mut packed = Self {
            isa,
            outputs: rows / parts,
            channels,
            kernel: [height, width],
            parts,
            inner,
            block: inner.div_ceil(inner.div_ceil(LONGEST_BLOCK)),
            method: Method::Auto,
            data: Data::F32(AlignedBuffer::new()),
        };
        let total = product(WHAT, &[packed.padded_columns(), inner])?;
        packed.data = match storage {
            Storage::F32 => {
                let mut buffer = AlignedBuffer::zeroed(total);
                packed.fill(weight, buffer.as_mut_slice(), |value| value);
                Data::F32(buffer)
            }
            Storage::F16 => {
                let mut buffer = AlignedBuffer::zeroed(total);
                packed.fill(weight, buffer.as_mut_slice(), f16::from_f32);
                Data::F16(buffer)
            }
        };
        Ok(packed)
    }

    fn fill<T: Copy + Send>(&self, weight: &[f32], target: &mut [T], convert: impl Fn(f32) -> T + Sync) {
        let [height, width] = self.kernel;
        let taps = height * width;
        let row_length = self.channels * taps;
        let columns = self.padded_columns();
        target.par_chunks_mut(self.block * columns).enumerate().for_each(|(block, target)| {
            let (first, length) = self.block_range(block);
            for unit in 0..self.units() {
                let (start, unit_width) = self.unit_columns(unit);
                for part in 0..self.parts {
                    let panel = self.panel_start(unit, part, length);
                    let rows = start..self.outputs.min(start + unit_width);
                    for (column, output) in rows.enumerate() {
                        let row = &weight[(part * self.outputs + output) * row_length..];
                        for k in 0..length {
                            let (tap, channel) = ((first + k) / self.channels, (first + k) % self.channels);
                            target[panel + k * unit_width + column] = convert(row[channel * taps + tap]);
                        }
                    }
                }
            }
        });
    }

    /// The same weights, to be used by the method given.
    #[must_use]
    pub fn with_method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::F32(data) => size_of_val(data.as_slice()),
            Data::F16(data) => size_of_val(data.as_slice()),
        }
    }

    /// The instructions that the weights were packed for, and will run on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Output channels; in GEGLU those after the product.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Input channels.
    pub fn inputs(&self) -> usize {
        self.channels
    }

    /// Blocks of the inner dimension.
    pub(super) fn blocks(&self) -> usize {
        self.inner.div_ceil(self.block)
    }

    /// Length of the longest block.
    pub(super) fn block_length(&self) -> usize {
        self.block
    }

    /// First index and length of a block.
    pub(super) fn block_range(&self, block: usize) -> (usize, usize) {
        let first = block * self.block;
        (first, self.block.min(self.inner - first))
    }

    /// Panels, each counted once with its gate.
    pub(super) fn units(&self) -> usize {
        self.outputs.div_ceil(self.isa.kernels().columns)
    }

    /// First output channel and width in memory of a unit: full, or half at the end if that does.
    pub(super) fn unit_columns(&self, unit: usize) -> (usize, usize) {
        let full = self.isa.kernels().columns;
        let start = unit * full;
        let width = if self.outputs - start <= full / 2 { full / 2 } else { full };
        (start, width)
    }

    /// Columns in memory, filled up, gates included.
    fn padded_columns(&self) -> usize {
        let (start, width) = self.unit_columns(self.units() - 1);
        (start + width) * self.parts
    }

    /// Where a panel starts in its block.
    fn panel_start(&self, unit: usize, part: usize, length: usize) -> usize {
        let (start, width) = self.unit_columns(unit);
        (start * self.parts + part * width) * length
    }

    /// Where the panels of one unit and block lie, gates included: to be fetched ahead.
    pub(super) fn panel_bytes(&self, block: usize, unit: usize) -> &[u8] {
        let (first, length) = self.block_range(block);
        let start = first * self.padded_columns() + self.panel_start(unit, 0, length);
        let count = length * self.unit_columns(unit).1 * self.parts;
        match &self.data {
            Data::F32(data) => as_bytes(&data.as_slice()[start..start + count]),
            Data::F16(data) => as_bytes(&data.as_slice()[start..start + count]),
        }
    }

    /// Weights of one panel at one place of the kernel, from a channel on, as far as they lie in one
    /// block: to be fetched ahead.
    pub(super) fn tap_bytes(&self, unit: usize, tap: usize, first: usize) -> &[u8] {
        let inner = tap * self.channels + first;
        let block = inner / self.block;
        let (start, length) = self.block_range(block);
        let bytes = self.panel_bytes(block, unit);
        &bytes[bytes.len() / length * (inner - start)..]
    }

    /// `(channel, column)` of one panel at one place of the kernel, for the channels
    /// `first..first + length`: where they lie, or in `target` if they are half or lie in two blocks.
    pub(super) fn tap_rows<'a>(
        &'a self,
        unit: usize,
        tap: usize,
        first: usize,
        length: usize,
        target: &'a mut [f32],
    ) -> &'a [f32] {
        let (_, width) = self.unit_columns(unit);
        let mut done = 0;
        while done < length {
            let inner = tap * self.channels + first + done;
            let block = inner / self.block;
            let (start, block_length) = self.block_range(block);
            let rows = (inner - start) * width;
            let count = (start + block_length - inner).min(length - done);
            let target = &mut target[done * width..(done + count) * width];
            match self.panel(block, unit, 0) {
                Panel::F32(panel) if count == length => {
                    return &panel[rows..rows + count * width];
                }
                Panel::F32(panel) => target.copy_from_slice(&panel[rows..rows + count * width]),
                // SAFETY: weights are packed only for an available instruction set.
                Panel::F16(panel) => unsafe {
                    (self.isa.kernels().widen)(&panel[rows..rows + count * width], target);
                },
            }
            done += count;
        }
        &target[..length * width]
    }

    /// The weights of one panel in one block, `(inner index, column)`.
    pub(super) fn panel(&self, block: usize, unit: usize, part: usize) -> Panel<'_> {
        let (first, length) = self.block_range(block);
        let start = first * self.padded_columns() + self.panel_start(unit, part, length);
        let range = start..start + length * self.unit_columns(unit).1;
        match &self.data {
            Data::F32(data) => Panel::F32(&data.as_slice()[range]),
            Data::F16(data) => Panel::F16(&data.as_slice()[range]),
        }
    }
}

/// The mean and variance that a batch norm learned, with its scale and offset; one value a channel.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Scale (`weight` in a checkpoint).
    pub gamma: &'a [f32],
    /// Offset (`bias` in a checkpoint).
    pub beta: &'a [f32],
    /// Running mean.
    pub mean: &'a [f32],
    /// Running variance.
    pub variance: &'a [f32],
    /// Added to the variance before its root is taken.
    pub epsilon: f64,
}

/// Folds a batch norm into the weights and bias of the convolution before it.
///
/// `weight` is `(outputs, …)` row-major, `bias` has one value an output. Computed in f64, rounded once.
///
/// # Errors
/// A slice whose length does not fit the number of outputs.
pub fn fold_batch_norm(weight: &mut [f32], bias: &mut [f32], norm: &BatchNorm<'_>) -> Result<(), KernelError> {
    let outputs = bias.len();
    expect_nonzero("folded bias (outputs)", &[outputs])?;
    for (what, values) in [
        ("batch norm gamma", norm.gamma),
        ("batch norm beta", norm.beta),
        ("batch norm mean", norm.mean),
        ("batch norm variance", norm.variance),
    ] {
        expect_length(what, &[outputs], values.len())?;
    }
    if !weight.len().is_multiple_of(outputs) {
        return Err(KernelError::Shape {
            what: "folded weights",
            reason: format!("{} values do not split into {outputs} rows", weight.len()),
        });
    }
    if weight.is_empty() {
        return Ok(());
    }
    let row_length = weight.len() / outputs;
    for (output, row) in weight.chunks_exact_mut(row_length).enumerate() {
        let deviation = (f64::from(norm.variance[output]) + norm.epsilon).sqrt();
        let scale = f64::from(norm.gamma[output]) / deviation;
        for value in row {
            *value = (f64::from(*value) * scale) as f32;
        }
        let centred = f64::from(bias[output]) - f64::from(norm.mean[output]);
        bias[output] = (centred * scale + f64::from(norm.beta[output])) as f32;
    }
    Ok(())
}
