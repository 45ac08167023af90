"""README.md from nbs/index.ipynb, as nbdev_readme does it where Quarto exists.

build_readme.py [--check]   --check only says whether README.md is what the index gives
"""
import re, sys, tempfile
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter
from nbdev.config import get_config
from nbdev.processors import FilterDefaults
from nbdev.serve_drv import exec_nb

ROOT = Path(__file__).resolve().parents[1]


def to_markdown(index): # The index as nbdev stages it, in Markdown
    with tempfile.TemporaryDirectory() as d:
        staged = Path(d)/'index.ipynb'
        exec_nb(index, staged, FilterDefaults)
        nb = nbformat.read(staged, 4)
    for c in nb.cells:
        if c.cell_type=='markdown' and c.source.startswith('<!-- WARNING'): c.source = ''
    nb.metadata['language_info'] = dict(name='python') # which nbdev_clean drops, and code fences name
    return MarkdownExporter().from_notebook_node(nb)[0]


def for_readme(md, base): # Front matter back into a title; links that hold in the repository
    front, md = re.match(r'\s*---\n(.*?)\n---\n(.*)', md, re.S).groups()
    title = re.search(r'^title:\s*(.+)$', front, re.M)[1].strip('\'"')
    description = re.search(r'^description:\s*(.+(?:\n  .+)*)$', front, re.M)[1].replace('\n ', '').strip('\'"')
    md = re.sub(r'\[(`[^`]+`)\]\(' + re.escape(base) + r'[^)]*\)', r'\1', md)
    md = re.sub(r'\]\((?=images/|\w+\.ipynb)', '](nbs/', md)
    md = re.sub(r'\n{3,}', '\n\n', md).strip()
    return f'# {title}\n\n> {description}\n\n<!-- made from nbs/index.ipynb by tools/build_readme.py -->\n\n{md}\n'


def main(check):
    cfg = get_config()
    text = for_readme(to_markdown(cfg.nbs_path/'index.ipynb'), f'{cfg.doc_host}{cfg.doc_baseurl}/')
    readme = ROOT/'README.md'
    if not check: readme.write_text(text, encoding='utf-8')
    elif not readme.exists() or readme.read_text(encoding='utf-8')!=text:
        sys.exit('build_readme: README.md is not what nbs/index.ipynb gives; run tools/build_readme.py')


if __name__=='__main__': main('--check' in sys.argv[1:])
