"Films of actions from outside: three ways to bring them, honest deals, the command end to end, and what must be refused"
import csv, re, shutil
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
import rpa
from rpa.action import (DEFAULTS, HRI30, KEYS, action_frames, deal, deal_randomly, prepare, prediction_rows, read_actions, read_settings, square,
                        toy_actions, write_split)
from rpa.core import Failures, LabelMap, RpaError, read_json
from rpa.models import check_bundle, fresh_model, save_bundle, save_network
from rpa.pipelines import main
from rpa.split import load_split
from rpa.train import mirrored_classes
from rpa.video import probe, write_video

ROOT = Path(rpa.__file__).parents[1]
REAL = ROOT/'../shared/data/action/gmdcsa24'
MICRO = dict(image_size=32, patch_size=16, num_frames=4, tubelet_size=2, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)


@pytest.fixture(scope='module')
def tmp(tmp_path_factory): return tmp_path_factory.mktemp('action')


@pytest.fixture(scope='module')
def data(tmp): return toy_actions(tmp/'data', subjects=5, films=1)


@pytest.fixture(scope='module')
def micro(tmp):
    "A network so small that a training takes a second"
    (tmp/'micro').mkdir()
    save_network(fresh_model(LabelMap({0:'a', 1:'b'}), grayscale=False, **MICRO), tmp/'micro', fold=False)
    return str(tmp/'micro')


def flags(micro, *more): return ['--model', micro, '--epochs', '2', '--batch-size', '4', '--val-ratio', '.2', '--test-ratio', '.3', '--device', 'cpu', '--no-progress', *more]


@pytest.fixture(scope='module')
def trained(tmp, data, micro):
    assert main(['action', 'train', '--clips', str(data), '--output-dir', str(tmp/'out'), *flags(micro, '--name', 'hri30_slowonly')])==0
    return tmp/'out'


def film(path, n=12, seed=0, size=(24, 32), fps=10):
    return write_video(path, np.random.default_rng(seed).integers(0, 255, (n, *size, 3)).astype(np.uint8), fps=fps)


# ── bringing films

def test_names_of_hri30():
    assert len(HRI30)==len(set(HRI30))==30 and HRI30[24]=='UsingTheDrill'
    swap = mirrored_classes(list(HRI30))
    assert isinstance(swap, list) and sum(i!=j for i,j in enumerate(swap))==12 and all(swap[swap[i]]==i for i in range(30))
    assert swap[HRI30.index('MoveLeftWhileDrilling')]==HRI30.index('MoveRightWhileDrilling')


def test_layout_of_the_document_and_a_flat_folder(data, tmp_path):
    rows, tests = read_actions(data)
    assert len(rows)==15 and rows.group.nunique()==5 and sorted(set(rows.label))==[19, 22, 26] and [Path(p).name for p in tests]==[f'video_00{i}.avi' for i in (1, 2, 3)]
    flat, none = read_actions(data/'train')
    assert flat.drop(columns='path').equals(rows.drop(columns='path')) and none==[]
    shutil.copytree(data/'train', tmp_path/'train')
    (tmp_path/'train'/'holiday.avi').write_bytes(b'x')
    with pytest.raises(RpaError, match='holiday.avi: the name must be CIDxx_SIDyy_VIDzz'): read_actions(tmp_path)


def test_a_table(tmp_path):
    (tmp_path/'c.csv').write_text('file,label,group,start_s,end_s\na.mp4,fall,7,0.5,2\nb/c.mp4,walk,8,,\n')
    rows, _ = read_actions(tmp_path/'c.csv')
    assert rows.path.tolist()==[str(tmp_path/'a.mp4'), str(tmp_path/'b/c.mp4')] and rows.label_name.tolist()==['fall', 'walk'] and rows.group.tolist()==['7', '8']
    assert rows.start_s[0]==.5 and np.isnan(rows.start_s[1])
    (tmp_path/'n.csv').write_text('file,label,group\n'+''.join(f'{i}.mp4,{i},s\n' for i in (10, 2, 1)))
    assert read_actions(tmp_path/'n.csv')[0].set_index('label_name').label.to_dict()=={'1':0, '2':1, '10':2}
    for text, word in (('file,group\na,b\n', 'lacks label'), ('file,label,group\na.mp4,,x\n', 'have no label: a.mp4'), ('file,label\na.mp4,x\n', 'nothing tells who'),
                       ('file,label,group,start_s,end_s\na.mp4,x,y,soon,\n', 'must hold seconds'), ('', 'not a readable CSV')):
        (tmp_path/'bad.csv').write_text(text)
        with pytest.raises(RpaError, match=word): read_actions(tmp_path/'bad.csv')


@pytest.mark.parametrize('regex,groups', [(r'(P\d+)', ['P1', 'P2']), (r'(x)?_(?P<group>P\d+)', ['P1', 'P2'])])
def test_folders_of_a_class_each(tmp_path, regex, groups):
    for k in ('fall', 'walk'):
        for p in (1, 2): film(tmp_path/k/f'clip_P{p}.mp4')
    film(tmp_path/'.hidden'/'clip_P9.mp4')
    rows, _ = read_actions(tmp_path, regex)
    assert sorted(set(rows.group))==groups and rows.label_name.tolist()==['fall']*2+['walk']*2
    for wrong, word in ((r'(Q\d)', 'finds no subject in 4 of 4'), (r'P\d', 'needs a group in brackets'), ('(', 'not a regular expression'), (r'(P1)', 'in 2 of 4 films: fall/clip_P2.mp4')):
        with pytest.raises(RpaError, match=word): read_actions(tmp_path, wrong)
    with pytest.raises(RpaError, match='random-split'): read_actions(tmp_path)
    assert read_actions(tmp_path, random_split=True)[0].group.nunique()==4
    with pytest.raises(RpaError, match='holds neither'): read_actions(tmp_path/'fall')
    with pytest.raises(RpaError, match='there is no'): read_actions(tmp_path/'gone')


# ── films of any length, shape and rate

@pytest.mark.parametrize('n,fps,size', [(3, 5, (24, 40)), (90, 30, (40, 24)), (7, 60, (24, 24))])
def test_frames_are_spread_over_the_whole_film(tmp_path, n, fps, size):
    "Every frame has its own brightness, so the picture tells which one it is"
    level = np.linspace(20, 230, n).round().astype(int)
    path = write_video(tmp_path/'f.mp4', [np.full((*size, 3), v, np.uint8) for v in level], fps=fps, crf=1)
    got = action_frames(path, 8, 16, 'crop').mean((1, 2, 3))
    want = level[((np.arange(8)+.5)/8*n).astype(int)]
    assert got==pytest.approx(want, abs=4)
    part = action_frames(path, 4, 16, 'crop', start_s=n/fps/2).mean((1, 2, 3))
    assert part.min()>=level[n//2]-4
    with pytest.raises(RpaError, match='must lie in the film'): action_frames(path, 4, 16, start_s=n/fps+1)


@pytest.mark.skipif(not REAL.exists(), reason='the real films are not here')
def test_a_webcam_whose_rate_varies():
    path = REAL/'Subject_1_Fall_13.mp4'
    assert probe(path).variable_rate and action_frames(path, 8, 32, 'pad').shape==(8, 32, 32, 3)


@pytest.mark.parametrize('h,w', [(30, 50), (50, 30), (40, 40), (1, 9)])
def test_squares(h, w):
    img = np.random.default_rng(0).integers(1, 255, (h, w, 3)).astype(np.uint8)
    assert {square(img, 20, f).shape for f in ('squash', 'crop', 'pad')}=={(20, 20, 3)}
    bars = (square(img, 20, 'pad')==0).all(2)
    assert bars.mean()==pytest.approx(1-max(1, round(20*min(h, w)/max(h, w)))/20, abs=.01)


def test_prepared_clips_are_taken_again_and_bad_films_named(tmp_path, data):
    shutil.copytree(data, tmp_path/'d')
    (tmp_path/'d'/'train'/'CID20_SID01_VID77.avi').write_bytes(b'no film')
    rows, bad = read_actions(tmp_path/'d')[0], Failures()
    made = prepare(rows, tmp_path/'c', 8, 16, failures=bad)
    assert len(made)==15 and [Path(f).name for f,_,_ in bad]==['CID20_SID01_VID77.avi']
    times = {p.name:p.stat().st_mtime_ns for p in (tmp_path/'c').glob('*.mp4')}
    next((tmp_path/'c').glob('CID20_SID01_VID01*.mp4')).unlink() # as if stopped before it
    again = prepare(rows, tmp_path/'c', 8, 16, failures=Failures())
    assert again.equals(made)
    assert sum(p.stat().st_mtime_ns!=times[p.name] for p in (tmp_path/'c').glob('*.mp4'))==1
    other = prepare(rows, tmp_path/'c', 8, 16, 'crop', failures=Failures())
    assert not set(other.file)&set(made.file)
    with pytest.raises(RpaError): prepare(rows, tmp_path/'e', 8, 16)
    with pytest.raises(RpaError, match='fit: must be one of'): prepare(rows, tmp_path/'e', 8, 16, 'stretch')


def test_one_film_in_two_classes_is_refused(tmp_path):
    film(tmp_path/'fall'/'P1.mp4')
    (tmp_path/'walk').mkdir()
    shutil.copy(tmp_path/'fall'/'P1.mp4', tmp_path/'walk'/'P1.mp4')
    with pytest.raises(RpaError, match='same film with two labels'): prepare(read_actions(tmp_path, r'(P\d)')[0], tmp_path/'c', 4, 16)


# ── deals

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 12), st.integers(2, 6))
def test_no_subject_is_on_two_sides_and_training_knows_every_class(seed, subjects, classes):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame([dict(group=f's{s}', label=l) for s in range(subjects) for l in range(classes) if rng.random()<.7 or l==s%classes])
    rows['label_name'] = [f'c{l}' for l in rows.label]
    try: where, notes = deal(rows, .2, .2, seed, tries=60)
    except RpaError as e: assert 'validation needs' in str(e) or 'no deal lets' in str(e); return
    assert set(where)==set(rows.group) and 'val' in where.values()
    assert set(rows.label[rows.group.map(where)=='train'])==set(rows.label)
    alone = [l for l,g in rows.groupby('label').group if g.nunique()==1]
    assert len(notes)==len(alone)
    assert deal(rows, .2, .2, seed, tries=60)==(where, notes)


def test_a_class_of_one_subject_is_said(tmp_path, data):
    rows = read_actions(data)[0]
    lone = rows[~((rows.label_name=='Walking') & (rows.group!='SID04'))]
    where, notes = deal(lone, .2, .2)
    assert where['SID04']=='train' and notes==['class Walking is shown by one subject only, SID04: it can be learned, but not judged on anybody else']
    with pytest.raises(RpaError, match='film more people'): deal(rows[rows.group=='SID01'])


def test_a_copy_on_two_sides_is_refused(tmp_path, data):
    shutil.copytree(data/'train', tmp_path/'d')
    for s in range(2, 6): shutil.copy(tmp_path/'d'/'CID20_SID01_VID01.avi', tmp_path/'d'/f'CID20_SID0{s}_VID01.avi')
    made = prepare(read_actions(tmp_path/'d')[0], tmp_path/'c', 4, 16)
    with pytest.raises(RpaError, match='cannot be dealt out'): write_split(made, tmp_path/'s.json', tmp_path/'c', .2, .2)


def test_random_deal_is_ninety_to_ten_of_every_class():
    part = pd.Series(deal_randomly(pd.DataFrame(dict(label=[0]*40+[1]*20+[2]))))
    assert (part=='val').tolist().count(True)==6 and part[60]=='train' and (part[:40]=='val').sum()==4


# ── the original's configuration

def test_every_key_of_the_document(tmp_path):
    spec = ROOT/'../shared/spec/4-hri30.md'
    text = spec.read_text(encoding='utf-8') if spec.exists() else ''
    config = next((b for b in re.findall(r'```python\n(.*?)```', text, re.S) if 'NUM_CLASSES' in b), 'NUM_CLASSES = 30\nUSE_GPU = True\nGPU_ID = 0\nMOMENTUM = 0.9\n')
    (tmp_path/'config.py').write_text(config)
    s, _ = read_settings(tmp_path/'config.py')
    assert s['classes']==30 and all(v==DEFAULTS[k] for k,v in s.items() if k not in ('classes', 'frames', 'workers'))
    named = set(re.findall(r'\b(?:[A-Z]+_)+[A-Z]+\b', text))-{'CUDA_VISIBLE_DEVICES'}
    assert not {n for n in named if n in ('BATCH_SIZE', 'NUM_EPOCHS', 'INITIAL_LR', 'LR_SCHEDULER', 'PLOT_LOSS', 'RANDOM_FLIP', 'TARGET_FRAMES')}-set(KEYS)


def test_configurations(tmp_path):
    def read(text, name='c.yaml'):
        (tmp_path/name).write_text(text)
        return read_settings(tmp_path/name)
    assert read('BATCH_SIZE: 8\nRANDOM_FLIP: false\nUSE_GPU: false\nBACKBONE: resnet18\nlr: 0.1\nval-ratio: 0.2')[0]==dict(batch_size=8, flip=False, device='cpu', model='slowonly-r18', lr=.1, val_ratio=.2)
    assert read('WEIGHT_DECAY: 1e-4\nINITIAL_LR: 1e-3')[0]==dict(weight_decay=1e-4, lr=1e-3), 'which YAML takes for words'
    assert read('PRETRAINED_DATASET = None', 'c.py')==(dict(from_scratch=True), [])
    assert read('GPU_ID = 1', 'c.py')[0]==dict(device='cuda:1') and read('GPU_ID = 1\nUSE_GPU = False', 'c.py')[0]==dict(device='cpu')
    s, told = read('OPTIMIZER = "adam"\nPRETRAINED_DATASET = "kinetics400"\nCLASS_NAMES = {2: "b", 1: "a"}', 'c.py')
    assert s==dict(optimizer='adamw', class_names=('a', 'b')) and any('ImageNet' in t for t in told)
    for text, word in (('BATCH_SIZE: many', 'must be int'), ('MOMENTUM: 0.5', 'can only be .9'), ('BACKBONE: vgg', 'must be one of resnet50'), ('NUM_EPOCH: 3', 'did you mean NUM_EPOCHS'),
                       ('- 1', 'must hold lines'), ('a: [', 'must be a YAML'), ('USE_GPU: 1', 'must be bool'), ('CLASS_NAMES: 3', 'list of names')):
        with pytest.raises(RpaError, match=word): read(text)
    with pytest.raises(RpaError, match='nothing in it is run'): read(f'BATCH_SIZE = 8\nopen("{tmp_path}/ran", "w")', 'c.py')
    assert not (tmp_path/'ran').exists()


# ── end to end

def test_outputs_are_those_of_the_document(trained, data):
    assert check_bundle(trained/'checkpoints'/'hri30_slowonly_best')['processing']|dict(job='action', fit='squash', frames=16, size=32)==check_bundle(trained/'checkpoints'/'hri30_slowonly_best')['processing']
    results = trained/'results'
    assert {'test_predictions.csv', 'training_curves.png', 'confusion_matrix.png', 'per_class.csv', 'report.html', 'scores.json', 'test_clips.csv'}=={p.name for p in results.iterdir()}
    head, *lines = (results/'test_predictions.csv').read_text().splitlines()
    assert head=='Video,Predicted_Class,Predicted_Label,Confidence,Top_5' and len(lines)==3
    assert all(re.fullmatch(r'video_00\d\.avi,\d+,\w+,[01]\.\d{4},"\w+\([01]\.\d{4}\)(; \w+\([01]\.\d{4}\)){2}"', l) for l in lines)
    for r in csv.DictReader(open(results/'test_predictions.csv')): assert HRI30[int(r['Predicted_Class'])-1]==r['Predicted_Label'] and r['Top_5'].startswith(f"{r['Predicted_Label']}({r['Confidence']})")
    s = read_json(results/'scores.json')
    assert s['who']=='subject' and s['majority']>0 and len(s['top_k'])==3 and s['n_groups']==len(set(pd.read_csv(results/'test_clips.csv').runner))
    split = read_json(trained/'logs'/'hri30_slowonly_split.json')
    assert not set(split['runners']['train'])&set(split['runners']['test']) and 'Per subject' in (results/'report.html').read_text()


def test_the_same_command_goes_on_where_it_was(trained, tmp, data, micro, capsys):
    before = {p:p.read_bytes() for p in (trained/'results').iterdir() if p.suffix in ('.csv', '.png')}
    bundle = (trained/'checkpoints'/'hri30_slowonly_best'/'rpa.json').read_bytes()
    assert main(['action', 'train', str(data), '--output-dir', str(trained), *flags(micro, '--name', 'hri30_slowonly')])==0
    assert 'nothing to do' in capsys.readouterr().out
    assert {p:p.read_bytes() for p in before}==before and (trained/'checkpoints'/'hri30_slowonly_best'/'rpa.json').read_bytes()==bundle
    assert main(['action', 'train', str(data), '--output-dir', str(trained), *flags(micro, '--name', 'hri30_slowonly', '--lr', '.5')])==1
    assert 'holds another run (lr was' in capsys.readouterr().err


def test_predict_names_the_corrupt_film_and_answers_the_rest(trained, data, tmp_path, capsys):
    model = str(trained/'checkpoints'/'hri30_slowonly_best')
    shutil.copytree(data/'test', tmp_path/'films'/'deep')
    (tmp_path/'films'/'broken.avi').write_bytes(b'RIFF')
    (tmp_path/'films'/'notes.txt').write_text('no film')
    assert main(['action', 'predict', '--model', model, str(tmp_path/'films'), '--output', str(tmp_path/'p.csv'), '--device', 'cpu', '--no-progress'])==1
    assert 'broken.avi' in capsys.readouterr().out and pd.read_csv(tmp_path/'p.failed.csv').file.str.endswith('broken.avi').all()
    ours, theirs = pd.read_csv(tmp_path/'p.csv'), pd.read_csv(trained/'results'/'test_predictions.csv')
    assert ours.Video.tolist()==[f'deep/{v}' for v in theirs.Video] and ours.drop(columns='Video').equals(theirs.drop(columns='Video'))
    (tmp_path/'films'/'broken.avi').unlink()
    assert main(['action', 'predict', '--model', model, '--also', model, '--views', '3', str(tmp_path/'films'), '--output', str(tmp_path/'p.csv'), '--device', 'cpu', '--no-progress'])==0
    assert not (tmp_path/'p.failed.csv').exists() and len(pd.read_csv(tmp_path/'p.csv'))==3
    one = data/'test'/'video_001.avi'
    assert main(['action', 'predict', str(one), '--model', model, '--output', str(tmp_path/'one.csv'), '--device', 'cpu', '--no-progress'])==0
    assert pd.read_csv(tmp_path/'one.csv').Video.tolist()==['video_001.avi']


def test_predict_refuses(trained, data, tmp_path, capsys):
    model, stranger = str(trained/'checkpoints'/'hri30_slowonly_best'), tmp_path/'stranger'
    save_bundle(fresh_model(LabelMap({0:'a', 1:'b'}), **MICRO), stranger)
    (tmp_path/'empty').mkdir()
    for args, word in (([str(data/'test'), '--model', str(stranger)], 'was not trained by rpa action train'), ([str(tmp_path/'empty'), '--model', model], 'holds no films'),
                       ([str(tmp_path/'gone'), '--model', model], 'there is no'), ([str(data/'test'), '--model', model, '--output', 'p.json'], 'must be a .csv'),
                       ([str(data/'test'), '--model', str(tmp_path/'empty')], 'not a bundle')):
        assert main(['action', 'predict', *args])==1
        assert word in capsys.readouterr().err


def test_train_refuses(data, micro, tmp_path, capsys):
    (tmp_path/'names.yaml').write_text('CLASS_NAMES: [PickUpDrill, PutDownDrill, Walking, Running]')
    lonely = tmp_path/'lonely'
    lonely.mkdir()
    for p in (data/'train').glob('*_SID01_*'): shutil.copy(p, lonely)
    for args, word in ((['--clips', str(data), '--classes', '30'], 'NUM_CLASSES is 30, but the films show 3'), (['--clips', str(data), '--config', str(tmp_path/'names.yaml')], 'CLASS_NAMES has Running'),
                       (['--clips', str(lonely)], 'there are 1 subjects'), (['--clips', str(data), '--frames', '8'], 'takes 4 frames of 32 px'), (['--clips', str(data), '--name', '../x'], 'name: may hold'),
                       (['--clips', str(data), '--config', str(tmp_path/'gone.yaml')], 'config:')):
        assert main(['action', 'train', *args, '--output-dir', str(tmp_path/'o'), *flags(micro)])==1
        assert word in capsys.readouterr().err


def test_random_deal_says_what_it_is_worth(data, micro, tmp_path, capsys):
    assert main(['action', 'train', '--clips', str(data/'train'), '--random-split', '--output-dir', str(tmp_path), *flags(micro)])==0
    assert 'say nothing about new people' in capsys.readouterr().out
    assert 'say nothing about new people' in (tmp_path/'results'/'report.html').read_text() and (tmp_path/'checkpoints'/'hri30_videomae_best').is_dir()
    told = read_json(tmp_path/'results'/'scores.json')
    assert told['part']=='val' and any('say nothing about new people' in n for n in told['notes'])
    about = read_json(tmp_path/'checkpoints'/'hri30_videomae_best'/'rpa.json')
    assert any('say nothing about new people' in n for n in about['data']['split_warnings']), 'and the bundle carries it along'
    parts = load_split(tmp_path/'logs'/'hri30_videomae_split.json', needs=('train', 'val'))
    assert len(parts['val'])==3 and len(parts['test'])==0
    assert len(pd.read_csv(tmp_path/'results'/'test_predictions.csv'))==3, 'without a test folder the judged films are listed'


def test_a_table_with_stretches_of_films_and_a_config(tmp_path, micro, capsys):
    "Two stretches of one film have the same subject, so they cannot part; sizes that go with the class are named"
    rows = ['file,label,group,start_s,end_s']
    for s in range(5):
        for i,k in enumerate(('fall', 'walk')):
            film(tmp_path/f'{s}{k}.mp4', 20, 10*s+i, (24, 32+8*i))
            rows += [f'{s}{k}.mp4,{k},p{s},0,1', f'{s}{k}.mp4,{k},p{s},1,']
    (tmp_path/'c.csv').write_text('\n'.join(rows))
    (tmp_path/'c.yaml').write_text('NUM_CLASSES: 2\nNUM_EPOCHS: 9\nPLOT_LOSS: false\n')
    assert main(['action', 'train', '--clips', str(tmp_path/'c.csv'), '--config', str(tmp_path/'c.yaml'), '--output-dir', str(tmp_path/'o'), *flags(micro)])==0
    assert 'filmed in different sizes' in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path/'o'/'logs'/'c_videomae'/'train_log.csv'))==2, 'flags override the file'
    assert not (tmp_path/'o'/'results'/'training_curves.png').exists() and len(pd.read_csv(tmp_path/'o'/'logs'/'clips'/'clips.csv'))==20


def test_frames_and_size_of_slowonly(tmp_path, data):
    assert main(['action', 'train', '--clips', str(data), '--output-dir', str(tmp_path), '--model', 'slowonly-r18', '--from-scratch', '--frames', '2', '--size', '32',
                 '--epochs', '1', '--batch-size', '4', '--val-ratio', '.2', '--test-ratio', '.3', '--strategy', 'head', '--device', 'cpu', '--no-progress', '--no-flip'])==0
    about = check_bundle(tmp_path/'checkpoints'/'hri30_slowonly_best')
    assert (about['input']['frames'], about['input']['size'], about['input']['grayscale'], about['training']['strategy'])==(2, 32, False, 'head')
    assert about['training']['optimizer']=='sgd' and about['training']['flip'] is False


def test_top_five_of_thirty():
    p = np.random.default_rng(0).dirichlet(np.ones(30), 4)
    rows = prediction_rows(list('abcd'), p, LabelMap(dict(enumerate(HRI30))))
    assert all(len(r[4].split('; '))==5 and r[1]==p[i].argmax()+1 for i,r in enumerate(rows))


@pytest.mark.slow
def test_changes_resume_to_the_bit(tmp_path, data, monkeypatch):
    "Stopped within an epoch and started again: the same bundle, the running means of its normalisation included"
    import rpa.train as t
    made = prepare(read_actions(data)[0], tmp_path/'clips', 16, 32)
    write_split(made, tmp_path/'s.json', tmp_path/'clips', .2, .2)
    start = tmp_path/'start'
    start.mkdir()
    save_network(fresh_model(LabelMap(dict(zip(made.label, made.label_name))), False, kind='changes', pictures='resnet18', num_frames=4, image_size=32), start, fold=False)
    kw = dict(model=str(start), epochs=2, batch_size=2, lr=.05, strategy='head', optimizer='sgd', no_grayscale=True, no_progress=True, device='cpu', save_steps=1)
    whole, saves, save = t.train(str(tmp_path/'s.json'), str(tmp_path/'whole'), **kw), [], t.save_checkpoint
    def stop(*args):
        save(*args)
        saves.append(1)
        if len(saves)==2: raise KeyboardInterrupt
    monkeypatch.setattr(t, 'save_checkpoint', stop)
    with pytest.raises(KeyboardInterrupt): t.train(str(tmp_path/'s.json'), str(tmp_path/'cut'), **kw)
    cut = t.train(str(tmp_path/'s.json'), str(tmp_path/'cut'), **kw)
    assert (cut.bundle/'model.safetensors').read_bytes()==(whole.bundle/'model.safetensors').read_bytes()
    assert check_bundle(cut.bundle)['training']['strategy']=='head'


@pytest.mark.parametrize('file', ['../other.mp4', '/other.mp4'])
def test_a_table_names_films_of_its_own_folder_only(tmp_path, file):
    (tmp_path/'clips.csv').write_text(f'file,label,group\n{file},fall,A\n')
    with pytest.raises(RpaError, match='must stay inside'): read_actions(str(tmp_path/'clips.csv'))


def test_who_taught_the_start_does_not_judge(trained, data, micro, tmp_path, capsys):
    "From a bundle, from one of its run's checkpoints, and through a start told to take other frames"
    checkpoint = sorted((trained/'logs'/'hri30_slowonly').glob('checkpoint-epoch-*'))[-1]
    for k,start in enumerate((trained/'checkpoints'/'hri30_slowonly_best', checkpoint)):
        assert main(['action', 'train', '--clips', str(data), '--output-dir', str(tmp_path/str(k)), *flags(str(start), '--seed', '7')])==1
        assert 'has learned from, or was chosen on' in capsys.readouterr().err
        assert not (tmp_path/str(k)/'checkpoints').exists()


def test_a_start_with_other_frames_keeps_whence_it_came(data, tmp_path, capsys):
    args = ['action', 'train', '--clips', str(data), '--epochs', '1', '--batch-size', '4', '--val-ratio', '.2', '--test-ratio', '.3', '--strategy', 'head', '--device', 'cpu', '--no-progress', '--name', 'x']
    assert main([*args, '--output-dir', str(tmp_path/'a'), '--model', 'slowonly-r18', '--from-scratch', '--frames', '2', '--size', '32'])==0
    about = check_bundle(tmp_path/'a'/'checkpoints'/'x_best')
    assert about['origin']['name']=='random' and about['training']['model']=='slowonly-r18-random-2x32'
    assert main([*args, '--output-dir', str(tmp_path/'a'), '--model', 'slowonly-r50', '--from-scratch', '--frames', '2', '--size', '32'])==1, 'another network is another run'
    assert 'model was slowonly-r18-random-2x32' in capsys.readouterr().err
    assert main([*args, '--output-dir', str(tmp_path/'b'), '--model', str(tmp_path/'a'/'checkpoints'/'x_best'), '--frames', '2', '--size', '48', '--seed', '7'])==1
    assert 'x_best has learned from, or was chosen on' in capsys.readouterr().err


def test_a_refused_command_breaks_nothing(trained, data, micro, tmp_path, capsys):
    "Another seed, and another network beside it: the finished run's split stays and can still be scored"
    root = tmp_path/'out'
    shutil.copytree(trained, root)
    split_json = root/'logs'/'hri30_slowonly_split.json'
    was = split_json.read_bytes()
    assert main(['action', 'train', '--clips', str(data), '--output-dir', str(root), '--name', 'hri30_slowonly', *flags(micro, '--seed', '7')])==1
    assert 'holds another run' in capsys.readouterr().err and split_json.read_bytes()==was and not list((root/'logs').glob('*.new*.json'))
    assert main(['action', 'train', '--clips', str(data), '--output-dir', str(root), '--name', 'other', '--model', 'slowonly-r18', '--from-scratch', '--frames', '2', '--size', '32', '--epochs', '1',
                 '--batch-size', '4', '--val-ratio', '.2', '--test-ratio', '.3', '--strategy', 'head', '--device', 'cpu', '--no-progress'])==0
    assert len(load_split(split_json, needs=('train', 'val', 'test'))['test'])>0
    assert read_json(root/'results'/'scores.json')['run']=='other' and read_json(root/'results'/'hri30_slowonly'/'scores.json')['run']=='hri30_slowonly'
    assert (root/'results'/'hri30_slowonly'/'test_predictions.csv').read_bytes()==(trained/'results'/'test_predictions.csv').read_bytes()


def test_what_nobody_sees_makes_no_other_person(tmp_path):
    for i in range(3): film(tmp_path/f'{i}.mp4', seed=i)
    (tmp_path/'c.csv').write_text('file,label,group\n0.mp4,walk,P\u00e9r\n1.mp4,walk ,Pe\u0301r\n2.mp4,fall,P\u00e9r \n', encoding='utf-8')
    rows, _ = read_actions(tmp_path/'c.csv')
    assert set(rows.group)=={'P\u00e9r'} and sorted(set(rows.label_name))==['fall', 'walk']
    (tmp_path/'c.csv').write_text('file,label,group\n')
    with pytest.raises(RpaError, match='holds no films'): read_actions(tmp_path/'c.csv')
    (tmp_path/'c.csv').write_text('file,label,group\n0.mp4,a,x\n0.mp4,b,y\n')
    with pytest.raises(RpaError, match='0.mp4 is listed more than once'): read_actions(tmp_path/'c.csv')


def test_a_regular_expression_rules_also_names_of_hri30(data):
    assert set(read_actions(data, r'VID(\d+)')[0].group)=={'01'}
    with pytest.raises(RpaError, match='finds no subject'): read_actions(data, '(zz)')


@pytest.mark.parametrize('more,says', [(['--views', '0'], 'views: must be'), (['--epochs', '0'], 'epochs must be'), (['--optimizer', 'adam'], 'optimizer must be one of'),
                                       (['--val-ratio', '.9', '--test-ratio', '.9'], 'both together < 1'), (['--name', '..'], 'name: may hold')])
def test_bad_flags_are_said_before_the_work(data, micro, tmp_path, capsys, more, says):
    assert main(['action', 'train', '--clips', str(data), '--output-dir', str(tmp_path/'o'), *flags(micro), *more])==1
    assert says in capsys.readouterr().err and not (tmp_path/'o'/'logs'/'clips').exists()


def test_a_configuration_holds_every_flag(tmp_path):
    (tmp_path/'c.yaml').write_text('no_flip: true\nrandom_split: true\nviews: 2\nname: bob\nlr: 1e-3\noutput-dir: here\n')
    s, _ = read_settings(str(tmp_path/'c.yaml'))
    assert s==dict(flip=False, random_split=True, views=2, name='bob', lr=1e-3, output_dir='here')
    (tmp_path/'c.yaml').write_text('CLASS_NAMES: [walk, walk, lift]\n')
    with pytest.raises(RpaError, match='each once'): read_settings(str(tmp_path/'c.yaml'))
