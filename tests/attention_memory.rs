//! The memory promise of `flash-attn`: 65,536 tokens in far less than the 16 GiB a head that the plain form needs.
mod common;

use candle_core::{Device, Tensor};
use mirage::bench::memory::{self, CountingAllocator};
use mirage::model::formula;
use mirage::ops::cases::largest_difference;
use mirage::stages::{StageSet, StageSpec};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const TOKENS: usize = 65_536;
const DIM: usize = 16;

#[test]
fn tokens_by_the_ten_thousand_need_no_matrix() -> anyhow::Result<()> {
    let device = Device::Cpu;
    if !StageSet::all(&device).names().contains(&"flash-attn") {
        common::skip("flash-attn is not in this build");
        return Ok(());
    }
    let ops = "flash-attn".parse::<StageSpec>()?.resolve(&device).install(&device)?;
    let draw = |name: &str| Tensor::from_vec(formula::input(name, TOKENS * DIM), (1, 1, TOKENS, DIM), &device);
    let (q, k, v) = (draw("q")?, draw("k")?, draw("v")?);
    let before = memory::current();
    memory::reset_peak();
    let y = ops.attention("test", &q, &k, &v, 0.25)?;
    let grown = memory::peak() - before;
    assert!(grown < 64 << 20, "{grown} bytes");

    // a few of the queries by the definition
    let few = q.narrow(2, 777, 5)?;
    let want = mirage::ops::Ops::reference(&device).attention("test", &few, &k, &v, 0.25)?;
    let error = largest_difference(&y.narrow(2, 777, 5)?, &want)?;
    assert!(error < 1e-5, "{error:e}");
    Ok(())
}
