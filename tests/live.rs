//! The live model against the network as it is trained, and the stream that runs it.
use candle_core::{DType, Device, Tensor};
use mirage::model::{FrameNetwork, Given, ModelSpec, SafetensorsFile, Weights, formula};
use mirage::ops::Ops;
use mirage::ops::cases::largest_difference;
use mirage::stages::{StageSet, StageSpec};
use mirage::stream::{Stream, StreamConfig};
use std::path::Path;
use std::sync::Arc;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/live.safetensors");

fn given(name: &str, shape: [usize; 4]) -> Tensor {
    let values = formula::input(&format!("live.{name}"), shape.iter().product());
    Tensor::from_vec(values, &shape, &Device::Cpu).expect("as many as the shape says")
}

fn network(stages: &StageSet) -> (Arc<dyn FrameNetwork>, Ops) {
    let ops = stages.install(&Device::Cpu).expect("`all` holds stages that install");
    let network = ModelSpec::Live.load(&ops, &Weights::formula(&Device::Cpu)).expect("weights by formula fit");
    (network, ops)
}

/// Mean RGB in each cell of a 4x4 grid of both, `(b, 16, 6)`.
fn cells(frame: &Tensor, drawn: &Tensor) -> anyhow::Result<Tensor> {
    let both = Tensor::cat(&[frame, drawn], 1)?;
    let (b, c, h, w) = both.dims4()?;
    let means = both.avg_pool2d((h / 4, w / 4))?;
    Ok(means.reshape((b, c, 16))?.transpose(1, 2)?.contiguous()?)
}

#[test]
fn it_draws_what_the_trained_network_draws() -> anyhow::Result<()> {
    let shape = [2, 3, 32, 48];
    let want = SafetensorsFile::open(Path::new(FILE))?.read_f32("clean", &shape)?;
    let want = Tensor::from_vec(want, &shape, &Device::Cpu)?;
    let largest = f64::from(want.abs()?.max_all()?.to_scalar::<f32>()?);
    let [noisy, frame, newer, older, past] = ["noisy", "frame", "newer", "older", "past"].map(|n| given(n, shape));
    for stages in StageSet::all(&Device::Cpu).prefixes() {
        let (network, ops) = network(&stages);
        let stored = |t: &Tensor| t.to_dtype(ops.dtype);
        let history = [stored(&newer)?, stored(&older)?];
        let given = Given {
            frame: &stored(&frame)?,
            history: [&history[0], &history[1]],
            history_timestep: 100.0,
            style: &[0.25, 0.0, 0.0, 0.45, 0.0, 0.0, 0.3],
            memory: &[cells(&past, &frame)?, cells(&frame, &newer)?],
        };
        let condition = network.condition(&ops, &given)?;
        let drawn = network.call(&ops, &stored(&noisy)?, 499.0, &condition)?.to_dtype(DType::F32)?;
        let error = largest_difference(&drawn, &want)? / largest;
        let allowed = if ops.dtype == DType::F32 { 1e-4 } else { 3e-2 };
        assert!(error <= allowed, "{stages}: {error:.1e}");
    }
    Ok(())
}

fn stream(stages: &str) -> anyhow::Result<Stream> {
    let (network, ops) = network(&stages.parse::<StageSpec>()?.resolve(&Device::Cpu));
    let usual = StreamConfig::usual(&*network);
    let mut memory = usual.memory;
    memory.every = 2; // so that a few frames fill it
    Ok(Stream::new(network, ops, StreamConfig { memory, ..usual })?)
}

fn clip(frames: usize) -> anyhow::Result<Vec<Tensor>> {
    (0..frames).map(|i| Ok(given(&format!("clip.{i}"), [1, 3, 32, 32]).clamp(-1f32, 1f32)?)).collect()
}

fn bytes(t: &Tensor) -> anyhow::Result<Vec<u32>> {
    Ok(t.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

#[test]
fn steps_draw_what_the_whole_clip_draws_and_a_reset_forgets() -> anyhow::Result<()> {
    let clip = clip(6)?;
    for stages in ["none", "all"] {
        let mut stream = stream(stages)?;
        let whole = stream.forward(&clip)?;
        for round in 0..2 {
            for (i, (frame, want)) in clip.iter().zip(&whole).enumerate() {
                assert_eq!(bytes(&stream.step(frame)?)?, bytes(want)?, "{stages}, round {round}, frame {i}");
            }
            stream.reset();
        }
    }
    Ok(())
}

#[test]
fn another_style_begins_anew_and_another_share_goes_on() -> anyhow::Result<()> {
    let clip = clip(4)?;
    let mix = |ink: f64, oil: f64| vec![1.0 - ink - oil, ink, oil, 0.0, 0.0, 0.0, 0.0];
    // for the next frame: 8 steps where there is no history; else it is noised, two frames of it, and 2 steps follow
    let calls = |stream: &mut Stream, frame: &Tensor| -> anyhow::Result<u64> {
        stream.ops().probe.set(mirage::ops::probe::Mode::Count);
        stream.step(frame)?;
        Ok(stream.ops().probe.counts().iter().filter(|((op, _), _)| op.name() == "sampler_step").map(|(_, n)| n).sum())
    };
    let mut stream = stream("all")?;
    assert_eq!((calls(&mut stream, &clip[0])?, calls(&mut stream, &clip[1])?), (8, 4));
    stream.restyle(mix(0.6, 0.0))?;
    assert_eq!(calls(&mut stream, &clip[2])?, 4, "less of the same style");
    stream.restyle(mix(0.5, 0.5))?;
    assert_eq!(calls(&mut stream, &clip[3])?, 8, "a new style comes in");
    for wrong in [vec![1.0], vec![0.5; 7], mix(-1.0, 2.0), vec![f64::NAN; 7]] {
        assert!(stream.restyle(wrong).is_err());
    }
    Ok(())
}

#[test]
fn strength_zero_leaves_the_input_and_the_style_matters() -> anyhow::Result<()> {
    let clip = clip(2)?;
    let (network, ops) = network(&StageSet::all(&Device::Cpu));
    let draw = |strength: f64, style: usize| -> anyhow::Result<Tensor> {
        let mut config = StreamConfig { strength, ..StreamConfig::usual(&*network) };
        config.style = (0..7).map(|i| if i == style { 1.0 } else { 0.0 }).collect();
        Ok(Stream::new(network.clone(), ops.clone(), config)?.step(&clip[0])?)
    };
    assert!(largest_difference(&draw(0.0, 1)?, &clip[0])? < 1e-3);
    assert!(largest_difference(&draw(1.0, 1)?, &draw(1.0, 2)?)? > 1e-3);
    // all of `none` is the same whether it is asked for or what strength leaves over
    assert_eq!(largest_difference(&draw(1.0, 0)?, &draw(0.5, 0)?)?, 0.0);
    Ok(())
}

/// What is said of a file with these texts and one small tensor.
fn refusal(texts: &[(&str, &str)]) -> anyhow::Result<String> {
    let tensors = std::collections::HashMap::from([("memory.bias", Tensor::zeros(64, DType::F16, &Device::Cpu)?)]);
    let texts = texts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let bytes = safetensors::serialize(&tensors, Some(texts))?;
    let weights = Weights::bytes(bytes, "a.safetensors", &Device::Cpu)?;
    let error = ModelSpec::Live.load(&Ops::reference(&Device::Cpu), &weights).err();
    let said = error.map_or(String::new(), |e| e.to_string());
    anyhow::ensure!(said.starts_with("a.safetensors: "), "the file is not named: {said}");
    Ok(said)
}

#[test]
fn every_attention_tells_its_heads() -> anyhow::Result<()> {
    let (network, _) = network(&StageSet::none());
    let parameters = ModelSpec::Live.parameters()?;
    let layers: Vec<&str> = parameters.iter().filter_map(|p| p.name.strip_suffix(".weight")).collect();
    for layer in &layers {
        assert_eq!(network.heads(layer).is_some(), layer.ends_with(".to_q"), "{layer}");
    }
    assert_eq!(network.heads("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"), Some(3));
    assert_eq!(network.heads("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"), Some(4));
    Ok(())
}

#[test]
fn a_file_of_another_format_is_refused_by_name() -> anyhow::Result<()> {
    assert!(refusal(&[("format", "other")])?.contains("\"other\""));
    assert!(refusal(&[])?.contains("unet.conv_in.weight"));
    assert!(refusal(&[("config", r#"{"in_channels": 4}"#)])?.contains("192"));
    assert!(refusal(&[("config", r#"{"act_fn": "relu"}"#)])?.contains("act_fn"));
    Ok(())
}

/// As many channels as a configuration can say, in every level: no memory holds such a network.
#[test]
fn a_small_file_that_asks_for_a_huge_network_is_refused() -> anyhow::Result<()> {
    let (channels, down, up) = ([16384; 8], ["CrossAttnDownBlock2D"; 8], ["CrossAttnUpBlock2D"; 8]);
    let config = serde_json::json!({
        "in_channels": 192, "out_channels": 48, "class_embed_type": "timestep",
        "block_out_channels": channels, "down_block_types": down, "up_block_types": up,
    });
    let said = refusal(&[("config", &config.to_string())])?;
    assert!(said.contains("missing (") && said.contains("unet.up_blocks.7.attentions.2.proj_in.weight"), "{said}");
    Ok(())
}
