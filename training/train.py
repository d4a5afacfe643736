"""Trains the live model: diffusion forcing, then rollouts on its own outputs, then few-step sampling; or fine-tunes it.

    python3 train.py --photos photos/photos.zip --out runs/live --minutes 8.5 [--resume] [--profile h100|cpu]
    python3 train.py --weights runs/live/live.safetensors --profile finetune --out runs/fine --minutes 8.7

A run stops after `--minutes` and leaves everything needed to go on with `--resume`. Which stage it is in follows from
the minutes trained so far and the profile's plan, so the whole recipe is the same command over and over. It writes
`live.safetensors` (averaged weights, the engine's checkpoint) and what `checkpoint.py` tells, `log.jsonl`, and a
sheet of input, teacher, model and a stream's first frame per evaluation.
"""

import argparse
import copy
import json
import math
import pathlib
import random
import time

import torch

import checkpoint
import photos
from live import LiveModel, Stream
from scenes import Photographs, Scenes
from sheet import save_sheet
from streams import Streams
from teacher import STYLES, teach
from trainer import Trainer

# sizes: (height, width, streams, share of the steps). Small frames show many palettes a second, large ones teach what a
# frame looks like far from its border. plan: minutes of each stage; after the last one the last goes on. What a profile
# does not name has the default of the function that takes it.
#
# Fine-tuning goes on from finished weights (--weights) with what the first training had little of: large frames, sharp
# photographs with less noise, and a loss in which fine strokes count.
FINE = {
    "plan": {"finetune": 8.7}, "half": True, "evaluate": 4.0,
    "loss": {"delta": 0.5, "slopes": 0.25},
    "scenes": {"closest": 0.9, "noisy": 0.4, "noise": 0.05, "soft": 0.2},
}
PROFILES = {
    "h100": {
        "sizes": [(64, 64, 768, 0.5), (128, 128, 192, 0.35), (144, 256, 84, 0.15)],
        "plan": {"forcing": 13.0, "rollout": 7.0, "fewstep": 6.0},
        "rate": 1e-3, "average": 0.9995, "half": True, "evaluate": 4.0,
    },
    # turns: ink and papercut, which were below their aims or nearest to them, come more often. As many places as share no
    # divisor with the 20 of `sampled_rows` or the 7 of `places` and scenes.py, so that each style has its share of everything.
    "finetune": {
        **FINE,
        "sizes": [(64, 64, 768, 0.15), (128, 128, 192, 0.35), (144, 256, 84, 0.5)],
        "rate": 4e-4, "last": 0.01, "average": 0.999,
        "turns": "ink papercut oil neon ink papercut glass ink oil papercut frost".split(),
    },
    # After it, for `oil`, which had lost by it on two clips of three: the same, more gently.
    "finetune-oil": {
        **FINE,
        "sizes": [(64, 64, 768, 0.1), (128, 128, 192, 0.3), (144, 256, 84, 0.6)],
        "rate": 3e-4, "last": 0.005, "average": 0.9995,
        "turns": "ink oil papercut ink neon oil ink papercut glass oil frost ink papercut".split(),
    },
    "cpu": {
        "sizes": [(64, 64, 16, 0.7), (128, 128, 4, 0.3)],
        "plan": {"forcing": 180.0, "rollout": 120.0, "fewstep": 120.0},
        "rate": 8e-4, "average": 0.999, "half": False, "evaluate": 15.0,
    },
}
# How many of the memory's entries a step reads, and the share of the steps.
ENTRIES = {0: 0.3, 1: 0.25, 2: 0.1, 4: 0.35}
# Share of the streams that are sampled as the engine samples them, by stage, and in how many steps.
ON_POLICY = {"forcing": (0.2, [1, 2]), "rollout": (0.6, [2]), "fewstep": (0.75, [1, 2, 2, 4]), "finetune": (0.6, [2])}


def stage_at(plan, minutes):
    """The stage that `minutes` of training have reached."""
    for name, length in plan.items():
        if minutes < length:
            return name
        minutes -= length
    return name


def rate_at(profile, minutes, step):
    """Learning rate: a short warm-up, then a half cosine over the plan down to a twentieth, or the profile's `last`."""
    done = min(1.0, minutes / sum(profile["plan"].values()))
    last = profile.get("last", 0.05)
    return profile["rate"] * min(1.0, (step + 1) / 300) * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def evaluate(model, photographs, sheet, frames=24):
    """PSNR per style against the teacher on fixed scenes, two steps a frame, the teacher's first frame as history."""
    styles = len(STYLES)
    scenes = Scenes(photographs, styles, 96, 160)
    weights = torch.eye(styles, device=scenes.device)
    palettes = torch.arange(styles, device=scenes.device).remainder(6).view(-1, 1).expand(-1, styles)
    phases = palettes % 4
    stream = Stream(model, weights)
    never = torch.zeros(styles, dtype=torch.bool, device=scenes.device)
    error = 0
    for index in range(frames):
        frame = scenes.frames()
        target = teach(frame, weights, palettes, phases)
        if index == 0:
            stream.remember(frame, target)
        else:
            drawn = stream.step(frame)
            error = error + ((drawn - target) ** 2).mean((1, 2, 3)) / (frames - 1)
        scenes.advance(never)
    opening = Stream(model, weights, seed=1).step(frame)
    save_sheet(sheet, [list(frame), list(target), list(drawn), list(opening)])
    return dict(zip(STYLES, (round(x, 2) for x in (10 * torch.log10(4 / error)).tolist())))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", default="photos/photos.zip")
    parser.add_argument("--out", default="runs/live", type=pathlib.Path)
    parser.add_argument("--minutes", default=8.5, type=float)
    parser.add_argument("--profile", default="h100", choices=PROFILES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--weights", help="start from this checkpoint's weights, with a new optimiser")
    parser.add_argument("--seed", default=2026, type=int)
    options = parser.parse_args()
    profile, device = PROFILES[options.profile], torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)  # its backward pass gave NaN once in 9000 steps
    options.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(options.seed)
    model = LiveModel.load(options.weights) if options.weights else LiveModel(STYLES)
    model = model.to(device, memory_format=torch.channels_last)
    model.half = profile["half"]
    average = copy.deepcopy(model).requires_grad_(False)
    rate = torch.tensor(profile["rate"], device=device)
    graphs = device.type == "cuda"
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=graphs, capturable=graphs
    )
    step, before = checkpoint.load(options.out, model, average, optimiser) if options.resume else (0, 0.0)
    # Data goes on from another seed after each resume, or the recipe would see its first minutes again and again.
    seed = options.seed + step
    random.seed(seed)
    torch.manual_seed(seed)
    photographs = Photographs(photos.read(options.photos), device)
    data = {name: profile[name] for name in ("turns", "scenes") if name in profile}
    pools = [Streams(photographs, n, h, w, **data) for h, w, n, _ in profile["sizes"]]
    shares = [share for *_, share in profile["sizes"]]
    trainer = Trainer(model, optimiser, pools, profile.get("loss"))
    log = open(options.out / "log.jsonl", "a", buffering=1)

    def write(**entry):
        log.write(json.dumps({"step": step, "minutes": round(minutes, 3), **entry}) + "\n")

    samples = 0
    minutes = evaluated = saved = before
    clock = time.monotonic()
    while True:
        # A process that was stopped for a while has not trained meanwhile.
        minutes += min(time.monotonic() - clock, 60.0) / 60
        clock = time.monotonic()
        over, due = minutes - before >= options.minutes, minutes - evaluated >= profile["evaluate"]
        if over or due:
            evaluated = minutes
            average.eval()
            with torch.random.fork_rng([device] if graphs else []):
                torch.manual_seed(77)
                write(psnr=evaluate(average, photographs, options.out / f"sheet-{step:07d}.png"))
        if over or due or minutes - saved >= 4:
            saved = minutes
            checkpoint.save(options.out, model, average, optimiser, step, minutes)
        if over:
            return
        stage = stage_at(profile["plan"], minutes)
        trainer.set_policy(ON_POLICY[stage])
        rate.fill_(rate_at(profile, minutes, step))
        pool, entries = (random.choices(range(len(x)), x)[0] for x in (shares, list(ENTRIES.values())))
        trainer.step(pool, list(ENTRIES)[entries])
        step += 1
        keep = min(profile["average"], (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        samples += len(pools[pool].share)
        if step % 50 == 0:
            means = {name: round(value, 5) for name, value in trainer.means(50).items()}
            pace = samples / max(1e-6, (minutes - before) * 60)
            write(stage=stage, rate=round(float(rate), 6), samples_per_second=round(pace, 1), **means)


if __name__ == "__main__":
    main()
