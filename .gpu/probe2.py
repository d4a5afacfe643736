import sys, time
sys.path.insert(0, "training")
import torch, photos
from live import LiveModel
from scenes import Photographs
from streams import Streams
from teacher import STYLES
from trainer import Trainer
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
device = torch.device("cuda")
photographs = Photographs(photos.read("training/photos/photos.zip"), device)
for name, fmt in (("channels_last", torch.channels_last), ("contiguous", torch.contiguous_format)):
    model = LiveModel(STYLES).to(device, memory_format=fmt); model.half = True
    if fmt == torch.contiguous_format:
        torch.Tensor.contiguous, keep = (lambda self, memory_format=None, f=torch.Tensor.contiguous: f(self)), torch.Tensor.contiguous
    opt = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-4, device=device), fused=True, capturable=True)
    pools = [Streams(photographs, n, h, w) for h, w, n in ((64, 64, 768), (144, 256, 84))]
    trainer = Trainer(model, opt, pools); trainer.set_policy((0.2, [1, 2]))
    for k in range(2):
        t0 = time.time(); trainer.step(k, 4); torch.cuda.synchronize(); t1 = time.time()
        for _ in range(10): trainer.step(k, 4)
        print(name, k, "capture s", round(t1 - t0, 2), "figures", trainer.means(11), "ms/step", round((time.time() - t1) * 100, 1), "peak GB", round(torch.cuda.max_memory_allocated() / 1e9, 1), flush=True)
    if fmt == torch.channels_last:
        from torch.profiler import profile, ProfilerActivity
        with profile(activities=[ProfilerActivity.CUDA]) as p:
            for _ in range(3): trainer.step(0, 4)
            torch.cuda.synchronize()
        for e in sorted(p.key_averages(), key=lambda e: -e.self_device_time_total)[:22]:
            print(f"{e.self_device_time_total/3e3:8.2f} ms {e.count//3:5d}  {e.key[:110]}")
