"""Small image filters of a few pixels' reach, from which the teacher's styles are made.

All of them take (batch, channels, height, width) in [0, 1], keep the size, repeat the border outwards, and reach no
further than 24 pixels, so that a convolutional network can learn what they do, at the same scale for every frame size.
"""

import functools
import math

import torch
import torch.nn.functional as F


@functools.lru_cache(maxsize=None)
def _gaussian(sigma, device, dtype):
    radius = max(1, math.ceil(2.5 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return (weights / weights.sum()).to(device, dtype)


def blur(x, sigma):
    """Gaussian blur, `sigma` in pixels."""
    weights = _gaussian(sigma, x.device, x.dtype)
    radius = len(weights) // 2
    b, c, h, w = x.shape
    # One channel for each picture: a depthwise convolution, whose kernel does not depend on how many there are.
    x = x.reshape(1, b * c, h, w)
    weights = weights.expand(b * c, 1, 1, -1)
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="replicate"), weights, groups=b * c)
    x = F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), weights.transpose(2, 3), groups=b * c)
    return x.reshape(b, c, h, w)


def shift(x, dx, dy):
    """The picture moved right by `dx` and down by `dy` whole pixels."""
    h, w = x.shape[-2:]
    x = F.pad(x, (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0)), mode="replicate")
    top, left = max(-dy, 0), max(-dx, 0)
    return x[..., top : top + h, left : left + w]


def shift_each(x, choice, offsets):
    """Every sample moved by its own (dx, dy) out of `offsets`; `choice` (b,) says which."""
    moved = torch.stack([shift(x, *pair) for pair in offsets])
    return moved[choice, torch.arange(len(x), device=x.device)]


def gradient(x):
    """Horizontal and vertical slope per pixel, by central differences."""
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (p[..., 1:-1, 2:] - p[..., 1:-1, :-2]) / 2, (p[..., 2:, 1:-1] - p[..., :-2, 1:-1]) / 2


def line_average(x, radians, length):
    """Average along a line of `length` pixels at each sample's own angle, for one-channel pictures."""
    radius = length // 2
    axis = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    dx, dy = axis.view(1, 1, -1), axis.view(1, -1, 1)
    cos, sin = torch.cos(radians).view(-1, 1, 1), torch.sin(radians).view(-1, 1, 1)
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    kernel = torch.exp(-0.5 * (across / 0.6) ** 2 - 0.5 * (along / (0.45 * radius)) ** 2)
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    padded = F.pad(x, (radius,) * 4, mode="replicate").transpose(0, 1)
    return F.conv2d(padded, kernel.unsqueeze(1), groups=len(x)).transpose(0, 1)


def luma(x):
    """Brightness as the eye weighs it (Rec. 601)."""
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


def smoothstep(x, low, high):
    """0 below `low`, 1 above `high`, a smooth rise between: a threshold that does not flicker."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def mix(a, b, amount):
    """`a` where amount is 0, `b` where it is 1."""
    return a + (b - a) * amount


def ramp(tone, colours):
    """Colour by tone: `tone` (b, 1, h, w) in [0, 1] along `colours` (b, k, 3), linear between neighbours."""
    k = colours.shape[1]
    place = tone.clamp(0, 1) * (k - 1)
    knots = torch.arange(k, device=tone.device, dtype=tone.dtype).view(1, k, 1, 1)
    weights = (1 - (place - knots).abs()).clamp(min=0)
    return torch.einsum("bkhw,bkc->bchw", weights, colours)


def colour(colours, index):
    """One palette colour as (b, 3, 1, 1)."""
    return colours[:, index].unsqueeze(-1).unsqueeze(-1)
