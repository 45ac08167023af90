"Paths over the disk and in-process file systems; no network"
import hashlib, pickle, subprocess, sys

import fsspec
import pytest
from rpa.core import Failures, RpaError
from rpa.storage import StorePath, store
from rpa.video import probe, read_clip, write_video


@pytest.fixture(params=['local', 'memory'])
def folder(request, tmp_path):
    yield store(tmp_path/'data') if request.param=='local' else store('memory://bucket/data')
    fsspec.filesystem('memory').store.clear()


def test_import_is_light():
    code = 'import sys, rpa.storage; print(*{m.split(".")[0] for m in sys.modules})'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.split()
    assert 'rpa' in out and not {'fsspec', 'gcsfs', 's3fs', 'numpy', 'pandas', 'torch', 'aiohttp'} & set(out)


def test_same_everywhere(folder, tmp_path):
    a = folder/'raw/a.mp4'
    assert not a.exists() and a.write_bytes(b'one')==a and a.exists() and a.parent.exists()
    assert a.read_bytes()==b'one' and a.sha256()==hashlib.sha256(b'one').hexdigest()
    with (folder/'notes.txt').open('w') as f: f.write('Läufer\n')
    with (folder/'notes.txt').open('r') as f: assert f.read()=='Läufer\n'
    assert (folder/'notes.txt').read_bytes()=='Läufer\n'.encode()
    assert [str(p) for p in folder.ls(recursive=True)]==[f'{folder}/notes.txt', f'{folder}/raw/a.mp4']
    assert [p.name for p in folder.ls()]==['notes.txt'] and (folder/'raw').ls('*.mov')==[]
    (tmp_path/'src.bin').write_bytes(b'two')
    assert (folder/'raw'/'b.bin').upload(tmp_path/'src.bin').local(tmp_path/'cache').read_bytes()==b'two'
    assert pickle.loads(pickle.dumps(a))==a and store(a) is a and store(str(a))==a and len({a, store(str(a))})==1


def test_failed_write_keeps_the_old_file(folder):
    a = (folder/'a').write_bytes(b'old')
    for mode in ('wb', 'w'):
        with pytest.raises(ZeroDivisionError):
            with a.open(mode) as f:
                f.write(b'new' if 'b' in mode else 'new')
                1/0
    assert a.read_bytes()==b'old' and len(folder.ls(recursive=True))==1


def test_errors_name_the_path(folder):
    with pytest.raises(RpaError, match='gone: there is no such file'): (folder/'gone').read_bytes()
    with pytest.raises(RpaError, match='mode must be r, rb, w or wb'): (folder/'a').open('a')
    for bad in ('../a', '/etc/passwd', 'a/../../b', ''):
        with pytest.raises(RpaError, match='must stay inside'): folder/bad


def test_missing_folder(folder):
    with pytest.raises(RpaError, match='none: there is no such file'): (folder/'none').ls()


def test_errors_about_other_files_keep_their_own_words(folder):
    (folder/'a').write_bytes(b'x')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        with (folder/'a').open(): open('/nowhere/at/all')


def test_names_out_of_the_listing_are_refused(tmp_path):
    fs = fsspec.filesystem('memory')
    good = store('memory://bucket/raw')/'a.mp4'
    good.write_bytes(b'x')
    for name in ('/bucket/raw/../b.mp4', '/bucket/raw/x/../../../c.mp4'): fs.store[name] = fs.store['/bucket/raw/a.mp4']
    (store('memory://bucket/raw-private')/'d.mp4').write_bytes(b'x')
    failed = Failures()
    assert good.parent.ls('*.mp4', recursive=True, failures=failed)==[good] and len(failed)==2
    with pytest.raises(RpaError, match='must stay inside'): good.parent.ls('*.mp4', recursive=True)
    fs.store.clear()


@pytest.mark.parametrize('bad', ['http://h/a', 'https://h/a', 'ftp://h/a', 'gs://', 's3:///a', 'ssh://h/a', 'zip://a'])
def test_other_addresses_are_refused(bad):
    with pytest.raises(RpaError, match='store: '): store(bad)


def test_addresses():
    assert store('gcs://b/x/')==store('gs://b/x')==StorePath('gs', 'b/x') and str(store('file:///tmp/a'))=='/tmp/a'
    assert str(store('s3://b/x')/'y/z.mp4')=='s3://b/x/y/z.mp4'


@pytest.mark.parametrize('protocol,package', [('gs', 'gcsfs'), ('s3', 's3fs')])
def test_missing_package_is_named(monkeypatch, protocol, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RpaError, match=f'needs the package {package}: pip install {package}'):
        store(f'{protocol}://b/a').read_bytes()


def test_a_remote_film_is_read_from_the_cache(tmp_path, monkeypatch):
    import numpy as np
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    film = write_video(tmp_path/'a.mp4', np.full((4, 32, 32), 90, np.uint8), 30)
    far = (store('memory://bucket')/'a.mp4').upload(film)
    assert probe(far).frames==4 and read_clip(far).shape==(4, 32, 32)
    assert len(list((tmp_path/'cache').rglob('*.mp4')))==1
    with pytest.raises(RpaError, match='no such file'): probe(store('memory://bucket')/'b.mp4')
    fsspec.filesystem('memory').store.clear()


def test_store_that_does_not_answer(monkeypatch):
    "Any failure of the file system becomes one sentence with the path"
    fs = fsspec.filesystem('memory', use_listings_cache=False)
    def down(*a, **kw): raise ConnectionError('connection refused')
    monkeypatch.setattr(fs, 'open', down)
    with pytest.raises(RpaError, match=r'memory://bucket/a: the store does not answer \(ConnectionError: connection refused\)'):
        store('memory://bucket/a').read_bytes()
