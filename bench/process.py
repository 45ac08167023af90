"""Wall time of `rpa process` against decoding plus bare pose inference on the same video.

    python bench/process.py [VIDEO …]        default: the one that ships, and the treadmill runner of ../shared/data/run where it is

Bare pose inference is the time in the two pose models with what turns pictures into their input and their output into people
and landmarks, on frames held in memory, one after the other, called exactly as often as `rpa process` calls them. Decoding is reading every frame once. `rpa process` does
all of its work: people, tracks, clips, manifest, contact sheet and overlay video. Wall time, and processor time of all threads,
which other work on the machine disturbs less. Best of `--times` runs (3).
"""
import os, platform, sys, tempfile, time
from pathlib import Path

import rpa
from rpa.pose import PoseEstimator, track_people
from rpa.processing import ProcessConfig, process_video
from rpa.video import probe, read_frames

ROOT = Path(rpa.__file__).parents[1]
TREADMILL = ROOT/'../shared/data/run/gaitlab/male_side.mp4'


class Cost:
    "Wall and processor time of a block, s"
    def __enter__(self): self.start = time.perf_counter(), time.process_time(); return self
    def __exit__(self, *_): self.wall, self.cpu = time.perf_counter()-self.start[0], time.process_time()-self.start[1]


def least(f):
    "Shortest (wall, processor) time of `f`, s"
    costs = []
    for _ in range(TIMES):
        with Cost() as c: f()
        costs.append((c.wall, c.cpu))
    return [min(x) for x in zip(*costs)]


def bare_pose(frames, fps):
    "(wall, processor) time inside the pose models for this video, s"
    spent = [0., 0.]
    def clock(f):
        def g(*a, **kw):
            with Cost() as c: out = f(*a, **kw)
            spent[0], spent[1] = spent[0]+c.wall, spent[1]+c.cpu
            return out
        return g
    old = PoseEstimator.detect, PoseEstimator.landmarks
    PoseEstimator.detect, PoseEstimator.landmarks = map(clock, old)
    try: track_people(iter(frames), fps, threads=1, progress=False)
    finally: PoseEstimator.detect, PoseEstimator.landmarks = old
    return spent


def one(src, align):
    decode = least(lambda: sum(1 for _ in read_frames(src)))
    frames = list(read_frames(src))
    pose = [min(x) for x in zip(*(bare_pose(frames, probe(src).fps) for _ in range(TIMES)))]
    del frames
    def run(threads):
        with tempfile.TemporaryDirectory() as dst:
            process_video(src, dst, ProcessConfig(align=align), threads=threads, show=False)
    for threads in 2, 1:
        ours = least(lambda: run(threads))
        for kind,a,b,c in zip(('wall', 'processor'), ours, decode, pose):
            print(f'{Path(src).name:14} align {align:8} threads {threads} {kind:9} process {a:5.1f} s, '
                  f'decoding {b:4.1f} + pose {c:5.1f} s: ratio {a/(b+c):.2f}', flush=True)


if __name__=='__main__':
    print(f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}')
    args = sys.argv[1:]
    TIMES = int(args.pop(args.index('--times')+1)) if '--times' in args else 3
    videos = [a for a in args if a!='--times'] or [*filter(Path.exists, [TREADMILL]), ROOT/'nbs/demo/real/sports2d_demo.mp4']
    if missing := [v for v in videos if not Path(v).exists()]: sys.exit(f'no such video: {missing[0]}; pass one')
    for v in videos:
        for align in ('none', 'contact'): one(v, align)
