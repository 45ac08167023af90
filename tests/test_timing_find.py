"`rpa timing`: what it writes, what it scores, what it says"
import numpy as np
import pandas as pd
import pytest
from rpa.core import read_json, timecode, write_text
from rpa.courses import Course, Ride
from rpa.pipelines import main
from rpa.timing import Found, FoundSplit
from rpa.timing_find import TimingScores, frame_of, score_pair
from rpa.video import probe, read_frames


@pytest.fixture(scope='module')
def course(tmp_path_factory): # Folder with a config of three films
    d, c = tmp_path_factory.mktemp('course'), Course.draw(41, 120, 3)
    rides = dict(anna=Ride(c, rider=1, fps=20), bert=Ride(c, rider=2, pace=.7, fps=25), back=Ride(c.turned(), rider=3, fps=20))
    rows = ''
    for n,r in rides.items():
        r.write(d/f'{n}.mp4')
        marks = ', '.join(timecode(t, 24) for t in r.splits_s) if n!='back' else ''
        rows += f' - {{riderId: {n}, trackId: wood, path: {n}.mp4, splits: [{marks}]}}\n'
    write_text(d/'c.yaml', 'videos:\n'+rows)
    return d, rides


def test_find_needs_only_config_and_films(course, monkeypatch):
    d, rides = course
    monkeypatch.chdir(d)
    assert main(['timing', 'find', 'c.yaml', '--trackId', 'wood', '--sourceRiderId', 'anna', '--targetRiderId', 'bert'])==0
    p = read_json('predictions.json')
    assert (p['trackId'], p['sourceRiderId'], p['targetRiderId'], p['status'], p['reason'], p['framing'])==('wood', 'anna', 'bert', 'found', '', 'align')
    rows = p['predicted_splits']
    assert {'source_end_idx', 'source_timecode', 'target_end_idx', 'target_timecode', 'confidence', 'target_s', 'uncertainty_s', 'status', 'reason'}<=set(rows[0])
    t = [r['target_s'] for r in rows]
    assert (np.diff(t)>0).all() and np.median(np.abs(t-rides['bert'].splits_s))<=.12
    assert rows[0]['target_end_idx']==int(t[0]*25) and rows[0]['target_timecode']==timecode(t[0], 24)
    page = (d/'predictions_splits.html').read_text()
    assert page.count('data:image/png')==3 and str(d) not in page and str(d) not in (d/'predictions.json').read_text()


def test_documents_positionals_and_refusal(course, tmp_path, capsys):
    d, rides = course
    args = ['timing', 'find', str(d/'c.yaml'), str(tmp_path/'features'), str(tmp_path/'p.json'), '--trackId', 'wood', '--F', '50', '--sourceRiderId', 'anna', '--targetRiderId', 'back']
    assert main(args)==0
    p = read_json(tmp_path/'p.json')
    assert p['status']=='not_found' and p['reason'] and all(r['status']=='not_found' and r['target_s'] is None and r['reason'] for r in p['predicted_splits'])
    assert len(list((tmp_path/'features').iterdir()))==2 and (tmp_path/'p_splits.html').exists()
    args[args.index('back')] = 'zoe'
    assert main(args)==1 and "riderId on wood must be one of anna, bert, back; got 'zoe'" in capsys.readouterr().err
    args[args.index('anna')], args[args.index('zoe')] = 'back', 'anna'
    assert main(args)==1 and 'back must have splits on wood' in capsys.readouterr().err


def test_curve_inspection_and_view(course, tmp_path, monkeypatch, capsys):
    d, rides = course
    monkeypatch.chdir(d)
    who = ['--trackId', 'wood', '--sourceRiderId', 'anna', '--targetRiderId', 'bert']
    assert main(['timing', 'curve', 'c.yaml', 'video_features', str(tmp_path/'curve.html'), *who])==0
    assert (tmp_path/'curve.html').read_text().count('data:image/png')==4
    assert main(['timing', 'curve', 'c.yaml', 'video_features', str(tmp_path/'no.html'), *who[:-1], 'back'])==1 and 'at least two splits must be found; the course' in capsys.readouterr().err
    assert main(['timing', 'inspect-splits', 'c.yaml', '--output-dir', str(tmp_path/'i'), '--seconds', '.4'])==0
    clips = sorted((tmp_path/'i'/'clips').glob('*.mp4'))
    assert len(clips)==6 and all(probe(c).codec=='h264' and .7<=probe(c).duration_s<=.9 for c in clips)
    assert main(['timing', 'find', 'c.yaml', 'video_features', str(tmp_path/'p.json'), '--no-page', *who])==0 and not (tmp_path/'p_splits.html').exists()
    assert main(['timing', 'view', '--help'])==0 and main(['timing', 'view', '--predictions_json', str(tmp_path/'p.json')])==0 and (tmp_path/'p_splits.html').exists()


def test_validate_scores_and_refusals(course, tmp_path, monkeypatch):
    d, rides = course
    monkeypatch.chdir(d)
    assert main(['timing', 'validate', 'c.yaml', '--output-dir', str(tmp_path)])==0
    s = read_json(tmp_path/'scores.json')
    one = s['Framings'][0]
    assert one['framing']=='align' and one['splits']==6 and one['median_s']<=.1 and one['rejected_wrongly']==0 and one['rejected_rightly']==1
    assert {r['target'] for r in s['Per rider']}=={'anna', 'bert'} and (tmp_path/'report.html').exists()
    assert len((tmp_path/'splits.csv').read_text().splitlines())==7


def test_refusals_count_for_the_rider_whose_film_it_was():
    rows = pd.DataFrame(dict(framing='align', track='t', source=list('ba'), target=list('ab'), split=1, error_s=.05, segment_error_s=np.nan, uncertainty_s=.1, confidence=1.))
    refusals = pd.DataFrame(dict(framing='align', track='t', source=list('ba'), target=list('ab'), what='backwards', refused=[True, False]))
    t = TimingScores(rows, refusals).table(('framing', 'target')).set_index('target')
    assert t.rejected_rightly.to_dict()==dict(a=1., b=0.)


def test_a_film_that_is_missing_does_not_end_the_rest(course, tmp_path, monkeypatch, capsys):
    d, rides = course
    text = (d/'c.yaml').read_text()
    write_text(d/'gone.yaml', text+text.split('\n')[1].replace('anna', 'gone')+'\n')
    monkeypatch.chdir(d)
    assert main(['timing', 'validate', 'gone.yaml', '--output-dir', str(tmp_path/'v')])==1 and 'left out' in capsys.readouterr().out
    assert read_json(tmp_path/'v'/'scores.json')['Framings'][0]['splits']==6
    assert 'wood_gone' in (tmp_path/'v'/'failed.csv').read_text() and 'gone.mp4' in (tmp_path/'v'/'report.html').read_text()
    assert main(['timing', 'inspect-splits', '--config', 'gone.yaml', '--output-dir', str(tmp_path/'i')])==1
    assert (tmp_path/'i'/'index.html').read_text().count('<video')==6


def test_verbs_of_a_group(capsys):
    assert main(['timing'])==2 and main(['timing', '--help'])==0 and 'rpa timing find' in capsys.readouterr().out
    assert main(['timing', 'fnd'])==2 and 'rpa timing find' in capsys.readouterr().err


def test_a_missing_split_is_a_miss_and_breaks_two_segments():
    f = Found([FoundSplit(1., 2., .1, 1., 'found'), FoundSplit(2., reason='x'), FoundSplit(3., 6.2, .1, 1., 'found'), FoundSplit(4., 8., .1, 1., 'found')])
    rows = score_pair(f, np.array([2., 4., 6., 8.]))
    assert f.status=='not_found' and f.reason=='x'
    assert np.allclose([r['error_s'] for r in rows], [0, np.nan, .2, 0], equal_nan=True)
    assert np.allclose([r['segment_error_s'] for r in rows], [np.nan, np.nan, np.nan, -.2], equal_nan=True)


def test_frame_of_is_the_frame_on_the_screen(course):
    d, rides = course
    frames = [f for _,f in read_frames(d/'bert.mp4', height=90)]
    for i in (0, 17, len(frames)-1): assert np.array_equal(frame_of(d/'bert.mp4', i/25+.001), frames[i]), i
