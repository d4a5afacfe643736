//! How a case is named in tables.
use super::{Case, Direction, Follow};
use crate::ops::Activation;
use std::fmt;

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Conv2d(b, [i, skip], o, size, k, stride, follow) => {
                write!(f, "conv2d {b}x{i}")?;
                if skip > 0 {
                    write!(f, "+{skip}")?;
                }
                write!(f, "x{size}x{size} to {o}, {k}x{k}, stride {stride}")?;
                following(f, follow)
            }
            Self::UpsampledConv2d(b, [i, skip], o, size, follow) => {
                write!(f, "conv2d {b}x{i}x{size}x{size} enlarged to {0}x{0}", 2 * size)?;
                if skip > 0 {
                    write!(f, ", +{skip}")?;
                }
                write!(f, ", to {o}, 3x3")?;
                following(f, follow)
            }
            Self::Linear(b, tokens, i, o, act, residual) => {
                write!(f, "linear {b}x{tokens}x{i} to {o}{}", if residual { ", residual" } else { "" })?;
                activation(f, act)
            }
            Self::Geglu(b, tokens, i, inner) => write!(f, "geglu {b}x{tokens}x{i} to {inner}"),
            Self::Gaussian(height, width) => write!(f, "gaussian 1x3x{height}x{width}"),
            Self::GroupNorm(b, c, size, groups, act) => {
                write!(f, "group_norm {b}x{c}x{size}x{size}, {groups} groups")?;
                activation(f, act)
            }
            Self::LayerNorm(b, tokens, width) => write!(f, "layer_norm {b}x{tokens}x{width}"),
            Self::Attention(b, heads, q, t, d) => {
                write!(f, "attention {b}x{heads} heads, {q} queries, {t} tokens, dim {d}")
            }
            Self::PeakedAttention(b, heads, q, t, d) => {
                write!(f, "attention {b}x{heads} heads, {q} queries, {t} tokens, dim {d}, peaked")
            }
            Self::FallingAttention(b, heads, q, t, d) => {
                write!(f, "attention {b}x{heads} heads, {q} queries, {t} tokens, dim {d}, falling")
            }
            Self::UndefinedAttention(b, heads, q, t, d) => {
                write!(f, "attention {b}x{heads} heads, {q} queries, {t} tokens, dim {d}, a key not a number")
            }
            Self::Resample(b, c, size, filter) => write!(f, "resample {b}x{c}x{size}x{size}, {filter:?}"),
            Self::Rgb8(height, width, direction) => {
                let way = if direction == Direction::From { "to a picture" } else { "from a picture" };
                write!(f, "rgb8 {height}x{width}, {way}")
            }
            Self::SamplerStep(b, size, noise, clip) => {
                write!(f, "sampler_step {b}x3x{size}x{size}")?;
                write!(f, "{}{}", if noise { ", noise" } else { "" }, if clip { ", clip" } else { "" })
            }
            Self::TemporalBlend(b, size, map) => {
                write!(f, "temporal_blend {b}x3x{size}x{size}{}", if map { ", per pixel" } else { "" })
            }
        }
    }
}

fn following(f: &mut fmt::Formatter<'_>, follow: Follow) -> fmt::Result {
    let parts = [(follow.norm, "norm"), (follow.shift, "shift"), (follow.residual, "residual")];
    for (_, name) in parts.iter().filter(|(on, _)| *on) {
        write!(f, ", {name}")?;
    }
    activation(f, follow.activation)
}

fn activation(f: &mut fmt::Formatter<'_>, activation: Activation) -> fmt::Result {
    match activation {
        Activation::None => Ok(()),
        Activation::Silu => f.write_str(", SiLU"),
        Activation::Gelu => f.write_str(", GELU"),
    }
}
