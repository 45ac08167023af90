"""Reading clips and films, and writing clips, against the usual ways, in one run.

    python bench/video.py [--clips 16] [--rounds 7] [--film FILM]

  read_clip    16 grey frames of 224x224 from a clip of ours, against PyAV (`to_ndarray('rgb24')`, then OpenCV's grey) and
               against OpenCV alone (`VideoCapture`, then grey); beside it the same clip encoded with x264's preset
               `veryfast` at the same quality of the picture, to show what `quick` buys
  write_video  16 RGB frames to a clip, against libx264 alone on frames that are already YUV (the floor), and against
               its preset `veryfast`
  read_frames  RGB frames of a 1280x720 film with exact colours, against OpenCV's `VideoCapture`
Figures are processor time, the best of the rounds, so that other work on the machine counts little.
"""
import argparse, os, platform, tempfile, time
from pathlib import Path

import av, cv2
import numpy as np

from rpa.video import CLIP_CRF, VideoWriter, read_clip, read_frames, write_video


def machine():
    "Processor, cores, system"
    info = Path('/proc/cpuinfo')
    cpu = next((l.split(':')[1].strip() for l in info.read_text().splitlines() if l.startswith('model name')),
               platform.processor()) if info.exists() else platform.processor()
    return f'{cpu}, {os.cpu_count()} cores, {platform.system()}, load {os.getloadavg()[0]:.1f}'


def film(seed, n=16, h=224, w=224):
    "A textured ground that passes under a leg, with camera noise, RGB"
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.integers(0, 256, (h, w+8*n, 3), np.uint8), (0, 0), 2)
    ground = cv2.normalize(ground, None, 60, 190, cv2.NORM_MINMAX)
    out = np.empty((n, h, w, 3), np.uint8)
    for t,f in enumerate(out):
        f[:] = ground[:,8*t:8*t+w]
        cv2.line(f, (w//2, 0), (w//2-w//4+t*w//(2*n), h*2//3), (190, 140, 110), w//8, cv2.LINE_AA)
        f[:] = np.clip(f+rng.normal(0, 3, f.shape), 0, 255)
    return out


def encode(path, frames, preset='veryfast', crf=CLIP_CRF, **params):
    "libx264 alone, on YUV frames"
    with av.open(str(path), 'w', options={'movflags':'+faststart'}) as c:
        s = c.add_stream('libx264', rate=60, options=dict(crf=str(crf), preset=preset, **params))
        s.width, s.height, s.pix_fmt, s.codec_context.thread_count = frames[0].width, frames[0].height, 'yuv420p', 1
        for i,f in enumerate(frames):
            f.pts = i
            c.mux(s.encode(f))
        c.mux(s.encode(None))


def pyav_gray(path):
    with av.open(str(path)) as c:
        return np.stack([cv2.cvtColor(f.to_ndarray(format='rgb24'), cv2.COLOR_RGB2GRAY) for f in c.decode(video=0)])


def opencv(path, code):
    c, out = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]), []
    while True:
        ok, f = c.read()
        if not ok: return out
        out.append(cv2.cvtColor(f, code))


def best(rounds, **ways):
    "Best processor time of each way, s, all ways in turns"
    t = {k:[] for k in ways}
    for _ in range(rounds):
        for k,f in ways.items():
            a = time.process_time()
            f()
            t[k].append(time.process_time()-a)
    return {k:min(v) for k,v in t.items()}


def show(title, t, n, unit, ours):
    print(f'\n{title}')
    for k,v in t.items(): print(f'  {k:28s} {n/v:9.1f} {unit}/s   {v/t[ours]:5.2f} x the time of {ours}')


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--clips', type=int, default=16)
    ap.add_argument('--rounds', type=int, default=7)
    ap.add_argument('--film', default=None, help='a film of your own for read_frames; else a made one, 1280x720')
    a = ap.parse_args()
    cv2.setNumThreads(1)
    print(machine())
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        clips = [film(i) for i in range(a.clips)]
        yuv = [[av.VideoFrame.from_ndarray(f, 'rgb24').reformat(format='yuv420p') for f in c] for c in clips]
        for i,c in enumerate(clips):
            write_video(d/f'{i}.mp4', c, 60)
            encode(d/f'v{i}.mp4', yuv[i], crf=CLIP_CRF-2)
        quick, slow = ([d/f'{p}{i}.mp4' for i in range(a.clips)] for p in ('', 'v'))
        t = best(a.rounds, read_clip=lambda: [read_clip(p) for p in quick],
            pyav_rgb_then_gray=lambda: [pyav_gray(p) for p in quick],
            opencv=lambda: [np.stack(opencv(p, cv2.COLOR_BGR2GRAY)) for p in quick],
            read_clip_of_veryfast=lambda: [read_clip(p) for p in slow])
        show('reading clips, grey', t, a.clips, 'clips', 'read_clip')
        params = {'x264-params':'8x8dct=1'}
        t = best(a.rounds, write_video=lambda: [write_video(d/'w.mp4', c, 60) for c in clips],
            x264_alone_same_settings=lambda: [encode(d/'e.mp4', c, 'ultrafast', **params) for c in yuv],
            x264_alone_veryfast=lambda: [encode(d/'e.mp4', c) for c in yuv])
        show('writing clips, RGB', t, a.clips, 'clips', 'write_video')
        size = {k:sum(p.stat().st_size for p in ps)/a.clips/1e3 for k,ps in dict(quick=quick, veryfast=slow).items()}
        print(f"  {size['quick']:.0f} kB a clip, veryfast {size['veryfast']:.0f} kB")
        path = a.film
        if not path:
            path = d/'film.mp4'
            with VideoWriter(path, 30) as w:
                for f in film(0, 60, 720, 1280): w.write(f)
        n = sum(1 for _ in read_frames(path))
        t = best(max(2, a.rounds//2), read_frames=lambda: sum(1 for _ in read_frames(path)),
            read_frames_gray=lambda: sum(1 for _ in read_frames(path, gray=True)),
            opencv=lambda: len(opencv(path, cv2.COLOR_BGR2RGB)))
        show('reading a film, RGB', t, n, 'frames', 'read_frames')


if __name__=='__main__': main()
