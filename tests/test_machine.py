"The largest batch that fits, and several processes that learn as one: a full memory, another one at the next start, shares that are unequal"
import hashlib, os, socket, subprocess, sys
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from rpa.core import LabelMap, RpaError, read_json
from rpa.clips import toy_clips
from rpa.machine import free_memory, out_of_memory
from rpa.models import fresh_model, load_bundle, save_network
from rpa.split import split
from rpa.train import checkpoints, train


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    root = tmp_path_factory.mktemp('machine')
    split(str(toy_clips(root/'clips', runners=8, clips=5, side=32)), str(root/'split.json'), .5, .25, .25)
    for name,kw in dict(micro={}, two=dict(num_hidden_layers=1)).items():
        net = fresh_model(LabelMap({0:'forefoot', 1:'heel'}), **dict(image_size=32, hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96, initializer_range=.2)|kw)
        (root/name).mkdir()
        save_network(net, root/name, fold=False)
    return root


def run(toys, out, **kw):
    return train(str(toys/'split.json'), str(out), **dict(model=str(toys/'micro'), epochs=2, lr=1e-3, precision='fp32', workers=1, threads=1, no_progress=True)|kw)


def memory_for(monkeypatch, most):
    "A graphics card, or a processor, whose memory is full with more clips than `most`"
    import rpa.machine
    def step(model, n, extra):
        if n>most: raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
    monkeypatch.setattr(rpa.machine, '_step', step)


def test_the_largest_batch_is_found_and_kept(toys, tmp_path, monkeypatch, capsys):
    memory_for(monkeypatch, 7)
    done = run(toys, tmp_path/'out', find_batch_size=True, epochs=1)
    assert 'find-batch-size: 7 clips a step are the most that fit' in capsys.readouterr().out
    assert read_json(tmp_path/'out'/'train_config.json')['settings']['batch_size']==load_bundle(done.bundle).training['batch_size']==7
    memory_for(monkeypatch, 2) # less is free today
    (tmp_path/'out'/'curves.png').unlink()
    run(toys, tmp_path/'out', find_batch_size=True, epochs=1)
    assert 'find-batch-size' not in capsys.readouterr().out
    with pytest.raises(RpaError, match='find_batch_size was True, is False'): run(toys, tmp_path/'out', epochs=1)
    run(toys, tmp_path/'out', find_batch_size=True, epochs=1, restart=True)
    assert read_json(tmp_path/'out'/'train_config.json')['settings']['batch_size']==2
    memory_for(monkeypatch, 0)
    with pytest.raises(RpaError, match='not even one clip fits'): run(toys, tmp_path/'none', find_batch_size=True)


@pytest.mark.slow
def test_finding_changes_nothing(toys, tmp_path, capsys):
    "All clips fit: the same training as with that batch given"
    found = run(toys, tmp_path/'found', find_batch_size=True)
    assert 'find-batch-size: 20 clips a step are the most that there are to learn from' in capsys.readouterr().out
    given = run(toys, tmp_path/'given', batch_size=20)
    assert (found.bundle/'model.safetensors').read_bytes()==(given.bundle/'model.safetensors').read_bytes()


@pytest.mark.parametrize('e,want', [(MemoryError(), True), (torch.OutOfMemoryError('CUDA out of memory.'), True), (RuntimeError('CUDA out of memory. Tried'), True),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True), (RuntimeError('shapes differ'), False), (ValueError('out'), False)], ids=repr)
def test_what_a_full_memory_looks_like(e, want): assert out_of_memory(e)==want


def test_free_memory(): assert 10**7<free_memory()<10**14


def launched(toys, out, *words, how=('torch.distributed.run',), n=2, **kw):
    "Two processes, as accelerate launch --multi_gpu or torchrun start them"
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    start = ['-m', 'torch.distributed.run', '--nproc-per-node', str(n)] if how[0]!='accelerate' else ['-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', str(n), '--num_machines', '1',
        '--mixed_precision', 'no', '--dynamo_backend', 'no']
    port_flag = ['--master-port' if how[0]!='accelerate' else '--main_process_port', str(port)]
    args = ['-m', 'rpa.pipelines', 'train', '--split-json', str(toys/'split.json'), '--output-dir', str(out), '--model', str(toys/'micro'), '--lr', '1e-3', '--precision', 'fp32', '--workers', '1', '--threads', '1', *words]
    return subprocess.Popen([sys.executable, *start, *port_flag, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ|dict(OMP_NUM_THREADS='1'))


def losses(out): return pd.read_csv(out/'train_log.csv')[['train_loss', 'train_accuracy', 'valid_loss', 'accuracy']]


def far(a, b):
    a, b = (load_file(checkpoints(p)[0][-1]/'model.safetensors') for p in (a, b))
    return max(float((a[k]-b[k]).abs().max()) for k in a)


@pytest.mark.slow
@pytest.mark.parametrize('how', ['torchrun', 'accelerate'])
@pytest.mark.parametrize('words', [(), ('--accumulate', '2', '--balance', 'weights', '--label-smoothing', '.1')], ids=['plain', 'accumulated'])
def test_two_processes_are_one_with_twice_the_batch(toys, tmp_path, how, words):
    "20 clips in batches of 3+3: the last has 1+1; losses of all epochs, and the weights after them"
    if how=='accelerate' and words: pytest.skip('one way will do')
    p = launched(toys, tmp_path/'two', '--batch-size', '3', '--epochs', '3', *words, how=(how,))
    said = p.communicate(timeout=300)[0]
    assert p.returncode==0 and said.count('best epoch')==1 and '2 processes learn together' in said, said
    kw = dict(accumulate=2, balance='weights', label_smoothing=.1) if words else {}
    run(toys, tmp_path/'one', batch_size=6, epochs=3, **kw)
    a, b = losses(tmp_path/'one'), losses(tmp_path/'two')
    assert (a-b).abs().max().max()<1e-6, (a, b)
    assert far(tmp_path/'one', tmp_path/'two')<1e-4 # AdamW takes whole steps of a gradient that is nearly nothing
    assert load_bundle(tmp_path/'two'/'best_model').training['processes']==2


@pytest.mark.slow
def test_two_processes_with_less_than_a_clip_each_and_one_killed(toys, tmp_path):
    "Batches of 9+9 leave 1+1 of 20; killed and started again, all is the same; one process is refused"
    words = ('--batch-size', '9', '--epochs', '4', '--save-steps', '1')
    launched(toys, tmp_path/'whole', *words).communicate(timeout=300)
    p = launched(toys, tmp_path/'cut', *words)
    while p.poll() is None and not (tmp_path/'cut'/'checkpoint-epoch-2').exists(): pass
    p.terminate()
    p.communicate()
    p = launched(toys, tmp_path/'cut', *words)
    said = p.communicate(timeout=300)[0]
    assert p.returncode==0, said
    digest = lambda d: {f.name:hashlib.sha256(f.read_bytes()).hexdigest() for f in (d/'best_model').iterdir()}
    assert digest(tmp_path/'whole')==digest(tmp_path/'cut')
    with pytest.raises(RpaError, match='processes was 2, is 1'): run(toys, tmp_path/'cut', batch_size=9, epochs=4)
