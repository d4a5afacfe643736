//! A U-Net's `config.json`, as diffusers writes it; what this engine does not do is an error, not a silent difference.
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What stands in the file, for the keys that shape the network.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct UNetConfig {
    /// Channels of the sample.
    pub in_channels: usize,
    /// Channels of the result.
    pub out_channels: usize,
    /// Channels of each level, finest first.
    pub block_out_channels: Vec<usize>,
    /// ResNet blocks in each level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// The kind of each level on the way down.
    pub down_block_types: Vec<DownBlockType>,
    /// The kind of the block between.
    pub mid_block_type: MidBlockType,
    /// The kind of each level on the way up, coarsest first.
    pub up_block_types: Vec<UpBlockType>,
    /// Attention *heads* of each level, whatever the key says (diffusers keeps the name for old checkpoints' sake).
    pub attention_head_dim: PerLevel,
    /// Width of the tokens that cross-attention reads.
    pub cross_attention_dim: usize,
    /// Transformer blocks in each attention.
    pub transformer_layers_per_block: PerLevel,
    /// Groups of every group normalisation.
    pub norm_num_groups: usize,
    /// Added to the variance in ResNet blocks and before the last convolution.
    pub norm_eps: f64,
    /// Whether the projections around a transformer are stored as linear layers or as 1x1 convolutions.
    pub use_linear_projection: bool,
    /// Whether cosines come before sines in the embedding of the timestep.
    pub flip_sin_to_cos: bool,
    /// Taken from the number of frequencies in that embedding.
    pub freq_shift: f64,
    /// A second timestep as a condition.
    pub class_embed_type: Option<ClassEmbedType>,
    /// Whether the sample is stretched from [0, 1] to [-1, 1] first.
    pub center_input_sample: bool,
}

/// A level on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum DownBlockType {
    /// ResNet blocks alone.
    DownBlock2D,
    /// Each ResNet block followed by a transformer.
    CrossAttnDownBlock2D,
}

/// The block between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum MidBlockType {
    /// ResNet block, transformer, ResNet block.
    UNetMidBlock2DCrossAttn,
}

/// A level on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum UpBlockType {
    /// ResNet blocks alone.
    UpBlock2D,
    /// Each ResNet block followed by a transformer.
    CrossAttnUpBlock2D,
}

/// What the class label is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassEmbedType {
    /// A timestep, embedded like the sample's own.
    Timestep,
}

/// One number for all levels or one for each.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same everywhere.
    Same(usize),
    /// Finest first.
    Each(Vec<usize>),
}

impl PerLevel {
    /// The number of level `i`.
    pub fn at(&self, i: usize) -> usize {
        match self {
            Self::Same(n) => *n,
            Self::Each(list) => list.get(i).copied().unwrap_or(0),
        }
    }

    fn fits(&self, levels: usize) -> bool {
        match self {
            Self::Same(n) => *n > 0,
            Self::Each(list) => list.len() == levels && !list.contains(&0),
        }
    }
}

impl Default for UNetConfig {
    /// diffusers' own defaults.
    fn default() -> Self {
        use DownBlockType::{CrossAttnDownBlock2D, DownBlock2D};
        use UpBlockType::{CrossAttnUpBlock2D, UpBlock2D};
        Self {
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            down_block_types: vec![CrossAttnDownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D, DownBlock2D],
            mid_block_type: MidBlockType::UNetMidBlock2DCrossAttn,
            up_block_types: vec![UpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D],
            attention_head_dim: PerLevel::Same(8),
            cross_attention_dim: 1280,
            transformer_layers_per_block: PerLevel::Same(1),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            use_linear_projection: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            class_embed_type: None,
            center_input_sample: false,
        }
    }
}

/// Keys that would change the network, with the values that leave it as it is built here.
const FIXED: &[(&str, &[&str])] = &[
    ("act_fn", &["silu", "swish"]),
    ("time_embedding_type", &["positional"]),
    ("resnet_time_scale_shift", &["default"]),
    ("attention_type", &["default"]),
    ("conv_in_kernel", &["3"]),
    ("conv_out_kernel", &["3"]),
    ("downsample_padding", &["1"]),
    ("mid_block_scale_factor", &["1", "1.0"]),
    ("resnet_out_scale_factor", &["1", "1.0"]),
    ("only_cross_attention", &["false"]),
    ("dual_cross_attention", &["false"]),
    ("resnet_skip_time_act", &["false"]),
    ("class_embeddings_concat", &["false"]),
    ("mid_block_only_cross_attention", &["false"]),
    ("num_class_embeds", &[]),
    ("num_attention_heads", &[]),
    ("addition_embed_type", &[]),
    ("encoder_hid_dim", &[]),
    ("encoder_hid_dim_type", &[]),
    ("time_embedding_dim", &[]),
    ("time_embedding_act_fn", &[]),
    ("timestep_post_act", &[]),
    ("time_cond_proj_dim", &[]),
    ("projection_class_embeddings_input_dim", &[]),
    ("cross_attention_norm", &[]),
    ("reverse_transformer_layers_per_block", &[]),
];

/// More channels than any known U-Net has: a damaged file, not a network.
const MOST_CHANNELS: usize = 1 << 14;
/// Likewise for ResNet blocks in a level and transformer blocks in an attention.
const MOST_LAYERS: usize = 16;

impl UNetConfig {
    /// Reads `config.json`. Keys that change nothing here are passed over.
    ///
    /// # Errors
    /// Text that is not such a file, a value that this engine does not do, numbers that contradict each other; each by key.
    pub fn from_json(text: &str) -> Result<Self> {
        let object: Map<String, Value> = serde_json::from_str(text).map_err(|e| wrong(&format!("{e}")))?;
        for (key, allowed) in FIXED {
            let value = object.get(*key).filter(|value| !value.is_null());
            let plain = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            if let Some(plain) = plain
                && !allowed.contains(&plain.as_str())
            {
                let allowed = if allowed.is_empty() { "null".to_owned() } else { allowed.join(" or ") };
                return Err(wrong(&format!("{key} is {plain}, this engine does {allowed}")));
            }
        }
        // null stands for the default
        let set: Map<String, Value> = object.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let config: Self = serde_json::from_value(Value::Object(set)).map_err(|e| wrong(&format!("{e}")))?;
        config.check()?;
        Ok(config)
    }

    /// How many levels there are.
    pub fn levels(&self) -> usize {
        self.block_out_channels.len()
    }

    /// Both sides of a sample must be multiples of this.
    pub fn multiple(&self) -> usize {
        1 << (self.levels() - 1)
    }

    fn check(&self) -> Result<()> {
        let levels = self.levels();
        if levels == 0 || levels > 8 || self.down_block_types.len() != levels || self.up_block_types.len() != levels {
            return Err(wrong(&format!(
                "block_out_channels, down_block_types and up_block_types have {levels}, {} and {} entries: they need one \
                 for each level, from 1 to 8",
                self.down_block_types.len(),
                self.up_block_types.len()
            )));
        }
        let sizes = [self.in_channels, self.out_channels, self.cross_attention_dim];
        if sizes.iter().chain(&self.block_out_channels).any(|n| !(1..=MOST_CHANNELS).contains(n)) {
            return Err(wrong(&format!("every number of channels must lie from 1 to {MOST_CHANNELS}")));
        }
        let (heads, layers) = (&self.attention_head_dim, &self.transformer_layers_per_block);
        if !heads.fits(levels) || !layers.fits(levels) {
            return Err(wrong("attention_head_dim and transformer_layers_per_block need a number for each level"));
        }
        if !(1..=MOST_LAYERS).contains(&self.layers_per_block) || (0..levels).any(|i| layers.at(i) > MOST_LAYERS) {
            return Err(wrong(&format!(
                "layers_per_block and transformer_layers_per_block must lie from 1 to {MOST_LAYERS}"
            )));
        }
        for (i, channels) in self.block_out_channels.iter().enumerate() {
            if self.norm_num_groups == 0 || channels % self.norm_num_groups != 0 {
                return Err(wrong(&format!(
                    "{channels} channels do not divide by norm_num_groups, {}",
                    self.norm_num_groups
                )));
            }
            if channels % heads.at(i) != 0 || channels % 2 != 0 {
                return Err(wrong(&format!("{channels} channels cannot be shared among {} heads", heads.at(i))));
            }
        }
        Ok(())
    }
}

fn wrong(what: &str) -> Error {
    Error::Model(format!("config.json of a U-Net: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        UNetConfig::from_json(text).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_stable_diffusions() {
        let config =
            UNetConfig::from_json(r#"{"sample_size": 64, "_diffusers_version": "0.6", "num_class_embeds": null}"#);
        assert_eq!(config.unwrap(), UNetConfig::default());
        assert_eq!(UNetConfig::default().multiple(), 8);
    }

    #[test]
    fn what_is_not_done_is_named() {
        assert!(refusal(r#"{"act_fn": "gelu"}"#).contains("act_fn is gelu, this engine does silu"));
        assert!(refusal(r#"{"addition_embed_type": "text_time"}"#).contains("does null"));
        assert!(refusal(r#"{"down_block_types": ["AttnDownBlock2D"]}"#).contains("AttnDownBlock2D"));
        assert!(refusal(r#"{"block_out_channels": [320]}"#).contains("have 1, 4 and 4"));
        assert!(refusal(r#"{"norm_num_groups": 7}"#).contains("320 channels do not divide"));
        assert!(refusal(r#"{"attention_head_dim": [5, 10]}"#).contains("for each level"));
        assert!(refusal(r#"{"attention_head_dim": 7}"#).contains("7 heads"));
        assert!(refusal(r#"{"in_channels": 99999999}"#).contains("from 1 to 16384"));
        assert!(refusal("[]").contains("config.json"));
    }

    #[test]
    fn layers_are_bounded() {
        for text in [
            r#"{"layers_per_block": 0}"#,
            r#"{"layers_per_block": 17}"#,
            r#"{"layers_per_block": 16384}"#,
            r#"{"transformer_layers_per_block": 17}"#,
            r#"{"transformer_layers_per_block": [1, 1, 1, 16384]}"#,
        ] {
            assert!(refusal(text).contains("layers_per_block must lie from 1 to 16"), "{text}");
        }
        let deepest = r#"{"layers_per_block": 16, "transformer_layers_per_block": [16, 1, 2, 10]}"#;
        assert!(UNetConfig::from_json(deepest).is_ok());
    }
}
