"""The chain of `rpa.temporal` against pytorch-crf, in the same run: sum over labellings, its gradient, and the best labelling.

crf.py [WINDOWS …]   default: 1000 and 10000

Both get the same emissions and the same transitions, and must give the same figures. They take turns, a call each; the median counts.
Target: at most half of pytorch-crf's time on 10,000 windows. pytorch-crf is no part of the environment; for this bench:
pip install --no-deps pytorch-crf
"""
import sys, time

import numpy as np
import torch
from rpa.temporal import CRF

try: from torchcrf import CRF as Other
except ImportError:
    print('left out: pytorch-crf is not here; for this bench only: pip install --no-deps pytorch-crf')
    sys.exit(0)


def pair(states=2):
    torch.manual_seed(0)
    ours, theirs = CRF(states), Other(states, batch_first=True)
    with torch.no_grad():
        theirs.start_transitions.copy_(ours.start)
        theirs.end_transitions.copy_(ours.end)
        theirs.transitions.copy_(ours.transitions)
    return ours, theirs


def turns(runs, rounds):
    "Median wall time of each, ms; they take turns"
    took = {k:[] for k in runs}
    for i in range(rounds+1):
        for k,f in runs.items():
            t = time.perf_counter()
            f()
            if i: took[k].append(time.perf_counter()-t)
    return {k:1000*float(np.median(v)) for k,v in took.items()}


def one(n, rounds=7):
    ours, theirs = pair()
    e, mask, y = torch.randn(1, n, 2), torch.ones(1, n, dtype=torch.bool), torch.randint(0, 2, (1, n))
    same = float((ours.log_likelihood(e, y, mask)-theirs(e, y, mask)).detach().abs()[0])/n
    assert same<1e-4 and ours.viterbi(e, mask)[0][0].tolist()==theirs.decode(e, mask)[0], 'the two do not agree'
    def quiet(f):
        with torch.no_grad(): f()
    def learn(crf, f):
        crf.zero_grad()
        f().sum().backward()
    jobs = {'forward':(lambda: quiet(lambda: ours.log_likelihood(e, y, mask)), lambda: quiet(lambda: theirs(e, y, mask))),
            'forward and gradient':(lambda: learn(ours, lambda: ours.log_likelihood(e, y, mask)), lambda: learn(theirs, lambda: theirs(e, y, mask))),
            'Viterbi':(lambda: ours.viterbi(e, mask), lambda: theirs.decode(e, mask))}
    for name,(a,b) in jobs.items():
        took = turns({'ours':a, 'pytorch-crf':b}, rounds)
        print(f"{n:6d} windows, {name:21} {took['ours']:8.2f} ms, pytorch-crf {took['pytorch-crf']:9.2f} ms: {took['pytorch-crf']/took['ours']:.0f} × faster", flush=True)


if __name__=='__main__':
    torch.set_num_threads(1)
    print(f'torch {torch.__version__}, one thread')
    for n in [int(a) for a in sys.argv[1:]] or [1000, 10_000]: one(n)
