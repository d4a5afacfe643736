//! What can go wrong, in words: what, where, and what to do.
use std::path::PathBuf;

/// A failure of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The attempted action, as a verb with its object.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of tensors, weights or inputs, that is damaged or does not fit the network.
    #[error("{file}: {what}")]
    Safetensors {
        /// Which file.
        file: String,
        /// What is the matter and what to do.
        what: String,
    },
    /// A model that is not known or cannot be built or run so.
    #[error("{0}")]
    Model(String),
    /// A stage that is not known, not in this build, or not possible here.
    #[error("{0}")]
    Stage(String),
    /// A device that is not there or not in this build.
    #[error("{0}")]
    Device(String),
    /// A stream that cannot be set up or run so.
    #[error("{0}")]
    Stream(String),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// Frames could not be read or written.
    #[error(transparent)]
    Media(#[from] crate::media::Error),
    /// A schedule or a sampler that cannot be built so.
    #[error(transparent)]
    Diffusion(#[from] crate::diffusion::Error),
}

/// What the engine returns.
pub type Result<T> = std::result::Result<T, Error>;
