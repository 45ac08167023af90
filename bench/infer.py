"""Verdicts on 64 ready clips: `rpa.infer` against transformers.pipeline with the same bundle, in one run.

    python bench/infer.py [tiny] [base]      default: tiny

The weights are random: speed does not depend on them. `tiny` is the demo's model, `base` has the size of VideoMAE-base. Clips are
224 × 224 px, 16 frames. The pipeline is called as its page shows, on the list of files, once as it is and once with the same batch size.
Both decode every clip from its file and end in probabilities. The two take turns; the shortest time of each counts.
"""
import os, platform, sys, tempfile, time, warnings
from pathlib import Path

import numpy as np
import torch
from transformers import logging, pipeline
from rpa.clips import toy_clips
from rpa.core import LabelMap
from rpa.infer import Predictor
from rpa.models import fresh_model, save_bundle

BASE = dict(image_size=224, patch_size=16, tubelet_size=2, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
            intermediate_size=3072, initializer_range=.02)


def clock(f):
    t = time.perf_counter()
    out = f()
    return out, time.perf_counter()-t


def ours(predictor, files): return predictor.clips(files).p_heel.to_numpy()


def theirs(pipe, files, batch):
    out = pipe(files, top_k=2, batch_size=batch)
    return np.array([next(d['score'] for d in clip if d['label']=='heel') for clip in out])


def one(name, sizes, files, tmp, rounds):
    model = fresh_model(LabelMap({0:'forefoot', 1:'heel'}), **sizes)
    bundle = save_bundle(model, tmp/name)
    pipe = pipeline('video-classification', model=str(bundle), device='cpu')
    runs = {'rpa.infer, auto':lambda: ours(auto, files), 'rpa.infer, fp32':lambda: ours(plain, files),
            'pipeline, batch 1':lambda: theirs(pipe, files, 1), 'pipeline, batch 16':lambda: theirs(pipe, files, 16)}
    auto, plain = Predictor(bundle), Predictor(bundle, precision='fp32')
    for f in (lambda: auto.clips(files[:2]), lambda: plain.clips(files[:2]), lambda: theirs(pipe, files[:2], 1)): f()
    best, said = {}, {}
    for _ in range(rounds):
        for k,f in runs.items():
            said[k], t = clock(f)
            best[k] = min(t, best.get(k, np.inf))
    for k,t in best.items():
        gap = np.abs(said[k]-said['pipeline, batch 1']).max()
        print(f'{name:5} {k:20} {len(files)} clips in {t:6.2f} s, {len(files)/t:6.1f} clips/s; largest difference in probability {gap:.4f}')
    floor = min(best['pipeline, batch 1'], best['pipeline, batch 16'])
    print(f"{name:5} quicker than the pipeline as it is: {best['pipeline, batch 1']/best['rpa.infer, auto']:.1f} ×; than the better of its two "
          f"ways: {floor/best['rpa.infer, auto']:.1f} × ({auto.precision}), {floor/best['rpa.infer, fp32']:.1f} × (fp32)", flush=True)


if __name__=='__main__':
    logging.set_verbosity_error(); warnings.simplefilter('ignore')
    print(f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, '
          f'{torch.get_num_threads()} threads, Python {platform.python_version()}')
    wanted = sys.argv[1:] or ['tiny']
    if unknown := set(wanted)-{'tiny', 'base'}: sys.exit(f"no model {', '.join(unknown)}; there are tiny and base")
    with tempfile.TemporaryDirectory() as d:
        tmp = Path(d)
        files = [str(p) for p in sorted(toy_clips(tmp/'clips', runners=8, clips=8, side=224).glob('*.mp4'))]
        if 'tiny' in wanted: one('tiny', {}, files, tmp, 3)
        if 'base' in wanted: one('base', BASE, files, tmp, 1)
