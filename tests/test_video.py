"Films of many kinds, and films that are broken in many ways"
import os, subprocess, sys
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import rpa
from av.video.reformatter import Interpolation
from rpa.core import RpaError, sha256
from rpa.video import (CLIP_CRF, VideoWriter, contact_sheet, make_proxy, probe, read_clip, read_frames, read_video, save_image,
                       write_video)

DATA = Path(rpa.__file__).resolve().parents[1].parent/'shared'/'data'
SPORTS2D = Path(rpa.__file__).resolve().parents[1]/'nbs'/'demo'/'real'/'sports2d_demo.mp4'
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason='the shared sample films are not here')
GRAY = np.array([.299, .587, .114])
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP


def film(n=20, h=96, w=128, seed=0):
    "A smooth picture that moves: (n, h, w, 3)"
    rng = np.random.default_rng(seed)
    wide = cv2.resize(rng.integers(60, 196, (4, 8, 3)).astype(np.uint8), (w+4*n, h), interpolation=cv2.INTER_CUBIC)
    return np.stack([wide[:,4*i:4*i+w] for i in range(n)])


def full_range(rgb, matrix):
    "A frame with luma from 0 to 255 (swscale's own conversion shifts the colours by a level)"
    kr, kb = (.2126, .0722) if matrix==1 else (.299, .114)
    R,G,B = np.moveaxis(rgb.astype(float), -1, 0)
    y = kr*R+(1-kr-kb)*G+kb*B
    uv = [(c-y)/(2-2*k)+128 for c,k in ((B, kb), (R, kr))]
    uv = [p.reshape(p.shape[0]//2, 2, -1, 2).mean((1, 3)).reshape(-1, y.shape[1]) for p in uv]
    return av.VideoFrame.from_ndarray(np.round(np.concatenate([y, *uv])).clip(0, 255).astype(np.uint8), 'yuvj420p')


def write(path, frames, codec='libx264', pix_fmt='yuv420p', rate=30, pts=None, tick=None, turn=None, tags=(6, 1), **options):
    "Write a film of any kind with PyAV alone"
    av.logging.set_level(None)
    kw = {'options':{'movflags':'+faststart'}} if path.suffix=='.mp4' else {}
    with av.open(str(path), 'w', **kw) as c:
        s = c.add_stream(codec, rate=rate, options={k.replace('_', '-'):str(v) for k,v in options.items()})
        s.height, s.width, s.pix_fmt = *frames[0].shape[:2], pix_fmt
        s.codec_context.colorspace, s.codec_context.color_range = tags
        if tick: s.codec_context.time_base = tick
        if turn is not None: s.set_display_rotation(turn)
        for i,f in enumerate(frames):
            matrix = {1:'ITU709', 6:'ITU601', 2:'ITU601', 9:'BT2020'}[tags[0]]
            if pix_fmt=='yuvj420p': f = full_range(f, tags[0])
            else: f = av.VideoFrame.from_ndarray(f, 'rgb24').reformat(format=pix_fmt, dst_colorspace=matrix,
                dst_color_range=tags[1], interpolation=EXACT)
            f.colorspace, f.color_range = tags
            if pts is not None: f.pts, f.time_base = int(pts[i]), tick
            c.mux(s.encode(f))
        c.mux(s.encode(None))
    return path


_best = dict(qmin=1, qmax=2)
KINDS = {'h264.mp4':dict(crf=4), 'hevc.mp4':dict(codec='libx265', crf=6, x265_params='log-level=none'),
    'hevc10.mp4':dict(codec='libx265', pix_fmt='yuv420p10le', crf=6, x265_params='log-level=none'),
    'vp9.webm':dict(codec='libvpx-vp9', crf=8, b='0'), 'mpeg4.avi':dict(codec='mpeg4', tags=(2, 1), **_best),
    'mjpeg.avi':dict(codec='mjpeg', pix_fmt='yuvj420p', tags=(2, 2), **_best),
    'h264.mkv':dict(crf=4), 'h264.mov':dict(crf=4), 'h264.ts':dict(crf=4), '709.mp4':dict(crf=4, tags=(1, 1)), 'full.mp4':dict(pix_fmt='yuvj420p', crf=4, tags=(1, 2)),
    'full601.mp4':dict(pix_fmt='yuvj420p', crf=4, tags=(6, 2)), '444.mkv':dict(pix_fmt='yuv444p', crf=4),
    'untagged.mp4':dict(crf=4, tags=(2, 1)), 'ffv1.mkv':dict(codec='ffv1'),
    'rgb.mkv':dict(codec='ffv1', pix_fmt='bgr0', tags=(2, 0)), 'gray.mkv':dict(codec='ffv1', pix_fmt='gray', tags=(2, 0))}


@pytest.mark.parametrize('name', KINDS)
def test_every_kind_of_film_gives_its_colours_and_times(tmp_path, name):
    frames = film()
    if name=='gray.mkv': frames = np.repeat(np.round(frames@GRAY).astype(np.uint8)[...,None], 3, -1)
    path = write(tmp_path/name, frames, **KINDS[name])
    info = probe(path)
    assert (info.width, info.height, info.fps, info.frames, info.variable_rate, info.rotation)==(128, 96, 30, 20, False, 0)
    got, t_s = read_video(path)
    assert t_s.tolist()==[float(Fraction(i, 30)) for i in range(20)]
    gap = got.astype(float)-frames
    assert np.abs(gap).mean()<3 and np.abs(gap.mean((0, 1, 2))).max()<.5, (np.abs(gap).mean(), gap.mean((0, 1, 2)))
    gray, _ = read_video(path, gray=True)
    assert np.abs(gray-got@GRAY).max()<=2.5 and abs((gray-got@GRAY).mean())<.3
    assert np.array_equal(read_clip(path), gray) and np.array_equal(read_clip(path, gray=False), got)


def test_clip_round_trip_and_tags(tmp_path):
    frames = film(16, 224, 224)
    a, b = (write_video(tmp_path/n, frames, 60) for n in ('a.mp4', 'b.mp4'))
    assert a.read_bytes()==b.read_bytes()
    err = read_clip(a)-frames@GRAY
    assert np.abs(err).mean()<1 and abs(err.mean())<.1
    gray = np.round(frames@GRAY).astype(np.uint8)
    assert abs(read_clip(write_video(tmp_path/'g.mp4', gray, 60)).astype(float)-gray).mean()<1
    with av.open(str(a)) as c:
        s = c.streams.video[0]
        f = next(c.decode(s))
        assert (s.profile, f.format.name, f.colorspace, f.color_range)==('High', 'yuv420p', 6, 1)
    assert a.read_bytes().index(b'moov')<a.read_bytes().index(b'mdat')


def test_bytes_do_not_depend_on_the_number_of_cores(tmp_path):
    code = f'''
import os, numpy as np
from rpa.video import VideoWriter, write_video
frames = np.random.default_rng(0).integers(0, 256, (6, 480, 640, 3), dtype=np.uint8)
for cores in ({{0}}, os.sched_getaffinity(0)):
    os.sched_setaffinity(0, cores)
    with VideoWriter(r'{tmp_path}/big%d.mp4' % len(cores), 30) as w:
        for f in frames: w.write(f)
'''
    if not hasattr(os, 'sched_getaffinity') or len(os.sched_getaffinity(0))<2 or 0 not in os.sched_getaffinity(0):
        pytest.skip('needs two cores')
    subprocess.run([sys.executable, '-c', code], check=True)
    a,b = sorted(tmp_path.glob('*.mp4'))
    assert sha256(a)==sha256(b)


@pytest.mark.parametrize('turn', [0, 90, 180, -90])
def test_turned_films(tmp_path, turn):
    frames = film(3, 64, 96)
    path = write(tmp_path/'a.mp4', frames, turn=turn, crf=4)
    want = np.rot90(frames, turn//90, axes=(1, 2))
    info = probe(path)
    assert (info.height, info.width, info.rotation)==(*want.shape[1:3], -turn%360)
    for got in (read_video(path)[0], read_clip(path, gray=False)): assert np.abs(got.astype(int)-want).mean()<4
    half = read_video(path, height=want.shape[1]//2)[0]
    assert half.shape==(3, want.shape[1]//2, want.shape[2]//2, 3)


def test_mirrored_film(tmp_path):
    "The front camera of some phones mirrors: patch the matrix in the file's track header"
    frames = film(3, 64, 96)
    path = write(tmp_path/'a.mp4', frames, turn=180, crf=4)
    one = (65536).to_bytes(4, 'big')
    minus = (-65536).to_bytes(4, 'big', signed=True)
    data, none = path.read_bytes(), bytes(4)
    i = data.index(b'tkhd')
    j = data.index(minus+none*3+minus, i)
    path.write_bytes(data[:j]+minus+none*3+one+data[j+20:])
    assert np.abs(read_video(path)[0].astype(int)-frames[:,:,::-1]).mean()<4


def test_wide_pixels_are_made_square(tmp_path):
    with av.open(str(tmp_path/'a.mp4'), 'w') as c:
        s = c.add_stream('libx264', rate=25)
        s.width, s.height, s.pix_fmt, s.codec_context.sample_aspect_ratio = 72, 96, 'yuv420p', Fraction(4, 3)
        for f in film(3, 96, 72): c.mux(s.encode(av.VideoFrame.from_ndarray(f, 'rgb24')))
        c.mux(s.encode(None))
    assert probe(tmp_path/'a.mp4').width==96 and read_video(tmp_path/'a.mp4')[0].shape==(3, 96, 96, 3)


@pytest.mark.parametrize('rate', ['24000/1001', '30000/1001', '60000/1001', '25', '240', '25/2'])
@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_fractional_rates_stay(tmp_path, rate, suffix):
    info = probe(write(tmp_path/f'a{suffix}', film(50, 32, 32), rate=Fraction(rate)))
    assert (info.fps, info.variable_rate, info.frames)==(Fraction(rate), False, 50)


def test_variable_rate_keeps_events_in_place(tmp_path):
    "A flash at 1.0 s stays within half a frame, however the frames before it fell"
    rng = np.random.default_rng(0)
    ms = np.cumsum(np.r_[500, rng.choice([31, 32, 36, 64, 96], 60)]) # the film's own clock starts at 0.5 s
    t = (ms-ms[0])/1000
    frames = np.zeros((61, 32, 32, 3), np.uint8)
    flash = int(np.argmin(np.abs(t-1)))
    frames[flash] = 255
    path = write(tmp_path/'a.mkv', frames, pts=ms, tick=Fraction(1, 1000), crf=4, bf=0)
    info = probe(path)
    assert info.variable_rate and info.frames==61 and abs(info.start_s-.5)<.002
    for fps in (None, 60, 25):
        got, t_s = read_video(path, fps=fps, gray=True)
        assert len(got)==info.count(fps) and np.allclose(np.diff(t_s), 1/float(fps or info.fps))
        seen = t_s[got.mean((1, 2))>128]
        assert len(seen) and np.abs(seen-t[flash]).min()<=.5/float(fps or info.fps)+.001
    window, t_w = read_video(path, fps=60, gray=True, start_s=1.2, end_s=1.5)
    assert len(window)==18 and abs(t_w[0]-1.2)<1e-9


def test_windows_are_slices(tmp_path):
    path = tmp_path/'a.mp4'
    with VideoWriter(path, 60) as w:
        for f in np.concatenate([film(150)]*4): w.write(f) # 10 s, several key frames
    whole, t = read_video(path, gray=True)
    assert len(whole)==600
    for a in (0, 1, 59, 61, 299, 300, 583):
        start = round(a/60, 6)
        part, t_part = read_video(path, gray=True, start_s=start, end_s=start+16/60)
        assert np.array_equal(part, whole[a:a+16]) and t_part[0]==t[a]
    with pytest.raises(RpaError, match='there are no frames from 20'): read_video(path, start_s=20)
    for bad in (dict(start_s=-1), dict(start_s=2, end_s=2), dict(start_s=float('nan')), dict(height=0), dict(fps=0)):
        with pytest.raises(RpaError): read_video(path, **bad)


def test_frames_can_be_changed_in_place(tmp_path):
    path = write_video(tmp_path/'a.mp4', film(4), 10)
    clean = read_video(path, fps=30)[0]
    seen = []
    for _,f in read_frames(path, fps=30):
        seen.append(f.copy())
        f[:] = 0
    assert np.array_equal(np.stack(seen)[::3], clean[::3])


def said(path, **kw):
    with pytest.raises(RpaError) as e: read_video(path, **kw)
    assert str(path) in str(e.value)
    return str(e.value)


def test_bad_files_say_what_is_wrong(tmp_path):
    def make(name, data):
        (tmp_path/name).write_bytes(data)
        return tmp_path/name
    good = write(tmp_path/'good.mp4', film(60), crf=4).read_bytes()
    assert 'no such file' in said(tmp_path/'gone.mp4')
    assert 'this is a folder' in said(tmp_path)
    assert 'empty (0 bytes)' in said(make('empty.mp4', b''))
    for name in ('notes.mp4', 'notes.txt', 'table.csv'): assert 'not a film' in said(make(name, b'Monday: ten laps\n'*200))
    assert 'not a film' in said(make('noise.mp4', np.random.default_rng(0).bytes(50_000)))
    assert 'not a film' in said(make('list.m3u8', b'#EXTM3U\n#EXTINF:1,\ngood.mp4\n'))
    assert 'not a film' in said(make('join.mp4', b"ffconcat version 1.0\nfile 'good.mp4'\n"))
    late_index = write(tmp_path/'late.mov', film(60), crf=4).read_bytes()
    assert 'its index is missing' in said(make('cut.mov', late_index[:len(late_index)//2]))
    assert 'cut off' in said(make('cut.mp4', good[:len(good)*2//3]))
    with pytest.raises(RpaError, match='cut off|damaged'): read_clip(tmp_path/'cut.mp4')
    with pytest.raises(RpaError, match='no such file'): read_clip(tmp_path/'gone.mp4')


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.avi', 'a.webm'])
def test_cut_off_films(tmp_path, name):
    kind = {'a.avi':KINDS['mjpeg.avi'], 'a.webm':KINDS['vp9.webm']}.get(name, dict(crf=4))
    path = write(tmp_path/name, film(90), **kind)
    whole = read_video(path)[0]
    path.write_bytes(path.read_bytes()[:path.stat().st_size*6//10])
    assert 'cut off' in said(path)
    info = probe(path, partial=True)
    part = read_video(path, partial=True)[0]
    assert 20<info.frames<90 and info.missing>5 and info.frames-1<=len(part)<=info.frames+1
    assert np.array_equal(part[:20], whole[:20])


def test_damage_in_the_middle(tmp_path):
    path = write(tmp_path/'a.mp4', film(90, 240, 320), crf=10, g=30)
    data = bytearray(path.read_bytes())
    i = data.index(b'mdat')+(len(data)-data.index(b'mdat'))//2
    data[i:i+4000] = bytes(4000)
    path.write_bytes(data)
    assert 'damaged at' in said(path)
    frames, t_s = read_video(path, partial=True)
    assert 30<len(frames)<90 and t_s[-1]>2.9 and np.diff(t_s).max()>1.5/30 # the time of the others is kept


@pytest.mark.parametrize('name, codec', [('a.webm', 'libvpx'), ('a.mkv', 'libx264')])
def test_recorded_live(tmp_path, name, codec):
    "As a browser records: no index, no length"
    frames = film(40)
    with av.open(str(tmp_path/name), 'w', options={'live':'1'}) as c:
        s = c.add_stream(codec, rate=30)
        s.height, s.width, s.pix_fmt = *frames[0].shape[:2], 'yuv420p'
        for f in frames: c.mux(s.encode(av.VideoFrame.from_ndarray(f, 'rgb24')))
        c.mux(s.encode(None))
    with av.open(str(tmp_path/name)) as c: assert c.duration is None
    info, got = probe(tmp_path/name), read_video(tmp_path/name)[0]
    assert (info.frames, info.fps, info.missing, len(got)) == (40, 30, 0, 40)


@pytest.mark.parametrize('name, codec', [('a.webm', 'libvpx'), ('a.avi', 'mpeg4'), ('a.mjpeg', 'mjpeg'), ('a.mp4', 'libx264')])
def test_whatever_is_in_a_file_the_error_is_ours(tmp_path, name, codec):
    path = write(tmp_path/name, film(8, 48, 64), codec, 'yuvj420p' if codec=='mjpeg' else 'yuv420p')
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for n in np.tile([1, 3, 10, 60], 15):
        bad = np.frombuffer(data, np.uint8).copy()
        at = rng.integers(0, rng.choice([300, len(bad)]), n)
        bad[at%len(bad)] = rng.integers(0, 256, n)
        path.write_bytes(bad[:rng.choice([len(bad), rng.integers(20, len(bad))], p=[.8, .2])].tobytes())
        for partial in (False, True):
            with suppress(RpaError):
                probe(path, partial)
                for _ in islice(read_frames(path, partial=partial), 40): pass
        with suppress(RpaError): read_clip(path)


def test_sound_only_and_cover_pictures(tmp_path):
    def sound(c):
        s = c.add_stream('aac', rate=16000, layout='mono')
        f = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
        f.sample_rate = 16000
        return [*s.encode(f), *s.encode(None)]
    with av.open(str(tmp_path/'a.m4a'), 'w') as c: c.mux(sound(c))
    assert 'sound only' in said(tmp_path/'a.m4a')
    with av.open(str(tmp_path/'b.m4a'), 'w', format='mp4') as c:
        s = c.add_stream('mjpeg', rate=1)
        s.width, s.height, s.pix_fmt, s.disposition = 32, 32, 'yuvj420p', av.stream.Disposition.attached_pic
        packets = sound(c)
        c.mux(s.encode(av.VideoFrame.from_ndarray(film(1, 32, 32)[0], 'rgb24').reformat(format='yuvj420p')))
        c.mux(s.encode(None)+packets)
    assert 'sound only' in said(tmp_path/'b.m4a')


def test_no_frames(tmp_path):
    with av.open(str(tmp_path/'a.mp4'), 'w') as c:
        s = c.add_stream('libx264', rate=30)
        s.width, s.height, s.pix_fmt = 32, 32, 'yuv420p'
        c.start_encoding()
    assert 'no frames' in said(tmp_path/'a.mp4') or 'no video' in said(tmp_path/'a.mp4')


def test_one_frame_and_one_pixel(tmp_path):
    path = write_video(tmp_path/'one.mp4', film(1), 30)
    info = probe(path)
    assert (info.frames, info.fps, info.variable_rate) == (1, 30, False) and abs(info.duration_s-1/30)<1e-6
    assert read_video(path)[0].shape==(1, 96, 128, 3) and read_clip(path).shape==(1, 96, 128)
    path = write_video(tmp_path/'pixel.mp4', np.full((3, 1, 1, 3), 200, np.uint8), 30)
    got = read_video(path)[0]
    assert got.shape==(3, 2, 2, 3) and np.abs(got.astype(int)-200).max()<=3
    pixel = write(tmp_path/'pixel.mkv', np.full((3, 1, 1, 3), 200, np.uint8), codec='ffv1', pix_fmt='yuv444p')
    assert read_video(pixel)[0].shape==(3, 1, 1, 3) and read_video(pixel, height=1)[0].shape==(3, 1, 2, 3)


@pytest.mark.slow
def test_4k_needs_little_memory(tmp_path):
    frame = cv2.resize(film(1)[0], (3840, 2160))
    with VideoWriter(tmp_path/'a.mp4', 30) as w:
        for i in range(90): w.write(np.roll(frame, i, 1))
    code = f'''
import resource
from rpa.video import read_frames
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert sum(f.shape==(2160, 3840, 3) for _,f in read_frames(r'{tmp_path}/a.mp4'))==90
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-base)'''
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert int(out)<800_000, f'{int(out)/1000} MB; all frames would be 2240 MB' # kB
    small = read_video(tmp_path/'a.mp4', height=270, end_s=.1)[0]
    assert small.shape==(3, 270, 480, 3)


def test_bad_writes(tmp_path):
    with pytest.raises(RpaError, match='written as .mp4'): write_video(tmp_path/'a.avi', film(2), 30)
    with pytest.raises(RpaError, match='must be > 0 Hz'): write_video(tmp_path/'a.mp4', film(2), 0)
    with pytest.raises(RpaError, match='must be uint8'): write_video(tmp_path/'a.mp4', [np.zeros((0, 4, 3), np.uint8)], 30)
    with pytest.raises(RpaError, match='there are no pictures'): contact_sheet([])
    with pytest.raises(RpaError, match='.png or .jpg'): save_image(tmp_path/'a.gif', film(1)[0])
    with pytest.raises(KeyboardInterrupt):
        with VideoWriter(tmp_path/'a.mp4', 30) as w:
            w.write(film(1)[0])
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_full_disk(tmp_path):
    d = tmp_path/'disk'
    d.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=128k', 'tmpfs', d]
    if os.name!='posix' or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('mounting a small disk needs root')
    try:
        noise = np.random.default_rng(0).integers(0, 256, (16, 224, 224, 3), dtype=np.uint8)
        with pytest.raises(RpaError, match=r'cannot write .*a.mp4: the disk is full'): write_video(d/'a.mp4', noise, 60)
        assert not list(d.iterdir())
    finally: subprocess.run(['umount', d], check=True)


def test_proxy_is_made_again_when_something_changed(tmp_path):
    src = write_video(tmp_path/'src.mp4', film(30), 60)
    def made(**kw):
        make_proxy(src, tmp_path/'p.mp4', **kw)
        return probe(tmp_path/'p.mp4'), (tmp_path/'p.mp4').stat().st_mtime_ns
    first, when = made(height=48)
    assert (first.height, first.width, first.fps, first.frames)==(48, 64, 30, 15)
    assert made(height=48)[1]==when
    assert made(height=24)[0].height==24
    assert made()[0].height==96 # never enlarged
    write_video(src, film(30, seed=1), 60)
    changed = made()
    assert made()[1]==changed[1]>when
    (tmp_path/'p.mp4').write_bytes(b'')
    assert made()[0].frames==15


def test_the_film_that_ships():
    info = probe(SPORTS2D)
    assert (info.codec, info.width, info.height, info.fps, info.frames, info.audio)==('vp9', 1768, 994, 30, 230, True)


@needs_data
def test_real_films():
    for name,fps,frames in (('Subject_1_Fall_13', 30, 128), ('Subject_2_ADL_23', 15, 109), ('Subject_1_ADL_10', 30, 115)):
        info = probe(DATA/f'action/gmdcsa24/{name}.mp4')
        assert info.variable_rate and info.fps==fps and info.frames==frames
        got, t_s = read_video(info.path, height=120, gray=True)
        assert len(got)==info.count() and abs(t_s[-1]-info.duration_s)<1.5/fps
    a = read_video(DATA/'run/gaitlab/male_side.mp4', start_s=5, end_s=5.5)[0]
    assert a.shape==(15, 1280, 720, 3)


@needs_data
def test_full_range_of_a_real_film():
    path = DATA/'action/gmdcsa24/Subject_1_Fall_13.mp4'
    _,f = next(read_frames(path, gray=True))
    _,rgb = next(read_frames(path))
    with av.open(str(path)) as c: y = np.frombuffer(next(c.decode(video=0)).planes[0], np.uint8).reshape(480, 640)
    assert np.abs(f-rgb@GRAY).mean()<1 and np.array_equal(f, y)


@needs_data
def test_clip_quality_on_real_feet(tmp_path):
    film = read_frames(DATA/'run/gaitlab/male_side.mp4', start_s=1, end_s=1+16/30)
    crops = [cv2.resize(f[760:1180, 150:570], (224, 224)) for _,f in film]
    write_video(tmp_path/'a.mp4', crops, 30, CLIP_CRF)
    err = read_clip(tmp_path/'a.mp4')-np.stack(crops)@GRAY
    assert 10*np.log10(255**2/(err**2).mean())>42 and np.abs(err).mean()<1.5 and abs(err.mean())<.1
