//! The project's own kernels, which the build compiled, a file at a time.
use super::launch::Kernel;
use super::steps::OWN_KERNELS;
use super::{compute_capability, wrap};
use crate::{Error, Result};
use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::CudaModule;
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute;
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// What `build.rs` made of each file in `cuda-kernels/`: its name; code for the cards named there, with PTX for later ones; and, unless only
/// compute capability 9.0 has its instructions, the code of the oldest generation alone.
const IMAGES: &[(&str, &[u8], Option<&[u8]>)] = include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// The variable that keeps code for newer cards from being used.
const OLDEST_ONLY: &str = "MIRAGE_CUDA_ARCH";
/// Its value.
const OLDEST_NAME: &str = "compute_80";

/// Whether only code that any card can run is wanted, though this one is newer: so one card can show that both are right.
fn oldest_only() -> bool {
    std::env::var_os(OLDEST_ONLY).is_some_and(|name| name == OLDEST_NAME)
}

/// Whether the variable has a value that means something.
///
/// # Errors
/// Any other.
pub(super) fn check_variable() -> Result<()> {
    match std::env::var_os(OLDEST_ONLY) {
        Some(name) if name != OLDEST_NAME => Err(Error::Device(format!(
            "{OLDEST_ONLY} is {name:?}: it takes {OLDEST_NAME}, which keeps code for newer cards from being used; unset it to use all"
        ))),
        _ => Ok(()),
    }
}

/// Whether kernels that only compute capability 9.0 has the instructions of can run here.
///
/// # Errors
/// A device that is no NVIDIA GPU.
pub fn has_hopper_code(device: &Device) -> Result<bool> {
    Ok(compute_capability(device.as_cuda_device()?)? == (9, 0) && !oldest_only())
}

/// A digest of all of them: what was measured of other kernels says nothing of these.
pub fn kernels_digest() -> String {
    let mut hasher = DefaultHasher::new();
    IMAGES.iter().for_each(|(_, image, _)| image.hash(&mut hasher));
    oldest_only().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// What was loaded, by the GPU and the file: several stages ask for the same one.
static LOADED: Mutex<BTreeMap<(usize, String), Arc<CudaModule>>> = Mutex::new(BTreeMap::new());

/// The kernels of one file on one GPU.
pub struct Kernels {
    device: Device,
    file: String,
    module: Arc<CudaModule>,
}

impl Kernels {
    /// Loads those of a file of `cuda-kernels/`, named without its ending, onto a GPU.
    ///
    /// # Errors
    /// A file that this build has not, a device that is no NVIDIA GPU or not of the generation that the file is for, or a driver that
    /// cannot load it.
    pub fn load(device: &Device, file: &str) -> Result<Self> {
        let known = IMAGES.iter().find(|(name, ..)| *name == file);
        let (_, image, oldest) =
            known.ok_or_else(|| candle_core::Error::Msg(format!("no file of kernels {file} in this build")))?;
        let image = match oldest {
            None if !has_hopper_code(device)? => {
                return Err(Error::Stage(format!(
                    "the kernels of {file} serve cards of compute capability 9.0 alone (H100, H200)"
                )));
            }
            Some(oldest) if oldest_only() => oldest,
            _ => image,
        };
        let context = device.as_cuda_device()?.cuda_stream().context().clone();
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (context.ordinal(), file.to_owned());
        let module = match loaded.get(&key) {
            Some(module) => module.clone(),
            None => {
                let module = context.load_module(Ptx::from_binary(image.to_vec())).map_err(|e| {
                    candle_core::Error::Msg(format!(
                        "the kernels of {file} cannot be loaded: {e}; a driver older than the CUDA toolkit of this build, or a card that they \
                         are not built for, says so"
                    ))
                })?;
                loaded.insert(key, module.clone());
                module
            }
        };
        Ok(Self { device: device.clone(), file: file.to_owned(), module })
    }

    /// The kernel of this name, allowed `shared` bytes of dynamic shared memory.
    ///
    /// # Errors
    /// A name that the file has not, or more shared memory than the card has.
    pub fn get(&self, name: &str, shared: u32) -> Result<Kernel> {
        let known = format!("{OWN_KERNELS}{name}");
        let function = self
            .module
            .load_function(&known)
            .map_err(|e| candle_core::Error::Msg(format!("no kernel {known} in {}: {e}", self.file)))?;
        if shared > 0 {
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, shared.cast_signed()).map_err(wrap)?;
        }
        Ok(Kernel::new(function, self.device.as_cuda_device()?.cuda_stream()))
    }
}
