#!/usr/bin/env python3
"""Writes live.safetensors: what training/live.py, the network as it is trained, draws for one call with history and memory.

    pip install -r training/requirements.txt
    python3 tests/golden/live_model.py

Weights and inputs are those of src/model/formula.rs, so the file holds the result alone.
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "training")]
from live import LiveModel, memory_cells  # noqa: E402
from unet import given, parameter  # noqa: E402

STYLES = "none,ink,oil,neon,papercut,glass,frost".split(",")


@torch.no_grad()
def main():
    model = LiveModel(STYLES).eval()
    model.load_state_dict({name: parameter(name, value.shape) for name, value in model.state_dict().items()})
    shape = (2, 3, 32, 48)
    noisy, frame, newer, older, past = (given(f"live.{name}", shape) for name in ("noisy", "frame", "newer", "older", "past"))
    weights = torch.tensor([0.25, 0, 0, 0.45, 0, 0, 0.3]).expand(2, -1)
    tokens = model.tokens(weights, torch.cat([memory_cells(past, frame), memory_cells(frame, newer)], 1))
    t, h = (torch.full((2,), value) for value in (499, 100))
    clean = model(noisy, t, frame, newer, older, h, tokens)
    print(float(clean.abs().max()))
    save_file({"clean": clean.contiguous()}, HERE / "live.safetensors")


if __name__ == "__main__":
    main()
