//! The project's own kernels, which the build compiled, loaded once for all stages of an engine.
use super::launch::Kernel;
use super::steps::OWN_KERNELS;
use super::{compute_capability, wrap};
use crate::{Error, Result};
use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::CudaModule;
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute;
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// What `build.rs` made of each file in `cuda-kernels/`: code for the cards named there, and PTX for later ones.
const IMAGES: [(&str, &[u8]); 5] = [
    ("attention", include_bytes!(concat!(env!("OUT_DIR"), "/attention.fatbin"))),
    ("conv2d", include_bytes!(concat!(env!("OUT_DIR"), "/conv2d.fatbin"))),
    ("conv3x3", include_bytes!(concat!(env!("OUT_DIR"), "/conv3x3.fatbin"))),
    ("norm", include_bytes!(concat!(env!("OUT_DIR"), "/norm.fatbin"))),
    ("elementwise", include_bytes!(concat!(env!("OUT_DIR"), "/elementwise.fatbin"))),
];

/// What only compute capability 9.0 runs.
const HOPPER: [(&str, &[u8]); 3] = [
    ("conv2d_fp8", include_bytes!(concat!(env!("OUT_DIR"), "/conv2d_fp8.fatbin"))),
    ("conv2d_hopper", include_bytes!(concat!(env!("OUT_DIR"), "/conv2d_hopper.fatbin"))),
    ("conv3x3_hopper", include_bytes!(concat!(env!("OUT_DIR"), "/conv3x3_hopper.fatbin"))),
];

/// A digest of all of them: what was measured of other kernels says nothing of these.
pub fn kernels_digest() -> String {
    let mut hasher = DefaultHasher::new();
    IMAGES.iter().chain(&HOPPER).for_each(|(_, image)| image.hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}

/// The project's own kernels on one GPU.
pub struct Kernels {
    device: Device,
    modules: Vec<Arc<CudaModule>>,
}

impl Kernels {
    /// Loads them onto a GPU.
    ///
    /// # Errors
    /// A device that is no NVIDIA GPU, or a driver that cannot load the images.
    pub fn load(device: &Device) -> Result<Self> {
        Self::load_images(device, &IMAGES)
    }

    /// Loads those for compute capability 9.0.
    ///
    /// # Errors
    /// Another card, or as [`load`](Self::load).
    pub fn load_hopper(device: &Device) -> Result<Self> {
        let (major, minor) = compute_capability(device.as_cuda_device()?)?;
        if (major, minor) != (9, 0) {
            return Err(Error::Stage(format!(
                "custom-ptx serves cards of compute capability 9.0 (H100, H200), and this one is {major}.{minor}: leave it out of --stages"
            )));
        }
        Self::load_images(device, &HOPPER)
    }

    fn load_images(device: &Device, images: &[(&str, &[u8])]) -> Result<Self> {
        let context = device.as_cuda_device()?.cuda_stream().context().clone();
        let load = |(name, image): &(&str, &[u8])| {
            context.load_module(Ptx::from_binary(image.to_vec())).map_err(|e| {
                candle_core::Error::Msg(format!(
                    "the kernels of {name}.cu cannot be loaded: {e}; a driver older than the CUDA toolkit of this build, or a card \
                     older than compute capability 8.0, says so"
                ))
            })
        };
        let modules = images.iter().map(load).collect::<candle_core::Result<_>>()?;
        Ok(Self { device: device.clone(), modules })
    }

    /// The kernel of this name, allowed `shared` bytes of dynamic shared memory.
    ///
    /// # Errors
    /// A name that no file has, or more shared memory than the card has.
    pub fn get(&self, name: &str, shared: u32) -> Result<Kernel> {
        let known = format!("{OWN_KERNELS}{name}");
        let found = self.modules.iter().find_map(|module| module.load_function(&known).ok());
        let function = found.ok_or_else(|| candle_core::Error::Msg(format!("no kernel {known} in this build")))?;
        if shared > 0 {
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, shared.cast_signed()).map_err(wrap)?;
        }
        Ok(Kernel::new(function, self.device.as_cuda_device()?.cuda_stream()))
    }
}
