//! Weights as the convolution kernels read them.
use super::plan::TILE_K;
use super::{Next, VECTOR};
use crate::ops::{BatchNorm, fp8};
use candle_core::{DType, Result, Tensor};

/// A layer's matrix, `(outputs, kernel · kernel · channels)`: outputs and each tap's channels padded to a multiple of 8 with zeros, and
/// each row to whole tiles.
pub struct PackedWeights {
    pub(super) values: Tensor,
    /// For each output what the sums are multiplied by, where weights are stored in eight bits.
    pub(super) scales: Option<Tensor>,
    /// That the layer has, and with the padding.
    outputs: usize,
    pub(super) padded_outputs: usize,
    pub(super) channels: usize,
    pub(super) padded_channels: usize,
    pub(super) kernel: usize,
    pub(super) k_tiles: usize,
    pub(super) next: Next,
}

impl PackedWeights {
    /// From `(outputs, channels, kernel, kernel)`.
    ///
    /// # Errors
    /// A kernel that is not square.
    pub fn conv2d(weight: &Tensor, dtype: DType) -> Result<Self> {
        let (outputs, channels, kernel, wide) = weight.dims4()?;
        if kernel != wide || kernel == 0 || outputs * channels == 0 {
            candle_core::bail!("a convolution {:?} is not (outputs, channels, size, size)", weight.dims());
        }
        let padded_channels = channels.next_multiple_of(VECTOR);
        let row = kernel * kernel * padded_channels;
        let k_tiles = row.div_ceil(TILE_K);
        // halved first: the largest layers are moved about as little as can be
        let values = weight.to_dtype(dtype)?.permute((0, 2, 3, 1))?.contiguous()?;
        let values = if channels == padded_channels {
            values
        } else {
            values.pad_with_zeros(3, 0, padded_channels - channels)?
        };
        let values = values.reshape((outputs, row))?;
        let behind = k_tiles * TILE_K - row;
        let values = if behind == 0 { values } else { values.pad_with_zeros(1, 0, behind)? };
        Ok(Self {
            values: by_eights(&values, 0)?.contiguous()?,
            scales: None,
            outputs,
            padded_outputs: outputs.next_multiple_of(VECTOR),
            channels,
            padded_channels,
            kernel,
            k_tiles,
            next: Next::default(),
        })
    }

    /// In eight bits, from `(outputs, channels, kernel, kernel)` and a factor for each output. Factors go with the scales: the
    /// weights that are stored are those of the layer, to the bit, and a check against them sees nothing but the kernel.
    ///
    /// # Errors
    /// As [`conv2d`](Self::conv2d), or another number of factors.
    pub fn fp8(weight: &Tensor, factors: Option<&Tensor>) -> Result<Self> {
        let packed = Self::conv2d(weight, DType::F32)?;
        let (values, scales) = fp8::quantised(&by_lanes(&packed.values)?)?;
        let scales = scales.flatten_all()?;
        let scales = match factors {
            Some(factors) => (scales * by_eights(factors, 0)?)?,
            None => scales,
        };
        Ok(Self { values, scales: Some(scales), ..packed })
    }

    /// Bytes of a weight.
    pub(super) fn weight_bytes(&self) -> usize {
        self.values.dtype().size_in_bytes()
    }

    /// From `(outputs, inputs)`: a convolution of one pixel.
    ///
    /// # Errors
    /// A weight that is no matrix.
    pub fn linear(weight: &Tensor, dtype: DType) -> Result<Self> {
        Self::conv2d(&weight.unsqueeze(2)?.unsqueeze(3)?, dtype)
    }

    /// Rows of the matrix.
    pub fn outputs(&self) -> usize {
        self.outputs
    }
}

/// Each 16 values of a row in the order in which the lanes of a warp hold them: `2t`, `2t + 1`, `2t + 8` and `2t + 9` side by side.
fn by_lanes(rows: &Tensor) -> Result<Tensor> {
    let halves = rows.reshape(((), 2, 4, 2))?;
    halves.transpose(1, 2)?.contiguous()?.reshape(rows.shape())
}

/// A dimension made a multiple of 8 with zeros, in memory from which 16 bytes can be read at a time.
///
/// # Errors
/// A dimension that the tensor does not have.
pub fn by_eights(t: &Tensor, dim: usize) -> Result<Tensor> {
    let size = t.dim(dim)?;
    match size.next_multiple_of(VECTOR) - size {
        // a part of a tensor may begin anywhere
        0 if t.is_contiguous() && (t.layout().start_offset() * t.dtype().size_in_bytes()).is_multiple_of(16) => {
            Ok(t.clone())
        }
        0 => t.force_contiguous(),
        missing => t.pad_with_zeros(dim, 0, missing),
    }
}

/// A batch normalisation after `bias` as a factor and an addend for each output, in f32.
///
/// # Errors
/// Parameters whose shapes do not agree.
pub fn fold_batch_norm(norm: &BatchNorm, bias: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    let wide = |t: &Tensor| t.to_dtype(DType::F32);
    let scale = (wide(&norm.weight)? / (wide(&norm.running_var)? + norm.eps)?.sqrt()?)?;
    let centre = wide(&norm.running_mean)?;
    let centre = match bias {
        Some(bias) => (centre - wide(bias)?)?,
        None => centre,
    };
    let addend = (wide(&norm.bias)? - (centre * &scale)?)?;
    Ok((scale, addend))
}

/// `(2 · inner, …)` with the hidden half first, to hidden and gate in turn.
///
/// # Errors
/// An odd number of rows.
pub fn interleave_gates(t: &Tensor) -> Result<Tensor> {
    let rows = t.dim(0)?;
    let rest: Vec<usize> = t.dims()[1..].to_vec();
    let halves = t.reshape([&[2, rows / 2], &rest[..]].concat())?;
    halves.transpose(0, 1)?.contiguous()?.reshape(t.shape())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn taps_are_padded_and_rows_are_whole_tiles() {
        let weight = Tensor::arange(0f32, 54.0, &Device::Cpu).unwrap().reshape((2, 3, 3, 3)).unwrap();
        let packed = PackedWeights::conv2d(&weight, DType::F16).unwrap();
        assert_eq!((packed.padded_channels, packed.k_tiles), (8, 2));
        let rows: Vec<Vec<f32>> = packed.values.to_dtype(DType::F32).unwrap().to_vec2().unwrap();
        assert_eq!((packed.outputs(), packed.padded_outputs, rows.len()), (2, 8, 8));
        assert!(rows[2..].iter().flatten().all(|v| *v == 0.0));
        assert_eq!(rows[1].len(), 128);
        // output 1, tap (1, 2), channels 0 to 2, and the padding behind them
        assert_eq!(rows[1][5 * 8..6 * 8], [32.0, 41.0, 50.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(rows[1][72..].iter().all(|v| *v == 0.0));
    }

    #[test]
    fn weights_in_eight_bits_lie_as_lanes_hold_them() {
        // each value is one that e4m3 holds, times a scale for each of two outputs
        let at = |output: usize, channel: usize, tap: usize| {
            ((output + channel * 7 + tap * 3) % 15 + 1) as f32 * [1.0, 0.25][output]
        };
        let values: Vec<f32> = (0..432)
            .map(|i| if i % 216 == 0 { 448.0 * [1.0, 0.25][i / 216] } else { at(i / 216, i / 9 % 24, i % 9) })
            .collect();
        let weight = Tensor::from_vec(values, (2, 24, 3, 3), &Device::Cpu).unwrap();
        let (plain, packed) =
            (PackedWeights::conv2d(&weight, DType::F32).unwrap(), PackedWeights::fp8(&weight, None).unwrap());
        assert_eq!((packed.weight_bytes(), packed.k_tiles, packed.padded_outputs), (1, plain.k_tiles, 8));
        assert_eq!(packed.values.dims(), plain.values.dims());
        let scales: Vec<f32> = packed.scales.unwrap().to_vec1().unwrap();
        assert!((scales[0] - 1.0).abs() < 1e-6 && (scales[1] - 0.25).abs() < 1e-6, "{scales:?}");
        assert_eq!(scales[2..], [1.0; 6], "outputs of zeros");
        let multiplied = PackedWeights::fp8(&weight, Some(&Tensor::new(&[2f32, 3.0], &Device::Cpu).unwrap())).unwrap();
        let factors: Vec<f32> = multiplied.scales.unwrap().to_vec1().unwrap();
        assert_eq!(factors[..2], [2.0 * scales[0], 3.0 * scales[1]]);
        let values: Vec<Vec<f32>> = packed.values.to_dtype(DType::F32).unwrap().to_vec2().unwrap();
        let unchanged: Vec<Vec<f32>> = multiplied.values.to_dtype(DType::F32).unwrap().to_vec2().unwrap();
        assert_eq!(values, unchanged);
        let plain: Vec<Vec<f32>> = plain.values.to_vec2().unwrap();
        for (o, (values, plain)) in values.iter().zip(&plain).enumerate() {
            for (group, values) in values.chunks(16).enumerate() {
                for (i, value) in values.iter().enumerate() {
                    let (t, place) = (i / 4, i % 4);
                    let k = 2 * t + [0, 1, 8, 9][place];
                    assert!((value * scales[o] - plain[16 * group + k]).abs() < 1e-4, "output {o}, {group}, {i}");
                }
            }
        }
    }

    #[test]
    fn gates_lie_beside_what_they_gate() {
        let t = Tensor::new(&[[0f32, 1.0], [2.0, 3.0], [10.0, 11.0], [12.0, 13.0]], &Device::Cpu).unwrap();
        let t: Vec<Vec<f32>> = interleave_gates(&t).unwrap().to_vec2().unwrap();
        assert_eq!(t, [[0.0, 1.0], [10.0, 11.0], [2.0, 3.0], [12.0, 13.0]]);
    }

    #[test]
    fn a_folded_norm_is_the_norm() {
        let vector = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
        let norm = BatchNorm {
            weight: vector([2.0, -1.0]),
            bias: vector([0.5, 0.25]),
            running_mean: vector([1.0, 2.0]),
            running_var: vector([4.0, 0.25]),
            eps: 0.0,
        };
        let (scale, addend) = fold_batch_norm(&norm, Some(&vector([3.0, 0.0]))).unwrap();
        assert_eq!(scale.to_vec1::<f32>().unwrap(), [1.0, -2.0]);
        // (x + 3 - 1) / 2 * 2 + 0.5 and (x - 2) / 0.5 * -1 + 0.25 at x = 0
        assert_eq!(addend.to_vec1::<f32>().unwrap(), [2.5, 4.25]);
    }
}
