"What the lessons of 03a_clips cannot show: damaged files, remote paths, other processes, many threads"
import subprocess, sys, threading
import numpy as np
import pytest
import torch
from rpa.core import RpaError, read_manifest
from rpa.clips import ClipCache, ClipDataset, ClipLoader, InputConfig, clip_loaders, load_clip, toy_clips
from rpa.video import write_video

cfg = InputConfig(size=48)


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    folder = toy_clips(tmp_path_factory.mktemp('toys'), runners=4, clips=3)
    df = read_manifest(folder)
    return df.assign(path=[str(folder/f) for f in df.file], target=df.label)


def test_toys_are_the_same_everywhere(tmp_path):
    "Names, pictures and encoder settings are fixed, so the hashes are too"
    a, b = (read_manifest(toy_clips(tmp_path/n, runners=1, clips=2)).sha256.tolist() for n in 'ab')
    assert a==b and a[0]!=a[1]


@pytest.mark.parametrize('frames', [1, 5, 16, 17, 40])
@pytest.mark.parametrize('grayscale', [True, False])
def test_any_length(tmp_path, frames, grayscale):
    film = np.random.default_rng(0).integers(0, 255, (frames,50,40,3), dtype=np.uint8)
    path = write_video(tmp_path/'clip.mp4', film, fps=60)
    want = InputConfig(size=32, grayscale=grayscale)
    got = load_clip(path, want)
    assert got.shape==(16,32,32) if grayscale else got.shape==(16,32,32,3)
    assert load_clip(path, want, np.random.default_rng(1)).shape==got.shape


@pytest.mark.parametrize('workers', [0, 2])
def test_a_damaged_clip_is_named(rows, tmp_path, workers):
    bad = tmp_path/'damaged.mp4'
    bad.write_bytes(b'not a film')
    df = rows.assign(path=[*rows.path[:-1], str(bad)], sha256=[*rows.sha256[:-1], 'x'])
    with pytest.raises(RpaError, match='damaged.mp4'): list(ClipLoader(ClipDataset(df, cfg), workers=workers))


def test_batches_of_another_process(rows, tmp_path):
    "Order and augmentation do not depend on the process, its hash seed, or its threads"
    rows.to_csv(tmp_path/'rows.csv', index=False)
    code = ('import sys, pandas as pd; from rpa.clips import *; '
            f'd = ClipDataset(pd.read_csv({str(tmp_path/"rows.csv")!r}), InputConfig(size=48), augment=True); '
            'print([[x.long().sum().item(), *y.tolist()] for x,y in ClipLoader(d, shuffle=True, workers=3).at(5)])')
    there = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    here = ClipLoader(ClipDataset(rows, cfg, augment=True), shuffle=True, workers=1).at(5)
    assert eval(there)==[[x.long().sum().item(), *y.tolist()] for x,y in here]


def test_flips_can_be_switched_off(rows):
    def mirrored(flip):
        d, hits = ClipDataset(rows[:1], cfg, augment=True, flip=flip), 0
        plain = ClipDataset(rows[:1], cfg)[0][0].float()
        for e in range(12):
            d.epoch = e
            x = d[0][0].float()
            hits += (x.flip(-1)-plain).abs().mean()<(x-plain).abs().mean()
        return int(hits)
    assert mirrored(False)==0 and 2<mirrored(True)<11


def test_colour_stays_colour(rows):
    x = ClipDataset(rows, InputConfig(size=48, grayscale=False), augment=True)[0][0]
    assert x.shape==(16,48,48,3) and (x[...,0].float()-x[...,2].float()).abs().mean()>2


def test_a_loader_left_early_stops_its_threads(rows):
    for _ in ClipLoader(ClipDataset(rows, cfg), batch_size=1, workers=2): break
    assert not [t for t in threading.enumerate() if t.name.startswith('clips') and t.is_alive()]


def test_cache_is_shared_and_bounded(rows, tmp_path):
    train, valid = clip_loaders(dict(train=rows[:6], val=rows[6:]), cfg, batch_size=2, ram_mb=0, cache_dir=tmp_path/'c')
    first = [x for x,_ in train.at(0)]
    assert len(train.dataset.cache)==0 and len(list((tmp_path/'c').iterdir()))==6
    assert all(torch.equal(a, b) for a,(b,_) in zip(first, train.at(0)))
    assert train.dataset.cache is valid.dataset.cache


def test_a_cached_clip_is_read_without_parsing_python(tmp_path, monkeypatch):
    "ast.parse is not safe between threads on Python 3.11 (gh-106905); the loader reads the cache from several"
    film = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)[...,1] # a view into a film in colour
    ClipCache(0, tmp_path).get('k', lambda: film)
    monkeypatch.setattr('ast.parse', lambda *a, **k: pytest.fail('parsed Python'))
    got = ClipCache(0, tmp_path).get('k', lambda: pytest.fail('made again'))
    assert (got==film).all() and got.dtype==film.dtype and not got.flags.writeable


def test_a_cached_clip_cannot_be_changed(rows):
    cache = ClipCache()
    film = cache.get('k', lambda: np.zeros((2,4,4), np.uint8))
    with pytest.raises(ValueError): film[0] = 1
    d = ClipDataset(rows, cfg, cache=cache)
    d[0][0].zero_() # what a batch gets is its own copy
    assert d[0][0].any()


def test_remote_clips(rows):
    "A split may point into a bucket; here an in-memory one"
    from rpa.storage import store
    at = store('memory://clips-test/a.mp4')
    with open(rows.path[0], 'rb') as f: at.write_bytes(f.read())
    far = ClipDataset(rows[:1].assign(path=[str(at)]), cfg)[0][0]
    assert torch.equal(far, ClipDataset(rows[:1], cfg)[0][0])


@pytest.mark.parametrize('kw', [dict(), dict(augment=True)], ids=str)
@pytest.mark.parametrize('unknown', ['', None, float('nan')], ids=str)
def test_clips_without_a_hash_stay_apart(rows, tmp_path, kw, unknown):
    "A bucket without clips.csv gives no sha256: every clip is still decoded as itself, also from the disk cache"
    from rpa.storage import store
    far = [store(f'memory://no-manifest/{f}') for f in rows.file[:2]]
    for at, p in zip(far, rows.path): at.write_bytes(open(p, 'rb').read())
    bare = rows[:2].assign(path=list(map(str, far)), sha256=[unknown]*2)
    for cache in (ClipCache(), ClipCache(0, tmp_path/'c'), ClipCache(0, tmp_path/'c')):
        got = [x for x,_ in ClipDataset(bare, cfg, cache=cache, **kw)]
        want = [x for x,_ in ClipDataset(rows[:2], cfg, **kw)]
        assert not torch.equal(*got) and all(map(torch.equal, got, want))
    far[0].write_bytes(open(rows.path[1], 'rb').read()) # the same address, another clip
    again = ClipDataset(bare, cfg, cache=ClipCache(0, tmp_path/'c'))
    assert torch.equal(again[0][0], again[1][0])


def test_threads_of_a_loader(rows):
    with pytest.raises(RpaError, match='workers must be ≥ 0 threads'): ClipLoader(ClipDataset(rows, cfg), workers=-1)
