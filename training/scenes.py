"""Synthetic live video from still photographs, drawn on the device where the network trains.

A scene is one photograph under a moving camera with up to two objects passing in front: cut-outs of other photographs
or plain shapes, with soft outlines. Exposure and white balance wander, the sensor is noisy, fast scenes smear, and some
frames are as soft as hard compression leaves them. A scene is a function of time, so a stream can go on for ever.
"""

import math

import torch
import torch.nn.functional as F

from filters import blur, luma
from photos import TILE

OBJECTS = 2
LEVELS = 3
CUT = 1 / 70  # chance per frame
JUMP = 1 / 90  # of exposure and white balance, as an automatic camera makes


class Photographs:
    """All tiles in three sizes, each an atlas as wide as one tile, so that one call samples many photographs."""

    def __init__(self, tiles, device):
        x = tiles.to(device).float() / 127.5 - 1
        self.count = len(x)
        self.atlases = []
        for level in range(LEVELS):
            small = F.avg_pool2d(x, 2**level)
            self.atlases.append(small.transpose(0, 1).reshape(1, 3, -1, small.shape[-1]).contiguous())

    def sample(self, index, x, y, scale):
        """Colours at tile coordinates `x`, `y` (b, h, w) of photographs `index` (b,); `scale` (b,) is tile pixels per
        pixel drawn, and picks the size that does not shimmer. Beyond its border a photograph is mirrored."""
        x, y = (0.5 + (TILE - 1) * (1 - (1 - torch.remainder(v / TILE, 2)).abs()) for v in (x, y))
        y = y + index.view(-1, 1, 1) * TILE
        place = torch.stack([x * (2 / TILE) - 1, y * (2 / (TILE * self.count)) - 1], -1)
        level = torch.log2(scale.clamp(min=1)).round().clamp(max=LEVELS - 1)
        out = torch.empty(len(x), 3, *x.shape[1:], device=x.device)
        for k, atlas in enumerate(self.atlases):
            rows = (level == k).nonzero().squeeze(1)
            if len(rows):
                atlas = atlas.expand(len(rows), -1, -1, -1)
                out[rows] = F.grid_sample(atlas, place[rows], align_corners=False, padding_mode="border")
        return out


class Scenes:
    """A batch of endless synthetic streams of one frame size; `advance` moves each on by one frame."""

    def __init__(self, photographs, count, height, width, seed):
        self.photographs, self.size = photographs, (height, width)
        self.device = photographs.atlases[0].device
        self.generator = torch.Generator().manual_seed(seed)
        self.state = self._draw(count)

    def _uniform(self, shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def _some(self, chance, values):
        """`values` for a share `chance` of the rows, 0 for the rest."""
        keep = (torch.rand(len(values), generator=self.generator) < chance).float()
        return values * keep.view(-1, *[1] * (values.dim() - 1))

    def _wave(self, amplitude, slowest, fastest):
        """Swings as (…, 3): amplitude, angular speed per frame, phase; periods are given in frames."""
        period = torch.exp(self._uniform(amplitude.shape, math.log(fastest), math.log(slowest)))
        return torch.stack([amplitude, 2 * math.pi / period, self._uniform(amplitude.shape, 0, 2 * math.pi)], -1)

    def _draw(self, n):
        side = min(self.size)
        widest = math.log(0.95 * TILE / max(self.size))
        scale = torch.exp(math.log(0.7) + (widest - math.log(0.7)) * self._uniform((n,)).sqrt())
        speed = self._some(0.85, torch.exp(self._uniform((n, 1), math.log(0.15), math.log(4.0)))) * scale.view(n, 1)
        pan = self._wave(torch.ones(n, 2), 400, 50)
        pan[..., 0] = speed / pan[..., 1]
        shape = (n, OBJECTS)
        visible = (self._uniform(shape) < torch.tensor([0.6, 0.3])).float()
        flow = self._wave(self._uniform((*shape, 2), 0.1, 0.7), 300, 40)
        shapes = self._wave(self._uniform((*shape, 3), 0.0, 0.22), 10**6, 10**5)
        state = {
            "time": self._uniform((n,), 0, 1000).floor(),
            "rate": self._some(0.92, torch.ones(n)),
            "photo": torch.randint(self.photographs.count, (n,), generator=self.generator),
            "centre": self._uniform((n, 2), 0, TILE),
            "scale": scale,
            "turn": self._some(0.6, self._uniform((n,), -0.5, 0.5)),
            "mirror": torch.where(self._uniform((n,)) < 0.5, -1.0, 1.0),
            "pan": pan,
            "shake": self._wave(self._some(0.5, self._uniform((n, 4), 0, 0.9)), 25, 5),
            "zoom": self._wave(self._some(0.5, self._uniform((n,), 0, 0.35)), 300, 60),
            "roll": self._wave(self._some(0.4, self._uniform((n,), 0, 0.25)), 300, 60),
            "visible": visible,
            "place": self._uniform((*shape, 2), 0.1, 0.9),
            "flow": flow,
            "radius": torch.exp(self._uniform(shape, math.log(0.10), math.log(0.38))) * side,
            "outline": shapes,
            "softness": torch.exp(self._uniform(shape, math.log(0.6), math.log(3.0))),
            "spin": self._some(0.5, self._uniform(shape, -0.06, 0.06)),
            "plain": (self._uniform(shape) < 0.35).float(),
            "paint": self._uniform((*shape, 3), -1, 1),
            "texture": torch.randint(self.photographs.count, shape, generator=self.generator),
            "patch": self._uniform((*shape, 2), 0, TILE),
            "grain": torch.exp(self._uniform(shape, math.log(0.7), math.log(3.0))),
            "exposure": self._wave(self._some(0.5, self._uniform((n,), 0, 0.25)), 250, 30),
            "noise": self._some(0.5, self._uniform((n,), 0, 0.06)),
            "soft": self._some(0.3, self._uniform((n,), 0.3, 1.0)),
            "chroma": self._some(0.35, torch.ones(n)),
            "smear": self._some(0.15, torch.ones(n)),
            "flat": self._some(0.02, torch.ones(n)),
            **self._light(n),
        }
        return {k: v.to(self.device) for k, v in state.items()}

    def _light(self, n):
        balance = self._some(0.6, self._uniform((n, 3), -0.22, 0.22))
        return {"gain": self._some(0.6, self._uniform((n,), -0.55, 0.35)), "balance": balance}

    def _replace(self, rows, fresh):
        for name, values in fresh.items():
            self.state[name][rows] = values.to(self.device)

    def reset(self, rows):
        """New scenes for `rows` (indices)."""
        if len(rows):
            self._replace(rows, self._draw(len(rows)))

    def advance(self):
        """One frame on; now and then a cut to another scene, or a jump of the light."""
        self.state["time"] += self.state["rate"]
        chance = torch.rand(len(self.state["time"]), generator=self.generator)
        self.reset((chance < CUT).nonzero().squeeze(1))
        jump = ((chance >= CUT) & (chance < CUT + JUMP)).nonzero().squeeze(1)
        if len(jump):
            self._replace(jump, self._light(len(jump)))

    def frames(self, rows=None):
        """The frames at this moment, of all streams or of `rows`: (b, 3, height, width) in [-1, 1]."""
        state = self.state if rows is None else {k: v[rows] for k, v in self.state.items()}
        out = self._draw_at(state, state["time"])
        rows = state["smear"].nonzero().squeeze(1)
        if len(rows):
            some = {k: v[rows] for k, v in state.items()}
            for fraction in (0.25, 0.5):
                out[rows] += self._draw_at(some, some["time"] - fraction * some["rate"])
            out[rows] /= 3
        return self._camera(out, state)

    def _draw_at(self, state, time):
        h, w = self.size

        def swing(name):
            wave = state[name]
            angle = wave[..., 1] * time.view(-1, *[1] * (wave.dim() - 2)) + wave[..., 2]
            return wave[..., 0] * torch.sin(angle)

        ys = torch.arange(h, device=self.device).view(1, h, 1) - (h - 1) / 2
        xs = torch.arange(w, device=self.device).view(1, 1, w) - (w - 1) / 2
        each = (-1, 1, 1)
        shake = swing("shake")
        scale = state["scale"] * torch.exp(swing("zoom"))
        angle = (state["turn"] + swing("roll")).view(each)
        dx = (xs + (shake[:, 0] + shake[:, 1]).view(each)) * state["mirror"].view(each)
        dy = ys + (shake[:, 2] + shake[:, 3]).view(each)
        centre = state["centre"] + swing("pan")
        cos, sin, zoom = torch.cos(angle), torch.sin(angle), scale.view(each)
        x = centre[:, 0].view(each) + zoom * (dx * cos - dy * sin)
        y = centre[:, 1].view(each) + zoom * (dx * sin + dy * cos)
        out = self.photographs.sample(state["photo"], x, y, scale)
        place = state["place"] + swing("flow")
        for k in range(OBJECTS):
            rows = state["visible"][:, k].nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            some = {name: state[name][rows, k] for name in
                    ("radius", "outline", "softness", "spin", "plain", "paint", "texture", "patch", "grain")}
            dx = xs - ((place[rows, k, 0] - 0.5) * w).view(each)
            dy = ys - ((place[rows, k, 1] - 0.5) * h).view(each)
            spin = (some["spin"] * time[rows]).view(each)
            dx, dy = dx * torch.cos(spin) - dy * torch.sin(spin), dx * torch.sin(spin) + dy * torch.cos(spin)
            theta, radius = torch.atan2(dy, dx), some["radius"].view(each)
            bulge = 1
            for lobe in range(3):
                size, phase = some["outline"][:, lobe, 0].view(each), some["outline"][:, lobe, 2].view(each)
                bulge = bulge + size * torch.cos((lobe + 1) * theta + phase)
            inside = radius * bulge - (dx * dx + dy * dy + 1e-4).sqrt()
            mask = torch.sigmoid(2 * inside / some["softness"].view(each)).unsqueeze(1)
            grain = some["grain"].view(each)
            px, py = some["patch"][:, 0].view(each) + dx * grain, some["patch"][:, 1].view(each) + dy * grain
            texture = self.photographs.sample(some["texture"], px, py, some["grain"])
            paint = some["paint"][..., None, None].expand_as(texture)
            texture = torch.lerp(texture, paint, some["plain"].view(-1, 1, 1, 1))
            out[rows] = torch.lerp(out[rows], texture, mask)
        exposure = torch.exp(state["gain"] + swing("exposure")).view(-1, 1, 1, 1)
        light = exposure * torch.exp(state["balance"])[..., None, None]
        out = ((out * 0.5 + 0.5) * light).clamp(0, 1) * 2 - 1
        flat = state["flat"].view(-1, 1, 1, 1)
        return out * (1 - flat) + flat * (out.mean((2, 3), keepdim=True) - 0.6).clamp(min=-1)

    def _camera(self, x, state):
        """Compression's softness and half-size colour, then the sensor's noise."""
        soft = state["soft"].view(-1, 1, 1, 1)
        rows = state["soft"].nonzero().squeeze(1)
        if len(rows):
            x[rows] = torch.lerp(x[rows], blur(x[rows], 0.9), soft[rows])
        rows = state["chroma"].nonzero().squeeze(1)
        if len(rows):
            grey = luma(x[rows])
            half = F.avg_pool2d(x[rows] - grey, 2)
            x[rows] = grey + F.interpolate(half, scale_factor=2, mode="bilinear")
        noise = torch.randn_like(x) * state["noise"].view(-1, 1, 1, 1)
        return (x + noise).clamp(-1, 1)
