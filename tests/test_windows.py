"`rpa rally prepare` and `train`: where samples lie, that one match is on one side, that training and cutting see the same pictures"
import json

import numpy as np, pytest
from hypothesis import given, settings, strategies as st

import rpa.train, rpa.windows
from rpa.core import Interval, RpaError, read_json, read_manifest
from rpa.features import Backbone, Windows, window_clips
from rpa.models import load_bundle
from rpa.pipelines import main
from rpa.rally import drawn_match, load_finder, read_dataset
from rpa.split import load_split
from rpa.video import probe, read_video
from rpa.windows import WINDOW_S, prepare, sample_windows


@given(st.lists(st.floats(.2, 30), max_size=12), st.lists(st.floats(.1, 40), min_size=13, max_size=13))
@settings(max_examples=100, deadline=None)
def test_samples_lie_where_their_label_says(lengths, gaps):
    t, rallies = 0., []
    for l,g in zip(lengths, gaps):
        rallies.append(Interval(t+g, t+g+l))
        t += g+l
    end = t+gaps[-1]
    samples = sample_windows(rallies, end)
    inside = lambda a, b, r: a>=r.start_s-1e-9 and b<=r.end_s+1e-9
    for s in samples:
        a, b = s.start_s, s.start_s+WINDOW_S
        assert 0<=a and b<=end+1e-9
        if s.label==0: assert all(b<=r.start_s+1e-9 or a>=r.end_s-1e-9 for r in rallies)
        else:
            r = rallies[s.rally]
            assert inside(a, b, r) and r.duration>=32/30
            assert b<=r.start_s+1.5+1e-9 if s.label==2 else a>=r.start_s+1.5-1e-9 and b<=r.end_s-.5+1e-9
    for k in range(len(rallies)):
        n = [sum(s.label==l and s.rally==k for s in samples) for l in (0, 1, 2)]
        assert n[0]<=3 and n[1]<=3 and n[2]<=1


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp('windows')
    (root/'d'/'videos').mkdir(parents=True)
    rows = [dict(filename=f'm{k}.mp4', rallies=[dict(start_ms=round(1000*r.start_s), end_ms=round(1000*r.end_s)) for r in drawn_match(root/'d'/'videos'/f'm{k}.mp4', k, 20)]) for k in range(4)]
    (root/'d'/'ground_truth.json').write_text(json.dumps(rows))
    assert main(['rally', 'prepare', str(root/'d'), '--output', str(root/'p'), '--size', '80', '--train-ratio', '.5', '--val-ratio', '.25', '--test-ratio', '.25', '--cache', str(root/'c'), '--no-progress'])==0
    return root


def test_one_match_on_one_side(world):
    parts = load_split(world/'p'/'split.json')
    names = {p:set(df.runner) for p,df in parts.items()}
    assert {len(v) for v in names.values()}=={1, 2} and len(set().union(*names.values()))==4
    assert set(read_manifest(world/'p').label_name)=={'no_play', 'play', 'service'}


def test_training_sees_what_cutting_sees(world):
    "A sample that begins where a window of a film begins holds the same pictures, but for compression"
    m = read_dataset(world/'d', str(world/'c'))[0]
    b, w = Backbone('x', {}, None, 16, 80, fit='crop'), Windows(1/30, WINDOW_S, 16)
    windows = dict(window_clips(probe(m.path), b, w))
    df = read_manifest(world/'p')
    for r in df[df.runner=='m0'].itertuples():
        clip, near = read_video(world/'p'/r.file)[0].astype(float), windows[round(r.start_s*30)].astype(float)
        assert np.abs(clip-near).mean()<4, r.file


def test_the_same_again_is_not_made_again(world, monkeypatch, capsys):
    monkeypatch.setattr(rpa.windows, 'write_samples', lambda *a: pytest.fail('was made again'))
    before = (world/'p'/'clips.csv').read_bytes()
    prepare(str(world/'d'), str(world/'p'), 80, train_ratio=.5, val_ratio=.25, test_ratio=.25, cache=str(world/'c'), no_progress=True)
    assert (world/'p'/'clips.csv').read_bytes()==before


def test_by_rally_says_what_it_is_worth(world, tmp_path, capsys):
    got = prepare(str(world/'d'), str(tmp_path), 80, by='rally', cache=str(world/'c'), no_progress=True)
    assert 'scores say little about other matches' in capsys.readouterr().out and got.rows.runner.nunique()>4
    load_split(tmp_path/'split.json')


def test_a_broken_film_is_named_and_the_others_are_kept(world, tmp_path, capsys):
    (tmp_path/'videos').mkdir()
    for k in range(4):
        data = (world/'d'/'videos'/f'm{k}.mp4').read_bytes()
        (tmp_path/'videos'/f'm{k}.mp4').write_bytes(b'x'*500 if k==3 else data)
    (tmp_path/'ground_truth.json').write_text((world/'d'/'ground_truth.json').read_text())
    assert main(['rally', 'prepare', str(tmp_path), '--output', str(tmp_path/'p'), '--size', '80', '--cache', str(world/'c'), '--no-progress'])==1
    assert 'm3.mp4' in (tmp_path/'p'/'failed.csv').read_text() and set(read_manifest(tmp_path/'p').runner)=={'m0', 'm1', 'm2'}


def test_train_with_the_documents_numbers_and_go_on(world, tmp_path, monkeypatch, capsys):
    "A bundle comes out that cut takes; going on from it keeps its head and takes a tenth of the rate; a changed flag is refused, the same command resumes"
    assert main(['rally', 'train', str(world/'p'), '--output-dir', str(tmp_path/'r'), '--model', 'tiny', '--epochs', '1', '--freeze-epochs', '1', '--no-progress'])==0
    plan = read_json(tmp_path/'r'/'train_config.json')['settings']
    assert {k:plan[k] for k in ('lr', 'batch_size', 'accumulate', 'warmup', 'weight_decay', 'label_smoothing')}==dict(lr=1e-5, batch_size=2, accumulate=8, warmup=.1, weight_decay=.05, label_smoothing=.1)
    bundle = str(tmp_path/'r'/'best_model')
    finder = load_finder('beach', bundle)
    assert finder.rules and set(finder.trained_on)==set(load_bundle(bundle).data['runners']['train'])|set(load_bundle(bundle).data['runners']['val'])
    assert main(['rally', 'train', str(world/'p'), '--output-dir', str(tmp_path/'r2'), '--resume-from-model', bundle, '--epochs', '1', '--freeze-epochs', '1', '--no-progress'])==0
    a, b = (load_bundle(x).model.net.state_dict() for x in (bundle, str(tmp_path/'r2'/'best_model')))
    assert read_json(tmp_path/'r2'/'train_config.json')['settings']['lr']==1e-6
    assert all(np.allclose(a[k], b[k], atol=1e-4) for k in a), 'its head was not kept'
    prepare(str(world/'d'), str(tmp_path/'other'), 80, seed=1, train_ratio=.5, val_ratio=.25, test_ratio=.25, cache=str(world/'c'), no_progress=True)
    rpa.windows.train(str(tmp_path/'other'), str(tmp_path/'r3'), resume_from_model=bundle, epochs=1, freeze_epochs=1, no_progress=True)
    assert set(finder.trained_on)<=set(load_finder('beach', str(tmp_path/'r3'/'best_model')).trained_on), 'what the first bundle knew must not be forgotten'
    assert main(['infer', '--model_dir', bundle, '--video', str(world/'d'/'videos'/'m0.mp4')])==1
    assert 'rpa rally cut' in capsys.readouterr().out


def test_wrong_input(world, tmp_path):
    cases = [(lambda: prepare(str(world/'d'), str(tmp_path), 8), '--size must lie in'), (lambda: prepare([str(world/'d')]*2, str(tmp_path), cache=str(world/'c')), 'two films are called m0'),
             (lambda: prepare(str(world/'d'), str(tmp_path), train_ratio=.9, cache=str(world/'c')), 'sum 1'), (lambda: rpa.windows.train(str(world/'p'), lr=-1.), 'lr must be'),
             (lambda: rpa.windows.train(str(world/'p'), resume_from_model='tiny'), 'takes a bundle')]
    for job, says in cases:
        with pytest.raises(RpaError, match=says): job()


def test_too_few_matches_are_told_what_to_do(world, tmp_path, capsys):
    (tmp_path/'videos').symlink_to(world/'d'/'videos')
    (tmp_path/'ground_truth.json').write_text(json.dumps(json.loads((world/'d'/'ground_truth.json').read_text())[:1]))
    prepare(str(tmp_path), str(tmp_path/'p'), 80, cache=str(world/'c'), no_progress=True)
    assert '--by rally' in capsys.readouterr().out
