//! Tiled attention against the plain formula in f64.

use half::f16;

use super::*;
use crate::stages::simd::tests::noise;

/// `(batch, tokens, heads, head_dim)` in f64.
fn plain(q: Heads<'_, f32>, k: Heads<'_, f32>, v: Heads<'_, f32>, scale: f32) -> Vec<f64> {
    let (l, m) = (q.layout, k.layout);
    let mut out = Vec::new();
    for (b, t, h) in (0..l.batch)
        .flat_map(|b| (0..l.tokens).map(move |t| (b, t)))
        .flat_map(|(b, t)| (0..l.heads).map(move |h| (b, t, h)))
    {
        let query = &q.values[l.offset(b, h, t)..];
        let logits: Vec<f64> = (0..m.tokens)
            .map(|s| {
                let key = &k.values[m.offset(b, h, s)..];
                (0..l.head_dim).map(|c| f64::from(query[c]) * f64::from(key[c])).sum::<f64>() * f64::from(scale)
            })
            .collect();
        let maximum = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logits.iter().map(|x| (x - maximum).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for c in 0..l.head_dim {
            let mixed: f64 =
                (0..m.tokens).map(|s| weights[s] * f64::from(v.values[v.layout.offset(b, h, s) + c])).sum();
            out.push(mixed / sum);
        }
    }
    out
}

const GUARD: f32 = 7.25e6;

/// Runs both forms on `(batch, tokens, heads · head_dim)` and returns the largest difference.
fn worst(isa: Isa, sizes: [usize; 5], amplitude: f32) -> f64 {
    let [batch, heads, tokens, kv_tokens, head_dim] = sizes;
    let layout = HeadLayout::tokens_major(batch, heads, tokens, head_dim);
    let kv_layout = HeadLayout::tokens_major(batch, heads, kv_tokens, head_dim);
    let q: Vec<f32> = noise(1, batch * heads * tokens * head_dim).iter().map(|x| x * amplitude).collect();
    let k = noise(2, batch * heads * kv_tokens * head_dim);
    let v = noise(3, batch * heads * kv_tokens * head_dim);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let (q, k, v) = (
        Heads { values: &q, layout },
        Heads { values: &k, layout: kv_layout },
        Heads { values: &v, layout: kv_layout },
    );
    // The output lies in a wider buffer: guards before, after and between the rows.
    let wide = HeadLayout {
        token_stride: layout.token_stride + 3,
        batch_stride: tokens * (layout.token_stride + 3) + 5,
        ..layout
    };
    let mut buffer = vec![GUARD; 4 + wide.extent("out").unwrap() + 9];
    let out = HeadsMut { values: &mut buffer[4..], layout: wide };
    attention_with(isa, q, k, v, scale, out).unwrap();

    let expected = plain(q, k, v, scale);
    let mut written = vec![false; buffer.len()];
    let mut worst = 0.0f64;
    let mut index = 0;
    for b in 0..batch {
        for t in 0..tokens {
            for h in 0..heads {
                for c in 0..head_dim {
                    let at = 4 + wide.offset(b, h, t) + c;
                    written[at] = true;
                    worst = worst.max((f64::from(buffer[at]) - expected[index]).abs());
                    index += 1;
                }
            }
        }
    }
    for (at, value) in buffer.iter().enumerate() {
        assert!(written[at] || *value == GUARD, "{isa:?} {sizes:?}: guard {at} was overwritten");
    }
    worst
}

#[test]
fn odd_sizes_agree_with_the_plain_form() {
    for isa in Isa::available() {
        for sizes in [
            [1, 1, 1, 1, 1],
            [1, 16, 16, 16, 128],
            [2, 3, 5, 7, 3],
            [1, 2, 33, 65, 12],
            [1, 2, 130, 200, 16],
            [2, 1, 17, 129, 1],
            [1, 3, 150, 64, 2],
            [1, 2, 31, 63, 24],
            [1, 1, 70, 1, 96],
            [1, 2, 1, 300, 48],
            [1, 1, 40, 77, 192],
            [1, 1, 3, 70, 255],
            [1, 1, 20, 66, 256],
        ] {
            let difference = worst(isa, sizes, 4.0);
            assert!(difference < 4e-6, "{isa:?} {sizes:?}: {difference:e}");
        }
    }
}

#[test]
fn large_logits_stay_finite_and_right() {
    for isa in Isa::available() {
        // Logits of ±1e4: an f32 logit is off by up to 1e-3 by its own rounding, and so is its exponential.
        let difference = worst(isa, [1, 2, 40, 90, 16], 1e4);
        assert!(difference < 2e-2, "{isa:?}: {difference:e}");
    }
}

#[test]
fn every_key_equal_gives_the_mean_and_one_key_its_value() {
    let layout = HeadLayout::heads_major(1, 1, 50, 8);
    let (k, v) = (vec![1e3f32; 400], noise(9, 400));
    let mean: Vec<f64> = (0..8).map(|c| (0..50).map(|t| f64::from(v[t * 8 + c])).sum::<f64>() / 50.0).collect();
    for isa in Isa::available() {
        let mut out = vec![0.0f32; 400];
        let heads = |values| Heads { values, layout };
        attention_with(isa, heads(&k), heads(&k), heads(&v), 0.01, HeadsMut { values: &mut out, layout }).unwrap();
        for (i, value) in out.iter().enumerate() {
            assert!((f64::from(*value) - mean[i % 8]).abs() < 1e-6, "{isa:?}");
        }
        let one = HeadLayout::heads_major(1, 1, 1, 8);
        let mut out = vec![0.0f32; 8];
        let heads = |values| Heads { values, layout: one };
        attention_with(
            isa,
            heads(&v[..8]),
            heads(&k[..8]),
            heads(&v[8..16]),
            1.0,
            HeadsMut { values: &mut out, layout: one },
        )
        .unwrap();
        assert_eq!(out, v[8..16]);
    }
}

#[test]
fn half_precision_rounds_only_what_is_stored() {
    let (layout, kv) = (HeadLayout::tokens_major(1, 2, 37, 24), HeadLayout::tokens_major(1, 2, 71, 24));
    let half = |seed, count| -> Vec<f16> { noise(seed, count).into_iter().map(f16::from_f32).collect() };
    let (q, k, v) = (half(1, 37 * 48), half(2, 71 * 48), half(3, 71 * 48));
    let wide = |values: &[f16]| -> Vec<f32> { values.iter().map(|x| x.to_f32()).collect() };
    let expected = plain(
        Heads { values: &wide(&q), layout },
        Heads { values: &wide(&k), layout: kv },
        Heads { values: &wide(&v), layout: kv },
        0.2,
    );
    for isa in Isa::available() {
        let mut out = vec![f16::ZERO; q.len()];
        attention_with(
            isa,
            Heads { values: &q, layout },
            Heads { values: &k, layout: kv },
            Heads { values: &v, layout: kv },
            0.2,
            HeadsMut { values: &mut out, layout },
        )
        .unwrap();
        for (value, exact) in out.iter().zip(&expected) {
            let bound = exact.abs() / 2048.0 + 1e-6;
            assert!((value.to_f64() - exact).abs() <= bound, "{isa:?} {value} {exact}");
        }
    }
}

#[test]
fn shapes_that_cannot_be_run_are_refused() {
    let values = vec![0.0f32; 64];
    let layout = HeadLayout::tokens_major(1, 2, 4, 8);
    let good = Heads { values: &values, layout };
    let run = |q: Heads<'_, f32>, k: Heads<'_, f32>, layout| {
        let mut out = vec![GUARD; 64];
        let result = attention(q, k, good, 1.0, HeadsMut { values: &mut out, layout });
        assert!(result.is_ok() || out.iter().all(|&x| x == GUARD), "a refused call wrote");
        result.map_err(|error| error.to_string())
    };
    assert!(run(good, good, layout).is_ok());
    let short = Heads { values: &values[1..], layout };
    assert!(run(short, good, layout).unwrap_err().contains("64 values, the slice holds 63"));
    let none = Heads { values: &values, layout: HeadLayout { tokens: 0, ..layout } };
    assert!(run(good, none, layout).unwrap_err().contains("at least 1"));
    let other = Heads { values: &values, layout: HeadLayout { heads: 1, ..layout } };
    assert!(run(good, other, layout).unwrap_err().contains("expected (1, 2, 4, 8)"));
    let overlap = HeadLayout { token_stride: 8, ..layout };
    assert!(run(good, good, overlap).unwrap_err().contains("overlap"));
    let far = Heads { values: &values, layout: HeadLayout { token_stride: usize::MAX, ..layout } };
    assert!(run(far, good, layout).unwrap_err().contains("memory"));
    // Strides of zero repeat a row, so a huge batch may be named but not run.
    let endless = HeadLayout { batch: usize::MAX, batch_stride: 0, ..layout };
    let endless_heads = Heads { values: &values[..], layout: endless };
    assert!(
        attention(
            endless_heads,
            endless_heads,
            endless_heads,
            1.0,
            HeadsMut { values: &mut [0.0; 64], layout: endless }
        )
        .is_err()
    );
}

#[test]
fn many_tokens_need_no_more_scratch_than_few() {
    // 65,536 keys, as a 256x256 frame has; the plain form would hold 16 GiB of logits a head.
    let kv = HeadLayout::tokens_major(1, 1, 65_536, 16);
    let layout = HeadLayout::tokens_major(1, 1, 40, 16);
    let values = noise(5, 65_536 * 16);
    let keys = Heads { values: &values, layout: kv };
    let queries = Heads { values: &values[..40 * 16], layout };
    let mut out = vec![0.0f32; 40 * 16];
    attention(queries, keys, keys, 0.25, HeadsMut { values: &mut out, layout }).unwrap();
    for (value, exact) in out.iter().zip(plain(queries, keys, keys, 0.25)) {
        assert!((f64::from(*value) - exact).abs() < 2e-6, "{value} {exact}");
    }
    for head_dim in [1, 16, 192, MAX_HEAD_DIM] {
        let few = Tiling::new(&layout, 64, 1).scratch_len(head_dim);
        let many = Tiling::new(&kv, 65_536, 2).scratch_len(head_dim);
        assert!(few <= many && 4 * many <= scratch_bytes(head_dim));
        assert!(scratch_bytes(head_dim) < 2 << 20, "{}", scratch_bytes(head_dim));
    }
}
