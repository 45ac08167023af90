"Scores, calibration and report against brute force, scikit-learn and the disk"
import json, subprocess, sys
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_recall_fscore_support, top_k_accuracy_score
from rpa.core import RpaError
from rpa.metrics import (FEW_GROUPS, Calibration, Scores, average_probs, calibrate, choose_threshold, compare, count_test_use, fit_temperature,
                         group_tables, html_report, log_loss_at, reliability, runner_verdicts, score, score_runners, table_accuracy,
                         table_macro_f1, top_k, use_log)

NAMES = ['forefoot', 'heel', 'mid']

def cases(seed, n=200, k=3, groups=12):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, k))
    return logits, rng.integers(0, k, n), rng.integers(0, groups, n)

@pytest.mark.parametrize('seed', range(5))
def test_scores_agree_with_scikit_learn(seed):
    logits, y, g = cases(seed); p = softmax(logits, 1)
    s = score(p, y, g, NAMES)
    assert s.accuracy==pytest.approx(accuracy_score(y, p.argmax(1)))
    assert s.macro_f1==pytest.approx(f1_score(y, p.argmax(1), average='macro'))
    assert s.log_loss==pytest.approx(log_loss(y, p))
    assert s.brier==pytest.approx(((p-np.eye(3)[y])**2).sum(1).mean())
    assert s.majority==pytest.approx(np.bincount(y).max()/len(y))
    assert sum(b['n'] for b in s.bins)==sum(r['n'] for r in s.group_table)==np.sum(s.confusion)==len(y)

@pytest.mark.parametrize('seed', range(3))
def test_top_k_and_per_class_agree_with_scikit_learn(seed):
    logits, y, g = cases(seed, k=7); p, names = softmax(logits, 1), [f'c{i}' for i in range(7)]
    s = score(p, y, g, names)
    assert s.top_k==pytest.approx([top_k_accuracy_score(y, p, k=k, labels=range(7)) for k in range(1, 6)]) and s.top_k[0]==s.accuracy
    prf = precision_recall_fscore_support(y, p.argmax(1), labels=range(7), zero_division=0)
    assert [[r[k] for r in s.per_class] for k in ('precision', 'recall', 'f1', 'support')]==[pytest.approx(v) for v in prf]
    assert len(top_k(p[:,:2], y%2))==2 and 'top-5' in str(s)

def test_equal_probabilities_are_no_hit():
    "A model that says the same of every class gets the first k right, not all"
    assert top_k(np.full((6, 6), 1/6), np.arange(6))==pytest.approx([k/6 for k in range(1, 6)])

def predictions(p, y, g, names=NAMES):
    return pd.DataFrame(dict(file=[f'{i}.mp4' for i in range(len(y))], runner=g, target=y)).assign(**{f'p_{n}':p[:,i] for i,n in enumerate(names)})

@pytest.mark.parametrize('groups', [5, 20])
def test_comparison_agrees_with_the_plain_loop(groups):
    rng = np.random.default_rng(groups); y, g = rng.integers(0, 3, 150), rng.integers(0, groups, 150)
    a, b = (softmax(rng.normal(0, 1, (150, 3))+.5*w*np.eye(3)[y], 1) for w in (1, 2))
    found = compare(predictions(a, y, g), predictions(b, y, g), NAMES)
    hit = [[(p.argmax(1)==y)[g==i].sum() for i in range(groups)] for p in (a, b)]
    d = np.subtract(hit[1], hit[0])
    flips = np.random.default_rng(1).choice([-1, 1], (40_000, groups))
    assert found.rows[0]['p']==pytest.approx((np.abs(flips@d)>=abs(d.sum())).mean(), abs=.02)
    assert found.rows[0]['difference']==pytest.approx(d.sum()/150) and found.only[1]-found.only[0]==d.sum()
    sizes = np.bincount(g, minlength=groups)
    drawn = [np.random.default_rng(i).integers(0, groups, groups) for i in range(4000)]
    spread = np.std([d[i].sum()/sizes[i].sum() for i in drawn])
    assert found.rows[0]['high']-found.rows[0]['low']>3.5*spread
    assert found.rows[1]['a']==pytest.approx(f1_score(y, a.argmax(1), average='macro'))

def test_sign_flips_keep_their_level():
    "Of pairs of equally good models few may be called different, though the clips of a runner hang together"
    told = []
    for seed in range(200):
        rng = np.random.default_rng(seed); y, g = rng.integers(0, 2, 80), np.repeat(range(8), 10)
        a, b = (softmax(np.eye(2)[y]+rng.normal(0, 1, (80, 2))+np.repeat(rng.normal(0, 1.5, (8, 2)), 10, 0), 1) for _ in range(2))
        told.append(compare(predictions(a, y, g, ['x','y']), predictions(b, y, g, ['x','y']), ['x','y'], n_boot=2).rows[0]['p']<=.05)
    assert np.mean(told)<.09

def test_only_the_same_clips_are_compared():
    logits, y, g = cases(0, 20); p = softmax(logits, 1); t = predictions(p, y, g)
    for other, word in ((t[1:], 'only one has 0.mp4'), (t.assign(target=(y+1)%3), '0.mp4 has another target'), (t.assign(runner='A'), 'another runner'),
                        (t.drop(columns='p_mid'), "lacks .'p_mid'"), (pd.concat([t, t[:1]]), 'listed twice')):
        with pytest.raises(RpaError, match=word): compare(t, other, NAMES)
    one = compare(t.assign(runner='A'), t.assign(runner='A'), NAMES)
    assert one.rows[0]['low'] is None and one.rows[0]['p']==1 and 'one group' in str(one)

def test_what_one_opinion_lacks_the_mean_lacks():
    a, b = np.array([[.2,.8],[np.nan]*2]), np.array([[.6,.4],[.5,.5]])
    assert average_probs([a, b])==pytest.approx(np.array([[.4,.6],[np.nan]*2]), nan_ok=True)
    assert (average_probs([b])==b).all()
    with pytest.raises(RpaError, match='none'): average_probs([])

@pytest.mark.parametrize('seed', range(3))
def test_vectorised_bootstrap_equals_the_loop(seed):
    _, y, g = cases(seed); pred = np.roll(y, 1)
    _, tables = group_tables(y, pred, g, 3)
    weights = np.random.default_rng(seed).multinomial(len(tables), np.full(len(tables), 1/len(tables)), 300)
    for stat, one in ((table_accuracy, lambda t: np.trace(t)/t.sum()), (table_macro_f1, None)):
        loop = []
        for w in weights:
            t = sum(int(n)*o for n,o in zip(w, tables))
            if one: loop.append(one(t)); continue
            truth = [i for i in range(3) for j in range(3) for _ in range(int(t[i,j]))]
            guess = [j for i in range(3) for j in range(3) for _ in range(int(t[i,j]))]
            loop.append(f1_score(truth, guess, average='macro'))
        fast = stat(np.einsum('bg,gij->bij', weights, tables))
        assert fast==pytest.approx(np.array(loop))

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 4), st.integers(1, 8))
def test_any_predictions_give_sane_figures(seed, n, k, groups):
    logits, y, g = cases(seed, n, k, groups)
    s = score(softmax(logits, 1), y, g, [f'c{i}' for i in range(k)], n_boot=50, threshold=.6)
    assert 0<=s.ece<=1 and 0<=s.brier<=2 and 0<=s.abstained<=1 and s.majority>=1/k
    if s.interval: assert 0<=s.interval[0]<=s.interval[1]<=1
    assert s.coverage[-1]['coverage']==1 and s.coverage[-1]['accuracy']==pytest.approx(s.accuracy)
    assert s.answered_accuracy is None or 0<=s.answered_accuracy<=1

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([.01, 1, 50]))
def test_temperature_never_raises_the_loss_and_never_explodes(seed, n, scale):
    logits, y, g = cases(seed, n); logits = logits*scale
    t = fit_temperature(logits, y, g)
    assert .2-1e-9<=t<=20+1e-9
    assert log_loss_at(logits, y, t)<=log_loss_at(logits, y)+1e-12
    assert (Calibration(t)(logits).argmax(1)==logits.argmax(1)).all()

def test_temperature_is_the_best_on_a_grid():
    logits, y, _ = cases(3); logits[np.arange(len(y)), y] += 1.
    t = fit_temperature(logits*4, y)
    grid = np.geomspace(.2, 20, 2000)
    assert log_loss_at(logits*4, y, t)<=min(log_loss_at(logits*4, y, o) for o in grid)+1e-6

@pytest.mark.parametrize('groups', [1, 6, FEW_GROUPS-1, FEW_GROUPS, 40])
def test_few_runners_never_make_it_surer(groups):
    "However clearly their clips ask for it; softening is for everybody"
    y = np.tile([0, 1], 200)
    logits, g = np.stack([1-2*y, 2*y-1], 1)*.2, np.arange(400)%groups
    sharp = calibrate(logits, y, g).temperature
    assert sharp==1 if groups<FEW_GROUPS else .2<=sharp<1
    assert fit_temperature(logits*40, np.where(np.arange(400)%4, y, 1-y), g)>2

def test_a_handful_of_easy_validation_runners_does_no_harm_to_others():
    "The epoch was chosen on six runners that the model gets right; others are harder, and their log-loss must not rise"
    rng, worse = np.random.default_rng(0), []
    for _ in range(20):
        y = np.repeat([0, 1]*3, 4); signal = (2*y-1)*.3+rng.normal(0, .1, 24)
        cal = calibrate(np.stack([-signal, signal], 1), y, np.repeat(range(6), 4))
        truth = np.tile([0, 1], 500); hard = (2*truth-1)*.1+rng.normal(0, .4, 1000)
        others = np.stack([-hard, hard], 1)
        worse.append(log_loss_at(others, truth, cal.temperature)-log_loss_at(others, truth))
    assert max(worse)<=1e-12

def test_threshold_by_brute_force():
    for seed in range(20):
        logits, y, _ = cases(seed, 60); p = softmax(logits, 1); p[np.arange(60), y] += .5; p /= p.sum(1, keepdims=True)
        t, conf, hit = choose_threshold(p, y, accuracy=.95, floor=0.), p.max(1), p.argmax(1)==y
        fits = [c for c in conf if (conf>=c).mean()>=.25 and hit[conf>=c].mean()>=.95]
        if fits: assert t==min(fits)

def test_reliability_by_brute_force():
    logits, y, _ = cases(9); p = softmax(logits, 1); ece, bins = reliability(p, y)
    total = 0
    for b in range(10):
        m = (p.max(1)>b/10) & (p.max(1)<=(b+1)/10)
        if m.any(): total += m.sum()*abs((p.argmax(1)==y)[m].mean()-p.max(1)[m].mean())
    assert ece==pytest.approx(total/len(y))

def test_bad_input_is_named():
    ok = np.array([[.5,.5]])
    for args, word in (((np.array([[.5,.2]]), [0], ['a']), 'sum to 1'), ((ok, [0,1], ['a']), 'equally long'), ((np.zeros((0,2)), [], []), 'n>0'),
                       ((np.array([[np.nan,1]]), [0], ['a']), 'finite'), ((ok, [3], ['a']), 'label map')):
        with pytest.raises(RpaError, match=word): score(*args, ['x','y'])
    with pytest.raises(RpaError, match='empty'): fit_temperature(np.zeros((0,2)), [])
    with pytest.raises(RpaError, match='empty'): choose_threshold(np.zeros((0,2)), [])

def test_all_right_is_not_certain():
    s = score(np.tile([[.9,.1]], (60,1)), np.zeros(60, int), np.repeat(range(6), 10), ['a','b'])
    assert s.accuracy==1 and s.interval[0]==pytest.approx(.541, abs=1e-3) and 'exact' in s.interval_how and 'Only 6 groups' in s.warning

def test_runners_with_two_labels_count_twice():
    df = pd.DataFrame(dict(runner=['A','A','A','B'], target=[0,0,1,1], p_x=[.9,.7,.2,.4], p_y=[.1,.3,.8,.6]))
    s, v = score_runners(df, ['x','y'], .65)
    assert s.n==3 and s.n_groups==2 and s.accuracy==1 and v.verdict.tolist()==['x','y','uncertain']
    assert len(runner_verdicts(df.iloc[:0], ['x','y']))==0

def test_log_is_appended_by_many_processes(tmp_path):
    split = tmp_path/'split.json'
    code = 'import sys; from rpa.metrics import count_test_use\nfor i in range(20): count_test_use(sys.argv[1], bundle=sys.argv[2])'
    jobs = [subprocess.Popen([sys.executable, '-c', code, str(split), str(b)]) for b in range(2)]
    assert all(j.wait()==0 for j in jobs)
    use = count_test_use(split, add=False)
    assert (use.times, use.bundles)==(40, 2)
    assert all(json.loads(line)['part']=='test' for line in use_log(split).read_text().splitlines())

def test_other_clips_do_not_set_the_count_back(tmp_path):
    "The sentence speaks of the test part, so every scoring of it counts; the log tells which clips"
    for data, bundle in (('one', 'a'), ('two', 'b'), ('two', 'b')): use = count_test_use(tmp_path/'split.json', data, bundle)
    assert str(use)=='this test part has been scored 3 times, with 2 different bundles'
    assert [json.loads(l)['data'] for l in use_log(tmp_path/'split.json').read_text().splitlines()]==['one', 'two', 'two']
    assert count_test_use(tmp_path/'split.json', 'one', 'a', part='val').times==1

def test_report_is_one_offline_file(tmp_path):
    logits, y, g = cases(1); s = score(softmax(logits, 1), y, g, NAMES, threshold=.5, synthetic=True)
    bad = pd.DataFrame({'file':['<img src=x onerror=alert(1)>'], 'verdict':['failed']})
    page = html_report(tmp_path/'r.html', 'R & D', {'Clips':s}, bad, notes=['<b>'], about={'model':'"x"'}, synthetic='Rendered runners.').read_text()
    assert 'onerror' in page and '<img src=x' not in page and 'R &amp; D' in page and '<b>' not in page
    assert 'src="http' not in page and 'href=' not in page and '<script' not in page
    assert [p.name for p in tmp_path.iterdir()]==['r.html']

def test_report_names_the_groups_and_shows_top_k_of_many_classes(tmp_path):
    for k, shown in ((2, False), (3, True)):
        logits, y, g = cases(1, k=k); s = score(softmax(logits, 1), y, g, NAMES[:k], who='subject')
        page = html_report(tmp_path/'r.html', 'T', {'Clips':s}).read_text()
        assert ('top-2' in page)==shown and 'Per subject' in page and 'runner' not in page

def test_scores_round_trip(tmp_path):
    logits, y, g = cases(2); s = score(softmax(logits, 1), y, g, NAMES)
    s.save(tmp_path/'s.json')
    assert Scores.load(tmp_path/'s.json')==s
    old = json.loads((tmp_path/'s.json').read_text()); del old['top_k'], old['who']
    assert Scores.from_dict(old).accuracy==s.accuracy, 'scores of earlier versions can be read'
    (tmp_path/'t.json').write_text('{"n": 1}')
    with pytest.raises(RpaError, match='missing or unknown'): Scores.load(tmp_path/'t.json')
