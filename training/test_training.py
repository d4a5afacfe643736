"""What the recipe relies on: run with `python3 -m unittest` in this folder, a few seconds."""

import math
import pathlib
import tempfile
import unittest

import torch
from safetensors import safe_open

import checkpoint
from average import average
from live import LiveModel, Stream, step_times
from objective import huber, train_step
from photos import TILE
from scenes import Photographs
from streams import Streams, draw_shares, places
from teacher import DRAW, PALETTE_COUNT, PHASES, STYLES, palette_table, teach
from train import PROFILES, rate_at


def picture(size=96, seed=0):
    """Smooth random shapes in [0, 1]."""
    noise = torch.randn(1, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    return torch.sigmoid(2 * torch.nn.functional.interpolate(noise, (size, size), mode="bicubic"))


class Teacher(unittest.TestCase):
    def draw(self, name, x, palette=0, phase=0):
        return DRAW[name](x, palette_table(name)[[palette] * len(x)], torch.full((len(x),), phase))

    def test_reach(self):
        """A change of one spot changes nothing further away than a receptive field holds."""
        x = picture()
        y = x.clone()
        y[..., 47:49, 47:49] = 1 - y[..., 47:49, 47:49]
        for name in DRAW:
            changed = (self.draw(name, x) - self.draw(name, y)).abs().amax((0, 1)) > 1 / 255
            rows, columns = changed.nonzero(as_tuple=True)
            reach = max(48 - int(min(rows.min(), columns.min())), int(max(rows.max(), columns.max())) - 48)
            self.assertLessEqual(reach, 26, name)

    def test_no_flicker(self):
        """Noise as faint as a sensor's stays faint: no threshold turns it into flicker."""
        x = picture()
        noise = 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        for name in DRAW:
            change = (self.draw(name, x) - self.draw(name, (x + noise).clamp(0, 1))).square().mean().sqrt()
            self.assertLess(float(change), 0.05, name)

    def test_palettes_are_told_apart(self):
        """Any two palettes of a style look different enough to be recognised through the history's noise."""
        x = picture()
        for name in DRAW:
            drawn = [self.draw(name, x, palette).mean((2, 3)) for palette in range(PALETTE_COUNT)]
            full = [self.draw(name, x, palette) for palette in range(PALETTE_COUNT)]
            for i in range(PALETTE_COUNT):
                for j in range(i):
                    apart = float((full[i] - full[j]).square().mean().sqrt())
                    self.assertGreater(apart, 0.05, f"{name} {i} {j} {drawn[i]} {drawn[j]}")

    def test_phases_differ(self):
        x = picture()
        for name in DRAW:
            drawn = [self.draw(name, x, 0, phase) for phase in range(PHASES)]
            for i in range(PHASES):
                for j in range(i):
                    self.assertGreater(float((drawn[i] - drawn[j]).square().mean().sqrt()), 0.01, f"{name} {i} {j}")

    def test_mix_and_identity(self):
        x = picture() * 2 - 1
        ids = torch.zeros(1, len(STYLES), dtype=torch.long)
        one = torch.eye(len(STYLES))
        self.assertTrue(torch.allclose(teach(x, one[:1], ids, ids), x, atol=1e-6))
        half = teach(x, (one[:1] + one[1:2]) / 2, ids, ids)
        self.assertTrue(torch.allclose(half, (x + teach(x, one[1:2], ids, ids)) / 2, atol=1e-5))


class Model(unittest.TestCase):
    def test_size_and_checkpoint(self):
        model = LiveModel(STYLES).eval()
        self.assertLessEqual(sum(p.numel() for p in model.parameters()), 6_000_000)
        with tempfile.TemporaryDirectory() as folder:
            path = str(pathlib.Path(folder) / "live.safetensors")
            model.save(path)
            self.assertLess(pathlib.Path(path).stat().st_size, 12_000_000)
            again = LiveModel.load(path).eval()
        frame = torch.zeros(1, 3, 64, 80)
        weights = torch.eye(len(STYLES))[1:2]
        a, b = Stream(model, weights, seed=3), Stream(again, weights, seed=3)
        for _ in range(3):
            x, y = a.step(frame), b.step(frame)
        self.assertEqual(x.shape, frame.shape)
        self.assertLess(float((x - y).abs().max()), 0.05)
        self.assertEqual(step_times(2), [999, 499])

    def test_resume(self):
        """A run put back from its files goes on with the weights, Adam's variance and the count that it had."""
        model = LiveModel(STYLES)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        frame, t = torch.rand(1, 3, 32, 32), torch.tensor([500])
        weights = torch.eye(len(STYLES))[:1]
        model(frame, t, frame, frame, frame, t, model.tokens(weights)).square().mean().backward()
        optimiser.step()
        again = LiveModel(STYLES)
        resumed = torch.optim.AdamW(again.parameters(), lr=1e-3)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(pathlib.Path(folder), model, model, optimiser, 7, 1.5)
            self.assertEqual(checkpoint.load(pathlib.Path(folder), again, LiveModel(STYLES), resumed), (7, 1.5))
        a, b = model.unet.conv_in.weight, again.unet.conv_in.weight
        self.assertLess(float((a - b).abs().max()), 1e-3)
        a, b = optimiser.state[a]["exp_avg_sq"], resumed.state[b]["exp_avg_sq"]
        self.assertLess(float((a - b).abs().max()), 0.01 * float(a.max()))

    def test_every_style_is_taught(self):
        """Each style is drawn alone and beside others, at every strength, and never beside itself."""
        for name, profile in PROFILES.items():
            torch.manual_seed(0)
            turns = profile.get("turns", STYLES[1:])
            first, second = places(768, torch.device("cpu"), turns)
            share = draw_shares(second)
            self.assertFalse(bool((first == second).any()))
            for style in range(1, len(STYLES)):
                alone = (first == style) & (second == 0)
                for some in (alone & (share == 1), alone & (share == 0), alone & (share > 0) & (share < 1)):
                    # A style that has one turn of many is seldom drawn at nothing.
                    self.assertGreater(int(some.sum()), 0 if "turns" in profile else 2, (name, STYLES[style]))
                self.assertGreater(int(((second == style) & (share < 1)).sum()), 5, (name, STYLES[style]))
            if "turns" in profile:
                self.assertEqual(math.gcd(len(turns), 20 * 7), 1, name)

    def test_first_training_is_as_before(self):
        """What fine-tuning changed is a profile's affair: without one, each style in turn and the loss as it was."""
        index, device = torch.arange(768), torch.device("cpu")
        first, second = places(768, device)
        self.assertTrue(torch.equal(first, 1 + index % 6))
        self.assertTrue(torch.equal(second, torch.where(index // 6 % 7 == 0, 1 + (first + index // 42 % 5) % 6, 0)))
        x = torch.linspace(-2, 2, 401)
        before = torch.where(x.abs() < 0.1, 0.5 * x * x / 0.1, x.abs() - 0.05)
        self.assertTrue(torch.allclose(huber(x), before, atol=1e-6))
        self.assertEqual(rate_at({"rate": 1.0, "plan": {"forcing": 1.0}}, 1.0, 300), 0.05)
        self.assertFalse({"loss", "scenes", "turns", "last"} & (PROFILES["h100"].keys() | PROFILES["cpu"].keys()))

    def test_fine_tuning(self):
        """Its profiles' constants arrive where they are used."""
        tiles = (torch.rand(2, 3, TILE, TILE, generator=torch.Generator().manual_seed(0)) * 255).byte()
        photographs, profile = Photographs(tiles, torch.device("cpu")), PROFILES["finetune"]
        fine = {name: profile[name] for name in ("turns", "scenes")}
        model, losses = LiveModel(STYLES), []
        for given, loss, closest, noise in (({}, {}, 0.7, 0.06), (fine, {}, 0.9, 0.05), (fine, profile["loss"], 0.9, 0.05)):
            torch.manual_seed(0)
            streams = Streams(photographs, 11, 64, 64, **given)
            self.assertGreater(float(streams.scenes.state["scale"].min()), closest - 1e-4)
            self.assertLessEqual(float(streams.scenes.state["noise"].max()), noise)
            with torch.no_grad():
                for _ in range(2):  # the first frames are the teacher's and have no loss
                    last = float(train_step(model, streams, {}, 0, **loss)[0])
            losses.append(last)
        self.assertEqual([int((streams.first == STYLES.index(name)).sum()) for name in ("ink", "oil", "frost")], [3, 2, 1])
        self.assertGreater(abs(losses[1] - losses[2]), 0.01)

    def test_average(self):
        """Half of each, rounded once, with what the first file says of itself."""
        a, b = LiveModel(STYLES), LiveModel(STYLES)
        with tempfile.TemporaryDirectory() as folder:
            paths = [str(pathlib.Path(folder) / name) for name in ("a", "b", "out")]
            a.save(paths[0])
            b.save(paths[1])
            average(*paths)
            with safe_open(paths[0], "pt") as first, safe_open(paths[2], "pt") as out:
                self.assertEqual(first.metadata(), out.metadata())
            a, b, out = (LiveModel.load(path).state_dict() for path in paths)
        for name, value in out.items():
            self.assertTrue(torch.equal(value, ((a[name] + b[name]) / 2).half().float()), name)


if __name__ == "__main__":
    unittest.main()
