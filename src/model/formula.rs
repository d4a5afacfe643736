//! Weights and inputs by formula, so that a test or a benchmark needs no file.
//!
//! For the tensor named `n` and its flat row-major index `i`: `z = splitmix64(fnv1a64(n) + i)`,
//! `u = (z >> 40) / 2²⁴ · 2 − 1` in `[−1, 1)`; then scaled by what the tensor is for. All in u64 with wrap-around and f64.
use rayon::prelude::*;

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn splitmix64(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn uniform(hash: u64, index: usize) -> f64 {
    let z = splitmix64(hash.wrapping_add(index as u64));
    (z >> 40) as f64 / f64::from(1 << 24) * 2.0 - 1.0
}

fn fill(name: &str, count: usize, f: impl Fn(f64) -> f64 + Sync) -> Vec<f32> {
    let hash = fnv1a64(name);
    (0..count).into_par_iter().with_min_len(1 << 14).map(|i| f(uniform(hash, i)) as f32).collect()
}

/// The parameter `name`: matrices uniform with variance `2 / fan_in` (He et al., arXiv:1502.01852), norm weights and
/// variances near 1, every other vector near 0.
pub fn tensor(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    if shape.len() >= 2 {
        let bound = (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
        fill(name, count, |u| u * bound)
    } else if name.ends_with("running_var") {
        fill(name, count, |u| 1.0 + 0.5 * u)
    } else if name.ends_with("weight") {
        fill(name, count, |u| 1.0 + 0.1 * u)
    } else {
        fill(name, count, |u| 0.1 * u)
    }
}

/// The input `name` (`input.x`, `input.previous`): uniform with variance near 1.
pub fn input(name: &str, count: usize) -> Vec<f32> {
    let hash = fnv1a64(name);
    (0..count).map(|i| uniform(hash, i) as f32 * 1.7).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(fnv1a64("input.x"), 0x8108_462d_5960_cef5);
        assert_eq!(input("input.x", 4), [0.506_232_56, -0.876_040_9, 0.142_181_28, 0.238_723_26]);
        let weight = tensor("unets.0.enc1.conv_layers.0.weight", &[16, 4, 3, 3]);
        assert_eq!(weight[..3], [-0.053_381_65, 0.201_175_86, -0.315_319_36]);
        assert_eq!(tensor("unets.0.enc1.norms.0.running_var", &[16])[..2], [0.732_535_66, 0.569_071_3]);
    }
}
