//! Which vector instructions this machine has, chosen once at run time.

use super::microkernel::{self, KernelSet};

/// A set of vector instructions that kernels are written for.
///
/// Ordered from the plainest to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain arrays, vectorised by the compiler for whatever the target has (NEON on aarch64).
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512F besides.
    Avx512,
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

    /// The kernels of this set. Callers hold that it is available.
    pub(super) fn kernels(self) -> &'static KernelSet {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &microkernel::avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &microkernel::avx2::KERNELS,
            _ => &microkernel::portable::KERNELS,
        }
    }
}
