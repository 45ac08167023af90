"The `rpa` command from outside: help, flags, exit statuses, and notebooks run in a checkout of their own"
import json, os, signal, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace
import pytest
import rpa
from rpa import pipelines
from rpa.core import RpaError, read_json
from rpa.pipelines import VERBS, demo, main, run

HEAVY = 'torch torchvision transformers fastai cv2 av pandas scipy sklearn papermill matplotlib ai_edge_litert joblib'

# Flags and defaults that the document promises
DOCUMENT = {
    'process': {'--input': ..., '--output-dir': ..., '--roi-height-ratio': .40, '--min-roi-size': 128,
                '--height-smoothing-window': None, '--min-frames': 20, '--slice-len': 16, '--stride': 16,
                '--min-speed-ratio': .5, '--top-n-fastest': 2, '--min-ankle-variance': 400},
    'batch': {'--input-dir': ..., '--output-dir': ..., '--workers': None},
    'split': {'--input-dir': ..., '--output': None, '--train-ratio': .7, '--val-ratio': .15, '--test-ratio': .15,
              '--seed': 42, '--remap-labels': None, '--no-stratify': False},
    'augment': {'--input': ..., '--output': ..., '--versions': 25, '--workers': 1, '--checkpoint': None},
    'augmented-split': {'--original-split': ..., '--bucket': None, '--output': None, '--versions': 25, '--strict': False},
    'train': {'--split-json': ..., '--output-dir': None, '--epochs': 10, '--batch-size': 4, '--lr': 5e-5,
              '--remap-labels': None, '--no-augmentation': False, '--no-grayscale': False},
    'infer': {'--model-dir': ..., '--video': None, '--video-dir': None, '--output': None},
}


def shell(*argv, cwd=None, **kw): # The command in a process of its own
    return subprocess.run([sys.executable, '-c', 'import sys; from rpa.pipelines import main; sys.exit(main())', *argv],
                          capture_output=True, text=True, cwd=cwd, timeout=300, **kw)


@pytest.mark.parametrize('verb', DOCUMENT)
def test_documented_flags(verb):
    _, params, _ = pipelines._read_verb(verb)
    have = {pipelines._flag(p): p.default for p in params}
    assert set(DOCUMENT[verb]) <= set(have)
    for flag, default in DOCUMENT[verb].items():
        if default is not None: assert have[flag]==default, f'{verb} {flag} must have the default {default}, not {have[flag]}'


def test_help_loads_nothing_heavy():
    "torch & co. cannot even be imported here, and every help text still comes"
    program = f"""import sys
for m in {HEAVY.split()!r}: sys.modules[m] = None
from rpa.pipelines import VERBS, main
assert main(['--help'])==0
for v in VERBS: assert main([*v.split(), '--help'])==0
"""
    out = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert out.returncode==0, out.stderr
    overview = out.stdout.split('`rpa VERB --help`')[0]
    for verb in VERBS: assert sum(line.startswith(f'  {verb}  ') for line in overview.splitlines())==1
    assert 'default 0.7' in out.stdout


def test_installed_command():
    out = subprocess.run([Path(sys.executable).parent/'rpa', '--version'], capture_output=True, text=True)
    assert (out.returncode, out.stdout) == (0, f'rpa {rpa.__version__}\n')


@pytest.mark.parametrize('argv, status, said', [
    (['trian'], 2, "did you mean 'train'"), ([], 2, ''), (['split', '--input-dir', 'x', '--sed', '3'], 2, '--sed'),
    (['split'], 2, '--input-dir'), (['augment', '--input', 'x', '--output', 'y', '--versions', 'ten'], 2, "'ten'"),
    (['augmented_split', '--help'], 0, ''), (['--version'], 0, '')])
def test_command_line(argv, status, said, capsys):
    assert main(argv)==status
    assert said in capsys.readouterr().err


def outcome(monkeypatch, f): # Exit status when a verb's function is replaced
    monkeypatch.setattr(pipelines.importlib, 'import_module', lambda name: SimpleNamespace(stats=f))
    return main(['stats', '--input-dir', 'x'])


def test_exit_status(monkeypatch, capsys):
    def raising(e):
        def f(**_): raise e
        return f
    assert outcome(monkeypatch, lambda **_: None)==0
    assert outcome(monkeypatch, lambda **_: SimpleNamespace(failed=[]))==0
    assert outcome(monkeypatch, lambda **_: SimpleNamespace(failed=['a.mp4']))==1
    assert outcome(monkeypatch, raising(RpaError('stats: two words')))==1
    assert capsys.readouterr().err=='stats: two words\n'
    assert outcome(monkeypatch, raising(OSError(28, 'No space left on device', 'x')))==1
    assert 'No space left' in capsys.readouterr().err
    assert outcome(monkeypatch, raising(KeyboardInterrupt()))==130
    assert 'run the same command again to resume' in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError): outcome(monkeypatch, lambda **_: 1/0)


def test_dash_or_underscore(monkeypatch):
    seen = []
    monkeypatch.setattr(pipelines.importlib, 'import_module', lambda name: SimpleNamespace(split=lambda **kw: seen.append(kw)))
    a = ['split', '--input-dir', 'my_clips', '--train-ratio=0.6', '--remap-labels', '2:0', '--no-stratify']
    b = ['split', '--input_dir', 'my_clips', '--train_ratio=0.6', '--remap_labels', '2:0', '--no_stratify']
    assert main(a)==main(b)==0
    assert seen[0]==seen[1]
    assert (seen[0]['input_dir'], seen[0]['train_ratio'], seen[0]['no_stratify']) == ('my_clips', .6, True)


# ---- notebooks ----

def cell(source, tags=()): return dict(cell_type='code', id=str(abs(hash(source)))[:8], metadata=dict(tags=list(tags)) if tags else {},
                                       source=source, outputs=[], execution_count=None)
def text(source): return dict(cell_type='markdown', id=str(abs(hash(source)))[:8], metadata={}, source=source)


def write_notebook(path, *cells):
    kernel = dict(display_name='python3', language='python', name='python3')
    path.write_text(json.dumps(dict(cells=list(cells), metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))


JOB = '''import time
from pathlib import Path
from tqdm.auto import tqdm
from rpa.core import RpaError
'''
PARAMETERS = """src:str = '../runs/demo/raw' # folder to read
n:int = 2 # steps
flip:bool = False # mirror
"""
RUN = '''if n==13: raise RpaError('job: n must be lucky; got 13; pass another')
if n==14: raise ZeroDivisionError('unlucky')
for i in tqdm(range(n), desc='steps'): time.sleep(.5)
print('job saw', src, n, flip)
'''


@pytest.fixture
def checkout(tmp_path, monkeypatch): # A checkout with one job, and the caller standing in it
    (tmp_path/'nbs').mkdir()
    (tmp_path/'settings.ini').write_text('')
    write_notebook(tmp_path/'nbs'/'00_core.ipynb', text('# core'))
    write_notebook(tmp_path/'nbs'/'01_processing.ipynb', text('# processing'), cell(JOB), cell('#| slow\nraise ValueError("a slow lesson ran")'),
                   text('## Run'), cell(PARAMETERS, ['parameters']), cell(RUN))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_run_streams_and_keeps_a_copy(checkout):
    out = shell('run', '01_processing', '-p', 'n', '3', '-p', 'flip', 'yes', '-p', 'src', 'my/laps', cwd=checkout)
    assert out.returncode==0, out.stderr
    assert 'job saw ../my/laps 3 True' in out.stdout and 'Run' in out.stdout
    assert 'steps: 100%' in out.stderr # the job's own bar, as text
    copy = read_json(checkout/'runs'/'01_processing.ipynb')
    assert 'job saw ../my/laps 3 True' in json.dumps(copy)
    assert not list(checkout.glob('nbs/.*')) and not list(checkout.glob('runs/.*'))
    assert sorted(p.name for p in (checkout/'nbs').iterdir())==['00_core.ipynb', '01_processing.ipynb']


def test_run_refuses_before_it_starts(checkout):
    with pytest.raises(RpaError, match=r"no parameter 'm'; it has\n  src \(str.*\n  n \(int, 2\) steps\n  flip"): run('01', p=['m 3'.split()])
    with pytest.raises(RpaError, match="n must be int; got 'many'"): run('01', p={'n': 'many'})
    with pytest.raises(RpaError, match="flip must be bool; got 'maybe'"): run('01', p=[('flip', 'maybe')])
    with pytest.raises(RpaError, match='00_core is a page, not a job; jobs are 01_processing'): run('00_core')
    with pytest.raises(RpaError, match="did you mean '01_processing'"): run('01_procesing')
    assert not (checkout/'runs').exists()


def test_run_from_below_and_to_another_place(checkout, monkeypatch, capsys):
    (checkout/'deep'/'down').mkdir(parents=True)
    monkeypatch.chdir(checkout/'deep'/'down')
    done = run('processing', p={'n': 1, 'src': 'laps'}, output='copy.ipynb')
    assert done.path==checkout/'deep'/'down'/'copy.ipynb' and done.path.exists()
    assert 'job saw ../deep/down/laps 1 False' in capsys.readouterr().out


def test_run_that_fails_keeps_the_copy_and_says_why(checkout, capsys):
    assert main(['run', '01', '-p', 'n', '13'])==1
    err = capsys.readouterr().err
    assert err.startswith('job: n must be lucky; got 13; pass another\n') and 'runs/01_processing.ipynb' in err and 'Traceback' not in err
    assert main(['run', '01', '-p', 'n', '14'])==1
    assert "ZeroDivisionError('unlucky')" in capsys.readouterr().err
    assert 'unlucky' in (checkout/'runs'/'01_processing.ipynb').read_text()


def test_no_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rpa, '__file__', str(tmp_path/'site-packages'/'rpa'/'__init__.py'))
    with pytest.raises(RpaError, match='change into a checkout'): run('01')


def kernels(of): # Notebook processes started by one process, straight from /proc
    found = []
    for d in Path('/proc').glob('[0-9]*'):
        try: stat, args = (d/'stat').read_text(), (d/'cmdline').read_text()
        except OSError: continue
        if 'ipykernel_launcher' in args and int(stat.rsplit(')', 1)[1].split()[1])==of: found.append(d)
    return found


@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='looks for processes in /proc')
def test_ctrl_c_stops_the_notebook_too(checkout):
    argv = [sys.executable, '-c', 'import sys; from rpa.pipelines import main; sys.exit(main())', 'run', '01', '-p', 'n', '600']
    p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=checkout, start_new_session=True)
    while 'Run' not in p.stdout.readline(): assert p.poll() is None
    time.sleep(1)
    children = kernels(p.pid)
    assert len(children)==1
    os.killpg(p.pid, signal.SIGINT) # what a terminal sends
    _, err = p.communicate(timeout=60)
    assert p.returncode==130 and 'stopped; run the same command again to resume' in err and 'Traceback' not in err
    assert not any(c.exists() for c in children)
    assert not list((checkout/'runs').iterdir())
    assert all(f.suffix=='.ipynb' for f in (checkout/'nbs').iterdir())


STAGE = '''from pathlib import Path
import json
dst = Path(dst); dst.parent.mkdir(parents=True, exist_ok=True)
with open(Path(dst).parent/'log.txt', 'a') as f: f.write(f'{name} {seed}\\n')
dst.write_text(name)
if name=='05_infer':
    s = dict(n=40, n_groups=4, accuracy=.95, interval=[.81, 1.], majority=.5, abstained=.1, answered_accuracy=.99)
    (dst.parent/'scores.json').write_text(json.dumps(dict(clips=s, runners=s|dict(n=4, interval=None))))
'''


def test_demo_runs_the_chain_once(checkout, capsys):
    for name in pipelines.CHAIN:
        write_notebook(checkout/'nbs'/f'{name}.ipynb', text(f'# {name}'), text('## Run'),
                       cell(f"dst:str = '../runs/demo/{name}.txt' # file to write\nseed:int = 40 # seed", ['parameters']),
                       cell(f'name = {name!r}\n{STAGE}'))
    demo()
    first = capsys.readouterr().out
    log = checkout/'runs'/'demo'/'log.txt'
    assert log.read_text().split('\n')[:-1]==[f'{n} 40' for n in pipelines.CHAIN]
    assert 'Synthetic' in first and '0.81 to 1.00' in first and 'runs/demo/report.html' in first and '[5/5] 05_infer' in first
    assert sorted(p.stem for p in (checkout/'runs'/'demo'/'notebooks').glob('*.ipynb'))==list(pipelines.CHAIN)
    demo()
    assert capsys.readouterr().out.count('nothing has changed')==5
    assert len(log.read_text().splitlines())==5
    (checkout/'runs'/'demo'/'04_train.txt').write_text('changed by hand')
    demo()
    assert log.read_text().splitlines()[5:]==['04_train 40', '05_infer 40'] # the stage whose file changed, and all after it
    demo(seed=2)
    assert (checkout/'runs'/'demo-2'/'log.txt').read_text().splitlines()[0]=='01_processing 42'


@pytest.mark.parametrize('text,says', [('epochs: ten\n', 'epochs must be int'), ('epochs: true\n', 'epochs must be int'), ('- 3\n', 'lines of name: value'), ('epocs: 3\n', 'did you mean epochs?'),
                                       ('a: [\n', 'must be a YAML file'), ('no_progress: 1\n', 'no_progress must be bool')])
def test_config_that_does_not_fit(text, says, tmp_path, capsys):
    (tmp_path/'c.yaml').write_text(text)
    assert main(['train', '--split-json', 'x.json', '--config', str(tmp_path/'c.yaml')])==2 and says in capsys.readouterr().err


def test_flags_override_the_config(tmp_path, monkeypatch):
    "Also where a flag says what is the default anyway; what the file sets need not be given"
    got = {}
    monkeypatch.setattr('rpa.pipelines._call', lambda verb, kw: got.update(kw) or 0)
    (tmp_path/'c.yaml').write_text('split-json: s.json\nlr: 1\nepochs: 3\nno_progress: true\nstrategy: head\n')
    assert main(['train', '--config', str(tmp_path/'c.yaml'), '--lr', '5e-5'])==0
    assert (got['split_json'], got['lr'], got['epochs'], got['no_progress'], got['strategy'])==('s.json', 5e-5, 3, True, 'head') and '--config' not in got


def test_module_is_the_command_too():
    "`python -m rpa.pipelines` used to say nothing and do nothing"
    got = subprocess.run([sys.executable, '-m', 'rpa.pipelines', 'split', '--no-such-flag'], capture_output=True, text=True)
    assert got.returncode==2 and 'usage: rpa split' in got.stderr
    assert subprocess.run([sys.executable, '-m', 'rpa.pipelines', '--version'], capture_output=True, text=True).stdout.startswith('rpa ')


def test_a_flag_for_what_stands_without_one(capsys):
    assert main(['timing', 'view', '--predictions_json', 'none.json'])==1 and 'none.json' in capsys.readouterr().err
    assert main(['timing', 'view', 'none.json', '--predictions-json=none.json'])==2 # not both
    assert main(['timing', 'preprocess', 'none.csv', '--no-add_position_feature', '--config', 'none.yaml'])==1 and 'none.yaml' in capsys.readouterr().err
