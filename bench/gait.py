"""`rpa gait` on 1080p60: everything but the pose, as a share of the pose, in one run.

    python bench/gait.py [SECONDS] [one]      default: 20; 60 is the minute of the target

The film is the shipped footage, enlarged to 1920 × 1080 at 60 Hz and repeated; `one` blurs the man in it, which leaves one pose a frame: the cheapest case for the pose.
Timed are the pose alone (decoding and networks, what `rpa gait` cannot do without); the pass of `rpa gait`, which is the pose and beside it the cuts and the small copy
for the drawn film; judging; JSON and page with the pictures of the contacts; and JSON, page and drawn film. Wall time, and processor time of all threads, which other
work on the machine disturbs less.
"""
import os, platform, sys, tempfile, time
from pathlib import Path

from rpa.coach import GaitAnalyzer, save_result, watch
from rpa.pose import track_people
from rpa.video import VideoWriter, read_frames

import cv2
import numpy as np

FILM = Path(__file__).resolve().parents[1]/'nbs'/'demo'/'real'/'sports2d_demo.mp4'


def make_film(dst, seconds, one):
    "The part of the footage in which the woman walks, at 60 Hz, again and again"
    frames = [cv2.resize(f, (1920, 1080)) for i,(_,f) in enumerate(read_frames(FILM)) if 40<=i<(180 if one else 190)]
    for f in frames if one else []: f[:525] = cv2.blur(f[:525], (301, 301))
    with VideoWriter(dst, 60) as out:
        for k in range(seconds*60): out.write(frames[(k//2)%len(frames)])


def clock(f):
    wall, cpu = time.perf_counter(), time.process_time()
    out = f()
    return out, np.array([time.perf_counter()-wall, time.process_time()-cpu])


if __name__=='__main__':
    args = sys.argv[1:]
    one, seconds = 'one' in args, next((int(a) for a in args if a.isdigit()), 20)
    print(f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}')
    with tempfile.TemporaryDirectory() as d:
        film, stem, took = Path(d)/'film.mp4', str(Path(d)/'out'), {}
        make_film(film, seconds, one)
        _, took['pose'] = clock(lambda: track_people(film, progress=False))
        (tracks, seen), took['pass of rpa gait'] = clock(lambda: watch(film, draw=True, show=False))
        r, took['judging'] = clock(lambda: GaitAnalyzer().analyze_track(tracks, 'video', cuts=seen.cuts, unsure=seen.step))
        _, took['JSON and page'] = clock(lambda: save_result(r, stem, film, seen, video=False))
        _, took['JSON, page and drawn film'] = clock(lambda: save_result(r, stem, film, seen))
        print(f'{seconds} s of 1920 × 1080 at 60 Hz: {r.cycle}, {len(r.contacts)} contacts, {len(seen.cuts)} cuts')
        for what,t in took.items():
            print(f'{what:26} wall {t[0]:7.2f} s {t[0]/took["pose"][0]:7.1%}   processor {t[1]:7.2f} s {t[1]/took["pose"][1]:7.1%} of the pose')
        rest = took['pass of rpa gait']-took['pose']+took['judging']+took['JSON, page and drawn film']
        print(f'everything but the pose: wall {rest[0]/took["pose"][0]:.1%}, processor {rest[1]/took["pose"][1]:.1%}')
