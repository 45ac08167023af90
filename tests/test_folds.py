"Cross-validation end to end: nobody is judged by a model that saw them, stopped and resumed, what cannot be folded"
import hashlib, shutil
from pathlib import Path
import pandas as pd
import pytest
from rpa.core import LabelMap, RpaError, read_json, read_manifest, write_manifest
from rpa.clips import toy_clips
from rpa.metrics import count_test_use
from rpa.models import fresh_model, load_bundle, save_network
from rpa.pipelines import main
from rpa.split import split
from rpa.train import KeepBooks, read_data, train


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    root = tmp_path_factory.mktemp('folds')
    split(str(toy_clips(root/'clips', runners=10, clips=4, side=32)), str(root/'split.json'), .6, .2, .2)
    net = fresh_model(LabelMap({0:'forefoot', 1:'heel'}), image_size=32, hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
                      intermediate_size=96, initializer_range=.2)
    (root/'micro').mkdir()
    save_network(net, root/'micro', fold=False)
    return root


def run(toys, out, split_json='split.json', folds=3, **kw):
    return train(str(toys/split_json), str(out), **dict(model=str(toys/'micro'), epochs=2, lr=1e-3, batch_size=6, workers=1, threads=1, no_progress=True)|kw, folds=folds)


def test_folds_by_command(toys, tmp_path, capsys):
    "Everyone of train and val once, judged by a bundle that lists them nowhere; the test part is gone and not missed"
    shutil.copytree(toys/'clips', tmp_path/'clips')
    shutil.copy(toys/'split.json', tmp_path/'split.json')
    for f in read_json(toys/'split.json')['test']: (tmp_path/f).unlink()
    out = tmp_path/'out'
    args = ['train', '--split-json', str(tmp_path/'split.json'), '--output-dir', str(out), '--model', str(toys/'micro'), '--epochs', '1', '--lr', '1e-3',
            '--batch-size', '6', '--threads', '1', '--folds', '3', '--no-progress']
    assert main(args)==0
    said = capsys.readouterr().out
    table, data = pd.read_csv(out/'out_of_fold.csv'), read_data(tmp_path/'split.json')
    assert sorted(table.file)==sorted(f for p in data.parts.values() for f in p.file) and 'the test part is not looked at' in said
    for k in (1, 2, 3):
        known = {r for part in load_bundle(out/f'fold-{k}'/'best_model').data['runners'].values() for r in part}
        assert known and not known & set(table.runner[table.fold==k])
    scores = read_json(out/'scores.json')
    assert scores['clips']['n']==len(table) and scores['clips']['accuracy']==pytest.approx((table.true==table.predicted).mean())
    assert scores['clips']['interval'] and scores['clips']['majority']==.5 and len(scores['folds'])==3 and scores['runners']['n']==8
    page = (out/'report.html').read_text()
    assert 'majority baseline' in page and 'Per runner' in page and '<h2>Folds</h2>' in page
    assert all(w in said for w in ('out_of_fold.csv', 'report.html', 'next: rpa train')) and count_test_use(tmp_path/'split.json', add=False).times==0
    before = (out/'out_of_fold.csv').read_bytes()
    assert main(args)==0 and capsys.readouterr().out.count('is finished, nothing to do')==3 and (out/'out_of_fold.csv').read_bytes()==before
    assert main([*args, '--lr', '2e-3'])==1 and 'lr was 0.001, is 0.002' in capsys.readouterr().err


@pytest.mark.slow
def test_folds_go_on_to_the_bit(toys, tmp_path, monkeypatch):
    "Stopped within the second fold"
    run(toys, tmp_path/'whole', save_steps=1)
    plain = KeepBooks.after_batch
    def after_batch(s):
        plain(s)
        if s.training and s.out.name=='fold-2' and (s.epoch, s.state.batch)==(1, 2): raise KeyboardInterrupt
    monkeypatch.setattr(KeepBooks, 'after_batch', after_batch)
    with pytest.raises(KeyboardInterrupt): run(toys, tmp_path/'cut', save_steps=1)
    monkeypatch.undo()
    run(toys, tmp_path/'cut', save_steps=1)
    same = ['out_of_fold.csv', 'scores.json', *(f'fold-{k}/best_model/model.safetensors' for k in (1, 2, 3))]
    for f in same: assert hashlib.sha256((tmp_path/'cut'/f).read_bytes()).digest()==hashlib.sha256((tmp_path/'whole'/f).read_bytes()).digest(), f


def test_a_held_out_clip_that_cannot_be_read(toys, tmp_path, capsys):
    shutil.copytree(toys/'clips', tmp_path/'clips')
    df, bad = read_manifest(tmp_path/'clips'), Path(read_json(toys/'split.json')['train'][0]).name
    (tmp_path/'clips'/bad).write_bytes(b'not a film')
    write_manifest(df.assign(sha256=[hashlib.sha256((tmp_path/'clips'/f).read_bytes()).hexdigest() for f in df.file]), tmp_path/'clips')
    split(str(tmp_path/'clips'), str(tmp_path/'split.json'), .6, .2, .2)
    done = run(tmp_path, tmp_path/'out', folds=2, model=str(toys/'micro'), epochs=1)
    assert done.failed and bad not in set(done.table.file) and len(done.table)==31 and done.folds.left_out.sum()==2
    assert f'{bad} (held out) is left out' in capsys.readouterr().out and 'could not be read' in (tmp_path/'out'/'report.html').read_text()


@pytest.mark.parametrize('folds,why', [(9, 'train and val have 8; pass --folds 8 or fewer'), (1, '1 folds need 2 or more'), (-1, 'folds must be ≥ 0')])
def test_folds_that_cannot_be(toys, tmp_path, folds, why):
    with pytest.raises(RpaError, match=why): run(toys, tmp_path/'out', folds=folds)
    assert not (tmp_path/'out').exists()


def test_a_class_of_one_runner(toys, tmp_path):
    df = read_manifest(toys/'clips')
    (tmp_path/'clips').mkdir() # names that say nothing of the label
    write_manifest(df.assign(label=[1 if r=='03TOY' else 0 for r in df.runner], file=[f'c{i}.mp4' for i in range(len(df))]), tmp_path/'clips')
    for i,f in enumerate(df.file): shutil.copy(toys/'clips'/f, tmp_path/'clips'/f'c{i}.mp4')
    split(str(tmp_path/'clips'), str(tmp_path/'split.json'), .6, .2, .2)
    with pytest.raises(RpaError, match=r"'heel' has clips of one runner only \(03TOY\)"): run(tmp_path, tmp_path/'out', model=str(toys/'micro'))


def test_who_taught_the_start_is_not_judged(toys, tmp_path, capsys):
    "A bundle, and a checkpoint of its run, know the runners held out; training alone says so of the validation part"
    split(str(toys/'clips'), str(tmp_path/'other.json'), .6, .2, .2, 5)
    first = train(str(tmp_path/'other.json'), str(tmp_path/'first'), model=str(toys/'micro'), epochs=1, batch_size=6, workers=1, threads=1, no_progress=True)
    for start in (first.bundle, first.output_dir/'checkpoint-epoch-1'):
        with pytest.raises(RpaError, match='has learned from, or was chosen on'): run(toys, tmp_path/'out', model=str(start))
        assert not (tmp_path/'out'/'fold-1').exists()
    capsys.readouterr()
    train(str(tmp_path/'other.json'), str(tmp_path/'one'), model=str(first.bundle), epochs=1, batch_size=6, workers=1, threads=1, no_progress=True)
    assert 'of the validation part: accuracy, epoch and calibration there flatter it' in capsys.readouterr().out
    run(toys, tmp_path/'anew', folds=2, epochs=1, model=str(first.bundle), from_scratch=True)


def test_a_corrupt_clip_counts_once_and_old_folds_go(toys, tmp_path):
    shutil.copytree(toys/'clips', tmp_path/'clips')
    rows, bad = read_manifest(tmp_path/'clips'), tmp_path/'clips'/read_data(toys/'split.json').parts['train'].file[0]
    bad.write_bytes(b'no film')
    rows.loc[rows.file==bad.name, 'sha256'] = hashlib.sha256(b'no film').hexdigest()
    write_manifest(rows, tmp_path/'clips')
    split(str(tmp_path/'clips'), str(tmp_path/'split.json'), .6, .2, .2)
    kw = dict(epochs=1, lr=1e-3, batch_size=6, workers=1, threads=1, no_progress=True, model=str(toys/'micro'))
    done = train(str(tmp_path/'split.json'), str(tmp_path/'out'), folds=3, **kw)
    assert done.failed and '1 clips could not be read' in (tmp_path/'out'/'report.html').read_text()
    assert set(pd.read_csv(tmp_path/'out'/'failed.csv').file)=={bad.name}
    train(str(tmp_path/'split.json'), str(tmp_path/'out'), folds=2, restart=True, **kw)
    assert sorted(p.name for p in (tmp_path/'out').glob('fold-*'))==['fold-1', 'fold-2']
