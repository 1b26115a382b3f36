"""One training step of EleutherAI sparsify, as its trainer takes it. Runs in its environment.

Its default optimizer (Signum under a schedule-free wrapper), loss and count of idle features.
Mode "autocast" runs the forward pass under bfloat16 autocast, which its own decorator does on CUDA
alone: its fastest mode on the CPU.
"""

from collections.abc import Callable

import torch
from schedulefree import ScheduleFreeWrapper
from sparsify import SparseCoder, SparseCoderConfig
from sparsify.sign_sgd import SignSGD

from benchmarks.contestant import Setting, serve


def start(setting: Setting) -> Callable[[], object]:
    config = SparseCoderConfig(num_latents=setting.num_features, k=setting.k, transcode=True)
    device = setting.x.device
    coder = SparseCoder(setting.x.shape[1], config, device=device, dtype=torch.float32)
    coder.b_dec.data = setting.y.mean(dim=0)
    rate = 5e-3 / (setting.num_features / 2**14) ** 0.5
    optimizer = ScheduleFreeWrapper(SignSGD(coder.parameters(), lr=rate), momentum=0.95)
    optimizer.train()
    idle = torch.zeros(setting.num_features, dtype=torch.long, device=device)

    def step() -> float:
        with torch.autocast(device.type, torch.bfloat16, enabled=setting.mode == "autocast"):
            out = coder(setting.x, setting.y)
        fired = torch.zeros_like(idle, dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        out.fvu.backward()
        optimizer.step()
        optimizer.zero_grad()
        idle.add_(len(setting.x))
        idle[fired] = 0
        return float(out.fvu)

    return step


if __name__ == "__main__":
    serve(start, ["eai-sparsify", "torch"])
