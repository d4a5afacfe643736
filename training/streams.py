"""Streams to train on: scenes with a style each, and all that a frame's drawing may look back on.

Every stream lives for many frames. At each training step all of them advance by one frame; what the network drew for it
becomes part of the next step's history, so that learning from its own outputs costs nothing extra.
"""

import torch
import torch.nn.functional as F

from filters import blur
from live import MEMORY_GRID, memory_cells
from scenes import Scenes
from teacher import PALETTE_COUNT, PHASES, STYLES, teach

RING = 3
LIFE = 120  # frames, on average
REWEIGH = 1 / 60  # chance per frame that the viewer moves the strength or the mix


def places(n, device, turns=STYLES[1:]):
    """The styles of each place in the batch, first and second (n,): `none` is the second for six places in seven.

    `turns` names the styles that come first, place by place, over and over.
    """
    index, count, length = torch.arange(n, device=device), len(STYLES) - 1, len(turns)
    first = torch.tensor([STYLES.index(name) for name in turns], device=device)[index % length]
    other = 1 + (first + index // (7 * length) % (count - 1)) % count
    return first, torch.where(index // length % 7 == 0, other, 0)


def draw_shares(second):
    """The first style's share (n,): beside `none` mostly all of it, sometimes some, sometimes nothing; else a mix."""
    kind, some = torch.rand(len(second), device=second.device), torch.rand(len(second), device=second.device)
    share = torch.where((kind < 0.70) & (second == 0), 1.0, 0.25 + 0.7 * some)
    return torch.where((kind > 0.93) & (second == 0), 0.0, share)


def corrupted(x, amount):
    """History as a drifting model leaves it: softer, brighter or darker, tinted, blotched; `amount` (b,) in [0, 1].

    `x` is (b, frames, 3, h, w); the frames of one stream suffer alike, since drift is the same in both of them.
    """
    b, n, _, h, w = x.shape
    amount = amount.view(b, 1, 1, 1, 1) * torch.rand(b, 1, 1, 1, 1, device=x.device)

    def normal(*shape):
        return torch.randn(*shape, device=x.device)

    soft = blur(x.flatten(0, 1), 1.0).view_as(x)
    x = x + (soft - x) * (2 * amount * normal(b, 1, 1, 1, 1)).clamp(-0.5, 1)
    blotches = F.interpolate(normal(b, 3, 4, 4), (h, w), mode="bilinear").unsqueeze(1)
    x = x * torch.exp(0.8 * amount * normal(b, 1, 1, 1, 1))
    return (x + 0.5 * amount * normal(b, 1, 3, 1, 1) + 0.4 * amount * blotches).clamp(-1, 1)


class Streams:
    """A batch of streams of one frame size with their targets, histories and memories.

    Everything that lasts is kept in place, and no value decides what is computed: see `scenes.py`. `turns` are those of
    `places`, `scenes` what `Scenes` shall have other than by default.
    """

    def __init__(self, photographs, count, height, width, turns=STYLES[1:], scenes=None):
        self.scenes = Scenes(photographs, count, height, width, **(scenes or {}))
        self.device = self.scenes.device
        styles, rows = len(STYLES), torch.arange(count, device=self.device)
        self.first, self.second = places(count, self.device, turns)
        self.rows = [((self.first == i) | (self.second == i)).nonzero().squeeze(1) for i in range(1, styles)]
        self.place = rows
        self.share = draw_shares(self.second)
        self.palettes = torch.zeros(count, styles, dtype=torch.long, device=self.device)
        self.phases = torch.zeros_like(self.palettes)
        # Both previous outputs, newest first: the network's own, and the teacher's.
        self.own = torch.zeros(count, 2, 3, height, width, device=self.device)
        self.taught = torch.zeros_like(self.own)
        self.memory = torch.zeros(count, 1 + RING, MEMORY_GRID**2, 6, device=self.device)
        self.clock = torch.zeros((), dtype=torch.long, device=self.device)
        self.begun = torch.zeros(count, dtype=torch.bool, device=self.device)

    @property
    def weights(self):
        """Style weights (n, styles), which sum to 1."""
        weights = torch.zeros(len(self.share), len(STYLES), device=self.device)
        weights[self.place, self.second] = 1 - self.share
        weights[self.place, self.first] = self.share
        return weights

    def _replace(self, rows, old, new):
        old.copy_(torch.where(rows.view(-1, *[1] * (old.dim() - 1)), new, old))

    def next(self):
        """Advance; the new frames (b, 3, h, w). The teacher's answer is `self.target`.

        Some streams end and others take their place: `self.begun` (b,) is false where this frame is a stream's first,
        which the teacher draws, to be history. Half of them cut to another scene right after it, so that the memory and
        the history come from another scene than the frame.
        """
        n, device = len(self.share), self.device
        fresh = (torch.rand(n, device=device) < 1 / LIFE) | (self.clock == 0)
        cut = fresh | (~self.begun & (torch.rand(n, device=device) < 0.5))
        self.scenes.advance(cut)
        self._replace(fresh, self.share, draw_shares(self.second))
        for draws, count in ((self.palettes, PALETTE_COUNT), (self.phases, PHASES)):
            self._replace(fresh, draws, torch.randint(count, draws.shape, device=device))
        moved = ~fresh & (torch.rand(n, device=device) < REWEIGH)
        self._replace(moved, self.share, 0.25 + 0.75 * torch.rand(n, device=device))
        self.begun.copy_(~fresh)
        self.frame = self.scenes.frames()
        self.target = teach(self.frame, self.weights, self.palettes, self.phases, self.rows)
        return self.frame

    def commit(self, drawn, usable):
        """Take `drawn` as this frame's output where `usable` (b,), else the teacher's, into history and memory."""
        fresh = ~self.begun
        drawn = torch.where((usable & self.begun).view(-1, 1, 1, 1), drawn, self.target).nan_to_num(0)
        for history, output in ((self.own, drawn), (self.taught, self.target.nan_to_num(0))):
            older = torch.where(fresh.view(-1, 1, 1, 1), output, history[:, 0])
            history.copy_(torch.stack([output, older], 1))
        # Each stream writes its ring now and then, in turn, so that entries of several ages stand in it.
        turn = (self.place + self.clock) % 8 == 0
        slot = torch.arange(1 + RING, device=self.device) == 1 + self.clock // 8 % RING
        write = fresh.view(-1, 1) | (turn.view(-1, 1) & slot)
        cells = memory_cells(self.frame.nan_to_num(0), drawn).unsqueeze(1)
        self.memory.copy_(torch.where(write.view(*write.shape, 1, 1), cells, self.memory))
        self.clock += 1
