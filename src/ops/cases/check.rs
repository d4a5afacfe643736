//! A case through an engine's slots against its definition, and what came of it.
use super::Case;
use super::values::Values;
use crate::cuda;
use crate::ops::Ops;
use candle_core::{DType, Result, Tensor};
use std::fmt;

/// Draws from which it is known what rounding costs.
const DRAWS: u64 = 3;

impl Case {
    /// Runs the case on `ops` and on plain Candle, with the same values drawn from `seed`: as they come, and with images channels-last and
    /// inputs that begin one value into their memory.
    ///
    /// The bound comes from the reference's own rounding: the error may be twice that of plain Candle given inputs and
    /// weights rounded to the storage type, its result rounded too ([`Ops::rounded`]), plus 1e-5 of the largest
    /// magnitude. What rounding costs is the largest of three draws, as a share of the largest magnitude, and at least what it may cost
    /// that one value: few values may all happen to be rounded well. Where weights are stored in eight bits, plain Candle runs on the weights that are stored
    /// ([`Ops::on_weights`]): no error of a kernel hides behind theirs.
    ///
    /// # Errors
    /// A slot that cannot run it.
    pub fn check(&self, ops: &Ops, seed: u64) -> Result<Outcome> {
        Ok(self.judge(ops, seed, false)?.0)
    }

    /// The same with each kernel that could run the case, not the one that was fastest alone; the worst of them, and how many there are.
    ///
    /// # Errors
    /// A slot that cannot run it.
    pub fn check_every_kernel(&self, ops: &Ops, seed: u64) -> Result<(Outcome, usize)> {
        self.judge(ops, seed, true)
    }

    fn judge(&self, ops: &Ops, seed: u64, every_kernel: bool) -> Result<(Outcome, usize)> {
        let reference = Ops { dtype: DType::F32, ..Ops::reference(&ops.device) }.on_weights(ops.weights);
        let plain = |draw: u64| self.prepare(&reference, draw)?.run(&reference);
        let rounded = Ops::rounded(&ops.device, ops.dtype).on_weights(ops.weights);
        let exact = plain(seed)?;
        // a network's inputs may lie in memory otherwise, and a part of a tensor may begin anywhere
        let moved = Values::new(seed, ops).channels_last().one_value_on();
        let prepared = [self.prepare(ops, seed)?, self.with(ops, moved)?];
        let largest = |exact: &Tensor| scalar(exact.to_dtype(DType::F32)?.abs()?.max_all()?);
        let scale = largest(&exact)?;
        let mut share = half_unit(ops.dtype);
        for draw in (0..DRAWS).map(|i| seed.wrapping_add(i)) {
            let exact = if draw == seed { exact.clone() } else { plain(draw)? };
            let error = largest_difference(&self.prepare(&rounded, draw)?.run(&rounded)?, &exact)?;
            share = share.max(error / largest(&exact)?.max(f64::MIN_POSITIVE));
        }
        let rounding = share * scale;
        // a pixel is a whole number, of which none may differ
        let tolerance = if exact.dtype() == DType::U8 { 0.5 } else { 2.0 * rounding + self.sums() * scale };
        let mut worst = Outcome { error: 0.0, tolerance, overrun: 0 };
        let mut run = || -> Result<()> {
            for prepared in &prepared {
                let (got, overrun) = cuda::guarded(|| prepared.run(ops))?;
                worst.error = worst.error.max(largest_difference(&got, &exact)?);
                worst.overrun = worst.overrun.max(overrun);
            }
            Ok(())
        };
        let count = if every_kernel { cuda::with_each_kernel(run)?.len() } else { run().map(|()| 1)? };
        Ok((worst, count))
    }
}

/// How far a slot is from the op's definition.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Largest absolute difference from plain Candle in f32.
    pub error: f64,
    /// What is allowed.
    pub tolerance: f64,
    /// Pieces of memory next to which a kernel has written.
    pub overrun: usize,
}

impl fmt::Display for Outcome {
    /// What is wrong, where something is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.overrun > 0 {
            return write!(f, "it writes next to {} of its pieces of memory", self.overrun);
        }
        write!(f, "it differs from its definition by {:.1e}, {:.1e} is allowed", self.error, self.tolerance)
    }
}

impl Outcome {
    /// Whether the error is a number and within bounds, and nothing was written beyond what was to be.
    pub fn passed(&self) -> bool {
        self.error.is_finite() && self.error <= self.tolerance && self.overrun == 0
    }
}

/// What rounding to the nearest of a type changes a value by at most, as a share of it.
fn half_unit(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 0.5f64.powi(11),
        DType::BF16 => 0.5f64.powi(8),
        _ => 0.0,
    }
}

/// The largest absolute difference of two tensors of one shape, in f32; NaN counts as infinite.
///
/// # Errors
/// Tensors of different shapes.
pub fn largest_difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    let difference = (a.to_dtype(DType::F32)? - b.to_dtype(DType::F32)?)?.abs()?.flatten_all()?;
    let values = difference.to_vec1::<f32>()?;
    Ok(values.into_iter().fold(0.0, |m: f64, v| if v.is_nan() { f64::INFINITY } else { m.max(f64::from(v)) }))
}

fn scalar(t: Tensor) -> Result<f64> {
    Ok(f64::from(t.to_dtype(DType::F32)?.to_scalar::<f32>()?))
}
