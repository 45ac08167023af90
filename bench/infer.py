"""Verdicts on 64 ready clips: `rpa.infer` against transformers.pipeline with the same bundle, in one run.

    python bench/infer.py [tiny] [base]      default: tiny

The weights are random: speed does not depend on them. `tiny` is the demo's model, `base` has the size of VideoMAE-base. The clips show
rendered feet, 16 frames of 224 × 224 px. The pipeline is called as its page shows, on the list of files, once as it is and once with the same batch size.
Both decode every clip from its file and end in probabilities. They take turns; the shortest time of each counts. On a machine that
does other work, processor time is the fairer figure; OMP_NUM_THREADS=1 keeps idle threads from being counted.
"""
import os, platform, sys, tempfile, time, warnings
from pathlib import Path

import numpy as np
import torch
from transformers import logging, pipeline
from rpa.core import LabelMap
from rpa.infer import Predictor
from rpa.models import fresh_model, save_bundle
from rpa.synth import RunnerSpec, render_lap
from rpa.video import read_video, write_video

BASE = dict(image_size=224, patch_size=16, tubelet_size=2, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
            intermediate_size=3072, initializer_range=.02)


def feet_clips(tmp, runners=8, clips=8):
    "Clips of rendered (synthetic) feet, 16 frames of 224 × 224 px, encoded as the processing encodes its clips"
    files = []
    for r in range(runners):
        film = tmp/f'runner{r}.mp4'
        render_lap(RunnerSpec.draw(r, r%2), 0, film)
        frames, _ = read_video(film)
        x = np.nanmean(np.load(film.with_suffix('.npz'), allow_pickle=False)['xy'][...,0], axis=1)
        for a in np.linspace(0, len(frames)-16, clips).astype(int):
            left = np.clip(x[a:a+16]-112, 0, frames.shape[2]-224).astype(int)
            files.append(str(tmp/f'{r}_{a}.mp4'))
            write_video(files[-1], [f[-224:,i:i+224] for f,i in zip(frames[a:a+16], left)], 60)
    return files


def clock(f):
    "What `f` gives, its wall time and its processor time, s"
    wall, cpu = time.perf_counter(), time.process_time()
    out = f()
    return out, np.array([time.perf_counter()-wall, time.process_time()-cpu])


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
            best[k] = np.minimum(t, best.get(k, np.inf))
    for k,(wall,cpu) in best.items():
        gap = np.abs(said[k]-said['pipeline, batch 1']).max()
        print(f'{name:5} {k:20} {len(files)} clips: wall {wall:6.2f} s, processor {cpu:6.2f} s; '
              f'largest difference in probability {gap:.4f}')
    floor = np.minimum(best['pipeline, batch 1'], best['pipeline, batch 16'])
    for what,i in (('wall time', 0), ('processor time', 1)):
        base, quick, plain32 = best['pipeline, batch 1'][i], best['rpa.infer, auto'][i], best['rpa.infer, fp32'][i]
        print(f'{name:5} {what}: {base/quick:.1f} × quicker than the pipeline as it is, {floor[i]/quick:.1f} × than the better of its '
              f'two ways ({auto.precision}; fp32 {base/plain32:.1f} × and {floor[i]/plain32:.1f} ×)', flush=True)


if __name__=='__main__':
    logging.set_verbosity_error(); warnings.simplefilter('ignore')
    print(f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, '
          f'{torch.get_num_threads()} threads, Python {platform.python_version()}')
    wanted = sys.argv[1:] or ['tiny']
    if unknown := set(wanted)-{'tiny', 'base'}: sys.exit(f"no model {', '.join(unknown)}; there are tiny and base")
    with tempfile.TemporaryDirectory() as d:
        tmp = Path(d)
        files = feet_clips(tmp)
        print(f'{len(files)} clips of {np.mean([os.path.getsize(f) for f in files])/1000:.0f} kB')
        if 'tiny' in wanted: one('tiny', {}, files, tmp, 2)
        if 'base' in wanted: one('base', BASE, files, tmp, 1)
