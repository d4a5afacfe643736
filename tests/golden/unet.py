#!/usr/bin/env python3
"""Writes unet.safetensors: what diffusers' UNet2DConditionModel draws for several configurations.

    pip install torch diffusers==0.42.1 safetensors numpy
    python3 tests/golden/unet.py

Weights and inputs are those of src/model/formula.rs, so the file holds outputs alone; the configurations and the calls
lie in its metadata.
"""
import json
import pathlib

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).with_name("unet.safetensors")
CROSS_DOWN, DOWN, CROSS_UP, UP = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"

# name: (config, batch, height, width, tokens, timestep, class label)
CASES = {
    "sd-turbo": (
        dict(
            block_out_channels=[32, 64, 64, 96], layers_per_block=2, attention_head_dim=[1, 2, 4, 6],
            down_block_types=[CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN], up_block_types=[UP, CROSS_UP, CROSS_UP, CROSS_UP],
            use_linear_projection=True, cross_attention_dim=48, norm_num_groups=16,
        ),
        1, 16, 24, 7, 999, None,
    ),
    "sd-1.5": (
        dict(
            block_out_channels=[32, 64], layers_per_block=1, attention_head_dim=4, down_block_types=[CROSS_DOWN, DOWN],
            up_block_types=[UP, CROSS_UP], cross_attention_dim=24, norm_num_groups=8,
        ),
        2, 10, 14, 5, 261, None,
    ),
    "live-tiny": (
        dict(
            in_channels=24, out_channels=6, block_out_channels=[16, 32, 48], layers_per_block=1,
            down_block_types=[DOWN, CROSS_DOWN, CROSS_DOWN], up_block_types=[CROSS_UP, CROSS_UP, UP],
            attention_head_dim=[1, 2, 3], cross_attention_dim=16, norm_num_groups=8, use_linear_projection=True,
            class_embed_type="timestep",
        ),
        2, 8, 12, 20, 499, 100,
    ),
    "live": (
        dict(
            in_channels=192, out_channels=48, block_out_channels=[64, 96, 128], layers_per_block=1,
            down_block_types=[DOWN, CROSS_DOWN, CROSS_DOWN], up_block_types=[CROSS_UP, CROSS_UP, UP],
            attention_head_dim=[2, 3, 4], cross_attention_dim=64, norm_num_groups=16, use_linear_projection=True,
            class_embed_type="timestep",
        ),
        1, 8, 16, 20, 999, 100,
    ),
    "deep": (
        dict(
            block_out_channels=[32, 32, 64], layers_per_block=2, transformer_layers_per_block=2, attention_head_dim=2,
            down_block_types=[CROSS_DOWN, CROSS_DOWN, DOWN], up_block_types=[UP, CROSS_UP, CROSS_UP], cross_attention_dim=32,
            norm_num_groups=32, flip_sin_to_cos=False, freq_shift=1, center_input_sample=True, norm_eps=1e-6,
        ),
        1, 12, 8, 3, 1, None,
    ),
}
SHARED = dict(mid_block_type="UNetMidBlock2DCrossAttn")


def fnv1a64(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) % (1 << 64)
    return h


def uniform(name, count):
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + np.uint64(fnv1a64(name)) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / (1 << 24) * 2 - 1


def parameter(name, shape):
    u = uniform(name, int(np.prod(shape)))
    if len(shape) >= 2:
        u = u * np.sqrt(6 / np.prod(shape[1:]))
    else:
        u = 1 + 0.1 * u if name.endswith("weight") else 0.1 * u
    return torch.from_numpy(u.astype(np.float32).reshape(shape))


def given(name, shape):
    return torch.from_numpy((uniform(name, int(np.prod(shape))).astype(np.float32) * np.float32(1.7)).reshape(shape))


@torch.no_grad()
def main():
    outputs, calls = {}, {}
    for name, (config, batch, height, width, tokens, timestep, label) in CASES.items():
        config = SHARED | config
        model = UNet2DConditionModel.from_config(config).eval()
        model.load_state_dict({key: parameter(key, value.shape) for key, value in model.state_dict().items()})
        sample = given("unet.sample", (batch, model.config.in_channels, height, width))
        context = given("unet.context", (batch, tokens, model.config.cross_attention_dim))
        labels = None if label is None else torch.full((batch,), label)
        outputs[name] = model(sample, timestep, context, class_labels=labels).sample.contiguous()
        calls[name] = dict(
            config=json.loads(model.to_json_string()), sample=list(sample.shape), context=list(context.shape),
            timestep=timestep, class_label=label, parameters=sum(p.numel() for p in model.parameters()),
        )
        print(name, calls[name]["parameters"], float(outputs[name].abs().max()))
    save_file(outputs, OUT, {"calls": json.dumps(calls)})


if __name__ == "__main__":
    main()
