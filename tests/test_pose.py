import json
from dataclasses import replace
from fractions import Fraction
import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from rpa import pose
from rpa.core import RpaError
from rpa.pose import LANDMARKS, leg_path, lm, load_tracks, read_coco17, read_halpe26, read_keypoints, read_openpose, \
    repair_legs, save_tracks, smooth, tidy, track_people
from pose_data import footage, runner, tracked

LEGS = pose._LEGS

def reference(name='gaitlab/male_side.pose.json'):
    d = json.loads(footage(name).read_text())
    p = np.array(d['frames'])
    return {n:p[:,i,:2] for i,n in enumerate(d['keypoint_names'])}

# ---- real footage

def test_treadmill_runner_is_tracked():
    tracks = tracked('gaitlab/male_side.mp4')
    assert len(tracks)==1
    tr, ref = tracks[0], reference()
    assert np.mean(~tr.filled)*len(tr)/360>=.98
    h = np.median(tr.height_px)
    for side in ('left', 'right'):
        off = np.hypot(*(tr.point(f'{side}_ankle')-ref[f'{side[0]}_ankle'][tr.frame]).T)/h
        assert np.nanmedian(off)<.025 and np.isfinite(off).mean()>.97
    near = np.hypot(*(tr.point('left_ankle')-ref['l_ankle'][tr.frame]).T)/h
    assert np.nanpercentile(near, 99)<.06 # the near leg is never drawn on the far one
    far = np.hypot(*(tr.point('right_ankle')-ref['r_ankle'][tr.frame]).T)/h
    assert np.nanpercentile(far, 90)<.08

def test_walker_and_stander_never_swap():
    tracks = tracked('sports2d/demo.mp4')
    hips = [np.nanmean(tr.xy[:,lm('left_hip', 'right_hip')], 1) for tr in tracks]
    woman = int(np.argmax([h[0,0]-h[-1,0] for h in hips]))
    man = next(k for k,tr in enumerate(tracks) if tr.frame[0]<10)
    assert woman!=man
    w, m = tracks[woman], tracks[man]
    assert w.frame[0]<=50 and w.frame[-1]>=195 and m.frame[-1]>=150
    assert np.abs(np.diff(hips[woman][:,0])).max()<.05*np.median(w.height_px) # never jumps to anyone
    fit = np.polyval(np.polyfit(w.t_s, hips[woman][:,0], 2), w.t_s)
    assert np.abs(hips[woman][:,0]-fit).max()<.15*np.median(w.height_px)
    assert np.ptp(hips[man][:,0])<1.2*np.median(m.height_px) and np.nanmax(hips[man][:,1])<np.nanmin(hips[woman][:,1])

def test_squats_at_5_hz():
    tr, = tracked('squats/pose_squats.mp4')
    assert len(tr)==65 and tr.fps==5
    assert np.isfinite(tr.point('left_ankle')).mean()>.9

@pytest.mark.slow
@pytest.mark.parametrize('cam', range(1, 5))
def test_oblique_views(cam):
    tracks = tracked(f'pose2sim/cam0{cam}.mp4')
    assert max(map(len, tracks))==100

def test_threads_change_nothing():
    from rpa.video import read_frames
    src = list(read_frames(footage('gaitlab/male_side.mp4'), end_s=.7))
    a, b = [track_people(src, fps=30, threads=n, progress=False) for n in (1, 2)]
    assert len(a)==len(b)==1
    for k in ('frame', 'xy', 'score', 'box', 'filled'): np.testing.assert_array_equal(getattr(a[0], k), getattr(b[0], k))

def test_feet_out_of_view():
    from rpa.video import read_frames
    src = [(t, np.ascontiguousarray(f[:1000])) for t,f in read_frames(footage('gaitlab/male_side.mp4'), end_s=1.)]
    for tr in track_people(src, fps=30, progress=False):
        both = tr.seen('left_ankle')&tr.seen('right_ankle')
        assert both.mean()<.2
        assert not (tr.xy[...,1]>=1000).any()

@pytest.mark.slow
@pytest.mark.parametrize('start_s', [0., 2.6])
def test_two_people_pass_each_other(start_s):
    "The treadmill runner and his mirror image, cut out and moved through each other; also as the middle of a longer film"
    import cv2
    from rpa.video import read_video
    fr, _ = read_video(footage('gaitlab/male_side.mp4'), end_s=5., height=640)
    tr, n, (h, w) = tracked('gaitlab/male_side.mp4')[0], len(fr), fr.shape[1:3]
    def cut(i, flip):
        p = tr.xy[i]*h/1280
        m = cv2.fillConvexPoly(np.zeros((h, w), np.uint8), cv2.convexHull(p[np.isfinite(p).all(1)].astype(np.int32)), 1)
        m = cv2.dilate(m, np.ones((41, 41)))
        return (fr[i][:,::-1], m[:,::-1]) if flip else (fr[i], m)
    def scene():
        for i in range(n):
            pic = np.full((h, 900, 3), (90,110,95), np.uint8)
            for (im, m), x in ((cut(i, 0), int(855-i/(n-1)*810)-w//2), (cut((i+7)%n, 1), int(45+i/(n-1)*810)-w//2)):
                a, b = max(0, x), min(900, x+w)
                pic[:,a:b] = np.where(m[:,a-x:b-x,None]>0, im[:,a-x:b-x], pic[:,a:b])
            yield start_s+i/30, pic
    tracks = track_people(scene(), fps=30, progress=False)
    for tr in tracks: # nobody turns round: each track moves one way, as far as the scene went
        x = np.nanmean(tr.xy[:,lm('left_hip', 'right_hip'),0], 1)
        steps = (x[15:]-x[:-15])
        assert (steps>0).all() or (steps<0).all(), tr
    assert {tr.person for tr in tracks}=={1, 2} # the one behind is lost for a moment and known again
    for p in (1, 2): assert sum(len(tr) for tr in tracks if tr.person==p)>.85*n

# ---- odd pictures

@pytest.mark.parametrize('shape', [(1,1), (3,4000), (120,160), (2160,3840)])
def test_pictures_without_people(shape):
    rng = np.random.default_rng(0)
    src = [(i/30, rng.integers(0, 255, (*shape, 3), dtype=np.uint8)) for i in range(4)]
    assert track_people(src, fps=30, progress=False)==[]

def test_no_frames_and_no_rate():
    assert track_people([], fps=30, progress=False)==[]
    with pytest.raises(RpaError, match='needs fps='): track_people([])

def test_an_error_while_reading_arrives():
    def broken():
        yield 0., np.zeros((64,64,3), np.uint8)
        raise RpaError('cut short')
    for n in (1, 2):
        with pytest.raises(RpaError, match='cut short'): track_people(broken(), fps=30, threads=n, progress=False)

def test_changed_weights_are_refused(monkeypatch):
    monkeypatch.setitem(pose.WEIGHTS, 'movenet_multipose.tflite', '0'*64)
    pose.weights_path.cache_clear()
    try:
        with pytest.raises(RpaError, match='must have sha256 000000000000'): pose.weights_path('movenet_multipose.tflite')
    finally: pose.weights_path.cache_clear()
    with pytest.raises(RpaError, match='must be one of'): pose.weights_path('other.tflite')

# ---- repairs

@settings(max_examples=25, deadline=None)
@given(fps=st.sampled_from([25, 30, 60]), hz=st.floats(.8, 1.6), at=st.integers(12, 50), n=st.integers(1, 25), turn=st.sampled_from([-1, 1]))
def test_exchanged_legs_come_back(fps, hz, at, n, turn):
    good = runner(fps*3, fps, hz, turn=turn, lag=.47)
    bad = replace(good, xy=good.xy.copy())
    rows = np.arange(at, min(at+n, at+fps//2))
    apart = np.linalg.norm(good.xy[:,LEGS[0,1]]-good.xy[:,LEGS[1,1]], axis=-1)[[rows[0]-1, rows[0], rows[-1], rows[-1]+1]]
    assume(apart.min()>40) # names exchanged just where the feet meet are nobody's mistake
    bad.xy[np.ix_(rows, LEGS.ravel())] = good.xy[np.ix_(rows, LEGS[::-1].ravel())]
    off = np.abs(repair_legs(bad).xy-good.xy)[:,LEGS]
    assert np.nanmax(off)<.08*180

@settings(max_examples=15, deadline=None)
@given(fps=st.sampled_from([24, 30, 60, 120, 240]), hz=st.floats(.7, 1.7), speed=st.floats(-500, 500), size=st.sampled_from([60, 180, 700]))
def test_sound_legs_are_left_alone(fps, hz, speed, size):
    good = runner(int(fps*1.5), fps, hz, speed, size=size)
    np.testing.assert_allclose(repair_legs(good).xy, good.xy, atol=.01)

def test_standing_still_in_side_view():
    "Both legs coincide all the time and that is right"
    still = runner(60, hz=1e-9, lag=0.)
    jitter = replace(still, xy=still.xy+np.random.default_rng(0).normal(0, .6, still.xy.shape))
    np.testing.assert_array_equal(repair_legs(jitter).xy, jitter.xy)

def test_leg_path_without_anything_to_see():
    seen = np.full((5,2,2,2), np.nan)
    assert (leg_path(seen, 30, np.zeros((5,2)), np.ones(5))==-1).all()

def test_tidy_survives_missing_landmarks():
    tr = runner()
    for names in (['left_heel','right_heel'], ['left_hip'], ['left_hip','right_hip'], ['left_knee'], LANDMARKS):
        xy = tr.xy.copy()
        xy[:,[lm(n) for n in names]] = np.nan
        out = tidy(replace(tr, xy=xy))
        assert len(out)==len(tr) and np.isnan(out.xy[:,[lm(n) for n in names]]).all()
    for n in range(1, 8): assert len(tidy(tr.slice(0, n)))==n

def test_gaps_are_filled_or_stay():
    tr = runner()
    xy = tr.xy.copy()
    xy[20:25,lm('nose')] = np.nan
    xy[40:60,lm('nose')] = np.nan
    out = tidy(replace(tr, xy=xy)).point('nose')
    assert np.isfinite(out[20:25]).all() and np.isnan(out[40:60]).all()

def test_smoothing_delays_nothing():
    for fps in (25, 30, 60, 120):
        t = np.arange(fps*2)/fps
        v = np.exp(-((t-1)/.1)**2) # a peak .2 s wide
        s = smooth(v, fps)
        assert np.argmax(s)==np.argmax(v) and s.max()>.93
    np.testing.assert_array_equal(smooth(v, 10), v)

# ---- files

def test_npz_round_trip_and_refusals(tmp_path):
    a = replace(runner(7, fps=Fraction(30000, 1001)), source='Lauf ü.mp4', person=3)
    save_tracks(tmp_path/'t.npz', [a, runner(3)])
    b = load_tracks(tmp_path/'t.npz')
    assert b[0].fps==Fraction(30000, 1001) and b[0].source=='Lauf ü.mp4' and b[0].person==3 and len(b[1])==3
    np.testing.assert_array_equal(a.xy, b[0].xy)
    first = (tmp_path/'t.npz').read_bytes()
    save_tracks(tmp_path/'t.npz', b)
    assert (tmp_path/'t.npz').read_bytes()==first
    save_tracks(tmp_path/'none.npz', [])
    assert load_tracks(tmp_path/'none.npz')==[]
    np.savez(tmp_path/'evil.npz', head=np.array([{'a': 1}], dtype=object))
    with pytest.raises(RpaError, match='written by save_tracks'): load_tracks(tmp_path/'evil.npz')
    with pytest.raises(RpaError, match='written by save_tracks'): load_tracks(tmp_path/'absent.npz')
    (tmp_path/'cut.npz').write_bytes(first[:len(first)//2])
    with pytest.raises(RpaError, match='written by save_tracks'): load_tracks(tmp_path/'cut.npz')

def flat(xy, names): return [float(v) for n in names for v in ((*xy[lm(n)], .9) if n and np.isfinite(xy[lm(n)]).all() else (0, 0, 0))]

def test_openpose_folder(tmp_path):
    a, b = runner(60, speed=120), replace(runner(60, speed=-120))
    b.xy[:,:,0] += 500
    for i in range(60):
        who = [p for p in ((a,b) if i%2 else (b,a)) if not (p is a and i in (30, 31))]
        if 40<=i<52: who = [p for p in who if p is a]
        people = [{'person_id':[-1], 'pose_keypoints_2d': flat(p.xy[i], pose._BODY25)} for p in who]
        (tmp_path/f'x_{i:012d}_keypoints.json').write_text(json.dumps({'version':1.3, 'people': people}))
    got = read_keypoints(tmp_path, fps=30, size=(1280,480))
    assert [(tr.frame[0], tr.frame[-1]) for tr in got]==[(0,59), (0,39), (52,59)] or sorted((tr.frame[0], tr.frame[-1]) for tr in got)==[(0,39), (0,59), (52,59)]
    whole = max(got, key=len)
    assert whole.filled.sum()==2 and np.abs(whole.point('left_hip')-a.point('left_hip')).max()<2
    parts = [tr for tr in got if tr is not whole]
    assert parts[0].person==parts[1].person!=whole.person
    (tmp_path/'x_000000000007_keypoints.json').write_text('{"people": 3}')
    with pytest.raises(RpaError, match='frame 7 is not'): read_openpose(tmp_path, fps=30, size=(1280,480))
    (tmp_path/'x_000000000007_keypoints.json').write_text('{"people": [{"pose_keypoints_2d": [1,2,3]}]}')
    with pytest.raises(RpaError, match='25 × '): read_openpose(tmp_path, fps=30, size=(1280,480))

def test_single_openpose_file(tmp_path):
    tr = runner(20)
    (tmp_path/'a.json').write_text(json.dumps([{'people': [{'pose_keypoints_2d': flat(x, pose._BODY25)}]} for x in tr.xy]))
    got, = read_keypoints(tmp_path/'a.json', fps='30000/1001', size=(1280,480), repair=False)
    assert got.fps==Fraction(30000, 1001)
    np.testing.assert_allclose(got.point('left_heel'), tr.point('left_heel'), atol=.01)

def test_gaitlab_file():
    tr, = read_keypoints(footage('gaitlab/male_side.pose.json'), repair=False)
    ref = reference()
    assert len(tr)==360 and tr.fps==30 and (tr.width, tr.height)==(720, 1280)
    for ours, theirs in (('left_ankle','l_ankle'), ('right_heel','r_heel'), ('left_foot_index','l_big_toe'), ('nose','nose')):
        np.testing.assert_allclose(tr.point(ours), ref[theirs], atol=.01)
    assert np.isnan(tr.point('left_thumb')).all()

def test_coco_and_alphapose(tmp_path):
    tr, p = runner(30), tmp_path/'k.json'
    items = [{'image_id': i, 'category_id': 1, 'keypoints': flat(tr.xy[i], pose._COCO17), 'score': 1.} for i in range(30)]
    p.write_text(json.dumps(items))
    got, = read_keypoints(p, fps=30, size=(1280,480))
    assert np.isfinite(got.point('left_ankle')).all() and np.isnan(got.point('left_heel')).all()
    p.write_text(json.dumps({'images': [{'id': 0, 'width': 1280, 'height': 480}], 'annotations': items}))
    assert read_coco17(p, fps=30)[0].width==1280 and read_keypoints(p, fps=30)[0].height==480
    p.write_text(json.dumps([{'image_id': f'{i:06d}.jpg', 'keypoints': flat(tr.xy[i], pose._HALPE26), 'idx': i//15} for i in range(30)]))
    assert [len(t) for t in read_halpe26(p, fps=30, size=(1280,480))]==[15, 15]
    small = [{**d, 'keypoints': [v/1280 if k%3<2 else v for k,v in enumerate(d['keypoints'])]} for d in items]
    p.write_text(json.dumps(small))
    with pytest.raises(RpaError, match='must be px'): read_coco17(p, fps=30, size=(1280,480))

@pytest.mark.parametrize('text', ['', '[]', '[3]', '{}', '{"frames": []}', 'null', '[{"image_id": 1}]', '{"annotations": []}', '[{"people": null}]'])
def test_files_that_are_something_else(tmp_path, text):
    (tmp_path/'k.json').write_text(text)
    with pytest.raises(RpaError, match='k.json'): read_keypoints(tmp_path/'k.json', fps=30, size=(640,480))

def test_nobody_in_any_frame(tmp_path):
    (tmp_path/'k.json').write_text(json.dumps([{'people': []}]*5))
    assert read_keypoints(tmp_path/'k.json', fps=30, size=(640,480))==[]

def test_drawing():
    tr = runner(5)
    pic = np.zeros((480,1280,3), np.uint8)
    out = pose.draw_tracks(pic, [tr], 3)
    assert out.any() and not pic.any() and not pose.draw_tracks(pic, [tr], 9).any()
    lost = replace(tr, xy=np.full_like(tr.xy, np.nan))
    assert not pose.draw_tracks(pic, [lost], 3, box=False).any()

# ---- markers in space

NAMES = ('heel', 'foot_index', 'ankle', 'knee', 'shoulder')

def marks(path, pelvis=('ASIS', 'PSIS'), n=120, hz=100, scale=1., unit='mm', spoil=None, sacrum=False):
    "A person 1.7 m tall who steps on the spot, as TRC: feet and legs of `runner`, the pelvis 160 mm deep around the hips"
    tr, p = runner(n=n, fps=hz), {}
    k = 1700/180
    low = np.nanmax(tr.xy[...,1])
    for side,z in (('left', -100), ('right', 100)):
        at = lambda name, dx=0: np.stack([k*tr.point(f'{side}_{name}')[:,0]+dx, k*(low-tr.point(f'{side}_{name}')[:,1]), np.full(n, float(z))], 1)
        p |= {f'{side[0].upper()}.{name}': at(real) for name,real in zip(('Heel', 'Toe', 'Ankle', 'Knee', 'Shoulder'), NAMES)}
        p |= {f'{side[0].upper()}.{m}': at('hip', 80 if m=='ASIS' else -80) for m in pelvis}
    if sacrum: p['SACR'] = (k*np.c_[tr.point('left_hip'), np.zeros(n)]*[1, -1, 0])+[-80, k*low, 0]
    if spoil: spoil(p)
    cells = np.stack(list(p.values()), 1)*scale
    text = lambda v: '' if np.isnan(v) else f'{v:.4f}'
    rows = [f'{i+1}\t{i/hz:.4f}\t'+'\t'.join(text(v) for v in c.ravel()) for i,c in enumerate(cells)]
    path.write_text(f'PathFileType\t4\t(X/Y/Z)\t{path.name}\nDataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\n{hz}\t{hz}\t{n}\t{len(p)}\t{unit}\n'
                    'Frame#\tTime\t'+'\t\t\t'.join(p)+'\n\t\tX1\n\n'+'\n'.join(rows)+'\n')
    return path

def hips(path, **kw):
    tr, = pose.read_trc(path, **kw)
    ankles = (tr.point('left_ankle')+tr.point('right_ankle'))/2
    return (pose.midpoint(tr.xy, 'left_hip', 'right_hip')-ankles)[:,0]

def test_hips_are_the_middle_of_the_pelvis(tmp_path):
    "Front and back of the pelvis together, whatever marks the back; the front alone is put .22 of its width back"
    both = hips(marks(tmp_path/'a.trc'))
    np.testing.assert_allclose(hips(marks(tmp_path/'b.trc', ('ASIS',), sacrum=True)), both, atol=.1)
    drop = lambda name: lambda p: p.pop(name)
    for name in ('L.ASIS', 'R.ASIS', 'L.PSIS', 'R.PSIS'): np.testing.assert_allclose(hips(marks(tmp_path/'c.trc', spoil=drop(name))), both, atol=.1)
    np.testing.assert_allclose(hips(marks(tmp_path/'d.trc', ('ASIS',)))-both, 80-.22*200, atol=1)
    with pytest.raises(RpaError, match='left_hip'): pose.read_trc(marks(tmp_path/'e.trc', ('PSIS',)))

def test_a_marker_missing_now_and_then_moves_nothing(tmp_path):
    both = hips(marks(tmp_path/'a.trc'))
    def holes(p): p['L.ASIS'][20:60] = np.nan
    np.testing.assert_allclose(hips(marks(tmp_path/'b.trc', spoil=holes)), both, atol=.5)

def test_what_is_interpolated_was_not_seen(tmp_path):
    "Empty cells and 0, 0, 0 are missing; .2 s of them are filled, with a score of 0"
    whole, = pose.read_trc(marks(tmp_path/'a.trc'))
    for value in (np.nan, 0.):
        def gap(p): p['L.Heel'][40:55] = value
        tr, = pose.read_trc(marks(tmp_path/'b.trc', spoil=gap))
        heel = lm('left_heel')
        assert (tr.score[40:55,heel]==0).all() and tr.score[:,heel].sum()==105 and np.isfinite(tr.point('left_heel')).all()
        assert np.abs(tr.point('left_heel')-whole.point('left_heel'))[:40].max()<.01

@pytest.mark.parametrize('scale,unit', [(1, 'm'), (.001, 'mm'), (1, 'cm'), (.1, 'mm')])
def test_a_wrong_unit_is_refused(tmp_path, scale, unit):
    with pytest.raises(RpaError, match='Mend the unit'): pose.read_trc(marks(tmp_path/'a.trc', scale=scale, unit=unit))
    right = {1: 'mm', .001: 'm', .1: 'cm'}[scale]
    assert 1500<np.median(pose.read_trc(marks(tmp_path/'b.trc', scale=scale, unit=right))[0].height_px)<2000

def test_shoulders_are_no_hips(tmp_path):
    p = marks(tmp_path/'a.trc')
    with pytest.raises(RpaError, match='marker map'): pose.read_trc(p, {'left_hip': 'L.Shoulder', 'right_hip': 'R.Shoulder'})

def test_markers_stay_markers_when_written_and_read_again(tmp_path):
    tr, = pose.read_trc(marks(tmp_path/'a.trc'))
    pose.write_trc(tmp_path/'b.trc', tr)
    back, = pose.read_trc(tmp_path/'b.trc')
    assert back.unit=='mm'==tr.unit
    np.testing.assert_allclose(np.diff(back.point('left_heel'), axis=0), np.diff(tr.point('left_heel'), axis=0), atol=.01)
    pose.write_trc(tmp_path/'c.trc', replace(tr, unit='px'))
    assert pose.read_trc(tmp_path/'c.trc')[0].unit=='px' # from film, as good as film
