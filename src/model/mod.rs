//! The networks, each reading like its paper: no Cargo feature, no branch on a number type, no stage.

pub mod formula;
pub mod reference;
mod safetensors_file;
mod spec;
pub mod weights;

pub use reference::Reference;
pub use safetensors_file::SafetensorsFile;
pub use spec::{ModelSpec, PRESETS, Preset};
pub use weights::{Parameter, Scope, Weights};
