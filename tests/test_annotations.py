"What the lessons of 13a_annotations cannot show: whole files of each tool, broken ones, films, and dirty labels"
import json, random, sys, types
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
import numpy as np
import pytest
import rpa
from rpa import annotations as an
from rpa.annotations import (EVENTS, ISSUES, PHASES, Recording, fetch_roboflow, frame_phases, load_recordings,
                             phases_from_events, prepare, quality,
                             read_annotations, read_coco, read_cvat, read_label_studio, read_labels, save_recordings, synthetic_recording,
                             synthetic_recordings)
from rpa.core import RpaError, read_json, write_json
from rpa.pose import Track, lm, save_tracks
from rpa.synth import BODY, Motion, RunnerSpec
from rpa.video import write_video
from pose_data import runner

SHARED = Path(rpa.__file__).parents[1]/'../shared/data'
ERRORS = dict(fps=60, seconds=4.)


def events(side, name, *times): return [dict(t_s=t, side=side, event=name) for t in times]
def errors(report, check=None): return [r.what for r in report.table.itertuples() if r.severity=='error'
                                        and check in (None, r.check)]
def warnings(report, check=None): return [r.what for r in report.table.itertuples() if r.severity=='warning'
                                          and check in (None, r.check)]
def good(n=4, **kw): return synthetic_recordings(n, **(dict(seconds=4., fps=(60,))|kw))
def spoilt(n=4, **kw): return [replace(r, **kw) if not i else r for i,r in enumerate(good(n))]


# ── phases and events

@pytest.mark.parametrize('seed', range(4))
def test_phases_of_a_runner_frame_by_frame(seed):
    "Against the legs themselves: which foot is down, and how far into its stance"
    r = synthetic_recording(seed, fps=100, seconds=3, asymmetry=.1*(seed%2))
    spec, t = RunnerSpec.draw(seed, seed%2), r.track.t_s
    legs, wanted = Motion(spec, 0, t).legs, np.full(len(t), 3)
    for side,leg in legs.items():
        contact = spec.contact_s*(1-.1*(seed%2)) if side=='R' else spec.contact_s
        share = (t-leg.t_ic)%leg.T/contact
        wanted = np.where(share<.25, 0, np.where(share<.75, 1, np.where(share<1, 2, wanted)))
    assert (frame_phases(r)!=wanted).mean()<.005
    inside = frame_phases(replace(r, phases=None)) # from events within the film only: the same, or nothing
    assert ((inside==wanted)|(inside==-1)).mean()>.995 and (inside>=0).mean()>.85


def test_a_walkers_phase_is_that_of_the_foot_that_landed_last():
    two = events('L', 'initial_contact', 0)+events('L', 'toe_off', .7)+events('R', 'initial_contact', .6)+events('R', 'toe_off', 1.3)
    assert [(p['start_s'], p['phase']) for p in phases_from_events(two)][2:5]==[(pytest.approx(.525), 'toe_off'), (.6, 'contact'), (pytest.approx(.775), 'mid_stance')]
    cut = [e for e in two if (e['side'], e['event'])!=('R', 'toe_off')] # the right foot's end is not known: nor is anything after its contact
    assert phases_from_events(cut)[-1]['end_s']==.6


def test_dirty_events_never_become_swing():
    one_foot = events('L', 'initial_contact', 0, .7, 1.4)+events('L', 'toe_off', .25, .95, 1.65)
    assert 'swing' not in {p['phase'] for p in phases_from_events(one_foot)}
    far = events('L', 'initial_contact', 0)+events('L', 'toe_off', .2)+events('R', 'initial_contact', 3)+events('R',
        'toe_off', 3.2)
    assert 'swing' not in {p['phase'] for p in phases_from_events(far)}
    assert phases_from_events([])==[] and phases_from_events(events('L', 'toe_off', 1, 1.3))==[]
    rng = random.Random(0)
    for _ in range(200): # any list of events gives phases that neither overlap nor leave its time
        some = [dict(t_s=rng.choice([.1*k for k in range(20)]), side=rng.choice('LR'), event=rng.choice(EVENTS))
                for _ in range(rng.randrange(12))]
        found = phases_from_events(some)
        assert all(a['end_s']<=b['start_s'] for a,b in zip(found, found[1:])) and all(p['end_s']>p['start_s']
            for p in found)
        assert not found or found[0]['start_s']>=min(e['t_s'] for e in some) and found[-1]['end_s']<=max(e['t_s']
            for e in some)


def test_a_track_that_begins_late_keeps_the_films_clock():
    r = good(1)[0]
    cut = replace(r, track=r.track.slice(60, 240))
    assert len(frame_phases(cut))==240 and (frame_phases(cut)==frame_phases(r)).all()
    slow = replace(cut, track=replace(cut.track, t_s=cut.track.t_s+.5)) # frames whose true time is another
    assert slow.t_s[60]==pytest.approx(1.5) and slow.t_s[59]==pytest.approx(59/60)


# ── the data set

def test_round_trip(tmp_path):
    many = good(3)
    many[1] = replace(many[1], events=None, phases=[], form=None, issues={}, fps=Fraction(30000, 1001))
    save_recordings(tmp_path/'d', many)
    first = (tmp_path/'d/sequences.json').read_bytes()
    back = load_recordings(tmp_path/'d')
    for a,b in zip(sorted(many, key=lambda r: r.name), back):
        assert {k:getattr(a, k) for k in vars(a) if k!='track'}=={k:getattr(b, k) for k in vars(b) if k!='track'}
        assert (np.isnan(a.track.xy)==np.isnan(b.track.xy)).all() and np.nanmax(abs(a.track.xy-b.track.xy))==0
    save_recordings(tmp_path/'d', back)
    assert (tmp_path/'d/sequences.json').read_bytes()==first
    assert set(read_json(tmp_path/'d/sequences.json')['sequences'][0])=={'name', 'keypoints', 'sha256', 'source',
        'runner', 'fps', 'frames', 'pace',
        'camera', 'environment', 'synthetic', 'events', 'phases', 'form', 'issues'}


@pytest.mark.parametrize('change, match', [
    (dict(keypoints='../outside.npz'), 'must stay inside'), (dict(keypoints='/etc/passwd'),
        'must stay inside'), (dict(keypoints='keypoints/none.npz'), 'not there'),
    (dict(sha256='0'*64), 'another sha256'), (dict(keypoints=''), 'has no keypoints'), (dict(frames=-1),
        'whole number'), (dict(frames=10**12), 'whole number'),
    (dict(form=11), 'form must be a number from 0 to 10'), (dict(fps='fast'), 'as_fps'), (dict(issues=dict(knees=1)),
        'an issue is one of'),
    (dict(events=[dict(t_s=1, side='L')]), 'must be a row of'), (dict(phases=[dict(start_s=2, end_s=1, phase='swing')]),
        'must end after'),
    (dict(events=[dict(t_s=float('nan'), side='L', event='toe_off')]), 'needs times in s'), (dict(runner=7),
        'must be text'), (dict(name=''), 'with a name')])
def test_a_data_set_that_was_edited(tmp_path, change, match):
    save_recordings(tmp_path, good(1))
    d = read_json(tmp_path/'sequences.json')
    d['sequences'][0] |= change
    (tmp_path/'sequences.json').write_text(json.dumps(d))
    with pytest.raises(RpaError, match=match): load_recordings(tmp_path)


@pytest.mark.parametrize('text',
                         ['', '[]', '{}', '{"version": 2, "sequences": []}', '{"version": 1, "sequences": {}}',
                          '{"version": 1, "sequences": [3]}',
    '{"version": 1, "sequences": []}'])
def test_not_a_data_set(tmp_path, text):
    (tmp_path/'sequences.json').write_text(text)
    with pytest.raises(RpaError): load_recordings(tmp_path)


def test_names_stay_files(tmp_path):
    for name in ('../x', 'a/b', '', '/x'):
        with pytest.raises(RpaError): save_recordings(tmp_path/'d', [replace(good(1)[0], name=name)])
    with pytest.raises(RpaError, match='used twice'): save_recordings(tmp_path/'d', good(1)*2)
    assert sorted(p.name for p in tmp_path.rglob('*.npz'))==[]


# ── CVAT

META = '''<meta><task><id>{id}</id><name>{name}</name><size>{size}</size><mode>interpolation</mode><overlap>0</overlap><start_frame>0</start_frame>
<stop_frame>{stop}</stop_frame><frame_filter>{filter}</frame_filter><labels><label><name>x</name><attributes></attributes></label></labels>
<original_size><width>1280</width><height>720</height></original_size><source>{name}</source></task><dumped>2024-01-01</dumped></meta>'''
def meta(**kw): return META.format(**(dict(id=1, name='clip.mp4', size=100, stop=99, filter='')|kw))
def cvat(body, head=None): return ('<?xml version="1.0" '
                                   f'encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n{meta() if head is None else head}\n{body}</annotations>\n')
def shape(frame, outside=0, tag='box', more='', **kw):
    place = 'points="10.00,20.50"' if tag=='points' else 'xtl="1.0" ytl="2.0" xbr="3.0" ybr="4.0"'
    extra = ''.join(f' {k}="{v}"' for k,v in kw.items())
    return (f'<{tag} frame="{frame}" outside="{outside}" occluded="0" keyframe="1" {place} '
            f'z_order="0"{extra}>{more}</{tag}>')
def track(label, shapes, **kw): return (f'<track id="0" label="{label}" '
                                        f'source="manual"{"".join(f" {k}={json.dumps(v)}" for k,v in kw.items())}>{"".join(shapes)}</track>\n')
def attribute(name, value): return f'<attribute name="{name}">{value}</attribute>'


def read(tmp_path, text, name='a.xml', **kw):
    (tmp_path/name).write_text(text)
    return read_cvat(tmp_path/name, **kw)


def test_cvat_tracks_come_and_go(tmp_path):
    side = attribute('side', 'left')
    body = (track('foot strike', [shape(10, more=side), shape(11, 1, more=side), shape(40, more=side),
                                  shape(41, more=side), shape(42, 1, more=side)])
            + track('toe-off', [shape(22, more=side, tag='points'), shape(23, 1, more=side, tag='points')])
            + track('Swing', [shape(95), shape(97), shape(99)]) # drawn to the last frame: no 'outside' follows
            + track('runner', [shape(f, more=attribute('Runner', 'Ann')+attribute('Form score', '6.5')
                                     +attribute('overstriding', 'no')+attribute('pace', '__undefined__'))
                               for f in range(3)]))
    r, = read(tmp_path, cvat(body), fps=50)
    assert r.events==[dict(t_s=.2, side='L', event='initial_contact'), dict(t_s=.44, side='L', event='toe_off'),
                      dict(t_s=.8, side='L', event='initial_contact')]
    assert r.phases==[dict(start_s=1.9, end_s=2., phase='swing')]
    assert (r.runner, r.form, r.issues['overstriding'], r.issues['asymmetry'], r.pace, r.frames, r.source)==('Ann', 6.5,
        0, None, '', 100, 'clip.mp4')


def test_cvat_stance_and_swing_of_a_foot_at_the_films_ends(tmp_path):
    body = track('right_stance', [shape(0), shape(1), shape(12, 1)])+track('right_swing',
        [shape(90), shape(99)])+track('left_stance', [shape(30), shape(45, 1)])
    r, = read(tmp_path, cvat(body), fps=100)
    assert [(e['t_s'], e['side'], e['event']) for e in r.events]==[(.12, 'R', 'toe_off'), (.3, 'L', 'initial_contact'),
        (.45, 'L', 'toe_off'), (.9, 'R', 'toe_off')]


def test_cvat_skeletons_become_keypoints(tmp_path):
    def skeleton(f, x):
        p = lambda name, dx, **kw: f'<points label="{name}" outside="{kw.get("outside", 0)}" occluded="{kw.get("occluded", 0)}" keyframe="1" points="{x+dx:.2f},50.00"></points>'
        return (f'<skeleton frame="{f}" keyframe="1" '
                f'z_order="0">{p("left_hip", 0)}{p("right hip", 5, occluded=1)}{p("L_heel", -9, outside=int(f==6))}{p("7", 1)}</skeleton>')
    r, = read(tmp_path, cvat(track('person', [skeleton(f, 100+f) for f in (4, 5, 6, 8)])), fps=25)
    assert list(r.track.frame)==[4, 5, 6, 7, 8] and r.track.t_s[0]==pytest.approx(.16) and (r.track.width,
        r.track.height)==(1280, 720)
    assert r.track.point('left_hip')[:,0].tolist()==[104, 105, 106, 107, 108] # frame 7 lies between
    assert r.track.filled.tolist()==[False]*5 and r.track.score[0,lm('right_hip')]==.5 and r.track.score[0,
        lm('left_hip')]==1
    assert np.isfinite(r.track.point('left_heel')[:,0]).tolist()==[True]*5 and r.track.point('left_heel')[2,0]==pytest.approx(97, abs=.01) # a hole of .12 s


def test_cvat_points_far_apart_are_not_joined(tmp_path):
    body = ''.join(track(n, [shape(f, tag='points') if i%2==0 else shape(f, 1, tag='points') for i,
                             f in enumerate((0, 1, 40, 41))]) for n in ('left_heel', 'left_toe', 'left_hip'))
    r, = read(tmp_path, cvat(body), fps=25)
    assert np.isfinite(r.track.point('left_heel')[:,0]).sum()==2 and r.track.filled.sum()==39


def test_cvat_every_third_frame_and_projects(tmp_path):
    r, = read(tmp_path, cvat(track('Mid-stance', [shape(9), shape(12), shape(15)]), meta(filter='step=3', size=34)),
              fps=30)
    assert r.phases==[dict(start_s=pytest.approx(.3), end_s=pytest.approx(.6), phase='mid_stance')] # to the next labelled frame
    tasks = ''.join(meta(id=i, name=f'{n}.mp4').removeprefix('<meta>').split('<dumped>')[0] for i,
                    n in ((7, 'one'), (8, 'two')))
    text = cvat(track('Swing', [shape(0), shape(5, 1)], task_id='7')
                +track('Swing', [shape(10), shape(20, 1)],
                       task_id='8'), f'<meta><project><tasks>{tasks}</tasks></project></meta>')
    one, two = read(tmp_path, text, fps=10)
    assert (one.source, one.phases[0]['end_s'], two.source, two.phases[0]['start_s'])==('one.mp4', .5, 'two.mp4', 1.)


def test_cvat_images(tmp_path):
    def image(i, name, *tags): return f'<image id="{i}" name="{name}" width="640" height="360">{"".join(tags)}</image>'
    tag = lambda label, more='': f'<tag label="{label}" source="manual">{more}</tag>'
    points = ''.join(f'<points label="{n}" source="manual" occluded="0" points="{x},7.5" z_order="0"></points>' for n,
                     x in (('left_heel', 1), ('left_toe', 2), ('left_hip', 3)))
    rows = [image(i, f'frame_{i+10:06d}', *([tag('Swing')] if i in (0, 1, 2, 5) else []),
                  *([tag('left_contact')] if i in (3, 4) else []), points,
                  tag('about', attribute('runner', 'Bea')+attribute('form', 4))) for i in range(6)]
    r, = read(tmp_path, cvat(''.join(rows)), fps=10)
    assert [(round(p['start_s'], 2), round(p['end_s'], 2)) for p in r.phases]==[(1., 1.3), (1.5, 1.6)]
    assert r.events==[dict(t_s=1.3, side='L', event='initial_contact')] and (r.runner, r.form, r.source)==('Bea', 4,
        'clip.mp4')
    assert list(r.track.frame)==list(range(10, 16)) and r.track.point('left_foot_index')[0].tolist()==[2, 7.5]
    rows = [image(i, f'{film}/img_{f:03d}.jpg', tag('Swing')) for i,
            (film,f) in enumerate((film, f) for film in ('a', 'b') for f in (1, 2))]
    both = read(tmp_path, cvat(''.join(rows), '<meta></meta>'), fps=10)
    assert sorted(r.source for r in both)==['a/img', 'b/img']


LAUGHS = '<!DOCTYPE z [<!ENTITY a "ha">'+''.join(f'<!ENTITY {b} "{"&"+a+";"*1}{("&"+a+";")*9}">' for a,
                                                 b in zip('abcdefgh', 'bcdefghi'))+']><annotations><meta>&i;</meta></annotations>'
@pytest.mark.parametrize('text, match', [
    (LAUGHS, 'document type or entities'), ('<!DOCTYPE z [<!ENTITY x SYSTEM '
                                            '"file:///etc/passwd">]><annotations><meta>&x;</meta></annotations>', 'document type or entities'),
    ('<!DOCTYPE annotations SYSTEM "http://localhost/x.dtd"><annotations><meta/></annotations>',
     'document type or entities'), ('', 'not a whole XML file'),
    ('<annotations><meta>', 'not a whole XML file'), ('{"a": 1}', 'not a whole XML file'), ('<html/>',
        'must be a CVAT file'), ('<annotations/>', 'must be a CVAT file'),
    (cvat(track('dog', [shape(1)])), "is known here; got dog"), (cvat(track('Swing', [shape('one')])),
        'frame must be a whole number'),
    (cvat(track('left_heel', ['<points frame="1" outside="0" points="1,x"></points>'])), 'points must be x,y'),
    (cvat(track('p', [shape(1, more=attribute('form', 'good'))])),
     'form must be a number'), (cvat(track('p', [shape(1, more=attribute('form', '75'))])), 'from 0 to 10'),
    (cvat(track('p', [shape(1, more=attribute('runner', 'A')), shape(2, more=attribute('runner', 'B'))])),
     'is of one runner; got A, B'),
    (cvat(track('left_hip', [shape(1, tag='points'), shape(10**9, tag='points')])
          +''.join(track(n, [shape(1, tag='points')]) for n in ('left_heel', 'left_toe'))), 'run from 1')])
def test_cvat_files_that_are_wrong(tmp_path, text, match):
    with pytest.raises(RpaError, match=match): read(tmp_path, text, fps=30)


def test_cvat_says_when_the_rate_is_needed(tmp_path):
    r, = read(tmp_path, cvat(track('p', [shape(1, more=attribute('form', '5'))])))
    assert r.form==5 and r.fps is None # a form has no time
    with pytest.raises(RpaError, match='pass fps'): read(tmp_path, cvat(track('Swing', [shape(1)])))


# ── Label Studio

def region(label, a, b, **kw): return dict(id='q', type='timelinelabels', from_name='t', to_name='video',
                                           origin='manual', value=dict(ranges=[dict(start=a, end=b)],
                                               timelinelabels=[label]))|kw
def task(*result, data=None, **kw):
    note = dict(id=1, was_cancelled=False, created_at='2024-01-01T00:00:00Z', updated_at='2024-01-02T00:00:00Z',
                result=list(result))
    return dict(id=5, data=data or dict(video='/data/upload/2/12ab34cd-clip.mp4'), annotations=[note|kw],
                predictions=[dict(result=[region('Swing', 1, 99)])])


def studio(tmp_path, *tasks, **kw):
    (tmp_path/'ls.json').write_text(json.dumps(tasks))
    return read_label_studio(tmp_path/'ls.json', **kw)


def test_label_studio_counts_from_one_at_its_own_rate(tmp_path):
    r, = studio(tmp_path, task(region('Right heel strike', 26, 30), region('Right toe-off', 38, 38),
                               region('Swing', 51, 75)), fps=25)
    assert [(e['t_s'], e['event']) for e in r.events]==[(1., 'initial_contact'), (1.48, 'toe_off')]
    assert r.phases==[dict(start_s=2., end_s=3., phase='swing')] # predictions are no labels
    by_data, = studio(tmp_path, task(region('Swing', 1, 10), data=dict(video='clip.mp4', fps=10)), fps=25)
    assert by_data.phases[0]['end_s']==1.
    box = dict(type='videorectangle',
               value=dict(framesCount=480, duration=20., sequence=[dict(frame=1, x=1, y=1, width=2, height=2)],
                          labels=['runner']))
    by_box, = studio(tmp_path, task(box, region('Swing', 1, 12)))
    assert (by_box.fps, by_box.phases[0]['end_s'], by_box.frames)==(24, .5, 480)
    with pytest.raises(RpaError, match='typed in the labelling tool'): studio(tmp_path, task(region('Swing', 1, 10)))


def test_label_studio_values_and_versions(tmp_path):
    value = lambda name, kind, v: dict(type=kind, from_name=name, to_name='video', value={kind:v})
    said = [value('form', 'number', 6.5), value('vertical_bounce', 'choices', ['0.75']),
            value('asymmetry', 'choices', ['no']), value('comment', 'text', ['fine'])]
    t = task(*said, region('Swing', 1, 2),
             data=dict(video='/data/local-files/?d=films/lap%201/clip.mp4', runner='Ann', environment='track',
                       pace=None))
    t['annotations'].append(dict(id=2, was_cancelled=True, updated_at='2025-01-01',
                                 result=[value('form', 'number', 1)]))
    t['annotations'].append(dict(id=0, was_cancelled=False, updated_at='2023-01-01',
                                 result=[value('form', 'number', 2)]))
    r, = studio(tmp_path, t, fps=30)
    assert (r.form, r.issues, r.runner, r.environment, r.source)==(6.5,
        dict(overstriding=None, vertical_bounce=.75, asymmetry=0), 'Ann', 'track', 'clip.mp4')


def test_label_studio_pictures(tmp_path):
    point = lambda n, x, y: dict(type='keypointlabels', from_name='k', to_name='img', original_width=640,
                                 original_height=360, value=dict(x=x, y=y, width=.5, keypointlabels=[n]))
    phase = lambda p: dict(type='choices', from_name='phase', to_name='img', value=dict(choices=[p]))
    tasks = [task(point('left_heel', 50, 100), point('left_toe', 60, 90), point('left_hip', 55, 25+f),
                  phase('Mid-stance' if f<2 else 'Swing'),
                  data=dict(image=f'/data/upload/1/0123abcd-clip_{f:04d}.jpg', runner='Ann')) for f in (2, 0, 1, 3)]
    r, = studio(tmp_path, *tasks, fps=10)
    assert r.track.point('left_heel')[0].tolist()==[320, 360] and list(r.track.frame)==[0, 1, 2, 3]
    assert np.allclose(r.track.point('left_hip')[:,1], [90, 93.6, 97.2, 100.8], atol=.01)
    assert [(p['phase'], p['end_s']) for p in r.phases]==[('mid_stance', .2), ('swing', .4)] and r.runner=='Ann'


@pytest.mark.parametrize('text, match',
                         [('[{"video": "a.mp4", "videoLabels": []}]', 'not JSON-MIN'),
                          ('3', 'must be a Label Studio export'), ('[{"data": 3, "annotations": []}]', 'not JSON-MIN'),
    (json.dumps([task(region('Swing', 5, 2))]), 'must end after'), (json.dumps([task(region('Swing', 'a', 2))]),
        'whole number'), (json.dumps([task(region('Dog', 1, 2))]), 'is known here; got Dog'),
    (json.dumps([task(data=dict(image='photo.jpg'))]),
     'number of its frame'), (json.dumps([task(region('Swing', 1, 2, value=dict(ranges=3, timelinelabels=['Swing'])))]),
                              'not the shape'),
    (json.dumps([task(dict(type='keypointlabels', original_width=9, original_height=9,
                           value=dict(x=1, keypointlabels=['left_heel'])), data=dict(image='a_1.jpg'))]), 'not the shape'), ('{', 'not valid JSON')])
def test_label_studio_files_that_are_wrong(tmp_path, text, match):
    (tmp_path/'ls.json').write_text(text)
    with pytest.raises(RpaError, match=match): read_label_studio(tmp_path/'ls.json', fps=30)


# ── Roboflow

NAMES = ['left_hip', 'right_hip', 'left_heel', 'left_big_toe', 'new-point-0']
def export(folder, frames, names=NAMES, film='clip_mp4', boxes=1, extra='0af3'):
    folder.mkdir(parents=True, exist_ok=True)
    images = [dict(id=i, license=1, file_name=f'{film}-{f:04d}_jpg.rf.{extra}{f:x}.jpg', width=640, height=360,
                   date_captured='2024') for i,f in enumerate(frames)]
    found = [dict(id=9*i+b, image_id=i, category_id=1, area=5, iscrowd=0, segmentation=[], bbox=[10, 10, 50-20*b, 90],
                  keypoints=[v for k in range(len(names))
                             for v in (100*(b+1)+f+k, 50, 2
                                       if k!=2 else 1)]) for i,f in enumerate(frames) for b in range(boxes)]
    kinds = [dict(id=0, name='people', supercategory='none'),
             dict(id=1, name='runner', supercategory='people', keypoints=list(names), skeleton=[[1, 2]])]
    write_json(folder/'_annotations.coco.json',
               dict(info={}, licenses=[], categories=kinds, images=images, annotations=found))


def test_roboflow_puts_films_together_again(tmp_path):
    for part,frames in (('train', (0, 3, 4)), ('valid', (1,)), ('test', (2,))): export(tmp_path/part, frames, boxes=2)
    export(tmp_path/'more', (7, 8, 9), film='lap_two_MOV')
    a, b = sorted(read_coco(tmp_path, fps=5), key=lambda r: r.source)
    assert (a.source, b.source)==('clip.mp4', 'lap_two.MOV') and list(a.track.frame)==[0, 1, 2, 3,
        4] and list(b.track.frame)==[7, 8, 9]
    assert a.track.point('left_hip')[:,0].tolist()==[100, 101, 102, 103, 104] # the larger of two people
    assert a.track.score[0,lm('left_heel')]==.5 and a.track.score[0,lm('left_hip')]==1 and a.track.point('left_foot_index')[0,0]==103 and a.fps==5
    assert a.runner=='' and 'the runner is unknown' in ' '.join(errors(quality([a, b]), 'runner'))


def test_roboflow_exports_that_are_wrong(tmp_path):
    export(tmp_path/'a'/'train', (0, 1)); export(tmp_path/'a'/'valid', (1,), extra='ffff')
    with pytest.raises(RpaError, match='frame 1 of clip.mp4 is there twice.*without augmentation'):
        read_coco(tmp_path/'a', fps=5)
    export(tmp_path/'b', (0, 1), names=['new-point-0', 'new-point-1'])
    with pytest.raises(RpaError, match='no keypoint or class in it is known here; got .*new-point-0'):
        read_coco(tmp_path/'b', fps=5)
    with pytest.raises(RpaError, match='no _annotations.coco.json'): read_coco(tmp_path/'none', fps=5)
    export(tmp_path/'c', (0,))
    d = read_json(tmp_path/'c/_annotations.coco.json')
    d['images'][0]['file_name'] = 'photo.jpg'
    write_json(tmp_path/'c/_annotations.coco.json', d)
    with pytest.raises(RpaError, match='number of its frame'): read_coco(tmp_path/'c', fps=5)
    export(tmp_path/'d', (0,))
    with pytest.raises(RpaError, match='taken out with'): read_coco(tmp_path/'d')


def fake_roboflow(monkeypatch, calls):
    class Version:
        def __init__(self, n): self.n = n
        def download(self, kind, location): calls.append((self.n, kind)); export(Path(location)/'train', (0, 1, 2))
    class Thing:
        def workspace(self, name): calls.append(name); return self
        def project(self, name): calls.append(name); return self
        def version(self, n): return Version(n)
    module = types.ModuleType('roboflow')
    module.Roboflow = lambda api_key: (calls.append(api_key), Thing())[1]
    monkeypatch.setitem(sys.modules, 'roboflow', module)


def test_fetch_roboflow(monkeypatch, tmp_path):
    calls = []
    monkeypatch.delenv('ROBOFLOW_API_KEY', raising=False)
    fake_roboflow(monkeypatch, calls)
    with pytest.raises(RpaError, match='ROBOFLOW_API_KEY; it is not set'):
        fetch_roboflow('club/runners/3', tmp_path/'x')
    assert calls==[] and not (tmp_path/'x').exists() # nothing is asked for without a key
    monkeypatch.setenv('ROBOFLOW_API_KEY', 'secret')
    for bad in ('runners', 'club/runners', 'club/runners/last', 'a/b/3/4', ''):
        with pytest.raises(RpaError, match='WORKSPACE/PROJECT/VERSION'): fetch_roboflow(bad, tmp_path/'x')
    assert fetch_roboflow('club/runners/3', tmp_path/'x')==tmp_path/'x' and calls==['secret', 'club', 'runners',
        (3, 'coco')]
    assert len(read_annotations(tmp_path/'x', fps=5)[0].track)==3
    monkeypatch.setitem(sys.modules, 'roboflow', None)
    with pytest.raises(RpaError, match='pip install roboflow'): fetch_roboflow('club/runners/3', tmp_path/'y')


# ── our own

@pytest.mark.parametrize('text, match',
                         [('file,runner\n', 'holds no recording'), ('', 'missing file'),
                          ('file,speed\na,1\n', "got 'speed'"), ('runner\nA\n', 'missing file'),
    ('file,form\na.mp4,good\n', 'form must be a number'), ('file,form\na.mp4,-1\n', 'from 0 to 10'), ('file\na\na\n',
        'file of its own'), ('file,runner\na\n', 'line 2 must have 2'),
    ('file,overstriding\na,7\n', 'from 0 to 1')])
def test_tables_that_are_wrong(tmp_path, text, match):
    (tmp_path/'labels.csv').write_text(text)
    with pytest.raises(RpaError, match=match): read_labels(tmp_path/'labels.csv')


def test_tables_beside(tmp_path):
    (tmp_path/'labels.csv').write_bytes('\ufefffile,runner,asymmetry\r\na.mp4,Zoë,none\r\n\r\nb.mp4,Bo,\r\n'.encode())
    (tmp_path/'phases.csv').write_text('file,start_s,end_s,phase\nb.mp4,0,.1,contact\n')
    a, b = read_labels(tmp_path)
    assert (a.runner, a.issues['asymmetry'], a.phases, b.issues['asymmetry'], len(b.phases))==('Zoë', 0, None, None, 1)
    (tmp_path/'events.csv').write_text('file,t_s,side,event\nc.mp4,1,L,toe_off\n')
    with pytest.raises(RpaError, match="'c.mp4' is not in labels.csv"): read_labels(tmp_path)
    (tmp_path/'events.csv').write_text('file,t_s,side,event\na.mp4,soon,L,toe_off\n')
    with pytest.raises(RpaError, match='needs times in s'): read_labels(tmp_path)
    (tmp_path/'labels.csv').write_bytes(b'file\n\xff\xfe\n')
    with pytest.raises(RpaError, match='CSV UTF-8'): read_labels(tmp_path)


def test_data_set_as_labels(tmp_path):
    save_recordings(tmp_path, [replace(good(1)[0], track=None)])
    r, = read_annotations(tmp_path/'sequences.json')
    assert r.track is None and len(r.events)>10 and r.form is not None


def test_read_annotations_knows_what_it_is_not(tmp_path):
    for name,text in (('a.zip', 'x'), ('a.txt', 'x'), ('a.json', '{"a": 1}')):
        (tmp_path/name).write_text(text)
        with pytest.raises(RpaError): read_annotations(tmp_path/name, fps=30)
    with pytest.raises(RpaError, match='no such file'): read_annotations(tmp_path/'none', fps=30)
    with pytest.raises(RpaError, match='unpack it first'): read_annotations(tmp_path/'a.zip', fps=30)


def mutated(rng, node):
    "JSON with one node exchanged, taken out or repeated"
    spots = []
    def walk(n):
        for k in (list(n) if isinstance(n, dict) else range(len(n)) if isinstance(n, list) else []):
            spots.append((n, k))
            walk(n[k])
    walk(node)
    n, k = rng.choice(spots)
    if rng.random()<.3: del n[k]
    else: n[k] = rng.choice([None, 'x', -3, 1e300, [], {}, [None], {'a': 1}, True, '', float('inf')])
    return node


def test_any_damaged_file_is_one_kind_of_error(tmp_path):
    rng = random.Random(1)
    export(tmp_path/'rf'/'train', (0, 1, 2))
    point = dict(type='keypointlabels', original_width=9, original_height=9,
                 value=dict(x=1, y=2, width=1, keypointlabels=['left_heel']))
    save_recordings(tmp_path/'own', [replace(good(1, seconds=1.)[0])])
    sources = [(tmp_path/'ls.json',
                [task(region('Swing', 1, 9), dict(type='videorectangle', value=dict(framesCount=48, duration=2.))),
                 task(point, data=dict(image='a_1.jpg', fps=20))]),
               (tmp_path/'rf/train/_annotations.coco.json',
                read_json(tmp_path/'rf/train/_annotations.coco.json')), (tmp_path/'own/sequences.json',
                    read_json(tmp_path/'own/sequences.json'))]
    refused = 0
    for path,whole in sources:
        for _ in range(250):
            path.write_text(json.dumps(mutated(rng, json.loads(json.dumps(whole)))))
            try: read_annotations(path if path.name!='_annotations.coco.json' else tmp_path/'rf', fps=30)
            except RpaError: refused += 1
    assert refused>200


# ── quality

def test_nothing_is_wrong_with_good_data():
    report = quality(good(6))
    assert len(report.table)==0 and not report.failed and report.labelled==dict(phases=6, form=6, overstriding=6,
        vertical_bounce=6, asymmetry=6)


def without(track, names): return replace(track,
                                          xy=np.where(np.isin(np.arange(33), lm(*names))[:,None], np.nan, track.xy))
HEELS = ('left_heel', 'left_foot_index')


@pytest.mark.parametrize('change, severity, check, words', [
    (lambda r: dict(track=None), 'error', 'keypoints', 'no keypoints'), (lambda r: dict(track=r.track.slice(0, 5)),
        'error', 'keypoints', 'seen in 5 frames'),
    (lambda r: dict(track=without(r.track, HEELS)), 'error', 'feet',
     'left foot not seen in 100%'), (lambda r: dict(track=without(r.track, ('right_hip',))), 'error', 'hips',
                                     'hips not seen'),
    (lambda r: dict(track=replace(r.track, filled=np.arange(240)<72)), 'warning', 'feet',
     'not seen in 30%'), (lambda r: dict(fps=None), 'error', 'fps', 'unknown'),
    (lambda r: dict(fps=15), 'warning', 'fps', '15 Hz'), (lambda r: dict(runner=''), 'error', 'runner', 'unknown'),
    (lambda r: dict(track=r.track.slice(0, 25), events=None, frames=25, phases=None), 'warning', 'length', '25 frames'),
    (lambda r: dict(events=None, phases=None, form=None, issues={}), 'warning', 'labels', 'no label of any kind'),
    (lambda r: dict(events=events('L', 'toe_off', 9.)), 'error', 'labels',
     'outside the film'), (lambda r: dict(phases=[dict(start_s=-.5, end_s=.2, phase='swing')]), 'error', 'labels',
                           'outside the film'),
    (lambda r: dict(phases=[dict(start_s=0, end_s=.3, phase='swing'), dict(start_s=.2, end_s=.4, phase='contact')]),
     'error', 'labels', 'overlap'),
    (lambda r: dict(events=events('L', 'initial_contact', 1.)+events('L', 'toe_off', 1.03)), 'error', 'labels',
     'impossible length, such as 0.03'),
    (lambda r: dict(events=events('L', 'initial_contact', 1.)+events('L', 'toe_off', 1.7)), 'error', 'labels',
     'impossible length, such as 0.70'),
    (lambda r: dict(events=[e for e in r.events if e['event']!='toe_off' or not 1<e['t_s']<2]), 'warning', 'labels',
     'without their toe-off'),
    (lambda r: dict(events=[e|dict(side='LR'[e['side']=='L']) for e in r.events]), 'warning', 'labels',
     'from where the keypoints have them')])
def test_each_check_alone(change, severity, check, words):
    many = good(5)
    many[0] = replace(many[0], **change(many[0]))
    report = quality(many)
    mine = [r.what for r in report.table.itertuples() if r.recording==many[0].name and r.check==check
            and r.severity==severity]
    assert any(words in w for w in mine), str(report)
    assert set(report.table.recording)<={many[0].name} and report.failed==bool(errors(report))


def test_slow_motion_is_suspected():
    r = synthetic_recording(3, fps=240, seconds=2.)
    slow = replace(r, fps=30, track=replace(r.track, fps=30, t_s=r.track.t_s*8),
                   events=[e|dict(t_s=e['t_s']*8) for e in r.events], phases=None)
    assert any('slow motion' in w or '--true-fps' in w for w in warnings(quality([slow, *good(3)]), 'fps'))
    labels_alone = replace(slow, track=None)
    assert any('slow motion' in w for w in warnings(quality([labels_alone]), 'fps'))


def test_the_camera_in_front():
    front = synthetic_recording(3, seconds=4., yaw_deg=85)
    assert any('faces the camera' in w for w in warnings(quality([front]), 'side'))
    assert not warnings(quality([synthetic_recording(3, seconds=4., yaw_deg=40)]), 'side')
    nothing = without(front.track, ('nose', 'left_ear', 'right_ear', 'left_heel', 'right_heel', 'left_hip', 'right_hip',
                                    'left_foot_index', 'right_foot_index'))
    assert any('cannot be told' in w for w in warnings(quality([replace(front, track=nothing)]), 'side'))


def test_duplicates():
    a, b, c = (replace(r, synthetic=False, source='clip.mp4') for r in good(3))
    assert any('under another runner' in w for w in errors(quality([a, replace(a, name='x', runner='y')]), 'duplicate'))
    again = replace(a, name='again', track=replace(a.track, xy=a.track.xy+np.float32(.5)))
    assert any('the same person in the same frames' in w for w in errors(quality([a, again]), 'duplicate'))
    aside = replace(b, track=replace(b.track, xy=b.track.xy+np.float32(400)))
    later = replace(c, track=replace(c.track, frame=c.track.frame+1000))
    assert not errors(quality([a, aside, later]), 'duplicate') # another person beside; another time
    assert not errors(quality([a, replace(again, source='other.mp4')]), 'duplicate')


def test_the_set_as_a_whole():
    one = [replace(r, runner='Ann') for r in good(4)]
    assert errors(quality(one), 'runners')[0].startswith('1 runner in all') and any('only 3 runners' in w
        for w in warnings(quality(good(3)), 'runners'))
    single = [replace(r, events=None, phases=[dict(start_s=0, end_s=4, phase='swing')]) for r in good(4)]
    assert any('every labelled frame is swing' in w for w in errors(quality(single), 'classes'))
    bare = [replace(r, events=None, phases=None, form=None, issues={}) for r in good(4)]
    assert any('nothing to learn' in w for w in errors(quality(bare), 'classes'))
    walkers = [replace(r, phases=[p for p in r.phases if p['phase']!='swing']) for r in good(4)]
    assert any('no frame is swing' in w for w in warnings(quality(walkers), 'classes')) and not errors(quality(walkers))
    same = [replace(r, form=5, issues=dict(overstriding=0)) for r in good(4)]
    assert len([w for w in warnings(quality(same), 'classes') if 'nothing can be learned' in w])==2


def gaitkit():
    path = SHARED/'gait/gaitkit/example_healthy.json'
    if not path.exists(): pytest.skip('the gaitkit example is not here (../shared/data/gait)')
    d = read_json(path)
    n, xy = d['n_frames'], np.full((d['n_frames'], 33, 2), np.nan)
    for i,f in enumerate(d['angle_frames']):
        for k,(x,y,_) in f['landmark_positions'].items():
            if 'shoulder' not in k: xy[i,lm(k.replace('toe', 'foot_index'))] = x, -y
    xy -= np.nanmin(xy, (0, 1))-100
    box = np.concatenate([np.nanmin(xy, 1), np.nanmax(xy, 1)], 1)
    return d['ground_truth'], Track(1, np.arange(n), np.arange(n)/d['fps'], xy, np.isfinite(xy[...,0])*1., box,
                                    np.zeros(n, bool), d['fps'], 3000, 3000, 'healthy', unit='mm')


def test_dirty_labels_of_others_are_noticed():
    "A published example with a spurious left strike, doubled toe-offs, and right toe-offs that do not fit the motion"
    truth, track = gaitkit()
    put = lambda name, frames: [e for s in frames for e in events(s[0].upper(), name, *(f/150 for f in frames[s]))]
    dirty = put('initial_contact', truth['hs_frames'])+put('toe_off', truth['to_frames'])
    report = quality([Recording('walk', runner='x', fps=150, frames=len(track), events=dirty, track=track)])
    said = ' '.join(errors(report, 'labels'))
    assert 'two left initial contacts 0.09 s apart, at 1.09 s' in said and 'two right toe offs 0.05 s apart' in said and 'two left toe offs' in said
    assert any('right toe offs lie' in w for w in warnings(report, 'labels'))
    clean = put('initial_contact', dict(left=[13, 177, 340], right=[83, 246]))
    assert not errors(quality([Recording('walk', runner='x', fps=150, frames=len(track), events=clean, track=track)]),
                      'labels')


# ── prepare

def films(folder, *names):
    for i,n in enumerate(names):
        (folder/n).parent.mkdir(parents=True, exist_ok=True)
        save_tracks(folder/n, [synthetic_recording(i, seconds=4., noise_px=.5).track])


def test_prepare_chooses_the_runner(tmp_path):
    walker = synthetic_recording(3, seconds=4.).track
    big = replace(walker, id=2, xy=np.repeat(walker.xy[:1]*3, len(walker), 0), box=walker.box*3) # larger, and stands
    short = replace(walker, id=3).slice(0, 60)
    (tmp_path/'films').mkdir()
    save_tracks(tmp_path/'films/a.npz', [big, short, walker])
    done = prepare(str(tmp_path/'films'), str(tmp_path/'data'), no_progress=True)
    assert np.array_equal(done.recordings[0].track.xy, walker.xy, equal_nan=True)


def test_prepare_finds_the_labels(tmp_path, capsys):
    films(tmp_path/'films', 'ann/lap1.npz', 'bea/lap1.npz', 'bea/lap2.npz', '04HN_RUN2_CAM1/clips/lap_006_000.npz')
    (tmp_path/'l.csv').write_text('file,runner,form\nbea/lap1.npz,Beatrix,6\nLAP2.npz,,7\nlap1.npz,,3\nnone.mp4,,3\n')
    done = prepare(str(tmp_path/'films'), str(tmp_path/'data'), str(tmp_path/'l.csv'), no_progress=True)
    assert {(r.source, r.runner, r.form) for r in done.recordings}=={('ann/lap1.npz', 'ann', None),
        ('bea/lap1.npz', 'Beatrix', 6), ('bea/lap2.npz', 'bea', 7),
                                                                     ('04HN_RUN2_CAM1/clips/lap_006_000.npz', '04HN',
                                                                         None)}
    why = dict((f, reason) for f,_,reason in done.failures)
    assert 'fits ann/lap1.npz, bea/lap1.npz' in why['lap1.npz'] and 'no film' in why['none.mp4'] and done.failed
    assert (tmp_path/'data/failed.csv').exists() and (tmp_path/'data/quality.csv').read_text().startswith('recording,check,severity,what')
    assert len(load_recordings(tmp_path/'data'))==4
    (tmp_path/'l.csv').write_text('file,form\nlap2.npz,7\n')
    films(tmp_path/'films', 'cid/lap3.npz', 'dan/lap4.npz')
    capsys.readouterr()
    done = prepare(str(tmp_path/'films'), str(tmp_path/'data'), str(tmp_path/'l.csv'), no_progress=True)
    assert not (tmp_path/'data/failed.csv').exists() and 'next: rpa gait train' in capsys.readouterr().out or done.quality.failed


def test_prepare_puts_frames_on_the_films_clock(tmp_path):
    films(tmp_path/'films', 'ann/clip.npz')
    (tmp_path/'a.xml').write_text(cvat(track('Left toe-off', [shape(30), shape(31, 1)])))
    done = prepare(str(tmp_path/'films'), str(tmp_path/'d1'), str(tmp_path/'a.xml'), no_progress=True)
    assert done.recordings[0].events==events('L', 'toe_off', .5) # 60 Hz, from the film
    (tmp_path/'ls.json').write_text(json.dumps([task(region('Left toe-off', 31, 31))]))
    done = prepare(str(tmp_path/'films'), str(tmp_path/'d2'), str(tmp_path/'ls.json'), fps=24, no_progress=True)
    assert done.recordings[0].events==events('L', 'toe_off', 1.25) and done.recordings[0].fps==60 # 24 Hz, as typed in the tool
    with pytest.raises(RpaError, match='typed in the labelling tool'):
        prepare(str(tmp_path/'films'), str(tmp_path/'d3'), str(tmp_path/'ls.json'), no_progress=True)
    assert 'typed in the labelling tool' in (tmp_path/'d3/failed.csv').read_text()


def test_prepare_from_labelled_points_alone(tmp_path):
    export(tmp_path/'rf'/'train', range(0, 40, 2)); export(tmp_path/'rf'/'valid', range(1, 40, 2))
    done = prepare(str(tmp_path/'rf'), str(tmp_path/'data'), fps=30, no_progress=True)
    assert len(done.recordings)==1 and len(done.recordings[0].track)==40 and len(done.failures)==0


def test_prepare_outlives_bad_files(tmp_path):
    films(tmp_path/'films', 'ann/a.npz', 'bea/b.npz')
    (tmp_path/'films/bad.mp4').write_bytes(b'not a film')
    (tmp_path/'films/bad.npz').write_bytes(b'PK\x03\x04')
    (tmp_path/'films/note.json').write_text('{"a": 1}')
    (tmp_path/'films/.hidden.mp4').write_bytes(b'x')
    write_video(tmp_path/'films/empty.mp4', [np.full((64, 96, 3), 90, np.uint8)]*12, 30)
    done = prepare(str(tmp_path/'films'), str(tmp_path/'data'), no_progress=True)
    assert sorted(f for f,*_ in done.failures)==['bad.mp4', 'empty.mp4', 'note.json'] and len(done.recordings)==2
    assert 'nobody is found' in str(list(done.failures))
    with pytest.raises(RpaError, match='there is none at'): prepare(str(tmp_path/'nowhere'), str(tmp_path/'x'))
    (tmp_path/'empty').mkdir()
    with pytest.raises(RpaError): prepare(str(tmp_path/'empty'), str(tmp_path/'x'))
    with pytest.raises(RpaError, match='WIDTHxHEIGHT'): prepare(str(tmp_path/'films'), str(tmp_path/'x'), size='big')


def test_prepare_takes_up_where_it_stopped(tmp_path, monkeypatch):
    folder, looked = tmp_path/'films', []
    for i,n in enumerate(('a', 'b', 'c')):
        write_video((folder/n).with_suffix('.mp4') if folder.mkdir(exist_ok=True) is None else '',
                    [np.full((64, 96, 3), 40*i+20, np.uint8)]*40, 30)
    def people(frames, fps, threads=2, **kw):
        n = len(list(frames))
        looked.append(n)
        if len(looked)==2: raise KeyboardInterrupt
        return [replace(runner(n, fps=30), source='')]
    monkeypatch.setattr('rpa.processing.track_people', people)
    go = lambda: prepare(str(folder), str(tmp_path/'data'), no_progress=True)
    with pytest.raises(KeyboardInterrupt): go()
    assert not (tmp_path/'data/sequences.json').exists()
    assert len(go().recordings)==3 and len(looked)==4 # the first film was not looked at again
    before = (tmp_path/'data/sequences.json').read_bytes()
    go()
    assert len(looked)==4 and (tmp_path/'data/sequences.json').read_bytes()==before
    write_video(folder/'a.mp4', [np.full((64, 96, 3), 200, np.uint8)]*40, 30) # another film under the same name
    go()
    assert len(looked)==5
    monkeypatch.setattr('rpa.processing.pose_hash', lambda: 'f'*16) # other networks
    go()
    assert len(looked)==8


def test_prepare_joins_films_with_their_keypoints(tmp_path, monkeypatch):
    (tmp_path/'films').mkdir()
    write_video(tmp_path/'films/clip.mp4', [np.full((360, 640, 3), 90, np.uint8)]*90, 30)
    track = runner(90, fps=30)
    save_tracks(tmp_path/'films/clip.npz', [replace(track, width=640, height=360)])
    monkeypatch.setattr('rpa.processing.track_people', lambda *a, **kw: pytest.fail('the keypoints were there'))
    done = prepare(str(tmp_path/'films'), str(tmp_path/'data'), no_progress=True)
    assert [(r.source, len(r.track)) for r in done.recordings]==[('clip.mp4', 90)]


# ── computed runners

def test_projection_is_what_a_far_camera_sees():
    spec, t = RunnerSpec.draw(5, 1), np.arange(60)/60
    motion, px = Motion(spec, 0, t), spec.height_px/spec.height_m
    for yaw,turn in ((0, 1), (30, 1), (30, -1), (-45, 1)):
        tr = synthetic_recording(5, seconds=1., yaw_deg=yaw, turn=turn).track
        a, b = tr.point('left_hip').astype(float), tr.point('right_hip').astype(float)
        apart = (motion.points['L_hip']-motion.points['R_hip']).real*np.cos(np.radians(yaw))+2*BODY['hip_half']*spec.height_m*np.sin(np.radians(yaw))
        assert np.allclose((a-b)[:,0], turn*px*apart, atol=.01)
        assert np.allclose(np.diff(a[:,1]), -px*np.diff(motion.points['L_hip'].imag), atol=.01)
        assert np.isfinite(tr.xy).all() and (tr.xy>=0).all() and (tr.xy[...,0]<tr.width).all() and (tr.xy[...,
            1]<tr.height).all()


def test_noise_and_drop_outs_are_as_asked_for():
    clean, noisy = synthetic_recording(4, seconds=5.), synthetic_recording(4, seconds=5., noise_px=2.)
    assert abs((noisy.track.xy-clean.track.xy).std()-2)<.1 and noisy.phases==clean.phases
    lost = synthetic_recording(4, seconds=10., dropout=.2).track
    for side in ('left', 'right'):
        assert (np.isnan(lost.point(f'{side}_heel')[:,0])==np.isnan(lost.point(f'{side}_knee')[:,0])).all()
    share = np.isnan(lost.xy[:,lm('left_heel', 'right_heel'),0]).mean()
    assert .2<=share<.25 and np.isfinite(lost.point('left_hip')).all() and (lost.score[np.isnan(lost.xy[...,
        0])]==0).all()
    assert np.array_equal(synthetic_recording(4, seconds=5., noise_px=2.).track.xy, noisy.track.xy)
    with pytest.raises(RpaError, match='at least 2 frames'): synthetic_recording(4, seconds=0)


def test_labels_follow_the_formulas():
    even, uneven = synthetic_recording(6, seconds=2.), synthetic_recording(6, seconds=2., asymmetry=.12)
    assert even.issues['asymmetry']==0 and uneven.issues['asymmetry']==pytest.approx(.8) and even.form-uneven.form==pytest.approx(3*.8)
    contact = {s:np.mean([to-ic for side,ic,to in an._stances(uneven.events) if side==s and ic is not None
                          and to is not None]) for s in 'LR'}
    assert contact['R']/contact['L']==pytest.approx(.88, abs=.001)
    seen = [r.name for r in synthetic_recordings(30, seconds=.5)]
    assert len(set(seen))==30 and all(0<=r.form<=10 and set(r.issues)==set(ISSUES)
                                      for r in synthetic_recordings(5, seconds=.5))
    assert [r.track.xy.tobytes() for r in synthetic_recordings(3, seconds=.5)]==[r.track.xy.tobytes()
        for r in synthetic_recordings(5, seconds=.5)[:3]]
    assert {PHASES[k] for r in synthetic_recordings(3, seconds=1.) for k in frame_phases(r)}==set(PHASES)
