//! Pictures as the kernels read and write them: channels-last, and by eights.
use super::{Input, TensorCores, VECTOR};
use crate::cuda::{self, Grid, Params};
use candle_core::{Result, Tensor};

/// `(batch, height, width, channels)` in memory, its channels a multiple of 8.
pub(super) struct Picture {
    /// Keeps the memory; its first value is the picture's.
    tensor: Tensor,
    /// See the structure.
    pub dims: [usize; 4],
}

impl Picture {
    /// A tensor `(batch, channels, height, width)` as it lies, if it lies so: a last group of channels that is not whole may be followed by
    /// values that no layer has a weight for.
    fn of(t: &Tensor) -> Result<Option<Self>> {
        let (batch, channels, height, width) = t.dims4()?;
        let whole = channels.next_multiple_of(VECTOR);
        let expected = [height * width * whole, 1, width * whole, whole];
        let lies_so =
            t.dims().iter().zip(t.stride()).zip(expected).all(|((n, step), wanted)| *n == 1 || *step == wanted)
                && (channels == whole || batch * height * width > 1)
                && t.storage_and_layout().1.start_offset().is_multiple_of(VECTOR);
        Ok(lies_so.then(|| Self { tensor: t.clone(), dims: [batch, height, width, whole] }))
    }

    /// Where it begins.
    ///
    /// # Errors
    /// A tensor that is not on an NVIDIA GPU.
    pub fn address(&self) -> Result<u64> {
        cuda::address(&self.tensor)
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct GatherParams {
    x: u64,
    skip: u64,
    y: u64,
    count: i64,
    /// Of x and skip: from a sample, a channel, a row and a pixel to the next.
    strides: [[i64; 4]; 2],
    height: i32,
    width: i32,
    padded_channels: i32,
    channels: i32,
    skip_channels: i32,
    upsample: i32,
}

// SAFETY: the fields are those of `GatherParams` in cuda-kernels/elementwise.cu; `TensorCores::gather` fills it from tensors of the sizes it names.
unsafe impl Params for GatherParams {}

impl Input<'_> {
    /// `(batch, height, width)` of what is convolved.
    ///
    /// # Errors
    /// A picture of other than four dimensions, or a second one of another size.
    pub(super) fn size(&self) -> Result<[usize; 3]> {
        let of = |t: &Tensor, times: usize| {
            t.dims4().map(|(batch, _, height, width)| [batch, times * height, times * width])
        };
        let size = of(self.x, if self.upsample { 2 } else { 1 })?;
        if let Some(skip) = self.skip
            && of(skip, 1)? != size
        {
            let [batch, height, width] = size;
            candle_core::bail!(
                "{:?} cannot follow the channels of {batch} pictures of {height}x{width} pixels: give both the same size",
                skip.dims()
            );
        }
        Ok(size)
    }
}

impl TensorCores {
    /// An input of `(batch, channels, height, width)` and what is concatenated after its channels, copied only where they do not lie
    /// as the kernels read them: into one, the first enlarged, where channels do not come by eights.
    ///
    /// # Errors
    /// Tensors of another type, or of sizes that do not fit.
    pub(super) fn pictures(&self, input: Input<'_>) -> Result<(Picture, Option<Picture>)> {
        let Input { x, skip, .. } = input;
        for t in [Some(x), skip].into_iter().flatten() {
            if t.dtype() != self.dtype {
                candle_core::bail!("a layer in {:?} was given {:?}", self.dtype, t.dtype());
            }
        }
        let by_eights = |t: &Tensor| t.dim(1).is_ok_and(|channels| channels.is_multiple_of(VECTOR));
        match skip {
            None => Ok((self.picture(x)?, None)),
            Some(skip) if by_eights(x) && by_eights(skip) => Ok((self.picture(x)?, Some(self.picture(skip)?))),
            Some(skip) => Ok((self.gather(x, Some(skip))?, None)),
        }
    }

    /// One tensor of `(batch, channels, height, width)`.
    ///
    /// # Errors
    /// A tensor of other than four dimensions.
    pub(super) fn picture(&self, t: &Tensor) -> Result<Picture> {
        match Picture::of(t)? {
            Some(picture) => Ok(picture),
            None => self.gather(t, None),
        }
    }

    /// Both side by side. `x` has the size of `skip`, or half of it and is enlarged.
    fn gather(&self, x: &Tensor, skip: Option<&Tensor>) -> Result<Picture> {
        let (batch, channels, own_height, _) = x.dims4()?;
        let (_, _, height, width) = skip.unwrap_or(x).dims4()?;
        let skip_channels = skip.map_or(Ok(0), |skip| skip.dim(1))?;
        let whole = (channels + skip_channels).next_multiple_of(VECTOR);
        // SAFETY: the kernel below writes every value before the stream reads one.
        let y = unsafe { cuda::output((batch, height, width, whole), self.dtype, x.device()) }?;
        let int = |n: usize| i32::try_from(n).map_err(candle_core::Error::wrap);
        let strides = |t: &Tensor| -> Result<[i64; 4]> {
            let mut steps = [0; 4];
            for (to, from) in steps.iter_mut().zip(t.stride()) {
                *to = i64::try_from(*from).map_err(candle_core::Error::wrap)?;
            }
            Ok(steps)
        };
        let vectors = y.elem_count() / VECTOR;
        let params = GatherParams {
            x: cuda::address(x)?,
            skip: skip.map_or(Ok(0), cuda::address)?,
            y: cuda::address(&y)?,
            count: i64::try_from(vectors).map_err(candle_core::Error::wrap)?,
            strides: [strides(x)?, skip.map_or(Ok([0; 4]), strides)?],
            height: int(height)?,
            width: int(width)?,
            padded_channels: int(whole)?,
            channels: int(channels)?,
            skip_channels: int(skip_channels)?,
            upsample: (own_height < height).into(),
        };
        // SAFETY: the tensors have the shapes and steps that `params` says.
        unsafe { self.gather.launch(Grid::over(vectors)?, params) }?;
        Ok(Picture { tensor: y, dims: [batch, height, width, whole] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn lies_so(t: &Tensor) -> bool {
        Picture::of(t).unwrap().is_some()
    }

    #[test]
    fn what_lies_as_the_kernels_read_it_is_not_copied() {
        let stored = Tensor::zeros((2, 4, 6, 16), DType::F16, &Device::Cpu).unwrap();
        let seen = stored.permute((0, 3, 1, 2)).unwrap();
        assert!(lies_so(&seen));
        assert!(!lies_so(&seen.contiguous().unwrap()), "channels first");
        // fewer channels than are stored
        assert!(lies_so(&seen.narrow(1, 0, 11).unwrap()));
        assert!(!lies_so(&seen.narrow(1, 0, 8).unwrap()), "another group lies between two pixels");
        assert!(!lies_so(&seen.narrow(1, 3, 11).unwrap()), "it begins in the middle of a group");
        assert!(
            !lies_so(&Tensor::zeros((1, 3, 1, 1), DType::F16, &Device::Cpu).unwrap()),
            "nothing follows the last channel"
        );
    }

    #[test]
    fn what_follows_has_the_size_of_what_is_convolved() {
        let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F16, &Device::Cpu).unwrap();
        let (x, same, twice, flat) = (zeros(&[2, 8, 3, 5]), zeros(&[2, 4, 3, 5]), zeros(&[2, 4, 6, 10]), zeros(&[4]));
        let size = |skip, upsample| Input { x: &x, skip, stride: 1, padding: 1, upsample }.size();
        assert_eq!((size(None, false).unwrap(), size(None, true).unwrap()), ([2, 3, 5], [2, 6, 10]));
        assert_eq!((size(Some(&same), false).unwrap(), size(Some(&twice), true).unwrap()), ([2, 3, 5], [2, 6, 10]));
        for (skip, upsample) in [(&same, true), (&twice, false), (&flat, false)] {
            assert!(size(Some(skip), upsample).is_err());
        }
    }

    #[test]
    fn rows_of_a_matrix_are_pictures_of_one_pixel() {
        let rows = Tensor::zeros((5, 24, 1, 1), DType::F16, &Device::Cpu).unwrap();
        assert!(lies_so(&rows));
        assert!(!lies_so(&Tensor::zeros((5, 20, 1, 1), DType::F16, &Device::Cpu).unwrap()));
    }
}
