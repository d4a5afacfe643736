#!/usr/bin/env python3
"""The reference network in PyTorch: the same work as `mirage bench`, timed the same way, on the same machine.

    python3 benches/peers/pytorch.py --check                      # against the golden file
    mirage bench --model reference-medium --peer benches/peers/pytorch.py
    python3 benches/peers/pytorch.py --ops                        # the four convolutions of the CPU target
    python3 benches/peers/pytorch.py --base 16 --inputs a.safetensors --output b.safetensors

Needs torch, numpy and safetensors. Prints one JSON object a line; refuses to time a network that does not draw what the
golden file holds.
"""
import argparse
import json
import pathlib
import platform
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

GOLDEN = pathlib.Path(__file__).parents[2] / "tests/golden/mirage_hello_base16_b1_32x32.safetensors"
HEADS, TIMESTEPS = 16, 50


class HeavyConvBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        sizes = [inputs] + [outputs] * 4
        self.conv_layers = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in zip(sizes, sizes[1:]))
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(4))

    def forward(self, x):
        for conv, norm in zip(self.conv_layers, self.norms):
            x = F.silu(norm(conv(x)))
        return x


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(channels, channels))
        self.ffn = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.sdpa = False

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        y = self.norm1(x)
        q, k, v = (p(y).view(b, h * w, HEADS, c // HEADS).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        if self.sdpa:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(2, 3) / (c // HEADS) ** 0.5, -1) @ v
        x = x + self.out_proj(y.transpose(1, 2).reshape(b, h * w, c))
        x = x + self.ffn(self.norm2(x))
        return x.transpose(1, 2).reshape(b, c, h, w)


class UNet(nn.Module):
    def __init__(self, inputs, outputs, base):
        super().__init__()
        self.enc1 = HeavyConvBlock(inputs, base)
        for level in (2, 3, 4):
            c = base << (level - 1)
            setattr(self, f"enc{level}", HeavyConvBlock(c // 2, c))
            setattr(self, f"attn{level - 1}", Attention(c))
        c = 16 * base
        self.bottleneck = nn.Sequential(HeavyConvBlock(c // 2, c), Attention(c), HeavyConvBlock(c, c // 2))
        for level in (4, 3, 2, 1):
            c = base << (level - 1)
            setattr(self, f"dec{level}", HeavyConvBlock(2 * c, c // 2 if level > 1 else base))
        self.output = nn.Conv2d(base, outputs, 1)

    def forward(self, x):
        down = lambda x: F.max_pool2d(x, 2)
        up = lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x1 = self.enc1(x)
        x2 = self.attn1(self.enc2(down(x1)))
        x3 = self.attn2(self.enc3(down(x2)))
        x4 = self.attn3(self.enc4(down(x3)))
        y = self.bottleneck(down(x4))
        for block, skip in ((self.dec4, x4), (self.dec3, x3), (self.dec2, x2), (self.dec1, x1)):
            y = block(torch.cat([up(y), skip], 1))
        return self.output(y)


class Reference(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.unets = nn.ModuleList([UNet(4, 3, base), UNet(3, 3, base // 2)])
        self.temporal_processor = nn.Sequential(HeavyConvBlock(6, base), Attention(base), HeavyConvBlock(base, 3))

    def forward(self, x, timestep, previous):
        plane = torch.full_like(x[:, :1], timestep / TIMESTEPS)
        y = self.unets[1](self.unets[0](torch.cat([x, plane], 1)))
        return self.temporal_processor(torch.cat([y, previous], 1))

    def sequence(self, x, previous, calls=5, done=lambda: None):
        outputs = []
        for i in range(calls):
            previous = self(x, i * TIMESTEPS / calls, previous)
            outputs.append(previous)
            done()
        return outputs


def uniform(name, count):
    """The formula of the weights: fnv1a64 of the name, splitmix64 of that plus the index, in [-1, 1)."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(count, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(40)) / 2.0**24 * 2 - 1


def load(base):
    with torch.device("meta"):
        model = Reference(base)
    state = {}
    for name, t in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.int64)
            continue
        u = uniform(name, t.numel())
        if t.dim() >= 2:
            u = u * (6 / np.prod(t.shape[1:])) ** 0.5
        elif name.endswith("running_var"):
            u = 1 + 0.5 * u
        elif name.endswith("weight"):
            u = 1 + 0.1 * u
        else:
            u = 0.1 * u
        state[name] = torch.from_numpy(u.astype(np.float32)).reshape(t.shape)
    model.load_state_dict(state, assign=True)
    return model.eval()


def check():
    """Every tensor of the golden file within 1e-4 of its largest magnitude."""
    from safetensors.torch import load_file

    golden = load_file(GOLDEN)
    model = load(16)
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    with torch.inference_mode():
        got = {"step_t25": model(golden["x"], 25, golden["previous"])}
        got |= {f"activation.{n}": t for n, t in seen.items()}
        got["sequence"] = torch.stack(model.sequence(golden["x"], golden["previous"]))
    for name, want in golden.items():
        if name not in ("x", "previous"):
            error = ((got[name] - want).abs().max() / want.abs().max()).item()
            if not error < 1e-4:
                sys.exit(f"the PyTorch network is wrong: {name} differs by {error:.1e} of its largest magnitude")


def say(**fields):
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    print(json.dumps({**fields, "versions": versions}), flush=True)


def variants(device):
    """Name, dtype, channels-last, TF32, SDPA, and how the frame is run."""
    if device.type == "cpu":
        yield "PyTorch f32 eager", torch.float32, False, False, False, "eager"
        yield "PyTorch f32 channels-last SDPA", torch.float32, True, False, True, "eager"
        yield "PyTorch bf16 channels-last SDPA", torch.bfloat16, True, False, True, "eager"
        return
    yield "PyTorch f32 eager, TF32 off", torch.float32, False, False, False, "eager"
    yield "PyTorch f32 eager, TF32 convolutions", torch.float32, False, True, False, "eager"
    yield "PyTorch f16 eager", torch.float16, False, True, False, "eager"
    yield "PyTorch f16 channels-last SDPA", torch.float16, True, True, True, "eager"
    yield "PyTorch f16 channels-last SDPA, one CUDA graph", torch.float16, True, True, True, "graph"
    yield "PyTorch f16 channels-last SDPA, torch.compile", torch.float16, True, True, True, "compile"


def graphed(run, x, previous):
    """The whole sequence as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run(x, previous)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run(x, previous)
    return lambda *_: (graph.replay(), output)[1]


def time_variant(args, device, base_model, variant, exact):
    name, dtype, channels_last, tf32, sdpa, how = variant
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = dtype == torch.float16
    model = base_model.to(device=device, dtype=dtype)
    form = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=form)
    for module in model.modules():
        if isinstance(module, Attention):
            module.sdpa = sdpa
    x, previous = (t.to(device=device, dtype=dtype, memory_format=form) for t in inputs(args))
    cuda = device.type == "cuda"
    synchronise = torch.cuda.synchronize if cuda else lambda: None
    forward = torch.compile(model, mode="reduce-overhead") if how == "compile" else model
    calls = []

    def run(x, previous):
        for i in range(args.calls):
            begin = time.perf_counter()
            previous = forward(x, i * TIMESTEPS / args.calls, previous)
            if how == "compile":
                previous = previous.clone()
            calls.append((time.perf_counter() - begin) * 1e3)
        return previous

    error = (model(x, 25.0, previous).float() - exact).abs().max() / exact.abs().max()
    if how == "graph":
        run = graphed(run, x, previous)
    for _ in range(max(args.warmup, 3 if how == "compile" else 1)):
        run(x, previous)
    synchronise()
    calls.clear()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    timings, begin = [], time.perf_counter()
    while len(timings) < args.runs and (len(timings) < 3 or time.perf_counter() - begin < args.limit):
        if cuda:
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            run(x, previous)
            last.record()
            last.synchronize()
            timings.append(first.elapsed_time(last))
        else:
            start = time.perf_counter()
            run(x, previous)
            timings.append((time.perf_counter() - start) * 1e3)
    fields = {"peak_memory_bytes": torch.cuda.max_memory_allocated()} if cuda else {"ms_per_call": calls}
    say(name=name, ms_per_sequence=timings, largest_error=error.item(), **fields)


def inputs(args):
    generator = torch.Generator().manual_seed(args.seed)
    shape = (args.batch, 3, args.height, args.width)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def time_network(args, device):
    exact = None
    for variant in variants(device):
        if args.variant and args.variant not in variant[0]:
            continue
        try:
            model = load(args.base).to(device)
            if exact is None:
                torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
                x, previous = (t.to(device) for t in inputs(args))
                exact = model(x, 25.0, previous)
            time_variant(args, device, model, variant, exact)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            say(name=variant[0], refused=str(error).splitlines()[0])
        if device.type == "cuda":
            model = None
            torch.cuda.empty_cache()


def time_ops(args):
    for channels, size in ((32, 128), (64, 64), (128, 32), (256, 16)):
        conv = nn.Conv2d(channels, channels, 3, padding=1).eval()
        flops = 2 * 9 * channels * channels * size * size
        for form, name in ((torch.contiguous_format, "contiguous"), (torch.channels_last, "channels-last")):
            layer = conv.to(memory_format=form)
            x = torch.randn(1, channels, size, size).to(memory_format=form)
            timings, begin = [], time.perf_counter()
            while time.perf_counter() - begin < args.limit:
                start = time.perf_counter()
                layer(x)
                timings.append(time.perf_counter() - start)
            median = sorted(timings)[len(timings) // 2]
            say(name=f"conv2d 3x3 {channels}ch {size}x{size} {name}", gflops=flops / median / 1e9, best=flops / min(timings) / 1e9)


def evaluate(args):
    from safetensors.torch import load_file, save_file

    given = load_file(args.inputs)
    model = load(args.base)
    step = model(given["x"].float(), 25.0, given["previous"].float())
    sequence = torch.stack(model.sequence(given["x"].float(), given["previous"].float()))
    save_file({"step_t25": step.contiguous(), "sequence": sequence.contiguous()}, args.output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, kind, default in (
        ("base", int, 128), ("batch", int, 1), ("width", int, 64), ("height", int, 64), ("calls", int, 5), ("runs", int, 20),
        ("warmup", int, 2), ("limit", float, 60.0), ("threads", int, 0), ("seed", int, 0), ("device", str, "cpu"),
        ("variant", str, ""), ("inputs", str, ""), ("output", str, ""),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default)
    for flag in ("json", "check", "ops"):
        parser.add_argument(f"--{flag}", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with torch.inference_mode():
        check()
        if args.inputs:
            evaluate(args)
        elif args.ops:
            time_ops(args)
        elif not args.check:
            time_network(args, torch.device(args.device.replace("cuda:0", "cuda")))


if __name__ == "__main__":
    main()
