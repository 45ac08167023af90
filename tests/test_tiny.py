"The pretrained start: its files, and (slow) what it is worth on runners that nobody has learned from"
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification, VideoMAEImageProcessor

import rpa
from rpa.clips import ClipDataset, ClipLoader, load_clip, pixel_values
from rpa.core import ClipName, LabelMap, read_json, read_manifest, sha256, write_manifest
from rpa.models import TINY, create_model, load_bundle, predict_logits
from rpa.pretrain import tiny_spec
from rpa.processing import batch
from rpa.split import load_split, split
from rpa.synth import Lap, RunnerSpec, _plan, render_tree
from rpa.train import train
from rpa.video import CLIP_CRF, write_video

TINY_DIR = Path(rpa.__file__).parent/'weights'/'tiny'
LABELS = LabelMap({0:'forefoot', 1:'heel'})
shipped = pytest.mark.skipif(not (TINY_DIR/'model.safetensors').exists(), reason='rpa/weights/tiny is not made; run `make tiny`')


@shipped
def test_it_is_a_small_plain_folder():
    names = {p.name for p in TINY_DIR.iterdir()}
    assert {'config.json', 'model.safetensors', 'preprocessor_config.json', 'README.md'}<=names
    assert not [n for n in names if Path(n).suffix not in ('.json', '.safetensors', '.md')]
    assert sum(p.stat().st_size for p in TINY_DIR.iterdir())<16*2**20
    config = read_json(TINY_DIR/'config.json')
    assert {k:config[k] for k in TINY if k!='initializer_range'}=={k:v for k,v in TINY.items() if k!='initializer_range'}
    assert VideoMAEImageProcessor.from_pretrained(TINY_DIR).size['shortest_edge']==config['image_size']


@shipped
def test_the_readme_says_where_it_comes_from():
    text = (TINY_DIR/'README.md').read_text()
    assert sha256(TINY_DIR/'model.safetensors') in text
    for word in ('synthetic', 'Apache-2.0', 'make tiny'): assert word in text
    assert re.search(r'no person|nothing about (real )?people', text)


@shipped
def test_transformers_reads_it():
    model = AutoModelForVideoClassification.from_pretrained(TINY_DIR)
    assert sum(p.numel() for p in model.parameters())<3e6
    assert not [k for k,v in load_file(TINY_DIR/'model.safetensors').items() if not torch.isfinite(v).all()]


def feet(lap, side_px=200):
    "Crops around each contact of a rendered lap, (16, 224, 224, 3) uint8"
    for side,t,_ in lap.exact.events(0, 1.6)['contacts']:
        c, j = round(t*lap.fps), 28-(side=='L')
        if not 8<=c<=len(lap.t)-8: continue
        at = lap.joints[c-8:c+8,j].mean(0).astype(int)-side_px//2
        frames = [lap.frame(i)[max(0, at[1]):at[1]+side_px,max(0, at[0]):at[0]+side_px] for i in range(c-8, c+8)]
        yield np.stack([cv2.resize(f, (224, 224), interpolation=cv2.INTER_AREA) for f in frames])


@shipped
def test_coding_hardly_changes_what_the_model_reads(tmp_path):
    "The 64 numbers of the pretraining, in units of their spread: clips as written against clips coded as well as can be"
    net, cfg, moved = AutoModelForVideoClassification.from_pretrained(TINY_DIR).eval(), create_model('tiny', LABELS).input, []
    for seed in range(3):
        for film in feet(Lap(RunnerSpec.draw(seed, seed%2), 0)):
            said = []
            for crf in (1, CLIP_CRF):
                x = load_clip(write_video(tmp_path/f'{crf}.mp4', film, 60, crf=crf), cfg)
                with torch.no_grad(): said.append(net(pixel_values(torch.as_tensor(x)[None], cfg)).logits[0])
            moved.append((said[1]-said[0]).abs())
    moved = torch.stack(moved)
    assert len(moved)>=6 and moved.mean()<.02 and moved.max()<.2


@shipped
def test_body_from_the_file_head_from_the_seed():
    a, b = (create_model('tiny', LABELS, seed=s) for s in (1, 2))
    scratch = create_model('tiny', LABELS, from_scratch=True, seed=1)
    one, two, none = ({k:v for k,v in m.net.state_dict().items()} for m in (a, b, scratch))
    body = [k for k in one if k.startswith('videomae.') and v_moves(none, one, k)]
    assert len(body)>40 and all(torch.equal(one[k], two[k]) for k in body)
    assert not torch.equal(one['classifier.weight'], two['classifier.weight'])


def v_moves(a, b, k): return not torch.equal(a[k], b[k])


def test_no_runner_of_a_demo_was_learned_from():
    demo = {spec.seed for seed in range(100) for spec,_,_ in _plan(100, 1, seed)}
    assert not demo & {tiny_spec(i).seed for i in range(10_000)}


# --- slow: the whole chain ---

RUNNERS, TRAIN = 40, dict(model='tiny', epochs=12, batch_size=16, lr=3e-3, freeze_epochs=12) # as the demo trains


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    "Clips of new synthetic runners that went through the real chain"
    root = tmp_path_factory.mktemp('tiny')
    render_tree(root/'raw', runners=RUNNERS, seed=77)
    batch(str(root/'raw'), str(root/'clips'), align='contact', no_review=True)
    return root/'clips'


def learn(clips, out, seed):
    "Train on 40 % of the runners, choose on 10 %, then score the rest: (clip accuracy, runner accuracy)"
    with redirect_stdout(io.StringIO()):
        split(str(clips), str(out/'split.json'), .4, .1, .5, seed=seed)
        made = train(str(out/'split.json'), str(out/'model'), seed=seed, **TRAIN)
    bundle, test = load_bundle(made.bundle), load_split(out/'split.json')['test'].reset_index(drop=True)
    logits = predict_logits(bundle.model, ClipLoader(ClipDataset(test, bundle.input), 16))
    test['heel'] = logits.softmax(1)[:,1].numpy()
    by_runner = test.groupby('runner').agg(heel=('heel', 'mean'), target=('target', 'first'))
    return ((test.heel>.5)==test.target).mean(), ((by_runner.heel>.5)==by_runner.target).mean()


@shipped
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_new_runners_are_told_apart(clips, tmp_path):
    scores = []
    for seed in range(3):
        (tmp_path/str(seed)).mkdir()
        scores.append(learn(clips, tmp_path/str(seed), seed))
    assert np.min(scores)>=.9, scores


def shuffled(clips, dst, seed):
    "The same clips with the labels dealt anew: half of each class's runners change sides"
    df = read_manifest(clips)
    runners = df.groupby('runner').label.first()
    r, new = np.random.default_rng(seed), runners.to_dict()
    for label in (0, 1):
        own = sorted(runners.index[runners==label])
        for name in r.permutation(own)[:len(own)//2]: new[name] = 1-label
    dst.mkdir()
    rows = []
    for row in df.to_dict('records'):
        n = ClipName.parse(row['file'])
        name = ClipName(n.runner, n.run, n.camera, n.lap, n.clip, new[n.runner]).file
        (dst/name).write_bytes((clips/row['file']).read_bytes())
        rows.append(row|dict(file=name, label=new[n.runner]))
    write_manifest(rows, dst)
    (dst/'settings.json').write_bytes((clips/'settings.json').read_bytes())
    return dst


@shipped
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_with_shuffled_labels_nothing_is_learned(clips, tmp_path):
    "Four shuffles: on average at chance, as half of the runners of either class carry the wrong name"
    scores = []
    for seed in range(4):
        out = tmp_path/f'run{seed}'
        out.mkdir()
        scores.append(learn(shuffled(clips, tmp_path/f'clips{seed}', seed), out, seed)[0])
    assert .3<np.mean(scores)<.7, scores
