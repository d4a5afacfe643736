//! Attention for short heads, read where the projection left them: `cuda-kernels/attention.cu`.
use super::STAGE;
use crate::cuda::{self, Grid, Kernel, Kernels, Params};
use crate::ops::Attention;
use crate::stages::tensor_cores::type_name;
use candle_core::{DType, Device, Result, Tensor};
use std::sync::Arc;

/// Longer heads over more tokens than this are faster below, where that is a library's kernel: measured on an H100, where 1024 tokens with heads of
/// 64 to 192 take 30 to 54 microseconds here and 22 to 45 there.
const LONG_HEAD: usize = 48;
/// See `LONG_HEAD`.
const MANY_TOKENS: usize = 512;
/// The rung that has the library's.
const LIBRARY: &str = "flash-attn";

/// Keys and values that pass by at a time, and threads of a group, as in `attention.cu`.
const KEYS: usize = 64;
/// See `KEYS`.
const THREADS: u32 = 128;

/// A kernel of `attention.cu`: for the head dim `head`, or where that is 0 for those up to `dim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Variant {
    head: usize,
    /// What is computed: `head` and zeros.
    dim: usize,
    /// Times 16 queries for each of four warps.
    tiles: usize,
    /// Groups of four warps that share the queries and take keys and values in turn.
    groups: usize,
    /// Values that are copied at a time: head dims and steps between tokens divide by it.
    values: usize,
    stages: usize,
}

const fn variant(head: usize, dim: usize, tiles: usize, groups: usize, values: usize, stages: usize) -> Variant {
    Variant { head, dim, tiles, groups, values, stages }
}

/// As in `attention.cu`, the narrowest first.
const VARIANTS: [Variant; 17] = [
    variant(12, 16, 1, 1, 4, 3),
    variant(12, 16, 1, 2, 4, 3),
    variant(12, 16, 2, 1, 4, 3),
    variant(0, 16, 1, 1, 4, 3),
    variant(0, 16, 1, 2, 4, 3),
    variant(0, 16, 2, 1, 4, 3),
    variant(24, 32, 1, 1, 8, 3),
    variant(24, 32, 1, 2, 8, 3),
    variant(24, 32, 2, 1, 8, 3),
    variant(0, 32, 1, 1, 8, 3),
    variant(0, 32, 1, 2, 8, 3),
    variant(0, 32, 2, 1, 8, 3),
    variant(0, 48, 1, 1, 8, 3),
    variant(0, 64, 1, 1, 8, 3),
    variant(0, 96, 1, 1, 8, 2),
    variant(0, 128, 1, 1, 8, 2),
    variant(0, 192, 1, 1, 8, 2),
];

impl Variant {
    /// What the kernel's name has for it.
    fn label(self) -> usize {
        if self.head > 0 { self.head } else { self.dim }
    }

    fn queries(self) -> usize {
        4 * 16 * self.tiles
    }

    fn threads(self) -> u32 {
        THREADS * self.groups as u32
    }

    /// Keys and values of each stage, in rows that are 8 values longer.
    fn shared(self) -> u32 {
        (self.groups * self.stages * 2 * KEYS * (self.dim + 8) * 2) as u32
    }

    /// The variant for such heads over so many tokens, where a GPU has `blocks` of 64 queries each.
    fn choose(head_dim: usize, tokens: usize, blocks: usize, processors: usize) -> Option<usize> {
        let fits =
            |v: &Variant| v.head == head_dim || (v.head == 0 && v.dim >= head_dim && head_dim.is_multiple_of(v.values));
        let narrowest = VARIANTS[VARIANTS.iter().position(fits)?];
        // more queries for a warp share what is read of keys and values, where enough of them keep every processor busy; two groups
        // take half as long where they do not
        let (tiles, groups) = match (blocks >= 4 * processors, tokens >= 8 * KEYS) {
            (true, _) => (2, 1),
            (false, true) => (1, 2),
            (false, false) => (1, 1),
        };
        let wanted = VARIANTS.iter().position(|v| *v == Variant { tiles, groups, ..narrowest });
        wanted.or_else(|| VARIANTS.iter().position(|v| *v == narrowest))
    }
}

/// The kernels for one storage type; `below` takes the heads that none of them is for.
pub(super) struct ShortHeads {
    dtype: DType,
    /// Of each variant for which the card has memory.
    kernels: Vec<Option<Kernel>>,
    processors: usize,
    below: Arc<dyn Attention>,
    /// Whether those are a library's.
    library: bool,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct AttentionArguments {
    q: u64,
    k: u64,
    v: u64,
    y: u64,
    /// Of q, k and v: from a sample, a token and a head to the next.
    strides: [[i64; 3]; 3],
    queries: i32,
    tokens: i32,
    heads: i32,
    head_dim: i32,
    scale: f32,
}

// SAFETY: the fields are those of `AttentionParams` in cuda-kernels/attention.cu; `run` below fills it from tensors of the sizes it names.
unsafe impl Params for AttentionArguments {}

impl ShortHeads {
    /// # Errors
    /// A driver that cannot load the kernels.
    pub fn load(device: &Device, dtype: DType, below: Arc<dyn Attention>) -> crate::Result<Self> {
        let (name, kernels) = (type_name(dtype)?, Kernels::load(device, "attention")?);
        let get =
            |v: &Variant| kernels.get(&format!("attention_{name}_{}x{}x{}", v.label(), v.tiles, v.groups), v.shared());
        let memory = cuda::shared_memory(device)?;
        let all = VARIANTS
            .iter()
            .map(|v| (v.shared() <= memory).then(|| get(v)).transpose())
            .collect::<crate::Result<_>>()?;
        Ok(Self {
            dtype,
            kernels: all,
            processors: cuda::processors(device)? as usize,
            library: below.stage() == LIBRARY,
            below,
        })
    }
}

/// Steps between samples, tokens and heads of `(batch, heads, tokens, head_dim)`, where the kernel can read it as it lies.
fn strides(t: &Tensor, values: usize) -> Option<[i64; 3]> {
    let [batch, head, token, value] = t.stride() else { return None };
    let aligned = [batch, head, token].iter().all(|step| step.is_multiple_of(values))
        && t.storage_and_layout().1.start_offset().is_multiple_of(values);
    let together = *value == 1 || t.dims().last() == Some(&1);
    let long = |step: &usize| i64::try_from(*step).ok();
    if aligned && together { Some([long(batch)?, long(token)?, long(head)?]) } else { None }
}

impl Attention for ShortHeads {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn run(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
        let (batch, heads, queries, head_dim) = q.dims4()?;
        let tokens = k.dim(2)?;
        let blocks = batch * heads * queries.div_ceil(64);
        let chosen = Variant::choose(head_dim, tokens, blocks, self.processors)
            .filter(|_| !self.library || head_dim <= LONG_HEAD || tokens <= MANY_TOKENS);
        let Some((at, kernel)) = chosen.and_then(|at| Some((at, self.kernels[at].as_ref()?))) else {
            return self.below.run(q, k, v, scale);
        };
        let shape = [batch, heads, tokens, head_dim];
        if [q, k, v].iter().any(|t| t.dtype() != self.dtype) || k.dims() != shape || v.dims() != shape || tokens == 0 {
            candle_core::bail!(
                "attention in {:?} was given {:?} {:?}, {:?} {:?} and {:?} {:?}",
                self.dtype,
                q.dtype(),
                q.dims(),
                k.dtype(),
                k.dims(),
                v.dtype(),
                v.dims()
            );
        }
        let variant = VARIANTS[at];
        let readable = |t: &Tensor| -> Result<(Tensor, [i64; 3])> {
            let t = if strides(t, variant.values).is_some() { t.clone() } else { t.force_contiguous()? };
            let steps = strides(&t, variant.values)
                .ok_or_else(|| candle_core::Error::Msg(format!("heads of {head_dim} lie {:?} apart", t.stride())))?;
            Ok((t, steps))
        };
        let [(q, q_steps), (k, k_steps), (v, v_steps)] = [readable(q)?, readable(k)?, readable(v)?];
        let int = |n: usize| i32::try_from(n).map_err(candle_core::Error::wrap);
        // SAFETY: the kernel below writes every value before the stream reads one.
        let y = unsafe { cuda::output((batch, queries, heads, head_dim), self.dtype, q.device()) }?;
        let arguments = AttentionArguments {
            q: cuda::address(&q)?,
            k: cuda::address(&k)?,
            v: cuda::address(&v)?,
            y: cuda::address(&y)?,
            strides: [q_steps, k_steps, v_steps],
            queries: int(queries)?,
            tokens: int(tokens)?,
            heads: int(heads)?,
            head_dim: int(head_dim)?,
            scale: (scale * std::f64::consts::LOG2_E) as f32,
        };
        if heads > 65_535 || batch > 65_535 {
            candle_core::bail!("{heads} heads of {batch} samples are more than a grid can be");
        }
        let along = u32::try_from(queries.div_ceil(variant.queries())).map_err(candle_core::Error::wrap)?;
        let grid = Grid {
            blocks: [along, heads as u32, batch as u32],
            threads: variant.threads(),
            shared: variant.shared(),
            cluster: 1,
        };
        // SAFETY: the tensors have the shapes and steps that `arguments` says.
        unsafe { kernel.launch(grid, arguments) }?;
        y.transpose(1, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_as_narrow_as_can_be() {
        let choose = |head_dim: usize, tokens: usize, blocks: usize| {
            Variant::choose(head_dim, tokens, blocks, 132).map(|at| VARIANTS[at])
        };
        assert_eq!(choose(12, 4096, 1024), Some(variant(12, 16, 2, 1, 4, 3)));
        assert_eq!(choose(12, 16, 16), Some(variant(12, 16, 1, 1, 4, 3)));
        assert_eq!(choose(8, 4096, 1024), Some(variant(0, 16, 2, 1, 4, 3)));
        assert_eq!(choose(24, 1024, 256), Some(variant(24, 32, 1, 2, 8, 3)));
        assert_eq!(choose(192, 16, 16), Some(variant(0, 192, 1, 1, 8, 2)));
        assert_eq!(choose(40, 1024, 2048), Some(variant(0, 48, 1, 1, 8, 3)));
        // 4 by 4 only the narrowest can be copied
        assert_eq!((choose(20, 16, 16), choose(200, 16, 16)), (None, None));
    }

    #[test]
    fn shared_memory_fits_what_a_card_has() {
        for variant in VARIANTS {
            // a block on compute capability 8.6, and for the widest heads on 8.0
            let most = if variant.dim > 128 { 163 << 10 } else { 99 << 10 };
            assert!(variant.shared() <= most, "{variant:?}");
        }
    }

    #[test]
    fn heads_are_read_where_a_projection_left_them() -> candle_core::Result<()> {
        let qkv = Tensor::zeros((2, 10, 3, 4, 12), DType::F16, &Device::Cpu)?;
        let k = qkv.narrow(2, 1, 1)?.squeeze(2)?.transpose(1, 2)?;
        assert_eq!(strides(&k, 4), Some([10 * 144, 144, 12]));
        assert_eq!((strides(&k, 8), strides(&k.transpose(2, 3)?, 4)), (None, None));
        Ok(())
    }
}
