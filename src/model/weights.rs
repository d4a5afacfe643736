//! Where a network's weights come from: a safetensors file, the formula of the reference network, or nowhere (shapes only).
use super::formula;
use super::safetensors_file::SafetensorsFile;
use crate::{Error, Result};
use candle_core::{Device, Shape, Tensor};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// One tensor that a network asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Parameter {
    /// How many numbers it holds.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it is learned: the statistics of a batch normalisation are not counted as parameters.
    pub fn is_learned(&self) -> bool {
        !self.name.ends_with("running_mean") && !self.name.ends_with("running_var")
    }
}

enum Source {
    /// Zeros that occupy nothing.
    Shapes,
    Formula,
    File(SafetensorsFile),
}

/// A source of weights, which remembers what was asked of it.
pub struct Weights {
    source: Source,
    /// What messages call it.
    name: String,
    texts: HashMap<String, String>,
    device: Device,
    asked: Mutex<Vec<Parameter>>,
}

impl Weights {
    fn new(source: Source, device: &Device) -> Self {
        let (name, texts) = match &source {
            Source::File(file) => (file.name(), file.texts().clone()),
            Source::Shapes => ("shapes alone", HashMap::new()),
            Source::Formula => ("weights by formula", HashMap::new()),
        };
        Self { name: name.to_owned(), source, texts, device: device.clone(), asked: Mutex::default() }
    }

    /// Zeros that occupy no memory: for finding out what a network asks for.
    pub fn shapes() -> Self {
        Self::new(Source::Shapes, &Device::Cpu)
    }

    /// The same with the texts of another source, for a network whose sizes they say.
    pub fn shapes_as_told_by(other: &Self) -> Self {
        Self { name: other.name.clone(), texts: other.texts.clone(), ..Self::shapes() }
    }

    /// Pseudo-random weights by the reference network's formula: reproducible anywhere without a file.
    /// Good for benchmarks and tests; what such a network draws is not video.
    pub fn formula(device: &Device) -> Self {
        Self::new(Source::Formula, device)
    }

    /// A safetensors file in f32, f16 or bf16.
    ///
    /// # Errors
    /// A file that cannot be read or is not well formed.
    pub fn file(path: &Path, device: &Device) -> Result<Self> {
        Ok(Self::new(Source::File(SafetensorsFile::open(path)?), device))
    }

    /// A safetensors file that is already in memory; `name` stands for it in messages.
    ///
    /// # Errors
    /// Bytes that are not a well-formed safetensors file.
    pub fn bytes(bytes: impl Into<Cow<'static, [u8]>>, name: &str, device: &Device) -> Result<Self> {
        Ok(Self::new(Source::File(SafetensorsFile::from_bytes(bytes, name)?), device))
    }

    /// A text that the file holds beside its tensors.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }

    /// An error about what the texts of this source say, which names the source.
    pub(super) fn misfit(&self, what: &str) -> Error {
        Error::Safetensors { file: self.name.clone(), what: what.to_owned() }
    }

    /// The root of the names.
    pub fn root(&self) -> Scope<'_> {
        Scope { weights: self, path: String::new() }
    }

    /// What was asked for so far, in order.
    pub fn asked(&self) -> Vec<Parameter> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Compares a file with what a network will ask for, before any of it is loaded.
    ///
    /// # Errors
    /// One error that lists every missing, unused and wrongly shaped tensor.
    pub fn check(&self, wanted: &[Parameter]) -> Result<()> {
        match &self.source {
            Source::File(file) => file.check(wanted),
            Source::Shapes | Source::Formula => Ok(()),
        }
    }

    fn get(&self, shape: Shape, name: String) -> Result<Tensor> {
        let tensor = match &self.source {
            Source::Shapes => only_a_shape(&shape)?,
            Source::Formula => Tensor::from_vec(formula::tensor(&name, shape.dims()), shape.clone(), &self.device)?,
            Source::File(file) => {
                let values = file.read_f32(&name, shape.dims())?;
                Tensor::from_vec(values, shape.clone(), &self.device)?
            }
        };
        let parameter = Parameter { name, shape: shape.into_dims() };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(parameter);
        Ok(tensor)
    }
}

/// Zeros that occupy nothing.
fn only_a_shape(shape: &Shape) -> candle_core::Result<Tensor> {
    Tensor::zeros((), candle_core::DType::F32, &Device::Cpu)?.broadcast_as(shape)
}

/// A place in the tree of names.
#[derive(Clone)]
pub struct Scope<'a> {
    weights: &'a Weights,
    path: String,
}

impl<'a> Scope<'a> {
    /// One level deeper.
    pub fn pp(&self, name: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { weights: self.weights, path }
    }

    /// The full name of this place.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tensor `name` at this place, in f32.
    ///
    /// # Errors
    /// No such tensor, another shape, an unsupported type, or a value that is not finite: each with the name.
    pub fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.weights.get(shape.into(), self.pp(name).path)
    }

    /// The tensors `name` of several layers, each of this shape, one below the other: layers that read the same input run as one.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn stacked(&self, layers: &[&str], shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        let shape = shape.into();
        let parts = layers.iter().map(|layer| self.pp(layer).get(shape.clone(), name)).collect::<Result<Vec<_>>>()?;
        if matches!(self.weights.source, Source::Shapes) {
            // a copy would occupy memory before anybody knows whether a file holds as much
            let mut dims = shape.into_dims();
            dims[0] *= parts.len();
            return Ok(only_a_shape(&dims.into())?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacked_shapes_occupy_nothing_and_stacked_values_lie_one_below_the_other() {
        let shapes = Weights::shapes();
        let side = 1 << 20; // 4 TiB in f32
        assert_eq!(shapes.root().stacked(&["q", "k"], (side, side), "weight").unwrap().dims(), [2 * side, side]);
        assert_eq!(shapes.asked().len(), 2);
        let formula = Weights::formula(&Device::Cpu);
        let both = formula.root().stacked(&["q", "k"], (2, 3), "weight").unwrap();
        let second = formula.root().pp("k").get((2, 3), "weight").unwrap();
        assert_eq!(both.narrow(0, 2, 2).unwrap().to_vec2::<f32>().unwrap(), second.to_vec2::<f32>().unwrap());
    }
}
