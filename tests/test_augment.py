"""Augmentation: what it does to pixels, resume after SIGKILL, damaged files, buckets, the command"""
import json, os, random, signal, subprocess, sys, time
from pathlib import Path

import cv2, fsspec, numpy as np, pytest
from hypothesis import given, settings, strategies as st

from rpa.augment import (AUGMENTATIONS, AugmentParams, apply_params, augment, augment_clip, draw_params, version_name,
                         version_seed)
from rpa.core import ClipName, RpaError, read_manifest, sha256, write_manifest
from rpa.pipelines import main
from rpa.split import augmented_split, load_split, split
from rpa.video import probe, read_clip, write_video

RUNNERS = [f'{i:02d}AB' for i in range(8)]


def film(seed, side=64):
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.integers(0, 256, (side, 2*side), np.uint8), (0, 0), 2)
    return np.stack([ground[:,2*t:2*t+side] for t in range(16)])


def make(folder, runners=RUNNERS):
    rows = []
    for i,r in enumerate(runners):
        n = ClipName(r, 'RUN1', 'CAM1', 'lap_001', 0, i%2)
        write_video(folder/n.file, film(i), '60000/1001')
        rows.append(dict(file=n.file, sha256=sha256(folder/n.file), source=n.source, source_sha256=r, runner=r, run=n.run,
            camera=n.camera, lap=n.lap, track=0, clip=0, label=n.label, side='', start_s=.5, end_s=.767, fps='60000/1001',
            frames=16, settings='cafe'))
    write_manifest(rows, folder)
    return folder


@pytest.fixture(scope='session')
def source(tmp_path_factory): return make(tmp_path_factory.mktemp('source')/'clips')


@pytest.fixture(scope='session')
def whole(source):
    "What an undisturbed run writes"
    dst = source.parent/'whole'
    augment(str(source), str(dst), versions=6)
    return dst


@pytest.fixture
def clips(source, tmp_path):
    "A copy that a test may damage"
    for p in source.iterdir(): (tmp_path/'clips').mkdir(exist_ok=True); (tmp_path/'clips'/p.name).write_bytes(p.read_bytes())
    return tmp_path/'clips'


def content(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob('*') if p.is_file()}


# pixels

@given(n=st.integers(1, 6), h=st.integers(1, 40), w=st.integers(1, 40), colour=st.booleans(), seed=st.integers(0, 2**32-1),
       runtime=st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_shape_stays_what_it_is(n, h, w, colour, seed, runtime):
    x = np.random.default_rng(seed).integers(0, 256, (n, h, w)+(3,)*colour, np.uint8)
    before = x.copy()
    y = augment_clip(x, seed, runtime=runtime)
    assert (y.shape, y.dtype)==(x.shape, x.dtype) and (x==before).all()
    assert (y==augment_clip(x, seed, runtime=runtime)).all()


@given(seed=st.integers(0, 2**32-1), runtime=st.booleans())
@settings(max_examples=300, deadline=None)
def test_draws_stay_in_their_ranges(seed, runtime):
    p = draw_params(seed, runtime)
    assert .75<=p.brightness<=1.25 and .75<=p.contrast<=1.25 and .9<=p.scale<=1.1 and abs(p.angle_deg)<=5
    assert p.sigma_px==0 or .1<=p.sigma_px<=1
    if p.cutout: assert p.cutout[1]>=0 and p.cutout[1]+p.cutout[3]<=.5 and p.cutout[0]+p.cutout[2]<=1
    assert not draw_params(seed, runtime, flip=False).flip


@given(seed=st.integers(0, 2**32-1), colour=st.booleans())
@settings(max_examples=50, deadline=None)
def test_every_frame_gets_the_same(seed, colour):
    still = np.repeat(film(1, 32)[:1], 7, 0)
    if colour: still = np.repeat(still[...,None], 3, -1)
    y = augment_clip(still, seed)
    assert all((f==y[0]).all() for f in y)


def test_draws_never_change():
    "Augmented data made last year can be made again"
    p = draw_params(version_seed('04HN_RUN2_CAM1_lap_006_CUT_001_001.mp4', 15))
    assert version_seed('04HN_RUN2_CAM1_lap_006_CUT_001_001.mp4', 15)==2616919645
    assert (p.gray, p.flip, p.brightness, p.contrast)==(True, True, 1., 1.)
    side = .3872983346
    assert np.allclose((p.sigma_px, p.angle_deg, p.scale, *p.cutout), (.9629815907, -3.0563063443, 1.0880763843, .0403582482,
                                                                      .0147865634, side, side), atol=1e-9)


def test_runtime_chances():
    draws = [draw_params(s, runtime=True) for s in range(3000)]
    assert not any(p.gray for p in draws) and all(p.scale!=1 and p.contrast!=1 for p in draws)
    for name,share in (('flip', np.mean([p.flip for p in draws])), ('blur', np.mean([p.sigma_px>0 for p in draws])),
                       ('rotation', np.mean([p.angle_deg!=0 for p in draws])), ('cutout', np.mean([p.cutout is not None for p in draws]))):
        assert abs(share-AUGMENTATIONS[name].runtime)<.03, name


def test_zooming_out_shows_more():
    "Below 1 the picture gets smaller, it does not just lose sharpness"
    x = np.zeros((1, 101, 101), np.uint8)
    x[:,50,70] = 255
    assert apply_params(x, AugmentParams(scale=.9))[0].argmax()==50*101+68


def test_colour_is_kept_on_demand_and_gray_otherwise():
    x = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    gray = apply_params(x, AugmentParams(gray=True, brightness=1.1))
    assert (gray[...,0]==gray[...,2]).all()
    kept = apply_params(x, AugmentParams(angle_deg=3))
    assert (kept[...,0]!=kept[...,2]).any()


# the job

def test_manifest_tells_where_each_version_comes_from(source, whole):
    df, originals = read_manifest(whole), read_manifest(source).set_index('file')
    assert len(df)==48 and sorted(df.version.unique())==[0,1,2,3,4,5]
    for r in df.itertuples():
        assert version_name(r.base, r.version)==r.file and sha256(whole/r.file)==r.sha256
        o = originals.loc[r.base]
        assert (r.source_sha256, r.label, r.side, r.start_s, r.base_sha256)==(o.source_sha256, o.label, '', .5, o.sha256)
    info = probe(whole/df.file[0])
    assert (info.width, info.height, str(info.fps), info.frames)==(64, 64, '60000/1001', 16)
    assert set(content(whole))=={'clips.csv', *df.file}


def test_versions_hold_the_pixels_they_should(source, whole):
    f = sorted(source.glob('*.mp4'))[3].name
    want = augment_clip(read_clip(source/f), version_seed(f, 2))
    assert np.abs(want.astype(int)-read_clip(whole/version_name(f, 2))).mean()<3


def test_processes_write_the_same_bytes(source, whole, tmp_path):
    augment(str(source), str(tmp_path/'a'), versions=6, workers=2)
    assert content(tmp_path/'a')==content(whole)


def run_and_kill(src, dst, want, workers):
    "Start the job in a process group of its own and kill the group once `want` clips are there; False if it ended before"
    code = f'from rpa.augment import augment; augment({str(src)!r}, {str(dst)!r}, versions=6, workers={workers})'
    p = subprocess.Popen([sys.executable, '-c', code], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while p.poll() is None and len(list(dst.glob('*.mp4')))<want: time.sleep(.001)
    ended = p.poll() is not None
    try: os.killpg(p.pid, signal.SIGKILL)
    except ProcessLookupError: pass
    p.wait()
    return not ended


@pytest.mark.parametrize('workers', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_five_times(source, whole, tmp_path, workers):
    dst, rng, kills = tmp_path/'a', random.Random(workers), 0
    dst.mkdir()
    for want in sorted(rng.sample(range(1, 37), 5)):
        kills += run_and_kill(source, dst, want, workers)
        for p in dst.glob('*.mp4'): assert p.read_bytes()==(whole/p.name).read_bytes(), 'a clip that is there is whole'
    assert kills>=4
    done = augment(str(source), str(dst), versions=6, workers=workers)
    assert done.skipped>0
    assert content(dst)==content(whole)


def test_only_what_is_missing_is_made(source, whole, tmp_path):
    dst = tmp_path/'a'
    assert (r := augment(str(source), str(dst), versions=3)).made==24 and not r.failed
    assert ((r := augment(str(source), str(dst), versions=6)).made, r.skipped)==(24, 24)
    assert content(dst)==content(whole)
    some = sorted(dst.glob('*.mp4'))
    some[0].unlink(); some[7].write_bytes(b'half a cl')
    assert ((r := augment(str(source), str(dst), versions=6)).made, r.skipped)==(2, 46)
    assert content(dst)==content(whole)


def test_other_settings_or_another_original_are_made_again(clips, tmp_path):
    dst = tmp_path/'a'
    augment(str(clips), str(dst), versions=2)
    assert augment(str(clips), str(dst), versions=2, no_flip=True).made==16
    df = read_manifest(clips)
    write_video(clips/df.file[0], film(99), '60000/1001')
    df.loc[0, 'sha256'] = sha256(clips/df.file[0])
    write_manifest(df, clips)
    assert ((r := augment(str(clips), str(dst), versions=2, no_flip=True)).made, r.skipped)==(2, 14)


def test_no_flip_changes_flips_alone(clips, tmp_path):
    a, b = (augment(str(clips), str(tmp_path/n), versions=4, no_flip=x).clips for n,x in (('a', False), ('b', True)))
    same = [x==y for x,y in zip(a.sha256, b.sha256)]
    assert same==[not draw_params(version_seed(f, v)).flip for f,v in zip(a.base, a.version)]
    assert set(a.settings)!=set(b.settings)


def test_clips_of_one_foot_are_never_mirrored(clips, tmp_path):
    df = read_manifest(clips)
    write_manifest(df.assign(side='L'), clips)
    a, b = (augment(str(clips), str(tmp_path/n), versions=4, no_flip=x).clips for n,x in (('a', False), ('b', True)))
    assert any(draw_params(version_seed(f, v)).flip for f,v in zip(a.base, a.version)) and list(a.sha256)==list(b.sha256)


def test_it_says_the_command_that_uses_the_versions(source, tmp_path, capsys):
    made = split(str(source), str(tmp_path/'split.json'), .5, .25, .25)
    augment(str(source), str(source.parent/'aug2'), versions=2, split_json=str(made.path))
    said = capsys.readouterr().out.split('next: rpa ')[-1].split()
    assert main([*said[:-1], str(tmp_path/'more.json')])==0
    assert set(load_split(tmp_path/'more.json')['train'].version)=={0, 1}


def test_checkpoint(source, tmp_path):
    path = tmp_path/'state'/'ck.json'
    augment(str(source), str(tmp_path/'a'), versions=1, checkpoint=str(path))
    d = json.loads(path.read_text())
    assert set(d)=={'completed', 'total', 'started_at', 'last_updated'} and len(d['completed'])==d['total']==8
    d['started_at'] = '2001-01-01T00:00:00+00:00'
    path.write_text(json.dumps(d))
    augment(str(source), str(tmp_path/'a'), versions=1, checkpoint=str(path))
    assert json.loads(path.read_text())['started_at']==d['started_at']


# only training clips

def test_only_the_training_part(source, tmp_path):
    made = split(str(source), str(tmp_path/'s.json'))
    r = augment(str(source), str(tmp_path/'augmented'), versions=2, split_json=str(made.path))
    assert set(r.clips.base)==set(made.parts['train'].file) and len(r.clips)==2*len(made.parts['train'])


def test_chain_to_an_augmented_split(clips, tmp_path):
    made = split(str(clips), str(tmp_path/'s.json'))
    augment(str(clips), str(tmp_path/'augmented'), versions=2, split_json=str(made.path))
    augmented_split(str(made.path), str(tmp_path), str(tmp_path/'t.json'), versions=2, strict=True, raw='clips')
    parts = load_split(tmp_path/'t.json')
    assert set(parts['train'].base)==set(made.parts['train'].file) and set(parts['test'].file)==set(made.parts['test'].file)


def test_leftovers_of_another_split_are_not_used(clips, tmp_path):
    augment(str(clips), str(tmp_path/'augmented'), versions=2)
    made = split(str(clips), str(tmp_path/'s.json'))
    augment(str(clips), str(tmp_path/'augmented'), versions=1, split_json=str(made.path))
    aug = augmented_split(str(made.path), str(tmp_path), str(tmp_path/'t.json'), versions=2, raw='clips')
    assert list(aug.parts['train'].version.unique())==[0] and json.loads(aug.path.read_text())['metadata']['coverage']==.5


def test_split_of_other_clips_is_refused(clips, tmp_path):
    split(str(clips), str(tmp_path/'s.json'))
    make(tmp_path/'other', RUNNERS[:3])
    with pytest.raises(RpaError, match='are not there in'): augment(str(tmp_path/'other'), str(tmp_path/'a'), split_json=str(tmp_path/'s.json'))


# bad input

def truncate(p): p.write_bytes(p.read_bytes()[:900])
def replace_with_text(p): p.write_text('not a film')
def empty(p): p.write_bytes(b'')
def remove(p): p.unlink()


@pytest.mark.parametrize('damage', [truncate, replace_with_text, empty, remove])
@pytest.mark.parametrize('listed', [True, False])
def test_one_bad_clip_never_ends_the_job(clips, tmp_path, damage, listed):
    bad = clips/read_manifest(clips).file[2]
    damage(bad)
    if not listed: (clips/'clips.csv').unlink()
    code = main(['augment', '--input', str(clips), '--output', str(tmp_path/'a'), '--versions', '2'])
    gone = damage is remove and not listed # nobody can know that it was there
    assert code==(0 if gone else 1)
    assert len(read_manifest(tmp_path/'a'))==14
    if not gone: assert bad.name in (tmp_path/'a'/'failed.csv').read_text()


def test_failures_are_forgotten_once_repaired(clips, source, tmp_path):
    bad = clips/read_manifest(clips).file[2]
    empty(bad)
    assert augment(str(clips), str(tmp_path/'a'), versions=1).failed
    bad.write_bytes((source/bad.name).read_bytes())
    assert not augment(str(clips), str(tmp_path/'a'), versions=1).failed
    assert not (tmp_path/'a'/'failed.csv').exists()


def test_names_that_do_not_parse(clips, tmp_path):
    (clips/'clips.csv').unlink()
    (clips/'holiday.mp4').write_bytes(b'x')
    r = augment(str(clips), str(tmp_path/'a'), versions=1)
    assert (r.made, [Path(f).name for f,_,_ in r.failed])==(8, ['holiday.mp4'])


def test_augmented_clips_are_not_augmented_again(whole, tmp_path):
    r = augment(str(whole), str(tmp_path/'a'), versions=1)
    assert (r.made, len(r.failed))==(0, 48) and 'is an augmented clip already' in r.failed.rows[0][2]


@pytest.mark.parametrize('kw,said', [(dict(versions=0), 'versions must be 1 to 999'), (dict(workers=-3), 'workers: must be')])
def test_bad_flags(source, tmp_path, kw, said):
    with pytest.raises(RpaError, match=said): augment(str(source), str(tmp_path/'a'), **kw)


def test_same_folder_twice(source):
    with pytest.raises(RpaError, match='must be another folder'): augment(str(source), str(source)+'/')


def test_output_with_originals_is_refused(source, clips, tmp_path):
    make(tmp_path/'other', ['90XY'])
    before = content(tmp_path/'other')
    with pytest.raises(RpaError, match='holds original clips'): augment(str(source), str(tmp_path/'other'), versions=1)
    assert content(tmp_path/'other')==before


def test_output_that_is_a_file(source, tmp_path):
    (tmp_path/'a').write_text('')
    with pytest.raises(RpaError, match='is a file, not a folder'): augment(str(source), str(tmp_path/'a'), versions=1)


# buckets

@pytest.fixture
def bucket(source):
    fs = fsspec.filesystem('memory')
    for p in source.iterdir(): fs.pipe_file(f'/bkt/raw/{p.name}', p.read_bytes())
    yield fs
    fs.rm('/bkt', recursive=True)


def listed(fs, folder): return {p.rsplit('/', 1)[1]: fs.cat_file(p) for p in fs.ls(folder, detail=False) if fs.isfile(p)}


@pytest.mark.parametrize('workers', [1, 2])
def test_bucket_to_bucket(bucket, whole, workers):
    r = augment('memory://bkt/raw/', 'memory://bkt/augmented/', versions=6, workers=workers, checkpoint='memory://bkt/state/ck.json')
    assert r.made==48 and listed(bucket, '/bkt/augmented')==content(whole)
    assert len(json.loads(bucket.cat_file('/bkt/state/ck.json'))['completed'])==8
    again = augment('memory://bkt/raw', 'memory://bkt/augmented', versions=6)
    assert (again.made, again.skipped)==(0, 48)


def test_bucket_resumes_from_records(bucket, whole):
    augment('memory://bkt/raw', 'memory://bkt/augmented', versions=6)
    bucket.rm('/bkt/augmented/clips.csv') # as after a kill
    some = [p for p in bucket.ls('/bkt/augmented', detail=False) if p.endswith('.mp4')][:5]
    for p in some: bucket.rm(p)
    r = augment('memory://bkt/raw', 'memory://bkt/augmented', versions=6)
    assert (r.made, r.skipped)==(5, 43) and listed(bucket, '/bkt/augmented')==content(whole)


def test_bucket_without_manifest(bucket, source):
    bucket.rm('/bkt/raw/clips.csv')
    bucket.pipe_file('/bkt/raw/holiday.mp4', b'x')
    r = augment('memory://bkt/raw', 'memory://bkt/augmented', versions=1)
    assert (r.made, len(r.failed))==(8, 1) and b'holiday.mp4' in bucket.cat_file('/bkt/augmented/failed.csv')
    assert set(r.clips.base_sha256)==set(read_manifest(source).sha256)


def test_disk_to_bucket_and_back(bucket, source, whole, tmp_path):
    augment(str(source), 'memory://bkt/out', versions=6)
    assert listed(bucket, '/bkt/out')==content(whole)
    augment('memory://bkt/raw', str(tmp_path/'a'), versions=6)
    assert content(tmp_path/'a')==content(whole)
