"""The live model: one U-Net that redraws a frame given the frame, what was drawn before, and a style.

The network is diffusers' `UNet2DConditionModel`, at a quarter of the frame's size on 4x4 blocks of pixels (no
autoencoder). Frames are RGB in [-1, 1], (batch, 3, height, width), both sides multiples of 16.
"""

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file

from filters import blur

BLOCK = 4
STYLE_TOKENS = 4
MEMORY_GRID = 4
NO_HISTORY = 999

CONFIG = {
    "_class_name": "UNet2DConditionModel",
    "in_channels": 192,
    "out_channels": 48,
    "block_out_channels": [64, 96, 128],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [2, 3, 4],
    "cross_attention_dim": 64,
    "norm_num_groups": 16,
    "transformer_layers_per_block": 1,
    "use_linear_projection": True,
    "class_embed_type": "timestep",
    "act_fn": "silu",
}


def alphas_cumprod():
    """The signal's share of the variance at each of the 1000 timesteps."""
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod


def step_times(count):
    """Timesteps of `count` sampling steps, evenly from 999 downwards: 2 steps are 999 and 499."""
    return [round(1000 * (count - i) / count) - 1 for i in range(count)]


# A stream's first frame has to choose a palette, and the choice falls where the signal just begins to rise above the
# noise averaged over a whole frame. So its steps lie close together near 999 and double from there.
FIRST_FRAME_TIMES = [999, 993, 979, 949, 887, 761, 511, 255]


class LiveModel(torch.nn.Module):
    """The network, the table of style tokens, and the reading of the context memory."""

    def __init__(self, styles):
        super().__init__()
        self.styles = list(styles)
        self.half = False  # run the network itself in bfloat16, as training on a GPU does
        self.unet = UNet2DConditionModel.from_config(CONFIG)
        width = CONFIG["cross_attention_dim"]
        self.style_tokens = torch.nn.Parameter(torch.randn(len(self.styles), STYLE_TOKENS, width) * 0.5)
        self.memory = torch.nn.Linear(6, width)
        self.register_buffer("alphas", alphas_cumprod(), persistent=False)

    def tokens(self, weights, memory=None):
        """Tokens for cross-attention: `weights` (b, styles) sums to 1; `memory` (b, n, 6) holds the stored cells."""
        style = torch.einsum("bs,snc->bnc", weights, self.style_tokens)
        return style if memory is None else torch.cat([style, self.memory(memory)], 1)

    def noised(self, x, t, noise):
        """`x` at the noise of timestep `t` (b,)."""
        share = self.alphas[t].view(-1, 1, 1, 1)
        return share.sqrt() * x + (1 - share).sqrt() * noise

    def forward(self, noisy, t, frame, newer, older, h, tokens):
        """The clean frame behind `noisy` at `t` (b,), given the input and both previous outputs noised at `h` (b,)."""
        stack = torch.cat([F.pixel_unshuffle(x, BLOCK) for x in (noisy, frame, newer, older)], 1)
        stack = stack.contiguous(memory_format=torch.channels_last)
        with torch.autocast(stack.device.type, torch.bfloat16, enabled=self.half):
            out = self.unet(stack, t, encoder_hidden_states=tokens, class_labels=h, return_dict=False)[0]
        return F.pixel_shuffle(out.float(), BLOCK)

    def ddim(self, noisy, clean, t, to):
        """One deterministic step (DDIM) from timestep `t` to `to`, both (b,), given the predicted clean frame."""
        share, next_share = self.alphas[t].view(-1, 1, 1, 1), self.alphas[to].view(-1, 1, 1, 1)
        noise = (noisy - share.sqrt() * clean) / (1 - share).sqrt()
        return next_share.sqrt() * clean + (1 - next_share).sqrt() * noise

    def sample(self, noise, times, frame, newer, older, h, tokens):
        """A frame drawn in `len(times)` steps from pure noise; the history is given already noised."""
        x = noise
        for i, time in enumerate(times):
            t = torch.full((len(x),), time, device=x.device)
            clean = self(x, t, frame, newer, older, h, tokens).clamp(-1, 1)
            if i + 1 < len(times):
                x = self.ddim(x, clean, t, torch.full_like(t, times[i + 1]))
        return clean

    def save(self, path):
        """The checkpoint of the engine: f16, with the configuration and the styles' names beside the weights."""
        tensors = {k: v.detach().half().contiguous().cpu() for k, v in self.state_dict().items()}
        metadata = {"format": "mirage-live", "config": self.unet.to_json_string(), "styles": ",".join(self.styles)}
        save_file(tensors, path, metadata)

    @staticmethod
    def load(path):
        """A model from a checkpoint, in f32."""
        with safe_open(path, "pt") as file:
            model = LiveModel(file.metadata()["styles"].split(","))
            model.load_state_dict({k: file.get_tensor(k).float() for k in file.keys()})
        return model


def memory_cells(frame, output):
    """What the memory keeps of a frame: (b, 16, 6), the mean RGB of input and output in each cell of a 4x4 grid."""
    cells = F.adaptive_avg_pool2d(torch.cat([frame, output], 1), MEMORY_GRID)
    return cells.flatten(2).transpose(1, 2)


# How much of a new frame is kept: STILL where the input stands still, up to MOVING where it moves.
STILL, MOVING, CHANGE = 0.15, 0.95, 0.02


def new_share(frame, before):
    """The share of the new frame at each pixel (b, 1, h, w), by how much the input has changed since the last frame."""
    change = blur((frame - before).abs().mean(1, keepdim=True), 1.0)
    return STILL + (MOVING - STILL) * change**2 / (change**2 + CHANGE**2)


class Stream:
    """The model over time, the way the engine runs it: history, context memory, a few steps a frame."""

    def __init__(self, model, weights, steps=2, history_noise=100, memory_ring=3, memory_every=30, blend=None, seed=0):
        self.model, self.weights, self.steps, self.h = model, weights, steps, history_noise
        self.ring, self.every, self.blend = memory_ring, memory_every, blend
        self.generator = torch.Generator().manual_seed(seed)
        self.newer = self.older = self.before = None
        self.memory, self.count = [], 0

    def noise(self, like):
        return torch.randn(like.shape, generator=self.generator).to(like.device)

    def remember(self, frame, output):
        """Take (frame, output) as the latest frame of this stream, drawn by the model or given."""
        self.newer, self.older = output, output if self.newer is None else self.newer
        self.before = frame
        if self.ring > 0 and self.count % self.every == 0:
            self.memory.append(memory_cells(frame, output))
            if len(self.memory) > 1 + self.ring:
                del self.memory[1]  # the anchor, the first one, stays
        self.count += 1

    @torch.no_grad()
    def step(self, frame):
        """Draw the next frame, (b, 3, h, w) in [-1, 1], and remember it."""
        model, times = self.model, step_times(self.steps)
        h = torch.full((len(frame),), self.h, device=frame.device)
        if self.newer is None:
            h, times = torch.full_like(h, NO_HISTORY), FIRST_FRAME_TIMES
            newer, older = self.noise(frame), self.noise(frame)
        else:
            newer = model.noised(self.newer, h, self.noise(frame))
            older = model.noised(self.older, h, self.noise(frame))
        memory = torch.cat(self.memory, 1) if self.memory else None
        tokens = model.tokens(self.weights, memory)
        output = model.sample(self.noise(frame), times, frame, newer, older, h, tokens)
        if self.newer is not None:
            share = new_share(frame, self.before) if self.blend is None else self.blend
            output = self.newer + (output - self.newer) * share
        self.remember(frame, output)
        return output
