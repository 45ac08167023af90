"What the lessons of 03b_models cannot show: the hub, other processes, damaged and hostile folders"
import json, os, subprocess, sys, time
import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining
from rpa.core import LabelMap, RpaError, read_json, write_json
from rpa.models import create_model, fresh_model, from_folder, hub_folder, load_bundle, save_bundle, save_network

labels = LabelMap({0:'forefoot', 1:'heel'})
micro = dict(image_size=32, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
clips = torch.randint(0, 255, (2,16,32,32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def python(code, **env):
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, **env})


@pytest.fixture
def bundle(tmp_path): return save_bundle(fresh_model(labels, **micro), tmp_path/'best_model')


def test_without_a_network_it_says_what_to_pass(tmp_path):
    "No answer from the hub: an error within seconds, not minutes of retries"
    code = ('import time; from rpa.core import LabelMap; from rpa.models import create_model, HUB_DEFAULT\n'
            't = time.time()\n'
            'try: create_model(HUB_DEFAULT, LabelMap({0:"a", 1:"b"}))\n'
            'except ValueError as e: print(type(e).__name__, time.time()-t, e)')
    for env in (dict(HF_ENDPOINT='http://127.0.0.1:9'), dict(HF_HUB_OFFLINE='1')):
        said = python(code, HF_HOME=str(tmp_path), **env)
        kind, seconds, text = said.stdout.split(' ', 2)
        assert kind=='RpaError' and float(seconds)<15 and 'pass --model tiny, or a local folder' in text, said


def test_hub_weights_from_the_cache(tmp_path):
    "A name on the hub that was fetched before works offline, and its licence is said"
    at = tmp_path/'hub'/'models--MCG-NJU--videomae-micro'
    (at/'refs').mkdir(parents=True)
    (at/'refs'/'main').write_text('0'*40)
    (at/'snapshots'/('0'*40)).mkdir(parents=True)
    save_network(fresh_model(LabelMap({i:f'class {i}' for i in range(5)}), **micro), at/'snapshots'/('0'*40), fold=False)
    code = ('from rpa.core import LabelMap; from rpa.models import create_model\n'
            'm = create_model("MCG-NJU/videomae-micro", LabelMap({0:"a", 1:"b"}))\n'
            'print(m.hf.config.num_labels, m.origin["licence"], m.origin["name"])')
    said = python(code, HF_HOME=str(tmp_path), HF_HUB_OFFLINE='1')
    assert said.stdout.splitlines()==['MCG-NJU/videomae-micro: licence of the weights CC-BY-NC 4.0 (no commercial use)',
                                      '2 CC-BY-NC 4.0 (no commercial use) MCG-NJU/videomae-micro'], said


def test_hub_model_with_pickles_only(monkeypatch):
    import huggingface_hub
    class Api:
        def model_info(self, name, timeout):
            return type('Info', (), dict(siblings=[type('F', (), dict(rfilename='pytorch_model.bin'))]))
    monkeypatch.setattr(huggingface_hub, 'HfApi', Api)
    with pytest.raises(RpaError, match='pickles are not read'): hub_folder('somebody/only-pickles')


def test_pretraining_weights_are_a_start(tmp_path):
    "A masked autoencoder has a decoder and no head: the body is taken, the head is new"
    torch.manual_seed(1)
    mae = VideoMAEForPreTraining(VideoMAEConfig(**micro, decoder_hidden_size=16, decoder_num_attention_heads=2,
                                                decoder_num_hidden_layers=1, decoder_intermediate_size=32))
    mae.save_pretrained(tmp_path/'mae')
    got = from_folder(tmp_path/'mae', labels)
    theirs = mae.videomae.encoder.layer[1].attention.attention.query.bias
    assert torch.equal(got.hf.videomae.encoder.layer[1].attention.attention.query.bias, theirs)
    assert got(clips).shape==(2,2)


def test_saved_as_transformers_saves(tmp_path):
    "Same names in the file, so every version of transformers reads it"
    from safetensors import safe_open
    model = fresh_model(labels, **micro)
    model.hf.save_pretrained(tmp_path/'theirs')
    save_bundle(model, tmp_path/'ours')
    names = [set(safe_open(tmp_path/n/'model.safetensors', 'pt').keys()) for n in ('theirs', 'ours')]
    assert names[0]==names[1]


def test_head_starts_anew_for_other_labels(tmp_path):
    save_network(fresh_model(LabelMap({0:'a', 1:'b'}), **micro), _made(tmp_path/'s'), fold=False)
    a, b = (from_folder(tmp_path/'s', LabelMap(d), seed=s) for d,s in (({0:'x', 1:'y'}, 1), ({0:'x', 1:'y'}, 2)))
    assert not torch.equal(a.hf.classifier.weight, b.hf.classifier.weight)
    assert torch.equal(next(a.hf.videomae.parameters()), next(b.hf.videomae.parameters()))


def _made(p): p.mkdir(); return p


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors', 'preprocessor_config.json', 'label_mapping.json',
                                  'video_preprocessor_config.json'])
def test_changed_file(bundle, name):
    raw = bytearray((bundle/name).read_bytes())
    raw[len(raw)//2] ^= 1
    (bundle/name).write_bytes(raw)
    with pytest.raises(RpaError, match=rf'{name}: is not the file that was saved .* copy the whole folder again'): load_bundle(bundle)


@pytest.mark.parametrize('name', ['x.bin', 'x.pt', 'x.pth', 'x.pkl', 'x.ckpt', 'x.PKL', 'deep/er/x.pickle'])
def test_pickle_inside(bundle, name):
    (bundle/name).parent.mkdir(parents=True, exist_ok=True)
    (bundle/name).write_bytes(b'\x80\x04.')
    with pytest.raises(RpaError, match=f'{name}; remove it'): load_bundle(bundle)


@pytest.mark.parametrize('name', ['z.safetensors', 'model-00002-of-00002.safetensors', 'processor_config.json', 'deep/er/x.json'])
def test_file_that_is_not_listed(bundle, name):
    "Weights beside the listed ones must not replace them under the same fingerprint"
    from safetensors.torch import save_file
    (bundle/name).parent.mkdir(parents=True, exist_ok=True)
    if name.endswith('.json'): (bundle/name).write_text('{}')
    else: save_file({'classifier.weight':torch.ones(2, 32)}, bundle/name)
    with pytest.raises(RpaError, match=f'does not list: {name}; take them out'): load_bundle(bundle)


def test_hidden_files_are_left_alone(bundle):
    from safetensors.torch import save_file
    want = load_bundle(bundle).model(clips)
    (bundle/'.git').mkdir()
    (bundle/'.git'/'HEAD').touch()
    save_file({'classifier.weight':torch.ones(2, 32)}, bundle/'.z.safetensors')
    assert torch.equal(load_bundle(bundle).model(clips), want)


def test_a_start_is_read_from_its_own_file(tmp_path):
    "Other weights beside model.safetensors, such as a checkpoint's optimiser, are not merged into it"
    from safetensors.torch import load_file, save_file
    net = fresh_model(labels, **micro)
    save_network(net, _made(tmp_path/'s'), fold=False)
    save_file({'classifier.weight':torch.ones(2, 32)}, tmp_path/'s'/'z.safetensors')
    start = from_folder(tmp_path/'s', labels)
    assert torch.equal(start.hf.classifier.weight, net.hf.classifier.weight) and list(start.origin['sha256'])==['model.safetensors']
    state = load_file(tmp_path/'s'/'model.safetensors')
    head = {k:v for k,v in state.items() if k.startswith('classifier.')}
    (tmp_path/'s'/'z.safetensors').unlink(); (tmp_path/'s'/'model.safetensors').unlink()
    for i,part in enumerate((head, {k:v for k,v in state.items() if k not in head}), 1):
        save_file(part, tmp_path/'s'/f'model-0000{i}-of-00002.safetensors')
    assert torch.equal(from_folder(tmp_path/'s', labels)(clips), net.eval()(clips))


def test_logits_of_a_data_set():
    "The same whatever the batches, and the model stays in the mode it was in"
    from rpa.models import predict_logits
    net = fresh_model(labels, hidden_dropout_prob=.5, **micro).train()
    a, b = (predict_logits(net, [(clips[i:i+n], None) for i in range(0, 2, n)]) for n in (1, 2))
    assert net.training and a.dtype==torch.float64 and torch.allclose(a, b, atol=1e-5)


def test_not_a_bundle(bundle, tmp_path):
    with pytest.raises(RpaError, match='there is none; train one'): load_bundle(tmp_path/'nothing')
    about = read_json(bundle/'rpa.json')
    for change in (dict(format=2), dict(extra=1)):
        write_json(bundle/'rpa.json', {**about, **change})
        with pytest.raises(RpaError, match='not the format'): load_bundle(bundle)
    (bundle/'rpa.json').write_text('{')
    with pytest.raises(RpaError, match='rpa.json'): load_bundle(bundle)
    (bundle/'rpa.json').unlink()
    with pytest.raises(RpaError, match='rpa.json is missing'): load_bundle(bundle)


def test_damaged_weights_to_start_from(tmp_path):
    folder = _made(tmp_path/'s')
    save_network(fresh_model(labels, **micro), folder)
    (folder/'model.safetensors').write_bytes((folder/'model.safetensors').read_bytes()[:500])
    with pytest.raises(RpaError, match='not a readable safetensors'): from_folder(folder, labels)
    write_json(folder/'config.json', dict(model_type='bert'))
    with pytest.raises(RpaError, match="must be a VideoMAE, SlowOnly, CNN-LSTM or Changes, got 'bert'"): from_folder(folder, labels)
    (folder/'config.json').unlink()
    with pytest.raises(RpaError, match='config.json: a model folder needs'): create_model(str(folder), labels)
    write_json(_made(folder/'model')/'config.json', {}) # what `rpa pretrain` leaves
    with pytest.raises(RpaError, match=f'pass {folder}/model'): create_model(str(folder), labels)


def test_same_bytes_and_modes_in_another_process(bundle, tmp_path):
    code = ('import os; os.umask(0o077)\nfrom rpa.core import LabelMap; from rpa.models import fresh_model, save_bundle\n'
            f'save_bundle(fresh_model(LabelMap({{0:"forefoot", 1:"heel"}}), **{micro!r}), {str(tmp_path/"other")!r})')
    assert python(code).returncode==0
    for p in bundle.iterdir(): assert (tmp_path/'other'/p.name).read_bytes()==p.read_bytes(), p.name
    assert {oct((tmp_path/'other'/p.name).stat().st_mode)[-3:] for p in bundle.iterdir()}=={'644'}


def test_no_machine_in_the_bundle(bundle):
    "Neither paths nor names nor times of the machine that wrote it"
    text = ' '.join(p.read_text() for p in bundle.glob('*.json'))
    assert not any(w in text for w in (str(bundle.parent), os.uname().nodename, time.strftime('%Y-%m-%d')))
    assert set(json.loads((bundle/'rpa.json').read_text())['versions'])=={'rpa', 'torch', 'transformers'}


@pytest.mark.parametrize('names,said', [({0:'walk', 1:'run'}, True), ({0:'heel', 1:'forefoot'}, True), ({0:'forefoot', 1:'heel', 2:'midfoot'}, True), ({0:'forefoot', 1:'heel'}, False)], ids=str)
def test_a_bundle_that_answers_something_else(bundle, capsys, names, said):
    "Its last layer is made anew, and that is said; with the same answers it is kept"
    old, new = fresh_model(labels, **micro), from_folder(bundle, LabelMap(names), seed=7)
    assert new.net.classifier.out_features==len(names)
    assert ('best_model tells apart forefoot, heel; here it is '+', '.join(names.values()) in capsys.readouterr().out)==said
    assert torch.equal(new.net.classifier.weight[:2], old.net.classifier.weight)!=said
    assert torch.equal(new.net.videomae.encoder.layer[1].output.dense.weight, old.net.videomae.encoder.layer[1].output.dense.weight)


@pytest.mark.parametrize('other,said', [(dict(num_hidden_layers=3), 'has besides videomae.encoder.layer.2'), (dict(num_hidden_layers=1), 'lacks videomae.encoder.layer.1'),
    (dict(hidden_size=64), r'differs in videomae.embeddings.patch_embeddings.projection.bias is \(64,\), not \(32,\)'),
    (dict(kind='slowonly', depth=18, num_frames=4, image_size=32), 'lacks videomae.*has besides bn1.bias')], ids=str)
def test_weights_of_another_architecture(bundle, tmp_path, other, said):
    "Which names and shapes differ is said; a deeper network is not cut short in silence"
    (tmp_path/'other').mkdir()
    save_network(fresh_model(labels, **(other if 'kind' in other else micro|other)), tmp_path/'other', fold=False)
    (tmp_path/'other'/'config.json').write_bytes((bundle/'config.json').read_bytes())
    with pytest.raises(RpaError, match=f'of another architecture; it {said}'): from_folder(tmp_path/'other', labels)
