"""Augmenting clips against encoding alone and against the naive way, in one run.

    python bench/augment.py [--clips 4] [--versions 25] [--rounds 3]

Three ways write the same number of versions of the same synthetic clips (16 frames, 224x224), in turns:
  augment   `rpa.augment`: decode once, one channel, one warp, one table of values, H.264
  encode    the floor: the same frames, already augmented and in memory, through the same writer, nothing else
  naive     for every version: decode the clip with OpenCV, then convert, flip, change, blur, turn, enlarge and cut out
            frame by frame in colour, and write H.264 with libx264's own preset at the same CRF
Figures are the best of the rounds, since a shared machine only ever adds time. Processor time is shown beside wall time:
on a busy machine it is the steadier of the two.
"""
import argparse, io, os, platform, shutil, tempfile, time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import av
import cv2
import numpy as np

from rpa.augment import apply_params, augment, draw_params, version_name, version_seed
from rpa.core import ClipName, sha256, write_manifest
from rpa.video import CLIP_CRF, read_clip, write_video


def machine():
    "Processor, cores, system"
    info = Path('/proc/cpuinfo')
    cpu = next((l.split(':')[1].strip() for l in info.read_text().splitlines() if l.startswith('model name')),
               platform.processor()) if info.exists() else platform.processor()
    return f'{cpu}, {os.cpu_count()} cores, {platform.system()}, load {os.getloadavg()[0]:.1f}'


def film(seed):
    "A textured ground that passes under a swinging leg, with camera noise, RGB (16, 224, 224, 3)"
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.integers(0, 256, (224, 800, 3), np.uint8), (0, 0), 2)
    ground = cv2.normalize(ground, None, 60, 190, cv2.NORM_MINMAX)
    out = np.empty((16, 224, 224, 3), np.uint8)
    for t,f in enumerate(out):
        f[:] = ground[:,12*t:12*t+224]
        a = np.radians(30-4*t+5*seed)
        knee, ankle = (112, 40), (int(112+110*np.sin(a)), int(40+110*np.cos(a)))
        cv2.line(f, knee, ankle, (190,140,110), 30, cv2.LINE_AA)
        cv2.ellipse(f, (ankle[0]+18, ankle[1]+14), (42, 16), 10-t, 0, 360, (40,40,60), -1, cv2.LINE_AA)
        f[:] = np.clip(f+rng.normal(0, 3, f.shape), 0, 255)
    return out


def make_clips(folder, n):
    "Clips and their manifest"
    rows = []
    for i in range(n):
        c = ClipName(f'{i:02d}SY', 'RUN1', 'CAM1', 'lap_001', 0, i%2)
        write_video(folder/c.file, film(i), 60)
        rows.append(dict(file=c.file, sha256=sha256(folder/c.file), source=c.source, source_sha256='', runner=c.runner,
            run=c.run, camera=c.camera, lap=c.lap, track=0, clip=0, label=c.label, start_s=0., end_s=16/60, fps='60/1',
            frames=16, settings='bench'))
    write_manifest(rows, folder)
    return [r['file'] for r in rows]


def write_plainly(path, frames):
    "H.264 as most scripts write it: RGB in, libx264's default preset, threads as it likes"
    with av.open(str(path), 'w', options={'movflags':'+faststart'}) as out:
        s = out.add_stream('libx264', rate=60, options={'crf':str(CLIP_CRF)})
        s.width, s.height, s.pix_fmt = frames[0].shape[1], frames[0].shape[0], 'yuv420p'
        for f in frames: out.mux(s.encode(av.VideoFrame.from_ndarray(f, 'rgb24')))
        out.mux(s.encode(None))


def naive_frame(f, p):
    "One frame, one operation after the other, in colour"
    h, w = f.shape[:2]
    f = cv2.cvtColor(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if p.flip: f = cv2.flip(f, 1)
    if (p.brightness, p.contrast)!=(1, 1): f = cv2.convertScaleAbs(f, alpha=p.brightness*p.contrast, beta=128*(1-p.contrast))
    if p.sigma_px: f = cv2.GaussianBlur(f, (0, 0), p.sigma_px)
    for angle,scale in ((p.angle_deg, 1.), (0., p.scale)):
        if (angle, scale)!=(0, 1): f = cv2.warpAffine(f, cv2.getRotationMatrix2D((w/2, h/2), angle, scale), (w, h),
                                                      borderMode=cv2.BORDER_REFLECT_101)
    if p.cutout:
        x, y, a, b = (int(v*s) for v,s in zip(p.cutout, (w, h, w, h)))
        f[y:y+b,x:x+a] = 128
    return f


def naive(src, dst, files, versions, write=True):
    "Decode and apply for every version"
    for file in files:
        for v in range(versions):
            cap, frames, p = cv2.VideoCapture(str(src/file)), [], draw_params(version_seed(file, v))
            while (got := cap.read())[0]: frames.append(naive_frame(cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB), p))
            cap.release()
            if write: write_plainly(dst/version_name(file, v), frames)


def ours_without_writing(src, files, versions):
    "Decode once and apply"
    for file in files:
        frames = read_clip(src/file)
        for v in range(versions): apply_params(frames, draw_params(version_seed(file, v)))


def timed(f, *a):
    wall, cpu = time.perf_counter(), time.process_time()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()): f(*a)
    return time.perf_counter()-wall, time.process_time()-cpu


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def main():
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name,default in (('clips', 4), ('versions', 25), ('rounds', 3)): arg.add_argument(f'--{name}', type=int, default=default)
    a = arg.parse_args()
    with tempfile.TemporaryDirectory() as d:
        src, dst = fresh(Path(d)/'src'), Path(d)/'dst'
        files = make_clips(src, a.clips)
        ready = [(version_name(f, v), apply_params(read_clip(src/f), draw_params(version_seed(f, v))))
                 for f in files for v in range(a.versions)]
        def encode():
            for name,frames in ready: write_video(dst/name, frames, 60)
        ways = dict(augment=lambda: augment(str(src), str(dst), versions=a.versions), encode=encode,
                    naive=lambda: naive(src, dst, files, a.versions),
                    naive_in_memory=lambda: naive(src, dst, files, a.versions, False),
                    ours_in_memory=lambda: ours_without_writing(src, files, a.versions))
        times = {k:[] for k in ways}
        for _ in range(a.rounds):
            for k,f in ways.items():
                fresh(dst)
                times[k].append(timed(f))
    n = len(ready)
    wall, cpu = ({k:min(x[i] for x in t) for k,t in times.items()} for i in (0, 1))
    def ratio(a, b): return f'{wall[a]/wall[b]:.2f} x (processor time {cpu[a]/cpu[b]:.2f} x)'
    print(machine())
    print(f'{a.clips} synthetic clips x {a.versions} versions, 16 frames 224x224, CRF {CLIP_CRF}, one process, best of {a.rounds}')
    for k in ways: print(f'  {k:<16}{n/wall[k]:8.1f} clips/s {1e3*wall[k]/n:8.1f} ms a clip, {1e3*cpu[k]/n:6.1f} ms of processor')
    print(f"augment takes {ratio('augment', 'encode')} the time of encoding alone; wanted: at most 1.3")
    print(f"the naive way takes {ratio('naive', 'augment')} the time of augment; wanted: at least 3")
    print(f"without encoding it takes {ratio('naive_in_memory', 'ours_in_memory')} the time")


if __name__=='__main__': main()
