"What the lessons of 13b_sequences cannot show: odd tracks, odd bundles, every length of sequence"
import subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from rpa.annotations import frame_phases, synthetic_recording
from rpa.core import RpaError, read_json, write_json
from rpa.pose import Track, lm
from rpa.sequences import (FEATURES_VERSION, GaitModel, GaitPrediction, PHASES, calibrated, check_gait_bundle, confidence_level,
                           cut_windows, features, gait_bundle, merge, overall_confidence, pose_confidence, seal_bundle, to_frames, windows)
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


@pytest.mark.parametrize('lost', [('left_knee', 'right_knee'), ('left_shoulder', 'right_shoulder', 'nose', 'left_ear', 'right_ear'),
                                  tuple(f'{s}_{n}' for s in ('left', 'right') for n in ('shoulder', 'knee', 'elbow', 'wrist'))])
def test_size_needs_no_knees_and_no_head(lost):
    "Markers often lack them; the legs that are there keep their size and place"
    track = toy(seconds=3)
    xy = track.xy.copy()
    xy[:,lm(*lost)] = np.nan
    box = np.concatenate([np.nanmin(xy, 1), np.nanmax(xy, 1)], 1)
    a, b = (features(t)[0].reshape(-1, 33, 4)[:,lm('left_heel', 'right_heel', 'left_foot_index')] for t in (track, replace(track, xy=xy, box=box)))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_size_of_ankles_alone():
    track = toy(seconds=3)
    xy = track.xy.copy()
    xy[:,lm('left_heel', 'right_heel', 'left_foot_index', 'right_foot_index')] = np.nan
    a, b = (features(t)[0].reshape(-1, 33, 4)[:,lm('left_knee'),1] for t in (track, replace(track, xy=xy)))
    assert abs(np.ptp(a)/np.ptp(b)-1)<.08


def test_the_model_of_the_package():
    "By name, from ONNX alone, on computed runners that it has never seen"
    code = ("import sys; from rpa.sequences import GaitModel; m = GaitModel('gait'), GaitModel('gait', int8=True); "
            "print([n for n in ('torch', 'transformers', 'fastai') if n in sys.modules], m[0].fps)")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()=='[] 30.0'
    folder = gait_bundle('gait')
    assert folder.parent.name=='weights' and sum(p.stat().st_size for p in folder.iterdir())<3e6
    assert all(about in (folder/'README.md').read_text() for about in check_gait_bundle(folder)['files'] if about.endswith('.onnx'))
    both, right, same, common = [GaitModel('gait'), GaitModel(folder/'gait_model_int8.onnx')], [], [], []
    for i,(fps,yaw,turn) in enumerate(((30, 0, 1), (60, 25, -1), (120, -40, 1), (50, 10, -1), (25, 0, 1), (240, 30, 1))):
        r = synthetic_recording(700+i, fps, 4., yaw, noise_px=1., turn=turn)
        truth, said = frame_phases(r), [m.predict(r.track) for m in both]
        right.append((said[0].phase==truth).mean())
        common.append(np.bincount(truth[truth>=0], minlength=4).max()/len(truth))
        same.append((said[0].phase==said[1].phase).mean())
        assert said[0].form is None and set(said[0].issues.values())=={None}, 'nobody vouches for these with people'
    assert np.mean(right)>np.mean(common)+.35 and min(right)>.6, right
    assert min(same)>.97, same


def test_what_is_shipped_is_what_is_told():
    "The figures of the page come from the folder, and belong to this model"
    folder = gait_bundle('gait')
    found = read_json(folder/'scores.json')
    assert set(found)=={'recipe', 'mocap', 'held_out', 'real'} and set(found['real'])=={'float32', 'int8'}
    about = check_gait_bundle(folder)
    assert not set(about['data']['runners']['train'])&set(about['data']['runners']['val'])
    for kind in ('running', 'walking'):
        s = found['real']['float32'][kind]
        assert s['phase']['accuracy']>s['phase']['majority'] and s['confidence']['ece']<.1 and len(s['phase']['per_class'])==4
    assert Path(gait_bundle('x/gait_model.onnx'))==Path('x') and gait_bundle('y')==Path('y')
