"""The dictionaries in training: copies that autograd tracks, each tensor with its unit."""

import copy
import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pellucid.core.errors import DictionaryError
from pellucid.core.types import AnySite, Site
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.sae import SAE
from pellucid.models.model import LanguageModel
from pellucid.replacement.functions import mlp_functions
from pellucid.replacement.local import READABLE_KINDS
from pellucid.training.finetune.config import FinetuneConfig
from pellucid.training.finetune.sparsity import SparsityKeeper

_TRAINED = ("W_enc", "b_enc", "W_dec", "b_dec", "W_skip")
_MOMENTS = ("exp_avg", "exp_avg_sq")


def check_subject(model: LanguageModel, dictionaries: DictionarySet) -> None:
    """Check that the MLPs of a model can be replaced by these dictionaries, all at once.

    Raises:
        DictionaryError: they belong to another model, or some cannot stand in for an MLP.
    """
    dictionaries.check_model(model, every_layer=False)
    for layer, dictionary in dictionaries.dictionaries.items():
        if isinstance(dictionary, SAE):
            raise DictionaryError(
                f"layer {layer} of {dictionaries.name!r} is an SAE at {dictionary.read_site}: it "
                "replaces no MLP, so there is no replaced model to fine-tune; use transcoders"
            )
        site = dictionary.read_site
        if not isinstance(site, Site) or site.kind not in READABLE_KINDS or site.layer != layer:
            raise DictionaryError(
                f"layer {layer} of {dictionaries.name!r} reads {site}; one that replaces an MLP "
                f"reads {', '.join(READABLE_KINDS)} of its layer"
            )
    mlp_functions(dictionaries, dictionaries.layers)


def set_fingerprint(dictionaries: DictionarySet) -> str:
    """A short hash of every tensor of a set, as float32."""
    digest = hashlib.sha256()
    for layer, dictionary in dictionaries.dictionaries.items():
        for name, tensor in sorted(dictionary.tensors().items()):
            digest.update(f"{layer}.{name}{tuple(tensor.shape)};".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class Subject:
    """A set of dictionaries in training, and Adam's state.

    A step of Adam is as large as its learning rate, whatever the gradient, so each tensor has a
    rate of its own: the configured one times its unit, what it would be multiplied by if the
    activations had the mean squared norm of their width and encoder rows norm 1. A rate then means
    the same at every layer, model and convention of scaling.

    Args:
        start: what to begin from; left as it is.
        config: of Adam.

    Attributes:
        start: the dictionaries as they were, in float32.
        trained: those in training.
        keepers: by layer, what holds L0.

    Raises:
        DictionaryError: an activation whose L0 nothing can hold.
    """

    def __init__(self, start: DictionarySet, config: FinetuneConfig) -> None:
        self.start, self.trained = _copy(start), _copy(start)
        self.keepers = {
            layer: SparsityKeeper(self.start[layer], self.trained[layer]) for layer in start.layers
        }
        self._units: list[float] = []
        self._encoder_rate = config.encoder_rate
        self._adam = torch.optim.Adam(
            [{"params": [tensor]} for tensor in self._tensors().values()],
            lr=0.0,
            betas=(config.beta1, config.beta2),
            eps=config.epsilon,
            fused=True,
        )
        for tensor in self._tensors().values():
            tensor.requires_grad_(True)

    def set_units(self, mean_squares: Mapping[AnySite, float]) -> None:
        """Derive each tensor's unit from the mean squares of what is read and written."""
        self._units = []
        for dictionary in self.start:
            read = mean_squares[dictionary.read_site] ** 0.5
            write = mean_squares[dictionary.write_site] ** 0.5
            rows = float(dictionary.W_enc.norm(dim=1).mean())
            activation = rows * read
            units = {"W_enc": rows * self._encoder_rate, "b_enc": activation * self._encoder_rate}
            units |= {"W_dec": write / activation, "b_dec": write, "W_skip": write / read}
            self._units += [units[name] for name in _trained_tensors(dictionary)]

    def step(self, rate: float) -> None:
        """Apply the gradients that have gathered, at a learning rate, and forget them."""
        for group, unit in zip(self._adam.param_groups, self._units, strict=True):
            group["lr"] = rate * unit
            for tensor in group["params"]:
                if tensor.grad is None:  # no feature of the layer was active
                    tensor.grad = torch.zeros_like(tensor)
        self._adam.step()
        self.forget()
        for keeper in self.keepers.values():
            keeper.adjust()

    def forget(self) -> None:
        """Drop the gradients gathered so far."""
        self._adam.zero_grad()

    def settings(self) -> list[float]:
        """The keepers' settings, in the order of the layers."""
        return [keeper.setting for keeper in self.keepers.values()]

    def finished(self) -> dict[int, Dictionary]:
        """The dictionaries as trained so far, by layer, tracked by nothing."""
        return {
            layer: dictionary.requires_grad_(False)
            for layer, dictionary in _copy(self.trained).dictionaries.items()
        }

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors that change, by layer; with `settings`, `restore` goes on bit for bit."""
        parts: dict[str, dict[str, Tensor]] = {f"layer_{n}": {} for n in self.trained.layers}
        for (layer, name), tensor in self._tensors().items():
            part, state = parts[f"layer_{layer}"], self._adam.state[tensor]
            part[name] = tensor.detach()
            part |= {f"{moment}.{name}": state[moment] for moment in _MOMENTS}
        return parts

    def restore(
        self, parts: Mapping[str, Mapping[str, Tensor]], settings: list[float], steps: int
    ) -> None:
        """Go on from `tensors` and the keepers' settings, taken after `steps` steps."""
        for (layer, name), tensor in self._tensors().items():
            part = parts[f"layer_{layer}"]
            tensor.data.copy_(part[name])
            self._adam.state[tensor] = {
                moment: part[f"{moment}.{name}"].to(tensor.device) for moment in _MOMENTS
            } | {"step": torch.tensor(float(steps), device=tensor.device)}
        for keeper, setting in zip(self.keepers.values(), settings, strict=True):
            keeper.restore(setting)

    def _tensors(self) -> dict[tuple[int, str], nn.Parameter]:
        return {
            (layer, name): tensor
            for layer, dictionary in self.trained.dictionaries.items()
            for name, tensor in _trained_tensors(dictionary).items()
        }


def _trained_tensors(dictionary: Dictionary) -> dict[str, nn.Parameter]:
    found = {name: getattr(dictionary, name) for name in _TRAINED}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _copy(dictionaries: DictionarySet) -> DictionarySet:
    """Copies in float32, which tensors mapped from files become too."""
    copies = {
        layer: copy.deepcopy(dictionary).to(torch.float32)
        for layer, dictionary in dictionaries.dictionaries.items()
    }
    return DictionarySet(dictionaries.name, copies, dictionaries.manifest)
