"`rpa rally cut`: edit lists, copies, exact films, the command, and what is refused or kept"
import json, shutil, signal, subprocess, sys, time
from fractions import Fraction

import av, numpy as np, pytest
from hypothesis import given, settings, strategies as st

import rpa.cut as cut_module
from rpa.core import Interval, RpaError, read_json
from rpa.cut import apart, copy_stretches, cut, exact_stretch, key_before, timecode, write_edl
from rpa.features import features
from rpa.pipelines import main
from rpa.rally import drawn_match, load_finder, read_dataset, train_temporal
from rpa.video import probe, read_video


def film(path, seconds=6, fps=30, codec='libx264', sound='aac', gop=20, turn=None, vfr=False):
    "Frames that say their number by eight bars, with a tone that rises by 100 Hz a second"
    with av.open(str(path), 'w') as out:
        v = out.add_stream(codec, rate=fps)
        v.width, v.height, v.pix_fmt = 64, 48, 'yuv420p'
        v.options = {'g':str(gop)}|({'bf':'3', 'sc_threshold':'0'} if codec=='libx264' else {})
        if turn is not None: v.set_display_rotation(turn)
        a, n = None, 0
        if sound: a = out.add_stream(sound, rate=48000, layout='mono')
        for k in range(seconds*fps):
            x = np.zeros((48, 64, 3), np.uint8)
            for b in range(8): x[:,8*b:8*b+8] = 230*(k>>b&1)
            f = av.VideoFrame.from_ndarray(x, 'rgb24')
            f.pts, f.time_base = (round(1000*k/fps)+(k%3)*8, Fraction(1, 1000)) if vfr else (k, Fraction(1, fps))
            out.mux(v.encode(f))
            while a and n<(k+1)/fps*48000:
                t = np.arange(n, n+960)/48000
                w = (.3*np.sin(2*np.pi*(200*t+50*t**2))).astype(np.float32)[None]
                e = av.AudioFrame.from_ndarray((w*32767).astype(np.int16), 's16', 'mono') if sound.startswith('pcm') else av.AudioFrame.from_ndarray(w, 'fltp', 'mono')
                e.sample_rate, e.pts = 48000, n
                n += 960
                out.mux(a.encode(e))
        out.mux(v.encode())
        if a: out.mux(a.encode())
    return path


def numbers(path):
    "Which frames a film shows"
    x = read_video(path, gray=True)[0].astype(float)
    return [sum((f[16:32,8*b+2:8*b+6].mean()>115)<<b for b in range(8)) for f in x]


def tone(path, at_s):
    "Pitch of the sound around a time, Hz"
    with av.open(str(path)) as c: a = np.concatenate([f.to_ndarray().astype(float).reshape(-1) for f in c.decode(audio=0)])
    w = a[int(at_s*48000)-4096:int(at_s*48000)+4096]
    return np.abs(np.fft.rfft(w*np.hanning(len(w)))).argmax()*48000/len(w)


@given(st.integers(0, 24*3600*30-1))
@settings(max_examples=200, deadline=None)
def test_the_drop_frame_clock_keeps_to_the_wall(n):
    "Each frame its own reading, never more than 0.16 s a day from the wall's clock, back by the rule of SMPTE ST 12-1"
    h, m, rest = (text := timecode(n, Fraction(30000, 1001))).split(':')
    s, f = map(int, rest.split(';'))
    assert f<30 and not (s==0 and f<2 and int(m)%10), text
    minutes = int(h)*60+int(m)
    assert ((minutes*60+s)*30+f)-2*(minutes-minutes//10)==n
    assert abs(minutes*60+s+f/29.97-n*1001/30000)<.16


def test_an_edit_list_adds_up(tmp_path):
    text = write_edl(tmp_path/'a.edl', [Interval(10, 14.5), Interval(61, 70)], 'match.mp4', 25).read_text()
    rows = [r.split() for r in text.splitlines() if r[:3].isdigit()]
    assert [r[4:] for r in rows]==[['00:00:10:00', '00:00:14:13', '00:00:00:00', '00:00:04:13'], ['00:01:01:00', '00:01:10:00', '00:00:04:13', '00:00:13:13']]
    assert 'FCM: NON-DROP FRAME' in text and text.count('* FROM CLIP NAME: match.mp4')==2
    assert 'FCM: DROP FRAME' in write_edl(tmp_path/'b.edl', [Interval(0, 1)], 'm.mp4', '60000/1001').read_text()


KINDS = [('a.mp4', {}), ('b.mkv', {}), ('c.mov', dict(sound='pcm_s16le')), ('d.webm', dict(codec='libvpx-vp9', sound='libopus')), ('e.avi', dict(codec='mpeg4', sound='mp3')),
         ('f.mkv', dict(vfr=True)), ('g.mp4', dict(sound=None)), ('h.mp4', dict(turn=90))]


@pytest.mark.parametrize('name,kind', KINDS)
def test_a_copy_holds_what_was_asked(tmp_path, name, kind):
    "From the key frame before a stretch to its end, picture and sound, whatever the container; nothing twice"
    src, want = film(tmp_path/name, **kind), [Interval(1, 2), Interval(4, 5)]
    starts = copy_stretches([(src, s) for s in apart(src, want)], tmp_path/'o.mp4')
    assert all(s.start_s-.72<=k<=s.start_s+.05 for s,k in zip(want, starts))
    assert probe(tmp_path/'o.mp4').rotation==probe(src).rotation
    if kind.get('vfr') or kind.get('turn'): return
    got = numbers(tmp_path/'o.mp4')
    for s in want: assert set(range(round(s.start_s*30)+1, round(s.end_s*30)-1))<=set(got)
    assert len(set(got))==len(got) or kind.get('codec')=='mpeg4' and len(got)-len(set(got))<=2 # .avi has no times of its own: a frame is held at the seam
    if kind.get('sound', 'aac'): assert tone(tmp_path/'o.mp4', .5)==pytest.approx(200+100*(starts[0]+.5), abs=14)


def test_stretches_that_share_frames_are_copied_once(tmp_path):
    src = film(tmp_path/'a.mp4', gop=60)
    assert key_before(src, [0, 1.9, 2.1, 5.9])==pytest.approx([0, 0, 2, 4], abs=.01)
    assert apart(src, [Interval(.5, 1), Interval(1.2, 1.5), Interval(4.2, 5)])==[Interval(.5, 1.5), Interval(4.2, 5)]


def test_exact_to_the_frame(tmp_path):
    src = film(tmp_path/'a.mp4')
    exact_stretch(probe(src), Interval(1.5, 3), tmp_path/'x.mp4', 'note')
    assert numbers(tmp_path/'x.mp4')==list(range(45, 90)) and probe(tmp_path/'x.mp4').comment=='note'
    assert tone(tmp_path/'x.mp4', .75)==pytest.approx(200+100*2.25, abs=14)
    assert sorted(p.name for p in tmp_path.iterdir())==['a.mp4', 'x.mp4']


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "A model trained on two drawn matches, and a third film"
    root = tmp_path_factory.mktemp('cut')
    (root/'d'/'videos').mkdir(parents=True)
    true = {f'm{k}.mp4':drawn_match(root/'d'/'videos'/f'm{k}.mp4', k, 27) for k in range(3)}
    (root/'d'/'ground_truth.json').write_text(json.dumps([dict(filename=v, rallies=[dict(start_ms=round(1000*r.start_s), end_ms=round(1000*r.end_s)) for r in rs]) for v,rs in true.items()]))
    features([str(root/'d'/'videos'/f'm{k}.mp4') for k in (1, 2)], str(root/'f'), stride=.4, cache=str(root/'c'), no_progress=True)
    rows = [f'{v},{r.start_s},{r.end_s}' for v in ('m1.mp4', 'm2.mp4') for r in true[v]]
    (root/'t.csv').write_text('\n'.join(['video,start_s,end_s', *rows]))
    train_temporal(str(root/'f'), str(root/'t.csv'), str(root/'model'), 'v1', epochs=10, no_evaluate=True, no_progress=True)
    return root, true


def test_the_command(world, tmp_path, capsys):
    root, true = world
    args = ['rally', 'cut', str(root/'d'/'videos'/'m0.mp4'), '--model', str(root/'model'), '--output', str(tmp_path), '--cache', str(root/'c'), '--no-progress']
    assert main([*args, '--exact'])==0
    out = tmp_path/'m0'
    got, about = read_json(out/'intervals.json'), read_json(out/'cut.json')
    assert all(Interval(r['start_s'], r['end_s']).iou(t)>.8 for r,t in zip(got, true['m0.mp4'], strict=True))
    assert about['starts_s']==pytest.approx([r['start_s'] for r in got], abs=.001) and about['rallies']==len(got) and not about['partial'] and {p.name for p in out.iterdir()}=={'intervals.json', 'intervals.csv', 'm0.edl', 'timeline.png', 'cut.json', 'clips', 'm0_rallies.mp4'}
    lengths = [probe(out/f).duration_s for f in about['files'][:-1]]
    assert np.allclose(lengths, [r['end_s']-r['start_s'] for r in got], atol=.07)
    assert probe(out/'m0_rallies.mp4').duration_s==pytest.approx(sum(lengths), abs=.1*len(lengths))
    assert main(args)==0 # the same folder again, copied this time: other films, none left over
    again, source = read_json(out/'cut.json'), read_video(root/'d'/'videos'/'m0.mp4', gray=True)[0].astype(float)
    for f,start in zip(again['files'], again['starts_s']): assert np.abs(source-read_video(out/f, gray=True, end_s=.1)[0][0]).mean((1, 2)).argmin()==round(start*30)
    assert sorted(p.name for p in (out/'clips').iterdir())==sorted(f.removeprefix('clips/') for f in read_json(out/'cut.json')['files'][:-1])
    assert main([*args, '--no-clips', '--no-film'])==0 and not list(out.rglob('*.mp4'))
    assert 'rallies, ' in capsys.readouterr().out


def test_what_is_written_is_not_written_again(world, tmp_path, monkeypatch):
    root, _ = world
    job = lambda: cut(str(root/'d'/'videos'/'m0.mp4'), str(root/'model'), output=str(tmp_path), exact=True, cache=str(root/'c'), no_progress=True)
    first = job()
    (tmp_path/'m0'/first.done[0].files[1]).unlink()
    before = {f:(tmp_path/'m0'/f).stat().st_mtime_ns for f in first.done[0].files if (tmp_path/'m0'/f).exists()}
    made = []
    real = cut_module.exact_stretch
    monkeypatch.setattr(cut_module, 'exact_stretch', lambda *a: made.append(a[2].name) or real(*a))
    job()
    assert made==[first.done[0].files[1].split('/')[1]] and all((tmp_path/'m0'/f).stat().st_mtime_ns==t for f,t in before.items())


def test_a_film_that_breaks_off_is_cut_as_far_as_it_goes(world, tmp_path, capsys):
    root, true = world
    data = (root/'d'/'videos'/'m0.mp4').read_bytes()
    (tmp_path/'m0.mp4').write_bytes(data[:len(data)//2])
    (tmp_path/'noise.mp4').write_bytes(b'no film at all'*100)
    assert main(['rally', 'cut', str(tmp_path/'m0.mp4'), str(tmp_path/'noise.mp4'), '--model', str(root/'model'), '--output', str(tmp_path/'o'), '--cache', str(tmp_path/'c'), '--no-progress'])==1
    about = read_json(tmp_path/'o'/'m0'/'cut.json')
    assert about['partial'] and 'cut off' in about['why'] and 1<=about['rallies']<=len(true['m0.mp4']) and 'PARTIAL' in capsys.readouterr().out
    assert (tmp_path/'o'/'failed.csv').read_text().count('\n')==3 and not (tmp_path/'o'/'noise').exists()


def test_a_film_without_a_rally(world, tmp_path, monkeypatch):
    root, _ = world
    shutil.copy(root/'d'/'videos'/'m0.mp4', tmp_path/'m0.mp4')
    finder = load_finder(str(root/'model'))
    monkeypatch.setattr(cut_module, 'load_finder', lambda *a, **kw: lambda *a: finder)
    real = finder.how.predict
    def none(series):
        got = real(series)
        got.rallies = []
        return got
    monkeypatch.setattr(finder.how, 'predict', none)
    monkeypatch.setattr(cut_module, 'load_finder', lambda *a, **kw: finder)
    done = cut(str(tmp_path/'m0.mp4'), 'x', output=str(tmp_path/'o'), cache=str(root/'c'), no_progress=True).done[0]
    assert done.files==[] and read_json(done.folder/'intervals.json')==[] and (done.folder/'timeline.png').exists()


def test_wrong_models(world, tmp_path):
    root, _ = world
    cases = [(dict(model='beach'), 'rpa rally prepare'), (dict(model='x'), "no folder 'x'"), (dict(model=str(root/'model'), min_windows=2), 'rules go with'),
             (dict(model=str(root/'model'), bundle='b'), '--bundle goes with'), (dict(model=str(root/'model'), backbone='tiny'), 'was trained on features of'),
             (dict(model=str(root/'f')), 'not a temporal model')]
    for kw, says in cases:
        with pytest.raises(RpaError, match=says): load_finder(**kw)
    with pytest.raises(RpaError, match='two films are called m0'): cut([str(root/'d'/'videos'/'m0.mp4'), 'm0.mov'], str(root/'model'))
    (tmp_path/'e').mkdir()
    with pytest.raises(RpaError, match='no films in this folder'): cut(str(tmp_path/'e'), str(root/'model'))


def test_a_dataset_is_watched_and_scored(world, tmp_path, capsys):
    root, _ = world
    args = ['rally', 'evaluate', '--truth', str(root/'d'), '--model', str(root/'model'), '--cache', str(root/'c'), '--no-progress', '--output', str(tmp_path/'e.json')]
    assert main(args)==1 and 'has learned from m1, m2' in capsys.readouterr().err
    assert main([*args, '--allow-seen'])==0 and read_json(tmp_path/'e.json')['f1']>.9
    assert 'says nothing about new matches' in capsys.readouterr().out


@pytest.mark.parametrize('change,says', [(dict(filename='../m0.mp4'), 'must stay inside'), (dict(filename='m9.mp4'), 'are missing: m9.mp4'), (dict(rallies=[dict(start_ms=90000, end_ms=99000)]), 'past the end'),
                                         (dict(rallies=[dict(start_ms=5000, end_ms=4000)]), 'end must not lie before')])
def test_datasets_that_cannot_be(world, tmp_path, change, says):
    root, _ = world
    (tmp_path/'videos').symlink_to(root/'d'/'videos')
    truth = json.loads((root/'d'/'ground_truth.json').read_text())
    (tmp_path/'ground_truth.json').write_text(json.dumps([truth[0]|change]))
    (tmp_path/'manifest.json').write_text(json.dumps(dict(videos=[dict(filename=change.get('filename', 'm0.mp4'), duration_ms=27000)])))
    with pytest.raises(RpaError, match=says): read_dataset(tmp_path, str(root/'c'))


@pytest.mark.slow
def test_ctrl_c_leaves_whole_films_only(world, tmp_path):
    root, _ = world
    src = film(tmp_path/'long.mp4', seconds=9)
    args = [sys.executable, '-m', 'rpa.pipelines', 'rally', 'cut', str(src), str(root/'d'/'videos'/'m0.mp4'), '--model', str(root/'model'), '--exact', '--output', str(tmp_path/'o'), '--cache', str(tmp_path/'c')]
    for wait in (3, 4, 5, 6):
        p = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(wait)
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=60)
        for f in (tmp_path/'o').rglob('*.mp4'):
            if f.name[0]!='.': assert probe(f).frames
    assert subprocess.run(args, capture_output=True).returncode==0
    assert not [p for p in (tmp_path/'o').rglob('*') if 'silent' in p.name]
