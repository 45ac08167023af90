"""The gait model from its ONNX files against PyTorch eager: one window at a time, in the same run, on as many threads.

gait_onnx.py [THREADS …]   default: 1 and every core

The network has the document's sizes (3 layers of 256, 8 heads, 30 frames × 132) and random weights, which cost what trained ones
do. The three take turns, a call each; the median of each counts. Targets: ONNX at most half of PyTorch's time, the int8 file at most
30 % of the float32 file. Then the model of the package (`GaitModel('gait')`) against PyTorch eager at its own sizes.
"""
import os, platform, sys, tempfile, time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from rpa.core import read_json
from rpa.gait_train import OPSET, fresh_net, write_int8, write_onnx
from rpa.sequences import ONNX, gait_bundle


def session(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


def turns(runs, rounds=300):
    "Median wall time of each, ms; they take turns"
    took = {k:[] for k in runs}
    for i in range(rounds+20):
        for k,f in runs.items():
            t = time.perf_counter()
            f()
            if i>=20: took[k].append(time.perf_counter()-t)
    return {k:1000*float(np.median(v)) for k,v in took.items()}


def one(net, files, threads):
    torch.set_num_threads(threads)
    x, mask = torch.randn(1, 30, 132), torch.ones(1, 30, dtype=torch.bool)
    feed, sessions = dict(pose_sequence=x.numpy(), mask=mask.numpy()), {k:session(p, threads) for k,p in files.items()}
    def eager():
        with torch.inference_mode(): net(x, mask)
    took = turns({'PyTorch eager':eager, **{k:(lambda s=s: s.run(None, feed)) for k,s in sessions.items()}})
    for k,ms in took.items():
        print(f'{threads} thread{"s"*(threads>1)}, {k:14} {ms:6.2f} ms a window, {ms/took["PyTorch eager"]:.2f} of PyTorch', flush=True)


if __name__=='__main__':
    print(f'{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, '
          f'onnxruntime {ort.__version__}, opset {OPSET}')
    threads = [int(a) for a in sys.argv[1:]] or sorted({1, len(os.sched_getaffinity(0))})
    net = fresh_net().eval()
    with tempfile.TemporaryDirectory() as d:
        full = write_onnx(net, Path(d)/'gait_model.onnx')
        files = {'ONNX float32':full, 'ONNX int8':write_int8(full, Path(d)/'gait_model_int8.onnx')}
        sizes = {k:p.stat().st_size for k,p in files.items()}
        print(f'{sizes["ONNX float32"]/1e6:.1f} MB float32, {sizes["ONNX int8"]/1e6:.1f} MB int8: {sizes["ONNX int8"]/sizes["ONNX float32"]:.0%}')
        for n in threads: one(net, files, n)
    folder = gait_bundle('gait')
    sizes = {k:v for k,v in read_json(folder/'config.json').items() if k!='model_type'}
    print(f'the model of the package: {sum(p.stat().st_size for p in folder.glob("*.onnx"))/1e6:.1f} MB in both files')
    for n in threads: one(fresh_net(**sizes).eval(), {'ONNX float32':folder/ONNX[False], 'ONNX int8':folder/ONNX[True]}, n)
