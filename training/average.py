"""Averages two checkpoints, tensor by tensor, half of each: `python3 average.py A B OUT`.

The sums are in f32, the result in A's types and with A's metadata. Where B has gone on from A, the average is meant to keep
what A could and B has lost, at the price of some of what B has gained.
"""

import sys

from safetensors import safe_open
from safetensors.torch import load_file, save_file


def average(a, b, out):
    """Write the average of the checkpoints `a` and `b` to `out`."""
    with safe_open(a, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    others = load_file(b)
    if tensors.keys() != others.keys():
        raise ValueError(f"{a} and {b} hold different tensors")
    mean = {name: ((x.float() + others[name].float()) / 2).to(x.dtype) for name, x in tensors.items()}
    save_file(mean, out, metadata)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: average.py A B OUT")
    average(*sys.argv[1:])
