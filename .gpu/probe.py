import sys, time, random, copy, json
sys.path.insert(0, "training")
import torch, photos
from live import LiveModel
from objective import train_step, draw_history, draw_memory, draw_times, sampled_noise, loss_of
from scenes import Photographs
from streams import Streams
from teacher import STYLES
print(torch.__version__, torch.cuda.get_device_name())
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
device = torch.device("cuda")
t0 = time.time()
photographs = Photographs(photos.read("training/photos/photos.zip"), device)
print("photographs", time.time() - t0, flush=True)
def fresh():
    model = LiveModel(STYLES).to(device, memory_format=torch.channels_last); model.half = True
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
def sync():
    torch.cuda.synchronize(); return time.perf_counter()
def sections(model, opt, streams, share, lengths, steps):
    sums = {}
    def lap(name, t):
        now = sync(); sums[name] = sums.get(name, 0) + (now - t) / steps * 1e3; return now
    for _ in range(steps):
        t = sync()
        frame, target = streams.next(); t = lap("next", t)
        n = len(frame)
        on = torch.arange(n, device=device) < share * n
        newer, older, h, first = draw_history(streams, on, model)
        tokens = model.tokens(streams.weights, draw_memory(streams))
        tt = draw_times(n, first, device)
        noisy = model.noised(target, tt, torch.randn_like(target)); t = lap("history", t)
        rows = on.nonzero().squeeze(1)
        counts = [lengths[i % len(lengths)] for i in range(len(rows))]
        noisy[rows], tt[rows] = sampled_noise(model, rows, counts, frame, newer, older, h, tokens); t = lap("sampled", t)
        drawn = model(noisy, tt, frame, newer, older, h, tokens)
        loss = loss_of(drawn, target, tt, first).mean(); t = lap("forward", t)
        streams.commit(drawn.detach().clamp(-1, 1), ~first); t = lap("commit", t)
        opt.zero_grad(); loss.backward(); t = lap("backward", t)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0); opt.step(); t = lap("optimiser", t)
    return {k: round(v, 1) for k, v in sums.items()}
def whole(model, opt, streams, share, lengths, steps):
    t = sync()
    for _ in range(steps):
        loss, _f = train_step(model, streams, share, lengths)
        opt.zero_grad(set_to_none=True); loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0); opt.step()
    return (sync() - t) / steps * 1e3
model, opt = fresh()
pools = {}
for h, w, n in [(64, 64, 768), (128, 128, 192), (144, 256, 84)]:
    t0 = time.time(); pools[h] = s = Streams(photographs, n, h, w, 1); print("pool", h, w, n, round(time.time() - t0, 2))
    whole(model, opt, s, 0.6, [2], 4)
    print(" sections", sections(model, opt, s, 0.6, [2], 8), "whole", round(whole(model, opt, s, 0.6, [2], 12), 1), "peak GB", round(torch.cuda.max_memory_allocated() / 1e9, 1), flush=True)
from torch.profiler import profile, ProfilerActivity
for h in (64, 144):
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as p:
        whole(model, opt, pools[h], 0.6, [2], 3)
    events = p.key_averages()
    total = sum(e.self_device_time_total for e in events) / 3e3
    print("size", h, "gpu ms/step", round(total, 1), "kernels/step", sum(e.count for e in events if e.self_device_time_total > 0) // 3)
    print(p.key_averages().table(sort_by="self_device_time_total", row_limit=14, max_name_column_width=60)[:6000], flush=True)
t0 = time.time()
model.unet = torch.compile(model.unet)
for h in (64, 128, 144):
    t0 = time.time()
    whole(model, opt, pools[h], 0.6, [2], 5)
    print("compile", h, round(time.time() - t0, 1), "s;", sections(model, opt, pools[h], 0.6, [2], 8), "whole", round(whole(model, opt, pools[h], 0.6, [2], 12), 1), flush=True)
