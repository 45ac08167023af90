"""Does `rpa pretrain` pay? Eight labelled runners, with and without pretraining on unlabelled clips of others, judged on new runners.

    python bench/pretrain.py [RUNNERS [EPOCHS [BEGIN]]]      default: 300 unlabelled runners, 20 epochs, random; the figures of page 04b: 1500 30, and 300 15 tiny

Needs the clips of `make demo` (36 rendered runners that went through the pose models). The unlabelled runners are other ones, drawn straight
into clips. For each of three seeds 8 runners teach, 4 choose epoch and calibration, and 24 judge; all ways get the same split, seed, rates
and epochs, and differ in their start: random weights, or those of `rpa pretrain`, which itself begins at random weights (BEGIN `random`) or
at the weights that rpa ships (`tiny`: these have seen other rendered feet with their pitch, so they are a way of their own to compare with).
Everything lies in runs/pretrain-pays and is not made again.
"""
import sys, time
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from rpa.clips import ClipDataset, ClipLoader
from rpa.core import progress
from rpa.masked import pretrain
from rpa.metrics import compare, prob_columns
from rpa.models import load_bundle, predict_logits
from rpa.pretrain import lap_clips, tiny_spec
from rpa.split import load_split, split
from rpa.train import score_test, train
from rpa.video import write_video

ROOT = Path(__file__).resolve().parents[1]
CLIPS, OUT = ROOT/'runs'/'demo'/'clips', ROOT/'runs'/'pretrain-pays'
START = dict(mask_ratio=.75, precision='bf16') # of the pretraining: fewer places hidden than the paper's .9, for pictures of ten by ten places
RATE = dict(random=1e-3, tiny=1e-4) # highest learning rate of the pretraining: weights that know something are changed with care
SAME = dict(epochs=40, batch_size=8, lr=5e-4, freeze_epochs=0)


def draw(i, folder):
    "Clips of one other runner, without a label"
    if (folder/f'{i:05d}.done').exists(): return
    for k,film in enumerate(lap_clips(tiny_spec(i))[0]):
        write_video(folder/f'other{i:05d}_{k}.mp4', [np.repeat(f[8:88,8:88,None], 3, -1) for f in film], 60) # what is shown of it
    (folder/f'{i:05d}.done').touch()


def answers(bundle, path, seed):
    "What a bundle says of the clips of new runners"
    b, df = load_bundle(bundle), load_split(path)['test']
    logits = predict_logits(b.model, ClipLoader(ClipDataset(df, b.input), batch_size=16)).softmax(-1).numpy()
    return pd.DataFrame(dict(file=[f'{seed}/{f}' for f in df.file], runner=df.runner, target=df.target)).assign(**dict(zip(prob_columns(b.labels.names), logits.T)))


def one(seed, start, path, begin):
    "Scores on new runners, and the answers, of each start"
    runs, ways = {}, dict(random=('tiny', dict(from_scratch=True)))|(dict(tiny=('tiny', {})) if begin=='tiny' else {})|dict(pretrained=(str(start), {}))
    for way,(model,kw) in ways.items():
        run = train(str(path), str(OUT/f'{way}-{start.parent.name}-{seed}'), model, seed=seed, no_progress=True, **SAME, **kw)
        runs[way] = score_test(str(run.bundle), str(path)), answers(run.bundle, path, seed)
    return runs


def main(runners=300, epochs=20, begin='random', seeds=(0, 1, 2)):
    if not (CLIPS/'clips.csv').exists(): return print('left out: needs the clips of `make demo`; run it first')
    began, folder = time.time(), OUT/f'other-{runners}'
    folder.mkdir(parents=True, exist_ok=True)
    list(progress(Parallel(2, return_as='generator')(delayed(draw)(1000+i, folder) for i in range(runners)), total=runners, desc='other runners'))
    start = pretrain(str(folder), str(OUT/f'start-{begin}-{runners}-{epochs}-{round(100*START["mask_ratio"])}'), 'tiny', epochs, from_scratch=begin=='random', lr=RATE[begin], no_progress=True, **START).model
    rows, tables = [], {}
    for seed in seeds:
        path = OUT/f'split-{seed}.json'
        if not path.exists(): split(str(CLIPS), str(path), .23, .12, .65, seed, '2:0')
        parts, runs = load_split(path), one(seed, start, path, begin)
        rows.append(dict(seed=seed, teach=parts['train'].runner.nunique(), choose=parts['val'].runner.nunique(), judge=parts['test'].runner.nunique(), majority=runs['random'][0].majority,
            **{k:s.accuracy for k,(s,_) in runs.items()}))
        for k,(_,said) in runs.items(): tables.setdefault(k, []).append(said)
    t, *others = pd.DataFrame(rows), *(k for k in tables if k!='pretrained')
    print(t.round(3).to_string(index=False))
    for other in others:
        gain = 100*(t.pretrained-t[other])
        print(f"accuracy on new runners, {len(t)} seeds: {other} {t[other].mean():.3f}, pretrained {t.pretrained.mean():.3f}: {gain.mean():+.1f} points (each seed: {', '.join(f'{g:+.1f}' for g in gain)})")
        print(compare(*map(pd.concat, (tables[other], tables['pretrained'])), [c.removeprefix('p_') for c in said if c.startswith('p_')], (other, 'pretrained')))
    print(f'{time.time()-began:.0f} s')


if __name__=='__main__':
    if sys.argv[3:] not in ([], ['random'], ['tiny']): sys.exit(f"BEGIN is random or tiny, got {' '.join(sys.argv[3:])}")
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
