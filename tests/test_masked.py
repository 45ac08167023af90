"What the lessons of 04b_masked cannot show: kills, groups, other starts"
import random, shutil, subprocess, sys, time
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from rpa.clips import toy_clips
from rpa.core import LabelMap, RpaError, sha256
from rpa.masked import hold_out, masked_model, pretrain, tube_mask, unlabelled
from rpa.models import create_model, fresh_model, save_network
from rpa.train import latest_checkpoint
from rpa.video import write_video

quick = dict(batch_size=4, lr=1e-3, workers=0, threads=1, held_out=.2, mask_ratio=.75, no_progress=True)


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "Toy clips and a small model to start from"
    root = tmp_path_factory.mktemp('masked')
    toy_clips(root/'clips', runners=6, clips=4, side=48)
    net = fresh_model(LabelMap({0:'a', 1:'b'}), image_size=32, hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96)
    (root/'micro').mkdir()
    save_network(net, root/'micro', fold=False)
    return root


def test_killed_and_started_again(home, tmp_path):
    kw = dict(model=str(home/'micro'), epochs=4, save_steps=2, **quick)
    whole = pretrain(str(home/'clips'), str(tmp_path/'whole'), **kw)
    out, rng = tmp_path/'parts', random.Random(1)
    code = f'from rpa.masked import pretrain; pretrain({str(home/"clips")!r}, {str(out)!r}, **{kw!r})'
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.DEVNULL)
    while not list(out.glob('checkpoint-epoch-*')) and p.poll() is None: time.sleep(.02) # so that the log begins before and goes on after
    time.sleep(rng.uniform(0, .3))
    p.kill(); p.wait()
    assert not (out/'model').exists()
    subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL)
    assert sha256(out/'model'/'model.safetensors')==sha256(whole.model/'model.safetensors')
    pd.testing.assert_frame_equal(*[pd.read_csv(tmp_path/n/'pretrain_log.csv') for n in ('whole', 'parts')])
    again = pretrain(str(home/'clips'), str(out), **kw) # finished: nothing is learned again
    assert sha256(again.model/'model.safetensors')==sha256(whole.model/'model.safetensors') and len(again.history)==4


def test_it_learns(home, tmp_path):
    "Every patch of a slope looks alike, so that it is soon known"
    y, x = np.mgrid[:48,:48]/48
    (tmp_path/'waves').mkdir()
    for k in range(16):
        film = [20+(90+5*k)*x+60*y+t for t in range(16)]
        write_video(tmp_path/'waves'/f'{k:02d}.mp4', np.array(film).astype(np.uint8), 30)
    done = pretrain(str(tmp_path/'waves'), str(tmp_path/'out'), model=str(home/'micro'), epochs=30, no_augmentation=True, **quick|dict(lr=3e-3))
    assert done.history.valid_loss.iloc[-1]<.5*done.history.valid_loss.iloc[0]


def test_runners_are_held_out_whole(home):
    df = unlabelled(home/'clips')
    parts = hold_out(df, .3, 1)
    assert not set(parts['train'].group) & set(parts['val'].group) and len(parts['train'])+len(parts['val'])==len(df)==24
    assert set(hold_out(df, .3, 1)['val'].group)==set(parts['val'].group) and len(parts['val'])==8


def test_copies_count_once(home, tmp_path):
    shutil.copytree(home/'clips', tmp_path/'c')
    (tmp_path/'c'/'clips.csv').unlink()
    for p in list((tmp_path/'c').glob('*.mp4'))[:5]: shutil.copyfile(p, tmp_path/'c'/f'copy-{p.name}')
    assert len(unlabelled(tmp_path/'c'))==24


@pytest.mark.parametrize('name', ['small'])
def test_sizes(name):
    net = masked_model(name)
    assert (net.net.config.hidden_size, net.input.size) == (384, 224) and net.origin['name']=='random'


def test_the_mask_leaves_something():
    c = masked_model('tiny').net.config
    for ratio in (.01, .5, .999): assert 0<tube_mask(1, c, ratio).sum()<400


def test_a_start_may_have_a_decoder(home, tmp_path):
    kw = dict(epochs=1, **quick)
    one = pretrain(str(home/'clips'), str(tmp_path/'one'), model=str(home/'micro'), **kw)
    net = masked_model(str(one.model))
    first = create_model(str(one.model), LabelMap({0:'a', 1:'b'}))
    assert all(torch.equal(v, net.net.videomae.state_dict()[k]) for k,v in first.net.videomae.state_dict().items())
    assert torch.equal(load_file(one.model/'model.safetensors')['mask_token'], net.net.mask_token.detach())


def test_what_is_refused(home, tmp_path):
    (tmp_path/'empty').mkdir()
    for kw,says in ((dict(folder=str(tmp_path/'empty')), 'at least 2 clips'), (dict(folder=str(tmp_path/'nowhere')), 'is not a folder'),
                    (dict(mask_ratio=0.), 'between 0 and 1'), (dict(epochs=0), 'epochs must be'), (dict(held_out=.9), 'held_out must lie')):
        with pytest.raises(RpaError, match=says): pretrain(**dict(folder=str(home/'clips'), output_dir=str(tmp_path/'x'), model=str(home/'micro'), **quick)|kw)
    assert not (tmp_path/'x').exists()


def test_a_corrupt_clip_is_named_and_left_out(home, tmp_path, capsys):
    shutil.copytree(home/'clips', tmp_path/'clips')
    (tmp_path/'clips'/'clips.csv').unlink()
    parts = hold_out(unlabelled(tmp_path/'clips'), quick['held_out'], 42)
    bad = [parts[p].path[0] for p in ('train', 'val')]
    for k,p in enumerate(bad): open(p, 'wb').write(b'no film %d'%k)
    kw = dict(model=str(home/'micro'), epochs=3, save_steps=2, **quick)
    whole = pretrain(str(tmp_path/'clips'), str(tmp_path/'whole'), **kw)
    assert whole.failed and list(whole.history.skipped)==[2]*3 and np.isfinite(whole.history.valid_loss).all()
    assert set(pd.read_csv(tmp_path/'whole'/'failed.csv').iloc[:,0])=={p.rsplit('/', 1)[1] for p in bad}
    assert '2 clips could not be read and were left out' in capsys.readouterr().out
    code = f'from rpa.masked import pretrain; pretrain({str(tmp_path/"clips")!r}, {str(tmp_path/"parts")!r}, **{kw!r})'
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.DEVNULL)
    while latest_checkpoint(tmp_path/'parts') is None and p.poll() is None: time.sleep(.02)
    p.kill(); p.wait()
    again = pretrain(str(tmp_path/'clips'), str(tmp_path/'parts'), **kw)
    assert again.failed and sha256(again.model/'model.safetensors')==sha256(whole.model/'model.safetensors')


@pytest.mark.parametrize('name', ['cnn-lstm', 'slowonly-r18', 'changes', 'weights.safetensors'])
def test_only_a_videomae_can_be_pretrained(home, tmp_path, name):
    with pytest.raises(RpaError, match='is no VideoMAE'): pretrain(str(home/'clips'), str(tmp_path/'out'), model=name, **quick)
