"""What the recipe relies on: run with `python3 -m unittest` in this folder, a few seconds."""

import pathlib
import tempfile
import unittest

import torch

import checkpoint
from live import LiveModel, Stream, step_times
from streams import draw_shares, places
from teacher import DRAW, PALETTE_COUNT, PHASES, STYLES, palette_table, teach


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
        torch.manual_seed(0)
        first, second = places(768, torch.device("cpu"))
        share = draw_shares(second)
        self.assertFalse(bool((first == second).any()))
        for style in range(1, len(STYLES)):
            alone = (first == style) & (second == 0)
            for some in (alone & (share == 1), alone & (share == 0), alone & (share > 0) & (share < 1)):
                self.assertGreater(int(some.sum()), 2, STYLES[style])
            self.assertGreater(int(((second == style) & (share < 1)).sum()), 5, STYLES[style])


if __name__ == "__main__":
    unittest.main()
