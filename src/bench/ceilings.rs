//! How fast a device is seen to copy and to multiply: the ceilings of a roofline.
use super::executor::{OnDevice, Plan, measure};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Duration;

/// Runs of each measurement, after two to warm up; the fastest counts.
const PLAN: Plan = Plan { warmup: 2, runs: 10, limit: Duration::from_secs(5) };

/// Seconds of the fastest run.
fn fastest(device: &Device, work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let timings = measure(&mut OnDevice(device, work), PLAN)?;
    Ok(timings.into_iter().fold(f64::INFINITY, f64::min) / 1e3)
}

/// Bytes in a second, read and written, as `device` copies a large tensor.
///
/// # Errors
/// Too little memory for it, or whatever goes wrong on the device.
pub fn bandwidth(device: &Device) -> anyhow::Result<f64> {
    let bytes: usize = if device.is_cpu() { 64 << 20 } else { 256 << 20 };
    let count = bytes / size_of::<f32>();
    let seconds = if device.is_cpu() {
        // Candle copies with one thread, which leaves bandwidth unused that the threads of an op have
        let (source, mut target) = (vec![1f32; count], vec![0f32; count]);
        let part = count.div_ceil(rayon::current_num_threads());
        fastest(device, || {
            target.par_chunks_mut(part).zip(source.par_chunks(part)).for_each(|(to, from)| to.copy_from_slice(from));
            black_box(&target);
            Ok(())
        })?
    } else {
        let source = Tensor::ones(count, DType::F32, device)?;
        fastest(device, || {
            source.copy()?;
            Ok(())
        })?
    };
    Ok(2.0 * bytes as f64 / seconds)
}

/// Multiplications and additions in a second, as `device` multiplies large square matrices in `dtype`.
///
/// # Errors
/// Too little memory for it, or whatever goes wrong on the device.
pub fn arithmetic(device: &Device, dtype: DType) -> anyhow::Result<f64> {
    // a CPU multiplies in f32 whatever it stores
    let (side, dtype): (usize, DType) = if device.is_cpu() { (1024, DType::F32) } else { (8192, dtype) };
    let matrix = Tensor::randn(0f32, 1.0, (side, side), device)?.to_dtype(dtype)?;
    let seconds = fastest(device, || {
        matrix.matmul(&matrix)?;
        Ok(())
    })?;
    Ok(2.0 * (side as f64).powi(3) / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_ceilings() {
        let device = Device::Cpu;
        let (bandwidth, arithmetic) = (bandwidth(&device).unwrap(), arithmetic(&device, DType::F16).unwrap());
        assert!(bandwidth > 1e8 && arithmetic > 1e8, "{bandwidth} {arithmetic}");
    }
}
