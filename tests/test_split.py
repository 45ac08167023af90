"""Splits: sizes, leaks, damaged files, buckets, the command"""
import itertools, json, os, shutil, subprocess, sys
from dataclasses import replace
from pathlib import Path

import fsspec, pytest
import numpy as np
from hypothesis import given, settings, strategies as st

from rpa.core import ClipName, RpaError, read_manifest, sha256, write_manifest
from rpa.pipelines import main
from rpa.split import (PARTS, augmented_split, grouped_folds, load_split, make_split, part_sizes, plot_split, read_clips, runner_labels, split,
                       stats, tabulate)


def tree(folder, runners, laps=2, clips=2, settings='cafe'):
    "Stand-in clips: `runners` maps a runner to the raw label of each lap"
    folder, rows = Path(folder), []
    folder.mkdir(parents=True)
    for r,labels in runners.items():
        for lap,i in itertools.product(range(laps), range(clips)):
            n = ClipName(r, 'RUN1', f'CAM{1+lap%2}', f'lap_{lap:03d}', i, labels[lap%len(labels)])
            (folder/n.file).write_text(n.file)
            rows.append(dict(file=n.file, sha256=sha256(folder/n.file), source=n.source, source_sha256=f'{r}-{lap}', runner=r,
                run=n.run, camera=n.camera, lap=n.lap, track=0, clip=i, label=n.label, start_s=0., end_s=.25, fps='60/1',
                frames=16, settings=settings))
    write_manifest(rows, folder)
    return folder


def twelve(): return {f'{i:02d}AB': [i%2] for i in range(12)}


@pytest.fixture
def clips(tmp_path): return tree(tmp_path/'clips', twelve())


@pytest.fixture
def made(clips, tmp_path): return split(str(clips), str(tmp_path/'split.json'))


def edit(folder, change):
    "Change the manifest of a folder"
    df = read_manifest(folder, check_files=False)
    df.attrs = {}
    change(df)
    write_manifest(df, folder)


def one_of(made, part): return made.parts[part].file[0]


# sizes

@given(n=st.integers(0, 200), train=st.integers(1, 100), val=st.integers(0, 100))
@settings(max_examples=200, deadline=None)
def test_sizes_are_a_partition(n, train, val):
    train, val = train/100, min(val, 100-train)/100
    sizes = part_sizes(n, (train, val, max(0, 1-train-val)))
    assert sum(sizes)==n and min(sizes)>=0
    if n: assert sizes[0]>=1


@pytest.mark.parametrize('n', [3, 4, 5, 6, 7, 10, 17, 20, 30, 100])
def test_sizes_are_the_documented_ones(n):
    train, val = max(1, n*70//100), max(1, n*15//100)
    assert part_sizes(n)==(train, val, n-train-val)


def test_every_clip_lands_once(made):
    files = [f for p in PARTS for f in made.parts[p].file]
    assert len(files)==len(set(files))==48


def test_dominant_label_is_raw_then_remapped(tmp_path):
    df = read_clips(tree(tmp_path/'c', {'01AB':[2,2,0], '02AB':[0,1], '03AB':[1]}, laps=6))
    assert runner_labels(df)=={'01AB':2, '02AB':0, '03AB':1}
    assert runner_labels(df, '2:1')=={'01AB':1, '02AB':0, '03AB':1}


def test_no_stratify_deals_all_runners_together(clips):
    df = read_clips(clips)
    assert [d.runner.nunique() for d in make_split(df, stratify=False).values()]==[8, 1, 3]
    assert [d.runner.nunique() for d in make_split(df).values()]==[8, 2, 2]


def test_seeds_differ(clips):
    df = read_clips(clips)
    assert len({tuple(make_split(df, seed=s)['test'].runner.unique()) for s in range(8)})>3


# bytes and places

def test_same_bytes_in_another_process(clips, tmp_path, made):
    code = f'from rpa.split import split; split({str(clips)!r}, {str(tmp_path/"other.json")!r})'
    for seed in '01':
        subprocess.run([sys.executable, '-c', code], check=True, env={**os.environ, 'PYTHONHASHSEED':seed}, stdout=subprocess.DEVNULL)
        assert (tmp_path/'other.json').read_bytes()==made.path.read_bytes()


def test_folder_can_be_moved(made, tmp_path):
    moved = tmp_path.parent/f'{tmp_path.name}-moved'
    shutil.copytree(tmp_path, moved)
    shutil.rmtree(tmp_path/'clips')
    assert all(Path(p).is_file() and p.startswith(str(moved)) for p in load_split(moved/'split.json')['train'].path)
    shutil.rmtree(moved)


def test_address_of_a_local_folder(clips, made, tmp_path):
    split(clips.as_uri(), str(tmp_path/'uri.json'))
    assert (tmp_path/'uri.json').read_bytes()==made.path.read_bytes()


def test_lists_alone_are_enough(clips, made, tmp_path):
    old = {p:[str(clips/f) for f in made.parts[p].file] for p in PARTS}
    (tmp_path/'old.json').write_text(json.dumps(old))
    (clips/'clips.csv').unlink()
    parts = load_split(tmp_path/'old.json')
    assert {p:list(d.target) for p,d in parts.items()}=={p:list(d.target) for p,d in load_split_of(made).items()}


def load_split_of(made):
    for p in PARTS: made.parts[p]['target'] = made.parts[p].label.astype(int)
    return made.parts


# leaks and damage: (what is done, what the refusal says)

def move_clip(d): d['train'].append(d['test'].pop())
def forge(d): d['audit']['passed'] = True; move_clip(d)
def drop_test(d): d['test'] = []


@pytest.mark.parametrize('change,said', [(move_clip, 'each runner is in one part'), (forge, 'each runner is in one part'),
                                         (drop_test, 'every part has clips')])
def test_edited_json_is_refused(made, change, said):
    d = json.loads(made.path.read_text())
    change(d)
    made.path.write_text(json.dumps(d))
    with pytest.raises(RpaError, match=said): load_split(made.path)
    load_split(made.path, enforce=False)


def rename_runner(clips, made):
    def change(df): df.loc[df.file==one_of(made, 'test'), 'runner'] = made.parts['train'].runner[0]
    edit(clips, change)


def share_source(clips, made):
    def change(df): df.loc[df.file==one_of(made, 'test'), 'source_sha256'] = made.parts['train'].source_sha256[0]
    edit(clips, change)


def copy_content(clips, made):
    a, b = one_of(made, 'train'), one_of(made, 'test')
    shutil.copy(clips/a, clips/b)
    edit(clips, lambda df: df.__setitem__('sha256', df.sha256.where(df.file!=b, sha256(clips/a))))


def remove(clips, made): (clips/one_of(made, 'val')).unlink()
def overwrite(clips, made): (clips/one_of(made, 'val')).write_text('other')


def process_again(clips, made):
    f = one_of(made, 'val')
    (clips/f).write_text('other')
    edit(clips, lambda df: df.__setitem__('sha256', df.sha256.where(df.file!=f, sha256(clips/f))))


@pytest.mark.parametrize('do,said', [(rename_runner, 'names agree with clips.csv'), (share_source, 'each source video is in one part'),
    (copy_content, 'identical clips'), (remove, 'files are there'), (overwrite, 'files hold what clips.csv says'),
    (process_again, 'clips are those that were split')])
def test_changed_data_is_refused(clips, made, do, said):
    do(clips, made)
    with pytest.raises(RpaError, match=said) as e: load_split(made.path)
    assert one_of(made, 'val') in str(e.value) or one_of(made, 'test') in str(e.value) or 'val:' in str(e.value)


@pytest.mark.parametrize('do', [share_source, copy_content, remove, overwrite])
def test_leaking_clips_are_not_split(clips, made, do, tmp_path):
    do(clips, made)
    with pytest.raises(RpaError): split(str(clips), str(tmp_path/'new.json'))
    assert not (tmp_path/'new.json').exists()


def test_needs_limits_what_is_asked_for(clips, made):
    for f in made.parts['test'].file: (clips/f).unlink()
    load_split(made.path, needs=('train', 'val'))
    with pytest.raises(RpaError, match='files are there'): load_split(made.path, needs=('test',))
    load_split(made.path, files=False)


def test_label_that_training_never_saw(tmp_path):
    tree(tmp_path/'c', {'01AB':[0], '02AB':[1]})
    split(str(tmp_path/'c'), str(tmp_path/'s.json'), no_stratify=True)
    with pytest.raises(RpaError, match='labels are among those of train'): load_split(tmp_path/'s.json', needs=('train', 'val'))


def test_augmented_clips_cannot_be_split(clips):
    f = sorted(clips.glob('*.mp4'))[0]
    def change(df):
        n = replace(ClipName.parse(f.name), version=1)
        f.rename(clips/n.file)
        df.loc[df.file==f.name, ['file', 'base', 'version']] = [n.file, f.name, 1]
    edit(clips, change)
    seeds = [s for s in range(60) if '00AB' in set(make_split(read_clips(clips), seed=s)['test'].runner)]
    with pytest.raises(RpaError, match='augmented clips belong to train'): split(str(clips), str(clips.parent/'x.json'), seed=seeds[0])


# bad input

@pytest.mark.parametrize('kw,said', [
    (dict(train_ratio=.8), 'sum 1 ± .001; got 0.8 \\+ 0.15 \\+ 0.15 = 1.1'),
    (dict(train_ratio=1.15, val_ratio=-.3), '0 or more'), (dict(train_ratio=0., val_ratio=.5, test_ratio=.5), 'train more than 0'),
    (dict(remap_labels='2-0'), "FROM:TO .* got '2-0'"), (dict(remap_labels='0:5'), 'must become one of .* got 5'),
    (dict(remap_labels='1:0,1:1'), 'sent to both')])
def test_bad_flags(clips, tmp_path, kw, said):
    with pytest.raises(RpaError, match=said): split(str(clips), str(tmp_path/'x.json'), **kw)
    assert not (tmp_path/'x.json').exists()


def test_ratios_may_be_off_by_a_thousandth(clips, tmp_path):
    split(str(clips), str(tmp_path/'x.json'), train_ratio=.701)


def test_unknown_labels_are_listed(tmp_path):
    tree(tmp_path/'c', {'01AB':[0], '02AB':[7], '03AB':[1]})
    with pytest.raises(RpaError, match='got 7 in 02AB_RUN1_CAM1_lap_000_CUT_000_007.mp4'): split(str(tmp_path/'c'), str(tmp_path/'x.json'))
    split(str(tmp_path/'c'), str(tmp_path/'x.json'), remap_labels='7:0')


@pytest.mark.parametrize('text,said', [('', 'not valid JSON'), ('[]', 'three lists'), ('{"train": "a"}', 'three lists'),
    ('{"train": ["a.mp4", "a.mp4"], "val": [], "test": []}', 'listed twice: '),
    ('{"train": ["holiday.mp4"], "val": [], "test": []}', 'names do not parse: holiday.mp4')])
def test_bad_json(tmp_path, text, said):
    (tmp_path/'s.json').write_text(text)
    with pytest.raises(RpaError, match=said): load_split(tmp_path/'s.json')


def test_manifest_may_not_lead_out_of_its_folder(clips, tmp_path):
    edit(clips, lambda df: df.__setitem__('file', ['../'+f for f in df.file]))
    with pytest.raises(RpaError, match='must stay inside'): split(str(clips), str(tmp_path/'x.json'))


def test_clip_no_longer_listed(clips, made):
    df = read_manifest(clips)
    write_manifest(df[df.file!=one_of(made, 'train')], clips)
    with pytest.raises(RpaError, match='1 clips of the split are not listed'): load_split(made.path)


def test_empty_and_missing_folder(tmp_path):
    (tmp_path/'empty').mkdir()
    for folder in ('empty', 'nowhere'):
        with pytest.raises(RpaError, match=folder): split(str(tmp_path/folder), str(tmp_path/'x.json'))


def test_a_label_that_a_part_lacks_is_named(tmp_path):
    made = split(str(tree(tmp_path/'c', {f'{i:02d}AB':[int(i==0)] for i in range(4)})), str(tmp_path/'s.json'))
    assert sum('label 1 (heel)' in w for w in made.warnings)>=1, made.warnings


@pytest.mark.parametrize('n,sizes,said', [(1, (1,0,0), 'none in val'), (2, (1,1,0), 'none in test'), (3, (2,1,0), 'none in test')])
def test_few_runners(tmp_path, capsys, n, sizes, said):
    tree(tmp_path/'c', {f'{i:02d}AB':[0,1] for i in range(n)})
    made = split(str(tmp_path/'c'), str(tmp_path/'s.json'))
    assert tuple(made.parts[p].runner.nunique() for p in PARTS)==sizes
    assert any(said in w for w in made.warnings) and f'warning: {n} runner' in capsys.readouterr().out
    assert json.loads(made.path.read_text())['warnings']==made.warnings
    with pytest.raises(RpaError, match='every part has clips'): load_split(made.path)
    load_split(made.path, needs=PARTS[:sum(s>0 for s in sizes)])


def test_folds_need_runners(clips, tmp_path):
    df = read_clips(clips)
    assert len(grouped_folds(df, 12))==12
    assert [list(a['val'].file) for a in grouped_folds(df, 3)]==[list(a['val'].file) for a in grouped_folds(df.sample(frac=1, random_state=0), 3)]
    one = read_clips(tree(tmp_path/'one', {'01AB':[0]}))
    with pytest.raises(RpaError, match='record more runners'): grouped_folds(one, 2)


# buckets

def fill(folder, address):
    "Copy a folder into an in-process bucket"
    fs = fsspec.filesystem('memory')
    for p in Path(folder).iterdir():
        if p.is_file(): fs.pipe_file(f"{address.removeprefix('memory:/')}/{p.name}", p.read_bytes())


@pytest.fixture
def bucket():
    fs = fsspec.filesystem('memory')
    yield 'memory://bkt'
    fs.rm('/bkt', recursive=True)


def augmented_files(made, versions): return [replace(ClipName.parse(f), version=v).file for f in made.parts['train'].file for v in range(versions)]


def fill_augmented(made, bucket, versions, skip=0):
    fs = fsspec.filesystem('memory')
    for f in augmented_files(made, versions)[skip:]: fs.pipe_file(f'/bkt/augmented/{f}', f.encode())


def test_split_of_a_bucket(clips, made, bucket, tmp_path):
    fill(clips, f'{bucket}/raw')
    there = split(f'{bucket}/raw/', str(tmp_path/'b.json'))
    d = json.loads(there.path.read_text())
    assert d['train'][0].startswith('memory://bkt/raw/') and d['fingerprint']==json.loads(made.path.read_text())['fingerprint']
    assert list(load_split(there.path)['test'].path)==d['test']
    fsspec.filesystem('memory').rm(d['test'][0].removeprefix('memory:/'))
    with pytest.raises(RpaError, match='files are there'): load_split(there.path)


def test_augmented_split_of_a_bucket(clips, made, bucket, tmp_path):
    fill(clips, f'{bucket}/raw')
    fill_augmented(made, bucket, 3)
    aug = augmented_split(str(made.path), bucket, str(tmp_path/'aug.json'), versions=3, strict=True)
    d = json.loads(aug.path.read_text())
    assert all(p.startswith('memory://bkt/augmented/') for p in d['train']) and all(p.startswith('memory://bkt/raw/') for p in d['val']+d['test'])
    assert (d['metadata']['coverage'], len(d['train'])) == (1., 3*32)
    assert {p:len(r) for p,r in load_split(aug.path).items()}==dict(train=96, val=8, test=8)


def test_augmented_split_on_another_machine(clips, made, bucket, tmp_path):
    "Only the JSON and the bucket are there, as on a training server"
    fill(clips, f'{bucket}/raw')
    fill_augmented(made, bucket, 2)
    shutil.rmtree(clips)
    augmented_split(str(made.path), bucket, str(tmp_path/'aug.json'), versions=2)
    assert len(load_split(tmp_path/'aug.json')['train'])==64


def test_augmented_split_says_what_is_missing(clips, made, bucket, tmp_path, capsys):
    fill(clips, f'{bucket}/raw')
    with pytest.raises(RpaError, match='bkt/augmented'): augmented_split(str(made.path), bucket, str(tmp_path/'aug.json'), versions=2)
    fill_augmented(made, bucket, 2, skip=3)
    with pytest.raises(RpaError, match='61 of 64 augmented clips are there'):
        augmented_split(str(made.path), bucket, str(tmp_path/'aug.json'), versions=2, strict=True)
    assert not (tmp_path/'aug.json').exists()
    d = json.loads(augmented_split(str(made.path), bucket, str(tmp_path/'aug.json'), versions=2).path.read_text())
    assert (sum(d['metadata']['missing'].values()), d['metadata']['expected'], d['metadata']['found'])==(3, 64, 61)
    assert '61 of 64' in capsys.readouterr().out


def test_raw_clips_of_the_bucket_must_be_those_that_were_split(clips, made, bucket, tmp_path):
    process_again(clips, made)
    fill(clips, f'{bucket}/raw')
    fill_augmented(made, bucket, 1)
    shutil.rmtree(clips)
    tree(clips, twelve())
    with pytest.raises(RpaError, match='1 raw clips in the bucket are not those that were split'):
        augmented_split(str(made.path), bucket, str(tmp_path/'aug.json'), versions=1)


def test_augmented_copy_of_a_test_clip_in_train(clips, made, tmp_path):
    shutil.copytree(clips, tmp_path/'b'/'raw')
    (tmp_path/'b'/'augmented').mkdir()
    stray = replace(ClipName.parse(one_of(made, 'test')), version=0).file
    for f in [*augmented_files(made, 1), stray]: (tmp_path/'b'/'augmented'/f).write_text(f)
    aug = augmented_split(str(made.path), str(tmp_path/'b'), str(tmp_path/'aug.json'), versions=1)
    d = json.loads(aug.path.read_text())
    assert f'b/augmented/{stray}' not in d['train']
    d['train'].append(f'b/augmented/{stray}')
    aug.path.write_text(json.dumps(d))
    with pytest.raises(RpaError, match='its original .* is in val or test'): load_split(aug.path)


# the command

def test_command(clips, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['split', '--input-dir', 'clips', '--output', 'd.json', '--train_ratio', '0.6', '--test-ratio=0.25', '--remap-labels', '2:0'])==0
    assert 'next: rpa augment' in capsys.readouterr().out
    assert main(['stats', '--input-dir', 'd.json'])==0
    assert main(['stats', '--input-dir', 'clips'])==0
    assert 'heel' in capsys.readouterr().out
    assert main(['split', '--input-dir', 'clips', '--output', 'd.json', '--train-ratio', '0.9'])==1
    assert 'sum 1 ± .001' in capsys.readouterr().err
    assert main(['split', '--output', 'd.json'])==2


def test_statistics_count(clips, made):
    s = stats(str(made.path))
    assert (s.label.clips.sum(), s.runner.clips.sum(), list(s.camera.index), s.part.clips.sum())==(48, 48, ['CAM1', 'CAM2'], 48)
    assert list(s.runner.laps.unique())==[2]


def test_other_labels_bring_their_names(tmp_path):
    "A column `label_name` in clips.csv names labels that are not foot strikes, down to the model's outputs"
    from rpa.train import read_data
    from rpa.video import write_video
    rng, rows = np.random.default_rng(0), []
    for i in range(12):
        name = f'match{i//2}_{i%2}.mp4'
        write_video(tmp_path/name, rng.integers(0, 255, (4, 16, 16), np.uint8), 30)
        rows.append(dict(file=name, sha256=sha256(tmp_path/name), source=f'match{i//2}', source_sha256='', runner=f'match{i//2}', run='', camera='', lap='', track=0,
                         clip=i, label=i%2*5, label_name=('no play', 'play')[i%2], start_s=0., end_s=1., fps='30/1', frames=4, settings=''))
    write_manifest(rows, tmp_path)
    made = split(str(tmp_path), str(tmp_path/'split.json'), .5, .2, .3)
    assert not made.audit.failed and set(load_split(tmp_path/'split.json')['train'].target)=={0, 1}
    assert read_data(tmp_path/'split.json').labels.labels=={0:'no play', 5:'play'}
    assert '5 play' in str(tabulate(read_clips(str(tmp_path))))
    plot_split(made.parts)
