//! The table of cases per op: parity tests, `validate`, `bench` and the op benchmarks all read this one.
mod check;
mod convolution;
mod names;
mod values;

use super::gaussian::Draw;
use super::{Activation, Blend, Filter, GegluParams, GroupNormParams, LayerNormParams, LinearParams, Op, Ops};
use crate::diffusion::Step;
use candle_core::{DType, Result, Tensor};
pub use check::{Outcome, largest_difference};
use convolution::Convolution;
use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use values::Values;

/// One piece of work for one op.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Case {
    /// Batch, channels of `x` and of `skip` (0: none), outputs, height = width, kernel, stride, and what follows.
    Conv2d(usize, [usize; 2], usize, usize, usize, usize, Follow),
    /// Batch, channels of `x` and of `skip`, outputs, height = width of `x`, which is enlarged to twice that ahead of a 3x3 kernel, and what follows.
    UpsampledConv2d(usize, [usize; 2], usize, usize, Follow),
    /// Batch, tokens, inputs, outputs, activation, residual.
    Linear(usize, usize, usize, usize, Activation, bool),
    /// Batch, tokens, inputs, inner.
    Geglu(usize, usize, usize, usize),
    /// Height, width.
    Gaussian(usize, usize),
    /// Batch, channels, height = width, groups, activation.
    GroupNorm(usize, usize, usize, usize, Activation),
    /// Batch, tokens, width.
    LayerNorm(usize, usize, usize),
    /// Batch, heads, queries, tokens, head dim.
    Attention(usize, usize, usize, usize, usize),
    /// Likewise with scores that grow from 64 tokens to the next by so much that no weight relative to the first has room in its type.
    PeakedAttention(usize, usize, usize, usize, usize),
    /// Likewise with a first token whose weight is so far above the others' that only all of them together count.
    FallingAttention(usize, usize, usize, usize, usize),
    /// Likewise with a key in each head, of the first, the next and so on, that is not a number: whether the result is one.
    UndefinedAttention(usize, usize, usize, usize, usize),
    /// Batch, channels, height = width, filter.
    Resample(usize, usize, usize, Filter),
    /// Height, width, to pixels of 8 bits or from them.
    Rgb8(usize, usize, Direction),
    /// Batch, height = width, with noise, with a clip.
    SamplerStep(usize, usize, bool, bool),
    /// Batch, height = width, per pixel.
    TemporalBlend(usize, usize, bool),
}

/// Which end of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Pixels are read.
    From,
    /// Pixels are written.
    To,
}

/// What follows a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Batch normalisation.
    pub norm: bool,
    /// A nonlinearity.
    pub activation: Activation,
    /// A time embedding, added per sample and channel.
    pub shift: bool,
    /// A residual, added last.
    pub residual: bool,
}

const PLAIN: Follow = Follow { norm: false, activation: Activation::None, shift: false, residual: false };
const BLOCK: Follow = Follow { norm: true, activation: Activation::Silu, shift: false, residual: false };

/// Every case, small ones first within each op: the shapes of the networks here, and odd ones.
pub fn all() -> Vec<Case> {
    use Case::*;
    let follow = |norm, activation, shift, residual| Follow { norm, activation, shift, residual };
    vec![
        Conv2d(1, [3, 0], 5, 7, 3, 1, PLAIN),
        Conv2d(2, [4, 0], 16, 16, 3, 1, BLOCK),
        Conv2d(1, [3, 3], 16, 32, 3, 1, BLOCK),
        Conv2d(1, [32, 0], 32, 32, 3, 2, PLAIN),
        Conv2d(2, [17, 0], 33, 9, 3, 2, follow(false, Activation::Gelu, true, false)),
        Conv2d(1, [32, 0], 64, 16, 3, 1, follow(false, Activation::None, true, false)),
        Conv2d(1, [64, 0], 64, 16, 3, 1, follow(false, Activation::None, false, true)),
        Conv2d(1, [64, 64], 64, 16, 3, 1, BLOCK),
        Conv2d(1, [40, 24], 48, 5, 1, 1, follow(true, Activation::Silu, true, true)),
        Conv2d(1, [128, 0], 3, 32, 1, 1, PLAIN),
        Conv2d(1, [256, 0], 256, 4, 3, 1, BLOCK),
        Conv2d(3, [130, 0], 70, 2, 3, 1, BLOCK),
        Conv2d(1, [512, 0], 512, 4, 3, 1, BLOCK),
        Conv2d(2, [96, 40], 72, 12, 3, 1, follow(false, Activation::Silu, true, true)),
        UpsampledConv2d(1, [3, 0], 5, 4, PLAIN),
        UpsampledConv2d(2, [72, 0], 40, 7, follow(false, Activation::Silu, true, true)),
        UpsampledConv2d(1, [64, 40], 64, 8, BLOCK),
        UpsampledConv2d(2, [20, 12], 24, 5, BLOCK),
        UpsampledConv2d(1, [256, 0], 256, 2, PLAIN),
        UpsampledConv2d(1, [96, 0], 96, 33, PLAIN),
        Linear(1, 1, 5, 7, Activation::None, false),
        Linear(2, 77, 40, 72, Activation::Silu, false),
        Linear(1, 256, 64, 256, Activation::Gelu, false),
        Linear(1, 256, 256, 64, Activation::None, true),
        Linear(1, 16, 512, 512, Activation::None, true),
        Linear(1, 64, 1536, 384, Activation::Gelu, true),
        Geglu(1, 3, 7, 5),
        Geglu(2, 64, 64, 256),
        Gaussian(3, 5),
        Gaussian(64, 48),
        GroupNorm(1, 8, 3, 4, Activation::None),
        GroupNorm(2, 64, 16, 32, Activation::Silu),
        GroupNorm(1, 96, 33, 32, Activation::Silu),
        GroupNorm(1, 60, 5, 4, Activation::Silu),
        GroupNorm(2, 2560, 4, 32, Activation::None),
        LayerNorm(1, 1, 5),
        LayerNorm(2, 77, 96),
        LayerNorm(1, 1024, 256),
        LayerNorm(1, 33, 760),
        LayerNorm(1, 3, 1100),
        LayerNorm(2, 16, 3072),
        Attention(1, 1, 1, 1, 8),
        Attention(1, 2, 7, 5, 3),
        Attention(2, 16, 64, 64, 12),
        Attention(1, 16, 256, 256, 24),
        Attention(1, 8, 130, 77, 40),
        Attention(1, 16, 1024, 1024, 2),
        Attention(1, 4, 64, 64, 192),
        Attention(1, 2, 70, 600, 16),
        Attention(1, 2, 70, 600, 24),
        Attention(1, 2, 70, 90, 120),
        Attention(1, 16, 2112, 300, 12),
        Attention(1, 16, 2112, 100, 16),
        Attention(1, 16, 2112, 100, 32),
        PeakedAttention(1, 2, 70, 330, 12),
        PeakedAttention(1, 4, 64, 600, 12),
        PeakedAttention(1, 16, 2112, 400, 12),
        PeakedAttention(2, 2, 33, 200, 24),
        PeakedAttention(1, 1, 40, 520, 32),
        PeakedAttention(1, 1, 40, 330, 192),
        FallingAttention(1, 2, 64, 4000, 12),
        FallingAttention(1, 16, 2112, 130, 12),
        UndefinedAttention(1, 130, 40, 130, 12),
        UndefinedAttention(1, 130, 40, 600, 12),
        UndefinedAttention(1, 70, 600, 70, 24),
        UndefinedAttention(1, 64, 9, 64, 40),
        Resample(1, 3, 2, Filter::MaxPool2),
        Resample(2, 33, 14, Filter::MaxPool2),
        Resample(2, 24, 9, Filter::MaxPool2),
        Resample(1, 3, 1, Filter::Bilinear2),
        Resample(2, 48, 15, Filter::Bilinear2),
        Resample(1, 20, 9, Filter::Nearest2),
        Resample(2, 24, 7, Filter::Nearest2),
        Rgb8(5, 7, Direction::From),
        Rgb8(36, 64, Direction::From),
        Rgb8(5, 7, Direction::To),
        Rgb8(36, 64, Direction::To),
        SamplerStep(1, 9, false, false),
        SamplerStep(2, 32, true, true),
        TemporalBlend(1, 9, false),
        TemporalBlend(2, 32, true),
    ]
}

/// So many cases of shapes that nobody chose, of all ops in turn.
pub fn drawn(count: usize, seed: u64) -> Vec<Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|i| {
            let mut up_to = |most: usize| rng.random_range(1..=most);
            let activation = |n: usize| [Activation::None, Activation::Silu, Activation::Gelu][n - 1];
            match Op::ALL[i % Op::ALL.len()] {
                Op::Attention => Case::Attention(up_to(2), up_to(6), up_to(300), up_to(300), up_to(100)),
                Op::Conv2d => {
                    let (inputs, outputs) = ([up_to(200), (up_to(2) - 1) * up_to(90)], up_to(150));
                    let follow = Follow {
                        norm: up_to(2) == 1,
                        activation: activation(up_to(3)),
                        shift: up_to(2) == 1,
                        residual: up_to(2) == 1,
                    };
                    if up_to(4) == 1 {
                        return Case::UpsampledConv2d(up_to(2), inputs, outputs, up_to(16), follow);
                    }
                    let (kernel, stride) = (2 * up_to(2) - 1, up_to(2));
                    Case::Conv2d(up_to(2), inputs, outputs, 2 + up_to(30), kernel, stride, follow)
                }
                Op::Geglu => Case::Geglu(up_to(2), up_to(100), up_to(200), up_to(150)),
                Op::Gaussian => Case::Gaussian(up_to(90), up_to(90)),
                Op::GroupNorm => {
                    let groups = up_to(32);
                    Case::GroupNorm(up_to(2), groups * up_to(16), up_to(30), groups, activation(up_to(2)))
                }
                Op::LayerNorm => Case::LayerNorm(up_to(2), up_to(200), up_to(1500)),
                Op::Linear => {
                    let activation = activation(up_to(3));
                    Case::Linear(up_to(2), up_to(200), up_to(600), up_to(400), activation, up_to(2) == 1)
                }
                Op::Resample => {
                    let filter = [Filter::MaxPool2, Filter::Bilinear2, Filter::Nearest2][up_to(3) - 1];
                    Case::Resample(up_to(2), up_to(80), 1 + up_to(20), filter)
                }
                Op::Rgb8 => {
                    Case::Rgb8(up_to(90), up_to(90), if up_to(2) == 1 { Direction::From } else { Direction::To })
                }
                Op::SamplerStep => Case::SamplerStep(up_to(2), up_to(50), up_to(2) == 1, up_to(2) == 1),
                Op::TemporalBlend => Case::TemporalBlend(up_to(2), up_to(50), up_to(2) == 1),
            }
        })
        .collect()
}

/// Cases large enough for a rate: the four convolutions that CPUs are compared on, and what else a frame spends time on.
pub fn timed() -> Vec<Case> {
    use Case::*;
    let silu = Activation::Silu;
    vec![
        Conv2d(1, [32, 0], 32, 128, 3, 1, PLAIN),
        Conv2d(1, [64, 0], 64, 64, 3, 1, PLAIN),
        Conv2d(1, [128, 0], 128, 32, 3, 1, PLAIN),
        Conv2d(1, [256, 0], 256, 16, 3, 1, PLAIN),
        Conv2d(1, [128, 0], 128, 32, 3, 1, BLOCK),
        Conv2d(1, [128, 128], 128, 32, 3, 1, BLOCK),
        Conv2d(1, [192, 0], 192, 64, 3, 1, PLAIN),
        Conv2d(5, [192, 0], 192, 64, 3, 1, PLAIN),
        Conv2d(1, [384, 0], 384, 32, 3, 1, PLAIN),
        Linear(1, 1024, 256, 1024, Activation::Gelu, false),
        Geglu(1, 1024, 128, 512),
        Gaussian(256, 256),
        GroupNorm(1, 64, 64, 32, silu),
        LayerNorm(1, 1024, 256),
        Attention(1, 16, 1024, 1024, 16),
        Attention(1, 4, 1024, 77, 64),
        Attention(1, 16, 1024, 1024, 12),
        Attention(1, 16, 1024, 1024, 24),
        Attention(1, 16, 256, 256, 48),
        Attention(1, 16, 64, 64, 96),
        Attention(1, 16, 16, 16, 192),
        Attention(1, 16, 1024, 1024, 48),
        Attention(1, 16, 1024, 1024, 64),
        Attention(1, 16, 1024, 1024, 96),
        Attention(1, 16, 1024, 1024, 128),
        Attention(1, 16, 1024, 1024, 192),
        Resample(1, 64, 64, Filter::Bilinear2),
        Rgb8(256, 256, Direction::From),
        Rgb8(256, 256, Direction::To),
        SamplerStep(1, 256, true, true),
        TemporalBlend(1, 256, true),
    ]
}

impl Case {
    /// Which op this is a case of.
    pub fn op(&self) -> Op {
        match self {
            Self::Conv2d(..) | Self::UpsampledConv2d(..) => Op::Conv2d,
            Self::Linear(..) => Op::Linear,
            Self::Geglu(..) => Op::Geglu,
            Self::Gaussian(..) => Op::Gaussian,
            Self::GroupNorm(..) => Op::GroupNorm,
            Self::LayerNorm(..) => Op::LayerNorm,
            Self::Attention(..)
            | Self::PeakedAttention(..)
            | Self::FallingAttention(..)
            | Self::UndefinedAttention(..) => Op::Attention,
            Self::Resample(..) => Op::Resample,
            Self::Rgb8(..) => Op::Rgb8,
            Self::SamplerStep(..) => Op::SamplerStep,
            Self::TemporalBlend(..) => Op::TemporalBlend,
        }
    }

    /// Whether what it runs has a matrix of weights.
    pub fn has_weights(&self) -> bool {
        matches!(self.op(), Op::Conv2d | Op::Geglu | Op::Linear)
    }

    /// The case with inputs and weights drawn from `seed`, ready to run.
    ///
    /// # Errors
    /// A slot that cannot prepare it.
    pub fn prepare(&self, ops: &Ops, seed: u64) -> Result<Prepared> {
        self.with(ops, Values::new(seed, ops))
    }

    /// As [`prepare`](Self::prepare), with images laid out in memory as the slot lays its own results: so a network's layers
    /// hand them on to each other.
    ///
    /// # Errors
    /// A slot that cannot prepare or run it.
    pub fn prepare_as_in_a_network(&self, ops: &Ops, seed: u64) -> Result<Prepared> {
        let prepared = self.prepare(ops, seed)?;
        match prepared.run(ops)?.stride() {
            [_, 1, _, _] => self.with(ops, Values::new(seed, ops).channels_last()),
            _ => Ok(prepared),
        }
    }

    fn with(&self, ops: &Ops, mut values: Values) -> Result<Prepared> {
        let d = &mut values;
        Ok(match *self {
            Self::Conv2d(batch, inputs, outputs, size, kernel, stride, follow) => {
                Convolution { batch, inputs, outputs, size, kernel, stride, follow, upsample: false }.prepare(ops, d)?
            }
            Self::UpsampledConv2d(batch, inputs, outputs, size, follow) => {
                let (kernel, stride) = (3, 1);
                Convolution { batch, inputs, outputs, size, kernel, stride, follow, upsample: true }.prepare(ops, d)?
            }
            Self::Linear(b, tokens, i, o, activation, residual) => {
                let params = LinearParams {
                    weight: d.weight((o, i), (1.0 / i as f64).sqrt())?,
                    bias: Some(d.vector(o, 0.0, 0.1)?),
                    activation,
                };
                let layer = ops.prepare_linear("case", params)?;
                let x = d.input((b, tokens, i))?;
                let residual = if residual { Some(d.input((b, tokens, o))?) } else { None };
                Prepared::new(move |ops| ops.linear(&layer, &x, residual.as_ref()))
            }
            Self::Geglu(b, tokens, i, inner) => {
                let params = GegluParams {
                    weight: d.weight((2 * inner, i), (1.0 / i as f64).sqrt())?,
                    bias: d.vector(2 * inner, 0.0, 0.1)?,
                };
                let layer = ops.prepare_geglu("case", params)?;
                let x = d.input((b, tokens, i))?;
                Prepared::new(move |ops| ops.geglu(&layer, &x))
            }
            Self::Gaussian(height, width) => {
                let draw = Draw { seed: d.seed, frame: d.seed >> 7, number: 2 };
                let shape = (1, 3, height, width).into();
                Prepared::new(move |ops| ops.gaussian(draw, &shape))
            }
            Self::GroupNorm(b, channels, size, groups, activation) => {
                let (weight, bias) = (d.vector(channels, 1.0, 0.1)?, d.vector(channels, 0.0, 0.1)?);
                let layer =
                    ops.prepare_group_norm("case", GroupNormParams { weight, bias, groups, eps: 1e-5, activation })?;
                let x = d.input((b, channels, size, size))?;
                Prepared::new(move |ops| ops.group_norm(&layer, &x))
            }
            Self::LayerNorm(b, tokens, width) => {
                let (weight, bias) = (d.vector(width, 1.0, 0.1)?, d.vector(width, 0.0, 0.1)?);
                let layer = ops.prepare_layer_norm("case", LayerNormParams { weight, bias, eps: 1e-5 })?;
                let x = d.input((b, tokens, width))?;
                Prepared::new(move |ops| ops.layer_norm(&layer, &x))
            }
            Self::Attention(b, h, q, t, dim) => Prepared::attention(d.plain(b, h, [q, t], dim)?, dim),
            Self::PeakedAttention(b, h, q, t, dim) => Prepared::attention(d.peaked(b, h, [q, t], dim)?, dim),
            Self::FallingAttention(b, h, q, t, dim) => Prepared::attention(d.falling(b, h, [q, t], dim)?, dim),
            Self::UndefinedAttention(b, h, q, t, dim) => {
                let attention = Prepared::attention(d.undefined(b, h, [q, t], dim)?, dim);
                // ones where it is not a number, as it should be everywhere
                Prepared::new(move |ops| {
                    let y = attention.run(ops)?.to_dtype(DType::F32)?;
                    y.ne(&y)?.to_dtype(DType::F32)
                })
            }
            Self::Resample(b, channels, size, filter) => {
                let x = d.input((b, channels, size, size))?;
                Prepared::new(move |ops| ops.resample("case", &x, filter))
            }
            Self::Rgb8(height, width, Direction::From) => {
                let pixels = d.pixels(height, width)?;
                Prepared::new(move |ops| ops.from_rgb8(&pixels))
            }
            Self::Rgb8(height, width, Direction::To) => {
                // values that every storage type holds: what becomes of them is the same to the byte
                let picture = d.coarse((1, 3, height, width))?;
                Prepared::new(move |ops| ops.to_rgb8(&picture))
            }
            Self::SamplerStep(b, size, noise, clip) => {
                let (x, output) = (d.in_order((b, 3, size, size))?, d.in_order((b, 3, size, size))?);
                let noise = if noise { Some(d.in_order((b, 3, size, size))?) } else { None };
                let step = Step {
                    timestep: 0.0,
                    input_scale: 1.0,
                    x0_from_x: 1.25,
                    x0_from_out: -0.75,
                    clip: if clip { Some(1.0) } else { None },
                    next_from_x: 0.3,
                    next_from_out: 0.2,
                    next_from_x0: 0.6,
                    next_from_noise: if noise.is_some() { 0.4 } else { 0.0 },
                };
                Prepared::new(move |ops| ops.sampler_step(&x, &output, noise.as_ref(), &step))
            }
            Self::TemporalBlend(b, size, map) => {
                let (current, previous) = (d.in_order((b, 3, size, size))?, d.in_order((b, 3, size, size))?);
                let map = if map { Some(d.share((b, 1, size, size))?) } else { None };
                Prepared::new(move |ops| {
                    ops.temporal_blend(&current, &previous, map.as_ref().map_or(Blend::Fixed(0.8), Blend::Map))
                })
            }
        })
    }

    /// What f32 sums in another order may cost, as a share of the largest magnitude.
    fn sums(&self) -> f64 {
        match *self {
            // a score is a sum of `dim` numbers in which the largest makes nearly all of it, and an error of it is one of the weight's logarithm
            Self::PeakedAttention(.., dim) => {
                4.0 * f64::from(f32::EPSILON) * values::HIGHEST_PEAK * std::f64::consts::LN_2 * (dim as f64).sqrt()
            }
            _ => 1e-5,
        }
    }
}

type Run = dyn Fn(&Ops) -> Result<Tensor> + Send + Sync;

/// A case with its inputs and weights.
pub struct Prepared(Box<Run>);

impl Prepared {
    fn new(f: impl Fn(&Ops) -> Result<Tensor> + Send + Sync + 'static) -> Self {
        Self(Box::new(f))
    }

    fn attention([q, k, v]: [Tensor; 3], dim: usize) -> Self {
        Self::new(move |ops| ops.attention("case", &q, &k, &v, 1.0 / (dim as f64).sqrt()))
    }

    /// Runs it once, on the slots that prepared it.
    ///
    /// # Errors
    /// Whatever the slot reports.
    pub fn run(&self, ops: &Ops) -> Result<Tensor> {
        (self.0)(ops)
    }
}
