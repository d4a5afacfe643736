"""What one training step asks of the network: timesteps, history, memory, sampled inputs, and the loss."""

import functools
import math

import torch
import torch.nn.functional as F

from live import FIRST_FRAME_TIMES, NO_HISTORY, step_times
from streams import corrupted

HISTORY_NOISE = 100  # the level that the engine uses
GRID = [999, 999, 499, 749, 249]  # timesteps of sampling in 1, 2 and 4 steps


@functools.lru_cache(maxsize=None)
def _table(values, device):
    return torch.tensor(values, device=device)


def _one_of(values, n, device):
    return _table(tuple(values), device)[torch.randint(len(values), (n,), device=device)]


def draw_times(n, first, device):
    """Timesteps of the current frame, independent of the history's (diffusion forcing).

    Where there is no history, the palette is still open and is decided at very high noise, so most draws lie there and
    on the first frame's steps. Elsewhere the steps that sampling will use get most of the draws.
    """
    u, pick = torch.rand(n, device=device), torch.rand(n, device=device)
    near_top = (999 - 1000 * u**2.5).clamp(0, 999).long()
    opening = torch.where(pick < 0.4, _one_of(FIRST_FRAME_TIMES, n, device), near_top)
    later = torch.where(pick < 0.6, _one_of(GRID, n, device), (1000 * u).long())
    return torch.where(first, opening, later)


def draw_history(streams, on_policy, model):
    """The two previous outputs as the network will see them, with their noise level, and what it shall draw from them:
    (newer, older, h, first, trusted, target).

    h = 999: dropped. h = 0: clean frames of the teacher, to be trusted: what is odd in their colour or sharpness is in the
    target as well. A network run so has to keep its own errors, which is what drift is; it is the naive variant of the drift
    test. Between: the network's own outputs, or the teacher's, more corrupted the higher h is, and the target is right.
    """
    n, device = len(streams.own), streams.device
    kind = torch.rand(n, device=device)
    first, trusted = ~on_policy & (kind < 0.14), ~on_policy & (kind >= 0.14) & (kind < 0.30)
    spread = torch.exp(torch.empty(n, device=device).uniform_(math.log(15), math.log(700))).long()
    h = torch.where(torch.rand(n, device=device) < torch.where(on_policy, 0.8, 0.3), HISTORY_NOISE, spread)
    h = torch.where(trusted, 0, torch.where(first, NO_HISTORY, h))
    own = on_policy | (torch.rand(n, device=device) < 0.5)
    amount = torch.where(torch.rand(n, device=device) < 0.7, (1 - model.alphas[h]).sqrt(), 0.0)
    damaged = corrupted(streams.taught, amount)
    past = torch.where(own.view(-1, 1, 1, 1, 1), streams.own, damaged)
    alike = corrupted(torch.cat([streams.taught, streams.target.unsqueeze(1)], 1), torch.rand(n, device=device))
    past = torch.where(trusted.view(-1, 1, 1, 1, 1), alike[:, :2], past)
    target = torch.where(trusted.view(-1, 1, 1, 1), alike[:, 2], streams.target)
    # A stream's second frame has only one behind it, which then stands for both.
    lone = torch.rand(n, device=device) < 0.06
    older = torch.where(lone.view(-1, 1, 1, 1), past[:, 0], past[:, 1])
    newer, older = (model.noised(x, h, torch.randn_like(x)) for x in (past[:, 0], older))
    return newer, older, h, first, trusted, target


def draw_memory(streams, entries):
    """The memory's cells for this step, (b, 16 * entries, 6), or none."""
    if entries == 0:
        return None
    cells = streams.memory[:, :entries].flatten(1, 2)
    return cells + 0.03 * torch.randn_like(cells)


def sampled_rows(n, share, lengths, device):
    """Which streams are sampled as the engine samples: for each number of steps the indices of its streams.

    Always the same streams, so that a rollout lasts as long as its stream and no easy frame mends it in between.
    """
    place = torch.arange(n, device=device)
    rows = place[place % 20 < round(20 * share)]
    return {length: rows[i :: len(set(lengths))] for i, length in enumerate(sorted(set(lengths)))}


@torch.no_grad()
def sample_into(noisy, t, model, rows, count, condition):
    """Puts inputs as sampling itself reaches them into `noisy` and `t` at `rows`, each after 0 to count - 1 of steps.

    As many rows stop after each number of steps, which ones is drawn anew each time.
    """
    order = rows[torch.rand(len(rows), device=rows.device).argsort()]
    noisy[order] = torch.randn_like(noisy[order])
    t.index_fill_(0, order, 999)
    times = step_times(count)
    for step in range(count - 1):
        some = order[: len(order) * (count - 1 - step) // count]
        now, to = (torch.full_like(some, times[step + i]) for i in range(2))
        clean = model(noisy[some], now, *(given[some] for given in condition)).clamp(-1, 1)
        noisy[some], t[some] = model.ddim(noisy[some], clean, now, to), to


def huber(x, delta=0.1):
    """Quadratic (5 x^2) below `delta`, linear above: the mean where it is nearly right, the median where it must choose.

    The median outvotes sparse fine strokes by what surrounds them; a greater `delta` lets them count.
    """
    size = x.abs()
    return torch.where(size < delta, 0.5 * size * size, delta * (size - 0.5 * delta)) / 0.1


def loss_of(drawn, target, t, first, delta=0.1, slopes=0.5):
    """Per-sample loss (b,); `delta` is that of `huber`, `slopes` the slopes' weight.

    Pixels (Huber), slopes between neighbours (so that lines stay sharp), and averages over 4 and 16 pixels (so that
    colour, the thing that drifts, weighs more than its few low frequencies would). All timesteps weigh the same, for
    the network predicts the frame itself and sampling starts at the highest; only frames whose palette cannot be known
    yet weigh less, since most of their loss is chance.
    """
    error = drawn - target
    parts = huber(error, delta).mean((1, 2, 3))
    for axis in (2, 3):
        parts = parts + slopes * error.diff(dim=axis).abs().mean((1, 2, 3))
    for cell in (4, 16):
        parts = parts + 0.5 * F.avg_pool2d(error, cell).abs().mean((1, 2, 3))
    return parts * torch.where(first & (t > 800), 0.35, 1.0)


def train_step(model, streams, rows, entries, **loss):
    """One forward pass over all streams: the loss to descend, and what to log.

    `rows` is what `sampled_rows` gave; `entries` of the memory's entries are read; `loss` goes to `loss_of`.
    """
    frame = streams.next()
    n, device = len(frame), frame.device
    on_policy = torch.zeros(n, dtype=torch.bool, device=device)
    for some in rows.values():
        on_policy.index_fill_(0, some, True)
    newer, older, h, first, trusted, target = draw_history(streams, on_policy, model)
    tokens = model.tokens(streams.weights, draw_memory(streams, entries))
    t = draw_times(n, first, device)
    noisy = model.noised(target, t, torch.randn_like(target))
    for count, some in rows.items():
        sample_into(noisy, t, model, some, count, (frame, newer, older, h, tokens))
    drawn = model(noisy, t, frame, newer, older, h, tokens)
    losses = loss_of(drawn, target, t, first, **loss) * streams.begun
    # A frame drawn without history may be in another palette than the teacher's, and one drawn from a trusted history is
    # as odd as that was: neither must become history.
    known = (~first & streams.begun).float()
    streams.commit(drawn.detach().clamp(-1, 1), ~first & ~trusted)
    error = ((drawn.detach() - target) ** 2).mean((1, 2, 3))
    return losses.mean(), {"mse": (error * known).sum() / known.sum().clamp(min=1), "loss": losses.detach().mean()}
