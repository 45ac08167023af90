"""What `make test` runs, each step with its time; a failed step does not hide the ones after it.

check.py [STEP …]   steps: export clean readme lint types notebooks docs pytest (all of them by default)
"""
import os, shutil, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def run(*cmd, cwd=ROOT): # Run a command with its output shown; True when it succeeds
    rc = subprocess.run([str(c) for c in cmd], cwd=cwd).returncode
    if rc<0: print(f'  ended by signal {-rc}: {cmd[0]}')
    return rc==0


@contextmanager
def scratch(): # What pages and tests leave in the temporary folder goes with the run
    before = os.environ.get('TMPDIR')
    with tempfile.TemporaryDirectory(prefix='rpa-check-', ignore_cleanup_errors=True) as d:
        os.environ['TMPDIR'] = d
        try: yield d
        finally:
            if before is None: del os.environ['TMPDIR']
            else: os.environ['TMPDIR'] = before


@contextmanager
def copied(): # A copy of what nbdev reads and writes, so that a check never changes the tree
    with tempfile.TemporaryDirectory(prefix='rpa-check-') as d:
        for name in ('settings.ini', 'setup.py', '_quarto.yml'): shutil.copy(ROOT/name, d)
        shutil.copytree(ROOT/'nbs', Path(d)/'nbs', symlinks=True, ignore=shutil.ignore_patterns('.*', 'demo'))
        shutil.copytree(ROOT/'rpa', Path(d)/'rpa', ignore=shutil.ignore_patterns('weights', '__pycache__'))
        yield Path(d)


def differing(copy, pattern): # Files under the pattern that are not the same here and in the copy
    names = {f.relative_to(base) for base in (ROOT, copy) for f in base.glob(pattern)}
    read = lambda f: f.read_bytes() if f.exists() else None
    return sorted(str(n) for n in names if read(ROOT/n) != read(copy/n))


def same(copy, pattern, advice):
    bad = differing(copy, pattern)
    for b in bad: print(f'  {b}: {advice}')
    return not bad


def export(): # rpa/ is what the notebooks export
    advice = 'not what the notebooks export; run make fix'
    with copied() as d: return run(BIN/'nbdev_export', cwd=d) and same(d, 'rpa/*.py', advice)


def clean(): # The notebooks carry no stray metadata, and papermill's tags survive cleaning
    with copied() as d: return run(BIN/'nbdev_clean', cwd=d) and same(d, 'nbs/*.ipynb', 'not clean; run make fix')


def readme(): # README.md is nbs/index.ipynb
    return run(sys.executable, 'tools/build_readme.py', '--check')


def lint(): # ruff, on the notebooks too
    return run(BIN/'ruff', 'check', '-q', 'nbs', 'rpa', 'tests', 'bench', 'tools')


def types(): # mypy, on what is annotated
    return run(BIN/'mypy', 'rpa')


def page(nb): # One page, from top to bottom, with its share of the processor
    start, env = time.time(), os.environ|{'OMP_NUM_THREADS':str(max(1, (os.cpu_count() or 1)//2))}
    p = subprocess.run([str(BIN/'nbdev_test'), '--path', str(nb)], cwd=ROOT, env=env, capture_output=True, text=True)
    if p.returncode: print((p.stdout+p.stderr)[-6000:])
    print(f"  {nb.stem:<16} {'FAILED' if p.returncode else 'ok':<7}{time.time()-start:6.0f} s", flush=True)
    return p.returncode==0


def notebooks(): # Every page. Up to 05 one after another: the Run sections are the chain of the demo; the other jobs beside it
    pages = sorted((ROOT/'nbs').glob('*.ipynb'))
    chain, others = [p for p in pages if p.stem<'10'], [p for p in pages if p.stem>='10']
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(lambda: all([page(p) for p in chain])), *(pool.submit(page, p) for p in others)]
        return all([d.result() for d in done])


def docs(): # The site builds without a warning and without a broken link
    return run(sys.executable, 'tools/build_docs.py')


def pytest(): return run(sys.executable, '-m', 'pytest', '-n', '2', '--dist', 'loadfile', '--durations=10') # fixtures are shared within a file


STEPS = (export, clean, readme, lint, types, docs, notebooks, pytest)


def main(names):
    known = [s.__name__ for s in STEPS]
    unknown = sorted(set(names) - set(known))
    if unknown: sys.exit(f"check: no step {', '.join(unknown)}; there are {', '.join(known)}")
    steps = [s for s in STEPS if not names or s.__name__ in names]
    rows = []
    for step in steps:
        print(f'── {step.__name__}', flush=True)
        start = time.time()
        with scratch(): rows.append((step.__name__, step(), time.time()-start))
    print('\n' + '\n'.join(f"{name:<12}{'passed' if ok else 'FAILED':<8}{s:7.0f} s" for name,ok,s in rows))
    failed = sum(not ok for _,ok,_ in rows)
    print(f'\n{len(rows)-failed} passed, {failed} failed')
    return int(failed>0)


if __name__=='__main__': sys.exit(main(sys.argv[1:]))
