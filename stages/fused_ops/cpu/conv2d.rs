//! Convolution and linear layer with a fused epilogue, on slices: arguments are checked here, once.

use super::epilogue::{Activation, Epilogue, Finish, Target};
use super::error::{KernelError, expect_length, expect_nonzero, product};
use super::gather::{Geometry, Image, NhwcInput};
use super::gemm::Product;
use super::pack::{Method, PackedWeights};
use super::values::{Values, ValuesMut};
use super::winograd::{self, Winograd};

/// Sizes of a convolution's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSize {
    /// Samples.
    pub batch: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
}

/// How the kernel walks over the image; the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// Pixels from one place of the kernel to the next, at least 1.
    pub stride: usize,
    /// Zeros around the image, on each side.
    pub padding: usize,
}

/// Height and width of the output of a convolution.
///
/// # Errors
/// A size of zero, or a kernel larger than the padded image.
pub fn conv2d_output_size(size: ImageSize, kernel: [usize; 2], walk: Walk) -> Result<[usize; 2], KernelError> {
    expect_nonzero("convolution stride", &[walk.stride])?;
    expect_nonzero("convolution input (batch, height, width)", &[size.batch, size.height, size.width])?;
    expect_nonzero("convolution kernel (height, width)", &kernel)?;
    let along = |size: usize, kernel: usize| {
        let padded = walk.padding.checked_mul(2).and_then(|padding| padding.checked_add(size));
        match padded {
            Some(padded) if padded >= kernel => Ok((padded - kernel) / walk.stride + 1),
            _ => Err(KernelError::Shape {
                what: "convolution input",
                reason: format!("a kernel of {kernel} does not fit into {size} pixels padded by {}", walk.padding),
            }),
        }
    };
    Ok([along(size.height, kernel[0])?, along(size.width, kernel[1])?])
}

/// `output[b, y, x, n] = epilogue(sum over (i, j, c) of input[b, y·s + i - p, x·s + j - p, c] · w[n, c, i, j])`.
///
/// Inputs and output are channels-last. The inputs are read as if concatenated along the channels,
/// in order; nothing is materialised. The output is `(batch, out height, out width, outputs)`.
/// Sums are f32 whatever the storage. NaN and infinity go through as in the plain formula.
///
/// 3x3 kernels at stride 1 with enough channels and pixels run by Winograd's F(2x2, 3x3), unless the
/// weights ask for [`Method::Direct`]: it errs by less than 1e-5 of the output's largest magnitude,
/// and what is not finite spreads to all four pixels of a 2x2 tile, an infinity as NaN.
///
/// Runs on rayon's current pool.
///
/// # Errors
/// Sizes of zero, a kernel that does not fit, channels that do not add up to the weights', GEGLU
/// weights, or a slice that does not fill its shape. The output is untouched then.
pub fn conv2d(
    inputs: &[NhwcInput<'_>],
    size: ImageSize,
    weights: &PackedWeights,
    walk: Walk,
    epilogue: &Epilogue<'_>,
    output: ValuesMut<'_>,
) -> Result<(), KernelError> {
    if weights.parts != 1 {
        return Err(KernelError::Shape {
            what: "convolution weights",
            reason: "they were packed for GEGLU; call linear".to_owned(),
        });
    }
    multiply(inputs, size, weights, walk, epilogue, output)
}

/// `output[b, t, n] = epilogue(sum over c of input[b, t, c] · w[n, c])`, and with weights packed by
/// [`PackedWeights::from_geglu`] `output = (value + bias) · gelu(gate + bias) + residual`.
///
/// `shape` is `(batch, tokens)`; the input has `batch · tokens` rows of the weights' input channels.
/// In GEGLU the bias has `2 · outputs` values, first the value half, then the gate half; a shift is
/// added to the value half.
///
/// # Errors
/// As [`conv2d`], and an activation besides GEGLU's own.
pub fn linear(
    input: Values<'_>,
    [batch, tokens]: [usize; 2],
    weights: &PackedWeights,
    epilogue: &Epilogue<'_>,
    output: ValuesMut<'_>,
) -> Result<(), KernelError> {
    if weights.kernel != [1, 1] {
        return Err(KernelError::Shape {
            what: "linear weights",
            reason: format!("they were packed for a {:?} convolution", weights.kernel),
        });
    }
    if weights.parts == 2 && epilogue.activation != Activation::None {
        return Err(KernelError::Shape {
            what: "linear epilogue",
            reason: "GEGLU is an activation by itself; ask for Activation::None".to_owned(),
        });
    }
    let inputs = [NhwcInput { values: input, channels: weights.channels }];
    let size = ImageSize { batch, height: 1, width: tokens };
    let walk = Walk { stride: 1, padding: 0 };
    multiply(&inputs, size, weights, walk, epilogue, output)
}

fn multiply(
    inputs: &[NhwcInput<'_>],
    size: ImageSize,
    weights: &PackedWeights,
    walk: Walk,
    epilogue: &Epilogue<'_>,
    output: ValuesMut<'_>,
) -> Result<(), KernelError> {
    let ImageSize { batch, height, width } = size;
    let [out_height, out_width] = conv2d_output_size(size, weights.kernel, walk)?;
    for input in inputs {
        expect_length(
            "input (batch, height, width, channels)",
            &[batch, height, width, input.channels],
            input.values.len(),
        )?;
    }
    let channels = inputs.iter().try_fold(0usize, |sum, input| sum.checked_add(input.channels));
    if channels != Some(weights.channels) {
        return Err(KernelError::Shape {
            what: "input channels",
            reason: format!(
                "the inputs have {:?}, which must add up to the weights' {}",
                inputs.iter().map(|input| input.channels).collect::<Vec<_>>(),
                weights.channels
            ),
        });
    }
    let out_shape = [batch, out_height, out_width, weights.outputs];
    const OUTPUT: &str = "output (batch, height, width, channels)";
    expect_length(OUTPUT, &out_shape, output.len())?;
    // A window of the padded image must stay addressable too.
    let padded = |size: usize| size.saturating_add(walk.padding.saturating_mul(2));
    product("padded input", &[padded(height), padded(width), weights.channels.saturating_add(16)])?;
    if let Some(bias) = epilogue.bias {
        expect_length("bias (outputs)", &[weights.parts, weights.outputs], bias.len())?;
    }
    if let Some(shift) = epilogue.shift {
        expect_length("shift (batch, outputs)", &[batch, weights.outputs], shift.len())?;
    }
    if let Some(residual) = epilogue.residual {
        expect_length("residual (as the output)", &out_shape, residual.len())?;
    }
    let target = match output {
        ValuesMut::F32(values) => Target::F32(values.as_mut_ptr()),
        ValuesMut::F16(values) => Target::F16(values.as_mut_ptr()),
    };
    let finish =
        Finish { channels: weights.outputs, rows_per_sample: out_height * out_width, epilogue: *epilogue, target };
    let image = Image {
        inputs,
        channels: weights.channels,
        geometry: Geometry {
            batch,
            height,
            width,
            out_height,
            out_width,
            kernel: weights.kernel,
            stride: walk.stride,
            padding: walk.padding,
        },
    };
    // SAFETY: `output` was checked to hold every value of the output shape, and its exclusive
    // borrow lasts until this function returns.
    unsafe {
        if weights.method == Method::Auto && winograd::fits(&image, weights) {
            Winograd::new(&image, weights, &finish).run();
        } else {
            Product::new(&image, weights, &finish).run();
        }
    }
    Ok(())
}
