"""Every benchmark in this folder, one after another: make bench, or python bench/run.py [NAME …]

Each script prints ratios against a named alternative measured in the same run; nothing is asserted.
"""
import os, platform, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def machine(): # 'AMD EPYC 7B13, 2 cores, Python 3.11.7, Linux 6.1'
    try: info = Path('/proc/cpuinfo').read_text()
    except OSError: info = ''
    model = next((x.split(':', 1)[1].strip() for x in info.splitlines() if x.startswith('model name')), platform.machine())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return f'{model}, {cores} cores, Python {platform.python_version()}, {platform.system()} {platform.release()}'


def main(names):
    scripts = [p for p in sorted(HERE.glob('*.py')) if p.stem not in ('run', '__init__') and not p.stem.startswith('_')]
    if unknown := set(names) - {p.stem for p in scripts}:
        sys.exit(f"bench: no benchmark {', '.join(sorted(unknown))}; there are {', '.join(p.stem for p in scripts)}")
    print(machine(), flush=True)
    failed = []
    for script in scripts:
        if names and script.stem not in names: continue
        print(f'\n── {script.stem}', flush=True)
        start = time.time()
        if subprocess.run([sys.executable, script]).returncode: failed.append(script.stem)
        print(f'   ({time.time()-start:.0f} s)', flush=True)
    if failed: sys.exit(f"bench: these did not finish: {', '.join(failed)}")


if __name__=='__main__': main(sys.argv[1:])
