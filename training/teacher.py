"""The styles as image processing: what the network learns to draw, and what its frames are measured against.

Every style takes frames (batch, 3, height, width) in [0, 1], one palette each (batch, colours, 3) and one phase each
(batch,) in 0..3: the direction of a hatch, of a light, of a crystal, or the place of a lattice. Nothing is random and
there is no hard threshold, so the output moves as smoothly as its input; textures are fixed to the screen; nothing
reaches further than about 24 pixels.
"""

import functools
import math

import torch

from filters import blur, colour, gradient, line_average, luma, mix, ramp, shift, shift_each, smoothstep
from palettes import PALETTES

PHASES = 4
STYLES = ["none", *PALETTES]
PALETTE_COUNT = len(PALETTES["ink"])


def local_tone(x):
    """Brightness with its local contrast raised, so that flat or dark footage still spreads over a palette."""
    y = luma(x)
    wide = blur(y, 7.0)
    return (wide + 1.45 * (y - wide) + 0.12 * (wide - 0.5)).clamp(0, 1)


def _grid(x):
    h, w = x.shape[-2:]
    rows = torch.arange(h, device=x.device, dtype=x.dtype).view(1, 1, h, 1)
    columns = torch.arange(w, device=x.device, dtype=x.dtype).view(1, 1, 1, w)
    return rows, columns


def ink(x, palette, phase):
    """Brush lines on paper, washes in three tones, hatching of period 4 in the shadows, strong colours as an accent."""
    tone = local_tone(blur(x, 0.6))
    wash = blur(tone, 1.6)
    steps = 0.40 * smoothstep(wash, 0.10, 0.26) + 0.30 * smoothstep(wash, 0.34, 0.48)
    steps = steps + 0.22 * smoothstep(wash, 0.56, 0.72) + 0.08 * wash
    lines = smoothstep(blur(tone, 2.2) - blur(tone, 0.8), 0.015, 0.085)
    rows, columns = _grid(x)
    # The four directions all have period 4, the network's own cell.
    waves = torch.stack([rows.expand(x.shape[0], 1, *x.shape[-2:])[0], columns.expand(1, 1, *x.shape[-2:])[0],
                         (rows + columns)[0], (rows - columns)[0]])
    hatch = 0.5 + 0.5 * torch.cos(waves[phase] * (math.pi / 2))
    shade = smoothstep(wash, 0.62, 0.12)
    tone = (steps + 0.11 - 0.29 * shade * hatch).clamp(0, 1) * (1 - 0.92 * lines)
    out = ramp(tone, palette[:, :3])
    soft = blur(x, 1.6)
    strength = soft.amax(1, keepdim=True) - soft.amin(1, keepdim=True)
    accent = mix(colour(palette, 0), colour(palette, 3), (0.35 + 0.75 * tone).clamp(0, 1))
    return mix(out, accent, 0.75 * smoothstep(strength, 0.38, 0.62) * (1 - lines))


def oil(x, palette, phase):
    """Kuwahara-smoothed paint in the palette's colours, laid on thickly and lit from one of four corners."""
    base = blur(x, 1.0)
    mean, square = blur(base, 1.6), blur(luma(base) ** 2, 1.6)
    spread = square - luma(mean) ** 2
    total, weights = 0, 0
    for turn in range(8):
        angle = turn * math.pi / 4
        dx, dy = round(3 * math.cos(angle)), round(3 * math.sin(angle))
        # The calmest neighbourhood wins, softly: that keeps edges and paints over texture.
        weight = 1 / (shift(spread, dx, dy).clamp(min=0) * 400 + 0.02) ** 2
        total, weights = total + weight * shift(mean, dx, dy), weights + weight
    paint = total / weights
    tone = smoothstep(local_tone(paint), -0.30, 1.02)  # paint is never black
    graded = ramp(tone, palette) + 0.35 * (paint - luma(paint))
    gx, gy = gradient(blur(luma(x), 1.0) + 0.6 * luma(paint))
    turn = phase.to(x.dtype).view(-1, 1, 1, 1) * (math.pi / 2) + math.pi / 4
    relief = torch.tanh(7 * (gx * torch.cos(turn) + gy * torch.sin(turn)))
    return (graded * (1 + 0.30 * relief) + 0.05 * relief).clamp(0, 1)


def neon(x, palette, phase):
    """Edges as two gas tubes in a dark, hazy room; which tube an edge gets goes by its direction."""
    y = local_tone(blur(x, 1.2))
    gx, gy = gradient(y)
    energy = blur(gx * gx + gy * gy, 1.0)
    across, slant = blur(gx * gx - gy * gy, 1.5), blur(2 * gx * gy, 1.5)
    turn = phase.to(x.dtype).view(-1, 1, 1, 1) * (math.pi / 2)
    side = 0.5 + 0.5 * (across * torch.cos(turn) + slant * torch.sin(turn)) / (blur(energy, 1.2) + 4e-4)
    side = smoothstep(side, 0.15, 0.85)
    tube = 1 - torch.exp(-12 * (energy + 1e-6).sqrt())
    core = smoothstep(tube, 0.25, 0.80)
    light = core * mix(colour(palette, 2), colour(palette, 3), side)
    glow = 0.55 * blur(light, 2.2) + 0.60 * blur(light, 5.5)
    room = ramp(0.8 * blur(y, 1.2), palette[:, :2]) + 0.12 * colour(palette, 1) * y
    lit = 1 - (1 - room) * (1 - 0.95 * light).clamp(0, 1) * (1 - 0.8 * glow).clamp(0, 1)
    return mix(lit, torch.ones_like(lit), 0.45 * smoothstep(core, 0.8, 1.0)).clamp(0, 1)


def papercut(x, palette, phase):
    """Five sheets of paper, cut along brightness, each throwing a soft shadow on the one below."""
    tone = blur(local_tone(x), 1.5)
    lights = [(2, 2), (-2, 2), (-2, -2), (2, -2)]
    out = colour(palette, 0).expand_as(x)
    for sheet, edge in enumerate([0.22, 0.40, 0.58, 0.76], start=1):
        cut = smoothstep(tone, edge - 0.045, edge + 0.045)
        moved = shift_each(cut, phase, lights)
        shadow = blur(moved, 1.8)
        rim = (moved - cut).clamp(-1, 0)
        paper = colour(palette, sheet) * (1 - 0.10 * rim)
        out = mix(out * (1 - 0.52 * shadow), paper, cut)
    return out.clamp(0, 1)


def glass(x, palette, phase):
    """A leaded window: tall diamond panes, 16 by 32 pixels, in jewel colours, leads around them and along edges."""
    rows, columns = _grid(x)
    h, w = x.shape[-2:]
    left = (phase % 2 * 8).to(x.dtype).view(-1, 1, 1, 1)
    top = (phase // 2 * 16).to(x.dtype).view(-1, 1, 1, 1)
    u, v = 2 * (columns + left) + rows + top, 2 * (columns + left) - rows - top
    pane_u, pane_v = torch.floor(u / 32), torch.floor(v / 32)
    centre_x = (8 * (pane_u + pane_v + 1) - left).clamp(0, w - 1).long()
    centre_y = (16 * (pane_u - pane_v) - top).clamp(0, h - 1).long()
    rounded = blur(x, 3.5)
    flat = (centre_y * w + centre_x).view(len(x), 1, h * w).expand(-1, 3, -1)
    pane = rounded.reshape(len(x), 3, h * w).gather(2, flat).view_as(x)
    tone = local_tone(mix(pane, blur(x, 1.2), 0.72))
    # Panes alternate by column between two hues, as in a harlequin window, and lean with the colour behind them.
    kind = torch.remainder(pane_u + pane_v, 2)
    warm = (pane[:, :1] - pane[:, 2:]).clamp(-0.5, 0.5)
    lean = smoothstep(0.9 * warm + 0.34 * (kind - 0.5), -0.24, 0.24)
    hue = mix(colour(palette, 1), colour(palette, 3), lean)
    hue = mix(hue, colour(palette, 2), smoothstep(tone, 0.42, 0.10))
    lit = mix(hue * (0.45 + 1.0 * tone), colour(palette, 4), 0.75 * smoothstep(tone, 0.58, 0.95))
    inside_u, inside_v = torch.remainder(u, 32) / 32, torch.remainder(v, 32) / 32
    lit = lit * (1.14 - 0.26 * inside_u)
    near = torch.minimum(torch.minimum(inside_u, 1 - inside_u), torch.minimum(inside_v, 1 - inside_v)) * 14.3
    lead = 1 - smoothstep(near, 0.3, 1.5)
    gx, gy = gradient(blur(luma(x), 1.2))
    contour = smoothstep((gx * gx + gy * gy + 1e-8).sqrt(), 0.035, 0.11)
    return mix(lit, colour(palette, 0), torch.maximum(0.8 * lead, 0.85 * contour)).clamp(0, 1)


def frost(x, palette, phase):
    """Ice on a pane: needles grow from light and edges along three directions, shadows sink into cold depth."""
    tone = local_tone(blur(x, 0.7))
    gx, gy = gradient(blur(tone, 0.6))
    rim = smoothstep((gx * gx + gy * gy + 1e-8).sqrt(), 0.02, 0.14)
    seed = (0.55 * rim + 0.75 * smoothstep(tone, 0.55, 0.95)).clamp(0, 1)
    turn = phase.to(x.dtype) * (math.pi / 12)
    needles = torch.cat([line_average(seed, turn + k * math.pi / 3, 21) for k in range(3)], 1)
    # A soft maximum: the strongest direction shows, and hands over without a jump.
    weight = torch.softmax(14 * needles, 1)
    crystal = (weight * needles).sum(1, keepdim=True)
    grain = crystal - blur(crystal, 3.0)
    depth = 0.06 + 0.62 * blur(tone, 1.4) + 0.30 * crystal + 2.6 * grain
    out = ramp(depth.clamp(0, 1), palette)
    return mix(out, colour(palette, 3), 0.7 * smoothstep(rim * crystal, 0.18, 0.75)).clamp(0, 1)


DRAW = {"ink": ink, "oil": oil, "neon": neon, "papercut": papercut, "glass": glass, "frost": frost}


@functools.lru_cache(maxsize=None)
def palette_table(name, device=torch.device("cpu")):
    """All palettes of a style: (palettes, colours, 3) in [0, 1]."""
    rows = [[[int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)] for h in row.split()] for row in PALETTES[name]]
    return torch.tensor(rows, device=device)


def rows_of(weights):
    """For each style but the first the rows that have some of it: what `teach` takes where that stays the same."""
    return [column.nonzero().squeeze(1) for column in weights.unbind(1)[1:]]


@torch.no_grad()
def teach(frames, weights, palettes, phases, rows=None):
    """The target: frames (b, 3, h, w) in [-1, 1] redrawn by a mix of styles.

    `weights` (b, styles) sums to 1 in the order of STYLES; `palettes` and `phases` (b, styles) hold the clip's draw for
    each style; `rows` says which rows can have some of each style, and is found from `weights` if it is not given.
    Strength s of one style is the weights s for it and 1 - s for `none`. Returns frames in [-1, 1].
    """
    x = frames * 0.5 + 0.5
    out = x * weights[:, :1, None, None]
    for index, some in enumerate(rows_of(weights) if rows is None else rows, start=1):
        if len(some) == 0:
            continue
        palette = palette_table(STYLES[index], x.device).to(x.dtype)[palettes[some, index]]
        drawn = DRAW[STYLES[index]](x[some], palette, phases[some, index])
        out[some] += drawn * weights[some, index, None, None, None]
    return (out * 2 - 1).clamp(-1, 1)
