//! The stream: steps equal the whole clip, a reset forgets everything, the same seed draws the same bytes.
use candle_core::{Device, Tensor};
use mirage::diffusion::{BetaSchedule, Sampler};
use mirage::model::{Condition, FrameNetwork, Given, ModelSpec, Weights, formula};
use mirage::ops::Ops;
use mirage::ops::cases::largest_difference;
use mirage::stages::StageSpec;
use mirage::stream::{BlendRule, MemoryConfig, Sampling, Stream, StreamConfig};
use std::sync::Arc;

const SAMPLINGS: [Sampling; 5] = [
    Sampling::Sequence,
    Sampling::Diffusion(Sampler::Ddim { eta: 0.0 }, BetaSchedule::Cosine),
    Sampling::Diffusion(Sampler::Ddim { eta: 1.0 }, BetaSchedule::Cosine),
    Sampling::Diffusion(Sampler::Euler, BetaSchedule::ScaledLinear { start: 0.00085, end: 0.012 }),
    Sampling::Diffusion(Sampler::Lcm { original_steps: 50 }, BetaSchedule::Linear { start: 1e-4, end: 0.02 }),
];

fn config(sampling: Sampling) -> StreamConfig {
    StreamConfig {
        sampling,
        steps: 3,
        strength: 0.7,
        seed: 11,
        memory: MemoryConfig { frames: 2, every: 2, weight: 0.3 },
        blend: BlendRule::Fixed(0.8),
        style: vec![],
        history_timestep: None,
    }
}

fn reference(stages: &str) -> anyhow::Result<(Arc<dyn FrameNetwork>, Ops)> {
    let device = Device::Cpu;
    let ops = stages.parse::<StageSpec>()?.resolve(&device).install(&device)?;
    let network = ModelSpec::Reference { base: 16 }.load(&ops, &Weights::formula(&device))?;
    Ok((network, ops))
}

fn clip(frames: usize, size: usize) -> anyhow::Result<Vec<Tensor>> {
    let frame = |i: usize| {
        let values = formula::input(&format!("clip.{i}"), 3 * size * size);
        Ok(Tensor::from_vec(values, (1, 3, size, size), &Device::Cpu)?.clamp(-1f32, 1f32)?)
    };
    (0..frames).map(frame).collect()
}

fn bytes(t: &Tensor) -> anyhow::Result<Vec<u32>> {
    Ok(t.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

#[test]
fn steps_draw_what_the_whole_clip_draws() -> anyhow::Result<()> {
    let clip = clip(5, 16)?;
    for stages in ["none", "all"] {
        let (network, ops) = reference(stages)?;
        for sampling in SAMPLINGS {
            let mut stream = Stream::new(network.clone(), ops.clone(), config(sampling))?;
            let whole = stream.forward(&clip)?;
            for (i, (frame, want)) in clip.iter().zip(&whole).enumerate() {
                assert_eq!(bytes(&stream.step(frame)?)?, bytes(want)?, "{stages}, {sampling:?}, frame {i}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_reset_forgets_everything() -> anyhow::Result<()> {
    let (network, ops) = reference("all")?;
    let clip = clip(4, 16)?;
    for sampling in SAMPLINGS {
        let mut stream = Stream::new(network.clone(), ops.clone(), config(sampling))?;
        let first: Vec<_> = clip.iter().map(|f| bytes(&stream.step(f)?)).collect::<anyhow::Result<_>>()?;
        stream.reset();
        assert_eq!(stream.frames(), 0);
        let second: Vec<_> = clip.iter().map(|f| bytes(&stream.step(f)?)).collect::<anyhow::Result<_>>()?;
        assert_eq!(first, second, "{sampling:?}");
    }
    Ok(())
}

#[test]
fn the_seed_decides_the_noise() -> anyhow::Result<()> {
    let (network, ops) = reference("all")?;
    let clip = clip(2, 16)?;
    for sampling in &SAMPLINGS[1..] {
        let draw = |seed| -> anyhow::Result<Vec<u32>> {
            let config = StreamConfig { seed, ..config(*sampling) };
            let stream = Stream::new(network.clone(), ops.clone(), config)?;
            bytes(&stream.forward(&clip)?[1])
        };
        assert_eq!(draw(1)?, draw(1)?, "{sampling:?}");
        assert_ne!(draw(1)?, draw(2)?, "{sampling:?}");
    }
    Ok(())
}

#[test]
fn each_frame_depends_on_the_one_before() -> anyhow::Result<()> {
    let (network, ops) = reference("none")?;
    let frames = clip(3, 16)?;
    let stream = Stream::new(network, ops, config(Sampling::Sequence))?;
    let straight = stream.forward(&frames)?;
    let swapped = stream.forward(&[frames[1].clone(), frames[0].clone(), frames[2].clone()])?;
    assert!(largest_difference(&straight[2], &swapped[2])? > 1e-3);
    Ok(())
}

/// A network that gives back what it is told to hold on to, and shouts.
struct Feedback;

impl FrameNetwork for Feedback {
    fn multiple(&self) -> usize {
        8
    }

    fn usual_side(&self) -> usize {
        64
    }

    fn timesteps(&self) -> usize {
        50
    }

    fn condition(&self, _: &Ops, given: &Given<'_>) -> mirage::Result<Condition> {
        Ok(Condition { planes: given.history[0].clone(), tokens: None, history_timestep: 0.0 })
    }

    fn call(&self, _: &Ops, x: &Tensor, _: f64, condition: &Condition) -> mirage::Result<Tensor> {
        Ok(((&condition.planes * 3.0)? + x)?)
    }
}

#[test]
fn what_a_network_shouts_stays_in_range() -> anyhow::Result<()> {
    let mut stream = Stream::new(Arc::new(Feedback), Ops::reference(&Device::Cpu), config(Sampling::Sequence))?;
    for frame in clip(30, 8)? {
        let y = stream.step(&frame)?;
        let largest = y.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(largest <= 1.0, "{largest}");
    }
    Ok(())
}

#[test]
fn no_strength_leaves_the_input_as_it_is() -> anyhow::Result<()> {
    for sampling in SAMPLINGS {
        let config = StreamConfig { strength: 0.0, ..config(sampling) };
        let mut stream = Stream::new(Arc::new(Feedback), Ops::reference(&Device::Cpu), config)?;
        for frame in clip(3, 8)? {
            assert_eq!(bytes(&stream.step(&frame)?)?, bytes(&frame)?);
        }
    }
    Ok(())
}

#[test]
fn settings_out_of_range_are_refused_in_words() {
    let refused = |change: fn(&mut StreamConfig)| {
        let mut config = config(Sampling::Sequence);
        change(&mut config);
        let stream = Stream::new(Arc::new(Feedback), Ops::reference(&Device::Cpu), config);
        stream.err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(refused(|c| c.steps = 0).contains("1 to 50"));
    assert!(refused(|c| c.steps = 51).contains("1 to 50"));
    assert!(refused(|c| c.strength = 1.5).contains("strength 1.5"));
    assert!(refused(|c| c.strength = f64::NAN).contains("strength"));
    assert!(refused(|c| c.blend = BlendRule::Fixed(-0.1)).contains("blend -0.1"));
    assert!(refused(|c| c.memory.weight = 2.0).contains("memory weight 2"));
}

#[test]
fn a_frame_of_another_size_is_named() -> anyhow::Result<()> {
    let mut stream = Stream::new(Arc::new(Feedback), Ops::reference(&Device::Cpu), config(Sampling::Sequence))?;
    stream.step(&clip(1, 8)?[0])?;
    let said = stream.step(&clip(1, 16)?[0]).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(said.contains("frame 1") && said.contains("16, 16"), "{said}");
    Ok(())
}
