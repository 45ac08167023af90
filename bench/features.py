"""`rpa features` on a 1080p film: everything but the backbone, as a share of the time of decoding that film alone, in one run.

    python bench/features.py [SECONDS]      default: 120

The film is the shipped footage, enlarged to 1920 × 1080 at 30 Hz and repeated. The backbone is one that costs nothing (it looks at
one pixel), so that what is left is reading, scaling, batching, writing. Timed: the first run, which makes the proxy; a run with the
proxy there, for pictures every .2 s and for 16-picture clips every 1.6 s (the document's stride); the same without a proxy; a second
run on cached features. Figures are processor time of all threads, so that other work on the machine counts little, but for the process of its
own, which is by the clock. Memory is the peak of a process that reads the film, and one that reads four times as much.
"""
import os, platform, subprocess, sys, tempfile, time
from pathlib import Path

from rpa.features import Backbone, features_file
from rpa.video import VideoWriter, _frames_from, probe, read_frames

import av, cv2

FILM = Path(__file__).resolve().parents[1]/'nbs'/'demo'/'real'/'sports2d_demo.mp4'


def make_film(dst, seconds):
    "The footage at 1080p, encoded once; its packets again and again"
    frames = [cv2.resize(f, (1920, 1080)) for _,f in read_frames(FILM)]
    once = dst.with_name('once.mp4')
    if not once.exists():
        with VideoWriter(once, 30) as out:
            for f in frames: out.write(f)
    with av.open(str(once)) as c, av.open(str(dst), 'w') as out:
        src = c.streams.video[0]
        to, length = out.add_stream_from_template(src), round(len(frames)/30/src.time_base)
        for k in range(-(-seconds*30//len(frames))):
            c.seek(0)
            for p in c.demux(src):
                if p.dts is None: continue
                p.pts, p.dts, p.stream = p.pts+k*length, p.dts+k*length, to
                out.mux(p)
    return dst


def free(frames, stride_s):
    "A backbone that costs nothing"
    def net(x): return x[:,:,0,:1,:8].flatten(2).mean(1), None
    return Backbone('nothing', {}, lambda device, precision: net, frames=frames, window_s=frames/30, stride_s=stride_s, batch=32 if frames==1 else 4,
        fit='squeeze' if frames==1 else 'crop')


def clock(f, timer=time.process_time):
    start = timer()
    f()
    return timer()-start


def decode(film):
    info = probe(film)
    for _ in _frames_from(info.path, info, 0., False): pass


def peak_mb(film, cache):
    "Peak memory of a process of its own that makes features of the film"
    code = (f'import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from features import features_file, free; '
            f'features_file({str(film)!r}, free(16, 1.6), cache={str(cache)!r}); print(open("/proc/self/status").read())')
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    return int(said.split('VmHWM:')[1].split()[0])/1024


def main(seconds):
    print(f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}')
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        film, cache = make_film(d/'film.mp4', seconds), str(d/'cache')
        free(1, 1).net, features_file(film, free(1, 5.), use_proxy=False, cache=cache) # what is imported late
        alone = min(clock(lambda: decode(film)) for _ in range(2))
        print(f'{seconds} s of 1920 × 1080 at 30 Hz; decoding alone {alone:.1f} s of one core')
        def show(what, t): print(f'{what:52} {t:7.2f} s  {t/alone:6.1%} of decoding alone')
        show('first run: proxy made, pictures every .2 s', clock(lambda: features_file(film, free(1, .2), cache=cache)))
        show('proxy there: pictures every .2 s', clock(lambda: features_file(film, free(1, .21), cache=cache)))
        show('proxy there: 16 pictures every 1.6 s', clock(lambda: features_file(film, free(16, 1.6), cache=cache)))
        show('proxy there: every picture', clock(lambda: features_file(film, free(1, 1/30), cache=cache)))
        show('no proxy: pictures every .2 s', clock(lambda: features_file(film, free(1, .2), use_proxy=False, cache=cache)))
        show('second run, features in the cache', clock(lambda: features_file(film, free(1, .2), cache=cache)))
        again = [sys.executable, '-c', f'from rpa.features import video_features; video_features({str(film)!r}, stride_s=5., cache={cache!r})']
        subprocess.run(again, check=True)
        t = min(clock(lambda: subprocess.run(again, check=True), time.perf_counter) for _ in range(3))
        print(f'  the same as a process of its own, imports and all: {t:.2f} s by the clock')
        long = make_film(d/'long.mp4', 4*seconds)
        a, b = peak_mb(film, d/'c1'), peak_mb(long, d/'c2')
        print(f'peak memory {a:.0f} MB for {seconds} s of film, {b:.0f} MB for {4*seconds} s')


if __name__=='__main__': main(int(sys.argv[1]) if len(sys.argv)>1 else 120)
