"""TransformerLens' side of the patching benchmark: its own `get_act_patch_resid_pre`."""

import torch
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from benchmarks.peers.patching_task import PatchingTask, Sweep, serve


def prepare(task: PatchingTask) -> dict[str, Sweep]:
    model = TransformerBridge.boot_transformers(task.model, device="cpu")
    clean, corrupt = torch.tensor([task.clean]), torch.tensor([task.corrupt])
    patching.tqdm = lambda rows, **_: rows

    def sweep() -> list[list[float]]:
        _, cache = model.run_with_cache(clean)
        return patching.get_act_patch_resid_pre(
            model,
            corrupt,
            cache,
            lambda logits: logits[0, -1, task.answer] - logits[0, -1, task.other],
        ).tolist()

    return {"TransformerLens get_act_patch_resid_pre": sweep}


if __name__ == "__main__":
    serve(prepare, ["transformer-lens"])
