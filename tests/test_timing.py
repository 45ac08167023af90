"Split times: what is found, what is refused, and by how much it is off"
import http.server, subprocess, sys, threading
from functools import partial
from pathlib import Path
import numpy as np
import pytest
from rpa.core import RpaError, write_text
from rpa.courses import Course, Ride
from rpa.timing import AlignFraming, Embedding, at_hand, download, embed, features_of, fetched, followed, frame_shown, get_framing, load_config, refine, sharpened
from rpa.video import VideoWriter, probe, read_frames
from pose_data import footage

align = AlignFraming()


@pytest.fixture(scope='module')
def lap(): # The driven course: embedding of the whole film
    return embed(footage('../timing/udacity/udacity_t1_fast.mp4'))


def landmarks(n):
    import csv
    with open(footage('../timing/udacity/landmarks.csv')) as f: rows = [r for r in csv.DictReader(f) if r['pass']==str(n)]
    return np.array([float(r['t_s']) for r in rows]), np.array([float(r['tol_s']) for r in rows])


def test_landmarks_of_one_lap_in_the_other(lap):
    (one,_), (two,tol) = landmarks(1), landmarks(2)
    for source,splits,target,truth in ((lap.cut(0, 84.2), one, lap.cut(84.2), two), (lap.cut(84.2, 168.6), two, lap.cut(0, 84.2), one)):
        found = align.decode(source, splits, target)
        assert found.status=='found' and all(s.confidence>.05 for s in found.splits)
        off = np.abs([s.target_s for s in found.splits]-truth)
        assert (off<=tol).all(), off


def test_lap_played_backwards_is_refused(lap):
    found = align.decode(lap.cut(0, 84.2), landmarks(1)[0], lap.cut(84.2).backwards())
    assert found.status=='not_found' and 'backwards' in found.reason and not any(s.target_s for s in found.splits)


def test_lap_three_times_slower_is_found(lap):
    two, rng = lap.cut(84.2, 168.6), np.random.default_rng(0)
    x = np.repeat(two.x, 3, 0)
    slow = Embedding(x+.05*rng.normal(size=x.shape), 84.2+np.arange(len(x))/10, lap.backbone)
    found = align.decode(lap.cut(0, 84.2), landmarks(1)[0], slow)
    truth, tol = landmarks(2)
    assert found.status=='found'
    off = np.array([s.target_s for s in found.splits])-(84.2+3*(truth-84.2))
    assert (np.abs(off)<=3*tol).all(), off
    assert (np.diff([s.target_s for s in found.splits])>0).all()


def test_film_three_times_slower_is_found_as_near(lap, tmp_path):
    "The second lap again, slowed down at 30 Hz from blended frames, smaller and darker, through the encoder"
    import cv2
    frames = [f for t,f in read_frames(footage('../timing/udacity/udacity_t1_fast.mp4'), start_s=125., end_s=168.6)]
    with VideoWriter(tmp_path/'slow.mp4', 30, crf=28, quick=True) as w:
        for i in np.arange(0, len(frames)-1, 1/9):
            a = i-int(i)
            w.write(cv2.resize(cv2.convertScaleAbs(cv2.addWeighted(frames[int(i)], 1-a, frames[int(i)+1], a, 0), alpha=.6), (200, 100)))
    found = align.decode(lap.cut(0, 84.2), landmarks(1)[0], embed(tmp_path/'slow.mp4'))
    truth, tol = landmarks(2)
    off = np.array([s.target_s for s in found.splits])-3*(truth-125)
    assert found.status=='found' and (np.abs(off)<=3*tol).all() and np.abs(off).mean()<=.2, off


@pytest.mark.parametrize('pace', [.55, 1., 1.09, 2.6, 3.1])
def test_close_look_at_any_speed(pace):
    "A speed that is none of those that are tried is not drawn to the next one"
    def film(t, seed):
        knots, k, w = np.random.default_rng(seed).normal(size=(42, 64)), t.astype(int), (t%1)[:,None]
        return knots[k]+(knots[k+1]-knots[k])*w*w*(3-2*w)
    off = []
    for seed in range(4):
        t, slow = np.arange(0, 40, .1), np.arange(0, 40*pace, .1)
        s, e = sharpened(Embedding(film(t, seed), t)), sharpened(Embedding(film(slow/pace, seed), slow), .5*pace)
        off += [refine(s, e, at, pace*(at+.15), pace)[0]-pace*at for at in (8.3, 20.1, 31.7)]
    assert np.abs(off).mean()<=.02, off


def test_footage_that_stops_early_says_where(lap):
    found = align.decode(lap.cut(0, 84.2), landmarks(1)[0], lap.cut(84.2, 150))
    assert [s.status for s in found.splits]==['found', 'not_found', 'not_found'] and found.status=='not_found'
    assert found.splits[1].reason=='the footage stops before this split'


@pytest.fixture(scope='module')
def wood(tmp_path_factory): # A course, its rides as embeddings, and the folder of films
    d, course = tmp_path_factory.mktemp('wood'), Course.draw(11, 180, 7)
    rides = dict(src=Ride(course, rider=1, fps=20), half=Ride(course, rider=2, pace=.5, fps=20, stops=((70, 4.),)), twice=Ride(course, rider=3, pace=2., fps=30),
                 third=Ride(course, rider=5, pace=.34, fps=15), turned=Ride(course.turned(), rider=4, fps=20), other=Ride(Course.draw(12, 180), rider=2, fps=20))
    for n,r in rides.items(): r.write(d/f'{n}.mp4')
    return d, rides, {n:embed(d/f'{n}.mp4') for n in rides}


def test_error_at_half_and_twice_the_speed(wood):
    d, rides, e = wood
    off = {}
    for n in ('half', 'twice', 'third'):
        found = align.decode(e['src'], rides['src'].splits_s, e[n])
        assert found.status=='found'
        off[n] = np.abs([s.target_s for s in found.splits]-rides[n].splits_s)
    assert np.median(np.r_[off['half'], off['twice']])<=.1 and np.median(off['half'])<=.17, off
    assert np.median(off['third'])<=.3, off


@pytest.mark.parametrize('n', ['turned', 'other'])
def test_wrong_course_is_refused(wood, n):
    d, rides, e = wood
    found = align.decode(e['src'], rides['src'].splits_s, e[n])
    assert found.status=='not_found' and found.reason and not any(s.status=='found' for s in found.splits)


def test_answer_does_not_depend_on_where_the_target_lies(wood):
    "Minutes of another course before and after the ride change nothing"
    d, rides, e = wood
    x = np.concatenate([e['other'].x, e['turned'].x, e['twice'].x, e['other'].x[::-1]])
    before = len(e['other'].x)+len(e['turned'].x)
    long = Embedding(x, np.arange(len(x))/15, e['src'].backbone)
    found = align.decode(e['src'], rides['src'].splits_s, long)
    truth = before/15+rides['twice'].splits_s*e['twice'].hz/15
    assert found.status=='found' and np.abs([s.target_s for s in found.splits]-truth).max()<.3


def test_the_way_between_the_splits_is_looked_at_closely(wood):
    "The curve of the riders' page goes through the splits, and is nearer to the truth than the walk"
    d, rides, e = wood
    found = align.decode(e['src'], rides['src'].splits_s, e['twice'])
    close = followed(found, e['src'], e['twice'])
    def off(f):
        s = np.arange(found.splits[0].source_s, found.splits[-1].source_s, .1)
        return np.abs(np.interp(s, f.source_s, f.target_s)-rides['twice'].at(np.interp(s, *rides['src'].profile)))
    assert np.allclose(np.interp([s.source_s for s in found.splits], close.source_s, close.target_s), [s.target_s for s in found.splits], atol=.02)
    assert np.median(off(close))<.7*np.median(off(found)) and np.median(off(close))<=.03, (np.median(off(close)), np.median(off(found)))
    assert (np.diff(close.target_s)>=0).all()


def test_of_several_laps_the_first_whole_one(wood):
    d, rides, e = wood
    lap, noise = e['half'], np.random.default_rng(0)
    weak = lap.x+.05*noise.normal(size=lap.x.shape)
    for first,truth in ((weak, rides['half'].splits_s), (weak[len(lap.x)*2//5:], len(lap.x)*3//5/lap.hz+rides['half'].splits_s)):
        x = np.concatenate([first, lap.x])
        found = align.decode(e['src'], rides['src'].splits_s, Embedding(x, np.arange(len(x))/lap.hz, lap.backbone))
        assert found.status=='found' and np.abs([s.target_s for s in found.splits]-truth).max()<.6


@pytest.mark.parametrize('bars', [((0, 0), (30, 30)), ((22, 22), (0, 0))])
def test_black_bars_are_no_part_of_the_picture(wood, tmp_path, bars):
    d, rides, e = wood
    with VideoWriter(tmp_path/'bars.mp4', 20, quick=True) as w:
        for _,f in read_frames(d/'src.mp4'): w.write(np.pad(f, (*bars, (0, 0))))
    a, b = e['src'].x, embed(tmp_path/'bars.mp4').x
    assert np.median((a*b).sum(1)/np.linalg.norm(a, axis=1)/np.linalg.norm(b, axis=1))>.97
    found = align.decode(e['twice'], rides['twice'].splits_s, embed(tmp_path/'bars.mp4'))
    assert found.status=='found' and np.abs([s.target_s for s in found.splits]-rides['src'].splits_s).max()<.4


def config(d, text): return load_config(write_text(d/'c.yaml', text))


def test_source_without_splits_and_unknown_names(wood):
    d, rides, e = wood
    with pytest.raises(RpaError, match='source rider must have splits'): align.decode(e['src'], [], e['half'])
    with pytest.raises(RpaError, match='every split must lie within the film'): align.decode(e['src'], [1, 999], e['half'])
    cfg = config(d, 'videos: [{riderId: src, trackId: wood, path: src.mp4, splits: ["09:00:00"]}]')
    with pytest.raises(RpaError, match='09:00:00 lies beyond the end of src.mp4'): features_of(cfg, cfg.videos[0])
    with pytest.raises(RpaError, match="trackId must be one of wood; got 'hill'"): cfg.video('hill', 'src')
    with pytest.raises(RpaError, match='framing must be one of'): get_framing('guess')


@pytest.mark.parametrize('text,says', [
    ('videos: 3', 'line 1: videos'), ('- a', 'a mapping with the key videos'), ('', 'videos: Field required'), ('videos: []', 'at least one film'),
    ('videos:\n - {riderId: a/b, trackId: t, path: x}', 'without slashes'), ('videos: [', 'not YAML'),
    ('videos:\n - {riderId: a, trackId: t, path: x}\n - {riderId: a, trackId: t, path: y}', 'line 3: a is already on t in line 2'),
    ('videos:\n - riderId: a\n   trackId: t\n   path: x\n   riderId: b', 'line 5: riderId is given twice'),
    ('videos:\n - {riderId: a, trackId: t, path: x, start: "00:10:00", end: "00:09:00"}', 'end must come after start'),
    ('a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n'
     'e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]\nvideos: []', 'fewer than 100000')])
def test_config_complaints(tmp_path, text, says):
    with pytest.raises(RpaError) as e: config(tmp_path, text)
    assert says in str(e.value) and 'c.yaml' in str(e.value)


def test_unquoted_timecodes_are_not_read_as_numbers(tmp_path):
    "YAML reads 10:20:05 as a number of base 60"
    cfg = config(tmp_path, 'videos: [{riderId: a, trackId: t, path: x, splits: [10:20:05, 12:00:00]}]')
    assert cfg.videos[0].splits==('10:20:05', '12:00:00') and cfg.videos[0].splits_s[0]==620+5/24


@pytest.mark.parametrize('fps', ['24', '25', '30000/1001', '30', '60', '120'])
def test_frame_on_the_screen(fps):
    "The frame of the document: int((MM·60+SS+FF/24)·fps)"
    from fractions import Fraction
    for n in range(0, 5000, 7): assert frame_shown(n/24, fps)==int(Fraction(n, 24)*Fraction(fps))


def test_cut_off_film_and_broken_tables(wood, tmp_path):
    d, rides, e = wood
    data = (d/'src.mp4').read_bytes()
    (tmp_path/'cut.mp4').write_bytes(data[:len(data)*2//3])
    with pytest.raises(RpaError, match='cut off'): embed(tmp_path/'cut.mp4')
    for name,content in (('a.npz', b'x'), ('a.safetensors', b'x'), ('a.csv', b'x,1\n1,2'), ('b.csv', b't_s,f\n0,a'), ('a.pkl', b'')):
        (tmp_path/name).write_bytes(content)
        with pytest.raises(RpaError, match='features'): Embedding.load(tmp_path/name)
    (tmp_path/'ok.csv').write_text('t_s,f0,f1\n0,1,2\n.5,3,4\n')
    assert Embedding.load(tmp_path/'ok.csv').x.tolist()==[[1, 2], [3, 4]]


def test_download_goes_on_and_does_not_fetch_twice(wood, tmp_path):
    d, rides, e = wood
    asked = []
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *a): asked.append(self.path)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=str(d)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f'http://127.0.0.1:{server.server_port}'
    path = write_text(tmp_path/'c.yaml', f'videos:\n - {{riderId: a, trackId: t, url: "{at}/nothing.mp4"}}\n - {{riderId: b, trackId: t, url: "{at}/src.mp4"}}\n')
    done = download(str(path))
    assert done.failed and [p.name for p in done.films]==['b.mp4'] and 't_a' in (tmp_path/'downloaded_videos'/'failed.csv').read_text()
    film = load_config(path).film(load_config(path).videos[1])
    assert film==fetched(load_config(path).videos[1], tmp_path/'downloaded_videos') and probe(film).frames==probe(d/'src.mp4').frames
    n = len([p for p in asked if 'src' in p])
    download(str(path))
    assert len([p for p in asked if 'src' in p])==n
    server.shutdown()


def test_films_that_are_not_there_are_left_out(wood, tmp_path, capsys):
    d, rides, e = wood
    (d/'junk.mp4').write_bytes(b'no film')
    cfg = config(d, 'videos: [{riderId: a, trackId: t, path: src.mp4}, {riderId: b, trackId: t, path: junk.mp4}, {riderId: c, trackId: t, url: "http://127.0.0.1:9/c.mp4"}]')
    there, failures = at_hand(cfg, cfg.videos)
    assert [v.riderId for v in there]==['a'] and [r[0] for r in failures]==['t_b', 't_c'] and capsys.readouterr().out.count('left out')==2
    with pytest.raises(RpaError, match='at least one film must be there'): at_hand(cfg, cfg.videos[1:])


def test_tables_of_the_rally_job_are_read(tmp_path):
    "As `rpa features` writes them; a row that was not seen is left out, and other settings are another backbone"
    from rpa.features import Features, save_features
    x, t = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20)/5
    x[3] = np.nan
    for name,stride in (('a', .2), ('b', .2), ('c', .1)):
        save_features(Features(x, t, t, t+.2, dict(settings=dict(backbone=dict(name='net'), stride_s=stride))), tmp_path/f'{name}.safetensors')
    a, b, c = (Embedding.load(tmp_path/f'{n}.safetensors') for n in 'abc')
    assert len(a.x)==19 and a.backbone==b.backbone!=c.backbone and a.backbone.startswith('net-') and .6 not in a.t_s
    with pytest.raises(RpaError, match='features must come from one backbone'): align.decode(a, [1.], c)


def test_no_torch_on_the_way():
    code = "import sys; import rpa.timing; assert not {'torch', 'transformers', 'yt_dlp', 'pandas'} & set(sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode==0


def test_a_film_described_once_is_not_decoded_again(wood, tmp_path, monkeypatch):
    d, rides, e = wood
    first = embed(d/'src.mp4', tmp_path)
    monkeypatch.setattr('rpa.timing.read_frames', None)
    again = embed(d/'src.mp4', tmp_path)
    assert np.array_equal(first.x, again.x) and np.array_equal(first.t_s, again.t_s) and len(list(Path(tmp_path).iterdir()))==1
