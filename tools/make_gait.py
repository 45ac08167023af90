"""Train the gait model that ships in rpa/weights/gait; a stopped run goes on where it was.

make_gait.py [DST [WORK [DATA]]]   default: rpa/weights/gait, runs/gait-weights, ../shared/data

Learns from computed runners and from people of the CMU motion capture database, both seen by drawn cameras. DATA is the
folder with `action/cmu`; the recordings that it is tested on lie beside it and are never learned from.
"""
import shutil, sys
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path
import numpy as np
from safetensors.torch import load_file
from scipy.interpolate import CubicSpline
from scipy.signal import lfilter
from tqdm import tqdm
from rpa.annotations import (Recording, _body, _events_of, _motion, _truth, load_recordings, phases_from_events,
                             save_recordings)
from rpa.coach import choose_track
from rpa.contacts import find_gait, find_stances, reach
from rpa.core import RpaError, as_fps, atomic_dir, read_json, say, settings_hash, sha256, stable_seed, write_json
from rpa.gait_train import GAIT_DECIDING, _run_parts, calibrate_gait, evaluate, read_sequences, refuse_leaks, train
from rpa.pose import LANDMARKS, Track, lm, load_tracks, read_trc, save_tracks, tidy, track_people
from rpa.sequences import FEATURES_VERSION, ONNX, GaitModel, check_gait_bundle, seal_bundle
from rpa.train import _threads, locked
from rpa.synth import ANKLE, BALL, HEEL, RunnerSpec, _foot_points, _Leg, leg_angles

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Mover:
    "Somebody who runs or walks, in space: x forwards, y up, z to the right, m"
    name:str # Also the runner's name
    pace:str # 'running' or 'walking'
    t_s:np.ndarray # (n,), s
    xyz:np.ndarray # Landmarks, (n,33,3), m
    events:list # As in `Recording`
    form:float|None = None # 0–10
    issues:dict = None # Name → 0–1
    synthetic:bool = True # Computed, not recorded


# --- computed people ---

def _runner_spec(seed, rng):
    "A runner out of a wider range than the rendered ones"
    u, s = rng.uniform, RunnerSpec.draw(seed, seed%2)
    v, cadence = float(u(1.9, 6.2)), float(u(145, 200))
    contact = (.286-.038*(min(v, 4.8)-2.8)-.012*max(0, v-4.8))*(s.height_m/1.75)**.8*u(.85, 1.15)
    contact = min(contact, 60/cadence-.02, .58*s.height_m/v) # hips do not travel farther over one foot
    pitch = float(u(-15, -4) if seed%2==0 else u(-2, 27)) # the second kind: heel and midfoot
    return replace(s, strike='forefoot' if seed%2==0 else 'heel', pitch_deg=pitch, speed_m_s=v, cadence=cadence,
        contact_s=float(contact), flatten=float(u(.12, .32)), heel_off=float(u(.4, .6)), reach=float(u(.21, .33)),
        lean_deg=float(u(-2, 16)), bounce_m=float(u(.012, .042)), swing=float((1+.06*(v-3.5))*u(.8, 1.15)),
        toe_deg=float(u(-8, 10)))


class _Leg2(_Leg):
    "A leg that lands as fast as it was drawn"
    forward, down, fall = .6, .8, 80. # of the foot, m/s; of the toes, degrees/s

    def _landing(self, k, dt):
        t, pitch = self.t_ic+k*self.T, self.pitches[k]
        phi, pivot = np.radians(pitch), HEEL if pitch>0 else BALL
        o = self._flat_x(k, pitch)+pivot*self.shoe-dt*(self.forward-1j*self.down)
        phi = phi+dt*np.radians(self.fall)*(1 if pitch>0 else -.3)
        ankle = o+np.exp(1j*phi)*(ANKLE-pivot)*self.shoe
        return np.array([*leg_angles(self.hip(t-dt), ankle, self.l1, self.l2), phi])


def _landed(motion, spec, rng):
    "The same motion with another landing"
    v = spec.speed_m_s
    speeds = dict(forward=v*rng.uniform(.12, .42), down=v*rng.uniform(.22, .42), fall=rng.uniform(50, 260))
    for side,old in motion.legs.items():
        leg = motion.legs[side] = _Leg2(old.spec, old.t_ic, old.pitches, side)
        for k,value in speeds.items(): setattr(leg, k, float(value))
        p = motion.points | {f'{side}_{k}':x for k,x in leg.points(motion.t).items()}
        foot = [p[f'{side}_{k}'] for k in ('ankle', 'phi', 'psi')]
        (p[f'{side}_heel'],), (p[f'{side}_foot_index'],) = _foot_points([.0+.09j], [.955+.06j], *foot, leg.shoe)
        motion.points = p
    return motion


def computed(
    i:int, # Number of the person
    seconds:float=5., # Length, s
)->Mover:
    "A computed person at 240 Hz with exact events"
    rng = np.random.default_rng(stable_seed('gait weights', i))
    spec = _runner_spec(10**7+2*i+(rng.uniform()>.35), rng)
    limp = float(rng.choice([-1, 1])*rng.uniform(.08, .22)) if rng.uniform()<.35 else float(rng.normal(0, .012))
    t = np.arange(round(seconds*240))/240
    motion = _landed(_motion(spec, i, t, limp), spec, rng)
    xyz = np.full((len(t), 33, 3), np.nan)
    for name,(z,left) in _body(motion).items(): xyz[:,lm(name)] = np.stack([z.real, z.imag, 0*t-left], 1)
    return Mover(f'runner{i:04d}', 'running', t, xyz, _events_of(motion, -1., seconds+1), *_truth(spec, limp))


def plausible(m, most_ms=30.):
    "Do the contacts and toe-offs that `find_gait` sees lie where they are?"
    gait = find_gait(sagittal(m))
    if gait.cycle!=m.pace: return False
    found, inside = stance_events(gait), lambda e: m.t_s[0]+.3<e['t_s']<m.t_s[-1]-.3
    same = lambda e: [abs(e['t_s']-f['t_s']) for f in found if (f['side'], f['event'])==(e['side'], e['event'])]
    return 1000*max(min(same(e), default=1.) for e in m.events if inside(e))<most_ms


# --- recorded people ---

# Heel from the ankle, tip of the toe from CMU's last joint: ahead and up in a flat foot, m
SOLE = dict(heel=(-.055, -.065), tip=(.03, 0.))


def _unit(v): return v/np.linalg.norm(v, axis=-1, keepdims=True)


def _foot(joint, side, lateral, hz):
    "(heel, tip of the toe), (n,3), from ankle and ball and how these two lie when the foot is flat"
    ankle, ball, toe = (joint(f'{side}_{n}') for n in ('ankle', 'ball', 'toe'))
    ahead = _unit(ball-ankle)
    across = _unit(lateral-(lateral*ahead).sum(-1, keepdims=True)*ahead) # to the right
    up = np.cross(across, ahead)
    speed = np.linalg.norm(np.gradient(ball, axis=0), axis=-1)*hz
    flat = speed<=np.quantile(speed, .15)
    dip = np.median(np.arcsin(np.clip(ahead[flat,1], -1, 1))) # of ankle to ball in a flat foot
    x, y = ahead*np.cos(dip)-up*np.sin(dip), ahead*np.sin(dip)+up*np.cos(dip)
    place = lambda at, to: at+x*to[0]+y*to[1]
    return place(ankle, SOLE['heel']), place(toe, SOLE['tip'])


def _landmarks(joint, hz):
    "CMU's joints as the 33 landmarks, (n,33,3)"
    out = {f'{side}_{n}':joint(f'{side[0]}_{n}') for side in ('left', 'right')
           for n in ('hip', 'knee', 'ankle', 'shoulder', 'elbow', 'wrist')}
    lateral = _unit(out['right_hip']-out['left_hip'])
    up = _unit(joint('head')-joint('neck'))
    ahead = _unit(np.cross(up, lateral))
    out['nose'] = joint('head')+.10*ahead
    for side,k in (('left', -1), ('right', 1)):
        out[f'{side}_heel'], out[f'{side}_foot_index'] = _foot(joint, side[0], lateral, hz)
        for n,(a,o) in dict(eye_inner=(.09, .015), eye=(.085, .03), eye_outer=(.075, .045), ear=(0., .075)).items():
            out[f'{side}_{n}'] = joint('head')+a*ahead+k*o*lateral+(.03*up if n!='ear' else 0)
        out[f'mouth_{side}'] = joint('head')+.08*ahead+k*.025*lateral-.05*up
        hand = out[f'{side}_wrist']+.09*_unit(out[f'{side}_wrist']-out[f'{side}_elbow'])
        for n in ('pinky', 'index', 'thumb'): out[f'{side}_{n}'] = hand
    return np.stack([out[n] for n in LANDMARKS], 1)


def _straightened(xyz):
    "Turned so that the hips travel along x; None where they do not go straight"
    hip = xyz[:,lm('left_hip', 'right_hip')].mean(1)[:,[0, 2]]
    way = hip[-1]-hip[0]
    if np.linalg.norm(way)<.97*np.linalg.norm(np.diff(hip, axis=0), axis=1).sum(): return None
    (c, s) = way/np.linalg.norm(way)
    return np.stack([xyz[...,0]*c+xyz[...,2]*s, xyz[...,1], -xyz[...,0]*s+xyz[...,2]*c], -1)


def sagittal(
    m:Mover, # Somebody
)->Track: # In mm, as markers are read
    "Seen exactly from the side"
    xy = np.stack([m.xyz[...,0], -m.xyz[...,1]], -1)*1000
    xy -= xy.min((0, 1))-100
    n, size, fps = len(xy), np.ceil(xy.max((0, 1))+100).astype(int), as_fps(round(1/np.median(np.diff(m.t_s))))
    box = np.concatenate([xy.min(1), xy.max(1)], 1)
    return Track(1, np.arange(n), m.t_s, xy, np.ones((n, 33)), box, np.zeros(n, bool), fps,
                 int(size[0]), int(size[1]), m.name, unit='mm')


def stance_events(gait):
    "Events of the stances that `find_gait` found"
    rows = [dict(t_s=t, side=s.side, event=e) for s in gait.stances
            for e,t in (('initial_contact', s.ic_s), ('toe_off', s.to_s)) if t is not None and s.rule!='foremost']
    return sorted(rows, key=lambda e: e['t_s'])


def mocap(
    data:str, # Folder with cmu_joints3d_m.npz
)->tuple: # Movers, [(name, why it was left out)]
    "People of the CMU database who run or walk straight on, with contacts found on their joints"
    import pandas as pd
    index, out, left = pd.read_csv(Path(data)/'index.csv'), [], []
    with np.load(Path(data)/'cmu_joints3d_m.npz', allow_pickle=False) as z:
        at = {str(n):i for i,n in enumerate(z['joint_names'])}
        for row in index[index['class'].isin(['running', 'walking'])].itertuples():
            p, name = z[row.key][1:].astype(float), 'cmu_'+row.key.split('__')[-1]
            # frame 0 of every sequence is the rest pose
            xyz = _straightened(_landmarks(lambda n, p=p: p[:,at[n]], row.hz))
            if xyz is None: left.append((name, 'does not go straight on')); continue
            m = Mover(name, row[3], np.arange(len(p))/row.hz, xyz, [], None, {}, False)
            gait = find_gait(sagittal(m))
            if gait.cycle!=m.pace: left.append((name, f'{gait.cycle} {gait.reason}'.strip())); continue
            out.append(replace(m, events=stance_events(gait)))
    return out, left


def rules_apart(people):
    "How far another rule and the one that labels are from each other, median, ms: how exact the labels are about"
    out, rules = {}, dict(initial_contact='velocity', toe_off='acceleration')
    for pace in ('running', 'walking'):
        off = dict(initial_contact=[], toe_off=[])
        for m in (m for m in people if m.pace==pace):
            gait, track = find_gait(sagittal(m)), sagittal(m)
            other = {k:stance_events(replace(gait, stances=find_stances(track, rule))) for k,rule in rules.items()}
            for e in m.events:
                same = [abs(e['t_s']-f['t_s']) for f in other[e['event']] if (f['side'], f['event'])==(e['side'], e['event'])]
                if same: off[e['event']].append(min(same))
        out[pace] = {f'{k}_ms':round(1000*float(np.median(v)), 1) for k,v in off.items()}
        out[pace] |= dict(people=sum(m.pace==pace for m in people), moments=sum(map(len, off.values())))
    return out


# --- cameras and pose networks ---

FPS = (24, 25, 30, 30, 30, 50, 60, 60, 120, 240)
_LEG = [lm(*[f'{s}_{n}' for n in ('knee', 'ankle', 'heel', 'foot_index')]) for s in ('left', 'right')]
_LACKING = (range(11), range(17, 23), range(13, 23), range(23), [*range(11), *range(13, 23)])


def _seen_by(xyz, rng):
    "Landmarks in a camera's picture, (n,33,2) m, y down; is the left side the near one; degrees off the side"
    yaw = np.radians(rng.uniform(-60, 60) if rng.uniform()<.6 else rng.normal(0, 12))+np.pi*(rng.uniform()<.5)
    up, roll = np.radians(rng.uniform(-6, 14)), np.radians(rng.normal(0, 2.5))
    far = np.exp(rng.uniform(np.log(2.2), np.log(15))) # m
    hip = xyz[:,lm('left_hip', 'right_hip')].mean(1)
    pan = rng.uniform()<.6 or np.ptp(hip[:,0])>far
    p = xyz-[0, .9, 0]-(hip if pan else hip.mean(0, keepdims=True))[:,None]*[1, 0, 1]
    x, z = p[...,0]*np.cos(yaw)-p[...,2]*np.sin(yaw), p[...,0]*np.sin(yaw)+p[...,2]*np.cos(yaw) # z towards the camera
    y, z = p[...,1]*np.cos(up)-z*np.sin(up), p[...,1]*np.sin(up)+z*np.cos(up)
    k = far/(far-z)
    x, y = k*x, -k*y
    xy = np.stack([x*np.cos(roll)-y*np.sin(roll), x*np.sin(roll)+y*np.cos(roll)], -1)
    return xy, np.cos(yaw)<0, np.degrees(yaw)%180


def _noise(rng, shape, sd, fps, tau_s):
    "Noise whose neighbours in time are alike, (n,33,2)"
    rho = np.exp(-1/(fps*tau_s)) if tau_s>0 else 0.
    return sd*lfilter([np.sqrt(1-rho**2)], [1, -rho], rng.normal(size=shape), axis=0)


def _spoilt(xy, left_near, fps, rng):
    "As a pose network would give it: off, jittering, legs exchanged or missing; and the visibility"
    n, worse = len(xy), np.ones((33, 1))
    worse[lm('left_heel', 'right_heel', 'left_foot_index', 'right_foot_index')] = rng.uniform(1, 1.8)
    far = 'right' if left_near else 'left'
    worse[[i for i,name in enumerate(LANDMARKS) if name.startswith(far)]] *= rng.uniform(1, 1.6)
    xy = xy+rng.normal(0, rng.uniform(0, .020), (33, 2)) # m
    xy = xy+_noise(rng, xy.shape, rng.uniform(0, .016), fps, rng.uniform(0, .08))*worse
    score = np.clip(rng.uniform(.6, 1, 33)+rng.normal(0, .05, (n, 33)), .2, 1)
    for chance,longest in ((.12, .25), (.35, .25), (.35, .12)): # exchanged, then missing
        if rng.uniform()>chance: continue
        a, side = int(rng.integers(n)), int(rng.integers(2))
        rows = slice(a, a+max(1, round(rng.uniform(.04, longest)*fps)))
        if chance<.2: xy[rows,_LEG[0]], xy[rows,_LEG[1]] = xy[rows,_LEG[1]].copy(), xy[rows,_LEG[0]].copy()
        else:
            for j in _LEG[side][int(rng.integers(3)):]: xy[rows,j], score[rows,j] = np.nan, 0.
    if rng.uniform()<.25: xy[:,list(_LACKING[rng.integers(len(_LACKING))])] = np.nan
    return xy, np.where(np.isfinite(xy[...,0]), score, 0)


def film(
    m:Mover, # Somebody
    seed:int, # Draws camera, rate, noise
    seconds:float=4., # Longest film, s
)->Recording: # With track, events and phases
    "Somebody as a pose network sees them in a film, with exact labels"
    rng = np.random.default_rng(stable_seed('gait film', m.name, seed))
    fps = float(rng.choice(FPS))
    start = m.t_s[0]+rng.uniform(0, max(0., m.t_s[-1]-m.t_s[0]-seconds))
    t = np.arange(int(min(seconds, m.t_s[-1]-start)*fps))/fps
    xyz = CubicSpline(m.t_s, m.xyz)(t+start)
    xy, left_near, yaw = _seen_by(xyz, rng)
    px = rng.uniform(90, 450) # a metre
    xy, score = _spoilt(xy, left_near, fps, rng)
    xy = xy*px
    low, high = np.nanmin(xy, (0, 1))-40, np.nanmax(xy, (0, 1))+40
    box = np.concatenate([np.nanmin(xy, 1), np.nanmax(xy, 1)], 1)-[*low, *low]
    size, n = np.ceil(high-low).astype(int).tolist(), len(t)
    track = Track(1, np.arange(n), t, xy-low, score, box, np.zeros(n, bool), as_fps(fps), *size, m.name)
    if rng.uniform()<.6: track = tidy(track)
    events = [e|dict(t_s=e['t_s']-start) for e in m.events]
    phases = [p|dict(start_s=max(p['start_s'], 0.), end_s=min(p['end_s'], n/fps)) for p in phases_from_events(events)
              if p['end_s']>0 and p['start_s']<n/fps]
    camera = 'side' if min(yaw, 180-yaw)<20 else 'oblique'
    return Recording(f'{m.name}_{seed}', m.name, m.name, as_fps(fps), n, m.pace, camera,
                     'computed' if m.synthetic else 'mocap', m.synthetic, None, phases, m.form, m.issues or {}, track)


# --- who learns, who is held out ---

HELD_OUT = ('cmu_running_1', 'cmu_running_2',
            *(f'cmu_walking_{i}' for i in (13, 14, 15, 16, 17, 27, 28, 29, 30, 31, 32)))


@dataclass
class Recipe:
    "What `make gait-weights` does"
    runners:int = 600 # Computed runners that learn
    held_out:int = 80 # Computed runners that choose the epoch
    running:int = 90 # Films of everybody of CMU who runs
    walking:int = 9 # Films of everybody of CMU who walks
    hidden_dim:int = 64 # Width of the LSTM, each way
    num_lstm_layers:int = 2 # Its layers
    epochs:int = 8 # Of 8 and 16 the one with the lower loss on those held out
    batch_size:int = 32
    lr:float = 3e-3
    balance:str = 'none' # Phases weigh as they occur: rare ones weighed up lose moments at their edges
    seed:int = 0


def _computed_films(recipe):
    "One film of each computed runner"
    done = i = 0
    with tqdm(total=recipe.runners+recipe.held_out, desc='computed runners', unit='film') as bar:
        while done<recipe.runners+recipe.held_out:
            m, i = computed(i), i+1
            if not plausible(m): continue
            yield film(m, 0)
            done += 1
            bar.update()


def _mocap_films(recipe, cmu):
    people, left = mocap(cmu)
    for name,why in left: tqdm.write(f'{name}: left out, {why}')
    for m in tqdm(people, desc='people of CMU', unit='person'):
        for k in range(recipe.running if m.pace=='running' else recipe.walking): yield film(m, k)


def recordings(recipe, cmu, work):
    "All films with labels; made once"
    out = []
    for name,make in (('computed', lambda: _computed_films(recipe)), ('mocap', lambda: _mocap_films(recipe, cmu))):
        if not (work/name/'sequences.json').exists(): save_recordings(work/name, list(make()))
        out += load_recordings(work/name)
    return out


def parts_of(seqs, recipe):
    "train and val; nobody is in both"
    computed_names = sorted({s.runner for s in seqs if s.synthetic})
    held = {*HELD_OUT, *computed_names[-recipe.held_out:]}
    parts = dict(train=[s for s in seqs if s.runner not in held], val=[s for s in seqs if s.runner in held], test=[])
    refuse_leaks(parts)
    return parts


# --- real recordings, never learned from ---

def _plates(f, runner, walks=False):
    "A marker recording with contacts and toe-offs by force plate"
    import pandas as pd
    name, rows = f.name.replace('_events.csv', ''), pd.read_csv(f)
    track, = read_trc(f.with_name(f'{name}_markers.trc'))
    events = [dict(t_s=float(t), side=side, event=e) for k,e in (('ic_s', 'initial_contact'), ('to_s', 'toe_off'))
              for side,t in zip(rows.side, rows[k])]
    phases = phases_from_events(sorted(events, key=lambda e: e['t_s']))
    if walks: # late in the last stance the other foot is down too, and no plate saw it land
        last = rows.iloc[-1]
        phases = [p for p in phases if p['start_s']<last.ic_s+.7*(last.to_s-last.ic_s)]
    return Recording(name, runner, f.name, track.fps, len(track), phases=phases, track=track)


def real_recordings(data):
    "Marker recordings on force plates: {'running': …, 'walking': …}"
    gait = Path(data)/'gait'
    return dict(running=[_plates(f, f.name.split('_')[0]) for f in sorted(gait.glob('hamner/*_events.csv'))],
                walking=[_plates(f, f.name.split('_')[0], True) for f in sorted(gait.glob('walking/*_events.csv'))])


def contacts_of(said, track, apart_s=.2):
    "[(time s, side)] where `contact` becomes the likeliest phase, between frames; the side is that of the foremost heel"
    front = {s:reach(track, s)[0] for s in 'LR'}
    lead = said.probs[:,0]-said.probs[:,1:].max(1)
    out = []
    for i in np.flatnonzero((lead[:-1]<=0)&(lead[1:]>0)):
        t = float(said.t_s[i]-lead[i]/(lead[i+1]-lead[i])*(said.t_s[i+1]-said.t_s[i]))
        if out and t-out[-1][0]<apart_s: continue
        ahead = {s:np.nan_to_num(np.interp(t, track.t_s, v), nan=-9) for s,v in front.items()}
        out.append((t, max('LR', key=ahead.get)))
    return out


def contact_hits(found, true, within_s):
    "Labelled contacts found once each, found ones that are none, right sides"
    left, hits, sides = list(found), [], 0
    for t,side in true:
        best = min(left, key=lambda c: abs(c[0]-t), default=None)
        if best is None or abs(best[0]-t)>within_s+1e-6: continue
        left.remove(best)
        hits.append(best[0]-t)
        sides += side in ('', best[1])
    return dict(labelled=len(true), found=len(hits), false=len(left), sides_right=sides,
                mean_ms=1000*float(np.mean(hits)) if hits else None)


def on_films(model, data, cache):
    "Contacts in two films, through the built-in pose"
    import pandas as pd
    out = {}
    for name,video in (('gaitlab', 'male_side.mp4'), ('sports2d', 'demo.mp4')):
        folder = Path(data)/'run'/name
        rows, kept = pd.read_csv(folder/video.replace('.mp4', '.contacts.csv')), Path(cache)/f'{name}.npz'
        if not kept.exists(): save_tracks(kept, track_people(folder/video))
        track = choose_track(load_tracks(kept))[0]
        said, fps = model.predict(track), float(track.fps)
        true = [(f/fps, s) for f,s in zip(rows.ic_frame, rows.get('side', ['']*len(rows)))]
        found = [c for c in contacts_of(said, track) if true[0][0]-.2<c[0]<true[-1][0]+.2]
        hits = {f'within_{k}_frames':contact_hits(found, true, k/fps) for k in (1, 2)}
        out[name] = hits|dict(confidence=said.confidence)
    return out


def score_real(bundle, data, cache):
    "What the model says about real recordings, for the JSON"
    out = {}
    for q in (False, True):
        model = GaitModel(bundle, q)
        rows = {k:read_sequences([replace(r, runner=r.name) for r in v]) for k,v in real_recordings(data).items()}
        found = {k:_kept(evaluate(model, v)) for k,v in rows.items()}
        out['int8' if q else 'float32'] = found|dict(films=on_films(model, data, cache))
    return out


# --- train, calibrate, write ---

# Form and issues were learned from computed runners alone. Nothing says that they hold for people, so the model of the
# package does not say them.
VOUCHED = dict(phase=True, form=False, issues=[False]*3)


def settings_of(recipe):
    "Settings of `rpa gait train` for a recipe"
    usual = {k:p.default for k,p in signature(train).parameters.items() if k in GAIT_DECIDING}
    own = {k:v for k,v in asdict(recipe).items() if k in GAIT_DECIDING}
    return usual|own|dict(schedule='cosine', warmup=.1, dropout=.2, augmentation=True, features=FEATURES_VERSION)


def calibration_on_people(run):
    "Temperature of the phases and line of the confidence, on the people of CMU who were held out"
    plan = read_json(run/'train_config.json')
    epoch = read_json(run/'best_model'/'rpa.json')['training']['epoch']
    valid, who = load_file(run/f'checkpoint-epoch-{epoch}'/'valid.safetensors'), plan['val_windows']
    rows = [i for i,w in enumerate(who) if w.startswith('cmu_')]
    return calibrate_gait({k:v[rows] for k,v in valid.items()}, [who[i] for i in rows])[0]


def _kept(scores):
    "Scores without the long tables"
    d = scores.to_dict()
    if d['phase']: d['phase'] = {k:v for k,v in d['phase'].items() if k not in ('coverage', 'group_table')}
    return d


def held_out_scores(model, parts):
    "By kind of people; nobody of them was learned from, but they chose the epoch, and those of CMU the calibration"
    kinds = dict(computed=lambda s: s.synthetic, running=lambda s: s.runner.startswith('cmu_running'),
                 walking=lambda s: s.runner.startswith('cmu_walking'))
    return {k:_kept(evaluate(model, [s for s in parts['val'] if of(s)], 'val')) for k,of in kinds.items()}


def ship(run, dst, parts, recipe, data):
    "Write the folder that ships, whole or not at all, and score it on real recordings"
    about = check_gait_bundle(run/'best_model')
    kept = {k:v for k,v in about.items() if k not in ('files', 'format', 'kind')}
    kept['calibration'] = calibration_on_people(run)
    with atomic_dir(dst) as tmp:
        for name in ('config.json', *ONNX.values()): shutil.copyfile(run/'best_model'/name, tmp/name)
        seal_bundle(tmp, kept)
        held_out = held_out_scores(GaitModel(tmp), parts)
        kept['heads'] = VOUCHED
        seal_bundle(tmp, kept)
        found = dict(recipe=asdict(recipe), mocap=rules_apart(mocap(data/'action/cmu')[0]), held_out=held_out,
                     real=score_real(tmp, data, run.parent))
        write_json(tmp/'scores.json', found)
        (tmp/'README.md').write_text(readme(tmp, recipe, parts, found))
        seal_bundle(tmp, kept)
        for p in tmp.iterdir(): p.chmod(0o644)
    return found


def make_gait(dst, work, data, recipe=Recipe()):
    "Data, training, calibration, files: what is there already is not made again"
    dst, work, data = Path(dst), Path(work), Path(data)
    if not (data/'action/cmu/index.csv').exists():
        raise RpaError(f'make_gait: the motion capture must lie in {data}/action/cmu; pass the folder of the data')
    parts = parts_of(read_sequences(recordings(recipe, data/'action/cmu', work)), recipe)
    run = work/f'run-{settings_hash(asdict(recipe))}'
    with locked(run, 'make_gait'), _threads(1):
        _run_parts(run, parts, settings_of(recipe), dict(device='cpu', precision='fp32', threads=1), 0, False, True)
        found = ship(run, dst, parts, recipe, data)
    right = {k:found['real']['float32'][k]['phase']['accuracy'] for k in ('running', 'walking')}
    say(f"wrote {dst}: phases of real running {right['running']:.3f}, walking {right['walking']:.3f}")


README = """# gait

A gait model for `GaitModel('gait')` and `rpa gait FILM --model gait`: phases of gait for every frame, and how sure it is. The document's network in a smaller size ({hidden_dim} wide, {num_lstm_layers} layers), made by
`make gait-weights` (tools/make_gait.py).

It learned from {n_computed} computed runners and {n_people} sequences of the CMU Graphics Lab Motion Capture Database
(mocap.cs.cmu.edu; free for all uses; the database was created with funding from NSF EIA-0196217), seen by drawn
cameras. When these people's feet meet and leave the ground was found on their joints by `rpa.contacts`, which is right
to about 10 ms with markers on force plates. Here it is less exact: the database has no heels, they were built from
ankle and ball, and other rules find contacts {ic:.0f} ms and toe-offs {to:.0f} ms away (median) when they run.
Form and issues were learned from computed runners alone; nothing says that they hold for people, so they are not said.
Licence: Apache-2.0.

Held out and never learned from: {n_held} sequences of CMU and {n_held_computed} computed runners, on whom the epoch was chosen; the
confidence was calibrated on those of CMU. The files name nobody, so the same person may be on both sides. What it
reaches on real recordings is in scores.json. None was learned from, but they are not untouched: a first look at the
force-plate runners showed that marker sets with points at the shoulders made people too large, which was mended.

"""


def readme(folder, recipe, parts, found):
    n = {(p, k):len({s.runner for s in v if s.synthetic==k}) for p,v in parts.items() for k in (True, False)}
    apart = found['mocap']['running']
    text = README.format(**asdict(recipe), n_computed=n['train', True], n_people=n['train', False],
                         n_held=n['val', False], n_held_computed=n['val', True], ic=apart['initial_contact_ms'], to=apart['toe_off_ms'])
    for k in ('running', 'walking'):
        s = found['real']['float32'][k]['phase']
        text += (f"Real {k}, markers and force plates: phases {s['accuracy']:.2f} [{s['interval'][0]:.2f}–"
                 f"{s['interval'][1]:.2f}], always {s['majority_name']} {s['majority']:.2f}\n")
    one, two = (found['real']['float32']['films']['gaitlab'][f'within_{k}_frames'] for k in (1, 2))
    text += (f"Film of a runner, built-in pose: of {one['labelled']} contacts {one['found']} within a frame, {two['found']} within "
             f"two, {two['false']} false\n\n")
    return text+''.join(f'sha256 of {name}: {sha256(folder/name)}\n' for name in ONNX.values())


if __name__=='__main__':
    usual = [ROOT/'rpa/weights/gait', ROOT/'runs/gait-weights', ROOT.parent/'shared/data']
    make_gait(*(sys.argv[1:]+usual[len(sys.argv)-1:])[:3])
