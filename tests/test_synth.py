"Rendered runners: what is true of the bodies, of the files, and of what the pose networks make of them"
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest

from rpa.core import RpaError, sha256
from rpa.pose import lm, track_people
from rpa.synth import BALL, HEEL, PITCH_DEG, Lap, Motion, RunnerSpec, _foot_points, _plan, _sole, read_truth, render_lap, render_tree

SEEDS = range(40)
STRIKES = tuple(PITCH_DEG)


def stance(leg, t):
    "Number of the stride, and share of stance (above 1: swing)"
    k = np.floor((t-leg.t_ic)/leg.T+1e-9).astype(int)
    return k, (t-leg.t_ic-k*leg.T)/leg.tc


def sole(motion, side):
    p = motion.points
    return np.stack(_sole(p[f'{side}_ankle'], p[f'{side}_phi'], p[f'{side}_psi'], motion.legs[side].shoe))


@pytest.fixture(scope='module')
def fine():
    "Both strikes of many runners at 600 Hz"
    t = np.arange(0, 1.5, 1/600)
    return {(s, k):Motion(RunnerSpec.draw(s, k), 0, t) for s in SEEDS for k in STRIKES}


def test_feet_keep_to_the_ground(fine):
    for key,m in fine.items():
        for side,leg in m.legs.items():
            low = sole(m, side).imag.min(0)
            _,tau = stance(leg, m.t)
            assert low.min()>-1e-6, (key, side, 'below the ground')
            assert abs(low[tau<=1]).max()<2e-3, (key, side, 'leaves the ground in stance')
            assert low[(tau>1.15)].min()>0, (key, side, 'touches in swing')


def test_contact_and_toe_off_are_where_truth_says(fine):
    for key,m in list(fine.items())[::5]:
        for kind,before,after in (('contacts', False, True), ('toe_offs', True, False)):
            for side,t,_ in m.events(.05, 1.4)[kind]:
                near = Motion(m.spec, 0, [0, t-2e-3, t+2e-3, 1.499])
                down = sole(near, side).imag.min(0)[1:3]<5e-5
                assert tuple(down)==(before, after), (key, kind, side, t)


def test_the_point_that_carries_does_not_slide(fine):
    for (_,strike),m in fine.items():
        for side,leg in m.legs.items():
            k,tau = stance(leg, m.t)
            foot = [m.points[f'{side}_{n}'] for n in ('ankle', 'phi', 'psi')]
            carry = {'heel':(HEEL, 0., .1), 'forefoot':(BALL, 0., .1)}[strike], (BALL, .5, .75)
            for point,a,b in carry:
                (at,),_ = _foot_points([point], [], *foot, leg.shoe)
                for i in np.unique(k):
                    m_ = (k==i) & (tau>=a) & (tau<b)
                    if m_.sum()>1: assert abs(at[m_]-at[m_][0]).max()<1e-6


def test_pitch_at_contact_is_the_strike(fine):
    for (_,strike),m in list(fine.items())[::5]:
        lo,hi = PITCH_DEG[strike]
        for side,t,pitch in m.events(.05, 1.4)['contacts']:
            phi = np.degrees(Motion(m.spec, 0, [0, t, 1.499]).points[f'{side}_phi'][1])
            assert lo<=pitch<=hi and abs(phi-pitch)<.05


def test_bones_keep_their_length_and_knees_their_way(fine):
    for m in fine.values():
        for side in m.legs:
            hip, knee, ankle = (m.points[f'{side}_{n}'] for n in ('hip', 'knee', 'ankle'))
            assert np.ptp(abs(knee-hip))<1e-9 and np.ptp(abs(ankle-knee))<1e-9
            flexion = np.degrees(np.angle((knee-hip)/(ankle-knee)))
            assert 0<flexion.min() and 75<flexion.max()<140


def test_joints_move_as_joints_can(fine):
    "No jump between frames: a foot in swing stays under 16 m/s"
    for m in fine.values():
        for side in 'LR': assert abs(np.diff(m.points[f'{side}_ankle'])).max()*600<16


@pytest.mark.parametrize('seed', SEEDS)
def test_only_the_feet_know_the_strike(seed):
    "Same seed, other strike: all else is equal to the last digit, in the runner and in the lap"
    fore, heel = (RunnerSpec.draw(seed, s) for s in STRIKES)
    assert {f.name for f in fields(RunnerSpec) if getattr(fore, f.name)!=getattr(heel, f.name)}=={'strike', 'pitch_deg'}
    a, b = (Lap(s, 1, seconds=.5) for s in (fore, heel))
    assert a.way==b.way and len(a.others)==len(b.others)
    for x,y in ((a.hips, b.hips), (a.ground, b.ground), (a.shake, b.shake), (a.back[0], b.back[0]), (a.back[1], b.back[1]), (a.cast, b.cast)):
        assert np.array_equal(x, y)
    assert [e[:2] for e in a.exact.events(0, .5)['contacts']]==[e[:2] for e in b.exact.events(0, .5)['contacts']]
    body = [n for n in a.exact.points if not n.endswith(('knee', 'ankle', 'phi', 'psi', 'heel', 'foot_index'))]
    for n in body: assert np.array_equal(a.exact.points[n], b.exact.points[n]), n


def test_what_varies_says_nothing_of_the_strike():
    "Over many runners no drawn number differs between the classes by more than chance"
    specs = [s for seed in range(40) for s,_,_ in _plan(20, 1, seed)]
    y = np.array([s.label for s in specs])
    assert y.mean()==.5
    numbers = [f.name for f in fields(RunnerSpec) if isinstance(getattr(specs[0], f.name), float) and f.name!='pitch_deg']
    for n in numbers:
        v = np.array([getattr(s, n) for s in specs])
        z = (v[y==1].mean()-v[y==0].mean())/(v.std()*np.sqrt(4/len(v)))
        assert abs(z)<4, n
    for n in ('scene', 'camera', 'hair'):
        for value in {getattr(s, n) for s in specs}:
            has = np.array([getattr(s, n)==value for s in specs])
            assert abs(has[y==1].mean()-has[y==0].mean())<4*np.sqrt(has.mean()*(1-has.mean())*4/len(y)), (n, value)


def test_a_window_is_a_part_of_the_frame():
    lap = Lap(RunnerSpec.draw(3, 'heel'), 0, seconds=.2)
    for x0,y0,x1,y1 in ((100, 50, 300, 250), (0, 200, 960, 400), (700, 0, 960, 90)):
        whole, part = lap.frame(5)[y0:y1,x0:x1].astype(int), lap.frame(5, (x0, y0, x1, y1)).astype(int)
        assert (abs(whole-part)>2).mean()<.01


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    spec = RunnerSpec.draw(1, 'heel')
    for n in 'ab': render_lap(spec, 0, tmp_path/f'{n}.mp4', seconds=.2)
    assert sha256(tmp_path/'a.mp4')==sha256(tmp_path/'b.mp4') and sha256(tmp_path/'a.npz')==sha256(tmp_path/'b.npz')
    render_lap(spec, 1, tmp_path/'c.mp4', seconds=.2)
    assert sha256(tmp_path/'a.mp4')!=sha256(tmp_path/'c.mp4')


def tree(root): return {str(p.relative_to(root)):sha256(p) for p in sorted(root.rglob('*')) if p.is_file()}


def test_a_killed_tree_goes_on_and_ends_the_same(tmp_path):
    code = 'import sys; from rpa.synth import render_tree; render_tree(sys.argv[1], runners=4, seconds=.25, workers=1)'
    render_tree(tmp_path/'whole', runners=4, seconds=.25, workers=1)
    for wait in (.2, .5):
        p = subprocess.Popen([sys.executable, '-c', code, tmp_path/'killed'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.time()+60
        while not list((tmp_path/'killed').rglob('*.mp4')) and time.time()<end and p.poll() is None: time.sleep(.02)
        time.sleep(wait)
        os.kill(p.pid, signal.SIGKILL); p.wait()
    truth = render_tree(tmp_path/'killed', runners=4, seconds=.25, workers=1)
    assert tree(tmp_path/'killed')==tree(tmp_path/'whole') and truth==read_truth(tmp_path/'whole')


def test_a_tree_says_what_it_holds(tmp_path):
    truth = render_tree(tmp_path, runners=4, laps=2, seed=5, seconds=.5, workers=1)
    assert len(truth)==8 and len({t['runner']['seed'] for t in truth.values()})==4
    assert sorted(t['label'] for t in truth.values())==[0]*4+[1]*4
    for path,t in truth.items():
        assert (tmp_path/path).exists() and t['synthetic'] and path.endswith(f"_{t['label']:03d}.mp4")
        with np.load(tmp_path/t['joints'], allow_pickle=False) as d: assert d['xy'].shape==(30, 33, 2)
        for c in t['contacts']: assert abs(c['frame']-c['t_s']*60)<1e-2 and (c['pitch_deg']>0)==(t['strike']=='heel')
    assert json.loads((tmp_path/'truth.json').read_text())['synthetic']


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(RpaError, match='strike must be one of forefoot, heel; got'): RunnerSpec.draw(0, 'midfoot')
    with pytest.raises(RpaError, match='fps > 0 Hz'): Lap(RunnerSpec.draw(0, 'heel'), 0, fps=0)
    with pytest.raises(RpaError, match='at least one runner'): render_tree(tmp_path, runners=0)


@pytest.mark.parametrize('seed', (2, 11))
def test_the_pose_networks_find_the_runner(tmp_path, seed):
    "Followed nearly all the time, ankles, heels and toes within a few parts in a hundred of body height"
    spec = RunnerSpec.draw(seed, 'heel')
    render_lap(spec, 0, tmp_path/'lap.mp4', seconds=.8)
    with np.load(tmp_path/'lap.npz', allow_pickle=False) as d: true = d['xy']
    i = [lm(f'{s}_{n}') for s in ('left', 'right') for n in ('ankle', 'heel', 'foot_index')]
    tracks = track_people(tmp_path/'lap.mp4', progress=False)
    best = min(tracks, key=lambda tr: np.nanmedian(np.linalg.norm(tr.xy[:,i]-true[tr.frame][:,i], axis=-1)))
    off = np.linalg.norm(best.xy[:,i]-true[best.frame][:,i], axis=-1)/spec.height_px
    assert len(best)>=.8*len(true) and np.nanmedian(off)<.045
    assert np.nanmean(off[np.isfinite(off)]<.08)>.85 # the rest: legs that cross
