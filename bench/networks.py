"""SlowOnly against pytorchvideo's with the same weights: forward, and forward with the way back, in turn, in the same run.

networks.py [SIDE [FRAMES]]   default: 224 px, 8 frames
"""
import os, sys, time, warnings
import numpy as np
import torch
from rpa.networks import SlowOnly, fit_state, slowonly_state

warnings.simplefilter('ignore') # pytorchvideo is of 2022
from pytorchvideo.models.resnet import create_resnet # noqa: E402


def turns(runs, rounds=9):
    "Median wall time of each, s; they take turns"
    took = {k:[] for k in runs}
    for i in range(rounds+1):
        for k,f in runs.items():
            t = time.perf_counter()
            f()
            if torch.cuda.is_available(): torch.cuda.synchronize()
            if i: took[k].append(time.perf_counter()-t)
    return {k:float(np.median(v)) for k,v in took.items()}


if __name__=='__main__':
    side, frames = [*map(int, sys.argv[1:]), 224, 8][:2] if len(sys.argv)<3 else map(int, sys.argv[1:3])
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    theirs = create_resnet(model_num_class=400, model_depth=50, stem_conv_kernel_size=(1, 7, 7), head_pool_kernel_size=(frames, side//32, side//32)).to(device).eval()
    ours = SlowOnly(400).to(device).eval()
    fit_state(ours, slowonly_state(theirs.state_dict()))
    x = torch.randn(1, frames, 3, side, side, device=device)
    nets = {'pytorchvideo':lambda: theirs(x.transpose(1, 2)), 'ours':lambda: ours(x)}
    with torch.inference_mode():
        a, b = (f() for f in nets.values())
        print(f'{device}, torch {torch.__version__}, {frames} frames of {side} px; logits differ by {float((a-b).abs().max()):.1e} of {float(a.abs().max()):.1e}')
        took = turns(nets)
    print(f"forward: pytorchvideo {took['pytorchvideo']:.3f} s, ours {took['ours']:.3f} s: {took['ours']/took['pytorchvideo']:.2f} (target ≤ 1.0)")
    for net in (theirs, ours): net.train()
    took = turns({k:(lambda f=f: f().sum().backward()) for k,f in nets.items()}, 5)
    print(f"forward and back: pytorchvideo {took['pytorchvideo']:.3f} s, ours {took['ours']:.3f} s: {took['ours']/took['pytorchvideo']:.2f}")
