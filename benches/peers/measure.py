"""Memory, time and graphs of a device: how peers in PyTorch are measured."""
import ctypes
import gc
import pathlib
import sys
import time

import torch


class Memory:
    """The most bytes in use beyond those at the start; on a CPU of the process, which only Linux tells."""

    def __init__(self, device):
        self.cuda = device.type == "cuda"
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
        elif sys.platform == "linux":
            if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
                libc.malloc_trim(0)  # freed memory that the process still holds would hide new use
            pathlib.Path("/proc/self/clear_refs").write_text("5")
            self.start = self.status("VmRSS")

    @staticmethod
    def status(field):
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

    def peak(self):
        if self.cuda:
            return torch.cuda.max_memory_allocated() - self.start
        return self.status("VmHWM") - self.start if sys.platform == "linux" else None


class Clock:
    """Marks moments on the device's own clock: CUDA events, or the processor's time."""

    def __init__(self, device):
        self.cuda = device.type == "cuda"
        self.marks = []

    def mark(self):
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def laps(self):
        """Milliseconds between the marks, after everything before the last has been done."""
        if self.cuda:
            self.marks[-1].synchronize()
            return [a.elapsed_time(b) for a, b in zip(self.marks, self.marks[1:])]
        return [1e3 * (b - a) for a, b in zip(self.marks, self.marks[1:])]


def graphed(sequence):
    """The whole sequence as one CUDA graph."""
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            sequence()
        torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = sequence()

    def replay(done=lambda: None):
        graph.replay()
        done()
        return outputs

    return replay
