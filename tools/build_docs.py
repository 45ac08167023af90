"""The docs site without Quarto: nbdev stages the notebooks, smalldocs renders them, every link is followed.

build_docs.py [FOLDER]   writes the site to FOLDER, by default _docs; exits 1 at the first warning or broken link
"""
import json, re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag
import yaml
from nbdev.config import get_config
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs

ROOT = Path(__file__).resolve().parents[1]


def front_matter(nb): # The fields nbdev wrote into a staged notebook's first cell, and that cell
    cell = nb['cells'][0]
    text = ''.join(cell['source'])
    return (yaml.safe_load(text.strip().strip('-')), cell) if text.startswith('---') else ({}, None)


def own_links(nb, base): # The site's own address becomes a relative one; a source link needs a public repository
    def local(text):
        text = re.sub(r'\[source\]\(\S+?/blob/\S+?\)\{[^}]*\}\s*', '', ''.join(text))
        # a signature is code: no Markdown link can stand in it
        text = re.sub(r'```python\n.*?```', lambda m: re.sub(r'\[(`[^`]+`)\]\([^)]*\)', r'\1', m[0]), text, flags=re.S)
        text = re.sub(r'(\]\(\S+\.html#\w+)\.\w+\)', r'\1)', text) # a method is explained where its class is
        return text.replace(base, '')
    for c in nb['cells']:
        if c['cell_type']=='markdown': c['source'] = local(c['source'])
        for o in c.get('outputs', []):
            md = o.get('data', {}).get('text/markdown')
            if md: o['data']['text/markdown'] = local(md)


def rename(staged, base): # Give every staged notebook the name of its page: 00_core.ipynb -> core.ipynb
    names = {}
    for path in sorted(staged.glob('*.ipynb')):
        nb = json.loads(path.read_text(encoding='utf-8'))
        fields, cell = front_matter(nb)
        page = Path(fields.pop('output-file', path.with_suffix('.html').name)).with_suffix('.ipynb').name
        if cell: cell['source'] = f'---\n{yaml.safe_dump(fields, allow_unicode=True)}---\n'
        own_links(nb, base)
        path.unlink()
        (staged/page).write_text(json.dumps(nb, ensure_ascii=False), encoding='utf-8')
        names[path.name] = page
    for f in (staged/'sidebar.yml', *staged.glob('*.ipynb')): # links from page to page
        text = f.read_text(encoding='utf-8')
        for old,new in names.items():
            stem = Path(old).stem
            text = re.sub(rf'(- |\()(?:nbs/)?{stem}\.(?:ipynb|html)', rf'\g<1>{new}', text)
        f.write_text(text, encoding='utf-8')


class Page(HTMLParser):
    "The links and the anchors of one page"
    def __init__(self, path):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(path.read_text(encoding='utf-8'))
    def handle_starttag(self, tag, attrs):
        d = dict(attrs)
        self.ids |= {d[k] for k in ('id', 'name') if d.get(k)}
        self.links += [d[k] for k in ('href', 'src') if d.get(k)]


def broken_links(site): # 'page: link' for every local link that leads nowhere
    pages = {p.resolve(): Page(p) for p in site.rglob('*.html')}
    bad = []
    for path,page in pages.items():
        for link in page.links:
            if re.match(r'[a-z]+:|//', link): continue
            file, anchor = urldefrag(unquote(link))
            target = (path.parent/file.split('?')[0]).resolve() if file else path
            if target.is_dir(): target /= 'index.html'
            if not target.exists() or anchor and target in pages and anchor not in pages[target].ids:
                bad.append(f'{path.name}: {link}')
    return bad


def main(dst):
    cfg = get_config()
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()
    staged = proc_nbs(force=True, n_workers=2)
    for f in ('nbdev.yml', 'sidebar.yml', 'styles.css'): shutil.copy(cfg.nbs_path/f, staged/f)
    if (cfg.nbs_path/'images').exists(): shutil.copytree(cfg.nbs_path/'images', staged/'images', dirs_exist_ok=True)
    rename(staged, f"{cfg.doc_host}{cfg.doc_baseurl}/")
    smalldocs = [Path(sys.executable).parent/'smalldocs', 'render', '--strict', '--quiet', staged]
    if subprocess.run(smalldocs).returncode: sys.exit('build_docs: the site has the warnings above')
    bad = broken_links(staged/'_docs')
    if bad: sys.exit('build_docs: these links lead nowhere\n  ' + '\n  '.join(bad))
    shutil.rmtree(dst, ignore_errors=True)
    shutil.move(staged/'_docs', dst)
    print(f"{len(list(dst.rglob('*.html')))} pages in {dst}; every local link leads somewhere")


if __name__=='__main__': main(Path(sys.argv[1] if sys.argv[1:] else ROOT/'_docs').absolute())
