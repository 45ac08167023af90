"`rpa gait`: what it writes, what it says, and what it refuses"
import json, subprocess, sys
from dataclasses import replace
import numpy as np
import pytest
from rpa.coach import GaitAnalyzer, at_rate, choose_track, gait, one_way, source_kind, unmirrored, view_deg
from rpa.core import RpaError, as_fps, read_json
from rpa.pipelines import main
from rpa.pose import lm, save_tracks, write_trc
from rpa.video import probe
from pose_data import footage
from test_contacts import GAIT, exact, labels


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


@pytest.mark.parametrize('flags,says', [(['--height-cm', '1.78'], '50 to 250 cm'), (['--true-fps', '-1'], 'must be ≥ 0'), (['--size', 'big'], '1920x1080'),
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
