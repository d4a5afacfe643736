"""Trains the live model: diffusion forcing, then rollouts on its own outputs, then few-step sampling.

    python3 train.py --photos photos/photos.zip --out runs/live --minutes 8.5 [--resume] [--profile h100|cpu]

A run stops after `--minutes` and leaves everything needed to go on with `--resume`. Which stage it is in follows from the
minutes trained so far and the profile's plan, so the whole recipe is the same command over and over. It writes
`live.safetensors` (averaged weights, the engine's checkpoint), `state.pt`, `log.jsonl` and a sheet per evaluation.
"""

import argparse
import copy
import json
import math
import os
import pathlib
import random
import time

import torch
import torch.nn.functional as F

import photos
from live import FIRST_FRAME_TIMES, NO_HISTORY, LiveModel, Stream, step_times
from scenes import Photographs, Scenes
from sheet import save_sheet
from streams import Streams, corrupted
from teacher import STYLES, teach

HISTORY_NOISE = 100  # the level that the engine uses

# sizes: (height, width, streams, share of the steps). Small frames show many palettes a second, large ones teach what a
# frame looks like far from its border. plan: minutes of each stage; after the last one the last goes on.
PROFILES = {
    "h100": {
        "sizes": [(64, 64, 768, 0.5), (128, 128, 192, 0.35), (144, 256, 84, 0.15)],
        "plan": {"forcing": 42.0, "rollout": 25.0, "fewstep": 17.0},
        "rate": 1e-3, "average": 0.9995, "half": True, "evaluate": 4.0,
    },
    "cpu": {
        "sizes": [(64, 64, 32, 0.75), (128, 128, 8, 0.25)],
        "plan": {"forcing": 150.0, "rollout": 90.0, "fewstep": 120.0},
        "rate": 6e-4, "average": 0.999, "half": False, "evaluate": 15.0,
    },
}
# Share of the streams that are sampled as the engine samples them, by stage, and in how many steps.
ON_POLICY = {"forcing": (0.0, [2]), "rollout": (0.6, [2]), "fewstep": (0.75, [1, 2, 2, 4])}


def stage_at(plan, minutes):
    """The stage that `minutes` of training have reached."""
    for name, length in plan.items():
        if minutes < length:
            return name
        minutes -= length
    return name


def rate_at(profile, minutes, step):
    """Learning rate: a short warm-up, then a half cosine over the plan down to a twentieth."""
    done = min(1.0, minutes / sum(profile["plan"].values()))
    return profile["rate"] * min(1.0, (step + 1) / 300) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def draw_times(n, first, device):
    """Timesteps of the current frame, independent of the history's (diffusion forcing).

    Where there is no history, the palette is still open and is decided at very high noise, so most draws lie there and
    on the first frame's steps. Elsewhere the steps that sampling will use get most of the draws.
    """
    u, pick = torch.rand(n, device=device), torch.rand(n, device=device)
    near_top = (999 - 1000 * u**2.5).clamp(0, 999).long()
    listed = torch.tensor(FIRST_FRAME_TIMES, device=device)[torch.randint(len(FIRST_FRAME_TIMES), (n,), device=device)]
    opening = torch.where(pick < 0.4, listed, near_top)
    grid = torch.tensor([999, 999, 499, 749, 249], device=device)[torch.randint(5, (n,), device=device)]
    later = torch.where(pick < 0.6, grid, (1000 * u).long())
    return torch.where(first, opening, later)


def draw_history(streams, on_policy, model):
    """The two previous outputs as the network will see them, with their noise level: (newer, older, h, first).

    h = 999: dropped. h = 0: the teacher's clean frames only, never anything else, which is the trusting variant that
    has to drift. Between: the network's own outputs, or the teacher's, more corrupted the higher h is.
    """
    n, device = len(streams.own), streams.device
    kind = torch.rand(n, device=device)
    first, clean = ~on_policy & (kind < 0.16), ~on_policy & (kind >= 0.16) & (kind < 0.26)
    spread = torch.exp(torch.empty(n, device=device).uniform_(math.log(15), math.log(700))).long()
    h = torch.where(torch.rand(n, device=device) < torch.where(on_policy, 0.8, 0.3), HISTORY_NOISE, spread)
    h = torch.where(clean, 0, torch.where(first, NO_HISTORY, h))
    own = on_policy | (torch.rand(n, device=device) < 0.5)
    noise_share = (1 - model.alphas[h]).sqrt()
    damaged = corrupted(streams.taught, torch.where(torch.rand(n, device=device) < 0.7, noise_share, 0.0))
    past = torch.where(own.view(-1, 1, 1, 1, 1), streams.own, damaged)
    past = torch.where(clean.view(-1, 1, 1, 1, 1), streams.taught, past)
    # A stream's second frame has only one behind it, which then stands for both.
    lone = torch.rand(n, device=device) < 0.06
    older = torch.where(lone.view(-1, 1, 1, 1), past[:, 0], past[:, 1])
    newer, older = (model.noised(x, h, torch.randn_like(x)) for x in (past[:, 0], older))
    return newer, older, h, first


def draw_memory(streams):
    """The memory's cells for this step, (b, 16 * entries, 6) or none; the same number of entries for all streams."""
    entries = random.choices(range(streams.memory.shape[1] + 1), [0.3, 0.2, 0.15, 0.15, 0.2])[0]
    if entries == 0:
        return None
    cells = streams.memory[:, :entries].flatten(1, 2)
    return cells + 0.03 * torch.randn_like(cells)


@torch.no_grad()
def sampled_noise(model, rows, counts, frame, newer, older, h, tokens):
    """Inputs as sampling itself reaches them: each row of `rows` is `counts` steps long and stops at a random step.

    Returns the noisy frames of those rows and their timesteps, for the network to be trained at.
    """
    noise = torch.randn_like(frame[rows])
    noisy, times = noise.clone(), torch.full((len(rows),), 999, device=frame.device)
    stops = [random.randrange(count) for count in counts]
    for step in range(max(stops, default=0)):
        some = torch.tensor([i for i, stop in enumerate(stops) if stop > step], device=frame.device)
        to = torch.tensor([step_times(counts[i])[step + 1] for i in some.tolist()], device=frame.device)
        at = rows[some]
        clean = model(noisy[some], times[some], frame[at], newer[at], older[at], h[at], tokens[at]).clamp(-1, 1)
        noisy[some] = model.ddim(noisy[some], clean, times[some], to)
        times[some] = to
    return noisy, times


def huber(x, delta=0.1):
    """Quadratic below `delta`, linear above: the mean where it is nearly right, the median where it must choose."""
    size = x.abs()
    return torch.where(size < delta, 0.5 * size * size / delta, size - 0.5 * delta)


def loss_of(drawn, target, t, first):
    """Per-sample loss (b,).

    Pixels (Huber), slopes between neighbours (so that lines stay sharp), and averages over 4 and 16 pixels (so that
    colour, the thing that drifts, weighs more than its few low frequencies would). All timesteps weigh the same, for
    the network predicts the frame itself and sampling starts at the highest; only frames whose palette cannot be known
    yet weigh less, since most of their loss is chance.
    """
    error = drawn - target
    parts = huber(error).mean((1, 2, 3))
    for axis in (2, 3):
        parts = parts + 0.5 * error.diff(dim=axis).abs().mean((1, 2, 3))
    for cell in (4, 16):
        parts = parts + 0.5 * F.avg_pool2d(error, cell).abs().mean((1, 2, 3))
    return parts * torch.where(first & (t > 800), 0.35, 1.0)


def train_step(model, streams, stage):
    """One forward pass over all streams: the loss to descend, and what to log."""
    frame, target = streams.next()
    n, device = len(frame), frame.device
    share, lengths = ON_POLICY[stage]
    # Always the same streams, so that a rollout lasts as long as its stream and no easy frame mends it in between.
    on_policy = torch.arange(n, device=device) < share * n
    newer, older, h, first = draw_history(streams, on_policy, model)
    tokens = model.tokens(streams.weights, draw_memory(streams))
    t = draw_times(n, first, device)
    noisy = model.noised(target, t, torch.randn_like(target))
    rows = on_policy.nonzero().squeeze(1)
    if len(rows):
        counts = random.choices(lengths, k=len(rows))
        noisy[rows], t[rows] = sampled_noise(model, rows, counts, frame, newer, older, h, tokens)
    drawn = model(noisy, t, frame, newer, older, h, tokens)
    losses = loss_of(drawn, target, t, first)
    # A frame drawn without history may be in another palette than the teacher's: it must not become history.
    streams.commit(drawn.detach().clamp(-1, 1), ~first)
    known = (~first).float()
    error = ((drawn.detach() - target) ** 2).mean((1, 2, 3))
    return losses.mean(), {"mse": (error * known).sum() / known.sum().clamp(min=1), "loss": losses.detach().mean()}


@torch.no_grad()
def evaluate(model, photographs, sheet, frames=24):
    """PSNR per style against the teacher on fixed scenes, two steps a frame, the teacher's first frame as history."""
    styles = len(STYLES)
    scenes = Scenes(photographs, styles, 96, 160, seed=77)
    weights = torch.eye(styles, device=scenes.device)
    palettes = torch.arange(styles, device=scenes.device).remainder(6).view(-1, 1).expand(-1, styles)
    phases = palettes % 4
    stream = Stream(model, weights)
    error, rows = 0, []
    for index in range(frames):
        frame = scenes.frames()
        target = teach(frame, weights, palettes, phases)
        if index == 0:
            stream.remember(frame, target)
        else:
            drawn = stream.step(frame)
            error = error + ((drawn - target) ** 2).mean((1, 2, 3)) / (frames - 1)
        scenes.advance()
    opening = Stream(model, weights, seed=1).step(frame)
    save_sheet(sheet, [list(frame), list(target), list(drawn), list(opening)])
    return dict(zip(STYLES, (round(x, 2) for x in (10 * torch.log10(4 / error)).tolist())))


def save(path, content):
    """Write so that a run cut short leaves the old file or the new one."""
    torch.save(content, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", default="photos/photos.zip")
    parser.add_argument("--out", default="runs/live", type=pathlib.Path)
    parser.add_argument("--minutes", default=8.5, type=float)
    parser.add_argument("--profile", default="h100", choices=PROFILES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--seed", default=2026, type=int)
    options = parser.parse_args()
    profile, device = PROFILES[options.profile], torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    options.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(options.seed)
    model = LiveModel(STYLES).to(device, memory_format=torch.channels_last)
    model.half = profile["half"]
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=profile["rate"], betas=(0.9, 0.99), weight_decay=1e-3)
    step, before, state_path = 0, 0.0, options.out / "state.pt"
    if options.resume and state_path.exists():
        state = torch.load(state_path, map_location=device)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, before = state["step"], state["minutes"]
    # Data goes on from another seed after each resume, or the recipe would see its first minutes again and again.
    seed = options.seed + step
    random.seed(seed)
    torch.manual_seed(seed)
    photographs = Photographs(photos.read(options.photos), device)
    pools = [Streams(photographs, n, h, w, seed + i) for i, (h, w, n, _) in enumerate(profile["sizes"])]
    shares = [share for *_, share in profile["sizes"]]
    log = open(options.out / "log.jsonl", "a", buffering=1)

    def write(**entry):
        log.write(json.dumps({"step": step, "minutes": round(minutes, 3), **entry}) + "\n")

    sums, count, samples = {}, 0, 0
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
            write(psnr=evaluate(average, photographs, options.out / f"sheet-{step:07d}.png"))
        if over or due or minutes - saved >= 4:
            saved = minutes
            content = {"model": model.state_dict(), "average": average.state_dict(), "step": step, "minutes": minutes}
            save(state_path, {**content, "optimiser": optimiser.state_dict()})
            average.save(options.out / "live.part")
            os.replace(options.out / "live.part", options.out / "live.safetensors")
        if over:
            return
        stage, rate = stage_at(profile["plan"], minutes), rate_at(profile, minutes, step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        streams = random.choices(pools, shares)[0]
        loss, figures = train_step(model, streams, stage)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        keep = min(profile["average"], (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        for name, value in figures.items():
            sums[name] = sums.get(name, 0) + value
        count, samples = count + 1, samples + len(streams.weights)
        if step % 50 == 0:
            means = {name: round(float(value) / count, 5) for name, value in sums.items()}
            rate_now = samples / max(1e-6, (minutes - before) * 60)
            write(stage=stage, rate=round(rate, 6), samples_per_second=round(rate_now, 1), **means)
            sums, count = {}, 0


if __name__ == "__main__":
    main()
