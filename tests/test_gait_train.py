"What the lessons of 13d_gait_train cannot show: kills, other processes, odd data, the files that ship"
import hashlib, os, random, shutil, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
import torch
from rpa.annotations import save_recordings, synthetic_recording, synthetic_recordings
from rpa.core import RpaError, read_json, stable_seed
from rpa.gait_train import (GaitNet, GaitState, TorchGait, WindowLoader, _unseen, augmented, calibrate_gait, confidence_bins,
                            evaluate, export_onnx, fit_platt, form_scores, fresh_net, gait_losses, issue_scores, kfold, load_net,
                            read_sequences, refuse_leaks, split_runners, swap_sides, test as gait_test, train, write_int8, write_onnx)
from rpa.models import PICKLES
from rpa.pose import lm, save_tracks
from rpa.sequences import FEATURES_VERSION, ISSUES, NO_CODE, PHASES, GaitModel, check_gait_bundle
from rpa.train import checkpoints, latest_checkpoint, locked

TOOLS, SHARED = Path(__file__).parents[1]/'tools', Path(__file__).parents[2]/'shared'/'data'

quick = dict(hidden_dim=16, num_lstm_layers=1, heads=2, batch_size=8, threads=1, no_progress=True, schedule='cosine', lr=3e-3)


def recording(i, seconds=2., fps=60):
    "A synthetic runner with exact phases"
    r = synthetic_recording(1000+i, fps, seconds, noise_px=1., turn=1 if i%3 else -1)
    return replace(r, name=f'r{i:02d}', runner=f'r{i:02d}', pace=('easy', 'fast')[i%2], environment=('track', 'treadmill')[i//2%2],
                   issues=r.issues|dict(asymmetry=None))


def recordings(n=8, **kw): return [recording(i, **kw) for i in range(n)]


def started(out, n=8, **kw):
    "The same in a process of its own"
    code = (f'import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_gait_train import recordings; from rpa.gait_train import train; '
            f'train(recordings({n}), {str(out)!r}, **{quick|kw!r})')
    return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def digest(folder): return {p.name:hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(folder).iterdir())}


def wait_for(found, p, limit=300):
    end = time.time()+limit
    while not found() and p.poll() is None and time.time()<end: time.sleep(.02)


@pytest.fixture(scope='module')
def data(): return recordings()


@pytest.fixture(scope='module')
def done(data, tmp_path_factory): return train(data, str(tmp_path_factory.mktemp('gait')/'run'), epochs=3, **quick)


def test_bundle(done, data):
    about = check_gait_bundle(done.bundle)
    assert set(about['files'])=={'config.json', 'model.safetensors', 'gait_model.onnx', 'gait_model_int8.onnx'}
    assert about['input']==dict(version=FEATURES_VERSION, window=30, fps=30.) and about['heads']==dict(phase=True, form=True, issues=[True, True, False])
    assert about['scores']['part']=='val' and about['data']['synthetic'] and 0<about['scores']['majority']<1
    parts = split_runners(read_sequences(data))
    assert about['data']['runners']=={p:sorted(s.runner for s in v) for p,v in parts.items()}
    assert not set(about['data']['seen'])&set(about['data']['test'])
    assert all(p.stat().st_mode&0o777==0o644 for p in done.bundle.iterdir())
    text = b''.join(p.read_bytes() for p in done.bundle.iterdir())
    assert str(Path.home()).encode()+b'/' not in text and b'site-packages' not in text and str(Path(__file__).parents[1]).encode() not in text


def test_onnx_answers_as_torch_does(done, data):
    a, b, q = TorchGait(done.bundle), GaitModel(done.bundle), GaitModel(done.bundle/'gait_model_int8.onnx')
    for r in (data[0], recording(30, 3.3, 50)):
        x, y, z = (m.predict(r.track) for m in (a, b, q))
        assert np.abs(x.probs-y.probs).max()<1e-4 and abs(x.form-y.form)<1e-4 and abs(x.confidence-y.confidence)<1e-4
        assert (x.phase==z.phase).mean()>.95
        assert x.issues['asymmetry'] is None and set(x.issues)==set(ISSUES) and len(x.phase)==len(r.track)
    assert done.export['windows']>0 and max(done.export['difference'].values())<1e-4


def test_batch_is_free(done):
    m, rng = GaitModel(done.bundle), np.random.default_rng(0)
    x, mask = rng.normal(size=(7, 30, 132)).astype(np.float32), rng.uniform(size=(7, 30))<.8
    whole = m.run(x, mask)
    for i in range(7):
        for a,b in zip(whole, m.run(x[i:i+1], mask[i:i+1])): np.testing.assert_allclose(a[i:i+1], b, atol=1e-5)


def test_no_torch_on_the_way(done, tmp_path):
    save_tracks(tmp_path/'t.npz', [recording(31).track])
    code = ("import sys; from rpa.sequences import GaitModel; from rpa.pose import load_tracks; "
            "said = [GaitModel(sys.argv[1], int8=q).predict(load_tracks(sys.argv[2])[0]) for q in (False, True)]; "
            "assert said[0].probs.shape==(120, 4); print([m for m in ('torch', 'transformers', 'fastai') if m in sys.modules])")
    out = subprocess.run([sys.executable, '-c', code, str(done.bundle), str(tmp_path/'t.npz')], capture_output=True, text=True, check=True)
    assert out.stdout.strip()=='[]'


def test_killed_and_started_again(done, data, tmp_path, capsys):
    "SIGKILL in the middle of an epoch: the bundle, ONNX included, is the same to the last byte"
    kw = dict(epochs=3, save_steps=1)
    p = started(tmp_path/'run', **kw)
    wait_for(lambda: latest_checkpoint(tmp_path/'run') is not None, p)
    p.kill()
    p.wait()
    assert not (tmp_path/'run'/'curves.png').exists()
    train(data, str(tmp_path/'run'), **quick|kw)
    assert 'going on after epoch' in capsys.readouterr().out
    assert digest(tmp_path/'run'/'best_model')==digest(done.bundle)
    logs = [pd.read_csv(f/'train_log.csv').drop(columns='seconds') for f in (done.output_dir, tmp_path/'run')]
    pd.testing.assert_frame_equal(*logs)


@pytest.mark.slow
@pytest.mark.parametrize('kw', [dict(schedule='plateau', patience=4), dict(num_lstm_layers=2, threads=2, precision='bf16', balance='none')])
def test_killed_five_times(tmp_path, kw):
    kw = dict(epochs=8, save_steps=1, **kw)
    train(recordings(8), str(tmp_path/'whole'), **quick|kw)
    seed = int.from_bytes(os.urandom(2))
    rng = random.Random(seed)
    for _ in range(5):
        before = latest_checkpoint(tmp_path/'parts')
        p = started(tmp_path/'parts', **kw)
        wait_for(lambda b=before: latest_checkpoint(tmp_path/'parts')!=b, p)
        try: p.wait(rng.uniform(0, 2))
        except subprocess.TimeoutExpired: p.kill()
        p.wait()
        for c in sum(checkpoints(tmp_path/'parts'), []): load_net(c)
    p = started(tmp_path/'parts', **kw)
    assert p.wait()==0
    assert digest(tmp_path/'parts'/'best_model')==digest(tmp_path/'whole'/'best_model'), f'seed {seed}'


def test_ctrl_c(tmp_path):
    p = started(tmp_path/'run', epochs=500)
    wait_for(lambda: latest_checkpoint(tmp_path/'run') is not None, p)
    p.send_signal(signal.SIGINT)
    said = p.communicate(timeout=60)[0]
    assert 'the same command goes on from checkpoint-epoch-' in said and p.returncode not in (0, None)


def test_finished_other_settings_restart(done, data, tmp_path, capsys):
    out = shutil.copytree(done.output_dir, tmp_path/'run')
    before = digest(out/'best_model')
    again = train(data, str(out), epochs=3, **quick)
    assert 'is finished, nothing to do' in capsys.readouterr().out and digest(out/'best_model')==before and len(again.history)==3
    with pytest.raises(RpaError, match='lr was 0.003, is 0.001'): train(data, str(out), epochs=3, **quick|dict(lr=1e-3))
    with pytest.raises(RpaError, match='training or validation recordings changed'): train(recordings(9), str(out), epochs=3, **quick)
    shutil.rmtree(out/'best_model') # killed between the last epoch and the export
    train(data, str(out), epochs=3, **quick)
    assert digest(out/'best_model')==before
    fresh = train(data, str(out), epochs=1, restart=True, no_export=True, **quick|dict(lr=1e-3))
    assert len(fresh.history)==1 and not (out/'best_model'/'gait_model.onnx').exists()


def test_early_stop_and_plateau(data, tmp_path):
    run = train(data, str(tmp_path/'run'), epochs=40, patience=2, no_export=True, **quick|dict(lr=.05, schedule='plateau', dropout=0.))
    assert len(run.history)<40 and run.best['epoch']==len(run.history)-2
    assert run.history.lr.iloc[0]==.05


def test_labels_may_be_absent(tmp_path):
    "No form at all, issues of some, phases of some: it trains, and says what it cannot know"
    rows = [replace(r, form=None, issues={} if i%2 else r.issues, **(dict(phases=None, events=None) if i%4==3 else {})) for i,r in enumerate(recordings(8))]
    run = train(rows, str(tmp_path/'run'), epochs=1, no_export=True, **quick)
    said = TorchGait(run.bundle).predict(rows[0].track)
    assert said.form is None and said.issues['asymmetry'] is None and run.best['form_mae'] is None
    with pytest.raises(RpaError, match='need frames with a phase'):
        train([replace(r, phases=None, events=None) for r in rows], str(tmp_path/'none'), epochs=1, **quick)


def test_unlabelled_is_not_swing():
    r = recording(0)
    s = read_sequences([replace(r, phases=[p for p in r.phases if p['end_s']<.8])])[0]
    assert (s.phase[s.times>.85]==-1).all() and (s.phase[(s.times>.1)&(s.times<.7)]>=0).all()
    hidden = r.track.xy.copy()
    hidden[30:60] = np.nan
    s = read_sequences([replace(r, track=replace(r.track, xy=hidden))])[0]
    assert (s.phase[~s.mask]==-1).all() and (~s.mask).sum()==15


def test_phases_at_the_ticks_of_the_model():
    "A film of 25 Hz has its labels at other moments than the model has its frames"
    r = recording(3, fps=25)
    s, = read_sequences([r])
    for t,p in zip(s.times, s.phase):
        truth, = [q['phase'] for q in r.phases if q['start_s']-1e-6<=t<q['end_s']-1e-6] or ['']
        assert p==(PHASES.index(truth) if truth else -1)


def test_messages_of_this_job(done, data, tmp_path):
    "What comes from the shared machinery speaks of gait train and of recordings"
    out = shutil.copytree(done.output_dir, tmp_path/'run')
    with pytest.raises(RpaError, match='^gait train: .* holds another run .*lr was'): train(data, str(out), epochs=3, **quick|dict(lr=1e-3))
    with pytest.raises(RpaError, match='^gait train: .*the training or validation recordings changed'): train(data[:6], str(out), epochs=3, **quick)
    with locked(out), pytest.raises(RpaError, match='^gait train: another process'): train(data, str(out), epochs=3, **quick)
    (out/'train_config.json').unlink()
    with pytest.raises(RpaError, match='^gait train: .*unknown run'): train(data, str(out), epochs=3, **quick)


def test_losses():
    net = fresh_net(hidden_dim=8, num_lstm_layers=1, heads=2)
    x, mask = torch.randn(4, 30, 132), torch.ones(4, 30, dtype=torch.bool)
    phase = torch.randint(0, 4, (4, 30))
    none = (torch.full((4,), torch.nan), torch.full((4, 3), torch.nan))
    got = gait_losses(net(x, mask), phase, *none)
    assert got['form']==0 and got['issues']==0 and got['phase']>0 and got['confidence']>0
    got['confidence'].backward()
    assert net.lstm.weight_ih_l0.grad is None and net.confidence[0].weight.grad is not None, 'the confidence looks and does not touch'
    half = torch.where(torch.arange(30)<15, phase, -1)
    form = torch.tensor([5., torch.nan, torch.nan, torch.nan])
    one = gait_losses(net(x, mask), half, form, none[1])
    two = gait_losses(net(x, mask), torch.where(half<0, -1, half), form, none[1])
    assert torch.isfinite(sum(one.values())) and one['phase']!=got['phase'] and abs(one['form']-two['form'])<.01


def test_mask_reaches_everything():
    net = fresh_net(hidden_dim=8, num_lstm_layers=2, heads=2).eval()
    net.scale_like(np.random.default_rng(0).normal(size=(50, 132)).astype(np.float32))
    x, mask = torch.randn(2, 30, 132), torch.ones(2, 30, dtype=torch.bool)
    mask[0,5:12] = False
    other = torch.where(mask[...,None], x, 100*torch.randn_like(x))
    with torch.no_grad():
        for a,b in zip(net(x, mask), net(other, mask)): torch.testing.assert_close(a, b)
    z = x.clone().reshape(2, 30, 33, 4)
    z[:,:,7] = 0 # a point that is not seen …
    w = z.clone()
    w[:,:,7,:3] = 5 # … has no place either
    with torch.no_grad():
        for a,b in zip(net(z.flatten(2), mask), net(w.flatten(2), mask)): torch.testing.assert_close(a, b)


def test_runners_are_whole(data):
    seqs = read_sequences(recordings(20, seconds=1.))
    for seed in range(5):
        parts = split_runners(seqs, seed=seed)
        assert sum(map(len, parts.values()))==20 and all(parts.values())
        refuse_leaks(parts)
        assert all(len({s.stratum for s in f['val']})>=3 for f in kfold(seqs, 4, seed)), 'pace × camera × environment is balanced'
    copy = replace(data[0], name='copy', runner='somebody else')
    with pytest.raises(RpaError, match='the same content must not be in two parts'): split_runners(read_sequences([*data, copy]))
    with pytest.raises(RpaError, match='at least 3 runners are needed, there are 2'): split_runners(read_sequences(data[:2]))
    with pytest.raises(RpaError, match='between 2 and the number of runners, 8; got 9'): kfold(read_sequences(data), 9)
    with pytest.raises(RpaError, match='every recording must name its runner'): read_sequences([replace(data[0], runner='')])
    with pytest.raises(RpaError, match='no keypoints'): read_sequences([replace(data[0], track=None)])
    assert read_sequences([replace(data[0], track=data[0].track.slice(0, 12))])==[]


def test_variety(data):
    s = read_sequences(data)[0]
    a, b, c = (augmented(s, 30, np.random.default_rng(i)) for i in (1, 1, 2))
    for u,v in zip(a, b): np.testing.assert_array_equal(u, v)
    assert not np.array_equal(a[0], c[0])
    for i in range(60):
        x, mask, phase = augmented(s, 30, np.random.default_rng(i))
        assert x.shape==(30, 132) and np.isfinite(x).all() and not x[~mask].any() and (phase[~mask]==-1).all()
        assert set(phase)<={-1, 0, 1, 2, 3} and np.abs(x).max()<3
    x = s.x.reshape(-1, 33, 4)
    np.testing.assert_array_equal(swap_sides(x)[:,lm('left_heel')], x[:,lm('right_heel')])
    np.testing.assert_array_equal(swap_sides(x)[:,lm('nose')], x[:,lm('nose')])
    short = replace(s, x=s.x[:12], mask=s.mask[:12], phase=s.phase[:12])
    x, mask, phase = augmented(short, 30, np.random.default_rng(0))
    assert mask.sum()<=16 and not mask[20:].any()


def test_loader_is_a_function_of_seed_and_place(data):
    seqs = read_sequences(data)
    one, two = (WindowLoader(seqs, batch_size=4, seed=5) for _ in range(2))
    list(one.at(1)) # another pass before
    for a,b in zip(one.at(2), two.at(2)):
        for u,v in zip(a, b): assert torch.equal(u.nan_to_num(), v.nan_to_num())
    plain = WindowLoader(seqs, stride=30)
    assert torch.equal(next(iter(plain))[0][0], torch.from_numpy(seqs[0].x[:30])) and len(plain.items)==2*len(seqs)


def test_best_is_lowest_loss_then_earliest():
    rows = [dict(epoch=i+1, valid_loss=l, accuracy=a) for i,(l,a) in enumerate([(.9, .1), (.5, .7), (.5, .8), (.7, .9)])]
    s = GaitState(epoch=4, history=rows)
    assert s.best['epoch']==2 and s.waited()==2


def test_calibration():
    rng = np.random.default_rng(0)
    for shift in (-2, 0, 2):
        z = rng.normal(.5, 1.5, 800)
        right = rng.binomial(20, 1/(1+np.exp(-z)))/20
        fit = fit_platt(z+shift, right)
        assert abs(fit['scale']-1)<.15 and abs(fit['shift']+shift)<.3
    sure = fit_platt(np.full(400, 9.), rng.binomial(20, .5, 400)/20)
    assert abs(9*sure['scale']+sure['shift'])<.1, 'always sure and half right is .5'
    logits = torch.from_numpy(rng.normal(0, 3, (40, 30, 4)).astype(np.float32))
    target = torch.distributions.Categorical(logits=logits/3).sample()
    cal, found = calibrate_gait(dict(logits=logits, phase=target, confidence=torch.zeros(40)), [f'r{i%12}' for i in range(40)])
    assert 2.5<cal['phase_temperature']<3.5 and found.ece<.05 and found.n==1200


def test_scores_by_hand():
    f = form_scores([5, 6, 7], [5, 7, 9], 6)
    assert f['mae']==1 and f['rmse']==pytest.approx((5/3)**.5) and f['correlation']==pytest.approx(1) and f['baseline_mae']==pytest.approx(5/3)
    assert form_scores([5], [4])['correlation'] is None and form_scores([5, 5, 5], [4, 5, 6])['correlation'] is None
    i = issue_scores([.9, .2, .6, .1], [1, 1, 0, 0])
    assert i==dict(auroc=.75, f1=.5, n=4, positive=2) and issue_scores([.9], [1])['auroc'] is None
    c = confidence_bins([.85, .85, .35], [.9, .6, .35])
    assert c['ece']==pytest.approx(2/3*.1) and [b['n'] for b in c['bins']]==[1, 2]


def test_test_refuses_what_it_learned_from(done, data):
    about = GaitModel(done.bundle).about
    seqs = read_sequences(data)
    own, part = _unseen(about, seqs, 'here')
    assert part=='test' and {s.runner for s in own}==set(about['data']['runners']['test'])
    learned = [s for s in seqs if s.runner in about['data']['runners']['train']]
    with pytest.raises(RpaError, match='trained or chosen on'): _unseen(about, learned, 'here')
    with pytest.raises(RpaError, match='the runners r0'): _unseen(about, [replace(s, key='0'*64) for s in learned], 'here')
    other = read_sequences([recording(50)])
    assert _unseen(about, other, 'here')==(other, 'all')


def test_test_on_a_folder(done, data, tmp_path, capsys):
    save_recordings(tmp_path/'data', data)
    for i,q in enumerate((False, True)):
        t = gait_test([str(tmp_path/'data')], str(done.bundle), str(tmp_path/f'out{i}'), int8=q)
        assert not t.failed and t.scores.part=='test' and t.scores.synthetic and t.test_use.times==i+1
        d = read_json(tmp_path/f'out{i}'/'gait_test.json')
        assert {'majority', 'interval', 'confusion', 'per_class', 'ece'}<=set(d['phase']) and d['confidence']['n']>0
        assert sorted(p.name for p in (tmp_path/f'out{i}').glob('*.png'))==['confidence.png', 'confusion.png', 'reliability.png']
    assert 'always "' in capsys.readouterr().out
    with pytest.raises(RpaError, match='one data folder or videos'): gait_test([str(tmp_path/'data'), 'x.mp4'], str(done.bundle), str(tmp_path/'out'))
    (tmp_path/'no.mp4').write_bytes(b'no film')
    t = gait_test([str(tmp_path/'no.mp4')], str(done.bundle), str(tmp_path/'out'))
    assert t.failed and 'no.mp4' in next(iter(t.failures))


def test_folds(data, tmp_path, capsys):
    run = train(data, str(tmp_path/'run'), epochs=1, folds=3, no_export=True, **quick)
    assert run.folds.n_groups==len(split_runners(read_sequences(data))['train'])+len(split_runners(read_sequences(data))['val'])
    assert (tmp_path/'run'/'folds.json').exists() and 'chose its epoch on the runners' in capsys.readouterr().out
    assert (tmp_path/'run'/'fold-3'/'best_model'/'rpa.json').exists()


@pytest.mark.parametrize('kw,says', [(dict(lr=2.), 'lr must lie in 0..1'), (dict(schedule='steps'), 'schedule must be one of plateau'), (dict(window=5), 'window must be ≥ 10'),
    (dict(heads=3), 'multiple of heads'), (dict(folds=1), 'folds must be 0'), (dict(test_ratio=.9), 'val_ratio must be'), (dict(dropout=1.), 'dropout must lie'), (dict(precision='half'), 'precision')])
def test_settings_that_cannot_be(data, tmp_path, kw, says):
    with pytest.raises(RpaError, match=says): train(data, str(tmp_path/'run'), **quick|dict(epochs=1)|kw)


def test_export_that_does_not_agree(done, data, tmp_path, monkeypatch, capsys):
    import rpa.gait_train as g
    bundle = shutil.copytree(done.bundle, tmp_path/'b')
    before, copy = digest(bundle), lambda net, path, window: Path(shutil.copyfile(done.bundle/'gait_model.onnx', path))
    monkeypatch.setattr(g, 'write_onnx', copy)
    monkeypatch.setattr(g, 'MAX_DIFFERENCE', 0.)
    with pytest.raises(RpaError, match='must answer as PyTorch does'): export_onnx(bundle, data[:2])
    monkeypatch.setattr(g, 'MAX_DIFFERENCE', 1e-4)
    monkeypatch.setattr(g, 'MAX_INT8_CHANGE', 0.)
    assert digest(bundle)==before, 'a refused export leaves the bundle as it was'
    facts = export_onnx(bundle, data[:2])
    assert not facts['int8_ships'] and 'is left out' in capsys.readouterr().out and set(check_gait_bundle(bundle)['files'])==set(before)-{'gait_model_int8.onnx', 'rpa.json'}
    assert GaitModel(bundle).run(np.zeros((1, 30, 132), np.float32), np.ones((1, 30), bool))


def test_sizes_of_the_document(tmp_path):
    "The full network: int8 at most 30 % of float32, every LSTM of it quantised, and the answers stay"
    import onnx
    net = fresh_net()
    full = write_onnx(net, tmp_path/'f.onnx')
    small = write_int8(full, tmp_path/'q.onnx')
    assert small.stat().st_size<=.3*full.stat().st_size
    kinds = [n.op_type for n in onnx.load(str(small)).graph.node]
    assert kinds.count('DynamicQuantizeLSTM')==3 and 'LSTM' not in kinds
    assert onnx.load(str(full)).opset_import[0].version>=14
    assert [p for p in tmp_path.iterdir() if p.name not in ('f.onnx', 'q.onnx')]==[]
    assert sum(p.numel() for p in GaitNet().parameters())==sum(p.numel() for p in net.parameters())


def test_same_seed_same_weights(done, data, tmp_path):
    again = train(data, str(tmp_path/'run'), epochs=3, no_export=True, **quick)
    assert digest(again.bundle)['model.safetensors']==digest(done.bundle)['model.safetensors']
    other = fresh_net(7, hidden_dim=16, num_lstm_layers=1, heads=2)
    assert not torch.equal(other.norm.bias+other.lstm.weight_ih_l0[0,0], fresh_net(8, hidden_dim=16, num_lstm_layers=1, heads=2).norm.bias+0)


def test_pickles_are_the_same_everywhere(): assert set(PICKLES)<=set(NO_CODE)


@pytest.mark.slow
def test_learns_phases_of_new_runners(tmp_path):
    "Sixty synthetic runners: on those it has never seen, far better than the majority, and sure where it may be"
    rows = recordings(60)
    run = train(rows, str(tmp_path/'run'), epochs=10, **quick|dict(hidden_dim=64, num_lstm_layers=2, heads=8, batch_size=16))
    model = GaitModel(run.bundle)
    own, part = _unseen(model.about, read_sequences(rows), 'here')
    s = evaluate(model, own, part)
    assert s.phase.interval[0]>.8>s.phase.majority+.2 and s.confidence['ece']<.1, s


@pytest.mark.slow
def test_shuffled_labels_are_chance(tmp_path):
    "Phases turned by a random time: nothing to learn, and the confidence says so"
    def turned(r):
        by = (stable_seed('turn', r.name)%1000)/1000*.7
        return replace(r, phases=[p|dict(start_s=p['start_s']+by, end_s=p['end_s']+by) for p in r.phases])
    rows = [turned(r) for r in recordings(200)]
    run = train(rows, str(tmp_path/'run'), epochs=6, no_export=True, **quick|dict(hidden_dim=32, batch_size=16))
    model = TorchGait(run.bundle)
    own, part = _unseen(model.about, read_sequences(rows), 'here')
    s = evaluate(model, own, part)
    assert s.phase.accuracy<s.phase.majority+.15 and s.confidence['mean']<.6, s


def test_data_with_errors_are_not_learned_from(tmp_path):
    recordings = synthetic_recordings(2, seconds=3., seed=1)
    for r in recordings: r.runner = 'same' # one person alone
    save_recordings(tmp_path/'data', recordings)
    with pytest.raises(RpaError, match='(?s)has errors.*1 runner in all'): train(str(tmp_path/'data'), str(tmp_path/'out'), epochs=1, no_progress=True)
    assert not (tmp_path/'out').exists()


@pytest.fixture
def maker(monkeypatch):
    "tools/make_gait.py as a module"
    monkeypatch.syspath_prepend(str(TOOLS))
    import make_gait
    return make_gait


def test_films_of_computed_runners(maker):
    "The same runner at any rate, from any side: phases are those of the motion, moved with the film"
    m = next(m for i in range(20) if maker.plausible(m := maker.computed(i, 3.)))
    assert m.form is not None and set(m.issues)==set(ISSUES)
    rates, ways = set(), set()
    for k in range(12):
        r = maker.film(m, k, 2.)
        again = maker.film(m, k, 2.)
        np.testing.assert_array_equal(r.track.xy, again.track.xy)
        rates.add(float(r.fps)); ways.add(r.camera)
        s, = read_sequences([r])
        assert (s.phase>=0).all() and set(s.phase)==set(range(4)) and abs(len(s)/30-2)<.1
        lengths = {p['phase']:p['end_s']-p['start_s'] for p in r.phases[2:-2]}
        stance = lengths['contact']+lengths['mid_stance']+lengths['toe_off']
        assert abs(lengths['mid_stance']/stance-.5)<.01
    assert len(rates)>3 and ways=={'side', 'oblique'}


@pytest.mark.skipif(not (SHARED/'action/cmu').exists(), reason='data/action/cmu is not here')
def test_people_of_cmu(maker):
    "Feet come in turn; a heel lies behind and below its ankle; who does not go straight on is left out"
    people, left = maker.mocap(SHARED/'action'/'cmu')
    assert sum(m.pace=='running' for m in people)==5 and len(people)>=40 and any(n=='cmu_walking_50' for n,_ in left)
    assert {m.name for m in people}>=set(maker.HELD_OUT)
    for m in people:
        landed = [e['side'] for e in m.events if e['event']=='initial_contact']
        assert len(landed)>1 and all(a!=b for a,b in zip(landed, landed[1:])), m.name
        heel, ankle, toe = (m.xyz[:,lm(f'left_{n}')] for n in ('heel', 'ankle', 'foot_index'))
        np.testing.assert_allclose(np.linalg.norm(heel-ankle, axis=1), np.hypot(*maker.SOLE['heel']), rtol=1e-6)
        down = np.argmin(m.xyz[:,lm('left_foot_index'),1]+heel[:,1])
        assert heel[down,0]<ankle[down,0]<toe[down,0] and heel[down,1]<ankle[down,1], m.name


@pytest.mark.skipif(not (SHARED/'gait').exists(), reason='data/gait is not here')
def test_real_people_with_the_model_of_the_package(maker):
    "Markers and force plates, nobody of whom was learned from; as scores.json says"
    told = read_json(GaitModel('gait').path/'scores.json')['real']
    for q,name in ((False, 'float32'), (True, 'int8')):
        for kind,least in (('running', .80), ('walking', .85)):
            s = evaluate(GaitModel('gait', q), read_sequences(maker.real_recordings(SHARED)[kind]))
            assert s.phase.accuracy==pytest.approx(told[name][kind]['phase']['accuracy'], abs=.02)
            assert s.phase.accuracy>least and s.phase.accuracy>s.phase.majority+.2 and s.confidence['ece']<.1
    assert abs(told['int8']['running']['phase']['accuracy']-told['float32']['running']['phase']['accuracy'])<.02
