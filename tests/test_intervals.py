"Rules, thresholds, matching and reading of intervals, beyond the lessons of the page"
import itertools, json
from dataclasses import asdict
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from rpa.core import Interval, RpaError
from rpa.intervals import (PRESETS, Decoding, FeatureSeries, Rally, RallyScores, Scored, apply_heuristics, as_series, check_truth, decode,
                           grid_search, heuristics, iou_table, join_truth, match, merge_touching, read_series, read_truth, runs, score_rallies,
                           settings_of, synthetic_match, three_states, window_labels, write_intervals)
from pose_data import ROOT

BEACH = ROOT/'../shared/data/rally/beach'


def beach(name):
    if not (BEACH/name).exists(): pytest.skip('the beach labels are not here (../shared/data/rally/beach)')
    return BEACH/name


# what comes out, whatever goes in

def well_formed(found, end, least):
    assert all(0<=r.start_s<r.end_s<=end+1e-9 for r in found)
    assert all(a.end_s<b.start_s for a,b in zip(found, found[1:]))
    assert all(r.duration>=least-1e-9 for r in found)


probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=60)

@settings(max_examples=200, deadline=None)
@given(p=probabilities, name=st.sampled_from(['indoor', 'beach']), stride=st.sampled_from([16, 24, 48]), fps=st.sampled_from([24., 30., 60.]))
def test_rules_give_intervals_that_can_be(p, name, stride, fps):
    starts = np.arange(len(p))*stride/30
    end = starts[-1]+16/30
    found, maybe = apply_heuristics(np.array(p), starts, name, length_s=end, fps=fps)
    well_formed(found, end, min(PRESETS[name].min_play_duration, end))
    assert all(r.reason in ('INSUFFICIENT_WINDOWS', 'TOO_SHORT', 'SPARSE_DENSITY') and r.score>=.3 for r in maybe)
    well_formed(sorted(Rally(r.start_s, r.end_s) for r in maybe), end, 0)

@settings(max_examples=200, deadline=None)
@given(p=st.lists(st.tuples(*[st.floats(0, 1)]*3), min_size=1, max_size=40), name=st.sampled_from(['indoor', 'beach']), dense=st.floats(0, 1.2),
       gap=st.floats(0, 9), least=st.floats(0, 4), windows=st.integers(0, 3))
def test_rules_with_three_states_and_any_numbers(p, name, dense, gap, least, windows):
    p, starts = np.array(p)+1e-3, np.arange(len(p))*1.6
    p = p/p.sum(1, keepdims=True)
    h = heuristics(name, min_active_density=dense, min_gap_seconds=gap, min_play_duration=least, min_windows=windows, pad_before=0, pad_after=0)
    found, _ = apply_heuristics(p, starts, h)
    well_formed(found, (len(p)-1)*1.6+16/30, min(16/30, least))
    for r in found: # only a single active window may be shorter than asked
        if r.duration<int(least*30)/30-1e-9: assert three_states(p)[0][(starts>=r.start_s-1e-9)&(starts<r.end_s)].sum()==1 and windows<=1

@settings(max_examples=200, deadline=None)
@given(p=probabilities, low=st.floats(0, 1), more=st.floats(0, 1), gap=st.floats(0, 5), least=st.floats(0, 5))
def test_two_thresholds_give_intervals_that_can_be(p, low, more, gap, least):
    how = Decoding(low+(1-low)*more, low, gap, least)
    found = decode(np.array(p), np.arange(len(p))*.5+.25, how, len(p)*.5)
    well_formed(found, len(p)*.5, least)
    assert all(0<=r.score<=1 for r in found)
    assert all(b.start_s-a.end_s>=min(gap, 1e-12) for a,b in zip(found, found[1:]))


def slow_rules(p, h, fps=30, stride=48, window=16):
    "The rules once more, as plainly as they are written, window by window; intervals in frames"
    play, conf = [q>.5 for q in p], [max(q, 1-q) for q in p]
    was, n = list(play), len(p)
    if n>=3:
        for i in range(n):
            near = (i>0 and was[i-1])+(i<n-1 and was[i+1])
            if not was[i] and ((near==2 and p[i]>.25) or (near and p[i]>h.boundary_confidence_threshold)): play[i], conf[i] = True, p[i]
    length = lambda a, b: (b-a-1)*stride+window
    i, before = 0, list(play)
    while i<n:
        j = i
        while j<n and before[j]==before[i]: j += 1
        if not before[i] and i>0 and j<n and length(i, j)<int(h.rally_continuation_seconds*fps):
            for k in range(i, j): play[k], conf[k] = True, conf[k]*.8
        i = j
    segs = [[k, len(list(g))] for k,g in itertools.groupby(play)]
    at, spans = 0, []
    for k,m in segs: spans.append((k, at, at+m)); at += m
    out, i = [], 0
    while i<len(spans):
        if not spans[i][0]: i += 1; continue
        a, b = spans[i][1:]
        i += 1
        while i+1<len(spans) and length(*spans[i][1:])<int(h.min_gap_seconds*fps):
            total, ok = 0, length(*spans[i+1][1:])>=fps
            for on,c,d in spans[i+1:i+9]:
                if ok: break
                if on: total += length(c, d)
                elif length(c, d)>=int(1.5*fps): break
                ok = total>=fps
            if not ok: break
            b, i = spans[i+1][2], i+2
        out.append((a, b))
    good = []
    for a,b in out:
        k = sum(was[a:b])
        if k<1 or (k>1 and (length(a, b)<int(h.min_play_duration*fps) or k/max(1, length(a, b)/stride)<h.min_active_density)): continue
        good.append((max(0, a*stride/fps-h.pad_before), min(((n-1)*stride+window)/fps, ((b-1)*stride+window)/fps+h.pad_after)))
    one = []
    for a,b in good:
        if one and a<=one[-1][1]: one[-1] = (one[-1][0], max(one[-1][1], b))
        else: one.append((a, b))
    return one

@pytest.mark.parametrize('name', PRESETS)
def test_rules_against_a_plain_second_writing(name):
    rng = np.random.default_rng(5)
    for k in range(400):
        p = np.clip(rng.random(rng.integers(1, 70))*rng.uniform(.5, 1.3), 0, 1)
        if k%2: p = np.convolve(p, np.ones(3)/3, 'same')
        h = heuristics(name, **(dict(min_gap_seconds=float(rng.uniform(0, 12)), min_active_density=float(rng.uniform(0, 1)), pad_before=0, pad_after=0) if k%3 else {}))
        found, _ = apply_heuristics(p, np.arange(len(p))*1.6, h)
        assert np.allclose([(r.start_s, r.end_s) for r in found], np.reshape(slow_rules(p, h), (-1, 2))) if found else slow_rules(p, h)==[]

def test_presets_are_the_documents():
    five = 'min_play_duration rally_continuation_seconds boundary_confidence_threshold min_active_density min_gap_seconds'.split()
    assert [[getattr(PRESETS[n], k) for k in five] for n in ('indoor', 'beach')]==[[1., 2., .35, .25, 5.], [1., 1.5, .4, .3, 3.]]
    with pytest.raises(RpaError, match='min_gap_seconds must be ≥ 0'): heuristics('indoor', min_gap_seconds=-1)

def test_rate_scales_frames(): # the same video at 60 frames a second
    p = np.random.default_rng(0).random(80)
    a, b = (apply_heuristics(p, np.arange(80)*1.6, 'beach', fps=f)[0] for f in (30., 60.))
    assert a==b

def test_bad_probabilities():
    for p in (np.array([.5, np.nan]), np.array([.5, 1.4]), np.ones((2, 2))*.5):
        with pytest.raises(RpaError, match='probabilities'): apply_heuristics(p, np.arange(2), 'beach')
    with pytest.raises(RpaError, match='a start for each window'): apply_heuristics(np.ones(3)*.5, np.arange(2), 'beach')
    with pytest.raises(RpaError, match='one finite probability'): decode(np.array([np.nan]), np.array([0.]))
    with pytest.raises(RpaError, match='low 0.7 and high 0.5'): Decoding(.5, .7)
    assert apply_heuristics(np.array([]), np.array([]), 'beach')==([], []) and decode(np.array([]), np.array([]))==[]


# matching

def best_by_hand(table, iou):
    n, m = table.shape
    best = (0, 0.)
    for order in itertools.permutations(range(max(n, m)), n):
        pairs = [(i, j) for i,j in enumerate(order) if j<m and table[i,j]>=iou]
        best = max(best, (len(pairs), sum(table[p] for p in pairs)))
    return best

@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 4), m=st.integers(0, 4), iou=st.sampled_from([.1, .3, .5]))
def test_match_is_the_best_there_is(seed, n, m, iou):
    rng = np.random.default_rng(seed)
    draw = lambda k: [Interval(a, a+l) for a,l in zip(rng.uniform(0, 10, k), rng.uniform(1, 8, k))]
    a, b = draw(n), draw(m)
    pairs, table = match(a, b, iou), iou_table(a, b)
    assert len({i for i,_ in pairs})==len({j for _,j in pairs})==len(pairs)
    count, fit = best_by_hand(table, iou) if n and m else (0, 0.)
    assert len(pairs)==count and abs(sum(table[p] for p in pairs)-fit)<1e-9
    assert np.allclose(table, [[x.iou(y) for y in b] for x in a]) if n and m else True

def test_scores_count_and_draw_groups(tmp_path):
    truth = {f'v{i}':[Interval(10, 20), Interval(30, 40)] for i in range(12)}
    found = {f'v{i}':[Rally(10.2, 20, .9)]+([Rally(29.5, 41, .8)] if i%3 else [Rally(60, 130, .5)]) for i in range(12)}
    s = score_rallies(found, truth)
    assert [r['pairs'] for r in s.by_iou if r['iou']==.5]==[20] and abs(s.f1-40/48)<1e-9
    assert s.too_long==4/24 and s.over_merged==0 and s.warning=='' and s.f1_interval[0]<s.f1<s.f1_interval[1]
    assert s.videos[0]['f1']==.5 and s.start_ms['abs_median']==pytest.approx(200, abs=1e-6)
    s.save(tmp_path/'s.json')
    assert asdict(RallyScores.load(tmp_path/'s.json'))==asdict(s)
    one = score_rallies(found, truth, groups={v:'match' for v in truth})
    assert one.f1==s.f1 and one.f1_interval is None and one.n_groups==1
    none = score_rallies({}, truth)
    assert none.f1==0 and none.boundary_ms is None and none.start_ms is None
    with pytest.raises(RpaError, match='empty ground truth'): score_rallies({}, {'a':[]})

def test_over_merged():
    truth = {'a':[Interval(0, 10), Interval(12, 20), Interval(40, 50)]}
    s = score_rallies({'a':[Rally(0, 20, 1.), Rally(40, 50, 1.)]}, truth)
    assert s.over_merged==.5

def test_grid_leaves_the_video_out():
    "A video that needs another threshold than the rest is scored with the rest's"
    t = np.arange(200)*.5+.25
    def case(level, name):
        rallies = [Interval(10, 20), Interval(40, 55), Interval(70, 80)]
        return Scored(np.where(window_labels(t, rallies), level, level-.2 if level<1 else 0), t, rallies, name, .5, 100.)
    found = grid_search([case(.9, 'a'), case(.9, 'b'), case(.5, 'odd')], Decoding(), dict(high=(.45, .85), low=(.45, .8)))
    assert found.chosen['odd'].low==.8 and found.left_out.videos[0]['video']=='odd' and found.left_out.videos[0]['f1']==0
    assert found.best.low==.8 and len(found.table)==3
    assert grid_search([case(.9, 'a')], Decoding()).left_out is None
    start = Decoding(.6, .4, .5, 1.) # everything fits: no reason to go elsewhere
    assert grid_search([case(1., 'a')], start, dict(high=(.5, .6, .7), gap_s=(0., .5, 2.), min_s=(0., 1., 2.))).best==start
    assert len(settings_of(PRESETS['beach'], dict(min_gap_seconds=(1., 2.), pad_after=(0., 1.))))==4


# reading

def table(path, text): path.write_text(text); return path

def test_csv_series(tmp_path):
    f = table(tmp_path/'a.csv', '\ufeffframe,ball_vis,ball_x,ball_y,n\n0,1,5,6,1\n1,0,0,0,\n3,1,7,8,2\n')
    s, = read_series(f, fps=30000/1001)
    assert np.allclose(s.times_s, np.array([0, 1, 3])*1001/30000) and np.isnan(s.x[1]).tolist()==[False, True, True, True] and s.video=='a'
    for text,says in (('time_s,a\n0,1\n0,2\n', 'times must rise'), ('time_s,a\n0,1\n', 'at least two rows'), ('a,b\n1,2\n3,4\n', 'time_s or frame'),
                      ('time_s\n0\n1\n', 'no features'), ('time_s,a\n0,1\n1,2,3\n', 'line 3 has 3 cells for 2 columns'), ('', 'column names'),
                      ('time_s,a,a\n0,1,2\n1,2,3\n', 'its own name'), ('time_s,a\n0,\n1,\n', 'every feature is missing')):
        with pytest.raises(RpaError, match=says): read_series(table(tmp_path/'b.csv', text))
    with pytest.raises(RpaError, match='no such file'): read_series(tmp_path/'none.csv')
    with pytest.raises(RpaError, match='CSV, npz or safetensors'): read_series(tmp_path/'model.pkl')
    (tmp_path/'b.csv').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(RpaError, match='not a readable CSV'): read_series(tmp_path/'b.csv')

def test_array_series(tmp_path):
    from safetensors.numpy import save_file
    t = np.arange(5)*1.6+.27
    save_file(dict(features=np.ones((5, 3), np.float32), times_s=t, start_s=t-.27, end_s=t+.27), tmp_path/'v.safetensors',
              metadata=dict(video='v.mp4', stride_s='1.6', window_s='0.53', backbone='B', duration_s='9.5'))
    s, = read_series(tmp_path/'v.safetensors')
    assert (s.video, s.stride_s, s.window_s, s.length_s, s.about['backbone'])==('v.mp4', 1.6, .53, 9.5, 'B')
    np.savez(tmp_path/'w.npz', features=np.ones((5, 3)), times_s=np.zeros(5))
    with pytest.raises(RpaError, match='are all of them 0'): read_series(tmp_path/'w.npz')
    np.savez(tmp_path/'w.npz', features=np.array([dict(a=1)], object), times_s=np.zeros(1))
    with pytest.raises(RpaError, match='not a readable npz'): read_series(tmp_path/'w.npz')
    (tmp_path/'v.safetensors').write_bytes(b'half a file')
    with pytest.raises(RpaError, match='not a readable safetensors'): read_series(tmp_path/'v.safetensors')
    for n in ('w.npz', 'v.safetensors'): (tmp_path/n).unlink()
    with pytest.raises(RpaError, match='no features'): read_series(tmp_path)
    for n in ('a', 'b'): np.savez(tmp_path/f'{n}.npz', features=np.ones((5, 3)), times_s=t, video='same')
    with pytest.raises(RpaError, match='same comes twice'): read_series(tmp_path)

def test_features_of_the_page_before(tmp_path):
    features = pytest.importorskip('rpa.features')
    t = np.arange(6)*1.6+16/60
    f = features.Features(np.ones((6, 3)), t, t-16/60, t+16/60, dict(format=1, video='m.mp4', duration_s=9., stride_s=1.6, window_s=16/30, video_sha256='0'*64,
        settings=dict(format=1, backbone=dict(name='B', sha256='1'), stride_s=1.6, window_s=16/30)))
    features.save_features(f, tmp_path/'m.safetensors')
    a, (b,) = as_series(f), read_series(tmp_path/'m.safetensors')
    for s in (a, b):
        assert (s.stride_s, s.length_s, s.about['settings']['backbone']['name'], len(s.columns))==(1.6, 9., 'B', 3) and abs(s.window_s-16/30)<1e-9
    assert (a.x==b.x).all() and (a.times_s==b.times_s).all()
    lines = ['time_s,start_s,end_s,f0']+[f'{u},{u-.25},{u+.25},1' for u in t]
    c, = read_series(table(tmp_path/'m.csv', '\n'.join(lines)))
    assert c.columns==('f0',) and abs(c.window_s-.5)<1e-9

def test_truth_that_cannot_be(tmp_path):
    doc = lambda *rallies: json.dumps([dict(filename='a.mp4', rallies=[dict(start_ms=a, end_ms=b) for a,b in rallies])])
    for text,says in ((doc((5000, 4000)), 'a.mp4, rally 1: the end must not lie before'), (doc((1000, 3000), (2000, 4000)), 'overlap: 1 to 3 s and 2 to 4 s'),
                      (doc(), 'empty ground truth'), ('{}', 'a list of videos'), ('[{"filename":"a","rallies":[{"start_ms":1}]}]', 'needs the numbers'),
                      (doc((-5, 100)), 'start at ≥ 0'), (doc((5, 5)), 'end after its start')):
        with pytest.raises(RpaError, match=says): read_truth(table(tmp_path/'ground_truth.json', text))
    table(tmp_path/'ground_truth.json', doc((1000, 3000)))
    table(tmp_path/'manifest.json', json.dumps(dict(videos=[dict(filename='b.mp4', duration_ms=9000)])))
    with pytest.raises(RpaError, match='a.mp4 is not in manifest.json'): read_truth(tmp_path)
    with pytest.raises(RpaError, match='no such file'): read_truth(tmp_path/'none.csv')
    assert check_truth([Interval(1, 10.3)], length_s=10.)==[Interval(1, 10.)]

def test_truth_meets_features():
    a, b = (FeatureSeries(np.ones((10, 1)), np.arange(10.)+.5, ['f'], 1, 1, v) for v in ('a.MOV', 'b'))
    got = join_truth([a, b], {'a':[Interval(1, 2)], 'b.mp4':[]})
    assert [(i.video, len(i.rallies)) for i in got]==[('a.MOV', 1), ('b', 0)]
    with pytest.raises(RpaError, match='no features for c'): join_truth([a, b], {'c':[Interval(1, 2)]})
    with pytest.raises(RpaError, match='there are 2 videos'): join_truth([a, b], {'':[Interval(1, 2)]})
    with pytest.raises(RpaError, match='the same video'): join_truth([a, b], {'a':[Interval(1, 2)], 'a.mp4':[]})
    with pytest.raises(RpaError, match='empty ground truth'): join_truth([a], {'a':[]})
    with pytest.raises(RpaError, match='past the end'): join_truth([a], {'':[Interval(11, 12)]})

@pytest.mark.parametrize('name,videos,rallies', [('beach_v1', 4, 138), ('beach_v2', 20, 165)])
def test_real_labels(name, videos, rallies, tmp_path):
    for part in ('ground_truth', 'manifest'): (tmp_path/f'{part}.json').write_bytes(beach(f'{name}_{part}.json').read_bytes())
    truth = read_truth(tmp_path)
    assert (len(truth), sum(map(len, truth.values())))==(videos, rallies)
    found = {v:[Rally(r.start_s, r.end_s, 1.) for r in rs] for v,rs in truth.items()}
    assert score_rallies(found, truth).f1==1

def test_labels_and_runs():
    rng = np.random.default_rng(0)
    t = np.arange(400)*.1+.05
    rallies = [Interval(3, 7.5), Interval(9, 9.2), Interval(20, 33)]
    inside = np.array([[(r.start_s<=u<r.end_s) for r in rallies] for u in t]).any(1)
    assert (window_labels(t, rallies)==inside).all()
    fine = (t[:,None]-1+(np.arange(2000)+.5)/1000)
    share = np.array([((fine>=r.start_s)&(fine<r.end_s)).mean(1) for r in rallies]).sum(0)
    assert (window_labels(t, rallies, 'overlap', 2.)==(share>=.5-1e-6)).mean()>.995
    with pytest.raises(RpaError, match="got 'edge'"): window_labels(t, rallies, 'edge')
    m = rng.random(50)>.5
    assert np.array_equal(np.sort(np.concatenate([np.arange(a, b) for a,b in runs(m)])), np.flatnonzero(m)) and (np.diff(runs(m).ravel())>0).all()

def test_synthetic_match_is_what_it_says():
    m = synthetic_match(4, .5)
    d = np.array([r.duration for r in m.rallies])
    assert m.series.length_s==1800 and 3.5<=d.min() and d.max()<=30 and 7<np.median(d)<12
    assert check_truth(m.rallies, length_s=1800)==m.rallies
    assert (synthetic_match(4, .5).series.x==m.series.x).all() and not (synthetic_match(5, .5).series.x==m.series.x).all()

def test_written_intervals(tmp_path):
    found = {'a':[Rally(1, 2, .5)], 'b':[]}
    write_intervals(tmp_path/'x.csv', found)
    assert (tmp_path/'x.csv').read_text()=='video,start_s,end_s,score\na,1,2,0.5\n'
    assert read_truth(tmp_path/'x.csv')=={'a':[Interval(1., 2.)]} # what is written can be read as truth
    assert merge_touching([Rally(0, 2, 1.), Rally(2, 4, 0.), Rally(5, 6, 1.)])==[Rally(0, 4, .5), Rally(5, 6, 1.)]
