//! Convolution and linear layers on the CPU: channels-last, packed weights, fused epilogues.
//!
//! Works on plain slices. A convolution is a matrix product of image rows and packed weights
//! (implicit GEMM): the kernels in `microkernel` hold a tile of sums in registers, `gemm` cuts the
//! work for caches and threads, `epilogue` finishes a tile before it is stored. 3x3 kernels at stride
//! 1 run by Winograd's F(2x2, 3x3) (`winograd`) where that is faster.

mod activation;
mod conv2d;
mod epilogue;
mod error;
mod gather;
mod gemm;
mod isa;
mod microkernel;
mod pack;
mod tasks;
#[cfg(test)]
mod tests;
mod transform;
mod values;
mod winograd;

pub use conv2d::{ImageSize, Walk, conv2d, conv2d_output_size, linear};
pub use epilogue::{Activation, Epilogue};
pub use error::KernelError;
pub use gather::NhwcInput;
pub use isa::Isa;
pub use pack::{BatchNorm, Method, PackedWeights, Storage, fold_batch_norm};
pub use values::{Values, ValuesMut};
