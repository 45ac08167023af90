"""`rpa rally cut` on a long 1080p film: everything but the backbone, as a share of the time of decoding that film alone, in one run.

    python bench/rally.py [MINUTES]      default: 10; 60 takes half an hour

The film is the shipped footage, enlarged to 1920 × 1080 at 30 Hz and repeated. The backbone costs nothing and says play and pause in
turns, so that what is left is reading, scaling, deciding, drawing, and writing the rallies as films, copied. Figures are processor time
of all threads, so that other work on the machine counts little. Memory is the peak of a process that cuts the film, and of one that cuts
a quarter of it. The second run is `rpa rally cut` as a command with a bundle and features in the cache: time by the clock until the
rules begin, imports and all. Targets: at most 25 % of decoding, memory that does not grow, 2 s.
"""
import os, platform, subprocess, sys, tempfile, time
from itertools import count
from pathlib import Path

from features import clock, decode, make_film
from rpa.core import LabelMap
from rpa.cut import _cut_one
from rpa.features import Backbone
from rpa.intervals import PRESETS
from rpa.models import fresh_model, save_bundle
from rpa.rally import Finder
from rpa.video import probe


def free():
    "Rules over a backbone that costs nothing: ten windows of play, ten of pause"
    import torch
    seen = count()
    def net(x):
        play = torch.tensor([next(seen)//10%2 for _ in x], dtype=torch.float32)
        return x[:,:,0,:1,:8].flatten(2).mean(1), torch.stack([1-play, play, 0*play], 1)
    b = Backbone('nothing', {}, lambda device, precision: net, 16, window_s=16/30, stride_s=1.6, batch=4, fit='crop', classes=('no_play', 'play', 'service'))
    return Finder('free', PRESETS['beach'], b)


def cut_it(film, folder, **kw): return _cut_one(Path(film), free(), Path(folder)/'out', **dict(exact=False, film=True, clips=True, cache=str(Path(folder)/'cache'), show=False)|kw)


def peak_mb(film, folder):
    "Peak memory of a process of its own"
    code = f'import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from rally import cut_it; cut_it({str(film)!r}, {str(folder)!r}); print(open("/proc/self/status").read())'
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    return int(said.split('VmHWM:')[1].split()[0])/1024


AGAIN = """import time; start = time.time()
import os, sys
import rpa.intervals
real = rpa.intervals.apply_heuristics
def first(*a): print('RULES', time.time()-START, flush=True); return real(*a)
START = float(os.environ['START'])
rpa.intervals.apply_heuristics = first
from rpa.pipelines import main
sys.exit(main(sys.argv[1:]))"""


def second_run(film, folder):
    "Seconds from the start of the command to the rules, features in the cache"
    bundle = save_bundle(fresh_model(LabelMap({0:'no_play', 1:'play', 2:'service'}), grayscale=False), folder/'bundle')
    args = ['rally', 'cut', str(film), '--model', 'beach', '--bundle', str(bundle), '--cache', str(folder/'cache'), '--output', str(folder/'again'), '--no-film', '--no-clips', '--no-progress']
    def run():
        said = subprocess.run([sys.executable, '-c', AGAIN, *args], capture_output=True, text=True, env=os.environ|{'START':str(time.time())}, check=True).stdout
        return float(said.split('RULES')[1].split()[0])
    run()
    return min(run() for _ in range(3))


def main(minutes):
    print(f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}')
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        film, quarter = make_film(d/'film.mp4', 60*minutes), make_film(d/'quarter.mp4', 15*minutes)
        cut_it(make_film(d/'short.mp4', 20), d/'warm') # what is imported late
        alone = clock(lambda: decode(film))
        print(f'{minutes} minutes of 1920 × 1080 at 30 Hz, {probe(film).frames} frames; decoding alone {alone:.0f} s of one core', flush=True)
        def show(what, t): print(f'{what:52} {t:7.1f} s  {t/alone-1:+6.1%} over decoding alone', flush=True)
        show('cut, with all films', clock(lambda: cut_it(film, d/'a')))
        print(f"{'the same again, features in the cache':52} {clock(lambda: cut_it(film, d/'a')):7.1f} s")
        a, b = peak_mb(quarter, d/'b'), peak_mb(film, d/'c')
        print(f'peak memory {a:.0f} MB for {minutes/4:g} minutes of film, {b:.0f} MB for {minutes}')
        print(f'second run as a command, until the rules begin: {second_run(quarter, d):.2f} s by the clock')


if __name__=='__main__': main(int(sys.argv[1]) if len(sys.argv)>1 else 10)
