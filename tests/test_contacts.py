import csv
from dataclasses import replace
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from rpa.contacts import facing, find_contacts, reach, stride_s
from rpa.core import RpaError
from rpa.pose import lm, read_keypoints
from rpa.pose import track_people
from rpa.synth import render_tree
from pose_data import footage, runner, tracked

def labels(name='gaitlab/male_side.contacts.csv'):
    with open(footage(name)) as f: return list(csv.DictReader(f))

def errors(tr, wanted): # frames; every labelled contact against the nearest found of its side
    found = find_contacts(tr)
    return found, [min((c.frame-int(r['ic_frame']) for c in found if c.side==r['side']), key=abs) for r in wanted]

@pytest.mark.parametrize('repair', [True, False])
def test_labelled_contacts_from_keypoints(repair):
    "The labels began as candidates from this very file, so this checks the rule, not its truth"
    tr, = read_keypoints(footage('gaitlab/male_side.pose.json'), repair=repair)
    found, off = errors(tr, labels())
    assert len(off)==len(found)==33 and max(map(abs, off))<=1

def test_labelled_contacts_from_film():
    tr, = tracked('gaitlab/male_side.mp4')
    found, off = errors(tr, labels())
    assert facing(tr)==-1
    assert len(off)==len(found)==33 and max(map(abs, off))<=1
    assert [c.side for c in found]==[r['side'] for r in labels()]

def test_woman_walking_over_ground():
    tracks = tracked('sports2d/demo.mp4')
    woman = max(tracks, key=lambda tr: tr.point('left_hip')[0,0]-tr.point('left_hip')[-1,0])
    wanted = [int(r['ic_frame']) for r in labels('sports2d/demo.contacts.csv')]
    found = find_contacts(woman)
    assert facing(woman)==-1 and len(found)==len(wanted)
    assert max(abs(c.frame-f) for c,f in zip(found, wanted))<=3
    assert all(a.side!=b.side for a,b in zip(found, found[1:]))

@pytest.mark.slow
def test_ten_rendered_laps(tmp_path):
    "The figures of the page: how many contacts are found, and how early"
    off, lost, surplus = [], [], 0 # s; s to the nearer end of the film
    for name,lap in render_tree(tmp_path, runners=10, workers=1).items():
        with np.load(tmp_path/lap['joints']) as d: true = d['xy']
        ankles = lm('left_ankle', 'right_ankle')
        away = lambda tr: np.nanmedian(np.linalg.norm((tr.xy-true[tr.frame])[:,ankles], axis=-1))
        found = find_contacts(min(track_people(tmp_path/name, progress=False), key=away))
        for c in lap['contacts']:
            near = min((f for f in found if f.side==c['side']), key=lambda f: abs(f.t_s-c['t_s']), default=None)
            if near and abs(near.t_s-c['t_s'])<.1: off.append(near.t_s-c['t_s']); found.remove(near)
            else: lost.append(min(c['t_s'], lap['frames']/lap['fps']-c['t_s']))
        surplus += len(found)
    off = np.array(off)
    print(f'{len(off)} of {len(off)+len(lost)} found, {surplus} too many; those not found {max(lost):.3f} s or less from an end; '
          f'{-off.mean():.3f} s ({-off.mean()*60:.1f} frames at 60 Hz) early, spread {off.std():.3f} s ({off.std()*60:.1f} frames), '
          f'{-off.max():.3f} to {-off.min():.3f} s')
    assert surplus==0 and len(off)>=39 and max(lost)<.08
    assert .028<-off.mean()<.037 and off.std()<.010 and np.abs(off).max()<.05

def test_squats_have_no_contacts(): assert find_contacts(tracked('squats/pose_squats.mp4')[0])==[]

@settings(max_examples=30, deadline=None)
@given(fps=st.sampled_from([25, 30, 50, 60, 120, 240]), hz=st.floats(.8, 1.9), speed=st.floats(-400, 400), turn=st.sampled_from([-1, 1]),
       size=st.sampled_from([60, 180, 800]), lag=st.floats(.4, .6))
def test_hand_made_runners(fps, hz, speed, turn, size, lag):
    n = int(3*fps)
    tr = runner(n, fps, hz, speed, turn, size, lag)
    peak = lambda side: np.nanargmax(np.nan_to_num(reach(tr, side)[0][:round(fps/hz)])) # where the curve itself is foremost
    found = find_contacts(tr)
    assert facing(tr)==turn and {c.source for c in found}=={'heel'}
    for side in 'LR':
        at = [c.t_s for c in found if c.side==side]
        assert len(at)>=int(3*hz)-1
        np.testing.assert_allclose(np.diff(at), 1/hz, atol=1.05/fps)
        assert min(abs((t-peak(side)/fps)*hz-round((t-peak(side)/fps)*hz)) for t in at)/hz<1.01/fps

def test_source_and_missing_landmarks():
    tr = runner()
    def without(*names):
        xy = tr.xy.copy()
        xy[:,[lm(n) for n in names]] = np.nan
        return replace(tr, xy=xy)
    assert {c.source for c in find_contacts(without('left_heel', 'left_foot_index')) if c.side=='L'}=={'ankle'}
    assert {c.source for c in find_contacts(without('left_heel', 'left_foot_index')) if c.side=='R'}=={'heel'}
    assert find_contacts(without('left_hip'))!=[] and find_contacts(without('left_hip', 'right_hip'))==[]
    feet = [f'{s}_{p}' for s in ('left', 'right') for p in ('heel', 'foot_index', 'ankle')]
    assert find_contacts(without(*feet))==[] and facing(without(*feet))==1
    head = ['nose', 'left_ear', 'right_ear']
    with pytest.raises(RpaError, match='facing: track 1 must show'): facing(without(*feet, *head, 'left_hip', 'right_hip'))

def test_short_and_broken_tracks():
    tr = runner()
    for n in range(1, 12): assert isinstance(find_contacts(tr.slice(0, n)), list)
    xy = tr.xy.copy()
    xy[40:50] = np.nan
    found = find_contacts(replace(tr, xy=xy))
    assert found and not any(40<=c.frame<50 for c in found)
    later = replace(tr, frame=tr.frame+500, t_s=tr.t_s+500/30)
    assert [c.frame-500 for c in find_contacts(later)]==[c.frame for c in find_contacts(tr)]

def test_rhythm_of_noise():
    assert stride_s(np.full(50, np.nan), 30) is None and stride_s(np.zeros(3), 30) is None
