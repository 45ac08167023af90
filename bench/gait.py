"""`rpa gait` on 1080p60: everything but the pose, as a share of the time of the pose, in one run.

    python bench/gait.py [SECONDS]      default: 20; 60 is the minute of the target

The film is the shipped footage, enlarged to 1920 × 1080 at 60 Hz and repeated. Three parts are timed: finding the people (decoding and pose
networks, what `rpa gait` cannot do without), judging with JSON and page (which reads the film again for the pictures of the contacts), and the drawn film.
"""
import os, platform, sys, tempfile, time
from dataclasses import replace
from pathlib import Path

from rpa.coach import GaitAnalyzer, save_result
from rpa.pose import track_people
from rpa.video import VideoWriter, read_frames

import cv2

FILM = Path(__file__).resolve().parents[1]/'nbs'/'demo'/'real'/'sports2d_demo.mp4'


def make_film(dst, seconds):
    "The part of the footage in which the woman walks, at 60 Hz, again and again"
    frames = [cv2.resize(f, (1920, 1080)) for i,(_,f) in enumerate(read_frames(FILM)) if 40<=i<190]
    with VideoWriter(dst, 60) as out:
        for k in range(seconds*60): out.write(frames[(k//2)%len(frames)])


def clock(f):
    start = time.perf_counter()
    out = f()
    return out, time.perf_counter()-start


if __name__=='__main__':
    seconds = int(sys.argv[1]) if len(sys.argv)>1 else 20
    print(f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}')
    with tempfile.TemporaryDirectory() as d:
        film, stem = Path(d)/'film.mp4', str(Path(d)/'out')
        make_film(film, seconds)
        tracks, pose = clock(lambda: track_people(film, progress=False))
        tracks = [replace(t, source=film.name) for t in tracks]
        r, judged = clock(lambda: GaitAnalyzer().analyze_track(tracks, 'video'))
        _, page = clock(lambda: save_result(r, stem, film, video=False))
        _, both = clock(lambda: save_result(r, stem, film))
        print(f'{seconds} s of 1920 × 1080 at 60 Hz: {r.cycle}, {len(r.contacts)} contacts')
        for what,t in (('pose', pose), ('judging', judged), ('JSON and page', page), ('JSON, page and drawn film', both)):
            print(f'{what:26} {t:7.2f} s  {t/pose:6.1%} of the pose')
        print(f'everything but the pose: {(judged+page)/pose:.1%} without the drawn film, {(judged+both)/pose:.1%} with it')
