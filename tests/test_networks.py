"SlowOnly against its published implementations, and what is refused"
import re, warnings
import pytest
import torch
from safetensors.torch import save_file
from rpa.core import LabelMap, RpaError
from rpa.models import create_model, fresh_model, load_bundle, param_groups, save_bundle
from rpa.networks import Changes, CnnLstm, SlowOnly, fit_state, lite0, slowonly_state

labels = LabelMap({0:'a', 1:'b'})


def lively(net): # Statistics as a trained network has them, so that errors cannot hide behind means of 0 and variances of 1
    g = torch.Generator().manual_seed(0)
    for m in net.modules():
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm):
            for v,low,high in ((m.running_mean, -.1, .1), (m.running_var, .8, 1.2), (m.weight.data, .4, .6), (m.bias.data, -.1, .1)): v.uniform_(low, high, generator=g)
    return net.eval()


@pytest.fixture(scope='module')
def theirs():
    with warnings.catch_warnings(): # it is of 2022, and torch has moved on
        warnings.simplefilter('ignore')
        resnet = pytest.importorskip('pytorchvideo.models.resnet')
    torch.manual_seed(0)
    net = resnet.create_resnet(model_num_class=400, model_depth=50, stem_conv_kernel_size=(1, 7, 7), head_pool_kernel_size=(8, 3, 3), dropout_rate=.5)
    return lively(net)


def test_the_same_weights_give_the_same_logits(theirs):
    "pytorchvideo's slow_r50 and ours, to 1e-4 and better"
    ours = SlowOnly(400).eval()
    assert fit_state(ours, slowonly_state(theirs.state_dict()))==[]
    x = torch.randn(2, 8, 3, 96, 96)
    with torch.inference_mode(): a, b = theirs(x.transpose(1, 2)), ours(x)
    assert a.std()>.01 and (a-b).abs().max()<1e-4*max(1, float(a.abs().max()))


def published(net): # The names of an mmaction2 checkpoint of slowonly_r50, from those of ours
    def name(k):
        if k.startswith('fc.'): return 'cls_head.fc_cls.'+k[3:]
        k = re.sub(r'downsample\.0', 'downsample.conv', k)
        k = re.sub(r'downsample\.1', 'downsample.bn', k)
        k = re.sub(r'(^|\.)conv(\d)\.weight', r'\1conv\2.conv.weight', k)
        return 'backbone.'+re.sub(r'(^|\.)bn(\d)\.', r'\1conv\2.bn.', k)
    return {name(k):v for k,v in net.state_dict().items()}


def test_names_of_mmaction():
    "Among them those that its files are known to have"
    net = lively(SlowOnly(400))
    state = published(net)
    known = {'backbone.conv1.conv.weight', 'backbone.conv1.bn.running_var', 'backbone.layer1.0.conv1.conv.weight', 'backbone.layer1.0.downsample.conv.weight',
             'backbone.layer1.0.downsample.bn.bias', 'backbone.layer4.2.conv3.bn.num_batches_tracked', 'cls_head.fc_cls.weight', 'cls_head.fc_cls.bias'}
    assert known<=set(state) and state['backbone.layer3.0.conv1.conv.weight'].shape==(256, 512, 3, 1, 1)
    other = SlowOnly(400).eval()
    assert fit_state(other, slowonly_state(state))==[]
    x = torch.randn(1, 4, 3, 32, 32)
    assert torch.equal(net(x), other(x))
    assert fit_state(SlowOnly(400), slowonly_state({k.removeprefix('backbone.'):v for k,v in state.items()}))==[] # a backbone saved alone


def test_files_of_weights(theirs, tmp_path):
    "A file is recognised by its names; the head is new; other architectures and pickles are refused"
    save_file({k:v.contiguous() for k,v in theirs.state_dict().items()}, tmp_path/'slow.safetensors')
    net = create_model(str(tmp_path/'slow.safetensors'), labels)
    assert net.kind=='slowonly' and net.net.config['depth']==50 and net.net.fc.out_features==2 and net.origin['name']=='slow.safetensors'
    assert torch.equal(net.net.layer4[2].conv1.weight, theirs.state_dict()['blocks.4.res_blocks.2.branch2.conv_a.weight'])
    odd = {k:v for k,v in SlowOnly(2, 18).state_dict().items() if k!='layer2.0.conv1.weight'}
    odd['layer3.0.conv2.weight'] = odd['layer3.0.conv2.weight'][:8].clone()
    save_file(odd|{'extra':torch.zeros(1)}, tmp_path/'odd.safetensors')
    with pytest.raises(RpaError, match=r'lacks layer2.0.conv1.weight; it has besides extra; it differs in layer3.0.conv2.weight is \(8, 256, 1, 3, 3\), not \(256, 256, 1, 3, 3\)'):
        create_model(str(tmp_path/'odd.safetensors'), labels)
    torch.save({}, tmp_path/'SLOW.pyth')
    with pytest.raises(RpaError, match='write it as safetensors once'): create_model(str(tmp_path/'SLOW.pyth'), labels)
    (tmp_path/'no.safetensors').write_bytes(b'x')
    with pytest.raises(RpaError, match='not a readable safetensors'): create_model(str(tmp_path/'no.safetensors'), labels)
    with pytest.raises(RpaError, match='no file'): create_model(str(tmp_path/'gone.safetensors'), labels)


def test_cnn_lstm_starts_from_installed_weights():
    net = create_model('cnn-lstm', labels)
    assert all(torch.equal(a, b) for a,b in zip(net.net.cnn.state_dict().values(), lite0().state_dict().values()))
    assert net.origin['licence']=='Apache-2.0' and net.input.mean==(127/255,)*3
    with pytest.raises(RpaError, match='pictures must be one of'): CnnLstm(2, 'vgg')


@pytest.mark.parametrize('kw', [dict(kind='slowonly', depth=18), dict(kind='slowonly', depth=50), dict(kind='cnn_lstm'), dict(kind='changes')], ids=str)
def test_any_number_of_frames_and_any_batch(kw):
    "Clips do not look at each other, and an order of frames matters to an LSTM"
    net = fresh_model(labels, image_size=32, num_frames=4, **kw).eval()
    x = torch.randint(0, 256, (3, 6, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(net(x), torch.cat([net(c[None]) for c in x]), atol=1e-5)
        if kw['kind']=='cnn_lstm': assert not torch.allclose(net(x), net(x.flip(1)), atol=1e-5)


def test_changes_see_what_moves_and_not_the_room():
    "A wall added to every frame changes nothing but what the network of pictures itself makes of it; a film of one picture has no opinion at all"
    net = Changes(2, 'resnet18').eval()
    torch.nn.init.normal_(net.fc.weight)
    net.cnn = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 512)) # a linear network of pictures
    x, wall = torch.randn(2, 8, 3, 16, 16), 5*torch.randn(2, 1, 3, 16, 16)
    with torch.inference_mode():
        assert torch.allclose(net(x+wall), net(x), atol=1e-3)
        assert net(wall.expand(-1, 8, -1, -1, -1)).abs().max()<1e-3
        assert not torch.allclose(net(x.flip(1)), net(x), atol=1e-2)


def test_changes_begin_without_an_opinion_and_learn_from_a_batch_of_one():
    net = create_model('changes', labels)
    x = torch.randint(0, 256, (1, 8, 64, 64), dtype=torch.uint8)
    assert (net.eval()(x)==0).all() and net.origin['licence']=='Apache-2.0'
    net.train()
    torch.nn.functional.cross_entropy(net(x), torch.tensor([1])).backward()
    assert net.net.fc.weight.grad.abs().sum()>0
    with pytest.raises(RpaError, match='at least 4 frames'): net(x[:,:3])
    with pytest.raises(RpaError, match='at least 2 stretches'): Changes(2, stretches=1)
    with pytest.raises(RpaError, match='must be one of lite0'): Changes(2, 'vgg')


@pytest.mark.parametrize('name', ['resnet10t.c3_in1k', 'mobilenetv3_small_050.lamb_in1k'])
def test_networks_of_timm(monkeypatch, tmp_path, name):
    "Their weights, sizes and colours; every weight in one part; a bundle gives the same logits"
    timm = pytest.importorskip('timm')
    make, made = timm.create_model, []
    def create(name, pretrained=False, **kw): # as if fetched
        torch.manual_seed(1 if pretrained else 2)
        made.append(pretrained)
        return make(name, pretrained=False, **kw)
    monkeypatch.setattr('timm.create_model', create)
    net = create_model(f'cnn-lstm-timm/{name}', labels, grayscale=False)
    want = create(name, pretrained=True, num_classes=0).state_dict()
    assert all(torch.equal(v, want[k]) for k,v in net.net.cnn.state_dict().items()) and net.origin['name']==f'timm/{name}'
    shown = make(name).pretrained_cfg
    assert (net.input.size, net.input.mean)==(shown['input_size'][-1], tuple(shown['mean']))
    assert len(param_groups(net))>=4 # the network of pictures in parts, LSTM, head
    net.eval()
    x = torch.randint(0, 256, (2, 4, 64, 64, 3), dtype=torch.uint8)
    again = load_bundle(save_bundle(net, tmp_path/'b', calibration=dict(temperature=1., threshold=.5))).model
    with torch.inference_mode(): assert torch.equal(net(x), again(x))
    made.clear()
    create_model(f'changes-timm/{name}', labels, from_scratch=True)
    assert made and not any(made)


def test_what_timm_cannot_give(monkeypatch):
    pytest.importorskip('timm')
    with pytest.raises(RpaError, match='timm could not make it.*no_such'): create_model('cnn-lstm-timm/no_such', labels)
    with pytest.raises(RpaError, match='weights outside of its layers'): create_model('changes-timm/vit_tiny_patch16_224', labels, from_scratch=True)
    monkeypatch.setattr('rpa.networks.find_spec', lambda name: None)
    with pytest.raises(RpaError, match='pip install timm'): create_model('cnn-lstm-timm/resnet18.a1_in1k', labels)
