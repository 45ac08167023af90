"Pairs of clips: drawn as they must be, learned from, and turned into splits"
from fractions import Fraction
import numpy as np
import pandas as pd
import pytest
import torch
from rpa.core import RpaError, read_json, timecode, write_text
from rpa.courses import Course, Ride
from rpa.pipelines import main
from rpa.timing import Embedding, load_config
from rpa.timing_pairs import (ClassifierFraming, Filmed, NetSettings, SampleSettings, SiameseNet, clip_rows, draw_samples, hold_out, load_checkpoint, pair_matrix, pair_samples, read_samples,
                              rising_choice, rows_of, row_at, window_codes)

SMALL = ['--hidden-size', '8', '--compress-sizes', '16', '--post-lstm-sizes', '8', '--learning-rate', '.001']


@pytest.fixture(scope='module')
def made(tmp_path_factory): # Two courses, two riders each, and pairs cut into batches
    d, rows = tmp_path_factory.mktemp('pairs'), ''
    for k,track in enumerate(('wood', 'hill')):
        for j,rider in enumerate(('anna', 'bert')):
            r = Ride(Course.draw(60+k, 60, 3), rider=10*k+j, fps=(24, 30)[j])
            r.write(d/f'{track}_{rider}.mp4')
            rows += f' - {{riderId: {rider}, trackId: {track}, path: {track}_{rider}.mp4, splits: [{", ".join(timecode(t, 24) for t in r.splits_s)}]}}\n'
    write_text(d/'c.yaml', 'videos:\n'+rows)
    with pytest.MonkeyPatch.context() as m:
        m.chdir(d)
        assert main('timing samples c.yaml pairs.csv --clip-length 10 --num-augmented-positives-per-segment 8 --seed 3'.split())==0
        assert main('timing features c.yaml video_features'.split())==0
        assert main('timing preprocess pairs.csv video_features data --config c.yaml --F 10 --add_position_feature --add_percent_completion_feature --batch_size 16'.split())==0
    return d


def test_split_pairs_are_frame_exact(made):
    df, cfg = read_samples(made/'pairs.csv'), load_config(made/'c.yaml')
    split = df[df.sample_type=='split']
    for r in split.itertuples():
        for who,i,fps in ((r.v1_rider_id, r.v1_frame_idx, dict(anna=24, bert=30)[r.v1_rider_id]), (r.v2_rider_id, r.v2_frame_idx, dict(anna=24, bert=30)[r.v2_rider_id])):
            code = cfg.video(r.track_id, who).splits[int(r.segment)]
            m, s, f = map(int, code.split(':'))
            assert i==int(Fraction(60*m+s)*fps+Fraction(f*fps, 24))
    assert set(df.columns)>={'track_id', 'v1_rider_id', 'v2_rider_id', 'v1_frame_idx', 'v2_frame_idx', 'label', 'sample_type', 'set'}
    assert set(zip(split.v1_rider_id, split.v2_rider_id))=={('anna', 'bert'), ('bert', 'anna')}
    assert df.groupby('track_id').set.nunique().max()==1 and not (df[df.set=='val'].sample_type=='augmented').any()


def test_first_split_can_be_left_out_and_draws_repeat():
    a, b = (Filmed('t', r, 30., 3000, (100, 900, 2000)) for r in 'ab')
    s = SampleSettings(F=20, ignore_first_split=True)
    rows = pd.DataFrame(pair_samples(a, b, s))
    assert rows[rows.sample_type=='split'].segment.tolist()==[1, 2]
    assert pd.DataFrame(pair_samples(a, b, s)).equals(rows)
    other = pd.DataFrame(pair_samples(b, a, s))
    assert not np.array_equal(rows[rows.sample_type=='augmented'].fraction, other[other.sample_type=='augmented'].fraction)


def test_augmented_pairs_share_the_place_whatever_the_pace():
    "Half the speed: the same share of the segment, also in the first one, whose first frames cannot end a clip"
    a, b = Filmed('t', 'a', 30., 3000, (0, 600, 1200)), Filmed('t', 'b', 30., 6000, (0, 1200, 2400))
    rows = pd.DataFrame(pair_samples(a, b, SampleSettings(F=50)))
    pos = rows[rows.label==1]
    assert (pos.v2_frame_idx-2*pos.v1_frame_idx).abs().max()<=2 and pos.v1_frame_idx.min()>=49


@pytest.mark.parametrize('kw,says', [(dict(kind='x'), 'classifier or regressor'), (dict(F=0), 'clip_length'), (dict(alpha=0), 'alpha and beta'), (dict(max_negatives_per_positive=-1), 'numbers of samples')])
def test_bad_settings(kw, says):
    with pytest.raises(RpaError, match=says): SampleSettings(**kw)


def test_bad_films():
    a, b = Filmed('t', 'a', 30., 3000, (0, 600)), Filmed('t', 'b', 30., 3000, (0, 600, 900))
    with pytest.raises(RpaError, match='a has 2 splits on t, b 3'): pair_samples(a, b, SampleSettings())
    with pytest.raises(RpaError, match='two tracks'): draw_samples([a], SampleSettings())
    assert hold_out(['x', 'y'], .9) in ({'x'}, {'y'}) and len(hold_out(list('abcdefghij'), .25))==2


def test_options_and_resume_from_the_shell(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    about = read_json('data/about.json')
    assert about['dim']==482 and about['kind']=='classifier'
    for out,epochs in (('once', 3), ('twice', 1), ('twice', 3)): assert main(['timing', 'train', 'data', out, '--epochs', str(epochs), *SMALL])==0
    a, b = (load_checkpoint(made/n/'checkpoints'/'checkpoint_epoch_3.safetensors') for n in ('once', 'twice'))
    assert all(torch.equal(x, y) for x,y in zip(a[0].state_dict().values(), b[0].state_dict().values())) and a[3]==b[3]
    assert main(['timing', 'train', 'data', 'once', '--epochs', '4', *SMALL[:-1], '.1'])==1 and 'other settings' in capsys.readouterr().err
    assert main(['timing', 'train', 'data', 'dot', '--interaction-type', 'dot', '--no-bidirectional', '--epochs', '1', *SMALL])==0
    assert main(['timing', 'train', 'data', 'dot2', '--interaction-type', 'sum', '--epochs', '1', *SMALL])==1 and 'dot or mlp' in capsys.readouterr().err


def test_find_with_a_network_and_its_refusals(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    main(['timing', 'train', 'data', 'net', '--epochs', '2', *SMALL])
    ask = ['timing', 'find', 'c.yaml', 'video_features', 'p.json', '--trackId', 'wood', '--sourceRiderId', 'anna', '--targetRiderId', 'bert', '--framing', 'classifier', '--no-page']
    assert main([*ask, '--checkpoint_path', 'net'])==0
    got = [r['target_s'] for r in read_json('p.json')['predicted_splits'] if r['target_s'] is not None]
    assert (np.diff(got)>0).all() and read_json('p.json')['framing']=='classifier'
    assert main(ask)==1 and 'needs --checkpoint_path' in capsys.readouterr().err
    (made/'bad.safetensors').write_bytes(b'no')
    assert main([*ask, '--checkpoint_path', 'bad.safetensors'])==1 and 'a checkpoint of' in capsys.readouterr().err
    framing, e = ClassifierFraming().model('net'), Embedding(np.random.default_rng(0).normal(size=(50, 480)), np.arange(50)/10, 'resnet50')
    with pytest.raises(RpaError, match="the backbone that was learned, 'gradients-1'"): framing.decode(e, [1.], e)
    e.save('video_features/wood_bert.safetensors')
    assert main(['timing', 'preprocess', 'pairs.csv', 'video_features', 'd2', '--config', 'c.yaml', '--F', '10'])==1
    (made/'video_features'/'wood_bert.safetensors').unlink()


def test_quick_search_gives_the_naive_answers():
    torch.manual_seed(0)
    for kind in ('dot', 'mlp'):
        net = SiameseNet(NetSettings(dim=12, F=7, compress_sizes=(8,), hidden_size=5, interaction_type=kind)).eval()
        e = Embedding(np.random.default_rng(1).normal(size=(60, 12)), np.arange(60)/10)
        x, ends, marks = rows_of(e), np.arange(6, 60), row_at(e, [1., 3.05])
        quick = pair_matrix(net, window_codes(net, x, marks, 4), window_codes(net, x, ends, 9))
        with torch.inference_mode():
            slow = [[net(torch.from_numpy(clip_rows(x, [i], 7)), torch.from_numpy(clip_rows(x, [j], 7))).item() for j in ends] for i in marks]
        assert marks.tolist()==[10, 30] and np.abs(quick-slow).max()<1e-5


def test_rising_choice_is_the_best_of_all():
    from itertools import combinations
    rng = np.random.default_rng(0)
    for _ in range(30):
        s = rng.normal(size=(3, 6))
        got = rising_choice(s)
        value = sum(s[k,j] for k,j in enumerate(got) if j>=0)
        best = max(sum(s[k,j] for k,j in zip(ks, js)) for n in range(4) for ks in combinations(range(3), n) for js in combinations(range(6), n))
        assert np.isclose(value, best) and (np.diff(got[got>=0])>0).all()


def test_search_goes_on_where_it_stopped(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    ask = ['timing', 'search', 'c.yaml', 'video_features', '--alpha-split-0-range', '.5', '--alpha-range', '.5:.2:.7', '--beta-split-0-range', '.5', '--beta-range', '.5', '--clip-length-range', '8',
           '--num-augmented-range', '3', '--add_position_feature_values', 'false', '--add-percent-completion-feature-values', 'true', 'false', '--epochs', '1', '--hidden-size', '4']
    assert main([*ask, '--max-trials', '1'])==0 and '0 of 4 combinations are done' in capsys.readouterr().out
    assert main(ask)==0 and '1 of 4 combinations are done' in capsys.readouterr().out
    assert main(ask)==0 and '4 of 4 combinations are done' in capsys.readouterr().out
    best = read_json('timing_search/best.json')
    assert set(best['params'])>={'alpha', 'beta', 'clip_length', 'num_augmented'} and (made/'timing_search'/best['run']/'checkpoints').exists()


def test_inspection_plays_side_by_side(made, monkeypatch):
    monkeypatch.chdir(made)
    assert main('timing inspect-samples pairs.csv c.yaml --num_samples=1 --clip-length 10'.split())==0
    page = (made/'training_data_inspection'/'index.html').read_text()
    assert page.count('<video')==2*page.count('<section>')==2*5
