"""How fast clips become batches, and whether a training step of `tiny` has to wait for them.

Run: python bench/loader.py [clips]"""
import platform, sys, tempfile, time
import av
import torch
from transformers import VideoMAEImageProcessor
from rpa.core import LabelMap, read_manifest
from rpa.clips import ClipCache, ClipDataset, ClipLoader, InputConfig, pixel_values, toy_clips
from rpa.models import fresh_model, pick_precision


def by_hand(path, processor):
    "The usual way: PyAV's frames through the processor"
    with av.open(str(path)) as c: frames = [f.to_ndarray(format='rgb24') for f in c.decode(video=0)]
    return processor(frames, return_tensors='pt')['pixel_values']


def rate(n, f):
    began = time.perf_counter()
    f()
    return n/(time.perf_counter()-began)


def drain(loader, cfg):
    for x,_ in loader: pixel_values(x, cfg)


def compare(rows, size):
    "Clips a second by hand and by the loader: first epoch, later epochs, and later epochs augmented"
    cfg, n = InputConfig(size=size), len(rows)
    proc = VideoMAEImageProcessor(size=dict(shortest_edge=size), crop_size=dict(height=size, width=size))
    hand = rate(n, lambda: [by_hand(p, proc) for p in rows.path])
    print(f'{size} px, by hand: {hand:.0f} clips/s')
    for what,kw in (('plain', {}), ('augmented', dict(augment=True))):
        for workers in (0, 2):
            loader = ClipLoader(ClipDataset(rows, cfg, cache=ClipCache(), **kw), batch_size=16, workers=workers)
            first, later = (rate(n, lambda: drain(loader.at(e), cfg)) for e in (0, 1))
            ten = 10/(1/first+9/later)
            print(f'{size} px, {what}, {workers} threads: first epoch {first/hand:.1f} x by hand, '
                  f'later {later/hand:.1f} x, run of ten epochs {ten/hand:.1f} x ({ten:.0f} clips/s)')


def waiting(rows, steps=12):
    "Share of the time of augmented `tiny` steps that is spent waiting for the next batch, from the first epoch on"
    model = fresh_model(LabelMap({0:'a', 1:'b'}))
    model.precision = pick_precision()
    opt = torch.optim.AdamW(model.parameters(), fused=True)
    loader = ClipLoader(ClipDataset(rows, model.input, augment=True), batch_size=16, shuffle=True, workers=2)
    began, done = time.perf_counter(), 0
    while done<steps:
        for x,y in loader.at(done):
            torch.nn.functional.cross_entropy(model(x), y).backward()
            opt.step(); opt.zero_grad()
            done += 1
    took = time.perf_counter()-began
    print(f'tiny ({model.precision}), batches of 16, augmented: {took/done:.2f} s a step, '
          f'{loader.waited_s/took:.1%} of it waiting for data')


if __name__=='__main__':
    n = int(sys.argv[1]) if len(sys.argv)>1 else 96
    print(f'{platform.machine()} {torch.cpu.get_capabilities().get("cpu_name", platform.processor())}, '
          f'{torch.get_num_threads()} threads of torch, clips of 16 frames of 224 px')
    with tempfile.TemporaryDirectory() as tmp:
        folder = toy_clips(tmp, runners=n//8, clips=8, side=224)
        rows = read_manifest(folder)
        rows = rows.assign(path=[str(folder/f) for f in rows.file], target=rows.label)
        for size in (80, 224): compare(rows, size)
        waiting(rows)
