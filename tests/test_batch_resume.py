"A batch that is killed, stopped, changed or fed bad files"
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from rpa.core import read_manifest
from rpa.pose import Track, lm, save_tracks
from rpa.processing import batch
from rpa.video import VIDEO_SUFFIXES, read_frames, write_video

RPA = [sys.executable, '-c', 'import sys; from rpa.pipelines import main; sys.exit(main())']
BATCH = ['batch', '--input-dir', 'laps', '--keypoints', 'keys']
LAPS = ['01AA_RUN1_CAM1/clips/lap_001_000', '01AA_RUN1_CAM1/clips/lap_002_000', '02BB_RUN1_CAM1/clips/lap_001_001',
        '02BB_RUN1_CAM2/clips/lap_001_001', '03CC_RUN1_CAM1/clips/lap_007_000', '04DD_RUN2_CAM1/clips/lap_003_001']
SIZE, N, HEIGHT = (480, 270), 60, 150.


def runner(id=1, x0=60., speed=90.):
    "Keypoints of somebody who runs to the right"
    t = np.arange(N)/30
    xy = np.repeat(np.stack([x0+speed*t, np.full(N, 150.)], 1)[:,None], 33, 1)
    for sign,side in (1, 'left'), (-1, 'right'):
        swing = sign*.22*HEIGHT*np.sin(2*np.pi*1.4*t)
        for part,dx,dy in ('ankle', 0, 190), ('heel', -6, 195), ('foot_index', 15, 197):
            xy[:,lm(f'{side}_{part}')] = np.stack([x0+speed*t+swing+dx, np.full(N, float(dy))], 1)
    xy[:,lm('left_shoulder', 'right_shoulder')] = np.nan # so the height comes from the box
    x = x0+speed*t
    box = np.stack([x-40, np.full(N, 50.), x+40, np.full(N, 50+HEIGHT)], 1)
    return Track(id, np.arange(N), t, xy, np.ones((N, 33)), box, np.zeros(N, bool), Fraction(30), *SIZE)


def film(path, seed):
    "A moving pattern"
    rng = np.random.default_rng(seed)
    big = cv2.resize(rng.integers(0, 255, (40, 80, 3), dtype=np.uint8), (1200, 600), interpolation=cv2.INTER_CUBIC)
    write_video(path, (big[k:k+SIZE[1], 4*k:4*k+SIZE[0]] for k in range(N)), 30)


@pytest.fixture(scope='module')
def laps(tmp_path_factory):
    "Six laps, and their keypoints: nobody has to be found in pictures of nobody"
    root = tmp_path_factory.mktemp('batch')
    for i,name in enumerate(LAPS):
        film(root/'laps'/f'{name}.mp4', i)
        save_tracks(root/'keys'/f'{name}.npz', [runner()])
    return root


@pytest.fixture(scope='module')
def whole(laps):
    "What an uninterrupted batch writes"
    result = batch(str(laps/'laps'), str(laps/'whole'), workers=1, keypoints=str(laps/'keys'))
    assert not result.failed and len(result.done)==6 and result.clips==18
    return tree(laps/'whole')


def tree(root):
    "Every file, hidden ones too"
    return {p.relative_to(root).as_posix():p.read_bytes() for p in sorted(Path(root).rglob('*')) if p.is_file()}


def start(laps, out, workers):
    command = [*RPA, *BATCH, '--output-dir', str(out), '--workers', str(workers)]
    return subprocess.Popen(command, cwd=laps, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True)


def until(proc, out, n, limit_s=120):
    "Wait until `n` films can be seen, or the batch has ended"
    end = time.time()+limit_s
    while proc.poll() is None and len(list(Path(out).glob('*.mp4')))<n and time.time()<end: time.sleep(.002)


def finished_films(out, whole):
    "Every film that can be seen is whole"
    for p in Path(out).rglob('*.mp4'):
        if '.partial' not in p.parts: assert whole[p.relative_to(out).as_posix()]==p.read_bytes(), p


def test_workers_do_not_change_a_byte(laps, whole):
    result = batch(str(laps/'laps'), str(laps/'three'), workers=3, keypoints=str(laps/'keys'))
    assert result.clips==18 and tree(laps/'three')==whole
    again = batch(str(laps/'laps'), str(laps/'three'), workers=1, keypoints=str(laps/'keys'))
    assert len(again.skipped)==6 and not again.done and tree(laps/'three')==whole


def test_laps_of_every_kind_of_file(laps, tmp_path):
    "Whatever `rpa infer` takes for a film is a lap, too"
    for i,suffix in enumerate(sorted(VIDEO_SUFFIXES)):
        codec = {'.webm':'libvpx', '.wmv':'wmv2', '.mjpeg':'mjpeg', '.mpg':'mpeg2video', '.mpeg':'mpeg2video'}.get(suffix, 'libx264')
        name, rate = f'05EE_RUN1_CAM1/clips/lap_{i:03d}_000', 25 if codec=='mjpeg' else 30 # raw JPEGs have no rate: 25
        path = tmp_path/f'laps/{name}{suffix.upper() if i%2 else suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), 'w') as c:
            s = c.add_stream(codec, rate=rate)
            s.width, s.height, s.pix_fmt = *SIZE, 'yuvj420p' if codec=='mjpeg' else 'yuv420p'
            for _,f in read_frames(laps/f'laps/{LAPS[0]}.mp4', end_s=.8):
                c.mux(s.encode(av.VideoFrame.from_ndarray(np.roll(f, 8*i, 1), 'rgb24')))
            c.mux(s.encode(None))
        save_tracks(tmp_path/f'keys/{name}.npz', [replace(runner().slice(0, 24), fps=rate)])
    result = batch(str(tmp_path/'laps'), str(tmp_path/'out'), workers=1, keypoints=str(tmp_path/'keys'), no_review=True)
    assert not result.failed and {Path(f).suffix.lower() for f in result.done}==VIDEO_SUFFIXES


def test_names_and_manifest(laps, whole):
    df = read_manifest(laps/'whole')
    assert '01AA_RUN1_CAM1_lap_001_CUT_000_000.mp4' in set(df.file)
    assert list(df[df.source==f'{LAPS[3]}.mp4'].label)==[1]*3 and set(df.track)=={1}
    assert df.start_s.tolist()[:3]==pytest.approx([0, 16/30, 32/30], abs=1e-5)
    assert pd.read_csv(laps/'whole/rejected.csv').reason.str.contains('12 frames without a gap').all()


@pytest.mark.parametrize('workers', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_five_times(laps, whole, workers):
    out, rng = laps/f'killed{workers}', random.Random(workers)
    for n in sorted(rng.sample(range(1, 28), 5)):
        proc = start(laps, out, workers)
        until(proc, out, n)
        time.sleep(rng.uniform(0, .05))
        try: os.killpg(proc.pid, signal.SIGKILL)
        except ProcessLookupError: pass # it had just ended
        proc.wait()
        finished_films(out, whole)
    proc = start(laps, out, workers)
    text = proc.communicate(timeout=200)[0]
    assert proc.returncode==0, text
    assert tree(out)==whole


def test_ctrl_c_leaves_a_folder_that_can_be_used(laps, whole):
    out = laps/'stopped'
    proc = start(laps, out, 2)
    until(proc, out, 6)
    os.killpg(proc.pid, signal.SIGINT)
    text = proc.communicate(timeout=60)[0]
    assert proc.returncode in (0, 130), text
    assert 'Traceback' not in text
    if proc.returncode==130:
        assert 'run the same command again' in text
        read_manifest(out)
    finished_films(out, whole)
    assert start(laps, out, 2).wait(200)==0 and tree(out)==whole


def copy(src, dst):
    dst.parent.mkdir(parents=True, exist_ok=True)
    dst.write_bytes(src.read_bytes())


def test_bad_files_do_not_end_the_batch(laps, tmp_path):
    a = 'laps/05EE_RUN1_CAM1/clips'
    for name in LAPS[:2]: copy(laps/f'laps/{name}.mp4', tmp_path/f'laps/{name}.mp4')
    copy(laps/f'laps/{LAPS[0]}.mp4', tmp_path/a/'lap_001_001.mp4') # the bytes of another lap
    copy(laps/f'laps/{LAPS[2]}.mp4', tmp_path/a/'warm_up.mp4')
    copy(laps/f'laps/{LAPS[3]}.mp4', tmp_path/a/'lap_002_001.mp4') # no keypoints
    (tmp_path/a/'lap_003_001.mp4').write_bytes(b'no film at all')
    save_tracks(tmp_path/'keys/05EE_RUN1_CAM1/clips/lap_003_001.npz', [runner()])
    for name in LAPS[:2]: copy(laps/f'keys/{name}.npz', tmp_path/f'keys/{name}.npz')
    out = subprocess.run([*RPA, *BATCH, '--output-dir', 'out', '--workers', '2'], cwd=tmp_path, capture_output=True,
                         text=True)
    assert out.returncode==1 and 'Traceback' not in out.stderr
    bad = pd.read_csv(tmp_path/'out/failed.csv').set_index('file')
    assert {Path(f).name:s for f,s in bad.stage.items()}=={'lap_001_001.mp4':'duplicate', 'warm_up.mp4':'name',
        'lap_002_001.mp4':'keypoints', 'lap_003_001.mp4':'process'}
    assert len(read_manifest(tmp_path/'out'))==6


def test_other_settings_and_corrected_labels_leave_nothing_old_behind(laps, tmp_path):
    for name in LAPS[:2]:
        copy(laps/f'laps/{name}.mp4', tmp_path/f'laps/{name}.mp4')
        copy(laps/f'keys/{name}.npz', tmp_path/f'keys/{name}.npz')
    run = lambda **kw: batch(str(tmp_path/'laps'), str(tmp_path/'out'), workers=1, keypoints=str(tmp_path/'keys'), **kw)
    assert run().clips==6 and run(stride=8).clips==12
    assert run(stride=30, no_review=True).clips==4
    assert len(list((tmp_path/'out').glob('*.mp4')))==4 and not list((tmp_path/'out').glob('review/*.mp4'))
    for ext,folder in ('mp4', 'laps'), ('npz', 'keys'): # the first lap was a heel strike after all
        p = tmp_path/folder/f'{LAPS[0]}.{ext}'
        p.rename(p.with_name(f'lap_001_001.{ext}'))
    result = run(stride=30, no_review=True)
    assert sorted(read_manifest(tmp_path/'out').label)==[0, 0, 1, 1] and len(result.skipped)==1
    assert len(list((tmp_path/'out').glob('*.mp4')))==4


def test_a_damaged_clip_is_made_again(laps, whole, tmp_path):
    result = batch(str(laps/'laps'), str(tmp_path), workers=1, keypoints=str(laps/'keys'))
    clip = tmp_path/'01AA_RUN1_CAM1_lap_001_CUT_000_000.mp4'
    clip.write_bytes(clip.read_bytes()[:100])
    (tmp_path/'02BB_RUN1_CAM1_lap_001_CUT_001_001.mp4').unlink()
    result = batch(str(laps/'laps'), str(tmp_path), workers=1, keypoints=str(laps/'keys'))
    assert len(result.done)==2 and len(result.skipped)==4 and tree(tmp_path)==whole


def test_two_runners_one_label(laps, tmp_path):
    name = LAPS[0]
    copy(laps/f'laps/{name}.mp4', tmp_path/f'laps/{name}.mp4')
    save_tracks(tmp_path/f'keys/{name}.npz', [runner(1), runner(2, x0=120.)])
    run = lambda out, **kw: batch(str(tmp_path/'laps'), str(tmp_path/out), 1, keypoints=str(tmp_path/'keys'), **kw)
    run('one')
    assert set(read_manifest(tmp_path/'one').track)=={1}
    assert pd.read_csv(tmp_path/'one/rejected.csv').reason.str.contains('one runner').any()
    run('all', all_runners=True)
    df = read_manifest(tmp_path/'all')
    assert set(df.track)=={1, 2} and df.file.is_unique
