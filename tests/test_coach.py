"`rpa gait`: what it writes, what it says, and what it refuses"
import json, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
import rpa.coach
from rpa.coach import (_spare, NAMES, FilmPass, GaitAnalyzer, at_rate, choose_track, draw_film, gait, jumps, one_way, parted, save_result, source_kind, unmirrored, view_deg,
    watch)
from rpa.core import RpaError, as_fps, read_json
from rpa.pipelines import main
from rpa.pose import Track, lm, load_tracks, midpoint, read_trc, save_tracks, track_people, write_trc
from rpa.processing import find_runs
from rpa.synth import Lap, Motion, RunnerSpec
from rpa.video import probe, read_frames, write_video
from pose_data import footage
from test_contacts import GAIT, exact, labels
from test_video import film, write


@pytest.fixture(scope='module')
def walked(tmp_path_factory): # The demo footage, judged once
    out = tmp_path_factory.mktemp('gait')
    film = footage('sports2d/demo.mp4')
    assert main(['gait', str(film), '--output', str(out/'out.json'), '--height-cm', '168', '--no-progress'])==0
    return out, read_json(out/'out.json')


def test_json_says_what_it_promises(walked):
    out, d = walked
    assert d['cycle']=='walking' and abs(d['cadence_spm']-100)<3 and d['reason']==''
    assert {'side', 'ic_s', 'to_s', 'ic_uncertainty_ms', 'strike', 'fsa_deg'}<=set(d['contacts'][0])
    wanted = [int(r['ic_frame'])/30 for r in labels('sports2d/demo.contacts.csv')]
    assert np.abs([c['ic_s']-t for c,t in zip(d['contacts'], wanted)]).max()<=2.1/30 and len(d['contacts'])==8
    assert {c['side'] for c in d['contacts']}=={'L', 'R'}
    assert 'flight_time_ms' in {m['metric'] for m in d['not_measurable']} # who walks does not fly
    assert all(f['source'] and f['level'] in ('inside', 'borderline', 'outside') for f in d['findings'])
    assert d['confidence']['level'] in ('High', 'Good', 'Moderate', 'Low') and d['confidence']['words']
    assert d['metrics']['vertical_oscillation_cm']['unit']=='cm'
    json.dumps(d, allow_nan=False)


def test_page_and_film_are_beside_it(walked):
    out, d = walked
    page = (out/'out.html').read_text()
    assert page.count('data:image/png')==3 and 'http' not in page.replace('doi', '').split('</style>')[1].split('<img')[0]
    info = probe(out/'out.mp4')
    assert info.codec=='h264' and abs(float(info.fps)-30)<.01 and info.height<=540
    assert list((out/'people').glob('*.npz')) # the people found are kept: the next run is quick


def test_second_run_takes_the_people_found(walked, capsys):
    out, d = walked
    before = [(p.name, p.stat().st_mtime_ns) for p in (out/'people').glob('*')]
    gait([str(footage('sports2d/demo.mp4'))], str(out/'again.json'), no_video=True, no_report=True, no_progress=True)
    assert [(p.name, p.stat().st_mtime_ns) for p in (out/'people').glob('*')]==before
    assert read_json(out/'again.json')['contacts']==d['contacts'] and not (out/'again.html').exists()


def test_no_torch_on_the_way():
    code = "import sys; import rpa.coach; assert not {'torch', 'transformers', 'fastai'} & set(sys.modules), 'torch was loaded'"
    assert subprocess.run([sys.executable, '-c', code]).returncode==0


def test_a_bad_file_does_not_end_the_others(tmp_path, capsys):
    tr, _, _ = exact()
    save_tracks(tmp_path/'run.npz', [tr])
    (tmp_path/'bad.json').write_text('{"cats": 3}')
    (tmp_path/'empty.trc').write_text('')
    rc = main(['gait', *(str(tmp_path/n) for n in ('bad.json', 'run.npz', 'empty.trc', 'gone.mp4')), '--output', str(tmp_path/'out')])
    assert rc==1 and read_json(tmp_path/'out'/'run.json')['cycle']=='running'
    failed = (tmp_path/'out'/'failed.csv').read_text()
    assert all(n in failed for n in ('bad.json', 'empty.trc', 'gone.mp4')) and 'must exist' in failed


def test_markers_with_a_map(tmp_path):
    p = GAIT/'hamner/subject04_run300_markers.trc'
    if not p.exists(): pytest.skip('marker recordings are not here (../shared/data/gait)')
    (tmp_path/'map.yaml').write_text('left_heel: LCAL\nright_heel: RCAL\nleft_foot_index: LTOE\nright_foot_index: RTOE\nleft_hip: [LASI, LPSI]\nright_hip: [RASI, RPSI]\n')
    assert main(['gait', str(p), '--markers', str(tmp_path/'map.yaml'), '--output', str(tmp_path/'g.json')])==0
    d = read_json(tmp_path/'g.json')
    assert d['cycle']=='running' and d['kind']=='markers' and {c['strike'] for c in d['contacts']}=={'rearfoot'}
    (tmp_path/'bad.yaml').write_text('left_heel: NOPE\n')
    assert main(['gait', str(p), '--markers', str(tmp_path/'bad.yaml'), '--output', str(tmp_path/'h.json')])==1
    assert not (tmp_path/'h.json').exists()


def test_trc_there_and_back(tmp_path):
    tr, _, _ = exact()
    write_trc(tmp_path/'run.trc', tr, mm_per_px=8)
    a, b = GaitAnalyzer().analyze_track(tr), GaitAnalyzer().analyze_video(tmp_path/'run.trc')
    assert b.kind=='markers' and b.cadence_spm==pytest.approx(a.cadence_spm, abs=1)
    assert [c['side'] for c in a.contacts]==[c['side'] for c in b.contacts]


def test_trc_beside_the_result(tmp_path, capsys):
    tr, _, spec = exact()
    save_tracks(tmp_path/'run.npz', [tr])
    assert main(['gait', str(tmp_path/'run.npz'), '--trc', '--output', str(tmp_path/'o')])==1 and '--height-cm' in capsys.readouterr().err
    assert main(['gait', str(tmp_path/'run.npz'), '--trc', '--height-cm', '170', '--output', str(tmp_path/'o')])==0
    back = GaitAnalyzer(height_cm=170).analyze_video(tmp_path/'o'/'run.trc')
    assert back.track.unit=='px' # without depth it is as good as film, not as good as markers
    assert back.cycle=='running' and back.metrics['vertical_oscillation_cm'].value==pytest.approx(200*spec.bounce_m*170/(100*spec.height_m), abs=2)


@pytest.mark.parametrize('move', [lambda t: 60*t, lambda t: 40*np.sin(1.5*t), lambda t: -150*t])
def test_a_moving_camera_changes_little(move):
    tr, _, _ = exact(seconds=5)
    still = GaitAnalyzer().analyze_track(tr)
    xy = tr.xy.copy()
    xy[...,0] += move(tr.t_s)[:,None]
    panned = GaitAnalyzer().analyze_track(replace(tr, xy=xy))
    assert panned.cadence_spm==pytest.approx(still.cadence_spm, abs=.7)
    pairs = [(a['ic_s'], b['ic_s']) for a,b in zip(still.contacts, panned.contacts)]
    assert len(still.contacts)==len(panned.contacts) and np.abs(np.diff(pairs)).max()<.008


def test_true_fps_puts_the_clock_right():
    tr, _, spec = exact(fps=120)
    slow = replace(tr, t_s=tr.t_s*4, fps=tr.fps/4)
    assert '--true-fps' in str(GaitAnalyzer().analyze_track(slow))
    right = GaitAnalyzer(true_fps=120).analyze_track(slow)
    assert right.cadence_spm==pytest.approx(spec.cadence, abs=1) and right.file_fps==30 and right.gait.suspect==''
    assert at_rate(slow, '30000/1001').fps==as_fps('30000/1001')


def test_mirrored_film_has_left_and_right_back():
    tr, _, _ = exact()
    a, b = GaitAnalyzer().analyze_track(tr), GaitAnalyzer(mirrored=True).analyze_track(tr)
    assert [c['side'] for c in b.contacts]==[dict(L='R', R='L')[c['side']] for c in a.contacts]
    np.testing.assert_array_equal(unmirrored(unmirrored(tr)).xy, tr.xy)


def test_the_choice_between_people():
    near, _, _ = exact(1)
    far = replace(near, id=2, person=2, xy=near.xy/2)
    standing = replace(near, id=3, person=3, xy=np.repeat(near.xy[:1]*3, len(near), 0))
    best, g, notes = choose_track([standing, far, near])
    assert best is near and g.cycle=='running' and '2 people walk or run' in notes[0]
    assert choose_track([standing, far], 3)[1].cycle=='none'
    with pytest.raises(RpaError, match='--person must be one of 2, 3'): choose_track([far, standing], 7)
    with pytest.raises(RpaError, match='nobody was found'): choose_track([])


def test_cut_in_the_footage():
    "A track that ends and one of the same person that begins anew: the longer is judged, and the report says so"
    tr, _, _ = exact(seconds=5)
    a, b = tr.slice(0, 90), replace(tr.slice(90, 300), id=2, person=1)
    r = GaitAnalyzer().analyze_track([a, b])
    assert r.track.id==2 and any('2 stretches' in n for n in r.notes)


def test_view_from_the_front_is_noticed():
    tr, _, _ = exact()
    xy = tr.xy.copy()
    xy[:,lm('left_shoulder'),0] += .1*np.median(tr.height_px); xy[:,lm('right_shoulder'),0] -= .09*np.median(tr.height_px)
    wide = replace(tr, xy=xy)
    assert view_deg(tr)<20<60<view_deg(wide)
    assert any('off the side view' in n for n in GaitAnalyzer().analyze_track(wide).notes)


def test_low_confidence_gives_no_advice():
    tr, _, _ = exact(1)
    dim = replace(tr, score=np.full_like(tr.score, .4))
    sure, unsure = (GaitAnalyzer().analyze_track(t) for t in (tr, dim))
    assert any(f.advice for f in sure.findings) and not any(f.advice for f in unsure.findings)
    assert unsure.confidence['level']=='Low' and 'unreliable' in unsure.confidence['words']


@pytest.mark.parametrize('flags,says', [(['--height-cm', '1.78'], '50 to 250 cm'), (['--true-fps', '-1'], '1 to 10000 Hz'), (['--true-fps', '.01'], '1 to 10000 Hz'), (['--size', 'big'], '1920x1080'),
                                        (['--output', 'a.json', 'other.mp4'], 'pass a folder'), (['--model', 'nowhere'], 'nowhere'), (['--output', 'a.txt'], 'a .json file or a folder'),
                                        (['--markers', 'none.yaml'], 'must be a YAML file')])
def test_wrong_flags(flags, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['gait', 'film.mp4', *flags])==1 and says in capsys.readouterr().err


def test_nothing_is_written_over_what_is_read(tmp_path, monkeypatch, capsys):
    tr, _, _ = exact()
    monkeypatch.chdir(tmp_path)
    save_tracks('run.npz', [tr])
    write_trc('run.trc', tr)
    before = (tmp_path/'run.trc').read_bytes()
    assert main(['gait', 'run.trc', '--trc', '--output', '.'])==0
    assert (tmp_path/'run.trc').read_bytes()==before and (tmp_path/'run_gait.json').exists()
    rows = [dict(image_id=f'{i}.jpg', category_id=1, score=1, keypoints=[1.]*51) for i in range(3)]
    (tmp_path/'kp.json').write_text(json.dumps(rows))
    assert main(['gait', 'kp.json', '--output', 'kp.json'])==1 and 'would write over' in capsys.readouterr().err
    stems = [Path('run300')]
    assert _spare(stems, ['run300.trc'], 'run300.json', ['json', 'html'])==stems # no TRC is written
    with pytest.raises(RpaError, match='would write over run300.trc'): _spare(stems, ['run300.trc'], 'run300.json', ['json', 'trc'])
    assert json.loads((tmp_path/'kp.json').read_text())==rows


def test_a_cut_that_turns_the_runner_round():
    a, b = exact(1, seconds=3)[0], exact(1, seconds=4, turn=-1)[0]
    xy = np.concatenate([a.xy, b.xy])
    n = len(xy)
    both = replace(a, frame=np.arange(n), t_s=np.arange(n)/60, xy=xy, score=np.ones((n, 33)), box=np.tile(a.box[:1], (n, 1)), filled=np.zeros(n, bool))
    parts = one_way(both)
    assert [len(p) for p in parts]==pytest.approx([180, 240], abs=3) and one_way(a)[0] is a
    r = GaitAnalyzer().analyze_track(both)
    assert r.cycle=='running' and r.track.t_s[0]>2.9 and any('2 stretches' in n for n in r.notes)


def test_a_wrong_clock_gives_no_advice():
    tr, _, _ = exact(1)
    r = GaitAnalyzer().analyze_track(replace(tr, t_s=tr.t_s/2, fps=tr.fps*2))
    assert r.gait.suspect and not any(f.advice for f in r.findings) and r.gait.suspect in str(r).splitlines()[1]


def test_kinds(tmp_path):
    for n,k in (('a.trc', 'markers'), ('a.json', 'keypoints'), ('a.npz', 'keypoints'), ('a.mp4', 'video'), ('a.TRC', 'markers')):
        (tmp_path/n).write_text('')
        assert source_kind(tmp_path/n)==k
    with pytest.raises(RpaError, match='must exist'): source_kind(tmp_path/'b.mp4')
    (tmp_path/'a.mot').write_text('')
    with pytest.raises(RpaError, match='must be a film'): source_kind(tmp_path/'a.mot')


def test_keypoints_in_place_of_the_built_in_pose(tmp_path):
    film, pose = footage('gaitlab/male_side.mp4'), footage('gaitlab/male_side.pose.json')
    assert main(['gait', str(film), '--keypoints', str(pose), '--output', str(tmp_path/'g.json'), '--no-video', '--no-progress'])==0
    d = read_json(tmp_path/'g.json')
    assert d['cycle']=='running' and abs(d['cadence_spm']-168.9)<1
    alone = GaitAnalyzer().analyze_video(pose)
    assert len(alone.contacts)==len(d['contacts'])


# --- one pass over the film

def test_the_cache_is_the_one_of_processing(walked):
    out, _ = walked
    before = [(p.name, p.stat().st_mtime_ns) for p in sorted((out/'people').iterdir())]
    tracks = find_runs(footage('sports2d/demo.mp4'), cache=out/'people', show=False).tracks
    again, seen = watch(footage('sports2d/demo.mp4'), cache=out/'people', show=False)
    assert [(p.name, p.stat().st_mtime_ns) for p in sorted((out/'people').iterdir())]==before and len(before)==2 # people and cuts; no copy is left
    assert len(tracks)==len(again) and all(np.array_equal(a.xy, b.xy, equal_nan=True) for a,b in zip(tracks, again)) and seen.cuts==[]


def test_drawn_film_shows_the_film(walked):
    "Copy, memory and the film itself give the same pictures, and the drawn film has the frames of the film in their places"
    out, _ = walked
    path, info = footage('sports2d/demo.mp4'), probe(footage('sports2d/demo.mp4'))
    kept, copied, plain = FilmPass(info, draw=True, keep=True), FilmPass(info, draw=True), FilmPass(info)
    for seen in (kept, copied):
        for _ in seen.through(read_frames(path)): pass
    a, b, c = (list(s.pictures()) for s in (kept, copied, plain))
    assert [i for i,_ in a]==[i for i,_ in b]==[i for i,_ in c]==list(range(info.frames))
    assert max(np.abs(x.astype(int)-y).mean() for (_,x),(_,y) in zip(a[::20]+a[::20], b[::20]+c[::20]))<5 # of 255 levels
    drawn = [f for _,f in read_frames(out/'out.mp4')]
    assert len(drawn)==info.frames and max(np.abs(f.astype(int)-a[i][1]).mean() for i,f in list(enumerate(drawn))[::40])<9


@pytest.mark.parametrize('how', ['plain', 'turned', 'uneven', 'odd'])
def test_chosen_frames_are_those_of_the_reader(tmp_path, how):
    frames = film(40, 95 if how=='odd' else 96)
    if how=='odd': write_video(tmp_path/'f.mp4', frames, 30)
    else: write(tmp_path/'f.mp4', frames, turn=90 if how=='turned' else None, **(dict(pts=[i*33+(i%7)*3 for i in range(40)], tick=as_fps('1/1000')**1) if how=='uneven' else {}))
    want = dict(enumerate(f for _,f in read_frames(tmp_path/'f.mp4', height=60)))
    got = dict(FilmPass(probe(tmp_path/'f.mp4')).chosen({3, 17, 30}, 60))
    assert sorted(got)==[3, 17, 30] and all(np.array_equal(f, want[i]) for i,f in got.items())


def test_fast_films_are_drawn_at_30_hz(tmp_path):
    "A film of 120 Hz: every fourth frame is drawn, contacts are shown from the frame nearest to them"
    lap = Lap(replace(RunnerSpec.draw(3, 'heel'), camera='treadmill', scene='treadmill'), 1, fps=120, seconds=2, bystanders=False)
    write_video(tmp_path/'f.mp4', (lap.frame(i) for i in range(240)), 120)
    save_tracks(tmp_path/'f.npz', [joints_of([lap])])
    assert main(['gait', str(tmp_path/'f.mp4'), '--keypoints', str(tmp_path/'f.npz'), '--output', str(tmp_path/'o'), '--no-progress'])==0
    info = probe(tmp_path/'o'/'f.mp4')
    assert info.fps==30 and info.frames==60
    d = read_json(tmp_path/'o'/'f.json')
    assert d['cycle']=='running' and d['cuts_s']==[] and len(d['contacts'])>3


def joints_of(laps): # The drawn joints of laps one after the other
    xy = np.concatenate([lap.joints for lap in laps]).astype(float)
    n, fps = len(xy), laps[0].fps
    box = np.concatenate([np.nanmin(xy, 1), np.nanmax(xy, 1)], 1)
    return Track(1, np.arange(n), np.arange(n)/fps, xy, np.isfinite(xy[...,0])*1., box, np.zeros(n, bool), fps, *laps[0].size, 'drawn')


# --- cuts and crossings

def test_no_stride_spans_a_cut(tmp_path):
    "Two takes of one runner who faces the same way; the keypoints go on as if nothing had happened"
    spec = replace(RunnerSpec.draw(3, 'heel'), camera='treadmill')
    a, b = (Lap(replace(spec, scene=s), k, fps=30, seconds=n, bystanders=False) for s,k,n in (('treadmill', 1, 3), ('park', next(k for k in range(2, 40) if Lap(spec, k, fps=30).way==Lap(spec, 1, fps=30).way), 4)))
    write_video(tmp_path/'f.mp4', [lap.frame(i) for lap in (a, b) for i in range(len(lap.t))], 30)
    both = joints_of([a, b])
    both.xy[90:] += np.nanmedian(both.xy[70:90, lm('left_hip')], 0)-np.nanmedian(both.xy[90:110, lm('left_hip')], 0) # not even a jump
    save_tracks(tmp_path/'f.npz', [both])
    assert main(['gait', str(tmp_path/'f.mp4'), '--keypoints', str(tmp_path/'f.npz'), '--output', str(tmp_path/'o.json'), '--no-video', '--no-progress'])==0
    d = read_json(tmp_path/'o.json')
    assert d['cuts_s']==[3.] and d['cycle']=='running' and d['from_s']>=3 and min(c['ic_s'] for c in d['contacts'])>3
    assert any('the footage is cut at 3.0 s' in n for n in d['notes']) and any('2 stretches' in n for n in d['notes'])
    assert abs(d['cadence_spm']-spec.cadence)<2 and 'the footage is cut' in (tmp_path/'o.html').read_text()


def test_cut_times_are_those_of_the_file():
    tr, _, _ = exact(fps=120, seconds=8)
    r = GaitAnalyzer(true_fps=120).analyze_track(replace(tr, t_s=tr.t_s*4, fps=tr.fps/4), cuts=[240])
    assert r.cuts_s==[8.] and any('cut at 8.0 s' in n for n in r.notes) and r.track.t_s[0]>=2 and abs(60/np.median(np.diff([c['ic_s'] for c in r.contacts]))-r.cadence_spm)<3


@pytest.mark.parametrize('how', ['place', 'size'])
def test_a_jump_that_nobody_does(how):
    tr, _, _ = exact(seconds=6)
    xy = tr.xy.copy()
    if how=='place': xy[150:,:,0] += .5*np.median(tr.height_px)
    else: xy[150:] = (xy[150:]-[300, 300])*1.3+[300, 300]
    r = GaitAnalyzer().analyze_track(replace(tr, xy=xy))
    assert jumps(tr)==[] and jumps(replace(tr, xy=xy))==[150]
    assert r.cycle=='running' and r.track.frame[0]>150 and any('as nobody can' in n for n in r.notes)


def test_tracks_of_real_people_are_not_cut(walked):
    for t in load_tracks(next((walked[0]/'people').glob('*.npz'))):
        if t.id==2: assert parted(t)[1]==[] # the woman


def crossing(seed, fps=30, seconds=3.): # A lap of a runner, and another who comes the other way behind him; the true hips of both, px
    spec = replace(RunnerSpec.draw(seed, 'heel'), camera='static', height_px=200., speed_m_s=2.6)
    lap = Lap(spec, 1, fps=fps, seconds=seconds, bystanders=False)
    other = replace(RunnerSpec.draw(seed+100, 'forefoot'), speed_m_s=2.4)
    x = np.interp(lap.t.mean(), lap.t, lap.hips)-lap.way*np.abs(np.gradient(lap.hips, lap.t)).mean()*(lap.t-lap.t.mean())
    y = lap.ground_y-6+lap.shake[1][:,None]
    lap.others = [lap._figure(other, Motion(other, 0, lap.t), x+lap.shake[0], 'L' if lap.way>0 else 'R', y, -lap.way, .9*lap.scale, other.speed_m_s*lap.t)]
    return lap, np.stack([lap.hips, x])


@pytest.mark.parametrize('seed', [0, 1]) # in 1 the pose takes one runner for the other where they meet
def test_two_runners_cross(seed):
    lap, hips = crossing(seed)
    tracks = track_people(((i/30, lap.frame(i)) for i in range(len(lap.t))), 30, progress=False)
    apart, mixed = np.abs(hips[0]-hips[1])>60, 0
    whose = lambda t: set(np.abs(midpoint(t.xy, 'left_hip', 'right_hip')[:,0]-hips[:,t.frame]).argmin(0)[apart[t.frame]].tolist())
    for person in (0, *(t.id for t in tracks)):
        r = GaitAnalyzer().analyze_track(tracks, 'video', person)
        assert len(whose(r.track))==1 # one person from beginning to end
        if len(whose(next(t for t in tracks if t.id==r.track.id)))>1:
            mixed += 1
            assert any('two people taken for one' in n or 'two people who crossed' in n for n in r.notes)
    r = GaitAnalyzer().analyze_track(tracks, 'video')
    assert r.cycle=='running' and '2 people walk or run here' in r.notes[0]
    if seed==1: assert mixed
    if seed==0: assert any('somebody else passes before or behind the person from 1.' in n for n in r.notes)


# --- left and right

HAMNER = dict(left_heel='LCAL', right_heel='RCAL', left_foot_index='LTOE', right_foot_index='RTOE', left_hip=['LASI', 'LPSI'], right_hip=['RASI', 'RPSI'])


def test_a_map_of_the_feet_alone_is_enough():
    "What a map does not name goes by the usual names; a marker that it names stands for nothing else"
    p = GAIT/'hamner/subject04_run300_markers.trc'
    if not p.exists(): pytest.skip('marker recordings are not here (../shared/data/gait)')
    feet = {k:v for k,v in HAMNER.items() if not k.endswith('hip')}
    one, two = read_trc(p, feet)[0], read_trc(p, HAMNER)[0]
    for name in HAMNER: np.testing.assert_allclose(np.diff(one.point(name), axis=0), np.diff(two.point(name), axis=0), atol=1e-3)
    with pytest.raises(RpaError, match='must stand for left_hip'): read_trc(p, feet|dict(left_ankle='LASI', right_ankle='RASI')) # the back alone is no hip


@pytest.mark.parametrize('name', ['subject01_run200', 'subject04_run300', 'subject04_run400'])
def test_an_exchanged_marker_map_is_noticed(name):
    p = GAIT/f'hamner/{name}_markers.trc'
    if not p.exists(): pytest.skip('marker recordings are not here (../shared/data/gait)')
    other = lambda keys: {k: HAMNER[k if not k.endswith(keys) else k.replace('left', '#').replace('right', 'left').replace('#', 'right')] for k in HAMNER}
    notes = lambda m, **kw: ' '.join(GaitAnalyzer(**kw).analyze_video(p, markers=m).notes)
    assert 'lies right' not in notes(HAMNER)
    assert 'the left heel, toe lies right of the right one: left and right are exchanged' in notes(other(('heel', 'foot_index')))
    assert 'the left hip, heel, toe lies right' in notes(other(('heel', 'foot_index', 'hip')))
    assert 'lies right' not in notes(other(('heel', 'foot_index', 'hip')), mirrored=True)
    feet = {k: HAMNER[k.replace('heel', '#').replace('foot_index', 'heel').replace('#', 'foot_index')] for k in HAMNER}
    assert 'heels and toes, are exchanged' in notes(feet)


def test_exchanged_keypoints_are_noticed(walked):
    woman = load_tracks(next((walked[0]/'people').glob('*.npz')))[1]
    says = lambda t, **kw: any('away from the camera is seen better' in n for n in GaitAnalyzer(**kw).analyze_track(t).notes)
    assert not says(woman) and says(unmirrored(woman)) and not says(unmirrored(woman), mirrored=True)


def test_knees_that_bend_the_wrong_way():
    tr, _, _ = exact(seconds=5)
    xy = tr.xy.copy()
    for s in ('left', 'right'): xy[:,lm(f'{s}_heel', f'{s}_foot_index')] = tr.xy[:,lm(f'{s}_foot_index', f'{s}_heel')]
    r = GaitAnalyzer().analyze_track(replace(tr, xy=xy))
    assert r.cycle=='none' or any('knees bend the wrong way' in n for n in r.notes)
    assert not any('knees' in n for n in GaitAnalyzer().analyze_track(tr).notes)


# --- what is said

def test_nothing_to_be_confident_of(walked):
    "No cycle: no overall confidence, and the pose's own says what it is"
    man = load_tracks(next((walked[0]/'people').glob('*.npz')))[0]
    d = GaitAnalyzer().analyze_track(man).to_dict()
    assert d['cycle']=='none' and d['reason'] and d['not_measurable']==[dict(metric='everything', why=d['reason'])]
    c = d['confidence']
    assert c['overall'] is None and c['level'] is None and c['model'] is None and 0<c['pose']<=1
    assert c['words'].startswith('no cycle, so no overall confidence; the pose alone: ')
    assert 'no running or walking cycle found' in str(GaitAnalyzer().analyze_track(man)) and not d['findings'] and not d['metrics'] and not d['contacts']


def test_few_contacts_are_said():
    tr, _, _ = exact(seconds=2)
    assert any('whole contacts: read the spread with care' in n for n in GaitAnalyzer().analyze_track(tr).notes)
    r = GaitAnalyzer().analyze_track(exact(seconds=6)[0])
    assert not any('whole contact' in n for n in r.notes)


def test_somebody_else_at_another_time():
    a, _, _ = exact(1, seconds=5)
    b = replace(exact(2, seconds=3)[0], id=2, person=2)
    b = replace(b, frame=b.frame+400, t_s=b.t_s+400/60)
    assert 'somebody else walks or runs here at another time; track 1 is judged' in choose_track([a, b])[2][0]


def test_sources_and_flags_that_do_not_fit(tmp_path, capsys):
    tr, _, _ = exact()
    save_tracks(tmp_path/'run.npz', [tr])
    write_video(tmp_path/'f.mp4', film(8), 30)
    write_trc(tmp_path/'run.trc', tr)
    path = lambda n: str(tmp_path/n)
    for args,says in ((['f.mp4', '--fps', '30'], '--fps and --size are for keypoint files'), (['f.mp4', '--size', '9x9'], '--fps and --size are for keypoint files'),
                      (['run.npz', '--keypoints', path('run.npz')], '--keypoints goes with a film'), (['run.npz', '--markers', path('m.yaml')], '--markers belong to a TRC file'),
                      (['run.npz', 'f.mp4', '--keypoints', path('run.npz')], '--keypoints belong to one film'), (['run.npz', '--height-cm', '300'], 'height_cm must be a body height'),
                      (['run.npz', '--person', '4'], '--person must be one of 1; got 4'), (['f.mp4'], 'nobody was found in the film')):
        (tmp_path/'m.yaml').write_text('left_heel: LCAL\n')
        args = [path(a) if a in ('f.mp4', 'run.npz') else a for a in args]
        assert main(['gait', *args, '--output', path('o'), '--no-progress'])==1, args
        said = capsys.readouterr()
        assert says in said.out+said.err, (args, said)
    r = GaitAnalyzer().analyze_track(tr)
    with pytest.raises(RpaError, match='is the film itself'): save_result(replace(r, kind='video'), path('f'), path('f.mp4'))
    assert draw_film(GaitAnalyzer().analyze_track(replace(tr, xy=np.repeat(tr.xy[:1], len(tr), 0))), path('f.mp4')) is None # no contacts, no picture


def test_ctrl_c_says_what_is_kept(tmp_path, monkeypatch, capsys):
    save_tracks(tmp_path/'run.npz', [exact()[0]])
    write_video(tmp_path/'f.mp4', film(30), 30)
    def frames(path, **kw): # Ctrl-C while the sixth frame is read
        for k,x in enumerate(read_frames(path, **kw)):
            if k==5: raise KeyboardInterrupt
            yield x
    monkeypatch.setattr(rpa.coach, 'read_frames', frames)
    assert main(['gait', str(tmp_path/'run.npz'), str(tmp_path/'f.mp4'), '--output', str(tmp_path/'o'), '--no-progress'])==130
    said = capsys.readouterr()
    assert '1 of 2 are done' in said.out+said.err and 'the one that was being read starts anew' in said.out+said.err
    assert (tmp_path/'o'/'run.json').exists() and not (tmp_path/'o'/'f.json').exists() and not list((tmp_path/'o'/'people').iterdir())


def test_tables_are_for_people():
    r = GaitAnalyzer().analyze_track(exact(seconds=6)[0])
    assert set(r.metrics)<=set(NAMES) and 'cadence' in set(r.table().metric) and not any('_' in m for m in [*r.table().metric, *r.finding_table().metric])
    bands = dict(zip(r.finding_table().metric, r.finding_table().band))
    assert bands['cadence']=='170 to 190' and bands['shank angle']=='at most 8' and bands['symmetry']=='at least 0.9'
    assert all((r.table()[c].astype(str)!='').any() for c in r.table())


# --- what is doubted

def test_gaps_are_said_and_cost_confidence():
    tr, _, _ = exact(1, seconds=5)
    score = tr.score.copy()
    score[120:140,lm('left_heel')] = 0
    r, whole = GaitAnalyzer().analyze_track(replace(tr, score=score)), GaitAnalyzer().analyze_track(tr)
    assert any(n.startswith('the left foot or the hips were not seen from ') and n.endswith('moments in there are not given') for n in r.notes)
    assert not any('not seen' in n for n in whole.notes) and r.confidence['overall']<whole.confidence['overall']


def test_noise_and_missing_markers_cost_confidence():
    tr, _, _ = exact(1, fps=100, seconds=5)
    tr = replace(tr, unit='mm', xy=tr.xy*10)
    sure = lambda t: GaitAnalyzer().analyze_track(t).confidence['overall']
    noisy = replace(tr, xy=tr.xy+np.random.default_rng(0).normal(0, 40, tr.xy.shape))
    score = tr.score.copy()
    score[:,lm('right_shoulder')] = np.arange(len(tr))%2
    assert sure(tr)==1 and sure(noisy)<.9 and sure(replace(tr, score=score))<1


def test_exchanged_sides_give_no_advice(walked):
    woman = load_tracks(next((walked[0]/'people').glob('*.npz')))[1]
    r, right = GaitAnalyzer().analyze_track(unmirrored(woman)), GaitAnalyzer().analyze_track(woman)
    assert r.confidence['overall']<.6<right.confidence['overall'] and 'left and right are in doubt' in r.confidence['words']
    assert not any(f.advice for f in r.findings)
    back = GaitAnalyzer(mirrored=True).analyze_track(unmirrored(woman))
    assert back.confidence['overall']==pytest.approx(right.confidence['overall'], abs=1e-5) and not any('exchanged' in n for n in back.notes)


def test_mirrored_markers_that_were_right():
    p = GAIT/'hamner/subject04_run300_markers.trc'
    if not p.exists(): pytest.skip('marker recordings are not here (../shared/data/gait)')
    r = GaitAnalyzer(mirrored=True).analyze_video(p)
    assert any('--mirrored exchanged left and right of markers that had them right' in n for n in r.notes) and r.confidence['level']=='Low'


def test_two_contacts_are_never_high():
    r = GaitAnalyzer().analyze_track(exact(1, seconds=1.2)[0])
    assert r.cycle=='running' and len(r.contacts)<4 and r.confidence['level']!='High' and 'contacts' in r.confidence['words']


def test_a_hidden_leg_gives_no_advice(walked):
    "Contact time is judged by the leg that is seen, symmetry not at all, and it is said"
    woman = load_tracks(next((walked[0]/'people').glob('*.npz')))[1]
    r = GaitAnalyzer().analyze_track(woman)
    assert any('leg is partly hidden behind the other' in n for n in r.notes) and not any(f.metric=='symmetry' for f in r.findings)
    tr, _, _ = exact(1, seconds=5)
    score = tr.score.copy()
    score[:,lm('left_elbow', 'left_wrist')], score[:,lm('right_elbow', 'right_wrist')] = .1, .9
    slow = replace(tr, score=score)
    seen = [f for f in GaitAnalyzer().analyze_track(slow).findings if f.metric=='contact_time_ms'][0]
    assert seen.value==GaitAnalyzer().analyze_track(slow).metrics['contact_time_ms'].right


def test_a_wrong_true_fps_is_named():
    tr, _, spec = exact(1, seconds=8)
    for fps in (25, 120, 240):
        r = GaitAnalyzer(true_fps=fps).analyze_track(tr)
        assert '--true-fps' in r.gait.suspect and not any(f.advice for f in r.findings), fps
        assert r.cycle=='none' or f'was probably not taken at {fps} Hz, as --true-fps {fps} says; try --true-fps' in str(r)
    for bad in (.01, 1e9, '60', float('nan'), -1):
        with pytest.raises(RpaError, match='1 to 10000 Hz'): GaitAnalyzer(true_fps=bad)


def test_fps_of_markers_is_their_own(tmp_path):
    write_trc(tmp_path/'run.trc', exact()[0], mm_per_px=8)
    with pytest.raises(RpaError, match='says its rate itself'): GaitAnalyzer().analyze_video(tmp_path/'run.trc', fps=50)
