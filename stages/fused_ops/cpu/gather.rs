//! Copies what a kernel reads of the input into one piece: windows of pixels, or im2col rows.

use super::values::Values;

/// One input of a convolution, `(batch, height, width, channels)` row-major.
///
/// Several are read as if they were concatenated along the channels, in order.
#[derive(Debug, Clone, Copy)]
pub struct NhwcInput<'a> {
    /// The values.
    pub values: Values<'a>,
    /// How many channels this input has.
    pub channels: usize,
}

/// Sizes of a convolution, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    /// Kernel height and width.
    pub(super) kernel: [usize; 2],
    pub(super) stride: usize,
    pub(super) padding: usize,
}

/// The inputs and how they are walked.
pub(super) struct Image<'a> {
    pub(super) inputs: &'a [NhwcInput<'a>],
    /// Channels of all inputs together.
    pub(super) channels: usize,
    pub(super) geometry: Geometry,
}

impl Image<'_> {
    /// Copies `target.len()` channels of a pixel, from `channel` on.
    #[inline]
    fn copy_channels(&self, pixel: usize, channel: usize, target: &mut [f32]) {
        if let [input] = self.inputs {
            return input.values.widen(pixel * input.channels + channel, target);
        }
        let end = channel + target.len();
        let mut before = 0;
        for input in self.inputs {
            let from = channel.max(before);
            let to = end.min(before + input.channels);
            if from < to {
                input.values.widen(pixel * input.channels + from - before, &mut target[from - channel..to - channel]);
            }
            before += input.channels;
        }
    }

    /// Copies a window of the padded image, whose first pixel is `origin` (row, column), with the
    /// padding written out as zeros: `(rows, columns, pitch)`, where `pitch >= channels` and what
    /// lies between is not written.
    pub(super) fn window(
        &self,
        sample: usize,
        origin: [usize; 2],
        [rows, columns]: [usize; 2],
        pitch: usize,
        target: &mut [f32],
    ) {
        let Geometry { height, width, padding, .. } = self.geometry;
        let channels = self.channels;
        // Columns of the window that lie inside of the image.
        let start = padding.saturating_sub(origin[1]).min(columns);
        let inside = start..columns.min((padding + width).saturating_sub(origin[1])).max(start);
        for (row, line) in target.chunks_exact_mut(columns * pitch).take(rows).enumerate() {
            let y = (origin[0] + row).wrapping_sub(padding);
            if y >= height || inside.is_empty() {
                line.fill(0.0);
                continue;
            }
            line[..inside.start * pitch].fill(0.0);
            line[inside.end * pitch..].fill(0.0);
            let first_pixel = (sample * height + y) * width + origin[1] + inside.start - padding;
            let line = &mut line[inside.start * pitch..inside.end * pitch];
            if let ([input], true) = (self.inputs, pitch == channels) {
                input.values.widen(first_pixel * channels, line);
                continue;
            }
            for (x, pixel) in line.chunks_exact_mut(pitch).enumerate() {
                self.copy_channels(first_pixel + x, 0, &mut pixel[..channels]);
            }
        }
    }

    /// Copies im2col rows: for each output pixel from `first_row` on (counted through the batch)
    /// the inner indices `first..first + length`, `pitch` values apart.
    pub(super) fn columns(&self, first_row: usize, first: usize, length: usize, pitch: usize, target: &mut [f32]) {
        let Geometry { height, width, out_height, out_width, kernel, stride, padding, .. } = self.geometry;
        for (index, line) in target.chunks_exact_mut(pitch).enumerate() {
            let row = first_row + index;
            let (sample, pixel) = (row / (out_height * out_width), row % (out_height * out_width));
            let (out_y, out_x) = (pixel / out_width, pixel % out_width);
            let mut done = 0;
            while done < length {
                let (tap, channel) = ((first + done) / self.channels, (first + done) % self.channels);
                let count = (self.channels - channel).min(length - done);
                let target = &mut line[done..done + count];
                let y = (out_y * stride + tap / kernel[1]).wrapping_sub(padding);
                let x = (out_x * stride + tap % kernel[1]).wrapping_sub(padding);
                if y < height && x < width {
                    self.copy_channels((sample * height + y) * width + x, channel, target);
                } else {
                    target.fill(0.0);
                }
                done += count;
            }
        }
    }
}
