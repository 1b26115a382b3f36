"""One training step of SAELens' trainer on a TopK SAE. Runs in its environment.

It trains SAEs, not transcoders, so it reconstructs x. Mode "autocast" is its bfloat16 setting.
"""

from collections.abc import Callable
from itertools import repeat

from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from benchmarks.contestant import Setting, serve


def start(setting: Setting) -> Callable[[], object]:
    n_tokens, width = setting.x.shape
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(d_in=width, d_sae=setting.num_features, k=setting.k)
    )
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=1000 * n_tokens,
            train_batch_size_samples=n_tokens,
            lr_end=3e-5,  # a tenth of the default rate, as its runner sets it
            autocast=setting.mode == "autocast",
        ),
        sae,
        repeat(setting.x),
    )

    def step() -> None:
        trainer.step(setting.x)
        trainer.n_training_steps += 1

    return step


if __name__ == "__main__":
    serve(start, ["sae-lens", "torch"])
