"What the lessons of 04_train cannot show: kills, other processes, a split that changes, other ways to train"
import hashlib, json, os, random, shutil, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
import torch
from rpa.core import ClipName, LabelMap, RpaError, fps_text, read_json, read_manifest, write_json, write_manifest
from rpa.clips import ClipDataset, ClipLoader, load_clip, toy_clips
from rpa.metrics import count_test_use
from rpa.models import create_model, fresh_model, load_bundle, predict_logits, save_network
from rpa.pipelines import main
from rpa.split import load_split, split
from rpa.storage import store
from rpa.train import KeepBooks, checkpoints, latest_checkpoint, read_data, score_test, train

labels = LabelMap({0:'forefoot', 1:'heel'})
quick = dict(lr=1e-3, batch_size=6, workers=1, threads=1)


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    "Toy clips, a split of them, and a small model to start from"
    root = tmp_path_factory.mktemp('train')
    split(str(toy_clips(root/'clips', runners=8, clips=6, side=48)), str(root/'split.json'), .5, .25, .25)
    net = fresh_model(labels, image_size=32, hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
                      intermediate_size=96, initializer_range=.2)
    (root/'micro').mkdir()
    save_network(net, root/'micro', fold=False)
    return root


def run(toys, out, split_json='split.json', **kw):
    return train(str(toys/split_json), str(out), **{**dict(model=str(toys/'micro'), **quick), **kw})


def started(toys, out, **kw):
    "The same in a process of its own"
    args = {**dict(model=str(toys/'micro'), **quick), **kw}
    code = f'from rpa.train import train; train({str(toys/"split.json")!r}, {str(out)!r}, **{args!r})'
    return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def digest(folder): return {p.name:hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(folder).iterdir())}


def wait_for(found, p, limit=300):
    end = time.time()+limit
    while not found() and p.poll() is None and time.time()<end: time.sleep(.02)


def visible(out): return sorted(p for p in Path(out).rglob('*') if '.partial' not in p.parts and p.is_file())


def whole(out):
    "Nothing half-written can be seen: every checkpoint and the bundle load"
    for p in sum(checkpoints(out), []):
        if (p/'state.json').exists() and p==latest_checkpoint(out): assert (p/'model.safetensors').stat().st_size>100_000
    if (Path(out)/'best_model').exists(): load_bundle(Path(out)/'best_model')


def killed_and_resumed(toys, out, kills, rng, seconds, **kw):
    "SIGKILL at random moments after the start of training; then let it finish"
    for _ in range(kills):
        before = latest_checkpoint(out)
        p = started(toys, out, **kw)
        wait_for(lambda: latest_checkpoint(out)!=before, p) # so that every part makes some way
        try: p.wait(rng.uniform(0, seconds))
        except subprocess.TimeoutExpired: p.kill()
        p.wait()
        whole(out)
    p = started(toys, out, **kw)
    said = p.communicate()[0]
    assert p.returncode==0, said
    return said


def test_killed_once(toys, tmp_path):
    kw = dict(epochs=4, save_steps=2)
    run(toys, tmp_path/'whole', **kw)
    said = killed_and_resumed(toys, tmp_path/'parts', 1, random.Random(0), .5, **kw)
    assert 'going on after epoch' in said
    assert digest(tmp_path/'parts'/'best_model')==digest(tmp_path/'whole'/'best_model')
    logs = [pd.read_csv(tmp_path/n/'train_log.csv').drop(columns='seconds') for n in ('whole', 'parts')]
    pd.testing.assert_frame_equal(*logs)


@pytest.mark.slow
@pytest.mark.parametrize('kw', [dict(), dict(precision='bf16', threads=2, balance='sampling', no_grayscale=True)])
def test_killed_five_times(toys, tmp_path, kw):
    "Five SIGKILLs at random moments, of start-up, steps, validation and writing: the bundle is the same to the last byte"
    kw = dict(epochs=12, save_steps=1, patience=9, freeze_epochs=2, **kw)
    run(toys, tmp_path/'whole', **kw)
    seed = int.from_bytes(os.urandom(2))
    killed_and_resumed(toys, tmp_path/'parts', 5, random.Random(seed), 1.5, **kw)
    assert digest(tmp_path/'parts'/'best_model')==digest(tmp_path/'whole'/'best_model'), f'seed {seed}'


def test_ctrl_c(toys, tmp_path):
    p = started(toys, tmp_path/'out', epochs=200, save_steps=1)
    wait_for(lambda: latest_checkpoint(tmp_path/'out') is not None, p)
    p.send_signal(signal.SIGINT)
    said = p.communicate(timeout=60)[0]
    assert 'the same command goes on from checkpoint-' in said and p.returncode not in (0, None)


def test_finished_is_quick_and_leaves_everything_alone(toys, tmp_path, capsys):
    run(toys, tmp_path/'out', epochs=2)
    before, began = [(p, p.stat().st_mtime_ns) for p in visible(tmp_path/'out')], time.time()
    again = run(toys, tmp_path/'out', epochs=2)
    assert 'is finished, nothing to do' in capsys.readouterr().out and time.time()-began<5
    assert [(p, p.stat().st_mtime_ns) for p in visible(tmp_path/'out')]==before
    assert list(again.history.epoch)==[1, 2]


@pytest.mark.parametrize('at', ['curves', 'best_model', 'last_checkpoint'])
def test_what_is_missing_is_made_again(toys, tmp_path, at):
    "Killed between two of the last writes"
    done = run(toys, tmp_path/'out', epochs=2)
    want = digest(done.bundle)
    gone = dict(curves=['curves.png'], best_model=['best_model'], last_checkpoint=['checkpoint-epoch-2', 'best_model'])[at]
    for g in gone: shutil.rmtree(done.output_dir/g) if (done.output_dir/g).is_dir() else (done.output_dir/g).unlink()
    run(toys, tmp_path/'out', epochs=2)
    assert digest(done.bundle)==want and (done.output_dir/'curves.png').exists()


def test_changed_settings_and_data(toys, tmp_path):
    run(toys, tmp_path/'out', epochs=1)
    with pytest.raises(RpaError, match=r'lr was 0.001, is 0.002.*pass another --output-dir, or --restart'):
        run(toys, tmp_path/'out', epochs=1, lr=2e-3)
    split(str(toys/'clips'), str(tmp_path/'other.json'), .5, .25, .25, seed=7)
    with pytest.raises(RpaError, match='training or validation clips changed'):
        run(toys, tmp_path/'out', str(tmp_path/'other.json'), epochs=1)
    shutil.copytree(toys/'micro', tmp_path/'micro')
    save_network(fresh_model(labels, seed=5, **{k:read_json(toys/'micro'/'config.json')[k] for k in (
        'image_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads', 'intermediate_size')}), tmp_path/'micro')
    with pytest.raises(RpaError, match='weights to start from changed'):
        run(toys, tmp_path/'out', epochs=1, model=str(tmp_path/'micro'))
    again = run(toys, tmp_path/'out', epochs=1, lr=2e-3, restart=True)
    assert read_json(again.bundle/'rpa.json')['training']['lr']==2e-3


def test_where_nothing_matters(toys, tmp_path):
    "Threads of the loader, caches and extra checkpoints do not change the result"
    a = run(toys, tmp_path/'a', epochs=2)
    b = run(toys, tmp_path/'b', epochs=2, workers=3, ram_mb=0, cache_dir=str(tmp_path/'cache'), save_steps=1)
    assert digest(a.bundle)==digest(b.bundle)
    assert not checkpoints(b.output_dir)[1]


def test_the_test_part_is_not_opened(toys, tmp_path):
    "Without its test clips the same split trains the same model"
    a = run(toys, tmp_path/'a', epochs=1)
    shutil.copytree(toys/'clips', tmp_path/'clips')
    shutil.copy(toys/'split.json', tmp_path/'split.json')
    for f in read_json(toys/'split.json')['test']: (tmp_path/f).unlink()
    b = run(toys, tmp_path/'b', str(tmp_path/'split.json'), epochs=1)
    assert digest(a.bundle)==digest(b.bundle)


def test_leaking_split_is_refused(toys, tmp_path):
    shutil.copytree(toys/'clips', tmp_path/'clips')
    d = read_json(toys/'split.json')
    d['val'] = d['val']+d['train'][:1]
    d['train'] = d['train'][1:]
    (tmp_path/'split.json').write_text(__import__('json').dumps(d))
    with pytest.raises(RpaError, match='must pass its audit'): run(toys, tmp_path/'out', str(tmp_path/'split.json'), epochs=1)
    assert not (tmp_path/'out').exists()


def test_damaged_clip_is_named(toys, tmp_path):
    shutil.copytree(toys/'clips', tmp_path/'clips')
    shutil.copy(toys/'split.json', tmp_path/'split.json')
    file = tmp_path/read_json(toys/'split.json')['train'][3]
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RpaError, match=file.name): run(toys, tmp_path/'out', str(tmp_path/'split.json'), epochs=1)


@pytest.mark.parametrize('kw', [dict(balance='weights', schedule='linear'), dict(balance='sampling', precision='bf16'),
    dict(no_grayscale=True), dict(from_scratch=True, no_augmentation=True, remap_labels='0:0')], ids=str)
def test_ways_to_train(toys, tmp_path, kw):
    done = run(toys, tmp_path/'out', epochs=1, **kw)
    b = load_bundle(done.bundle)
    assert b.input.grayscale!=kw.get('no_grayscale', False) and len(done.history)==1
    if 'balance' in kw: assert b.training['balance']==kw['balance']


def test_frozen_body_stays(toys, tmp_path):
    run(toys, tmp_path/'out', epochs=2, freeze_epochs=1, weight_decay=0.)
    from safetensors.torch import load_file
    start, one, two = (load_file(p/'model.safetensors') for p in (toys/'micro', *checkpoints(tmp_path/'out')[0]))
    k = 'videomae.encoder.layer.0.output.dense.weight'
    assert torch.equal(start[k], one[k]) and not torch.equal(one[k], two[k])
    assert not torch.equal(start['classifier.weight'], one['classifier.weight'])


def test_early_stop(toys, tmp_path):
    done = run(toys, tmp_path/'out', epochs=30, patience=2, lr=1e-7)
    assert len(done.history)<30 and done.history.epoch.max()-done.best['epoch']==2
    assert run(toys, tmp_path/'out', epochs=30, patience=2, lr=1e-7).best==done.best


def poisoned(monkeypatch, from_call, how):
    "The loss of every batch from one on is no number, or its gradient is not"
    plain, calls = torch.nn.CrossEntropyLoss.forward, []
    def forward(s, x, y):
        calls.append(1)
        if len(calls)<from_call or not x.requires_grad: return plain(s, x, y)
        return plain(s, x, y)*float('nan') if how=='loss' else plain(s, x, y)+torch.sqrt((x-x.detach()).sum())
    monkeypatch.setattr('torch.nn.CrossEntropyLoss.forward', forward)


@pytest.mark.parametrize('how,said', [('loss', 'the loss is nan|the gradient is nan, the loss nan'), ('gradient', r'the gradient is (nan|inf), the loss \d')])
def test_loss_that_is_not_a_number(toys, tmp_path, monkeypatch, how, said):
    "Stops before the step, says where, keeps what was good; the same command goes on from there, to the same bytes"
    kw = dict(epochs=3, save_steps=1)
    run(toys, tmp_path/'whole', **kw)
    poisoned(monkeypatch, 9, how) # two epochs hold 4+2 batches each
    with pytest.raises(RpaError, match=rf'^train: ({said}).* in epoch 2, batch 3 of 4 \(.*TOY_.*mp4.*checkpoint-step-6 is the last good state.*smaller --lr'):
        run(toys, tmp_path/'out', **kw)
    monkeypatch.undo()
    whole(tmp_path/'out')
    assert latest_checkpoint(tmp_path/'out').name=='checkpoint-step-6' and load_bundle(tmp_path/'out'/'best_model').training['epoch']==1
    assert all(torch.isfinite(v).all() for v in weights(tmp_path/'out'/'checkpoint-step-6').values())
    run(toys, tmp_path/'out', **kw)
    assert digest(tmp_path/'out'/'best_model')==digest(tmp_path/'whole'/'best_model')


def test_answers_that_are_no_numbers(toys, tmp_path, monkeypatch):
    "In validation too; and weights that are not finite are never written"
    from rpa.models import ClipClassifier
    from rpa.train import RunState, make_learner, save_checkpoint
    plain = ClipClassifier.forward
    monkeypatch.setattr(ClipClassifier, 'forward', lambda s, x: plain(s, x)*(1 if s.training else float('nan')))
    with pytest.raises(RpaError, match=r'12 answers are no numbers in epoch 1, validation \(.*no checkpoint yet'): run(toys, tmp_path/'out', epochs=1)
    assert latest_checkpoint(tmp_path/'out') is None
    monkeypatch.undo()
    from rpa.clips import clip_loaders
    data, net = read_data(toys/'split.json'), fresh_model(labels, image_size=32, hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=96)
    learn = make_learner(net, clip_loaders(data.parts, net.input))
    learn.create_opt()
    with torch.no_grad(): net.net.classifier.weight[0,0] = float('inf')
    with pytest.raises(RpaError, match='classifier.weight is no longer finite'): save_checkpoint(tmp_path/'checkpoint-epoch-1', learn, RunState())
    assert not (tmp_path/'checkpoint-epoch-1').exists()


def with_damage(toys, dst, *at):
    "A copy of the toys in which some clips were damaged before their hashes were taken; `at`: (part, number)"
    shutil.copytree(toys/'clips', dst/'clips')
    bad = [Path(read_json(toys/'split.json')[p][i]).name for p,i in at]
    df = read_manifest(dst/'clips')
    for k,name in enumerate(bad): (dst/'clips'/name).write_bytes(b'not a film'+bytes([k]))
    hashes = [hashlib.sha256((dst/'clips'/f).read_bytes()).hexdigest() for f in df.file]
    write_manifest(df.assign(sha256=hashes), dst/'clips')
    split(str(dst/'clips'), str(dst/'split.json'), .5, .25, .25)
    return str(dst/'split.json'), bad


def interrupt(): raise KeyboardInterrupt


def test_a_clip_that_cannot_be_read_is_left_out(toys, tmp_path, capsys, monkeypatch):
    "Named, listed, counted; the bundle says so; stopped and resumed, all is the same; the order of the others too"
    where, bad = with_damage(toys, tmp_path, ('train', 3), ('val', 2))
    kw = dict(epochs=3, save_steps=1)
    done = run(toys, tmp_path/'whole', where, **kw)
    said = capsys.readouterr().out
    assert done.failed and {r['file'] for r in done.skipped}==set(bad)
    assert all(said.count(f'{n} (')==1 for n in bad) and 'train: 2 clips could not be read and were left out (train 1, val 1)' in said
    assert pd.read_csv(tmp_path/'whole'/'failed.csv').file.tolist()==sorted(bad) and pd.read_csv(tmp_path/'whole'/'train_log.csv').skipped.tolist()==[2]*3
    b = load_bundle(done.bundle)
    assert b.data['skipped']=={'train':bad[:1], 'val':bad[1:]} and b.scores['n']==11
    plain = KeepBooks.after_batch
    monkeypatch.setattr(KeepBooks, 'after_batch', lambda s: plain(s) or (s.training and (s.epoch, s.state.batch)==(1, 2) and interrupt()))
    with pytest.raises(KeyboardInterrupt): run(toys, tmp_path/'cut', where, **kw)
    monkeypatch.undo()
    run(toys, tmp_path/'cut', where, **kw)
    assert digest(tmp_path/'cut'/'best_model')==digest(done.bundle)
    again = run(toys, tmp_path/'whole', where, **kw)
    assert again.failed and 'left out' in capsys.readouterr().out
    run(toys, tmp_path/'one', where, epochs=1, batch_size=1, accumulate=2) # a batch of nothing but a damaged clip


@pytest.mark.parametrize('at,why', [([('train', i) for i in (1, 8, 15)], '3 of the 24 clips of a part cannot be read, more than a tenth'),
    ([('val', i) for i in range(12)], '2 of the 12 clips of a part cannot be read')], ids=['a tenth', 'all'])
def test_too_many_clips_that_cannot_be_read(toys, tmp_path, at, why):
    where, bad = with_damage(toys, tmp_path, *at)
    with pytest.raises(RpaError, match=why): run(toys, tmp_path/'out', where, epochs=1)
    assert latest_checkpoint(tmp_path/'out') is None


def test_augmented_split(toys, tmp_path):
    "Clips augmented offline, their originals for validation"
    from rpa.augment import augment
    from rpa.split import augmented_split
    shutil.copytree(toys/'clips', tmp_path/'raw')
    augment(str(toys/'clips'), str(tmp_path/'augmented'), versions=2)
    augmented_split(original_split=str(toys/'split.json'), bucket=str(tmp_path), output=str(tmp_path/'aug.json'), versions=2)
    data = read_data(tmp_path/'aug.json')
    assert len(data.parts['train'])==2*24 and data.parts['train'].version.notna().all()
    done = run(toys, tmp_path/'out', str(tmp_path/'aug.json'), epochs=1, no_augmentation=True)
    assert load_bundle(done.bundle).data['clips']=={'train':48, 'val':12}


def test_bundle_says_how_clips_were_cut(toys, tmp_path, monkeypatch):
    "Settings beside the clips reach the bundle, and clips that all run one way are not mirrored"
    from rpa.processing import ProcessConfig
    seen = []
    monkeypatch.setattr('rpa.train.clip_loaders', lambda parts, cfg, bs, aug, flip, *a, **kw: seen.append(flip) or 1/0)
    shutil.copytree(toys/'clips', tmp_path/'clips')
    shutil.copy(toys/'split.json', tmp_path/'split.json')
    for align in ('none', 'contact'):
        write_json(tmp_path/'clips'/'settings.json', {'toy':ProcessConfig(align=align).to_dict()})
        assert read_data(tmp_path/'split.json').processing['align']==align
        with pytest.raises(ZeroDivisionError): run(toys, tmp_path/align, str(tmp_path/'split.json'), epochs=1)
    assert seen==[True, False]
    monkeypatch.undo()
    done = run(toys, tmp_path/'out', str(tmp_path/'split.json'), epochs=1)
    assert ProcessConfig.from_dict(load_bundle(done.bundle).processing)==ProcessConfig(align='contact', clip_fps=60.)


def changed(toys, dst, **columns):
    "A copy of the toy clips with other entries in clips.csv, and their split"
    shutil.copytree(toys/'clips', dst/'clips')
    shutil.copy(toys/'split.json', dst/'split.json')
    write_manifest(read_manifest(dst/'clips').assign(**columns), dst/'clips')
    return dst/'split.json'


@pytest.mark.parametrize('rate,given,want', [('30000/1001', 0., '30000/1001'), ('120', 0., '120/1'), ('60/1', 50., '50/1'),
                                             ('', 0., '')])
def test_rate_of_the_clips_reaches_the_bundle(toys, tmp_path, rate, given, want):
    "Raw video of another rate is then cut at that of the training clips"
    from rpa.processing import ProcessConfig
    where = changed(toys, tmp_path, fps=rate)
    write_json(tmp_path/'clips'/'settings.json', {'toy':ProcessConfig(clip_fps=given).to_dict()})
    b = load_bundle(run(toys, tmp_path/'out', str(where), epochs=1).bundle)
    cfg = ProcessConfig.from_dict(b.processing)
    assert (fps_text(cfg.clip_fps) if want else cfg.clip_fps)==(want or 0)
    assert b.data['clip_fps']==({fps_text(rate):36} if rate else {})


def test_different_rates_are_said_once(toys, tmp_path, capsys):
    from rpa.processing import ProcessConfig
    n = len(read_manifest(toys/'clips'))
    write_json(changed(toys, tmp_path, fps=['60/1', '60000/1001']*(n//2)).parent/'clips'/'settings.json', {'toy':ProcessConfig().to_dict()})
    run(toys, tmp_path/'alike', str(tmp_path/'split.json'), epochs=1)
    assert 'different frame rates' not in capsys.readouterr().out
    write_manifest(read_manifest(tmp_path/'clips').assign(fps=['60/1', '60/1', '30/1']*(n//3)), tmp_path/'clips')
    b = load_bundle(run(toys, tmp_path/'mixed', str(tmp_path/'split.json'), epochs=1).bundle)
    said = [l for l in capsys.readouterr().out.splitlines() if 'different frame rates' in l]
    assert len(said)==1 and '24 at 60 Hz, 12 at 30 Hz' in said[0] and '--clip-fps 30' in said[0]
    assert b.processing['clip_fps']==60 and b.data['clip_fps']=={'60/1':24, '30/1':12}


def in_memory(toys, name, *, manifest=True, settings=None, **columns):
    "The toy clips in a bucket, and a split of them"
    folder, at = toys/'clips', store(f'memory://train/{name}')
    for p in folder.glob('*.mp4'): (at/p.name).write_bytes(p.read_bytes())
    if settings: (at/'settings.json').write_bytes(json.dumps(settings).encode())
    if manifest:
        write_manifest(read_manifest(folder).assign(**columns), toys/name)
        (at/'clips.csv').write_bytes((toys/name/'clips.csv').read_bytes())
    split(str(at), str(toys/f'{name}.json'), .5, .25, .25)
    return f'{name}.json'


@pytest.mark.parametrize('name,kw', [('listed', {}), ('unlisted', dict(manifest=False))])
def test_settings_beside_clips_in_a_bucket(toys, name, kw):
    "Are read as on a disk: clips that all run one way are not mirrored"
    from rpa.processing import ProcessConfig
    for align in ('contact', 'none'):
        cfg = ProcessConfig(align=align, clip_fps=60.)
        data = read_data(toys/in_memory(toys, f'{name}-{align}', settings={'toy':cfg.to_dict()}, **kw))
        assert ProcessConfig.from_dict(data.processing)==cfg and data.flip==(align=='none')


def test_clips_that_name_a_foot_are_not_mirrored(toys):
    "Also when the settings are lost"
    for side in ('L', ''):
        data = read_data(toys/in_memory(toys, f'side{side}', side=side))
        assert not data.processing and data.flip==(side=='')


def test_a_bucket_without_a_manifest(toys, tmp_path):
    "The same clips as on a disk, though nothing tells their hashes: the same model"
    far, near = run(toys, tmp_path/'far', in_memory(toys, 'bare', manifest=False), epochs=1), run(toys, tmp_path/'near', epochs=1)
    assert (far.bundle/'model.safetensors').read_bytes()==(near.bundle/'model.safetensors').read_bytes()
    split('memory://train/bare', str(tmp_path/'other.json'), .5, .25, .25, seed=7)
    with pytest.raises(RpaError, match='training or validation clips changed'): run(toys, tmp_path/'far', str(tmp_path/'other.json'), epochs=1)


@pytest.mark.parametrize('at_split,at_train,want', [('2:0', '', '2:0'), ('', '2:0', '2:0'), ('2:0', '2:1', '2:1'), ('', '', '')])
def test_the_bundle_knows_the_remap(toys, tmp_path, at_split, at_train, want):
    "So that a folder with raw labels can be scored without saying it again"
    from rpa.infer import read_labelled
    made = split(str(toys/'clips'), str(tmp_path/'split.json'), .5, .25, .25, remap_labels=at_split)
    b = load_bundle(run(toys, tmp_path/'out', str(tmp_path/'split.json'), epochs=1, remap_labels=at_train).bundle)
    assert b.training['remap_labels']==want
    rows = made.parts['test']
    new = [replace(ClipName.parse(f), label=2).file for f in rows.file]
    for f,n in zip(rows.file, new): shutil.copy(toys/'clips'/f, tmp_path/n)
    write_manifest(rows.drop(columns='path').assign(label=2, file=new), tmp_path)
    if want: assert set(read_labelled(str(tmp_path), b).target)=={int(want[-1])}
    else:
        with pytest.raises(RpaError, match='label 2 is not among'): read_labelled(str(tmp_path), b)


def test_validation_scores_say_what_they_are(toys, tmp_path):
    "Epoch, temperature and threshold were chosen on these clips; four runners make no model surer"
    b = load_bundle(run(toys, tmp_path/'out', epochs=2).bundle)
    assert b.scores['part']==b.scores['epoch_chosen_on']==b.scores['calibrated_on']=='val' and 'ece' not in b.scores
    assert b.calibration['temperature']>=1


def test_scoring_the_test_part_is_counted(toys, tmp_path):
    made = split(str(toys/'clips'), str(tmp_path/'split.json'), .5, .25, .25)
    done = run(toys, tmp_path/'out', str(tmp_path/'split.json'), epochs=1)
    assert count_test_use(tmp_path/'split.json', add=False).times==0
    s = score_test(done.bundle, tmp_path/'split.json')
    assert count_test_use(tmp_path/'split.json', add=False).times==1
    paths = made.parts['test'].path
    bundle = load_bundle(done.bundle)
    with torch.inference_mode():
        hits = [bundle.model(torch.from_numpy(load_clip(p, bundle.input))[None]).argmax().item() for p in paths]
    assert s.accuracy==pytest.approx(np.mean(np.array(hits)==made.parts['test'].label))


@pytest.mark.parametrize('kw', [dict(patience=-1), dict(freeze_epochs=-1), dict(save_steps=-2), dict(workers=-1), dict(ram_mb=-5),
                                dict(epochs=0), dict(batch_size=0), dict(lr=-1.), dict(lr=float('nan'))], ids=str)
def test_settings_out_of_range(toys, tmp_path, kw):
    "Each is refused by its name, before anything is written"
    with pytest.raises(RpaError, match=f'train: {next(iter(kw))} must'): run(toys, tmp_path/'out', **{**dict(epochs=2), **kw})
    assert not (tmp_path/'out').exists()


@pytest.mark.cuda
def test_on_a_graphics_card(toys, tmp_path):
    done = run(toys, tmp_path/'out', epochs=4, device='cuda', save_steps=2)
    assert done.best['accuracy']>.8 and load_bundle(done.bundle).training['device']=='cuda'


def test_pipeline_gives_the_same(toys, tmp_path):
    "transformers.pipeline on the clips themselves against our loader, with a trained model"
    from transformers import pipeline
    done = run(toys, tmp_path/'out', epochs=4)
    bundle, theirs = load_bundle(done.bundle), pipeline('video-classification', model=str(done.bundle), device='cpu')
    paths = read_data(toys/'split.json').parts['val'].path
    with torch.inference_mode():
        ours = [bundle.model(torch.from_numpy(load_clip(p, bundle.input))[None]).softmax(-1)[0,1].item() for p in paths]
    other = [next(r['score'] for r in theirs(str(p)) if r['label']=='heel') for p in paths]
    assert np.abs(np.subtract(ours, other)).max()<.03 and np.ptp(ours)>.3


def test_command_line(toys, tmp_path, capsys):
    "`rpa train` with flags as in the document, dash or underscore"
    args = ['train', '--split-json', str(toys/'split.json'), '--output_dir', str(tmp_path/'out'), '--epochs', '1', '--lr',
            '1e-3', '--batch-size', '6', '--remap-labels', '2:0', '--threads', '1', '--model', str(toys/'micro')]
    assert main([*args, '--no-augmentation'])==0 and 'next: rpa infer --model_dir' in capsys.readouterr().out
    assert {'config.json', 'model.safetensors', 'label_mapping.json'} <= set(os.listdir(tmp_path/'out'/'best_model'))
    assert (tmp_path/'out'/'checkpoint-epoch-1').is_dir()
    assert main(args)==1
    said = capsys.readouterr().err
    assert 'pass another --output-dir, or --restart' in said and 'Traceback' not in said


# --- other networks, and recipes

OTHERS = dict(slowonly=dict(kind='slowonly', depth=18), cnn_lstm=dict(kind='cnn_lstm', pictures='resnet18', hidden=16),
              changes=dict(kind='changes', pictures='resnet18'))


@pytest.fixture(scope='module')
def others(tmp_path_factory):
    root = tmp_path_factory.mktemp('others')
    for name,kw in OTHERS.items():
        (root/name).mkdir()
        save_network(fresh_model(labels, num_frames=4, image_size=32, **kw), root/name, fold=False)
    return root


@pytest.mark.slow
@pytest.mark.parametrize('name,kw', [('slowonly', dict(strategy='progressive', optimizer='sgd', accumulate=2)), ('cnn_lstm', dict(strategy='differential', schedule='onecycle')), ('changes', dict(strategy='head'))])
def test_other_networks_resume_to_the_bit(toys, others, tmp_path, name, kw):
    "Killed within an epoch and resumed, running means of the normalisation included"
    kw = dict(model=str(others/name), epochs=3, batch_size=3, save_steps=2)|kw
    run(toys, tmp_path/'whole', **kw)
    killed_and_resumed(toys, tmp_path/'cut', 1, random.Random(1), 3, **kw)
    assert digest(tmp_path/'whole'/'best_model')==digest(tmp_path/'cut'/'best_model')
    b = load_bundle(tmp_path/'cut'/'best_model')
    assert b.model.kind==name and b.input.sampling=='uniform' and b.training['strategy']==kw['strategy']


def weights(p):
    from safetensors.torch import load_file
    return load_file(Path(p)/'model.safetensors')


def test_a_frozen_body_keeps_its_running_means(toys, others, tmp_path):
    run(toys, tmp_path/'out', model=str(others/'slowonly'), epochs=1, strategy='head')
    start, end = weights(others/'slowonly'), weights(checkpoints(tmp_path/'out')[0][0])
    assert {k for k in start if not torch.equal(start[k], end[k])}=={'fc.weight', 'fc.bias'}


def test_progressive_thaws_from_the_head_down(toys, others, tmp_path):
    "Epoch by epoch: the head alone, then more, then everything, the body at a tenth of the rate"
    run(toys, tmp_path/'out', model=str(others/'slowonly'), epochs=6, strategy='progressive', weight_decay=0.)
    at = [weights(p) for p in [others/'slowonly', *checkpoints(tmp_path/'out')[0]]]
    moved = [{k.split('.')[0] for k in a if not torch.equal(a[k], b[k])} for a,b in zip(at, at[1:])]
    assert moved[0]==moved[1]=={'fc'} and moved[2]>={'fc', 'layer4'} and 'conv1' not in moved[2] and moved[4]>={'conv1', 'bn1', 'layer1', 'layer4', 'fc'}
    assert all(a<=b for a,b in zip(moved, moved[1:]))


def test_differential_moves_the_body_less(toys, tmp_path):
    far = {}
    for s in ('full', 'differential'):
        run(toys, tmp_path/s, epochs=1, strategy=s, weight_decay=0., warmup=0., no_augmentation=True)
        a, b = weights(toys/'micro'), weights(checkpoints(tmp_path/s)[0][0])
        far[s] = {k: float((a[k]-b[k]).abs().mean()) for k in ('videomae.encoder.layer.0.output.dense.weight', 'classifier.weight')}
    body, head = (far['differential'][k]/far['full'][k] for k in far['full'])
    assert .05<body<.2 and .5<head<2


def test_accumulated_batches_are_one(toys, tmp_path):
    "Two batches of three are one of six"
    kw = dict(epochs=2, weight_decay=0., clip_norm=1e6, optimizer='sgd', schedule='constant', warmup=0., precision='fp32')
    run(toys, tmp_path/'six', batch_size=6, **kw)
    run(toys, tmp_path/'three', batch_size=3, accumulate=2, **kw)
    one, two = (weights(checkpoints(tmp_path/n)[0][-1]) for n in ('six', 'three'))
    far = {k: float((one[k]-two[k]).abs().max()) for k in one}
    assert max(far.values())<1e-5, far
    assert len(pd.read_csv(tmp_path/'three'/'train_log.csv'))==2


@pytest.mark.parametrize('name', ['micro', 'slowonly', 'cnn_lstm'])
def test_computing_again_changes_nothing(toys, others, tmp_path, name):
    model = str((toys if name=='micro' else others)/name)
    for again in (False, True): run(toys, tmp_path/str(again), model=model, epochs=1, checkpointing=again)
    one, two = (weights(checkpoints(tmp_path/str(a))[0][0]) for a in (False, True))
    assert all(torch.allclose(one[k].float(), two[k].float(), atol=1e-6) for k in one)


@pytest.mark.parametrize('kw', [dict(schedule='step', optimizer='sgd'), dict(schedule='exponential', label_smoothing=.1), dict(schedule='onecycle', warmup=.3)], ids=str)
def test_recipes(toys, tmp_path, kw):
    b = load_bundle(run(toys, tmp_path/'out', epochs=1, **kw).bundle)
    assert all(b.training[k]==v for k,v in kw.items())


def test_small_gains_do_not_count(toys, tmp_path):
    from rpa.train import RunState, should_stop
    rows = [dict(epoch=e+1, train_loss=1., valid_loss=1-.01*e, accuracy=.5, lr=0.) for e in range(5)]
    s = RunState(5, history=rows)
    assert not should_stop(s, 2) and should_stop(s, 2, .05) and not should_stop(s, 2, .015) and (s.waited(.05), s.waited(.015))==(4, 0)


def test_a_run_of_before_these_settings_goes_on(toys, tmp_path):
    run(toys, tmp_path/'out', epochs=1)
    p = tmp_path/'out'/'train_config.json'
    d = read_json(p)
    for k in ('min_delta', 'strategy', 'body_lr', 'optimizer', 'label_smoothing', 'accumulate'): d['settings'].pop(k)
    write_json(p, d)
    assert run(toys, tmp_path/'out', epochs=1).best['epoch']==1
    with pytest.raises(RpaError, match='strategy was full, is head'): run(toys, tmp_path/'out', epochs=1, strategy='head')


def test_mirrored_clips_of_sided_classes():
    "A mirrored clip belongs to the mirror image of its class"
    from rpa.clips import ClipDataset
    from rpa.augment import draw_params
    from rpa.core import stable_seed
    from rpa.train import mirrored_classes
    d = ClipDataset(dict(path=['a']*40, target=[0, 1]*20), augment=True, flip=mirrored_classes(['left', 'right']), seed=3)
    flips = [draw_params(stable_seed(3, 0, i), runtime=True).flip for i in range(40)]
    assert [d._target(i, stable_seed(3, 0, i)) for i in range(40)]==[(i+f)%2 for i,f in enumerate(flips)] and any(flips) and not all(flips)
    d.mirror = None
    assert [d._target(i, stable_seed(3, 0, i)) for i in range(40)]==[0, 1]*20


@pytest.mark.parametrize('name', ['micro', 'slowonly', 'cnn_lstm'])
def test_computing_again_computes_again(toys, others, name):
    "With --checkpointing a layer is entered twice in a step, without once"
    from rpa.models import from_folder
    layer = dict(micro=lambda n: n.videomae.encoder.layer[0].intermediate, slowonly=lambda n: n.layer2[0].conv1, cnn_lstm=lambda n: n.cnn.conv1)[name]
    entered = {}
    for again in (False, True):
        net = from_folder((toys if name=='micro' else others)/name, labels).train()
        if again: net.recompute()
        seen = []
        layer(net.net).register_forward_hook(lambda *a: seen.append(1))
        net(torch.randint(0, 256, (2, net.input.frames, 32, 32), dtype=torch.uint8)).sum().backward()
        entered[again] = len(seen)
    assert entered=={False:1, True:2}


def test_labels_that_changed_since_the_split(toys, tmp_path):
    "Names say nothing here, so that only the counts tell"
    df = read_manifest(toys/'clips')
    (tmp_path/'clips').mkdir()
    for i,f in enumerate(df.file): shutil.copy(toys/'clips'/f, tmp_path/'clips'/f'c{i}.mp4')
    df = df.assign(file=[f'c{i}.mp4' for i in range(len(df))])
    write_manifest(df, tmp_path/'clips')
    made = split(str(tmp_path/'clips'), str(tmp_path/'split.json'), .5, .25, .25)
    assert len(read_data(tmp_path/'split.json').parts['train'])==24
    one = made.parts['train'].runner.iloc[0]
    write_manifest(df.assign(label=[1-l if r==one else l for r,l in zip(df.runner, df.label)]), tmp_path/'clips')
    with pytest.raises(RpaError, match=r'the labels of train are not those that were split: .* now, 12 of label 0, 12 of label 1 in split.json; make the split again'): read_data(tmp_path/'split.json')


def test_a_class_of_one_runner_is_said(toys, tmp_path):
    "Names that name no label; in val nobody has the class"
    df = read_manifest(toys/'clips')
    (tmp_path/'clips').mkdir()
    for i,f in enumerate(df.file): shutil.copy(toys/'clips'/f, tmp_path/'clips'/f'c{i}.mp4')
    write_manifest(df.assign(file=[f'c{i}.mp4' for i in range(len(df))], label=[int(r=='03TOY') for r in df.runner]), tmp_path/'clips')
    split(str(tmp_path/'clips'), str(tmp_path/'split.json'), .5, .25, .25)
    said = ' '.join(read_data(tmp_path/'split.json').warnings())
    assert "'heel' is shown by one runner only in train (03TOY)" in said and "val has no clip of 'heel'" in said



def test_accuracy_on_what_was_shown(toys, tmp_path):
    "Without a step that is worth the name, it is that of the start on the clips that teach"
    done = run(toys, tmp_path/'run', epochs=2, lr=1e-12, no_augmentation=True, precision='fp32')
    model, rows = create_model(str(toys/'micro'), labels), load_split(toys/'split.json')['train']
    data = ClipDataset(pd.DataFrame(dict(path=[str(toys/'clips'/f) for f in rows.file], target=rows.label.astype(int))), model.input)
    right = predict_logits(model, ClipLoader(data)).argmax(1).numpy()==rows.label.astype(int).to_numpy()
    assert list(done.history.train_accuracy)==pytest.approx([right.mean()]*2)


def test_no_flip_shows_nothing_mirrored(toys, tmp_path, monkeypatch):
    "Every clip would be mirrored if it might; the flag forbids it, and is written down"
    from rpa import clips
    drawn, draw = [], clips.draw_params
    def watched(seed, runtime=False, flip=True):
        p = draw(seed, runtime, flip)
        drawn.append(p.flip)
        return p
    monkeypatch.setattr('rpa.clips.draw_params', watched)
    run(toys, tmp_path/'may', epochs=1)
    assert any(drawn)
    drawn.clear()
    done = run(toys, tmp_path/'not', epochs=1, no_flip=True)
    assert drawn and not any(drawn) and load_bundle(done.bundle).training['flip'] is False
    with pytest.raises(RpaError, match='flip was False, is True'): run(toys, tmp_path/'not', epochs=1)
