//! Convolution and linear layers on the CPU: channels-last, packed weights, fused epilogues.
//!
//! Works on plain slices. A convolution is a matrix product of image rows and packed weights
//! (implicit GEMM): the kernels in `microkernel` hold a tile of sums in registers, `gemm` cuts the
//! work for caches and threads, `epilogue` finishes a tile before it is stored.

mod activation;
mod blend;
mod conv2d;
mod epilogue;
mod error;
mod gather;
mod gemm;
mod group_norm;
mod isa;
mod layer_norm;
mod microkernel;
mod moments;
mod pack;
mod pool;
mod resample;
mod rows;
mod sampler;
mod tasks;
#[cfg(test)]
mod tests;
mod transform;
mod values;
mod winograd;

pub use blend::{Alpha, temporal_blend, temporal_blend_with};
pub use conv2d::{ImageSize, Walk, conv2d, conv2d_output_size, linear};
pub use epilogue::{Activation, Epilogue};
pub use error::KernelError;
pub use gather::NhwcInput;
pub use group_norm::{GroupNorm, group_norm, group_norm_with};
pub use isa::Isa;
pub use layer_norm::{layer_norm, layer_norm_with};
pub use pack::{BatchNorm, Method, PackedWeights, Storage, fold_batch_norm};
pub use pool::{max_pool_2x2, max_pool_2x2_with};
pub use resample::{ChannelSlice, Upsample, upsample_2x, upsample_2x_with};
pub use sampler::{SamplerStep, sampler_step, sampler_step_with};
pub use values::{Values, ValuesMut};
