"`rpa rally`: from tables of features to intervals and figures, and what is refused"
import json
import numpy as np
import pandas as pd
import pytest
from rpa.core import RpaError, read_json
from rpa.intervals import synthetic_match
from rpa.pipelines import main
from rpa.rally import evaluate, predict, rate_of_truth, read_all, read_intervals, train_temporal
from pose_data import ROOT

BADMINTON = ROOT/'../shared/data/rally/badminton'


def table(folder, seed, frames=False, name=None, minutes=4):
    "A made-up match as a tracker would write it, and its truth"
    m = synthetic_match(seed, noise=.5, minutes=minutes)
    x = pd.DataFrame(m.series.x, columns=m.series.columns)
    x.iloc[::7,2] = np.nan # values may be missing
    if frames: x['frame'] = (m.series.times_s*25).round().astype(int)
    else: x['time_s'] = m.series.times_s
    x.to_csv(folder/f'{name or seed}.csv', index=False)
    return pd.DataFrame(dict(video=str(name or seed), start_s=[r.start_s for r in m.rallies], end_s=[r.end_s for r in m.rallies]))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp('rally')
    truth = [table(root, s) for s in range(3)]
    pd.concat(truth[:2]).to_csv(root/'truth.csv', index=False)
    truth[2].drop(columns='video').to_csv(root/'truth2.csv', index=False)
    assert main(['rally', 'train-temporal', '--features', str(root/'0.csv'), str(root/'1.csv'), '--truth', str(root/'truth.csv'), '--model', 'v1', '--epochs', '11',
                 '--output', str(root/'model'), '--no-progress'])==0
    return root


def test_the_three_commands(trained, tmp_path, capsys):
    assert main(['rally', 'predict', '--features', str(trained/'2.csv'), '--model', str(trained/'model'), '--output', str(tmp_path/'intervals.json')])==0
    rows = read_json(tmp_path/'intervals.json')
    assert all(set(r)=={'start_s', 'end_s', 'score'} and 0<=r['start_s']<r['end_s'] and 0<=r['score']<=1 for r in rows) and (tmp_path/'intervals.png').stat().st_size>5000
    assert main(['rally', 'evaluate', '--intervals', str(tmp_path/'intervals.json'), '--truth', str(trained/'truth2.csv'), '--iou', '0.5', '--output', str(tmp_path/'e.json')])==0
    d = read_json(tmp_path/'e.json')
    assert d['f1']>.6 and {r['iou'] for r in d['by_iou']}>={.3, .5, .7, .9} and (tmp_path/'e.png').exists()
    assert 'boundaries off by' in capsys.readouterr().out


def test_the_model_says_how_good_it_is(trained):
    about = read_json(trained/'model'/'config.json')['about']
    assert about['left_out']['n_groups']==2 and about['single_windows']['f1']>0 and not (trained/'model.turns').exists()


def test_csv_and_several_videos(trained, tmp_path):
    got = predict([str(trained/'0.csv'), str(trained/'2.csv')], str(trained/'model'), str(tmp_path/'i.csv'), no_plot=True)
    assert set(pd.read_csv(tmp_path/'i.csv', dtype={'video':str}).video)=={'0', '2'} and not (tmp_path/'i.png').exists()
    assert {k: len(v) for k,v in read_intervals(tmp_path/'i.csv').items()}=={k: len(v) for k,v in got.rallies.items()}


def test_frames_need_a_rate(trained, tmp_path, capsys):
    "From the flag, from a truth that gives frames too, from the model; else 30 is taken and said"
    table(tmp_path, 0, frames=True, name='f')
    at = lambda **kw: read_all([tmp_path/'f.csv'], **kw)
    assert at(fps=25)[1]==25 and 'nothing says how many' not in capsys.readouterr().out
    assert at()[1]==30 and 'nothing says how many a second; 30 is taken' in capsys.readouterr().out
    assert at(known=25.)[1]==25
    (tmp_path/'t.csv').write_text('start_frame,start_s,end_s\n250,10,15\n500,20,25\n')
    assert rate_of_truth(tmp_path/'t.csv')==pytest.approx(25) and at(truth=tmp_path/'t.csv')[1]==pytest.approx(25)
    assert at(fps=25)[0][0].times_s[-1]==pytest.approx(read_all([trained/'0.csv'])[0][0].times_s[-1], abs=.05)


@pytest.mark.parametrize('truth,says', [('start_s,end_s\n10,20\n15,30\n', 'overlap'), ('start_s,end_s\n20,10\n', 'end must not lie before'), ('start_s,end_s\n10,9999\n', 'past the end'),
                                        ('video,start_s,end_s\nother,10,20\n', 'no features for other'), ('start_s,end_s\n', 'at least one row'), ('a,b\n1,2\n', 'start_s and end_s are needed')])
def test_truth_that_cannot_be(trained, tmp_path, truth, says):
    (tmp_path/'t.csv').write_text(truth)
    with pytest.raises(RpaError, match=says): train_temporal([str(trained/'0.csv')], str(tmp_path/'t.csv'), str(tmp_path/'m'), no_evaluate=True, no_progress=True)
    assert not (tmp_path/'m').exists()


def test_features_of_another_kind(trained, tmp_path):
    x = pd.read_csv(trained/'2.csv')
    x[x.columns[3:]].to_csv(tmp_path/'few.csv', index=False)
    x.iloc[::3].to_csv(tmp_path/'slow.csv', index=False)
    for name,says in (('few', 'columns; the model was trained on'), ('slow', 'the model was trained on one every')):
        with pytest.raises(RpaError, match=says): predict([str(tmp_path/f'{name}.csv')], str(trained/'model'), str(tmp_path/'i.json'))
    with pytest.raises(RpaError, match='must exist'): predict(['gone.csv'], str(trained/'model'))
    with pytest.raises(RpaError, match='not a temporal model'): predict([str(trained/'2.csv')], str(tmp_path))
    with pytest.raises(RpaError, match='must end in .json or .csv'): predict([str(trained/'2.csv')], str(trained/'model'), 'x.txt')


def test_intervals_that_cannot_be(tmp_path, trained):
    for rows,says in (([dict(start_s=3)], 'a list of intervals'), ([dict(start_s=3, end_s=1)], 'end after its start'), ([dict(start_s=1, end_s=3, video='a'), dict(start_s=1, end_s=3, video='b')], 'names no video')):
        (tmp_path/'i.json').write_text(json.dumps(rows))
        with pytest.raises(RpaError, match=says): evaluate(str(trained/'truth2.csv'), str(tmp_path/'i.json'))


@pytest.mark.slow
def test_badminton_from_the_command_line(tmp_path, monkeypatch):
    "Blocks of time with a guard between: F1 and boundaries of the issue's targets, frames counted at the film's rate"
    if not BADMINTON.exists(): pytest.skip('the labelled match is not here (../shared/data/rally/badminton)')
    monkeypatch.chdir(tmp_path)
    pd.read_csv(BADMINTON/'18IND_TC_rallies.csv').rename(columns={'last_hit_s':'end_s'}).to_csv('t.csv', index=False)
    done = train_temporal([str(BADMINTON/'18IND_TC_features.csv.gz')], 't.csv', 'm', no_progress=True)
    assert done.left_out.f1>=.9 and done.left_out.boundary_ms<=500 and done.left_out.f1>done.baseline.f1
    assert read_json('m/config.json')['about']['fps']==pytest.approx(29.97, abs=.02)
