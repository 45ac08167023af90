"What the lessons of 13b_sequences cannot show: odd tracks, odd bundles, every length of sequence"
import subprocess, sys
from dataclasses import replace
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from rpa.core import RpaError, read_json, write_json
from rpa.pose import Track, lm
from rpa.sequences import (FEATURES_VERSION, GaitModel, GaitPrediction, PHASES, calibrated, check_gait_bundle, confidence_level,
                           cut_windows, features, merge, overall_confidence, pose_confidence, seal_bundle, to_frames, windows)
from rpa.synth import Lap, RunnerSpec


def toy(seed=3, seconds=1.5, fps=60):
    made = Lap(RunnerSpec.draw(seed, 'heel'), 0, fps, seconds, bystanders=False)
    n, xy = len(made.t), made.joints
    box = np.concatenate([np.nanmin(xy, 1), np.nanmax(xy, 1)], 1)
    return Track(1, np.arange(n), made.t, xy, np.isfinite(xy[...,0])*.9, box, np.zeros(n, bool), fps, 960, 400)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 50))
def test_windows_cover_every_frame(n, length, stride):
    starts = windows(n, length, stride)
    seen = np.zeros(n, int)
    for s in starts: seen[s:s+length] += 1
    assert starts[0]==0 and (starts<=max(0, n-length)).all() and len(set(starts))==len(starts)
    if not stride or stride<=length: assert (seen>0).all()
    assert max(starts)+length>=n, 'the tail is in a window'


@settings(deadline=None)
@given(st.integers(1, 120), st.integers(1, 40))
def test_what_is_cut_comes_back(n, length):
    v = np.random.default_rng(n).normal(size=(n, 3))
    np.testing.assert_allclose(merge(cut_windows(v, windows(n, length), length), windows(n, length), n), v)


def test_left_stays_left():
    track = toy()
    mirrored = replace(track, xy=track.xy*[-1, 1]+[960, 0])
    a, b = features(track)[0].reshape(-1, 33, 4), features(mirrored)[0].reshape(-1, 33, 4)
    np.testing.assert_allclose(a, b, atol=1e-4)
    assert np.abs(a[:,lm('left_heel')]-a[:,lm('right_heel')]).max()>.1


def test_toes_are_ahead_and_heads_are_up():
    x = features(toy())[0].reshape(-1, 33, 4)
    assert (x[:,lm('left_foot_index'),0]>x[:,lm('left_heel'),0]).mean()>.6
    assert (x[:,lm('nose'),1]>.2).all() and (x[:,lm('left_heel'),1]<0).all()
    assert not x[...,2].any(), 'one camera does not measure depth'


def test_bounce_stays_and_drift_goes():
    track = toy(seconds=3)
    lift = np.zeros_like(track.xy)
    lift[...,1] = -np.linspace(0, 200, len(track))[:,None] # up a hill, 200 px
    y = [features(t)[0].reshape(-1, 33, 4)[20:-20,lm('left_hip'),1] for t in (track, replace(track, xy=track.xy+lift))]
    assert .02<np.ptp(y[0])<.12
    assert np.abs(y[0]-y[1]).max()<.02


@pytest.mark.parametrize('fps', [24, 30, 60, 120, 240])
def test_any_rate(fps):
    x, mask, times = features(toy(fps=fps))
    assert mask.all() and np.allclose(np.diff(times), 1/30)
    assert np.abs(x[:40]-features(toy(fps=240))[0][:40]).max()<(.12 if fps<60 else .06)


def test_uneven_times():
    track = toy(fps=120)
    keep = np.sort(np.random.default_rng(0).choice(len(track), 140, replace=False))
    rows = {k:getattr(track, k)[keep] for k in ('xy', 'score', 'box', 'filled', 't_s')}
    thin = replace(track, frame=np.arange(len(keep)), **rows)
    x, mask, times = features(thin)
    full = features(track)[0][np.rint((times-track.t_s[0])*30).astype(int)] if times[0]==0 else None
    assert mask.all() and (full is None or np.abs(x-full).max()<.1)


def test_one_frame_and_none():
    track = toy()
    x, mask, times = features(track.slice(5, 6))
    assert x.shape==(1, 132) and mask.all() and times==pytest.approx([5/60])
    with pytest.raises(RpaError, match='must hold frames'): features(track.slice(0, 0))
    with pytest.raises(RpaError, match='fps must be > 0'): features(track, 0)


def test_missing_parts():
    track = toy()
    xy = track.xy.copy()
    xy[:,lm('left_ankle', 'left_heel', 'left_foot_index')] = np.nan
    x, mask, _ = features(replace(track, xy=xy))
    assert mask.all(), 'one foot is enough'
    assert not x.reshape(-1, 33, 4)[:,lm('left_heel')].any(), 'a missing point has visibility 0'
    xy[:,lm('right_ankle', 'right_heel', 'right_foot_index')] = np.nan
    x, mask, _ = features(replace(track, xy=xy))
    assert not mask.any() and not x.any()


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 8))
def test_nobody_is_invented(mask, per):
    mask = np.array(mask)
    times = np.arange(len(mask))/30
    t = np.arange(per*len(mask))/(30*per)
    out = to_frames(np.ones((len(mask), 2)), mask, times, t)
    near = np.minimum(np.rint(t*30).astype(int), len(mask)-1)
    assert (np.isfinite(out[:,0])==mask[near]).all()


def test_phases_are_stretches():
    probs = np.full((6, 4), .1)
    probs[[0, 1], 3], probs[[2, 4], 0] = .7, .7
    probs[5] = np.nan
    probs[3] = np.nan
    said = GaitPrediction(np.arange(6)/10, probs, None, {}, .8, confidence_level(.8), [])
    assert [(round(p['start_s'], 3), round(p['end_s'], 3), p['phase']) for p in said.phases]==[(0, .2, 'swing'), (.2, .3, 'contact'), (.4, .5, 'contact')]
    assert list(said.phase)==[3, 3, 0, -1, 0, -1] and len(PHASES)==4


def test_confidences():
    with pytest.raises(RpaError, match='must lie in 0..1'): confidence_level(1.2)
    with pytest.raises(RpaError, match='must lie in 0..1'): overall_confidence(.5, float('nan'))
    assert overall_confidence(.7)==.7 and overall_confidence(0, 1)==0
    assert [overall_confidence(a, b)<=max(a, b) for a in (.2, .9) for b in (.3, .95)]==[True]*4
    track = toy()
    assert pose_confidence(replace(track, filled=np.arange(len(track))<45))==pytest.approx(.45, abs=.01)
    p = np.linspace(.01, .99, 9)
    np.testing.assert_allclose(calibrated(p), p)
    assert (np.diff(calibrated(p, .5, -1))>0).all() and np.isfinite(calibrated([0, 1])).all()


ABOUT = dict(input=dict(version=FEATURES_VERSION, window=30, fps=30.), heads={}, calibration={}, data={}, scores={}, training={}, export={}, versions={})


def bundle(folder, **more):
    folder.mkdir()
    write_json(folder/'config.json', {})
    (folder/'gait_model.onnx').write_bytes(b'no network at all')
    seal_bundle(folder, ABOUT|more)
    return folder


def test_bundles_that_are_refused(tmp_path):
    good = bundle(tmp_path/'good')
    assert set(check_gait_bundle(good)['files'])=={'config.json', 'gait_model.onnx'}
    with pytest.raises(RpaError, match='onnxruntime cannot read it'): GaitModel(good)
    with pytest.raises(RpaError, match='not the format'): check_gait_bundle(bundle(tmp_path/'old', input=dict(version=FEATURES_VERSION+1)))
    about = read_json(good/'rpa.json')
    for name,text in (('up', '../x'), ('root', '/etc/hostname')):
        bad = bundle(tmp_path/name)
        write_json(bad/'rpa.json', about|dict(files=about['files']|{text:'0'*64}))
        with pytest.raises(RpaError): check_gait_bundle(bad)
    (good/'deep').mkdir()
    (good/'deep'/'more.pt').write_bytes(b'')
    with pytest.raises(RpaError, match='found deep/more.pt'): check_gait_bundle(good)
    (good/'deep'/'more.pt').rename(good/'deep'/'more.onnx.data')
    with pytest.raises(RpaError, match='does not list'): check_gait_bundle(good)
    write_json(tmp_path/'clip.json', {})
    with pytest.raises(RpaError, match='there is none'): check_gait_bundle(tmp_path/'clip.json')


def test_import_is_light():
    code = "import sys, rpa.sequences; print([m for m in ('torch', 'transformers', 'fastai', 'onnxruntime', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()=='[]'
