//! `y = act(norm(conv(cat(x, skip)) + bias) + shift) + residual`: 2-D convolution with all that follows it, and an enlargement of `x` ahead of it.
use super::probe::{Call, Op};
use super::{Activation, Filter, Layer, Ops, bytes};
use candle_core::{Module, ModuleT, Result, Tensor};

/// The parameters of one convolution.
#[derive(Clone)]
pub struct Conv2dParams {
    /// `(out_channels, in_channels, kernel_height, kernel_width)`.
    pub weight: Tensor,
    /// `(out_channels)`.
    pub bias: Option<Tensor>,
    /// Normalisation with stored statistics, applied after the bias.
    pub norm: Option<BatchNorm>,
    /// Applied after the normalisation and the shift.
    pub activation: Activation,
    /// Step between output pixels, the same both ways.
    pub stride: usize,
    /// Zeros on each side, the same both ways.
    pub padding: usize,
}

/// Batch normalisation in eval mode (Ioffe and Szegedy, arXiv:1502.03167): `(x − mean) / √(var + eps) · weight + bias`.
#[derive(Clone)]
pub struct BatchNorm {
    /// γ, `(channels)`.
    pub weight: Tensor,
    /// β, `(channels)`.
    pub bias: Tensor,
    /// `(channels)`.
    pub running_mean: Tensor,
    /// `(channels)`.
    pub running_var: Tensor,
    /// Added to the variance.
    pub eps: f64,
}

/// What one call of a convolution takes.
#[derive(Clone, Copy)]
pub struct Conv2dInput<'a> {
    /// `(batch, channels, height, width)`, or half the height and the width where it is to be enlarged.
    pub x: &'a Tensor,
    /// Concatenated after `x` along the channels, without a copy where the slot can.
    pub skip: Option<&'a Tensor>,
    /// `(batch, out_channels)`, added before the activation: a time embedding.
    pub shift: Option<&'a Tensor>,
    /// Shaped as the output, added last.
    pub residual: Option<&'a Tensor>,
    /// Whether `x` is first made twice as high and as wide, each pixel four times ([`Filter::Nearest2`]).
    pub upsample: bool,
}

impl<'a> From<&'a Tensor> for Conv2dInput<'a> {
    fn from(x: &'a Tensor) -> Self {
        Self { x, skip: None, shift: None, residual: None, upsample: false }
    }
}

impl Conv2dInput<'_> {
    /// For kernels that do not enlarge their input.
    ///
    /// # Errors
    /// An input that is to be enlarged.
    pub fn as_it_is(&self) -> Result<()> {
        if self.upsample {
            candle_core::bail!("this kernel does not enlarge its input: run it by Ops::conv2d, which does");
        }
        Ok(())
    }
}

/// The slot: prepares a convolution for running.
pub trait Conv2d: Send + Sync {
    /// Which stage this is, for the probe.
    fn stage(&self) -> &'static str;
    /// Folds, packs or converts the parameters, once.
    ///
    /// # Errors
    /// Parameters whose shapes do not agree or that the stage cannot take.
    fn prepare(&self, params: Conv2dParams) -> Result<Box<dyn Conv2dKernel>>;
}

/// A prepared convolution.
pub trait Conv2dKernel: Send + Sync {
    /// Runs it: `(batch, in, h, w)` to `(batch, out, h', w')`; [`upsample`](Conv2dInput::upsample) is set only where it [`upsamples`](Self::upsamples).
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    fn run(&self, input: Conv2dInput<'_>) -> Result<Tensor>;

    /// Whether it enlarges its input while it reads it, for which nothing is written then; for others [`Ops::conv2d`] does.
    fn upsamples(&self) -> bool {
        false
    }
}

impl Ops {
    /// Prepares a convolution for the slot that will run it.
    ///
    /// # Errors
    /// Parameters whose shapes do not agree or that the stage cannot take.
    pub fn prepare_conv2d(&self, name: &str, params: Conv2dParams) -> Result<Layer<dyn Conv2dKernel>> {
        let (_, i, kh, kw) = params.weight.dims4()?;
        let norm = params.norm.iter().flat_map(|n| [&n.weight, &n.bias, &n.running_mean, &n.running_var]);
        let bytes = self.stored_bytes([&params.weight].into_iter().chain(&params.bias).chain(norm));
        Ok(Layer {
            name: name.to_owned(),
            stage: self.conv2d.stage(),
            flops_per_output: 2 * (i * kh * kw) as u64,
            bytes,
            kernel: self.conv2d.prepare(params)?,
        })
    }

    /// Runs a prepared convolution. What is to be enlarged first, and by the kernel is not, is so by a call of its own to the slot that changes the
    /// resolution, under the layer's name.
    ///
    /// # Errors
    /// Tensors that do not fit the layer or one another.
    pub fn conv2d<'a>(&self, layer: &Layer<dyn Conv2dKernel>, input: impl Into<Conv2dInput<'a>>) -> Result<Tensor> {
        let mut input = input.into();
        let larger;
        if input.upsample && !layer.kernel.upsamples() {
            larger = self.resample(&layer.name, input.x, Filter::Nearest2)?;
            input = Conv2dInput { x: &larger, upsample: false, ..input };
        }
        let moved = |y: &Tensor| {
            let given = [Some(input.x), input.skip, input.shift, input.residual];
            (
                y.elem_count() as u64 * layer.flops_per_output,
                given.iter().flatten().map(|t| bytes(t)).sum::<u64>() + layer.bytes + bytes(y),
            )
        };
        self.probe
            .run(Call { op: Op::Conv2d, site: &layer.name, stage: layer.stage }, moved, || layer.kernel.run(input))
    }
}

/// Candle's own convolution, normalisation and activation, one after another.
pub struct Reference;

struct ReferenceKernel {
    conv: candle_nn::Conv2d,
    norm: Option<candle_nn::BatchNorm>,
    activation: Activation,
}

impl Conv2d for Reference {
    fn stage(&self) -> &'static str {
        "none"
    }

    fn prepare(&self, p: Conv2dParams) -> Result<Box<dyn Conv2dKernel>> {
        let config = candle_nn::Conv2dConfig { stride: p.stride, padding: p.padding, ..Default::default() };
        let channels = p.weight.dim(0)?;
        let norm = p
            .norm
            .map(|n| candle_nn::BatchNorm::new(channels, n.running_mean, n.running_var, n.weight, n.bias, n.eps))
            .transpose()?;
        Ok(Box::new(ReferenceKernel {
            conv: candle_nn::Conv2d::new(p.weight, p.bias, config),
            norm,
            activation: p.activation,
        }))
    }
}

impl Conv2dKernel for ReferenceKernel {
    fn run(&self, input: Conv2dInput<'_>) -> Result<Tensor> {
        input.as_it_is()?;
        let mut y = match input.skip {
            Some(skip) => self.conv.forward(&Tensor::cat(&[input.x, skip], 1)?)?,
            // Candle's convolution wants its input contiguous to be right and fast
            None => self.conv.forward(&input.x.contiguous()?)?,
        };
        if let Some(norm) = &self.norm {
            y = norm.forward_t(&y, false)?;
        }
        if let Some(shift) = input.shift {
            y = y.broadcast_add(&shift.unsqueeze(2)?.unsqueeze(3)?)?;
        }
        y = self.activation.apply(&y)?;
        match input.residual {
            Some(residual) => y + residual,
            None => Ok(y),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::Mode;
    use super::*;
    use candle_core::{DType, Device};

    /// Gives back what it was given.
    struct Enlarging;

    impl Conv2d for Enlarging {
        fn stage(&self) -> &'static str {
            "enlarging"
        }

        fn prepare(&self, _: Conv2dParams) -> Result<Box<dyn Conv2dKernel>> {
            Ok(Box::new(Self))
        }
    }

    impl Conv2dKernel for Enlarging {
        fn run(&self, input: Conv2dInput<'_>) -> Result<Tensor> {
            assert!(input.upsample);
            Ok(input.x.clone())
        }

        fn upsamples(&self) -> bool {
            true
        }
    }

    fn params() -> Result<Conv2dParams> {
        let weight = Tensor::arange(0f32, 54.0, &Device::Cpu)?.reshape((2, 3, 3, 3))?;
        Ok(Conv2dParams { weight, bias: None, norm: None, activation: Activation::None, stride: 1, padding: 1 })
    }

    #[test]
    fn an_input_is_enlarged_ahead_of_a_kernel_that_does_not() -> Result<()> {
        let ops = Ops::reference(&Device::Cpu);
        let layer = ops.prepare_conv2d("layer", params()?)?;
        let x = Tensor::arange(0f32, 24.0, &Device::Cpu)?.reshape((2, 3, 2, 2))?;
        // row by row and column by column, by hand
        let twice = Tensor::new(&[0u32, 0, 1, 1], &Device::Cpu)?;
        let larger = x.index_select(&twice, 2)?.index_select(&twice, 3)?;
        ops.probe.set(Mode::Count);
        let drawn = ops.conv2d(&layer, Conv2dInput { upsample: true, ..(&x).into() })?;
        let counts = ops.probe.counts();
        let wanted = ops.conv2d(&layer, &larger)?;
        assert_eq!(drawn.flatten_all()?.to_vec1::<f32>()?, wanted.flatten_all()?.to_vec1::<f32>()?);
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [((Op::Conv2d, "none"), 1), ((Op::Resample, "none"), 1)]);
        Ok(())
    }

    #[test]
    fn a_kernel_that_enlarges_is_given_the_input_as_it_is() -> Result<()> {
        let ops = Ops { conv2d: std::sync::Arc::new(Enlarging), ..Ops::reference(&Device::Cpu) };
        let layer = ops.prepare_conv2d("layer", params()?)?;
        let x = Tensor::zeros((1, 3, 2, 2), DType::F32, &Device::Cpu)?;
        ops.probe.set(Mode::Count);
        assert_eq!(ops.conv2d(&layer, Conv2dInput { upsample: true, ..(&x).into() })?.dims(), x.dims());
        assert_eq!(ops.probe.counts().into_iter().collect::<Vec<_>>(), [((Op::Conv2d, "enlarging"), 1)]);
        Ok(())
    }

    #[test]
    fn a_kernel_that_does_not_enlarge_refuses() -> Result<()> {
        let kernel = Reference.prepare(params()?)?;
        let x = Tensor::zeros((1, 3, 2, 2), DType::F32, &Device::Cpu)?;
        let refused = kernel.run(Conv2dInput { upsample: true, ..(&x).into() }).unwrap_err();
        assert!(refused.to_string().contains("Ops::conv2d"), "{refused}");
        Ok(())
    }
}
