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
RESTART_EVERY = 6
REWEIGH = 1 / 60  # chance per frame that the viewer moves the strength or the mix


def draw_weights(n, generator):
    """Style weights (n, styles): mostly one style, often at less than full strength, sometimes two, sometimes none."""
    count = len(STYLES) - 1
    first = torch.randint(1, count + 1, (n,), generator=generator)
    second = 1 + (first + torch.randint(count - 1, (n,), generator=generator)) % count
    kind, share = torch.rand(n, generator=generator), torch.rand(n, generator=generator)
    second = torch.where(kind < 0.82, 0, second)
    share = torch.where(kind < 0.62, 1.0, 0.25 + 0.7 * share)
    share = torch.where(kind > 0.94, 0.0, share)  # the identity alone
    second = torch.where(kind > 0.94, 0, second)
    weights = torch.zeros(n, len(STYLES))
    rows = torch.arange(n)
    weights[rows, first] += share
    weights[rows, second] += 1 - share
    return weights


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
    """A batch of streams of one frame size with their targets, histories and memories."""

    def __init__(self, photographs, count, height, width, seed):
        self.scenes = Scenes(photographs, count, height, width, seed)
        self.device = self.scenes.device
        self.generator = torch.Generator().manual_seed(seed + 1)
        styles = len(STYLES)
        self.weights = torch.zeros(count, styles, device=self.device)
        self.palettes = torch.zeros(count, styles, dtype=torch.long, device=self.device)
        self.phases = torch.zeros_like(self.palettes)
        # Both previous outputs, newest first: the network's own, and the teacher's.
        self.own = torch.zeros(count, 2, 3, height, width, device=self.device)
        self.taught = torch.zeros_like(self.own)
        self.memory = torch.zeros(count, 1 + RING, MEMORY_GRID**2, 6, device=self.device)
        self.steps = 0
        self._restart(torch.arange(count))

    def _teach(self, frames, rows=slice(None)):
        return teach(frames, self.weights[rows], self.palettes[rows], self.phases[rows])

    def _restart(self, rows):
        """New clips for `rows`: the memory from one moment, the history from another, often of another scene."""
        n, styles = len(rows), len(STYLES)
        if n == 0:
            return
        self.weights[rows] = draw_weights(n, self.generator).to(self.device)
        self.palettes[rows] = torch.randint(PALETTE_COUNT, (n, styles), generator=self.generator).to(self.device)
        self.phases[rows] = torch.randint(PHASES, (n, styles), generator=self.generator).to(self.device)
        self.scenes.reset(rows)
        frames = self.scenes.frames(rows)
        self.memory[rows] = memory_cells(frames, self._teach(frames, rows)).unsqueeze(1)
        self.scenes.reset(rows[torch.rand(n, generator=self.generator) < 0.5])
        frames = self.scenes.frames(rows)
        self.own[rows] = self.taught[rows] = self._teach(frames, rows).unsqueeze(1)

    def _reweigh(self):
        rows = (torch.rand(len(self.weights), generator=self.generator) < REWEIGH).nonzero().squeeze(1)
        for row in rows.tolist():
            parts = self.weights[row].nonzero().squeeze(1).tolist()
            share = 0.25 + 0.75 * torch.rand(1, generator=self.generator).item()
            if len(parts) == 1 and parts[0] != 0:
                parts = [0, parts[0]]
            if len(parts) == 2:
                self.weights[row, parts[1]], self.weights[row, parts[0]] = share, 1 - share

    def next(self):
        """Advance; the new frames and the teacher's answer, both (b, 3, h, w)."""
        self.steps += 1
        self.scenes.advance()
        if self.steps % RESTART_EVERY == 0:
            ended = torch.rand(len(self.weights), generator=self.generator) < RESTART_EVERY / LIFE
            self._restart(ended.nonzero().squeeze(1))
            self.scenes.advance()
        self._reweigh()
        self.frame = self.scenes.frames()
        self.target = self._teach(self.frame)
        return self.frame, self.target

    def commit(self, drawn, usable):
        """Take `drawn` as this frame's output where `usable` (b,), else the teacher's, into history and memory."""
        drawn = torch.where(usable.view(-1, 1, 1, 1), drawn, self.target)
        self.own = torch.stack([drawn, self.own[:, 0]], 1)
        self.taught = torch.stack([self.target, self.taught[:, 0]], 1)
        # Each stream writes its ring now and then, in turn, so that entries of several ages stand in it.
        turn = (torch.arange(len(drawn), device=self.device) + self.steps) % 8
        rows = (turn == 0).nonzero().squeeze(1)
        slot = 1 + (self.steps // 8) % RING
        self.memory[rows, slot] = memory_cells(self.frame[rows], drawn[rows])
