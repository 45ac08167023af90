"Shared footage and hand-made people for the tests of pose and contacts"
from functools import cache
from pathlib import Path
import numpy as np
import pytest
import rpa
from rpa.pose import Track, lm, track_people

ROOT = Path(rpa.__file__).parents[1]
RUN = ROOT/'../shared/data/run'
HERE = {'sports2d/demo.mp4': ROOT/'nbs/demo/real/sports2d_demo.mp4', # Sports2D, BSD-3, also in the repository
        'sports2d/demo.contacts.csv': ROOT/'tests/sports2d_demo.contacts.csv'} # labelled for this project, ±2 frames

def footage(name):
    p = HERE.get(name, RUN/name)
    if not p.exists(): pytest.skip(f'{name} is not here (test footage in ../shared/data/run)')
    return p

@cache
def _tracked(path): return tuple(track_people(path, progress=False))

def tracked(name): return list(_tracked(footage(name)))

def runner(n=90, fps=30, hz=1.4, speed=0., turn=1, size=180, lag=.5):
    "A hand-made runner in side view whose feet go back and forth like a pendulum; heels are foremost at k/hz (L) and (k+lag)/hz (R)"
    t, k = np.arange(n)/float(fps), size/180
    xy = np.full((n,33,2), np.nan)
    hip = np.stack([300+speed*t, np.full(n, 200.)], 1)
    def put(name, dx, dy): xy[:,lm(name)] = hip+k*np.stack([turn*np.broadcast_to(dx, n), np.broadcast_to(dy, n)], 1)
    for s,off in (('left', 0), ('right', lag)):
        ph = (t*hz+off)%1
        a, bend = .45*np.cos(2*np.pi*ph), .9*np.clip(-np.sin(2*np.pi*ph), 0, 1)
        knee = 44*np.sin(a), 44*np.cos(a)
        ank = knee[0]+44*np.sin(a-bend), knee[1]+44*np.cos(a-bend)
        c, d = np.cos(a-bend), -np.sin(a-bend)
        put(f'{s}_shoulder', 0, -52); put(f'{s}_hip', 0, 0); put(f'{s}_ear', 0, -75)
        put(f'{s}_knee', *knee); put(f'{s}_ankle', *ank)
        put(f'{s}_heel', ank[0]-9*c, ank[1]-9*d+5); put(f'{s}_foot_index', ank[0]+18*c, ank[1]+18*d+6)
    put('nose', 8, -72)
    return Track(1, np.arange(n), t, xy, np.isfinite(xy[...,0])*1., np.tile([200,100,400,300], (n,1)), np.zeros(n, bool), fps, 1280, 480, 'hand-made')
