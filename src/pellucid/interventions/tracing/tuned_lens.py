"""The tuned lens: an affine translator a layer, trained to say what the model will (Belrose 2023).

    lens_l(h) = unembed(norm(h + h A_l + b_l)),   trained to minimise KL(final || lens_l)

A and b begin at 0, where the tuned lens is the logit lens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.core.files import atomic_directory
from pellucid.core.manifest import Manifest, read_manifest
from pellucid.core.types import AnySite, Site
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.live import LiveActivations
from pellucid.harvest.sources import open_text
from pellucid.harvest.stream import ActivationStream
from pellucid.harvest.text import TextSource
from pellucid.interventions.tracing.lens import divergence
from pellucid.models.model import LanguageModel
from pellucid.models.resume import read_out

KIND = "tuned-lens"
_FILE = "translators.safetensors"
_MODEL = "model"
_ROW_LENGTH = 128
_FILL = 8
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TunedLens:
    """Translators of a model's residuals.

    Attributes:
        weight: A of every layer.
        bias: b of every layer.
        fingerprint: of the model.
    """

    weight: Float[Tensor, "L d d"]
    bias: Float[Tensor, "L d"]
    fingerprint: str

    def __call__(self, layer: int, hidden: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
        """Residuals before a layer as residuals of the last."""
        return hidden + hidden @ self.weight[layer].to(hidden) + self.bias[layer].to(hidden)

    def check_model(self, model: LanguageModel) -> None:
        """Refuse any model but the one that the lens was trained on.

        Raises:
            CheckpointError: it is another.
        """
        if model.fingerprint() != self.fingerprint:
            raise CheckpointError(
                f"the tuned lens was trained on another model (fingerprint {self.fingerprint}) "
                f"than {model.name} ({model.fingerprint()}); train one for it"
            )

    def save(self, folder: Path, *, config: Mapping[str, Any] | None = None) -> Path:
        """Write translators and manifest into a folder, atomically.

        Args:
            folder: where to; replaced if it exists.
            config: how it was trained (JSON-able).

        Raises:
            StorageError: the disk refuses.
        """
        manifest = Manifest(
            kind=KIND, config=dict(config or {}), parents={_MODEL: self.fingerprint}
        )
        tensors = {"weight": self.weight.cpu().contiguous(), "bias": self.bias.cpu().contiguous()}
        with atomic_directory(Path(folder)) as temporary:
            save_file(tensors, temporary / _FILE)
            manifest.write(temporary, [_FILE])
        return Path(folder)


def load_tuned_lens(folder: Path) -> TunedLens:
    """The lens that `TunedLens.save` wrote.

    Raises:
        CheckpointError: nothing there, or damaged.
    """
    manifest = read_manifest(Path(folder), kind=KIND)
    tensors = load_file(Path(folder) / _FILE)
    if set(tensors) != {"weight", "bias"}:
        raise CheckpointError(
            f"{folder} holds {sorted(tensors)} and not weight and bias; train the lens again"
        )
    return TunedLens(
        weight=tensors["weight"], bias=tensors["bias"], fingerprint=manifest.parents[_MODEL]
    )


def train_tuned_lens(
    model: LanguageModel,
    data: str | Path | TextSource,
    *,
    steps: int = 250,
    batch_tokens: int = 256,
    rate: float = 2e-3,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> TunedLens:
    """Train translators on text, all layers at once, by Adam with a rate that falls to 0.

    Args:
        model: whose residuals are read.
        data: text, as for training; the part that is not held out is used.
        steps: of training.
        batch_tokens: tokens of a step.
        rate: of learning at the start.
        seed: of the order of the text.
        on_progress: called with how many steps are done, and of how many.

    Raises:
        ConfigError: sizes that make no training.
        DataError: the text cannot be read.
    """
    if steps < 1:
        raise ConfigError(f"steps is {steps}; give a positive number")
    shape = model.n_layers, model.d_model, model.d_model
    weight = torch.zeros(shape, device=model.device, requires_grad=True)
    bias = torch.zeros(shape[:2], device=model.device, requires_grad=True)
    lens = TunedLens(weight=weight, bias=bias, fingerprint=model.fingerprint())
    adam = torch.optim.Adam([weight, bias], lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, total_iters=steps)
    stream = _stream(model, open_text(data, seed=seed).split("train"), batch_tokens, seed)
    for step in range(steps):
        values = next(stream).values
        with torch.enable_grad():
            loss = torch.stack(_divergences(model, values, lens)).mean(1).sum()
            adam.zero_grad()
            loss.backward()
        adam.step()
        schedule.step()
        if on_progress is not None:
            on_progress(step + 1, steps)
    return TunedLens(weight=weight.detach(), bias=bias.detach(), fingerprint=lens.fingerprint)


@torch.no_grad()
def evaluate_lenses(
    model: LanguageModel,
    lens: TunedLens,
    data: str | Path | TextSource,
    *,
    tokens: int = 4096,
    seed: int = 0,
) -> dict[str, list[float]]:
    """KL(final || lens) a layer in nats, on held-out text, of the two lenses and two controls.

    Args:
        model: whose residuals are read.
        lens: trained on it.
        data: text; the held-out part is used.
        tokens: how many.
        seed: of the order and of the control's shuffling.

    Returns:
        `logit`, `tuned`, `shuffled` (the tuned lens through an unembedding with shuffled rows) and
        `unigram` (the mean final prediction, whatever the residual), each one number a layer.

    Raises:
        CheckpointError: the lens belongs to another model.
        DataError: the text cannot be read.
    """
    lens.check_model(model)
    stream = _stream(model, open_text(data, seed=seed).split("heldout"), tokens, seed, fill=1)
    values = next(stream).values
    final = read_out(model, values[_final(model)]).log_softmax(-1)
    order = torch.randperm(model.vocab_size, generator=torch.Generator().manual_seed(seed))
    order = order.to(final.device)
    plain = [each.mean().item() for each in _divergences(model, values, None)]
    tuned = [each.mean().item() for each in _divergences(model, values, lens)]
    shuffled = [each.mean().item() for each in _divergences(model, values, lens, order)]
    unigram = divergence(final, final.exp().mean(0).log().expand_as(final)).mean().item()
    return {
        "logit": plain,
        "tuned": tuned,
        "shuffled": shuffled,
        "unigram": [unigram] * model.n_layers,
    }


def _divergences(
    model: LanguageModel,
    values: Mapping[AnySite, Float[Tensor, "N d"]],
    lens: TunedLens | None,
    order: Tensor | None = None,
) -> list[Float[Tensor, " N"]]:
    """KL of every token, a list over layers."""
    with torch.no_grad():
        final = read_out(model, values[_final(model)].to(model.dtype)).float().log_softmax(-1)
    found = []
    for layer in range(model.n_layers):
        hidden = values[Site("resid_pre", layer)]
        hidden = hidden if lens is None else lens(layer, hidden)
        log_q = read_out(model, hidden.to(model.dtype)).float().log_softmax(-1)
        found.append(divergence(final, log_q if order is None else log_q[:, order]))
    return found


def _final(model: LanguageModel) -> Site:
    return Site("resid_post", model.n_layers - 1)


def _stream(
    model: LanguageModel, text: TextSource, batch_tokens: int, seed: int, fill: int = _FILL
) -> ActivationStream:
    config = HarvestConfig(context_length=min(_ROW_LENGTH, model.context_length))
    sites = [Site("resid_pre", layer) for layer in range(model.n_layers)]
    return ActivationStream(
        LiveActivations(model, text, [*sites, _final(model)], config),
        batch_tokens=batch_tokens,
        fill_batches=fill,
        seed=seed,
    )
