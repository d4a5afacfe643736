//! NVIDIA GPUs: this module and `stages/mod.rs` are the only places that name a Cargo feature.
#[cfg(not(feature = "cuda"))]
#[path = "disabled.rs"]
mod imp;
#[cfg(feature = "cuda")]
#[path = "enabled/mod.rs"]
mod imp;

pub use imp::{COMPILED, device};
