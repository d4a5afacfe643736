#!/usr/bin/env python3
"""The reference network in PyTorch: the same work as `mirage bench`, timed the same way, on the same machine.

    python3 benches/peers/pytorch.py --check                      # against the golden file
    mirage bench --model reference-medium --peer benches/peers/pytorch.py
    mirage bench --size 256x144 --steps 2 --peer benches/peers/pytorch.py                      # the live model
    python3 benches/peers/pytorch.py --base 16 --inputs a.safetensors --output b.safetensors   # as `mirage eval`

Needs torch, numpy and safetensors, and for the live model diffusers. Prints one JSON object a line, of a network that draws what the golden file holds.
"""
import argparse
import dataclasses
import json
import pathlib
import platform
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from measure import Clock, Memory, graphed

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/mirage_hello_base16_b1_32x32.safetensors"
HEADS, TIMESTEPS, LIVE = 16, 50, "mirage-live"


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
        return self.together(x, self.plane(x, timestep), previous)[0]

    @staticmethod
    def plane(x, timestep):
        return (timestep / TIMESTEPS).to(x.dtype).expand_as(x[:, :1])

    def together(self, x, planes, previous):
        """Calls at the timesteps of `planes`; the U-Nets, which see nothing of what calls draw, have all of them in one batch."""
        frames, outputs = x if len(planes) == len(x) else x.repeat(len(planes) // len(x), 1, 1, 1), []
        for image in self.unets[1](self.unets[0](torch.cat([frames, planes], 1))).split(len(x)):
            outputs.append(self.temporal_processor(torch.cat([image, outputs[-1] if outputs else previous], 1)))
        return outputs


def timesteps(calls, device, span=TIMESTEPS):
    """Evenly spaced from 0, each a tensor on the device, as pipelines hand them over."""
    return list((torch.arange(calls, device=device) * (span / calls)).unbind())


class Live(nn.Module):
    """The live model as `training/live.py` has it, on diffusers' U-Net, conditioned as `mirage bench` does: the second style,
    no memory, a history at the noise of timestep 100."""

    timesteps = 1000

    def __init__(self):
        super().__init__()
        sys.path.insert(0, str(ROOT / "training"))
        from live import LiveModel

        self.model = LiveModel.load(ROOT / "assets/mirage-live.safetensors").eval()

    def attention(self, sdpa):
        from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

        self.model.unet.set_attn_processor(AttnProcessor2_0() if sdpa else AttnProcessor())

    def forward(self, x, timestep, previous):
        style = F.one_hot(torch.ones(len(x), dtype=torch.long, device=x.device), len(self.model.styles)).to(x.dtype)
        times, noise = timestep.expand(len(x)), torch.full((len(x),), 100, device=x.device)
        return self.model(x, times, x, previous, previous, noise, self.model.tokens(style)).to(x.dtype)


def in_sequence(forward, x, previous, times, done=lambda: None):
    """One frame's work: each call feeds what it drew to the next."""
    outputs = []
    for t in times:
        previous = forward(x, t, previous)
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


def shell(base):
    with torch.device("meta"):
        return Reference(base).eval()


def formula(base):
    """Every tensor of the network by name, in f32."""
    state = {}
    for name, t in shell(base).state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.int64)
            continue
        u = uniform(name, t.numel())
        if t.dim() >= 2:
            u *= (6 / np.prod(t.shape[1:])) ** 0.5
        elif name.endswith("running_var"):
            u = 1 + 0.5 * u
        elif name.endswith("weight"):
            u = 1 + 0.1 * u
        else:
            u *= 0.1
        state[name] = torch.from_numpy(u.astype(np.float32)).reshape(t.shape)
    return state


def build(base, weights):
    """The network on these weights, which stay as they are."""
    model = shell(base)
    model.load_state_dict(weights, assign=True)
    return model


def check():
    """Every tensor of the golden file within 1e-4 of its largest magnitude, or nothing else is done."""
    golden, model, got = load_file(GOLDEN), build(16, formula(16)), {}
    x, previous = golden.pop("x"), golden.pop("previous")
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: got.__setitem__(f"activation.{name}", out))
    got["step_t25"] = model(x, torch.tensor(25.0), previous)
    got = {**got, "sequence": torch.stack(in_sequence(model, x, previous, timesteps(5, x.device)))}
    for name, want in golden.items():
        if not (error := distance(got[name], want)) <= 1e-4:
            sys.exit(f"the PyTorch network is wrong: {name} differs by {error:.1e} of its largest magnitude")


def say(**fields):
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    print(json.dumps({**fields, "versions": versions}), flush=True)


@dataclasses.dataclass
class Variant:
    name: str
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    sdpa: bool = False
    tf32: bool = False
    graph: bool = False
    compiled: bool = False

    def configure(self):
        """The switches are global: each variant sets them all."""
        torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cuda.matmul.allow_tf32 = False  # also PyTorch's default
        torch.backends.cudnn.benchmark = self.dtype == torch.float16

    def allowed(self):
        """The largest error that a right network can have after a sequence, which amplifies each call's rounding.

        It tells a wrong network from an inexact one; the golden file is the strict check.
        """
        if self.dtype == torch.bfloat16:
            return 0.5
        return 1e-3 if self.dtype == torch.float32 and not self.tf32 else 0.1


BF16, F16 = torch.bfloat16, torch.float16
VARIANTS = {
    "cpu": [
        Variant("PyTorch f32 eager"),
        Variant("PyTorch f32 channels-last", channels_last=True),
        Variant("PyTorch f32 channels-last SDPA", channels_last=True, sdpa=True),
        Variant("PyTorch bf16 channels-last SDPA", BF16, channels_last=True, sdpa=True),
        Variant("PyTorch f32 channels-last SDPA, torch.compile", channels_last=True, sdpa=True, compiled=True),
    ],
    "cuda": [
        Variant("PyTorch f32 eager, TF32 off"),
        Variant("PyTorch f32 eager, defaults (TF32 convolutions)", tf32=True),
        Variant("PyTorch f16 eager", F16, tf32=True),
        Variant("PyTorch f16 channels-last SDPA", F16, channels_last=True, sdpa=True, tf32=True),
        Variant("PyTorch f16 channels-last SDPA, one CUDA graph", F16, channels_last=True, sdpa=True, tf32=True, graph=True),
        Variant("PyTorch f16 channels-last SDPA, torch.compile", F16, channels_last=True, sdpa=True, tf32=True, compiled=True),
    ],
}


def distance(got, exact):
    """Largest difference as a share of the largest magnitude."""
    return ((got.float() - exact).abs().max() / exact.abs().max()).item()


def prepare(args, device, weights, variant):
    """The variant's way of one call and of one sequence."""
    variant.configure()
    form = torch.channels_last if variant.channels_last else torch.contiguous_format
    model = Live() if args.model == LIVE else build(args.base, weights)
    model = model.to(device=device, dtype=variant.dtype).to(memory_format=form)
    if args.model == LIVE:
        model.attention(variant.sdpa)
    for module in model.modules():
        if isinstance(module, Attention):
            module.sdpa = variant.sdpa
    x, previous = (t.to(device=device, dtype=variant.dtype, memory_format=form) for t in inputs(args))
    forward = model
    if variant.compiled:
        fast = torch.compile(model, mode="reduce-overhead" if device.type == "cuda" else "default")
        # the next call overwrites what a compiled one returned from its graph
        forward = lambda *given: fast(*given).clone()
    times = timesteps(args.calls, device, getattr(model, "timesteps", TIMESTEPS))

    def sequence(done=lambda: None):
        return in_sequence(forward, x, previous, times, done)

    if args.together:
        options = {"mode": "reduce-overhead"} if device.type == "cuda" else {}
        whole = torch.compile(model.together, **options) if variant.compiled else model.together
        planes = torch.cat([model.plane(x, t) for t in times])

        def sequence(done=lambda: None):
            outputs = [y.clone() for y in whole(x, planes, previous)]
            done()
            return outputs

    middle = torch.tensor(25.0, device=device)
    return (lambda: forward(x, middle, previous)), sequence


def time_variant(args, device, weights, variant, exact):
    call, sequence = prepare(args, device, weights, variant)
    memory = Memory(device)
    error = distance(call(), exact["call"])
    if variant.graph:
        sequence = graphed(sequence)
    for _ in range(max(args.warmup, 1)):
        last = sequence()[-1]
    # one call tells how exact a variant is, the sequence that what is timed does that work
    worst = max(error, distance(last, exact["sequence"]))
    if not worst <= variant.allowed():
        raise RuntimeError(f"it differs from f32 by {worst:.1e} of the largest magnitude, {variant.allowed():.1e} is allowed")
    sequences, calls, begin = [], [], time.perf_counter()
    while len(sequences) < args.runs and (len(sequences) < 3 or time.perf_counter() - begin < args.limit):
        clock = Clock(device)
        clock.mark()
        sequence(clock.mark)
        laps = clock.laps()
        sequences.append(sum(laps))
        calls += [] if variant.graph or args.together else laps
    say(name=variant.name, ms_per_sequence=sequences, ms_per_call=calls, peak_memory_bytes=memory.peak(), largest_error=error)


def inputs(args):
    generator = torch.Generator().manual_seed(args.seed)
    shape = (args.batch, 3, args.height, args.width)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def time_network(args, device):
    variants = [v for v in VARIANTS[device.type] if any(part in v.name for part in args.variants.split(","))]
    if args.no_compile:
        variants = [v for v in variants if not v.compiled]
    if not variants:
        names = "; ".join(v.name for v in VARIANTS[device.type])
        sys.exit(f"no variant is called {args.variants!r}; there are: {names}")
    weights = None if args.model == LIVE else formula(args.base)
    # from 256x256 on, no memory holds the matrix of plain attention
    sdpa = args.width * args.height >= 256 * 256
    call, sequence = prepare(args, device, weights, Variant("exact", sdpa=sdpa))
    exact = {"call": call(), "sequence": sequence()[-1]}
    del call, sequence
    for variant in variants:
        try:
            time_variant(args, device, weights, variant, exact)
        except Exception as error:  # noqa: BLE001: whatever keeps one variant from running is its row
            say(name=variant.name, refused=(str(error) or type(error).__name__).splitlines()[0])
        torch.compiler.reset()


def time_ops(args, device):
    """3x3 convolutions, layouts in turns; on a GPU in f16 by cuDNN's fastest algorithm, eight in a graph so that no launch counts."""
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    dtype, together = (torch.float16, 8) if device.type == "cuda" else (torch.float32, 1)
    for batch, channels, size in ((1, 32, 128), (1, 64, 64), (1, 128, 32), (1, 256, 16), (1, 192, 64), (5, 192, 64), (1, 384, 32)):
        runs, begin = [], time.perf_counter()
        for name, form in (("contiguous", torch.contiguous_format), ("channels-last", torch.channels_last)):
            layer = nn.Conv2d(channels, channels, 3, padding=1).to(device, dtype, memory_format=form)
            x = torch.randn(batch, channels, size, size).to(device, dtype, memory_format=form)
            several = lambda layer=layer, x=x: [layer(x) for _ in range(together)]
            runs.append((name, graphed(several) if together > 1 else several, []))
        while time.perf_counter() - begin < min(args.limit, 4.0):
            for _, run, timings in runs:
                clock = Clock(device)
                for _ in range(11):
                    clock.mark()
                    run()
                timings += [t / together for t in clock.laps()]
        case = f"conv2d {batch}x{channels}x{size}x{size} to {channels}, 3x3, stride 1"
        for name, _, timings in runs:
            say(name=f"PyTorch {name}", case=case, ms_per_sequence=timings)


def evaluate(args):
    """What `mirage eval` does: one call at t = 25 and a sequence, on given frames."""
    given = load_file(args.inputs)
    x, previous = (given[name].float() for name in ("x", "previous"))
    model = build(args.base, formula(args.base))
    step = model(x, torch.tensor(25.0), previous)
    sequence = torch.stack(in_sequence(model, x, previous, timesteps(5, x.device)))
    save_file({"step_t25": step.contiguous(), "sequence": sequence.contiguous()}, args.output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("--model", default="reference", choices=["reference", LIVE], help="the network")
    option("--base", type=int, default=128, help="base channels of the network")
    for side in ("--width", "--height"):
        option(side, type=int, default=64)
    option("--size", type=int, help="width and height")
    option("--batch", type=int, default=1)
    option("--calls", type=int, default=5, help="calls of the network in a sequence")
    option("--together", action="store_true", help="all timesteps of a sequence through the U-Nets at once (reference network)")
    option("--runs", type=int, default=20, help="counted sequences of each variant")
    option("--warmup", type=int, default=2, help="sequences before them that are not counted")
    option("--limit", type=float, default=60.0, help="seconds after which a variant has been measured enough")
    option("--threads", type=int, default=0, help="threads on a CPU; 0 leaves it to PyTorch")
    option("--seed", type=int, default=0, help="seed of the input frames")
    option("--device", default="cpu", help="cpu, cuda or cuda:NUMBER")
    option("--variants", default="", help="only variants whose name holds one of these, separated by commas")
    option("--no-compile", action="store_true", help="leave torch.compile out: it compiles for minutes")
    option("--json", action="store_true", help="JSON lines, as it prints in any case")
    option("--check", action="store_true", help="only compare with the golden file")
    option("--ops", action="store_true", help="time convolutions instead of the network")
    option("--inputs", metavar="FILE", help="draw the x and previous of this safetensors file instead of timing")
    option("--output", "--eval-out", metavar="FILE", help="where to write step_t25 and sequence of --inputs")
    args = parser.parse_args()
    if (args.inputs is None) != (args.output is None):
        parser.error("--inputs and --output go together")
    if args.size:
        args.width = args.height = args.size
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if device.type not in VARIANTS:
        parser.error(f"no variants for the device {args.device}: choose {' or '.join(VARIANTS)}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            parser.error("PyTorch sees no NVIDIA GPU here: choose --device cpu, or install a driver and a CUDA build of torch")
        torch.cuda.set_device(device.index or 0)
    with torch.inference_mode():
        check()
        if args.inputs:
            evaluate(args)
        elif args.ops:
            time_ops(args, device)
        elif not args.check:
            time_network(args, device)


if __name__ == "__main__":
    main()
