"""Runs training steps: one after another on a CPU, as captured CUDA graphs on a GPU.

A step is some thousands of small operations, which a GPU finishes several times faster than Python can ask for them.
"""

import torch

from objective import sampled_rows, train_step


class Trainer:
    """The network, its optimiser and the streams; a graph for each size of frame and number of memory entries.

    `loss` holds what `loss_of` shall have other than by default.
    """

    def __init__(self, model, optimiser, pools, loss=None):
        self.model, self.optimiser, self.pools, self.loss = model, optimiser, pools, loss or {}
        self.policy, self.rows, self.graphs, self.memory = None, [], {}, None
        self.figures = {name: torch.zeros((), device=pools[0].device) for name in ("mse", "loss", "skipped")}

    def set_policy(self, policy):
        """The share of the streams that are sampled as the engine does, and in how many steps."""
        if policy != self.policy:
            self.policy, self.graphs, self.memory = policy, {}, None
            self.rows = [sampled_rows(len(pool.share), *policy, pool.device) for pool in self.pools]

    def _step(self, pool, entries):
        loss, figures = train_step(self.model, self.pools[pool], self.rows[pool], entries, **self.loss)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        # One frame that is not a number must not end a run: such a step changes nothing.
        for parameter in self.model.parameters():
            if parameter.grad is not None:  # the memory's weights have none where no entry is read
                parameter.grad.nan_to_num_(0, 0, 0)
        self.optimiser.step()
        for name, value in {**figures, "skipped": ~torch.isfinite(norm)}.items():
            self.figures[name] += torch.nan_to_num(value.float(), 0)

    def step(self, pool, entries):
        """One training step on the streams of `pools[pool]`, which reads `entries` of the memory."""
        if self.figures["loss"].device.type != "cuda":
            return self._step(pool, entries)
        if (pool, entries) not in self.graphs:
            # Capture wants an ordinary step before it, in which libraries choose their algorithms.
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                self._step(pool, entries)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # The graphs run one at a time and leave nothing behind, so they can share their memory.
            with torch.cuda.graph(graph, pool=self.memory):
                self._step(pool, entries)
            self.memory = self.memory or graph.pool()
            self.graphs[pool, entries] = graph
        self.graphs[pool, entries].replay()

    def means(self, count):
        """What was logged, averaged over the `count` steps since the last call."""
        means = {name: float(value) / count for name, value in self.figures.items()}
        for value in self.figures.values():
            value.zero_()
        return means
