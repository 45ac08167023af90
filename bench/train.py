"""A training step: our Learner with all its books against transformers.Trainer, same VideoMAE, batch and precision, step by step in turn.

    python bench/train.py [tiny|base] [BATCH] [STEPS] [fp32|bf16]      default: tiny 8 40 fp32 on a processor, base 32 60 bf16 on a graphics card

The network, its start, the clips (ready in memory) and the optimiser are the same; each step ends in the other's turn, so that both see the same
machine. Ours also writes its log and looks at every loss and gradient; the Trainer writes nothing. On a card: share of the peak, H100 989 TFLOP/s.
"""
import sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import torch
from fastai.callback.core import Callback
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer, TrainerCallback, TrainingArguments
from rpa.clips import ClipLoader
from rpa.core import LabelMap
from rpa.models import fresh_model
from rpa.train import KeepBooks, LrSchedule, RunState, make_learner

BASE = dict(image_size=224, patch_size=16, tubelet_size=2, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, initializer_range=.02)
CUDA = torch.cuda.is_available()


class Turns:
    "Two loops, of which one runs at a time, a step each"
    def __init__(self, *names): self.go, self.took, self.began = {n:threading.Semaphore(0) for n in names}, {n:[] for n in names}, {}
    def other(self, name): return next(n for n in self.go if n!=name)

    def start(self, name):
        self.go[name].acquire()
        self.began[name] = time.perf_counter()

    def done(self, name):
        if CUDA: torch.cuda.synchronize()
        self.took[name].append(time.perf_counter()-self.began[name])
        self.go[self.other(name)].release()
        self.start(name)

    def end(self, name):
        for _ in range(10_000): self.go[self.other(name)].release()


class Clips:
    "Ready clips, as both loops read them"
    def __init__(self, n, cfg):
        self.x, self.targets = torch.randint(0, 256, (n, cfg.frames, cfg.size, cfg.size), dtype=torch.uint8), [i%2 for i in range(n)]
        self.cfg, self.seed, self.epoch, self.paths, self.skipped = cfg, 0, 0, [f'{i}.mp4' for i in range(n)], {}
    def __len__(self): return len(self.x)
    def __getitem__(self, i): return self.x[i], self.targets[i]


class ForTrainer(torch.utils.data.Dataset):
    def __init__(self, clips): self.clips = clips
    def __len__(self): return len(self.clips)
    def __getitem__(self, i): return dict(x=self.clips.x[i], labels=self.clips.targets[i])


class WithLoss(nn.Module):
    "The same network, as the Trainer wants it"
    def __init__(self, model): super().__init__(); self.model = model
    def forward(self, x, labels):
        logits = self.model(x)
        return dict(loss=nn.functional.cross_entropy(logits, labels), logits=logits)


class Books(KeepBooks):
    def after_epoch(self): pass # no checkpoint: a step is measured


def ours(model, clips, batch, precision, turns, tmp):
    model.precision, device = precision, 'cuda' if CUDA else 'cpu'
    loaders = [ClipLoader(clips, batch, workers=0, device=device), ClipLoader(Clips(batch, clips.cfg), batch, workers=0, device=device)]
    class Step(Callback):
        order = 100
        def after_batch(self):
            if self.training: turns.done('ours')
    learn = make_learner(model, loaders, 1e-4, cbs=(Step(),))
    turns.start('ours')
    learn.fit(1, cbs=[Books(tmp/'ours', {}, RunState(), 0, quiet=True), LrSchedule(1e-4, 0., 'constant')])


def theirs(model, clips, batch, precision, turns, tmp):
    class Step(TrainerCallback):
        def on_step_end(self, args, state, control, **kw): turns.done('Trainer')
    args = TrainingArguments(str(tmp/'trainer'), per_device_train_batch_size=batch, num_train_epochs=1, learning_rate=1e-4, weight_decay=.05, max_grad_norm=1., lr_scheduler_type='constant',
        optim='adamw_torch_fused', bf16=precision=='bf16', use_cpu=not CUDA, report_to='none', disable_tqdm=True, logging_strategy='no', save_strategy='no', dataloader_num_workers=0, dataloader_pin_memory=CUDA)
    trainer = Trainer(WithLoss(model), args, train_dataset=ForTrainer(clips), callbacks=[Step()])
    turns.start('Trainer')
    trainer.train()


def flops(model, x):
    with FlopCounterMode(display=False) as count: model(x).sum().backward()
    model.zero_grad()
    return count.get_total_flops()


if __name__=='__main__':
    default = ['base', 32, 60, 'bf16'] if CUDA else ['tiny', 8, 40, 'fp32']
    size, batch, steps, precision = [type(d)(a) for a,d in zip(sys.argv[1:], default)]+default[len(sys.argv)-1:]
    labels, sizes = LabelMap({0:'forefoot', 1:'heel'}), BASE if size=='base' else {}
    models = {n:fresh_model(labels, seed=1, **sizes) for n in ('ours', 'Trainer')}
    clips, turns = Clips(batch*steps, models['ours'].input), Turns(*models)
    with tempfile.TemporaryDirectory() as d:
        def loop(name, f):
            try: f(models[name], clips, batch, precision, turns, Path(d))
            finally: turns.end(name)
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(loop, *a) for a in (('ours', ours), ('Trainer', theirs))]
            time.sleep(3 if CUDA else 1) # both are set up before the first begins
            turns.go['ours'].release()
        for r in running: r.result()
    a, b = (np.array(turns.took[n][5:]) for n in ('ours', 'Trainer'))
    pairs = a[:min(len(a), len(b))]/b[:min(len(a), len(b))]
    low, high = np.quantile(np.median(np.random.default_rng(0).choice(pairs, (2000, len(pairs))), axis=1), [.025, .975])
    print(f"{size}, batch {batch}, {precision}, {'cuda' if CUDA else 'cpu'}, torch {torch.__version__}: Trainer {np.median(b)*1e3:.1f} ms a step, ours {np.median(a)*1e3:.1f} ms; "
          f'median of {len(pairs)} pairs {np.median(pairs):.3f}, 95 % {low:.3f} to {high:.3f} (target ≤ 1.02)')
    work = flops(models['ours'].to('cpu'), clips.x[:1])*batch
    print(f'{batch/np.median(a):.1f} clips a second, {work/np.median(a)/1e12:.2f} TFLOP/s'+(f', {work/np.median(a)/989e12:.0%} of the peak' if CUDA and precision=='bf16' else ''))
