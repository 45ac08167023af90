"What a lesson in the notebook cannot show: kills, full disks, several processes, speed of import"
import os, signal, subprocess, sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rpa.core import (CLIP_COLUMNS, ClipName, Failures, LabelMap, LapName, RpaError, as_fps, atomic_dir, atomic_path, read_json,
                      read_manifest, safe_join, seed_everything, settings_hash, stable_seed, timecode, write_json,
                      write_manifest, write_text)


def run(code, **kw):
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, **kw)


def test_import_is_light():
    heavy = {'numpy', 'pandas', 'torch', 'cv2', 'av', 'matplotlib', 'fastcore', 'tqdm', 'transformers', 'fastai'}
    out = run('import sys, rpa.core; print(*{m.split(".")[0] for m in sys.modules})').stdout.split()
    assert 'rpa' in out and not heavy & set(out)


@pytest.fixture
def tmpfs(tmp_path):
    "A disk of 256 kB"
    d = tmp_path/'disk'
    d.mkdir()
    if os.name!='posix' or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', d], capture_output=True).returncode:
        pytest.skip('mounting a small disk needs root')
    yield d
    subprocess.run(['umount', d], check=True)


def test_full_disk_is_explained_and_leaves_nothing(tmpfs):
    write_text(tmpfs/'old.txt', 'old')
    with pytest.raises(RpaError, match=r'cannot write .*big.bin: the disk is full: free some space'):
        with atomic_path(tmpfs/'big.bin') as p: p.write_bytes(b'x'*1_000_000)
    with pytest.raises(RpaError, match='old.txt: the disk is full'): write_text(tmpfs/'old.txt', 'x'*1_000_000)
    assert [p.name for p in tmpfs.iterdir()]==['old.txt'] and (tmpfs/'old.txt').read_text()=='old'


def test_read_only_disk_is_explained(tmpfs):
    subprocess.run(['mount', '-o', 'remount,ro', tmpfs], check=True)
    with pytest.raises(RpaError, match='the file system is read-only: choose another output folder'): write_text(tmpfs/'a', 'a')
    with pytest.raises(RpaError, match='the file system is read-only'): write_text(tmpfs/'new'/'folder'/'a', 'a')


@pytest.mark.skipif(os.name!='posix' or os.geteuid()==0, reason='root may write everywhere')
def test_forbidden_folder_is_explained(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(RpaError, match='writing there is not allowed'): write_text(tmp_path/'a', 'a')


def test_errors_of_other_files_keep_their_own_words(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        with atomic_path(tmp_path/'a') as p: p.write_bytes(Path('/nowhere/at/all').read_bytes())


def test_killed_writer_leaves_nothing_visible_and_the_next_sweeps(tmp_path):
    code = f'''
import time
from rpa.core import atomic_path, atomic_dir
with atomic_path(r'{tmp_path}/a.txt') as p, atomic_dir(r'{tmp_path}/model') as d:
    p.write_text('half'); (d/'w').write_text('half'); print('ready', flush=True); time.sleep(60)'''
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline().strip()=='ready'
    os.kill(p.pid, signal.SIGKILL)
    p.wait()
    assert [q.name for q in tmp_path.iterdir()]==['.partial'] and len(list((tmp_path/'.partial').iterdir()))==2
    write_text(tmp_path/'a.txt', 'whole')
    assert [q.name for q in tmp_path.iterdir()]==['a.txt'] and (tmp_path/'a.txt').read_text()=='whole'


def test_living_writer_is_not_swept(tmp_path):
    with atomic_path(tmp_path/'a.txt') as p:
        p.write_text('a')
        write_text(tmp_path/'b.txt', 'b')
        done = run(f"from rpa.core import write_text; write_text(r'{tmp_path}/c.txt', 'c')")
        assert done.returncode==0, done.stderr
    assert sorted(q.name for q in tmp_path.iterdir())==['a.txt', 'b.txt', 'c.txt']


def test_many_writers_of_one_folder(tmp_path):
    code = f'''
from rpa.core import write_text
for i in range(300): write_text(rf'{tmp_path}/out/{{i%7}}.txt', 'x'*1000)'''
    ps = [subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [p.communicate()[1] for p in ps]
    assert not any(errors), errors
    assert all((tmp_path/'out'/f'{i}.txt').read_text()=='x'*1000 for i in range(7))


def test_a_folder_is_always_there_while_it_is_replaced(tmp_path):
    code = f'''
from rpa.core import atomic_dir
for i in range(200):
    with atomic_dir(r'{tmp_path}/m') as d: (d/'w').write_text('x'*100)'''
    with atomic_dir(tmp_path/'m') as d: (d/'w').write_text('x'*100)
    p, seen = subprocess.Popen([sys.executable, '-c', code]), []
    while p.poll() is None: seen.append((tmp_path/'m').is_dir())
    assert p.returncode==0 and len(seen)>100 and (all(seen) or sys.platform!='linux')
    assert [q.name for q in tmp_path.iterdir()]==['m']


def test_written_files_have_ordinary_permissions(tmp_path):
    def private(p):
        p.unlink()
        os.close(os.open(p, os.O_CREAT, 0o600))
    with atomic_path(tmp_path/'a') as p: private(p)
    (tmp_path/'b').touch()
    assert (tmp_path/'a').stat().st_mode==(tmp_path/'b').stat().st_mode


@pytest.mark.parametrize('name', ['x.mp4', '04HN_RUN2_CAM1_lap_006_CUT_001.mp4', '04HN_RUN2_CAM1_lap_006_CUT_001_001.avi',
    '04HN_RUN2_CAM1_lap_006_CUT_001_heel.mp4', '04HN_RUN2_CAM1_lap_006_CUT_001_v1_.mp4', '', '_RUN2_CAM1_lap_006_CUT_001_001.mp4'])
def test_bad_clip_names(name):
    with pytest.raises(RpaError, match='a clip is named'): ClipName.parse(name)


@pytest.mark.parametrize('path', ['lap_006_000.mp4', '04HN_RUN2/clips/lap_006_000.mp4', 'clips/lap_006_000.mp4', '',
    '04HN_RUN2_CAM1/clips/lap_006.mp4', '04HN_RUN2_CAM1/clips/lap_x_000.mp4', '04HN_RUN2_CAM1/extra/clips2/lap_006_000.mp4'])
def test_bad_lap_names(path):
    with pytest.raises(RpaError, match='a lap lies at'): LapName.parse(path)


def test_names_go_round():
    for runner in ('04HN', '007', 'NA', 'A-b.c'):
        lap = LapName(runner, 'RUN2', 'CAM1', 'lap_006', 1)
        assert LapName.parse(lap.path)==lap
        for version in (None, 0, 15, 1234):
            n = ClipName(runner, 'RUN2', 'CAM1', 'lap_006', 12, 1, version)
            assert ClipName.parse('/some/folder/'+n.file)==n and n.source==lap.path and ClipName.parse(n.base).version is None


def row(i=0, **kw):
    base = dict(file=f'{i}.mp4', sha256='a'*64, source='lap.mp4', source_sha256='b'*64, runner='007', run='RUN1', camera='CAM1',
        lap='lap_001', track=1, clip=i, label=1, side='', start_s=0.1, end_s=0.1+16/60, fps='60/1', frames=16, settings='c'*16)
    return base | kw


def test_manifest_keeps_types_and_bytes(tmp_path):
    rows = [row(2, runner='NA', label=None, side='L'), row(0), row(1, start_s=np.float32(.5), label=np.int64(0), extra='x')]
    first = write_manifest(rows, tmp_path).read_bytes()
    df = read_manifest(tmp_path, check_files=False)
    assert list(df.columns)==CLIP_COLUMNS+['extra'] and list(df.runner)==['007', '007', 'NA'] and list(df.side)==['', '', 'L']
    assert df.label[:2].tolist()==[1, 0] and df.label[2] is pd.NA and str(df.version.dtype)=='Int64'
    assert write_manifest(df, tmp_path).read_bytes()==first
    assert write_manifest(df[::-1].to_dict('records'), tmp_path).read_bytes()==first
    assert b'\r' not in first


def test_bad_manifests(tmp_path):
    def broken(text, match, **kw):
        (tmp_path/'clips.csv').write_text(text)
        with pytest.raises(RpaError, match=match): read_manifest(tmp_path, **kw)
    write_manifest([row()], tmp_path)
    good = (tmp_path/'clips.csv').read_text()
    broken('', 'clips.csv: not a readable CSV table')
    broken('a,b\n1,2\n', 'columns missing: file, sha256')
    broken(good.replace(',1,,', ',heel,,'), "column label needs a whole number or nothing; got 'heel' for '0.mp4'")
    broken(good.replace(',16,', ',16.5,'), "column frames needs a whole number or nothing; got '16.5'")
    broken(good+good.splitlines()[1]+'\n', "'0.mp4' is listed twice")
    broken(good, '0.mp4: listed in clips.csv but not there')
    for bad in ('/etc/passwd', '../0.mp4', 'a/../../0.mp4'): broken(good.replace('0.mp4', bad, 1), 'must stay inside')
    (tmp_path/'clips.csv').write_text(good)
    failed = Failures()
    assert len(read_manifest(tmp_path, failed))==0 and len(failed)==1
    assert failed.save(tmp_path).read_text().startswith('file,stage,reason\n0.mp4,manifest,')
    assert Failures().save(tmp_path) is None and not (tmp_path/'failed.csv').exists()
    with pytest.raises(RpaError, match='a folder of clips is needed'): read_manifest(tmp_path/'none')
    with pytest.raises(RpaError, match='every clip needs sha256'): write_manifest([{k:v for k,v in row().items() if k!='sha256'}], tmp_path)
    with pytest.raises(RpaError, match='listed twice'): write_manifest([row(), row()], tmp_path)


def test_empty_manifest(tmp_path):
    write_manifest([], tmp_path)
    assert len(read_manifest(tmp_path))==0


def test_bad_label_maps(tmp_path):
    for d in ({}, [], {'idx_to_label':{'1':'a'}, 'num_classes':1}, {'idx_to_label':{'0':'a'}, 'num_classes':2}):
        write_json(tmp_path/'l.json', d)
        with pytest.raises(RpaError, match='must hold idx_to_label'): LabelMap.load(tmp_path/'l.json')
    write_json(tmp_path/'l.json', dict(idx_to_label={'0':'forefoot', '1':'heel'}, label_to_idx={}, num_classes=2))
    assert LabelMap.load(tmp_path/'l.json').index(1)==1


def test_json_refuses_nan_and_names_the_file(tmp_path):
    with pytest.raises(RpaError, match='s.json cannot hold this'): write_json(tmp_path/'s.json', dict(loss=float('nan')))
    with pytest.raises(RpaError, match='gone.json: there is no such file'): read_json(tmp_path/'gone.json')
    (tmp_path/'b.json').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(RpaError, match='b.json: not a JSON text file'): read_json(tmp_path/'b.json')
    write_json(tmp_path/'n.json', dict(a=np.float32(.5), b=np.arange(2), c={2, 1}))
    assert read_json(tmp_path/'n.json')==dict(a=.5, b=[0, 1], c=[1, 2])


def test_rates():
    assert [str(as_fps(x)) for x in (23.976, 59.94, 119.88, 30, '25', np.float32(30))]==['24000/1001', '60000/1001',
        '120000/1001', '30', '25', '30']
    for bad in (0, -1, 'fast', None, float('nan'), float('inf')):
        with pytest.raises(RpaError, match='as_fps'): as_fps(bad)
    with pytest.raises(RpaError, match='≥ 0 s'): timecode(-1)


def test_seeds_do_not_depend_on_the_process():
    code = 'from rpa.core import stable_seed, settings_hash; print(stable_seed("a.mp4", 3), settings_hash(dict(a=1, b=[2.5])))'
    out = {run(code, env=os.environ | {'PYTHONHASHSEED':str(i)}).stdout for i in range(2)}
    assert out=={f'{stable_seed("a.mp4", 3)} {settings_hash(dict(b=[2.5], a=1))}\n'}
    seed_everything(3)
    a = np.random.rand()
    seed_everything(3)
    assert a==np.random.rand()


def test_a_link_put_there_by_a_person_is_followed(tmp_path):
    (tmp_path/'elsewhere').mkdir()
    (tmp_path/'data').mkdir()
    (tmp_path/'data'/'link').symlink_to(tmp_path/'elsewhere')
    assert safe_join(tmp_path/'data', 'link/a.mp4')==tmp_path/'data'/'link'/'a.mp4'
