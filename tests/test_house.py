"The rules of the house: what every notebook, module and table of commands must keep to"
import ast, configparser, json, re, subprocess
from pathlib import Path
import pytest
from rpa.pipelines import CHAIN, VERBS, _TYPES, _read_verb, read_parameters

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))
MODULES = sorted(p for p in (ROOT/'rpa').glob('*.py') if p.stem not in ('__init__', '_modidx'))
HEAVY = {'torch', 'torchvision', 'transformers', 'fastai', 'cv2', 'av', 'pandas', 'scipy', 'sklearn', 'papermill'}
names = {'ids': lambda p: p.stem}


def cells(path, kind=None):
    found = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [c | dict(source=''.join(c['source'])) for c in found if kind in (None, c['cell_type'])]


def module_name(page): return page.stem.split('_', 1)[1]


def parsed(cell): # Statements of a code cell, magics left out
    return ast.parse('\n'.join(line for line in cell['source'].split('\n') if not line.startswith(('%', '!'))))


@pytest.mark.parametrize('page', PAGES, **names)
def test_first_cells(page):
    first, second, *_ = cells(page)
    assert re.match(rf'# {module_name(page)}\n\s*> \S.*$', first['source'].strip(), re.S), 'H1 with the name, then one > line'
    assert second['source'].strip()==f'#| default_exp {module_name(page)}'


@pytest.mark.parametrize('page', [*PAGES, ROOT/'nbs'/'index.ipynb'], **names)
def test_small_and_readable(page):
    assert page.stat().st_size < 300_000, f'{page.stat().st_size/1000:.0f} kB: keep outputs small'
    assert any(c['outputs'] for c in cells(page, 'code')), 'run the page and keep its outputs'
    for c in cells(page, 'code'):
        kinds = {k for o in c['outputs'] for k in o.get('data', {})}
        assert not any('widget' in k or k.startswith('video') for k in kinds), 'a widget or a video is stored'
        assert not any(o['output_type']=='error' for o in c['outputs']), 'a cell ended in an error'
        assert 'nbdev_export(' not in c['source'] and not re.search(r'^#\|\s*eval:\s*false', c['source'], re.M)


@pytest.mark.parametrize('page', PAGES, **names)
def test_headings_stand_alone(page):
    for c in cells(page, 'markdown')[1:]:
        lines = c['source'].strip().splitlines()
        heads = [x for x in re.sub(r'```.*?```', '', c['source'], flags=re.S).splitlines() if re.match('#{1,4} ', x)]
        assert not heads or len(lines)==1, f'a heading has its own cell: {heads}'


@pytest.mark.parametrize('page', PAGES, **names)
def test_import_cells_hold_only_imports(page):
    "The docs run every cell that imports, without the cells around it"
    for c in cells(page, 'code'):
        if re.search(r'^#\|\s*export', c['source'], re.M): continue
        nodes = list(ast.walk(parsed(c)))
        if any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in nodes):
            assert not any(isinstance(n, (ast.Expr, ast.Assign)) for n in nodes), f"move the import to an import cell:\n{c['source']}"


@pytest.mark.parametrize('page', PAGES, **names)
def test_imports_from_lower_numbers(page):
    order = [module_name(p) for p in PAGES]
    for c in cells(page, 'code'):
        for name in re.findall(r'^\s*(?:from|import) rpa\.(\w+)', c['source'], re.M):
            assert name in order[:order.index(module_name(page))], f'{page.stem} imports {name}'


def jobs(): return [p for p in PAGES if any('parameters' in c['metadata'].get('tags', []) for c in cells(p))]


def test_the_chain_is_jobs(): assert set(CHAIN) <= {p.stem for p in jobs()}


@pytest.mark.parametrize('page', jobs(), **names)
def test_parameters_cell(page):
    found = cells(page)
    at = [i for i,c in enumerate(found) if 'parameters' in c['metadata'].get('tags', [])]
    assert len(at)==1
    heads = [c['source'].strip() for c in found[:at[0]] if c['cell_type']=='markdown' and c['source'].startswith('#')]
    assert heads[-1]=='## Run', 'the parameters stand at the head of Run'
    lines = found[at[0]]['source'].strip().splitlines()
    for line in lines: assert re.match(r"\w+:(str|int|float|bool|list) ?= ?\S.*# \S", line), f'name:type = literal # comment; got {line}'
    assert [p.name for p in read_parameters(dict(cells=found))]==[line.split(':')[0] for line in lines]


@pytest.mark.parametrize('module', MODULES, **names)
def test_module_is_careful(module):
    tree = ast.parse(module.read_text(encoding='utf-8'))
    text = module.read_text(encoding='utf-8')
    assert 'import *' not in text
    assert not re.search(r'\bpickle\.load|torch\.load\((?![^\n]*\bweights_only=True\))|torch\.save\(|joblib\.load\(|allow_pickle\s*=\s*True|read_pickle', text)
    top = [a.name.split('.')[0] for n in tree.body if isinstance(n, ast.Import) for a in n.names]
    top += [(n.module or '').split('.')[0] for n in tree.body if isinstance(n, ast.ImportFrom) and not n.level]
    assert 'matplotlib' not in top, 'matplotlib is imported where a plot is drawn'
    if module.stem in ('core', 'storage', 'pipelines'): assert not set(top) & HEAVY


@pytest.mark.parametrize('verb', VERBS)
def test_verbs_can_be_read(verb):
    doc, params, _ = _read_verb(verb)
    assert doc and not doc.endswith('.')
    for p in params:
        assert p.kind in (*_TYPES, 'bool', 'list'), f'{verb} {p.name}:{p.kind}'
        assert p.help, f'{verb} {p.name} needs a comment'


def test_index_lists_every_command_and_target():
    page = '\n'.join(c['source'] for c in cells(ROOT/'nbs'/'index.ipynb'))
    assert re.findall(r'^\| `rpa ([\w -]+)` \|', page, re.M)==list(VERBS)
    targets = re.findall(r'^([a-z-]+):.*## ', (ROOT/'Makefile').read_text(), re.M)
    assert set(re.search(r'the targets: `([^`]+)`', page)[1].split())==set(targets) - {'help'}
    assert re.findall(r'^\| \[\w+\]\((\w+)\.ipynb\) \|', page, re.M)==[p.stem for p in PAGES]


def test_everything_is_pinned():
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini')
    norm = lambda n: re.split(r'[<>=!~\[]', n)[0].lower().replace('_', '-')
    wanted = {norm(r) for key in ('requirements', 'dev_requirements') for r in cfg['DEFAULT'][key].split()}
    lines = [x for x in (ROOT/'constraints.txt').read_text().splitlines() if not x.startswith('#')]
    assert all(re.fullmatch(r'[\w.-]+==[\w.!+]+', x) for x in lines), 'a plain name==version per line'
    assert not wanted - {norm(x) for x in lines}


def test_no_machine_paths():
    out = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True)
    if out.returncode: pytest.skip('not a git checkout')
    files = [ROOT/f for f in out.stdout.split('\0') if f.endswith(('.py', '.ipynb', '.md', '.txt', '.ini', '.yml', '.json', '.toml', '.sh'))]
    bad = [f.name for f in files if f.exists() and f!=Path(__file__)
           and re.search(r'(?<![\w.])/(root|home|work|Users)/\w|/tmp/(plan|tmp)', f.read_text(encoding='utf-8'))]
    assert not bad
