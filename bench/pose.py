"The pose chain against decoding and bare inference of the same two networks, in one run: python bench/pose.py [VIDEO]"
import os, platform, sys, time
from pathlib import Path
from rpa.pose import PoseEstimator, box_roi, track_people
from rpa.video import read_frames

def clock(f, *a):
    t = time.perf_counter()
    return f(*a), time.perf_counter()-t

def bare(src, people):
    "Decode, MoveNet on every third frame, BlazePose as often as the chain had a person; nothing else"
    est, roi = PoseEstimator(), None
    for i,(_,f) in enumerate(read_frames(src)):
        if i%3==0:
            _, boxes, _ = est.detect(f)
            roi = box_roi(boxes[0]) if len(boxes) else roi
        for _ in range(people.get(i, 0)): est.landmarks(f, roi or (f.shape[1]/2, f.shape[0]/2, f.shape[0], 0.))

def main(src):
    people = {}
    for tr in track_people(src, progress=False):
        for i in tr.frame[~tr.filled]: people[int(i)] = people.get(int(i), 0)+1
    n = sum(1 for _ in read_frames(src))
    runs = {'decoding + bare inference': lambda: bare(src, people), 'track_people, one thread': lambda: track_people(src, threads=1, progress=False),
            'track_people, two threads': lambda: track_people(src, threads=2, progress=False)}
    best = {k: min(clock(f)[1] for _ in range(3)) for k,f in runs.items()}
    floor = best['decoding + bare inference']
    print(f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {Path(src).name}: {n} frames, {sum(people.values())} poses; best of 3')
    for k,s in best.items(): print(f'{k:28s} {1000*s/n:6.1f} ms a frame  {s/floor:.2f} x')

if __name__=='__main__': main(sys.argv[1] if len(sys.argv)>1 else Path(__file__).parents[1]/'nbs/demo/real/sports2d_demo.mp4')
