//! Ops that wait for memory and not for arithmetic, on a GPU: norms, changes of resolution, the sampler's update, the temporal blend, noise,
//! both ends of a frame.
//!
//! Two stages share it: `fused-ops` runs what `cuda-kernels/norm.cu` and `elementwise.cu` have, `custom-ptx` in its place the files of
//! `cuda-kernels/ptx/`, which take channels or values by eights.
mod elementwise;
mod gaussian;
mod norms;
mod rgb8;

use crate::cuda::{Kernel, Kernels};
use crate::ops::Ops;
use crate::stages::tensor_cores::type_name;
use candle_core::{DType, Device, Result};
use std::sync::Arc;

/// Whose kernels take channels or values by eights; any other number is for those of CUDA C++.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// `cuda-kernels/*.cu`.
    CudaCpp,
    /// `cuda-kernels/ptx/*.ptx`.
    Ptx,
}

/// Replaces the slots of these ops, for the stage of this name.
///
/// # Errors
/// A type that the kernels do not store, or a driver that cannot load them.
pub fn install(ops: Ops, stage: &'static str, code: Code) -> crate::Result<Ops> {
    let (device, dtype) = (&ops.device, ops.dtype);
    let norms = Arc::new(norms::Norms::load(device, dtype, stage, code)?);
    let gaussian = Arc::new(gaussian::Philox::load(device, dtype, stage)?);
    let rgb8 = Arc::new(rgb8::Pixels::load(device, dtype, stage, code)?);
    let elementwise = Arc::new(elementwise::Elementwise::load(device, dtype, stage, code)?);
    Ok(Ops {
        gaussian,
        group_norm: Arc::new(norms::Slot { norms: norms.clone(), below: ops.group_norm }),
        layer_norm: Arc::new(norms::Slot { norms, below: ops.layer_norm }),
        resample: elementwise.clone(),
        rgb8,
        sampler_step: elementwise.clone(),
        temporal_blend: elementwise,
        ..ops
    })
}

/// Where the kernels of one op come from, for one storage type.
struct Source<'a> {
    name: &'static str,
    cuda_cpp: &'a Kernels,
    ptx: Option<Kernels>,
}

impl<'a> Source<'a> {
    /// With `file` of `cuda-kernels/ptx/`, named without its type, where that is the code.
    fn load(device: &Device, dtype: DType, code: Code, cuda_cpp: &'a Kernels, file: &str) -> crate::Result<Self> {
        let name = type_name(dtype)?;
        let ptx = match code {
            Code::CudaCpp => None,
            Code::Ptx => Some(Kernels::load(device, &format!("{file}_{name}"))?),
        };
        Ok(Self { name, cuda_cpp, ptx })
    }

    /// The kernel in PTX, where that is the code.
    fn ptx(&self, kernel: &str, shared: u32) -> crate::Result<Option<Kernel>> {
        self.ptx.as_ref().map(|file| file.get(&format!("ptx_{kernel}_{}", self.name), shared)).transpose()
    }

    /// The kernel in CUDA C++ whose name ends so.
    fn cuda_cpp(&self, kernel: &str, ending: &str, shared: u32) -> crate::Result<Kernel> {
        self.cuda_cpp.get(&format!("{kernel}_{}{ending}", self.name), shared)
    }

    /// The kernel for channels by eights and the one for any number.
    fn both(&self, kernel: &str, shared: u32) -> crate::Result<[Kernel; 2]> {
        let eights = match self.ptx(kernel, shared)? {
            Some(kernel) => kernel,
            None => self.cuda_cpp(kernel, "", shared)?,
        };
        Ok([eights, self.cuda_cpp(kernel, "_any", shared)?])
    }
}

/// Pieces of 16 bytes that the kernels in PTX count in 32 bits.
const MOST_PIECES: usize = i32::MAX as usize;

/// Whether `count` values in rows of `row` that begin at these addresses (0: none) can be worked on 16 bytes at a time.
fn in_pieces(count: usize, row: usize, addresses: &[u64]) -> bool {
    row.is_multiple_of(8) && count / 8 <= MOST_PIECES && addresses.iter().all(|a| a.is_multiple_of(16))
}

/// A kernel that does the same to each value, whatever its channel.
struct Streaming {
    /// For values by eights, where there is one.
    eights: Option<Kernel>,
    any: Kernel,
}

impl Streaming {
    fn load(source: &Source<'_>, kernel: &str) -> crate::Result<Self> {
        Ok(Self { eights: source.ptx(kernel, 0)?, any: source.cuda_cpp(kernel, "", 0)? })
    }

    /// The kernel for `count` values in rows of `row` at these addresses (0: none), and the values that a thread of it takes.
    fn choose(&self, count: usize, row: usize, addresses: [u64; 4]) -> (&Kernel, usize) {
        match &self.eights {
            Some(kernel) if in_pieces(count, row, &addresses) => (kernel, 8),
            _ => (&self.any, 1),
        }
    }
}

fn int(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(candle_core::Error::wrap)
}
