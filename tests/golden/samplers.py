"""Makes samplers.json: what diffusers computes for many samplers, schedules and settings.

    python -m venv venv && venv/bin/pip install torch==2.15.0 diffusers==0.42.1 numpy==2.4.6
    venv/bin/python tests/golden/samplers.py tests/golden/samplers.json

diffusers works in float32, whose rounding would hide small mistakes (1 - alpha_bar at timestep 0 has 3 good digits). The
same unmodified code therefore runs with float32 read as float64. `float32_deviation` says how far the float32 run is from that.

The network is replaced by 0.3 x + sin(t / 100), the noise of draw k, element i, by 1.3 sin(13 (k + 1) + 4 i): tests/samplers.rs
computes the same. Draw 0 begins the sample; draw k + 1 belongs to step k.
"""

import json
import math
import sys

import numpy as np
import torch
from diffusers.schedulers import scheduling_ddim, scheduling_euler_discrete, scheduling_lcm

CLEAN = [0.6, -0.25, 0.9]
SCHEDULES = {
    "linear": dict(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, num_train_timesteps=1000),
    "scaled_linear": dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, num_train_timesteps=1000),
    "cosine": dict(beta_schedule="squaredcos_cap_v2", num_train_timesteps=1000),
    "short": dict(beta_schedule="linear", beta_start=0.001, beta_end=0.1, num_train_timesteps=37),
}
SAMPLERS = {
    "ddim": (scheduling_ddim, "DDIMScheduler"),
    "euler": (scheduling_euler_discrete, "EulerDiscreteScheduler"),
    "lcm": (scheduling_lcm, "LCMScheduler"),
}

# Left out of the stored cases where a case has the same.
DEFAULT = dict(schedule="scaled_linear", prediction="epsilon", spacing="leading", offset=0, set_alpha_to_one=True,
               clip=None, strength=1.0, eta=0.0, original_steps=50)


class Wide:
    """A module whose float32 is its float64."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return getattr(self.module, "float64" if name == "float32" else name)


def precision(wide):
    torch.set_default_dtype(torch.float64 if wide else torch.float32)
    for module, _ in SAMPLERS.values():
        module.torch = Wide(torch) if wide else torch
        module.np = Wide(np) if wide else np


def noise(draw, dtype):
    return torch.tensor([1.3 * math.sin(13 * (draw + 1) + 4 * i) for i in range(len(CLEAN))], dtype=dtype)


def scheduler_for(case):
    module, name = SAMPLERS[case["sampler"]]
    options = dict(SCHEDULES[case["schedule"]], prediction_type=case["prediction"])
    if case["sampler"] != "lcm":
        options.update(timestep_spacing=case["spacing"], steps_offset=case["offset"])
    if case["sampler"] != "euler":
        options.update(clip_sample=case["clip"] is not None, clip_sample_range=case["clip"] or 1.0)
    if case["sampler"] == "ddim":
        options.update(set_alpha_to_one=case["set_alpha_to_one"])
    return module, getattr(module, name)(**options)


def prepare(case):
    """Timesteps as the img2img pipelines choose them."""
    module, scheduler = scheduler_for(case)
    steps, strength = case["steps"], case["strength"]
    if case["sampler"] == "lcm":
        scheduler.set_timesteps(steps, original_inference_steps=case["original_steps"], strength=strength)
        timesteps = scheduler.timesteps
    else:
        scheduler.set_timesteps(steps)
        start = max(steps - min(int(steps * strength), steps), 0)
        timesteps = scheduler.timesteps[start:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(start)
    return module, scheduler, timesteps


def run(case, wide):
    precision(wide)
    dtype = torch.float64 if wide else torch.float32
    module, scheduler, timesteps = prepare(case)
    x = scheduler.add_noise(torch.tensor([CLEAN], dtype=dtype), noise(0, dtype)[None], timesteps[:1])[0]
    trajectory = [x.tolist()]
    for k, t in enumerate(timesteps):
        module.randn_tensor = lambda *_, **__: noise(k + 1, dtype)
        out = 0.3 * scheduler.scale_model_input(x, t) + math.sin(float(t) / 100)
        options = dict(eta=case["eta"]) if case["sampler"] == "ddim" else {}
        x = scheduler.step(out, t, x, **options).prev_sample
        trajectory.append(x.tolist())
    assert x.dtype == dtype and all(map(math.isfinite, trajectory[-1])), case
    return [float(t) for t in timesteps], float(scheduler.init_noise_sigma), trajectory


def cases():
    samplers = [dict(sampler="ddim", eta=0.0), dict(sampler="ddim", eta=1.0), dict(sampler="euler"), dict(sampler="lcm")]
    for sampler in samplers:
        spacings = ["leading"] if sampler["sampler"] == "lcm" else ["leading", "linspace", "trailing"]
        base = DEFAULT | sampler
        for schedule in ["linear", "scaled_linear", "cosine"]:
            for prediction in ["epsilon", "sample", "v_prediction"]:
                for spacing in spacings:
                    for steps in [1, 2, 4, 50]:
                        yield base | dict(schedule=schedule, prediction=prediction, spacing=spacing, steps=steps)
        for spacing in spacings:
            for steps in [3, 6, 7, 20, 48]:
                yield base | dict(spacing=spacing, steps=steps)
            for steps, strength in [(1, 1.0), (4, 0.5), (5, 0.3), (7, 0.99), (20, 0.35), (50, 0.58)]:
                if sampler["sampler"] != "lcm" or int(50 * strength) >= steps:
                    yield base | dict(spacing=spacing, steps=steps, strength=strength)
            for steps in [1, 5, 36, 37]:
                yield base | dict(schedule="short", original_steps=37, spacing=spacing, steps=steps)
        if sampler["sampler"] != "lcm":
            for steps in [1, 4, 30]:
                yield base | dict(offset=1, set_alpha_to_one=False, steps=steps)
            yield base | dict(spacing="trailing", steps=1000, eta=0.0)
        if sampler["sampler"] != "euler":
            for prediction in ["epsilon", "sample", "v_prediction"]:
                yield base | dict(clip=0.8, prediction=prediction, steps=4)
        if sampler["sampler"] == "ddim":
            yield base | dict(eta=0.4, steps=10)


def checksums(spacing):
    """Sum of (i + 1) t_i for each number of steps from 1 to 1000: all timesteps in little space.

    For some numbers of steps (61 is the first) trailing spacing gives a timestep too many, -1, at the end. It is left out.
    """
    precision(True)
    sums, surplus = [], []
    for steps in range(1, 1001):
        case = DEFAULT | dict(sampler="ddim", schedule="linear", spacing=spacing, steps=steps)
        timesteps = prepare(case)[2]
        if len(timesteps) != steps:  # arange rounds past its end
            assert len(timesteps) == steps + 1 and timesteps[-1] == -1, (spacing, steps)
            surplus.append(steps)
        sums.append(sum((i + 1) * float(t) for i, t in enumerate(timesteps[:steps])))
    print(f"{spacing}: a surplus timestep -1 left out for steps {surplus}")
    return sums


def main(path):
    deviation = 0.0
    stored = []
    for case in cases():
        timesteps, init_noise_sigma, trajectory = run(case, wide=True)
        _, _, narrow = run(case, wide=False)
        for a, b in zip(trajectory[-1], narrow[-1]):
            deviation = max(deviation, abs(a - b) / max(1.0, abs(a)))
        result = dict(init_noise_sigma=init_noise_sigma, begin=trajectory[0], end=trajectory[-1])
        if len(timesteps) <= 7:
            result.update(timesteps=timesteps)
        if len(timesteps) <= 3:
            result.update(between=trajectory[1:-1])
        stored.append({key: value for key, value in case.items() if DEFAULT.get(key, ...) != value} | result)
    alphas = {}
    for name, options in SCHEDULES.items():
        last = options["num_train_timesteps"] - 1
        chosen = sorted({0, 1, last // 7, last // 3, last // 2, last - 1, last})
        values = []
        for wide in [True, False]:
            precision(wide)
            scheduler = scheduling_ddim.DDIMScheduler(**options)
            values.append([float(scheduler.alphas_cumprod[t]) for t in chosen])
        alphas[name] = dict(options, timesteps=chosen, alpha_bar=values[0], alpha_bar_float32=values[1])
    sums = {spacing: checksums(spacing) for spacing in ["linspace", "trailing"]}
    with open(path, "w") as file:
        head = dict(torch=torch.__version__, clean=CLEAN, float32_deviation=deviation, schedules=alphas, timestep_sums=sums)
        file.write(json.dumps(head, separators=(",", ":"))[:-1] + ',"cases":[\n')
        file.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in stored))
        file.write("\n]}\n")
    print(f"{len(stored)} cases, largest float32 deviation {deviation:.1e}")


if __name__ == "__main__":
    main(sys.argv[1])
