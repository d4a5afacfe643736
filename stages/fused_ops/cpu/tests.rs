//! Every kernel against a plain f64 loop, over random shapes, storages and instruction sets.

use super::*;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// A small generator, so that a failing case can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }
    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

/// Values in the storage a case asks for, and what they are after rounding.
struct Stored {
    wide: Vec<f32>,
    half: Option<Vec<f16>>,
}

impl Stored {
    fn new(mut wide: Vec<f32>, in_half: bool) -> Self {
        let half = in_half.then(|| {
            let half: Vec<f16> = wide.iter().map(|&value| f16::from_f32(value)).collect();
            half.convert_to_f32_slice(&mut wide);
            half
        });
        Self { wide, half }
    }
    fn values(&self) -> Values<'_> {
        match &self.half {
            Some(half) => Values::F16(half),
            None => Values::F32(&self.wide),
        }
    }
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        // Within 1e-6 of the f64 formula, as the tests in `activation` show.
        Activation::Gelu => f64::from(activation::gelu::<true>(x as f32)),
    }
}

/// One random call, checked against the loop; guards lie around the output.
fn check(isa: Isa, seed: u64) {
    let mut random = Random(seed);
    let linear_case = random.below(4) == 0;
    let gated = linear_case && random.flag();
    let kernel = if linear_case { [1, 1] } else { random.pick(&[[3, 3], [3, 3], [1, 1], [1, 3], [5, 2]]) };
    let walk = Walk {
        stride: if linear_case { 1 } else { random.pick(&[1, 1, 2, 3]) },
        padding: if linear_case { 0 } else { random.pick(&[0, 1, 1, 2]) },
    };
    let size = ImageSize {
        batch: 1 + random.below(3),
        height: if linear_case { 1 } else { kernel[0] + random.below(20) },
        width: kernel[1] + random.below(if linear_case { 70 } else { 40 }),
    };
    let mut parts = vec![random.pick(&[1, 2, 3, 4, 6, 16, 31, 48, 129, 256, 512])];
    if !linear_case && random.flag() {
        parts.push(random.pick(&[1, 3, 8, 17, 64]));
    }
    let channels: usize = parts.iter().sum();
    let outputs = 1 + random.below(70);
    let rows = outputs * if gated { 2 } else { 1 };
    let taps = kernel[0] * kernel[1];
    let label = format!("{isa:?} seed {seed}: {size:?} {kernel:?} {walk:?} {parts:?} -> {outputs}");

    let storage = random.pick(&[Storage::F32, Storage::F16]);
    let weight = Stored::new(random.values(rows * channels * taps), storage == Storage::F16).wide;
    let weights = if gated {
        PackedWeights::from_geglu_for(isa, &weight, [rows, channels], storage)
    } else {
        let shape = [outputs, channels, kernel[0], kernel[1]];
        PackedWeights::from_conv2d_for(isa, &weight, shape, storage)
    }
    .unwrap();
    let stored: Vec<Stored> = parts
        .iter()
        .map(|part| {
            let in_half = random.flag();
            Stored::new(random.values(size.batch * size.height * size.width * part), in_half)
        })
        .collect();
    let [out_height, out_width] = conv2d_output_size(size, kernel, walk).unwrap();
    let pixels = size.batch * out_height * out_width;
    let bias = random.flag().then(|| random.values(rows));
    let shift = random.flag().then(|| random.values(size.batch * outputs));
    let in_half = random.flag();
    let residual = random.flag().then(|| Stored::new(random.values(pixels * outputs), in_half));
    let activation = match gated {
        true => Activation::None,
        false => random.pick(&[Activation::None, Activation::Silu, Activation::Gelu]),
    };
    let epilogue = Epilogue {
        bias: bias.as_deref(),
        shift: shift.as_deref(),
        activation,
        residual: residual.as_ref().map(Stored::values),
    };

    const GUARD: usize = 64;
    let out_half = random.flag();
    let mut wide = vec![7.0f32; pixels * outputs + 2 * GUARD];
    let mut half = vec![f16::from_f32(7.0); pixels * outputs + 2 * GUARD];
    let inside = GUARD..GUARD + pixels * outputs;
    let output =
        if out_half { ValuesMut::F16(&mut half[inside.clone()]) } else { ValuesMut::F32(&mut wide[inside.clone()]) };
    if linear_case {
        let shape = [size.batch, size.width];
        linear(stored[0].values(), shape, &weights, &epilogue, output).unwrap();
    } else {
        let inputs: Vec<NhwcInput> = stored
            .iter()
            .zip(&parts)
            .map(|(stored, &channels)| NhwcInput { values: stored.values(), channels })
            .collect();
        conv2d(&inputs, size, &weights, walk, &epilogue, output).unwrap();
    }
    if out_half {
        half.convert_to_f32_slice(&mut wide);
    }
    assert!(wide[..GUARD].iter().chain(&wide[inside.end..]).all(|&guard| guard == 7.0), "{label}");

    for pixel in 0..pixels {
        let (sample, y, x) = (pixel / (out_height * out_width), pixel / out_width % out_height, pixel % out_width);
        // The sum and the sum of magnitudes, which bounds the rounding.
        let sum = |row: usize| {
            let (mut sum, mut magnitude) = (0f64, 0f64);
            for tap in 0..taps {
                let in_y = (y * walk.stride + tap / kernel[1]).wrapping_sub(walk.padding);
                let in_x = (x * walk.stride + tap % kernel[1]).wrapping_sub(walk.padding);
                if in_y >= size.height || in_x >= size.width {
                    continue;
                }
                let place = (sample * size.height + in_y) * size.width + in_x;
                let mut before = 0;
                for (stored, part) in stored.iter().zip(&parts) {
                    for channel in 0..*part {
                        let value = f64::from(stored.wide[place * part + channel]);
                        let index = (row * channels + before + channel) * taps + tap;
                        let product = value * f64::from(weight[index]);
                        sum += product;
                        magnitude += product.abs();
                    }
                    before += part;
                }
            }
            (sum + bias.as_ref().map_or(0.0, |bias| f64::from(bias[row])), magnitude)
        };
        for output in 0..outputs {
            let (value, mut magnitude) = sum(output);
            let shift = shift.as_ref().map_or(0.0, |s| f64::from(s[sample * outputs + output]));
            let mut expected = activate(activation, value + shift);
            if gated {
                let (gate, gate_magnitude) = sum(outputs + output);
                magnitude = (magnitude + 2.0) * (gate_magnitude + 2.0);
                expected *= activate(Activation::Gelu, gate);
            }
            let index = pixel * outputs + output;
            expected += residual.as_ref().map_or(0.0, |r| f64::from(r.wide[index]));
            let found = f64::from(wide[inside.start + index]);
            let rounding = if out_half { expected.abs() / 2048.0 + 6e-8 } else { 0.0 };
            let bound = 1e-6 * (magnitude + 3.0) + rounding;
            assert!(
                (found - expected).abs() <= bound,
                "{label} at {pixel}, {output}: {found} for {expected}, bound {bound}"
            );
        }
    }
}

#[test]
fn random_calls_match_double_precision() {
    for isa in Isa::available() {
        for seed in 0..60 {
            check(isa, seed);
        }
    }
}

#[test]
fn winograd_errs_by_less_than_a_hundred_thousandth() {
    let mut random = Random(5);
    for isa in Isa::available() {
        // Odd sizes, two inputs, several blocks of channels, several regions, a last half panel.
        for (height, width, parts, outputs) in
            [(16, 16, vec![256], 40), (9, 11, vec![112, 32], 33), (40, 37, vec![32], 70), (8, 300, vec![48], 32)]
        {
            let channels: usize = parts.iter().sum();
            let shape = [outputs, channels, 3, 3];
            let weight = random.values(outputs * channels * 9);
            for storage in [Storage::F32, Storage::F16] {
                let weights = PackedWeights::from_conv2d_for(isa, &weight, shape, storage).unwrap();
                let size = ImageSize { batch: 2, height, width };
                let stored: Vec<Stored> = parts
                    .iter()
                    .map(|part| Stored::new(random.values(2 * height * width * part), parts.len() > 1))
                    .collect();
                let inputs: Vec<NhwcInput> = stored
                    .iter()
                    .zip(&parts)
                    .map(|(stored, &channels)| NhwcInput { values: stored.values(), channels })
                    .collect();
                let walk = Walk { stride: 1, padding: 1 };
                let epilogue = Epilogue::default();
                let outputs_by = |weights: &PackedWeights| {
                    let mut output = vec![0f32; 2 * height * width * outputs];
                    let target = ValuesMut::F32(&mut output);
                    conv2d(&inputs, size, weights, walk, &epilogue, target).unwrap();
                    output
                };
                let winograd = outputs_by(&weights);
                let direct = outputs_by(&weights.with_method(Method::Direct));
                let largest = direct.iter().fold(0f32, |a, b| a.max(b.abs()));
                let error = winograd.iter().zip(&direct).fold(0f32, |error, (a, b)| error.max((a - b).abs()));
                assert!(error > 0.0, "the two methods are the same");
                assert!(error < 1e-5 * largest, "{isa:?} {parts:?} {storage:?}: {error} of {largest}");
            }
        }
    }
}

#[test]
fn nan_and_infinity_reach_exactly_their_neighbourhood() {
    for isa in Isa::available() {
        for special in [f32::NAN, f32::INFINITY] {
            let size = ImageSize { batch: 1, height: 20, width: 20 };
            let mut input = vec![0.5f32; 400 * 3];
            input[(10 * 20 + 10) * 3 + 1] = special;
            let weights = PackedWeights::from_conv2d_for(isa, &[0.25; 27 * 5], [5, 3, 3, 3], Storage::F32).unwrap();
            let mut output = vec![0f32; 400 * 5];
            let inputs = [NhwcInput { values: Values::F32(&input), channels: 3 }];
            let walk = Walk { stride: 1, padding: 1 };
            let epilogue = Epilogue::default();
            conv2d(&inputs, size, &weights, walk, &epilogue, ValuesMut::F32(&mut output)).unwrap();
            for (index, value) in output.iter().enumerate() {
                let (y, x) = (index / 100, index / 5 % 20);
                let near = y.abs_diff(10) <= 1 && x.abs_diff(10) <= 1;
                assert_eq!(value.is_finite(), !near, "{isa:?} {special} at {y}, {x}");
            }
        }
    }
}

#[test]
fn folded_batch_norm_equals_norm_after_convolution() {
    let (weight, bias) = (vec![0.5f32, -1.0, 2.0, 0.25], vec![0.1f32, -0.2]);
    let norm =
        BatchNorm { gamma: &[1.5, 0.5], beta: &[0.3, -0.4], mean: &[0.2, -0.1], variance: &[0.9, 2.0], epsilon: 1e-5 };
    let (mut folded, mut folded_bias) = (weight.clone(), bias.clone());
    fold_batch_norm(&mut folded, &mut folded_bias, &norm).unwrap();
    for output in 0..2 {
        let plain = 3.0 * weight[2 * output] - 2.0 * weight[2 * output + 1] + bias[output];
        let deviation = (norm.variance[output] + 1e-5).sqrt();
        let expected = (plain - norm.mean[output]) / deviation * norm.gamma[output] + norm.beta[output];
        let found = 3.0 * folded[2 * output] - 2.0 * folded[2 * output + 1] + folded_bias[output];
        assert!((expected - found).abs() < 1e-6, "{expected} {found}");
    }
    assert!(fold_batch_norm(&mut folded[..3], &mut folded_bias, &norm).is_err());
}

#[test]
fn wrong_arguments_are_refused_and_leave_the_output() {
    let weights = PackedWeights::from_conv2d(&[1.0; 36], [2, 2, 3, 3], Storage::F32).unwrap();
    let input = vec![1f32; 4 * 4 * 2];
    let mut output = vec![9f32; 4 * 4 * 2];
    let mut call = |values: &[f32], channels, height, padding, epilogue: &Epilogue| {
        let inputs = [NhwcInput { values: Values::F32(values), channels }];
        let size = ImageSize { batch: 1, height, width: 4 };
        let walk = Walk { stride: 1, padding };
        conv2d(&inputs, size, &weights, walk, epilogue, ValuesMut::F32(&mut output))
    };
    let plain = Epilogue::default();
    assert!(call(&input[1..], 2, 4, 1, &plain).is_err());
    assert!(call(&input[..16], 1, 4, 1, &plain).is_err());
    assert!(call(&input, 2, 0, 1, &plain).is_err());
    assert!(call(&input, 2, 4, 0, &plain).is_err());
    assert!(call(&input, 2, 4, usize::MAX, &plain).is_err());
    assert!(call(&input, 2, usize::MAX, 1, &plain).is_err());
    let short = Epilogue { bias: Some(&[1.0]), ..plain };
    assert!(call(&input, 2, 4, 1, &short).is_err());
    let short = Epilogue { shift: Some(&[1.0]), ..plain };
    assert!(call(&input, 2, 4, 1, &short).is_err());
    let short = Epilogue { residual: Some(Values::F32(&[1.0])), ..plain };
    assert!(call(&input, 2, 4, 1, &short).is_err());
    call(&input, 2, 4, 1, &plain).unwrap();
    assert!(PackedWeights::from_conv2d(&[1.0; 35], [2, 2, 3, 3], Storage::F32).is_err());
    assert!(PackedWeights::from_conv2d(&[], [0, 2, 3, 3], Storage::F32).is_err());
    assert!(PackedWeights::from_conv2d(&[], [usize::MAX, 2, 3, 3], Storage::F32).is_err());
    assert!(PackedWeights::from_geglu(&[1.0; 9], [3, 3], Storage::F32).is_err());
    let short = [1.0; 3];
    assert!(linear(Values::F32(&short), [1, 1], &weights, &plain, ValuesMut::F32(&mut [0.0; 2])).is_err());
}

#[test]
fn wide_strides_and_padding_take_no_more_memory_than_the_output() {
    let weights = PackedWeights::from_conv2d(&[1.0; 9], [1, 1, 3, 3], Storage::F32).unwrap();
    let inputs = [NhwcInput { values: Values::F32(&[2.0; 4]), channels: 1 }];
    let size = ImageSize { batch: 1, height: 2, width: 2 };
    let walk = Walk { stride: 1 << 20, padding: 10 << 20 };
    let mut output = vec![0f32; 20 * 20];
    assert_eq!(conv2d_output_size(size, [3, 3], walk), Ok([20, 20]));
    let epilogue = Epilogue::default();
    let target = ValuesMut::F32(&mut output);
    conv2d(&inputs, size, &weights, walk, &epilogue, target).unwrap();
    // Only one place of the kernel lies on the image.
    assert_eq!(output.iter().sum::<f32>(), 8.0);
    assert_eq!(output[10 * 20 + 10], 8.0);
}

#[test]
fn half_storage_takes_half_the_bytes() {
    let wide = PackedWeights::from_linear(&[1.0; 64 * 64], [64, 64], Storage::F32).unwrap();
    let half = PackedWeights::from_linear(&[1.0; 64 * 64], [64, 64], Storage::F16).unwrap();
    assert_eq!(wide.bytes(), 64 * 64 * 4);
    assert_eq!(half.bytes(), 64 * 64 * 2);
}
