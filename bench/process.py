"""Wall time of `rpa process` against decoding plus bare pose inference on the same video.

    python bench/process.py [VIDEO …]        default: the two running videos in ../shared/data/run

Bare pose inference is the time inside the two pose models' interpreters and their input scaling, on frames held in memory, one
after the other, called exactly as often as `rpa process` calls them. Decoding is reading every frame once. `rpa process` does
all of its work: people, tracks, clips, manifest, contact sheet and overlay video. Best of three.
"""
import os, platform, sys, tempfile, time
from pathlib import Path

import rpa
from rpa.pose import PoseEstimator, track_people
from rpa.processing import ProcessConfig, process_video
from rpa.video import probe, read_frames

DATA = Path(rpa.__file__).parents[1]/'../shared/data/run'


def timed(f, times=3):
    "Shortest wall time of `f`, s"
    best = float('inf')
    for _ in range(times):
        t = time.perf_counter()
        f()
        best = min(best, time.perf_counter()-t)
    return best


def bare_pose(src):
    "Seconds inside the pose models for this video"
    spent, frames, info = [0.], list(read_frames(src)), probe(src)
    def clock(f):
        def g(*a, **kw):
            t = time.perf_counter()
            try: return f(*a, **kw)
            finally: spent[0] += time.perf_counter()-t
        return g
    old = PoseEstimator.detect, PoseEstimator.landmarks
    PoseEstimator.detect, PoseEstimator.landmarks = map(clock, old)
    try: track_people(iter(frames), info.fps, threads=1, progress=False)
    finally: PoseEstimator.detect, PoseEstimator.landmarks = old
    return spent[0]


def one(src, align):
    decode = timed(lambda: sum(1 for _ in read_frames(src)))
    pose = min(bare_pose(src) for _ in range(2))
    def run(threads, **kw):
        with tempfile.TemporaryDirectory() as dst:
            process_video(src, dst, ProcessConfig(align=align), threads=threads, show=False, **kw)
    for threads in 2, 1:
        wall = timed(lambda: run(threads))
        print(f'{Path(src).name:16} align {align:8} threads {threads}: process {wall:5.1f} s, decoding {decode:4.1f} s + pose {pose:5.1f} s: '
              f'ratio {wall/(decode+pose):.2f}', flush=True)


if __name__=='__main__':
    print(f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}')
    videos = sys.argv[1:] or [DATA/'gaitlab/male_side.mp4', DATA/'sports2d/demo.mp4']
    if missing := [v for v in videos if not Path(v).exists()]: sys.exit(f'no such video: {missing[0]}; pass one')
    for v in videos:
        for align in ('none', 'contact'): one(v, align)
