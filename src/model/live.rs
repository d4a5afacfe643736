//! The live model: restyles a stream, frame by frame, at a quarter of the frame's size on 4x4 blocks of pixels.
//!
//! A conditional U-Net reads the noisy sample, the input frame and the two frames drawn last (noised, and told how much:
//! GameNGen, arXiv:2408.14837; Diffusion Forcing, arXiv:2407.01392). Its cross-attention reads the style's tokens and a
//! token for each cell of the frames that the context memory keeps. `training/` says how it was made.
use super::unet::{UNet, UNetConfig};
use super::{Condition, FrameNetwork, Given, Restyling, Scope, Weights};
use crate::ops::linear::LinearKernel;
use crate::ops::{Activation, Layer, LinearParams, Ops};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Pixels along each side of a block, which becomes one position with `3 * 16` channels.
const BLOCK: usize = 4;
/// Channels of a frame in blocks.
const PLANES: usize = 3 * BLOCK * BLOCK;
/// The sample, the input frame, and two frames of history.
const IMAGES: usize = 4;
/// Tokens of a style.
const STYLE_TOKENS: usize = 4;
/// Numbers in a cell of the memory: the mean RGB of input and output.
const CELL: usize = 6;
/// Timesteps of the diffusion process.
const TIMESTEPS: usize = 1000;
/// The longest side that a frame is drawn at unless a size is asked for.
const USUAL_SIDE: usize = 256;
/// The noise on the history that the network was trained to correct.
const HISTORY_TIMESTEP: usize = 100;
/// A palette is chosen where the signal just rises above the noise averaged over a frame: steps lie close together there.
const FIRST_FRAME: [usize; 8] = [999, 993, 979, 949, 887, 761, 511, 255];

/// What the network is built as where no file says otherwise: the configuration that `training/` trains.
const CONFIG: &str = r#"{
    "in_channels": 192, "out_channels": 48, "block_out_channels": [64, 96, 128], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [2, 3, 4], "cross_attention_dim": 64, "norm_num_groups": 16, "use_linear_projection": true,
    "class_embed_type": "timestep"
}"#;
/// The styles likewise.
const STYLES: &str = "none,ink,oil,neon,papercut,glass,frost";
/// What the checkpoint's `format` says.
const FORMAT: &str = "mirage-live";

/// The trained weights, which every build of the program holds: `assets/README.md` is their card.
const TRAINED: &[u8] = include_bytes!("../../assets/mirage-live.safetensors");

/// The network, its weights prepared for the stages that will run it.
pub struct Live {
    unet: UNet,
    multiple: usize,
    /// `(styles, 4, width)`.
    style_tokens: Tensor,
    /// From a cell of the memory to a token.
    memory: Layer<dyn LinearKernel>,
    restyling: Restyling,
}

impl Live {
    /// The trained weights in the box.
    ///
    /// # Errors
    /// None that a build which passes its tests can give.
    pub fn trained(device: &Device) -> Result<Weights> {
        Weights::bytes(TRAINED, "the weights in the box", device)
    }

    /// Loads the network as the checkpoint's own metadata describes it.
    ///
    /// # Errors
    /// A file of another format or configuration, and whatever `weights` finds wrong.
    pub fn load(ops: &Ops, weights: &Weights) -> Result<Self> {
        if let Some(format) = weights.metadata("format").filter(|format| *format != FORMAT) {
            return Err(weights.misfit(&format!(
                "its format is {format:?}, this network's is {FORMAT:?}: choose the --model that it was made for"
            )));
        }
        let config = UNetConfig::from_json(weights.metadata("config").unwrap_or(CONFIG)).map_err(|e| {
            weights.misfit(&format!("its `config` cannot be used: {e}; fetch the file again or choose another --model"))
        })?;
        let styles: Vec<String> =
            weights.metadata("styles").unwrap_or(STYLES).split(',').map(|name| name.trim().to_owned()).collect();
        if config.in_channels != IMAGES * PLANES || config.out_channels != PLANES || config.class_embed_type.is_none() {
            return Err(weights.misfit(&format!(
                "the live model's U-Net takes {} channels and gives {PLANES}, with the history's noise as class_embed_type \
                 \"timestep\"; its `config` says {}, {} and {:?}: choose the --model that it was made for",
                IMAGES * PLANES,
                config.in_channels,
                config.out_channels,
                config.class_embed_type
            )));
        }
        let w: &Scope<'_> = &weights.root();
        let width = config.cross_attention_dim;
        let linear = LinearParams {
            weight: w.pp("memory").get((width, CELL), "weight")?,
            bias: Some(w.pp("memory").get(width, "bias")?),
            activation: Activation::None,
        };
        Ok(Self {
            unet: UNet::load(ops, &w.pp("unet"), &config)?,
            multiple: BLOCK * config.multiple(),
            style_tokens: w.get((styles.len(), STYLE_TOKENS, width), "style_tokens")?,
            memory: ops.prepare_linear("memory", linear)?,
            restyling: Restyling { styles, history_timestep: HISTORY_TIMESTEP, first_frame: FIRST_FRAME.to_vec() },
        })
    }

    /// Tokens for cross-attention, `(batch, n, width)`: the mixed style's, then those of the memory.
    fn tokens(&self, ops: &Ops, batch: usize, style: &[f64], memory: &[Tensor]) -> Result<Tensor> {
        let (styles, tokens, width) = self.style_tokens.dims3()?;
        if style.len() != styles {
            let names = self.restyling.styles.join(", ");
            return Err(Error::Model(format!("{} weights for {styles} styles: {names}", style.len())));
        }
        let weights: Vec<f32> = style.iter().map(|w| *w as f32).collect();
        let weights = Tensor::from_vec(weights, (1, styles), &ops.device)?;
        let mixed = weights.matmul(&self.style_tokens.reshape((styles, tokens * width))?)?;
        let mixed = mixed.reshape((1, tokens, width))?.broadcast_as((batch, tokens, width))?.to_dtype(ops.dtype)?;
        let mut all = vec![mixed.contiguous()?];
        for cells in memory {
            all.push(ops.linear(&self.memory, &cells.to_dtype(ops.dtype)?, None)?);
        }
        Ok(Tensor::cat(&all, 1)?)
    }
}

impl FrameNetwork for Live {
    fn multiple(&self) -> usize {
        self.multiple
    }

    fn usual_side(&self) -> usize {
        USUAL_SIDE
    }

    fn timesteps(&self) -> usize {
        TIMESTEPS
    }

    fn restyling(&self) -> Option<&Restyling> {
        Some(&self.restyling)
    }

    fn heads(&self, layer: &str) -> Option<usize> {
        self.unet.heads(layer)
    }

    fn condition(&self, ops: &Ops, given: &Given<'_>) -> Result<Condition> {
        let batch = given.frame.dim(0)?;
        let images = [given.frame, given.history[0], given.history[1]];
        let planes = images.iter().map(|image| self.blocks(image)).collect::<Result<Vec<_>>>()?;
        Ok(Condition {
            planes: Tensor::cat(&planes, 3)?.permute((0, 3, 1, 2))?,
            tokens: Some(self.tokens(ops, batch, given.style, given.memory)?),
            history_timestep: given.history_timestep,
        })
    }

    fn call(&self, ops: &Ops, x: &Tensor, timestep: f64, condition: &Condition) -> Result<Tensor> {
        let (b, _, h, w) = x.dims4()?;
        let sample = self.blocks(x)?.permute((0, 3, 1, 2))?;
        let tokens = condition.tokens.as_ref().ok_or_else(|| Error::Model("the live model needs its tokens".into()))?;
        let label = Some(condition.history_timestep);
        let y = self.unet.forward(ops, &sample, Some(&condition.planes), timestep, tokens, label)?;
        // (b, 3 * 16, h/4, w/4) to (b, 3, h, w): each channel's 16 values are the pixels of a block, row by row
        let y = y.permute((0, 2, 3, 1))?.reshape((b, h / BLOCK, w / BLOCK, 3, BLOCK, BLOCK))?;
        Ok(y.permute((0, 3, 1, 4, 2, 5))?.reshape((b, 3, h, w))?)
    }
}

impl Live {
    /// `(b, 3, h, w)` to `(b, h/4, w/4, 3 * 16)`: PyTorch's `pixel_unshuffle`, with the channels last.
    fn blocks(&self, image: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = image.dims4()?;
        if c != 3 || h * w == 0 || h % self.multiple != 0 || w % self.multiple != 0 {
            return Err(Error::Model(format!(
                "the live model takes (batch, 3, height, width) with sides that divide by {}, not {:?}",
                self.multiple,
                image.dims()
            )));
        }
        let blocks = image.contiguous()?.reshape((b, 3, h / BLOCK, BLOCK, w / BLOCK, BLOCK))?;
        Ok(blocks.permute((0, 2, 4, 1, 3, 5))?.reshape((b, h / BLOCK, w / BLOCK, PLANES))?)
    }
}

/// The mean RGB of a frame and of what was drawn of it, in each cell of a 4x4 grid: `(b, 3, h, w)` twice to `(b, 16, 6)`,
/// in f32. Sides must divide by 4.
pub(crate) fn memory_cells(frame: &Tensor, drawn: &Tensor) -> Result<Tensor> {
    const GRID: usize = 4;
    let both = Tensor::cat(&[&frame.to_dtype(DType::F32)?, &drawn.to_dtype(DType::F32)?], 1)?;
    let (b, c, h, w) = both.dims4()?;
    let cells = both.reshape((b, c, GRID, h / GRID, GRID, w / GRID))?;
    // (b, c, 4, 4) to (b, 16, c)
    Ok(cells.mean((3, 5))?.reshape((b, c, GRID * GRID))?.transpose(1, 2)?.contiguous()?)
}
