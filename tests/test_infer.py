"Verdicts from outside: real chains in temp folders, the command, refusals, and what must not end a run"
import shutil, subprocess, sys
from dataclasses import replace
from pathlib import Path
import av
import jsonschema
import numpy as np
import pandas as pd
import pytest
import rpa
from rpa.clips import load_clip, load_views, toy_clips, view_frames
from rpa.core import ClipName, LabelMap, RpaError, read_json, read_manifest, sha256, write_json, write_manifest
from rpa.infer import SCHEMA, Predictor, choose_runner, clip_logits, evaluate_clips, infer, kind_of, list_films, view_logits
from rpa.models import fresh_model, save_bundle
from rpa.pipelines import main
from rpa.processing import ProcessConfig, batch
from rpa.split import split
from rpa.synth import render_tree
from rpa.video import probe, write_video

LABELS = LabelMap({0:'forefoot', 1:'heel'})
DATA = Path(rpa.__file__).parents[1]/'../shared/data/run'
CONTACT = ProcessConfig(align='contact')


def make_bundle(dst, processing=CONTACT, threshold=.5, temperature=1., runners=None, data=None, **sizes):
    micro = dict(image_size=32, patch_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    return str(save_bundle(fresh_model(LABELS, **(micro|sizes)), dst, processing.to_dict() if processing else None,
                           dict(temperature=temperature, threshold=threshold), data or (dict(runners=runners) if runners else None)))


@pytest.fixture(scope='module')
def tmp(tmp_path_factory): return tmp_path_factory.mktemp('infer')


@pytest.fixture(scope='module')
def clips(tmp): return toy_clips(tmp/'clips', runners=12, clips=2)


@pytest.fixture(scope='module')
def bundle(tmp): return make_bundle(tmp/'best_model')


@pytest.fixture(scope='module')
def lap(tmp):
    (name, truth), = render_tree(tmp/'tree', runners=1, seconds=1.2).items()
    return tmp/'tree'/name


@pytest.fixture(scope='module')
def raw(tmp, bundle, lap): # one pose run serves several tests
    return infer(bundle, [str(lap)], output=str(tmp/'raw'/'predictions.json'), report=str(tmp/'raw'/'report.html'),
                 overlay=str(tmp/'raw'/'annotated'), keep_clips=str(tmp/'raw'/'clips'), precision='fp32')


def test_raw_footage_gets_the_pixels_of_training(tmp, lap, raw):
    "The same film through `batch` and through `infer`: clips are equal byte for byte"
    made = batch(str(tmp/'tree'), str(tmp/'batch'), workers=1, align='contact', no_review=True)
    assert not made.failed
    theirs = read_manifest(tmp/'batch')
    ours = next((tmp/'raw'/'clips').glob('*/clips.csv')).parent
    assert sorted(theirs.sha256)==sorted(read_manifest(ours).sha256) and len(theirs)>=2
    assert set(theirs.settings)==set(read_manifest(ours).settings)


def test_raw_result(tmp, lap, raw, bundle):
    d = read_json(tmp/'raw'/'predictions.json')
    jsonschema.validate(d, SCHEMA)
    r, = d['videos']
    original = ('video model_dir total_runners_detected primary_track_id selection_reason num_clips predicted_label confidence '
                'mean_probabilities per_clip').split()
    assert set(original)<=set(r) and r['video']==str(lap) and r['model_dir']==bundle and r['synthetic'] is True
    assert r['num_clips']==len(r['per_clip'])>=2 and r['status'] in ('ok', 'uncertain')
    mean = np.mean([[c['probabilities'][n] for n in LABELS.names] for c in r['per_clip']], 0)
    assert list(r['mean_probabilities'].values())==pytest.approx(mean, abs=2e-6)
    assert r['confidence']==pytest.approx(100*mean.max(), abs=.01)
    assert all(c['start_s']<c['contact_s']<c['end_s'] and c['side'] in 'LR' for c in r['per_clip'])
    assert d['bundle']==sha256(Path(bundle)/'rpa.json') and d['failed']==[]
    w = r['witness'] # measured at contact, beside the classifier
    assert w['strike'] in ('rearfoot', 'midfoot', 'forefoot') and w['contacts']>=2 and w['uncertainty_deg']>=9
    page = (tmp/'raw'/'report.html').read_text()
    assert 'synthetic' in page and 'src="http' not in page and f"{w['strike']} {w['fsa_deg']:.0f}°" in page


def test_annotated_video_plays_in_browsers(raw, lap):
    film = Path(raw.predictions['videos'][0]['annotated'])
    info = probe(film)
    assert (info.codec, info.frames, info.fps)==('h264', probe(lap).frames, probe(lap).fps)
    with av.open(str(film)) as c: assert (c.streams.video[0].pix_fmt, c.streams.video[0].profile)==('yuv420p', 'High')
    with open(film, 'rb') as f: head = f.read(4096)
    assert head.index(b'moov')<4096, 'the index stands in front'


def test_laps_of_the_same_name_keep_their_own_annotated_films(tmp, bundle, lap, raw, tmp_path):
    other, out = tmp_path/'15VR_RUN1_CAM1'/'clips'/lap.name, tmp_path/'out'
    other.parent.mkdir(parents=True)
    with av.open(str(lap)) as src, av.open(str(other), 'w') as dst: # the same pictures in another file
        stream = dst.add_stream_from_template(src.streams.video[0])
        for packet in src.demux(video=0):
            if packet.dts is not None: packet.stream = stream; dst.mux(packet)
    done = infer(bundle, [str(lap), str(other)], overlay=str(out), keep_clips=str(tmp/'raw'/'clips'), precision='fp32')
    made = [r['annotated'] for r in done.predictions['videos']]
    assert len(set(made))==len(list(out.iterdir()))==2 and all(Path(f).stat().st_size for f in made)


def test_a_bad_table_beside_one_clip_spares_the_others(tmp, clips, bundle, tmp_path):
    good, bad = tmp_path/'good', tmp_path/'bad'
    for folder in (good, bad): shutil.copytree(clips, folder)
    (bad/'clips.csv').write_text('nonsense\n1\n')
    films = [str(sorted(f.glob('*.mp4'))[0]) for f in (bad, good)]
    assert [r['status'] for r in infer(bundle, films).predictions['videos']]==['failed', 'ok']


def test_second_run_is_the_same_file_and_cuts_nothing(tmp, bundle, lap, raw, monkeypatch):
    monkeypatch.setattr('rpa.processing.track_people', lambda *a, **kw: pytest.fail('people were looked for again'))
    infer(bundle, [str(lap)], output=str(tmp/'again'/'predictions.json'), overlay=str(tmp/'raw'/'annotated'),
          keep_clips=str(tmp/'raw'/'clips'), precision='fp32')
    assert (tmp/'again'/'predictions.json').read_bytes()==(tmp/'raw'/'predictions.json').read_bytes()


def test_uncertain_below_the_threshold(tmp, lap, raw):
    sure = infer(make_bundle(tmp/'strict', threshold=1.), [str(lap)], keep_clips=str(tmp/'raw'/'clips')).predictions
    r = sure['videos'][0]
    assert (r['verdict'], r['status'])==('uncertain', 'uncertain') and 'below the threshold of 100.0 %' in r['reason']
    assert r['predicted_label'] in LABELS.names and all(c['verdict']=='uncertain' for c in r['per_clip'])


def test_probabilities_are_those_of_transformers(tmp, clips):
    from transformers import pipeline
    path = make_bundle(tmp/'plain', temperature=1.)
    files = [str(p) for p in sorted(clips.glob('*.mp4'))[:5]]
    said = pipeline('video-classification', model=path, device='cpu')(files, top_k=2)
    theirs = [next(d['score'] for d in s if d['label']=='heel') for s in said]
    assert Predictor(path, precision='fp32').clips(files).p_heel.to_numpy()==pytest.approx(np.array(theirs), abs=.02)
    assert Predictor(path, precision='bf16').clips(files).p_heel.to_numpy()==pytest.approx(np.array(theirs), abs=.03)


def test_calibration_is_applied(tmp, clips):
    files = sorted(clips.glob('*.mp4'))[:3]
    cold, warm = (Predictor(make_bundle(tmp/f't{t}', temperature=t), precision='fp32').clips(files) for t in (1., 4.))
    logit = lambda p: np.log(p/(1-p))
    assert logit(cold.p_heel.to_numpy())==pytest.approx(4*logit(warm.p_heel.to_numpy()), abs=1e-3)


@pytest.mark.parametrize('n', (0, 1, 7, 8, 9, 24))
def test_every_clip_comes_out_in_its_place(bundle, clips, n):
    p, files = Predictor(bundle, batch_size=4, precision='fp32'), sorted(clips.glob('*.mp4'))[:n]
    alone = {f:clip_logits(p.model, [f])[0][0] for f in files}
    together, why = clip_logits(p.model, files, 4)
    assert together.shape==(n, 2) and why==['']*n
    for f,row in zip(files, together): assert row==pytest.approx(alone[f], abs=1e-4)


def make_bag(tmp, clips):
    good, bag = sorted(clips.glob('*.mp4'))[:2], tmp/'bag'
    bag.mkdir(exist_ok=True)
    for f in good: shutil.copy(f, bag)
    (bag/'empty.mp4').write_bytes(b'')
    (bag/'text.mp4').write_text('not a film')
    (bag/'cut_off.mp4').write_bytes(good[0].read_bytes()[:1500])
    write_video(bag/'nobody.mp4', np.full((30,120,160,3), 90, np.uint8), 30)
    write_video(bag/'one_pixel.mp4', np.zeros((5,1,1,3), np.uint8), 30)
    write_video(bag/'one_frame.mp4', np.zeros((1,64,64,3), np.uint8), 30)
    return bag


def test_one_bad_file_never_ends_the_run(tmp, clips, bundle, capsys):
    bag, out = make_bag(tmp, clips), tmp/'bag_out'
    status = main(['infer', '--model_dir', bundle, '--video_dir', str(bag), '--output', str(out/'predictions.json'),
                   '--report', str(out/'report.html'), '--video', str(bag/'gone.mp4')])
    assert status==1
    d = read_json(out/'predictions.json')
    jsonschema.validate(d, SCHEMA)
    by = {Path(r['video']).name:r for r in d['videos']}
    assert {n:by[n]['status'] for n in ('empty.mp4', 'text.mp4', 'cut_off.mp4', 'gone.mp4')}==dict.fromkeys(
        ('empty.mp4', 'text.mp4', 'cut_off.mp4', 'gone.mp4'), 'failed')
    assert {by[n]['status'] for n in ('nobody.mp4', 'one_frame.mp4', 'one_pixel.mp4')}=={'no_runner'}
    assert 'nobody found' in by['nobody.mp4']['reason']
    assert sum(r['status'] in ('ok', 'uncertain') for r in d['videos'])==2
    failed = pd.read_csv(out/'failed.csv')
    assert sorted(Path(f).name for f in failed.file)==['cut_off.mp4', 'empty.mp4', 'gone.mp4', 'text.mp4']
    assert len(d['failed'])==4 and 'nobody found' in capsys.readouterr().out


def test_nobody_in_the_film_is_an_answer(tmp, clips, bundle):
    assert main(['infer', '--model-dir', bundle, '--video', str(make_bag(tmp, clips)/'nobody.mp4')])==0


def test_what_is_a_clip(tmp, clips, bundle):
    some = sorted(clips.glob('*.mp4'))[0]
    alone = tmp/'alone.mp4'; shutil.copy(some, alone)
    assert kind_of(alone)[0]=='clip' and kind_of(alone, slice_len=32)[0]=='raw' and kind_of(alone, kind='raw')[0]=='raw'
    long = write_video(tmp/'long.mp4', np.zeros((40,64,64,3), np.uint8), 30)
    assert infer(bundle, [str(long)], kind='clips').table.status[0] in ('ok', 'uncertain')
    with pytest.raises(RpaError, match='auto, clips, raw'): infer(bundle, [str(long)], kind='films')


def test_films_are_taken_once_and_in_order(clips, tmp):
    a, b = sorted(map(str, clips.glob('*.mp4')))[:2]
    assert list_films([b, a, b])==[b, a]
    assert list_films([b], str(clips))[0]==b and len(list_films([b], str(clips)))==24
    with pytest.raises(RpaError, match='must be a folder'): list_films(None, str(tmp/'nowhere'))
    (tmp/'hollow').mkdir()
    with pytest.raises(RpaError, match='no films directly in'): list_films(None, str(tmp/'hollow'))


def test_runner_choice():
    assert choose_runner({2:3, 1:3, 5:1})[0]==1 and choose_runner({2:3, 1:2})[0]==2
    assert 'as many as track 2' in choose_runner({2:3, 1:3})[1]


@pytest.fixture
def held_out(tmp_path, clips): # a split of toys and a bundle that knows who trained
    shutil.copytree(clips, tmp_path/'clips')
    made = split(str(tmp_path/'clips'), str(tmp_path/'split.json'))
    info = read_json(tmp_path/'split.json')
    model = make_bundle(tmp_path/'model', runners={p:info['runners'][p] for p in ('train', 'val')})
    return tmp_path/'split.json', model, made


def test_evaluate_a_split(held_out, tmp_path):
    where, model, made = held_out
    out = tmp_path/'out'/'predictions.json'
    for _ in range(2): done = infer(model, evaluate=str(where), output=str(out), report=str(tmp_path/'r.html'), synthetic=True)
    d = read_json(out)
    jsonschema.validate(d, SCHEMA)
    e = d['evaluation']
    assert e['clips']['n']==len(made.parts['test'])==len(e['per_clip']) and e['runners']['n']==made.parts['test'].runner.nunique()
    right = np.mean([c['true']==c['predicted_label'] for c in e['per_clip']])
    assert e['clips']['accuracy']==pytest.approx(right) and e['test_use']==dict(times=2, bundles=1)
    assert read_json(tmp_path/'out'/'scores.json')==dict(clips=e['clips'], runners=e['runners'])
    page = (tmp_path/'r.html').read_text()
    assert all(w in page for w in ('(synthetic)', 'majority baseline', 'scored 2 times, with 1 different bundle', 'Per runner'))
    assert not done.failed


def test_raw_film_for_a_bundle_of_imported_keypoints(tmp, lap, tmp_path):
    model = make_bundle(tmp_path/'lab', ProcessConfig(align='contact', pose='imported'))
    r, = infer(model, [str(lap)]).predictions['videos']
    assert r['status']=='failed' and 'rpa process --keypoints' in r['reason']


def test_a_folder_has_no_parts(held_out):
    where, model, _ = held_out
    with pytest.raises(RpaError, match='no split JSON and has no parts'): infer(model, evaluate=str(where.parent/'clips'), part='val')


def test_a_clip_that_was_learned_from_is_known_by_its_content(held_out, tmp_path):
    where, _, made = held_out
    seen = made.parts['train'].sha256.iloc[0]
    model = make_bundle(tmp_path/'seen', data=dict(runners={}, seen=[seen[:16]]))
    with pytest.raises(RpaError, match='learned from 1 of these clips'): infer(model, evaluate=str(where.parent/'clips'))


def test_a_folder_is_audited(held_out, tmp_path):
    where, _, made = held_out
    folder = tmp_path/'again'
    shutil.copytree(where.parent/'clips', folder)
    df = read_manifest(folder)
    write_manifest(df.assign(label=1-df.label), folder)
    with pytest.raises(RpaError, match=f'cannot be scored:(.|\n)*{df.file[1]}'): infer(make_bundle(tmp_path/'other'), evaluate=str(folder))


def test_clips_made_otherwise_are_said_to_be(held_out, tmp_path, capsys):
    where, _, made = held_out
    df = read_manifest(where.parent/'clips')
    rate = str(df.fps.iloc[0])
    model = make_bundle(tmp_path/'slow', data=dict(runners={}, clip_fps={'240/1':9}, settings=['0123']))
    done = infer(model, [str(where.parent/'clips'/df.file[0])], evaluate=str(where.parent/'clips'), output=str(tmp_path/'o'/'p.json'))
    for text in (done.predictions['videos'][0]['reason'], *[' '.join(done.predictions['evaluation']['notes'])]):
        assert f'{rate} frames per second' in text and '240/1' in text and 'cut with other settings' in text
    same = make_bundle(tmp_path/'same', data=dict(runners={}, clip_fps={rate:9}, settings=list(set(df.settings))))
    assert 'frames per second' not in infer(same, [str(where.parent/'clips'/df.file[0])]).predictions['videos'][0]['reason']


def test_validation_part_is_said_to_be_no_test(held_out):
    where, model, _ = held_out
    e = evaluate_clips(Predictor(model), str(where), 'val')
    assert e.test_use is None and 'not held out' in e.notes[0]
    with pytest.raises(RpaError, match='train part cannot be scored'): evaluate_clips(Predictor(model), str(where), 'train')
    with pytest.raises(RpaError, match='part: must be one of'): evaluate_clips(Predictor(model), str(where), 'dev')


def test_a_leaking_split_is_refused(held_out):
    where, model, made = held_out
    d = read_json(where)
    d['test'].append(d['train'][0])
    write_json(where, d)
    with pytest.raises(RpaError): evaluate_clips(Predictor(model), str(where))


def test_runners_of_the_training_are_refused(held_out, tmp_path):
    _, model, made = held_out
    with pytest.raises(RpaError, match='was trained or chosen on the runners'): evaluate_clips(Predictor(model), str(tmp_path/'clips'))


def test_evaluate_a_folder(held_out, tmp_path, clips):
    "Labels outside the map are an error with the file named or a remap; a damaged clip is left out and reported"
    _, model, made = held_out
    rows, folder = made.parts['test'].drop(columns=['path', 'target'], errors='ignore'), tmp_path/'folder'
    folder.mkdir()
    for f in rows.file: shutil.copy(clips/f, folder)
    odd = replace(ClipName.parse(rows.file.iloc[0]), label=2).file
    (folder/rows.file.iloc[0]).rename(folder/odd)
    rows = rows.assign(label=[2]+list(rows.label[1:]), file=[odd]+list(rows.file[1:]))
    write_manifest(rows, folder)
    with pytest.raises(RpaError, match='label 2 is not among'): evaluate_clips(Predictor(model), str(folder))
    assert evaluate_clips(Predictor(model), str(folder), remap_labels='2:0').clips.n==len(rows)
    (folder/rows.file.iloc[0]).write_bytes(b'')
    done = infer(model, evaluate=str(folder), remap_labels='2:0', output=str(tmp_path/'p.json'))
    assert done.failed and done.evaluation.clips.n==len(rows)-1
    assert pd.read_csv(tmp_path/'failed.csv').stage.tolist()==['evaluate']


def test_bad_bundles_are_refused(tmp, bundle, clips, capsys):
    film = str(sorted(clips.glob('*.mp4'))[0])
    for name, spoil, word in (('no_json', lambda b: (b/'rpa.json').unlink(), 'rpa.json is missing'),
                              ('pickle', lambda b: (b/'extra.bin').write_bytes(b'x'), 'safetensors and JSON only'),
                              ('changed', lambda b: (b/'config.json').write_text('{}'), 'is not the file that was saved')):
        bad = tmp/name
        shutil.copytree(bundle, bad)
        spoil(bad)
        assert main(['infer', '--model_dir', str(bad), '--video', film])==1
        said = capsys.readouterr().err
        assert word in said and 'Traceback' not in said


def test_outputs_are_checked_before_the_work(bundle, clips):
    film = [str(sorted(clips.glob('*.mp4'))[0])]
    with pytest.raises(RpaError, match='folder of clips'): infer(bundle, film, output=str(clips/'predictions.json'))
    with pytest.raises(RpaError, match='.html file'): infer(bundle, film, report='report.pdf')
    with pytest.raises(RpaError, match='nothing to look at'): infer(bundle)
    with pytest.raises(RpaError, match='batch_size'): infer(bundle, film, batch_size=0)
    with pytest.raises(RpaError, match='precision'): infer(bundle, film, precision='half')


def test_a_bundle_without_settings_takes_clips_only(tmp, clips, lap):
    model = make_bundle(tmp/'clips_only', processing=None)
    done = infer(model, [str(lap), str(sorted(clips.glob('*.mp4'))[0])])
    assert done.table.status.tolist()[0]=='failed' and 'cut the video with `rpa process`' in done.table.remark[0]
    assert done.table.status.tolist()[1] in ('ok', 'uncertain')


def test_remote_clips(tmp, bundle, clips):
    from rpa.storage import store
    some = sorted(clips.glob('*.mp4'))[0]
    (store('memory://infer-test')/some.name).write_bytes(some.read_bytes())
    done = infer(bundle, [f'memory://infer-test/{some.name}', str(some)], precision='fp32').predictions['videos']
    assert done[0]['mean_probabilities']==done[1]['mean_probabilities'] and done[0]['runner']==done[1]['runner']


def test_colour_model(tmp, clips):
    "A bundle that keeps colours sees colours"
    net = fresh_model(LABELS, grayscale=False, image_size=32, patch_size=16, hidden_size=32, num_hidden_layers=1,
                      num_attention_heads=2, intermediate_size=32)
    table = Predictor(save_bundle(net, tmp/'colour')).clips(sorted(clips.glob('*.mp4'))[:2])
    assert (table.error=='').all()


def test_reading_the_module_needs_no_network():
    code = ("import socket; socket.socket.connect = lambda *a: (_ for _ in ()).throw(OSError('network')); import rpa.infer; print('ok')")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip()=='ok'


@pytest.mark.slow
@pytest.mark.parametrize('film,runners', (('gaitlab/male_side.mp4', 1), ('sports2d/demo.mp4', 2))) # there the man runs off at the end
def test_real_footage(tmp, film, runners):
    if not (DATA/film).exists(): pytest.skip('the shared data are not here')
    r = infer(make_bundle(tmp/'real'), [str(DATA/film)], overlay=str(tmp/'ov')).predictions['videos'][0]
    assert r['status'] in ('ok', 'uncertain') and r['num_clips']>=5 and not r['synthetic']
    if film.startswith('sports2d'): assert any('ankle variance' in x['reason'] or 'feet pass' in x['reason'] for x in r['rejected'])
    assert r['total_runners_detected']==runners


@pytest.fixture(scope='module')
def long(tmp):
    "Clips with more frames than the model takes"
    noise = lambda i: np.random.default_rng(i).integers(0, 255, (50, 40, 40, 3)).astype(np.uint8)
    return [str(write_video(tmp/'long'/f'{i}.mp4', noise(i), fps=60)) for i in range(3)]


def other_bundle(dst, seed, labels=LABELS, processing=CONTACT, threshold=.5, temperature=1., **kw):
    sizes = dict(image_size=32, patch_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    return str(save_bundle(fresh_model(labels, seed=seed, **sizes), dst, processing and processing.to_dict(), dict(temperature=temperature, threshold=threshold), **kw))


@pytest.mark.parametrize('sampling', ['stretch', 'uniform'])
@pytest.mark.parametrize('n,want,views', [(50, 16, 3), (50, 16, 5), (17, 16, 4), (16, 16, 3), (7, 16, 3), (1000, 8, 10)])
def test_views_are_in_order_inside_the_clip_and_all_different(sampling, n, want, views):
    looks = view_frames(n, want, views, sampling)
    assert 1<=len(looks)<=views and len({tuple(l) for l in looks})==len(looks)
    assert all(len(l)==want and l.min()>=0 and l.max()<n for l in looks)
    if n>want: assert all((np.diff(l)>=0).all() for l in looks)
    if n>=2*want and sampling=='stretch': assert looks[0][0]==0 and looks[-1][-1]==n-1 and len(looks)==views
    if n>want*views and sampling=='uniform': assert len(np.unique(looks))==want*views, 'no frame is shown twice'


def test_one_view_is_what_it_always_was(bundle, long, clips):
    p, files = Predictor(bundle, precision='fp32'), [*long, *map(str, sorted(clips.glob('*.mp4'))[:2])]
    for f in files: assert (load_views(f, p.bundle.input)[0]==load_clip(f, p.bundle.input)).all()
    old = np.round(p.calibration(clip_logits(p.model, files)[0]), 6)
    assert (p.clips(files)[['p_forefoot', 'p_heel']].to_numpy()==old).all()
    d = infer(bundle, files).predictions
    assert 'views' not in d and 'also' not in d and d['bundle']==sha256(Path(bundle)/'rpa.json')


def test_views_are_averaged_as_probabilities(tmp, long):
    b = make_bundle(tmp/'warm', temperature=2.5)
    p = Predictor(b, batch_size=2, precision='fp32', views=3)
    looks, why = view_logits(p.model, long, 2, views=3)
    assert [o.shape for o in looks]==[(3, 2)]*3 and why==['']*3
    assert p.clips(long).p_heel.to_numpy()==pytest.approx([p.calibration(o)[:,1].mean() for o in looks], abs=1e-5)
    with pytest.raises(RpaError, match='views: must be'): Predictor(b, views=0)


def test_several_bundles_each_with_its_own_calibration(tmp, bundle, long, tmp_path):
    two = other_bundle(tmp/'two', 9, temperature=3., threshold=.7)
    p, alone = Predictor(bundle, precision='fp32', also=[two]), [Predictor(b, precision='fp32') for b in (bundle, two)]
    gone = [*long, str(tmp_path/'gone.mp4')]
    mean = np.mean([a.clips(gone).p_heel.to_numpy() for a in alone], 0)
    assert p.clips(gone).p_heel.to_numpy()==pytest.approx(mean, abs=2e-6, nan_ok=True) and p.calibration.threshold==pytest.approx(.6)
    assert p.clips(gone).error.astype(bool).tolist()==[False]*3+[True]
    assert len({p.sha256, *(a.sha256 for a in alone)})==3
    out = tmp_path/'predictions.json'
    assert main(['infer', '--model_dir', bundle, '--also', two, '--views', '2', '--video', *long, '--kind', 'clips', '--output', str(out)])==0
    d = read_json(out)
    jsonschema.validate(d, SCHEMA)
    assert d['views']==2 and d['also']==[two] and d['threshold']==pytest.approx(.6)


def test_bundles_that_do_not_go_together_are_refused(tmp, bundle, lap, capsys):
    strange = other_bundle(tmp/'strange', 1, LabelMap({0:'forefoot', 1:'midfoot'}))
    assert main(['infer', '--model_dir', bundle, '--also', strange, '--video', str(lap)])==1
    assert 'must name the same classes' in capsys.readouterr().err
    cut = other_bundle(tmp/'cut', 1, processing=ProcessConfig(align='none'))
    with pytest.raises(RpaError, match='cut differently'): Predictor(bundle, also=[cut]).processing
    whole = save_bundle(fresh_model(LABELS), tmp/'whole', dict(job='action'))
    with pytest.raises(RpaError, match='rpa action predict'): Predictor(str(whole)).processing


def test_no_bundle_of_several_may_have_seen_the_scored_runners(tmp, clips):
    clean = other_bundle(tmp/'clean', 1, processing=None, data=dict(runners=dict(train=['99XX'], val=[])))
    seen = other_bundle(tmp/'seen', 2, processing=None, data=dict(runners=dict(train=['03TOY'], val=[])))
    assert evaluate_clips(Predictor(clean), str(clips)).clips.n==24
    with pytest.raises(RpaError, match='was trained or chosen on the runner 03TOY'): evaluate_clips(Predictor(clean, also=[seen]), str(clips))
