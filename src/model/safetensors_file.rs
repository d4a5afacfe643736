//! Reads a safetensors file as if it were hostile: nothing in it is believed before it is checked.
use super::weights::Parameter;
use crate::{Error, Result};
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::LazyLock;

enum Data {
    Mapped(Mmap),
    Bytes(Cow<'static, [u8]>),
}

/// An open safetensors file whose header is known to be well formed.
pub struct SafetensorsFile {
    data: Data,
    name: String,
    start: usize,
    metadata: Metadata,
}

impl SafetensorsFile {
    /// Maps the file into memory: large files cost no second copy.
    ///
    /// # Errors
    /// A file that cannot be read or whose header does not describe it.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let unreadable = |source| Error::Io { doing: "read the tensors of", path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.is_dir() {
            return Err(malformed(&name, "it is a folder: name the .safetensors file in it"));
        }
        // SAFETY: the map is only ever read as bytes. Another process that shortens the file meanwhile would end this
        // one with SIGBUS; weight files are written once, and reading 3.5 GB twice to rule that out is not worth it.
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        Self::new(Data::Mapped(map), name)
    }

    /// The same for a file that is already in memory.
    ///
    /// # Errors
    /// Bytes whose header does not describe them.
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>, name: &str) -> Result<Self> {
        Self::new(Data::Bytes(bytes.into()), name.to_owned())
    }

    fn new(data: Data, name: String) -> Result<Self> {
        let bytes = match &data {
            Data::Mapped(map) => &map[..],
            Data::Bytes(bytes) => bytes,
        };
        let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| {
            let hint = "the file is damaged, cut short or not a safetensors file: fetch it again";
            malformed(&name, &format!("{e} ({} bytes); {hint}", bytes.len()))
        })?;
        Ok(Self { data, name, start: header + 8, metadata })
    }

    /// Compares the file with what a network will ask for; counters of training steps are passed over.
    ///
    /// # Errors
    /// One error that lists every missing, unused and wrongly shaped tensor.
    pub fn check(&self, wanted: &[Parameter]) -> Result<()> {
        let (mut missing, mut wrong) = (vec![], vec![]);
        for p in wanted {
            match self.metadata.info(&p.name) {
                None => missing.push(p.name.clone()),
                Some(info) if info.shape != p.shape => {
                    wrong.push(format!("{} is {:?}, the network takes {:?}", p.name, info.shape, p.shape));
                }
                Some(_) => (),
            }
        }
        let known: std::collections::HashSet<&str> = wanted.iter().map(|p| p.name.as_str()).collect();
        let mut unused: Vec<String> = self.metadata.offset_keys();
        unused.retain(|name| !known.contains(name.as_str()) && !name.ends_with("num_batches_tracked"));
        if missing.is_empty() && wrong.is_empty() && unused.is_empty() {
            return Ok(());
        }
        let mut what = String::from("it does not fit the network");
        for (title, names) in [("of another shape", wrong), ("missing", missing), ("unused", unused)] {
            if !names.is_empty() {
                let _ = write!(what, "\n  {title} ({}):", names.len()); // a String takes every write
                for name in names {
                    let _ = write!(what, "\n    {name}");
                }
            }
        }
        Err(malformed(&self.name, &format!("{what}\n  choose the --model that these weights were made for")))
    }

    /// What messages call the file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The shape of the tensor `name`, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| info.shape.as_slice())
    }

    /// The texts that the file holds beside its tensors.
    pub fn texts(&self) -> &HashMap<String, String> {
        static NONE: LazyLock<HashMap<String, String>> = LazyLock::new(HashMap::new);
        self.metadata.metadata().as_ref().unwrap_or(&NONE)
    }

    /// The tensor `name`, widened to f32.
    ///
    /// # Errors
    /// No such tensor, another shape, a type that is not f32, f16 or bf16, or a value that is not finite.
    pub fn read_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let fail = |what: String| malformed(&self.name, &format!("tensor {name}: {what}"));
        let info = self.metadata.info(name).ok_or_else(|| fail("is not in the file".into()))?;
        if info.shape != shape {
            return Err(fail(format!("is {:?}, the network takes {shape:?}", info.shape)));
        }
        let (begin, end) = info.data_offsets;
        let bytes = match &self.data {
            Data::Mapped(map) => &map[..],
            Data::Bytes(bytes) => bytes,
        };
        let bytes =
            bytes.get(self.start + begin..self.start + end).ok_or_else(|| fail("lies outside the file".into()))?;
        let values: Vec<f32> = match info.dtype {
            Dtype::F32 => widen(bytes, f32::from_le_bytes),
            Dtype::F16 => widen(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => widen(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            other => return Err(fail(format!("is {other:?}; convert it to F32, F16 or BF16"))),
        };
        match values.par_iter().position_any(|v| !v.is_finite()) {
            Some(i) => Err(fail(format!(
                "has {} at index {i}, where only finite numbers make sense: the file is damaged, or what made it went \
                 astray; make it or fetch it again",
                values[i]
            ))),
            None => Ok(values),
        }
    }
}

fn widen<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32 + Sync) -> Vec<f32> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.par_iter().with_min_len(1 << 14).map(|e| f(*e)).collect()
}

fn malformed(file: &str, what: &str) -> Error {
    Error::Safetensors { file: file.to_owned(), what: what.to_owned() }
}
