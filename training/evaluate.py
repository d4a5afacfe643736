"""Measures a checkpoint on a clip that it was never trained on, streaming it as the engine does.

    python3 evaluate.py live.safetensors CLIP --out report [--size 256x144] [--frames 100] [--styles ink,oil]

CLIP is a folder of pictures, or a video (ffmpeg must be installed). For every style the stream gets the teacher's first
output as its history, so that the palette is known; then PSNR against the teacher, the same for the untouched input,
and the temporal warping error against the teacher's own. Writes `report.json` and `report.png`: for each style a row
each of teacher, model, and model without that first frame, at eight moments, below the input.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from filters import luma
from live import LiveModel, Stream
from sheet import save_sheet
from teacher import PALETTE_COUNT, PHASES, teach

REACH = 6  # pixels a frame that the motion search follows
MATCHED = 0.02  # mean squared difference of brightness in [-1, 1] up to which a match counts


def read_clip(path, width, height, count):
    """The first `count` frames, scaled to fill the size: (frames, 3, height, width) in [-1, 1]."""
    if path.is_dir():
        names = sorted(p for p in path.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))[:count]
        pictures = [Image.open(name).convert("RGB").resize((width, height), Image.Resampling.BICUBIC) for name in names]
        frames = np.stack([np.array(picture) for picture in pictures]) if pictures else np.zeros((0,))
    else:
        fill = f"scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height}"
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", fill, "-frames:v", str(count)]
        raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], check=True, capture_output=True)
        frames = np.frombuffer(raw.stdout, np.uint8).reshape(-1, height, width, 3)
    if len(frames) < 2:
        sys.exit(f"{path} holds fewer than two frames")
    return torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(a, b):
    """Peak signal to noise ratio in dB of frames in [-1, 1], over all of them together."""
    return float(10 * torch.log10(4 / ((a - b) ** 2).mean().clamp(min=1e-12)))


def motion(newer, older):
    """Whole-pixel motion by matching 9x9 windows of brightness: sampling grid (1, h, w, 2) and where it holds."""
    a, b = luma(newer), luma(older)
    h, w = a.shape[-2:]
    padded = F.pad(b, (REACH,) * 4, mode="replicate")

    def cost(x, y):
        moved = padded[..., REACH + y : REACH + y + h, REACH + x : REACH + x + w]
        return F.avg_pool2d((a - moved) ** 2, 9, 1, 4, count_include_pad=False)

    # Motion has to beat standing still clearly, or noise on a plain wall would count as motion.
    best, dx, dy = 0.7 * cost(0, 0), torch.zeros_like(a), torch.zeros_like(a)
    for y in range(-REACH, REACH + 1):
        for x in range(-REACH, REACH + 1):
            moved = cost(x, y)
            better = moved < best
            best = torch.where(better, moved, best)
            dx, dy = torch.where(better, float(x), dx), torch.where(better, float(y), dy)
    ys = torch.arange(h).view(h, 1).expand(h, w) + dy[0, 0]
    xs = torch.arange(w).view(1, w).expand(h, w) + dx[0, 0]
    inside = (ys >= 0) & (ys < h) & (xs >= 0) & (xs < w)
    grid = torch.stack([(2 * xs + 1) / w - 1, (2 * ys + 1) / h - 1], -1)
    return grid.unsqueeze(0), ((best < MATCHED)[0, 0] & inside).float().view(1, 1, h, w)


def warping_error(outputs, motions):
    """Mean squared difference between each output and its predecessor moved along the input's motion."""
    total, weight = 0.0, 0.0
    for newer, older, (grid, valid) in zip(outputs[1:], outputs, motions):
        moved = F.grid_sample(older.unsqueeze(0), grid, mode="nearest", align_corners=False)
        total += float((((newer - moved) ** 2) * valid).sum()) / 3
        weight += float(valid.sum())
    return total / max(weight, 1.0)


def run(model, clip, weights, steps, first=None):
    """The model's outputs over `clip`; with `first`, that is the first output and the model goes on from it."""
    stream = Stream(model, weights, steps)
    outputs = []
    for frame in clip.split(1):
        if first is not None and not outputs:
            stream.remember(frame, first)
            outputs.append(first)
        else:
            outputs.append(stream.step(frame))
    return torch.cat(outputs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("clip", type=pathlib.Path)
    parser.add_argument("--out", default="report", type=pathlib.Path)
    parser.add_argument("--size", default="256x144", help="width x height, multiples of 16")
    parser.add_argument("--frames", default=100, type=int)
    parser.add_argument("--steps", default=2, type=int)
    parser.add_argument("--styles", help="comma-separated; all of the model's by default")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    model = LiveModel.load(options.checkpoint).eval()
    clip = read_clip(options.clip, width, height, options.frames)
    motions = [motion(b, a) for a, b in zip(clip.split(1), clip[1:].split(1))]
    moments = torch.linspace(0, len(clip) - 1, 8).round().long()
    rows, results = [list(clip[moments])], {}
    for style in (options.styles or ",".join(model.styles)).split(","):
        index = model.styles.index(style)
        weights = torch.eye(len(model.styles))[index : index + 1]
        draw = torch.full((len(clip), len(model.styles)), index)
        taught = teach(clip, weights.expand(len(clip), -1), draw % PALETTE_COUNT, draw % PHASES)
        guided = run(model, clip, weights, options.steps, taught[:1])
        free = run(model, clip, weights, options.steps)
        results[style] = {
            "psnr": psnr(guided[1:], taught[1:]),
            "psnr_of_the_input": psnr(clip[1:], taught[1:]),
            "psnr_at_the_end": psnr(guided[-10:], taught[-10:]),
            "warping_error": warping_error(guided, motions),
            "warping_error_of_the_teacher": warping_error(taught, motions),
        }
        rows += [list(taught[moments]), list(guided[moments]), list(free[moments])]
        print(style, json.dumps({name: round(value, 4) for name, value in results[style].items()}), flush=True)
    report = {"clip": options.clip.name, "size": options.size, "frames": len(clip), "steps": options.steps}
    options.out.with_suffix(".json").write_text(json.dumps({**report, "styles": results}, indent=1) + "\n")
    save_sheet(options.out.with_suffix(".png"), rows)


if __name__ == "__main__":
    main()
