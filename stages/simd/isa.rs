//! Which vector instructions this machine has, chosen at run time.

use super::Simd;
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// A set of vector instructions that kernels are compiled for, the plainest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain arrays, vectorised by the compiler for whatever the target has (NEON on aarch64).
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512F besides.
    Avx512,
}

/// Work that is written once for all instruction sets.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// Does the work. Implementations carry `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

impl Isa {
    /// The widest set that this machine can run.
    pub fn best() -> Self {
        if Isa::Avx512.is_available() {
            Isa::Avx512
        } else if Isa::Avx2.is_available() {
            Isa::Avx2
        } else {
            Isa::Portable
        }
    }

    /// Every set that this machine can run, the plainest first.
    pub fn available() -> impl Iterator<Item = Self> {
        [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter(|isa| isa.is_available())
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Isa::Avx2.is_available() && is_x86_feature_detected!("avx512f"),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => false,
        }
    }

    /// Runs `kernel` with this instruction set.
    ///
    /// # Panics
    /// When the machine lacks it; take it from [`Isa::best`] or [`Isa::available`].
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        assert!(self.is_available(), "this machine has no {self:?}");
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the features were found just above.
            Isa::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the features were found just above.
            Isa::Avx2 => unsafe { run_avx2(kernel) },
            _ => kernel.run(Portable),
        }
    }
}

/// Compiles `kernel` with AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function runs only where its features are.
    kernel.run(unsafe { Avx512::assume() })
}

/// Compiles `kernel` with AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function runs only where its features are.
    kernel.run(unsafe { Avx2::assume() })
}
