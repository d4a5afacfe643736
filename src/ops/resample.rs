//! Changes of resolution by a factor of two: max-pooling down, bilinear or nearest up.
use super::probe::{Call, Op};
use super::{Ops, bytes};
use candle_core::{Result, Tensor};

/// Which change of resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The largest of each 2x2 block; `(b, c, h, w)` to `(b, c, h/2, w/2)`.
    MaxPool2,
    /// Bilinear with pixel centres at halves (`align_corners` false); `(b, c, h, w)` to `(b, c, 2h, 2w)`.
    Bilinear2,
    /// Each pixel four times; `(b, c, h, w)` to `(b, c, 2h, 2w)`.
    Nearest2,
}

/// The slot.
pub trait Resample: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// Runs it on `(batch, channels, height, width)`.
    ///
    /// # Errors
    /// A tensor that is not `(b, c, h, w)`, or sides that the filter cannot take.
    fn run(&self, x: &Tensor, filter: Filter) -> Result<Tensor>;
}

impl Ops {
    /// Changes the resolution; `site` is the layer's name.
    ///
    /// # Errors
    /// A tensor that is not `(b, c, h, w)`, or sides that the filter cannot take.
    pub fn resample(&self, site: &str, x: &Tensor, filter: Filter) -> Result<Tensor> {
        let moved = |y: &Tensor| {
            let flops = match filter {
                Filter::MaxPool2 => 3,
                Filter::Bilinear2 => 7,
                Filter::Nearest2 => 0,
            };
            (y.elem_count() as u64 * flops, bytes(x) + bytes(y))
        };
        self.probe
            .run(Call { op: Op::Resample, site, stage: self.resample.stage() }, moved, || self.resample.run(x, filter))
    }
}

/// Candle's own pooling and upsampling.
pub struct Reference;

impl Resample for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn run(&self, x: &Tensor, filter: Filter) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        let x = x.contiguous()?;
        match filter {
            Filter::MaxPool2 => x.max_pool2d(2),
            Filter::Bilinear2 => x.upsample_bilinear2d_with_scale(2.0, 2.0, false),
            Filter::Nearest2 => x.upsample_nearest2d(2 * h, 2 * w),
        }
    }
}
