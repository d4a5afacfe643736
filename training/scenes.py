"""Synthetic live video from still photographs, drawn on the device where the network trains.

A scene is one photograph under a moving camera with up to two objects passing in front: cut-outs of other photographs
or plain shapes, with soft outlines. Exposure and white balance wander, the sensor is noisy, fast scenes smear, and some
frames are as soft as hard compression leaves them. A scene is a function of time, so a stream can go on for ever.

Every step computes the same operations on the same shapes whatever the draw, and waits for nothing: what some streams
have and others have not is a factor of 0. So a training step can be captured as a CUDA graph, data included.
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
    """All tiles in three sizes in one atlas, a column for each size, so that one call samples many photographs."""

    def __init__(self, tiles, device):
        x = tiles.to(device).float() / 127.5 - 1
        self.atlas = x.new_zeros(1, 3, len(x) * TILE, 2 * TILE)
        self.count = len(x)
        for level in range(LEVELS):
            small = F.avg_pool2d(x, 2**level).transpose(0, 1).flatten(1, 2)
            left = 2 * TILE - 2 * small.shape[2]
            self.atlas[0, :, : small.shape[1], left : left + small.shape[2]] = small

    def sample(self, index, x, y, scale):
        """Colours at tile coordinates `x`, `y` (b, h, w) of photographs `index` (b,); `scale` (b,) is tile pixels per
        pixel drawn, and picks the size that does not shimmer. Beyond its border a photograph is mirrored."""
        level = torch.log2(scale.clamp(min=1)).round().clamp(max=LEVELS - 1)
        side = (TILE * torch.exp2(-level)).view(-1, 1, 1)
        x, y = ((1 - (1 - torch.remainder(v / TILE, 2)).abs()) * (side - 1) + 0.5 for v in (x, y))
        x, y = x + 2 * TILE - 2 * side, y + index.view(-1, 1, 1) * side
        place = torch.stack([x / TILE - 1, y * (2 / (TILE * self.count)) - 1], -1)
        return F.grid_sample(self.atlas.expand(len(x), -1, -1, -1), place, align_corners=False, padding_mode="border")


class Scenes:
    """A batch of endless synthetic streams of one frame size; `advance` moves each on by one frame.

    `closest` is the fewest pixels of a tile per pixel drawn: below 1 a photograph is enlarged and has no finest detail.
    `noisy` is the share of the scenes with noise of up to `noise`, `soft` the share that compression has softened.
    """

    def __init__(self, photographs, count, height, width, closest=0.7, noisy=0.5, noise=0.06, soft=0.3):
        self.photographs, self.count, self.size = photographs, count, (height, width)
        self.closest, self.noisy, self.noise, self.soft = closest, noisy, noise, soft
        self.device = photographs.atlas.device
        # Which streams smear depends on the place in the batch alone: their frames cost three.
        self.smeared = torch.arange(0, count, 7, device=self.device)
        self.state = {**self._draw(), **self._light()}

    def _uniform(self, shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(shape, device=self.device)

    def _some(self, chance, values):
        """`values` for a share `chance` of the rows, 0 for the rest."""
        keep = (torch.rand(len(values), device=self.device) < chance).float()
        return values * keep.view(-1, *[1] * (values.dim() - 1))

    def _wave(self, amplitude, slowest, fastest):
        """Swings as (…, 3): amplitude, angular speed per frame, phase; periods are given in frames."""
        period = torch.exp(self._uniform(amplitude.shape, math.log(fastest), math.log(slowest)))
        return torch.stack([amplitude, 2 * math.pi / period, self._uniform(amplitude.shape, 0, 2 * math.pi)], -1)

    def _photo(self, shape):
        return torch.randint(self.photographs.count, shape, device=self.device)

    def _draw(self):
        n, side, one = self.count, min(self.size), torch.ones(self.count, device=self.device)
        closest, widest = math.log(self.closest), math.log(0.95 * TILE / max(self.size))
        scale = torch.exp(closest + (widest - closest) * self._uniform((n,)).sqrt())
        speed = self._some(0.85, torch.exp(self._uniform((n, 1), math.log(0.15), math.log(4.0)))) * scale.view(n, 1)
        pan = self._wave(torch.ones(n, 2, device=self.device), 400, 50)
        pan[..., 0] = speed / pan[..., 1]
        shape = (n, OBJECTS)
        visible = (self._uniform(shape) < 0.6 - 0.3 * torch.arange(OBJECTS, device=self.device)).float()
        return {
            "time": self._uniform((n,), 0, 1000).floor(),
            "rate": self._some(0.92, one),
            "photo": self._photo((n,)),
            "centre": self._uniform((n, 2), 0, TILE),
            "scale": scale,
            "turn": self._some(0.6, self._uniform((n,), -0.5, 0.5)),
            "mirror": torch.where(self._uniform((n,)) < 0.5, -one, one),
            "pan": pan,
            "shake": self._wave(self._some(0.5, self._uniform((n, 4), 0, 0.9)), 25, 5),
            "zoom": self._wave(self._some(0.5, self._uniform((n,), 0, 0.35)), 300, 60),
            "roll": self._wave(self._some(0.4, self._uniform((n,), 0, 0.25)), 300, 60),
            "visible": visible,
            "place": self._uniform((*shape, 2), 0.1, 0.9),
            "flow": self._wave(self._uniform((*shape, 2), 0.1, 0.7), 300, 40),
            "radius": torch.exp(self._uniform(shape, math.log(0.10), math.log(0.38))) * side,
            "outline": self._wave(self._uniform((*shape, 3), 0.0, 0.22), 10**6, 10**5),
            "softness": torch.exp(self._uniform(shape, math.log(0.6), math.log(3.0))),
            "spin": self._some(0.5, self._uniform(shape, -0.06, 0.06)),
            "plain": (self._uniform(shape) < 0.35).float(),
            "paint": self._uniform((*shape, 3), -1, 1),
            "texture": self._photo(shape),
            "patch": self._uniform((*shape, 2), 0, TILE),
            "grain": torch.exp(self._uniform(shape, math.log(0.7), math.log(3.0))),
            "exposure": self._wave(self._some(0.5, self._uniform((n,), 0, 0.25)), 250, 30),
            "noise": self._some(self.noisy, self._uniform((n,), 0, self.noise)),
            "soft": self._some(self.soft, self._uniform((n,), 0.3, 1.0)),
            "chroma": self._some(0.35, one),
            "flat": self._some(0.02, one),
        }

    def _light(self):
        n = self.count
        balance = self._some(0.6, self._uniform((n, 3), -0.22, 0.22))
        curve = self._some(0.5, self._uniform((n,), -0.6, 0.9))  # from faded to hard, dark footage: log of a gamma
        return {"gain": self._some(0.6, self._uniform((n,), -0.55, 0.35)), "balance": balance, "curve": curve}

    def _replace(self, rows, fresh):
        """Put `fresh` where `rows` (b,) is true, in place."""
        for name, values in fresh.items():
            old = self.state[name]
            old.copy_(torch.where(rows.view(-1, *[1] * (old.dim() - 1)), values, old))

    def advance(self, cut):
        """One frame on; another scene where `cut` (b,), and now and then elsewhere, or a jump of the light."""
        self.state["time"] += self.state["rate"]
        chance = self._uniform((self.count,))
        cut = cut | (chance < CUT)
        self._replace(cut, self._draw())
        self._replace(cut | (chance > 1 - JUMP), self._light())

    def frames(self):
        """The frames of all streams at this moment: (b, 3, height, width) in [-1, 1]."""
        out = self._draw_at(self.state, self.state["time"])
        rows = self.smeared
        some = {name: values[rows] for name, values in self.state.items()}
        earlier = sum(self._draw_at(some, some["time"] - fraction * some["rate"]) for fraction in (0.25, 0.5))
        out[rows] = (out[rows] + earlier) / 3
        return self._camera(out, self.state)

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
            part = {name: state[name][:, k] for name in
                    ("radius", "outline", "softness", "spin", "plain", "paint", "texture", "patch", "grain")}
            dx = xs - ((place[:, k, 0] - 0.5) * w).view(each)
            dy = ys - ((place[:, k, 1] - 0.5) * h).view(each)
            spin = (part["spin"] * time).view(each)
            dx, dy = dx * torch.cos(spin) - dy * torch.sin(spin), dx * torch.sin(spin) + dy * torch.cos(spin)
            theta, radius = torch.atan2(dy, dx), part["radius"].view(each)
            bulge = 1
            for lobe in range(3):
                size, phase = part["outline"][:, lobe, 0].view(each), part["outline"][:, lobe, 2].view(each)
                bulge = bulge + size * torch.cos((lobe + 1) * theta + phase)
            inside = radius * bulge - (dx * dx + dy * dy + 1e-4).sqrt()
            mask = torch.sigmoid(2 * inside / part["softness"].view(each)) * state["visible"][:, k].view(each)
            grain = part["grain"].view(each)
            px, py = part["patch"][:, 0].view(each) + dx * grain, part["patch"][:, 1].view(each) + dy * grain
            texture = self.photographs.sample(part["texture"], px, py, part["grain"])
            paint = part["paint"][..., None, None].expand_as(texture)
            texture = torch.lerp(texture, paint, part["plain"].view(-1, 1, 1, 1))
            out = torch.lerp(out, texture, mask.unsqueeze(1))
        exposure = torch.exp(state["gain"] + swing("exposure")).view(-1, 1, 1, 1)
        light = exposure * torch.exp(state["balance"])[..., None, None]
        gamma = torch.exp(state["curve"]).view(-1, 1, 1, 1)
        out = ((out * 0.5 + 0.5) * light).clamp(1e-4, 1) ** gamma * 2 - 1
        flat = state["flat"].view(-1, 1, 1, 1)
        return out * (1 - flat) + flat * (out.mean((2, 3), keepdim=True) - 0.6).clamp(min=-1)

    def _camera(self, x, state):
        """Compression's softness and half-size colour, then the sensor's noise."""
        x = torch.lerp(x, blur(x, 0.9), state["soft"].view(-1, 1, 1, 1))
        colour = x - luma(x)
        half = F.interpolate(F.avg_pool2d(colour, 2), scale_factor=2, mode="bilinear")
        x = x + (half - colour) * state["chroma"].view(-1, 1, 1, 1)
        noise = torch.randn_like(x) * state["noise"].view(-1, 1, 1, 1)
        return (x + noise).clamp(-1, 1)
