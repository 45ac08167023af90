"""The picture of the README from a finished demo: a strip of crops for each of three clips, with the verdict.

build_picture.py [DEMO]   reads DEMO, by default runs/demo, and writes nbs/images/verdicts.png
The clips are not chosen by hand: of each class, the held-out (synthetic) runner's clip of middling confidence, and the
clip of middling confidence of the first real film.
"""
import sys
from pathlib import Path
import numpy as np
from matplotlib.figure import Figure
from rpa.core import atomic_path, read_json
from rpa.video import read_clip

ROOT = Path(__file__).resolve().parents[1]


def middling(rows): # The row whose confidence is in the middle
    return sorted(rows, key=lambda r: (r['confidence'], str(r)))[len(rows)//2]


def chosen(demo): # [(clip file, line to write under it)]
    found = read_json(demo/'predictions.json')
    rows, picked = found['evaluation']['per_clip'], []
    for label in found['labels']:
        r = middling([r for r in rows if r['true']==label])
        picked.append((demo/'clips'/r['file'], f"synthetic runner, truly {label}: {r['verdict']}, {r['confidence']:.0f} %"))
    for v in [v for v in found['videos'] if v['per_clip'] and not v['synthetic']][:1]:
        c = middling(v['per_clip'])
        said = f"{c['verdict']}, {c['confidence']:.0f} %" if c['verdict']!='uncertain' else 'uncertain'
        picked.append((next((demo/'infer_clips').rglob(c['clip'])), f"real footage ({Path(v['video']).name}): {said}"))
    return picked


def draw(picked, dst, frames=8): # One row a clip
    fig = Figure(figsize=(8, 1.3*len(picked)), dpi=110)
    axes = fig.subplots(len(picked), 1, squeeze=False)[:,0]
    for ax,(path,line) in zip(axes, picked):
        clip = read_clip(path)
        shown = clip[np.linspace(0, len(clip)-1, frames).round().astype(int)]
        row = np.pad(shown, ((0, 0), (0, 0), (0, 8)), constant_values=255) # a white gap after every frame
        ax.imshow(np.hstack(row), cmap='gray', vmin=0, vmax=255)
        ax.set_title(line, fontsize=9, loc='left', pad=3)
        ax.axis('off')
    fig.tight_layout(pad=.3)
    with atomic_path(dst) as tmp: fig.savefig(tmp, metadata={'Software': None})


def main(demo):
    if not (demo/'predictions.json').exists(): sys.exit(f'build_picture: {demo} must be a finished demo; run make demo first')
    dst = ROOT/'nbs'/'images'/'verdicts.png'
    dst.parent.mkdir(exist_ok=True)
    draw(chosen(demo), dst)
    print(f'wrote {dst.relative_to(ROOT)}, {dst.stat().st_size//1000} kB')


if __name__=='__main__': main(Path(sys.argv[1] if sys.argv[1:] else ROOT/'runs'/'demo'))
