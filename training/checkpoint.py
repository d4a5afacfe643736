"""What a run leaves behind and the next goes on from, small enough to travel between machines: 35 MB in all.

`live.safetensors` holds the averaged weights and is the engine's checkpoint; `model.safetensors` the weights in
training, both f16; `variance.safetensors` Adam's second moments in bfloat16, which has their range; `progress.json` how
far it is. Rounding the weights once a run is far below what one step changes, and Adam's first moments build up again
in ten steps.
"""

import json
import os

import torch
from safetensors.torch import load_file, save_file

from live import LiveModel


def _replace(path, write):
    """Write beside and rename, so that a run cut short leaves the old file or the new one."""
    part = path.with_suffix(".part")
    write(part)
    os.replace(part, path)


def save(folder, model, average, optimiser, step, minutes):
    """Write everything into `folder`; the progress last."""
    variance = {
        name: optimiser.state[parameter]["exp_avg_sq"].to(torch.bfloat16).contiguous().cpu()
        for name, parameter in model.named_parameters() if parameter in optimiser.state
    }
    _replace(folder / "live.safetensors", average.save)
    _replace(folder / "model.safetensors", model.save)
    _replace(folder / "variance.safetensors", lambda part: save_file(variance, part))
    progress = json.dumps({"step": step, "minutes": minutes})
    _replace(folder / "progress.json", lambda part: part.write_text(progress))


def load(folder, model, average, optimiser):
    """Put a run back as it was saved; returns its step and minutes, 0 and 0 where there is none."""
    if not (folder / "progress.json").exists():
        return 0, 0.0
    progress = json.loads((folder / "progress.json").read_text())
    model.load_state_dict(LiveModel.load(folder / "model.safetensors").state_dict())
    average.load_state_dict(LiveModel.load(folder / "live.safetensors").state_dict())
    variance = load_file(folder / "variance.safetensors")
    for name, parameter in model.named_parameters():
        if name in variance:
            second = torch.zeros_like(parameter).copy_(variance[name])
            done = torch.tensor(float(progress["step"]), device=parameter.device)
            state = {"step": done, "exp_avg": torch.zeros_like(parameter)}
            optimiser.state[parameter] = {**state, "exp_avg_sq": second}
    return progress["step"], progress["minutes"]
