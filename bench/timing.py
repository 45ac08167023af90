"""Searching a ten-minute film for eight splits, after features; and the siamese network's search against the naive one.

    python bench/timing.py [MINUTES]      default: 10

The films are random numbers that change smoothly, at 15 Hz as the built-in features of a 30 Hz film: what they show does not change the cost. Four figures:
the alignment's time for ten, twenty and forty minutes (linear?) with the memory it took; the cached search; the naive search on every pair of windows, on a
part of the target, scaled up, with its answers compared; and the learned framing from features to splits.
"""
import os, platform, resource, sys, time
import numpy as np
import torch

from rpa.timing import AlignFraming, Embedding
from rpa.timing_pairs import ClassifierFraming, NetSettings, SiameseNet, clip_rows, pair_matrix, row_at, rows_of, window_codes


def film(minutes, seed=0, hz=15, dim=480):
    "Numbers that change from second to second"
    rng, n = np.random.default_rng(seed), int(minutes*60)+2
    knots, t = rng.normal(size=(n, dim)).astype(np.float32), np.arange(int(minutes*60*hz))/hz
    k, w = t.astype(int), (t%1).astype(np.float32)[:,None]
    return Embedding(knots[k]*(1-w)+knots[k+1]*w+.3*rng.normal(size=(len(t), dim)).astype(np.float32), t, 'random')


def clock(f):
    start = time.perf_counter()
    out = f()
    return out, time.perf_counter()-start


def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024


if __name__=='__main__':
    minutes = float(sys.argv[1]) if len(sys.argv)>1 else 10.
    print(f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads, Python {platform.python_version()}')
    source = film(minutes)
    splits = np.linspace(20, 60*minutes-20, 8)
    for k in (1, 2, 4):
        x = film(minutes*k, seed=9)
        middle = int((minutes*k-minutes)*30*15/15)*15
        x.x[middle:middle+len(source.x)] = source.x
        before = peak()
        found, took = clock(lambda: AlignFraming().decode(source, splits, x))
        off = max((abs(s.target_s-t-x.t_s[middle]) for s,t in zip(found.splits, splits) if s.target_s is not None), default=np.nan)
        print(f'align, target of {minutes*k:g} min: {took:6.2f} s, {found.status}, largest error {off:.3f} s, memory +{peak()-before:.0f} MB')
    net = SiameseNet(NetSettings(dim=480)).eval()
    x = rows_of(source)
    ends, marks = np.arange(net.s.F-1, len(x)), row_at(source, splits)
    cached, took = clock(lambda: pair_matrix(net, window_codes(net, x, marks), window_codes(net, x, ends)))
    some = ends[:: max(1, len(ends)//64)]
    def naive(): # the network on one pair after the other
        with torch.inference_mode():
            return np.array([[net(torch.from_numpy(clip_rows(x, [i], net.s.F)), torch.from_numpy(clip_rows(x, [j], net.s.F))).item() for j in some] for i in marks])
    slow, t = clock(naive)
    whole = t*len(ends)/len(some)
    same = np.abs(slow-cached[:,np.searchsorted(ends, some)]).max()
    print(f'siamese, every window encoded once: {took:.2f} s; naive, every pair: {whole:.0f} s (from {len(some)} of {len(ends)} windows); {whole/took:.0f} times faster, largest difference {same:.1e}')
    framing = ClassifierFraming()
    framing.net, framing.net.s = net, NetSettings(dim=480, backbone='random')
    found, took = clock(lambda: framing.decode(source, splits, source))
    print(f'siamese, the whole search, with the look for the course: {took:.2f} s')
