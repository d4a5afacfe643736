//! Weights in eight bits: what a stage that stores them so stores, and plain Candle on exactly those weights.
//!
//! A weight is e4m3 (Micikevicius et al., arXiv:2209.05433): four bits of exponent, three of mantissa, up to 448. All weights of an
//! output share a scale in f32, that of the largest among them being 448.
use super::Ops;
use super::conv2d::{Conv2d, Conv2dKernel, Conv2dParams};
use super::geglu::{Geglu, GegluKernel, GegluParams};
use super::linear::{Linear, LinearKernel, LinearParams};
use crate::{Error, Result as Outcome};
use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;
use std::str::FromStr;
use std::sync::Arc;

/// The largest e4m3.
const LARGEST: f64 = 448.0;

/// Weights that a layer has at least where they are stored in eight bits: 8 MiB of halves. The time of a smaller layer is that of a
/// launch and of arithmetic, which eight bits do not shorten.
const FEWEST: usize = 1 << 22;

/// How the weights of convolutions and linear layers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightsType {
    /// As everything else is.
    #[default]
    Storage,
    /// In eight bits, in layers of at least so many weights; the others as everything else.
    Fp8 {
        /// Weights of a layer.
        fewest: usize,
    },
}

impl WeightsType {
    /// The same for layers of any size: to see what it does to small ones.
    pub fn of_any_size(self) -> Self {
        match self {
            Self::Storage => Self::Storage,
            Self::Fp8 { .. } => Self::Fp8 { fewest: 0 },
        }
    }

    /// What is said of it after the names of stages.
    pub fn note(self) -> &'static str {
        match self {
            Self::Storage => "",
            Self::Fp8 { .. } => ", fp8 weights",
        }
    }

    /// Whether a layer's weights, with its outputs first, are stored in eight bits.
    pub fn quantises(self, weight: &Tensor) -> bool {
        match self {
            Self::Storage => false,
            Self::Fp8 { fewest } => weight.rank() > 1 && weight.elem_count() >= fewest,
        }
    }

    /// Bytes that a layer's parameter occupies where others are of `dtype`.
    pub(super) fn bytes(self, parameter: &Tensor, dtype: DType) -> u64 {
        let scales = parameter.dims().first().copied().unwrap_or(0) * DType::F32.size_in_bytes();
        let count = parameter.elem_count();
        (if self.quantises(parameter) { count + scales } else { count * dtype.size_in_bytes() }) as u64
    }

    /// A layer's weights as it computes with them.
    fn stored(self, weight: Tensor) -> Result<Tensor> {
        if self.quantises(&weight) { dequantised(&weight) } else { Ok(weight) }
    }
}

impl FromStr for WeightsType {
    type Err = Error;

    fn from_str(text: &str) -> Outcome<Self> {
        match text {
            "storage" => Ok(Self::Storage),
            "fp8" => Ok(Self::Fp8 { fewest: FEWEST }),
            _ => Err(Error::Stage(format!(
                "no type of weights {text:?}: choose fp8, or storage for that of everything else"
            ))),
        }
    }
}

impl std::fmt::Display for WeightsType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Storage => "storage",
            Self::Fp8 { .. } => "fp8",
        })
    }
}

/// Rows in f32 as e4m3, each value rounded to the nearest, and `(rows, 1)` scales in f32 that they are to be multiplied by.
///
/// # Errors
/// Values that are no matrix in f32.
pub fn quantised(rows: &Tensor) -> Result<(Tensor, Tensor)> {
    let scales = (rows.abs()?.max_keepdim(1)? / LARGEST)?;
    // a row of nothing but zeros has no scale of its own
    let scales = scales.ge(f64::from(f32::MIN_POSITIVE))?.where_cond(&scales, &scales.ones_like()?)?;
    Ok((cast(&rows.broadcast_div(&scales)?, DType::F8E4M3)?, scales))
}

/// Rows as another type, by the processor: on a GPU, Candle 0.11.1 looks for its casts of e4m3 under names that they do not have.
fn cast(rows: &Tensor, dtype: DType) -> Result<Tensor> {
    let (device, rows) = (rows.device(), rows.to_device(&Device::Cpu)?);
    let count = rows.dim(0)?;
    let part = count.div_ceil(4 * rayon::current_num_threads()).max(1);
    let starts: Vec<usize> = (0..count).step_by(part).collect();
    let parts = starts.into_par_iter().map(|at| rows.narrow(0, at, part.min(count - at))?.to_dtype(dtype));
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?.to_device(device)
}

/// Weights, with their outputs first, as they are after storage in eight bits; in f32.
///
/// # Errors
/// A weight of fewer than two dimensions.
pub fn dequantised(weight: &Tensor) -> Result<Tensor> {
    let (values, scales) = quantised(&weight.to_dtype(DType::F32)?.flatten_from(1)?)?;
    cast(&values, DType::F32)?.broadcast_mul(&scales)?.reshape(weight.shape())
}

impl Ops {
    /// The same slots on weights as they are once they were stored as `weights`: what a stage that stores them so is checked against.
    #[must_use]
    pub fn on_weights(self, weights: WeightsType) -> Self {
        if weights == WeightsType::Storage {
            return self;
        }
        Self {
            conv2d: Arc::new(Stored(self.conv2d, weights)),
            geglu: Arc::new(Stored(self.geglu, weights)),
            linear: Arc::new(Stored(self.linear, weights)),
            ..self
        }
    }

    /// Bytes that a layer's parameters occupy as they are stored.
    pub(super) fn stored_bytes<'a>(&self, parameters: impl IntoIterator<Item = &'a Tensor>) -> u64 {
        parameters.into_iter().map(|parameter| self.weights.bytes(parameter, self.dtype)).sum()
    }
}

/// A slot that is given weights as they are once they were stored.
struct Stored<T: ?Sized>(Arc<T>, WeightsType);

impl Conv2d for Stored<dyn Conv2d> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn prepare(&self, p: Conv2dParams) -> Result<Box<dyn Conv2dKernel>> {
        self.0.prepare(Conv2dParams { weight: self.1.stored(p.weight)?, ..p })
    }
}

impl Geglu for Stored<dyn Geglu> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn prepare(&self, p: GegluParams) -> Result<Box<dyn GegluKernel>> {
        self.0.prepare(GegluParams { weight: self.1.stored(p.weight)?, ..p })
    }
}

impl Linear for Stored<dyn Linear> {
    fn stage(&self) -> &'static str {
        self.0.stage()
    }

    fn prepare(&self, p: LinearParams) -> Result<Box<dyn LinearKernel>> {
        self.0.prepare(LinearParams { weight: self.1.stored(p.weight)?, ..p })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Activation, bytes};

    fn matrix(rows: &[Vec<f32>]) -> Tensor {
        let columns = rows[0].len();
        Tensor::from_vec(rows.concat(), (rows.len(), columns), &Device::Cpu).unwrap()
    }

    #[test]
    fn values_are_rounded_to_the_nearest_e4m3() {
        // from the largest down to where values are subnormal and, at last, zero
        let row: Vec<f32> = (0..4000).map(|i| 448.0 * 0.995f32.powi(i) * if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
        let (values, scales) = quantised(&matrix(std::slice::from_ref(&row))).unwrap();
        assert_eq!(scales.to_vec2::<f32>().unwrap(), [[1.0]]);
        let values: Vec<f32> = values.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for (value, exact) in values.into_iter().zip(row) {
            // three bits of mantissa, from 2^-6 on; below, steps of 2^-9
            let unit = exact.abs().log2().floor().max(-6.0).exp2() / 8.0;
            assert!((value - exact).abs() <= unit / 2.0, "{exact} became {value}");
            assert_eq!(value / unit, (value / unit).round(), "{value} is no e4m3");
        }
        // halfway between two, the even one
        let ties = [448.0f32, 17.0, 19.0, 1.5 / 512.0, 0.5 / 512.0];
        let (values, _) = quantised(&matrix(&[ties.to_vec()])).unwrap();
        let values: Vec<Vec<f32>> = values.to_dtype(DType::F32).unwrap().to_vec2().unwrap();
        assert_eq!(values, [[448.0, 16.0, 20.0, 2.0 / 512.0, 0.0]]);
    }

    #[test]
    fn each_output_has_its_scale() {
        let rows = [vec![0.5f32, -2.0, 1.0], vec![0.0; 3], vec![-3e-5, 1e-5, 2e-5], vec![1e-40, 0.0, 0.0]];
        let (_, scales) = quantised(&matrix(&rows)).unwrap();
        let scales: Vec<f32> = scales.flatten_all().unwrap().to_vec1().unwrap();
        for (scale, wanted) in scales.into_iter().zip([2.0 / 448.0, 1.0, 3e-5 / 448.0, 1.0]) {
            assert!((scale / wanted - 1.0).abs() < 1e-6, "{scale}, wanted {wanted}");
        }
        let after: Vec<Vec<f32>> = dequantised(&matrix(&rows)).unwrap().to_vec2().unwrap();
        assert_eq!(after[1], [0.0; 3]);
        assert_eq!(after[3], [0.0; 3], "what has no scale is nothing");
        for (after, before) in after.iter().flatten().zip(rows.iter().take(3).flatten()) {
            assert!((after - before).abs() <= before.abs() / 16.0 * 1.001, "{before} became {after}");
        }
        // the scale is that of the output, whatever the shape
        let weight = Tensor::randn(0f32, 1.0, (3, 2, 3, 3), &Device::Cpu).unwrap();
        let flat = dequantised(&weight.reshape((3, 18)).unwrap()).unwrap();
        let same = (dequantised(&weight).unwrap().reshape((3, 18)).unwrap() - flat).unwrap().abs().unwrap();
        assert_eq!(same.max_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }

    #[test]
    fn plain_candle_runs_on_the_weights_that_a_stage_stores() {
        let device = Device::Cpu;
        let params = LinearParams { weight: matrix(&[vec![448.0, 17.0]]), bias: None, activation: Activation::None };
        let x = matrix(&[vec![0.0, 1.0]]);
        let run = |weights| {
            let ops = Ops::reference(&device).on_weights(weights);
            let layer = ops.prepare_linear("layer", params.clone()).unwrap();
            ops.linear(&layer, &x, None).unwrap().to_vec2::<f32>().unwrap()[0][0]
        };
        let fp8: WeightsType = "fp8".parse().unwrap();
        assert_eq!(run(WeightsType::Storage), 17.0);
        assert_eq!(run(fp8), 17.0, "a small layer is not quantised");
        assert_eq!(run(fp8.of_any_size()), 16.0);
        assert!("fp4".parse::<WeightsType>().unwrap_err().to_string().contains("choose fp8, or storage"));
    }

    #[test]
    fn eight_bits_are_a_byte_and_a_scale_for_each_output() {
        let ops = Ops { weights: WeightsType::Fp8 { fewest: 6 }, ..Ops::reference(&Device::Cpu) };
        let tensor = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(ops.stored_bytes([&tensor(&[2, 3])]), 6 + 2 * 4);
        assert_eq!(ops.stored_bytes([&tensor(&[2, 2]), &tensor(&[9])]), 4 * (4 + 9), "few weights, and a vector");
        assert_eq!(bytes(&tensor(&[2, 3]).to_dtype(DType::F8E4M3).unwrap()), 6);
    }
}
