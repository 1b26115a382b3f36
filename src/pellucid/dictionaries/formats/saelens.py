"""SAELens: `cfg.json` and `sae_weights.safetensors`, a folder a dictionary.

Source: the keys and the arithmetic of SAELens 6. Files of earlier versions, whose places are at the
top level of the configuration, are read too. Encoders are stored [d_in, F].
"""

import json
from pathlib import Path
from typing import Any, ClassVar, final

from torch import Tensor

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.dictionaries.activations import Activation, JumpReLU, ReLU, TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.files import Fields, folders_with, read_json, read_tensors
from pellucid.dictionaries.formats.format import (
    Export,
    WritableFormat,
    model_name_of,
    of_kind,
    set_of,
)
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.parts import Parts, clamped_jumprelu, gated
from pellucid.dictionaries.formats.provenance import write_provenance
from pellucid.dictionaries.formats.sites import (
    Hook,
    hook_name,
    hook_of_name,
    placed,
    site_of_hf_hook,
    site_of_module,
)
from pellucid.dictionaries.formats.tensors import write_tensors
from pellucid.dictionaries.formats.thresholds import as_jumprelu, not_held
from pellucid.dictionaries.sae import SAE
from pellucid.dictionaries.transcoder import Transcoder

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.0.0"  # the configuration's form; without it SAELens takes the file for an older one
_SAES = ("standard", "topk", "jumprelu", "gated")
_TRANSCODERS = (
    *("transcoder", "skip_transcoder"),
    *("jumprelu_transcoder", "jumprelu_skip_transcoder"),
)
_REWRITES = ("center_writing_weights", "fold_ln")
_WHY_NOT = {
    "batchtopk": "whose selection depends on the batch; save it for inference, as JumpReLU",
    "matryoshka_batchtopk": "whose selection depends on the batch; save it for inference",
}


@final
class SAELens(WritableFormat):
    """ReLU, TopK and JumpReLU SAEs; ReLU and JumpReLU transcoders, with or without a skip path."""

    name = "saelens"
    recognised_by = f"{CONFIG} beside {WEIGHTS}"
    patterns: ClassVar = (f"*{CONFIG}", f"*{WEIGHTS}")

    def detect(self, folder: Path) -> bool:
        """By the names of its files."""
        return bool(folders_with(folder, WEIGHTS, CONFIG))

    def read(self, folder: Path, *, host: HostModel | None = None) -> DictionarySet:
        """Normalisation, biases and decoder norms are folded into the weights where they can be."""
        found, names = {}, set()
        for home in folders_with(folder, WEIGHTS, CONFIG):
            config = Fields(home / CONFIG, read_json(home / CONFIG))
            places = _places(config)
            names.add(places.word("model_name"))
            found[home] = _read(home, config, places, host)
        model = names.pop() if len(names) == 1 else None
        return set_of(folder, found, model_name=model)

    def write(self, folder: Path, dictionaries: DictionarySet, export: Export) -> None:
        """One folder a layer, named by the hook it reads."""
        model = model_name_of(dictionaries, export.host)
        for layer, dictionary in dictionaries.dictionaries.items():
            home = folder / hook_name(dictionary.read_site)
            tensors, config = _written(dictionary, layer, export)
            metadata = {
                "sae_lens_version": VERSION,
                "model_name": model,
                "hook_name": hook_name(dictionary.read_site),
                "hook_head_index": None,
                "prepend_bos": True,
            }
            if isinstance(dictionary, Transcoder):
                metadata["hook_name_out"] = hook_name(dictionary.write_site)
            write_tensors(home / WEIGHTS, tensors)
            text = json.dumps(config | {"metadata": metadata}, indent=2)
            (home / CONFIG).write_text(text + "\n", encoding="utf-8")
        write_provenance(folder, dictionaries)


def _places(config: Fields) -> Fields:
    """Where the names of model and hooks are: apart since version 6, at the top before."""
    metadata = config.maybe("metadata")
    if metadata is None:
        old = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index"}
        values = {old.get(name, name): value for name, value in config.values.items()}
        return Fields(config.path, values)
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{config.path} has metadata = {metadata!r}; it should be an object")
    return Fields(config.path, config.values | metadata)


def _read(home: Path, config: Fields, places: Fields, host: HostModel | None) -> Dictionary:
    tensors = Fields(home / WEIGHTS, read_tensors(home / WEIGHTS))
    architecture = _architecture(config)
    if architecture not in _SAES + _TRANSCODERS:
        why = _WHY_NOT.get(architecture, "which pellucid does not know")
        raise DictionaryError(f"{config.path} has the architecture {architecture!r}, {why}")
    if places.maybe("hook_head_index") is not None:
        raise DictionaryError(
            f"{config.path} is about one attention head; pellucid's dictionaries read whole sites"
        )
    _check_unprocessed(places)
    transcodes = architecture in _TRANSCODERS
    parts = _parts(architecture, tensors, config)
    if _is_scaled(config):
        parts = _scaled(config, parts, transcodes)
    tensors.check_empty()
    read, write = _hooks(places, host)
    if not transcodes:
        if not config.flag("apply_b_dec_to_input", True):
            parts = parts.reading_raw()
        return placed(parts, read, read, host)
    if config.flag("apply_b_dec_to_input", False):
        raise DictionaryError(
            f"{config.path} subtracts b_dec from a transcoder's input, which SAELens itself "
            "refuses; pellucid does not know what it means"
        )
    if write is None:
        raise CheckpointError(
            f"{config.path} does not say where the transcoder writes; add hook_name_out to its "
            "metadata"
        )
    return placed(parts, read, write, host)


def _architecture(config: Fields) -> str:
    """The architecture; before version 6 a TopK was an activation of the standard one."""
    architecture = config.word("architecture") or "standard"
    activation = config.word("activation_fn") or config.word("activation_fn_str", "relu")
    if activation not in ("relu", "topk"):
        raise DictionaryError(
            f"{config.path} has the activation {activation!r}; pellucid knows relu and topk"
        )
    if activation == "topk" and architecture == "standard":
        settings = config.maybe("activation_fn_kwargs")
        config.values["k"] = settings.get("k") if isinstance(settings, dict) else None
        return "topk"
    return architecture


def _is_scaled(config: Fields) -> bool:
    """Whether inputs are multiplied by one factor; what no weight can hold is refused."""
    if config.maybe("reshape_activations", "none") not in ("none", None):
        raise DictionaryError(
            f"{config.path} reads all attention heads as one vector; pellucid has no such site"
        )
    normalisation = config.maybe("normalize_activations")
    if normalisation in (None, False, "none"):
        return False
    if normalisation in (True, "expected_average_only_in"):
        return True
    raise DictionaryError(
        f"{config.path} normalises each token ({normalisation!r}), which no weight can hold; "
        "pellucid cannot represent it"
    )


def _check_unprocessed(places: Fields) -> None:
    """Refuse dictionaries of a model whose weights were rewritten on loading.

    TransformerLens can centre what is written to the residual and fold gains into later weights;
    what is read there then is not what the model of Hugging Face has at that place.
    """
    options = places.maybe("model_from_pretrained_kwargs")
    given = options if isinstance(options, dict) else {}
    rewritten = [name for name in _REWRITES if given.get(name)]
    if rewritten:
        raise DictionaryError(
            f"{places.path} is of a model loaded with {' and '.join(rewritten)}, whose residual "
            "stream is not that of the model as it was published; pellucid has no such site"
        )


def _scaled(config: Fields, parts: Parts, transcodes: bool) -> Parts:
    """Fold in the one factor that inputs were multiplied by."""
    factor = config.maybe("norm_scaling_factor")
    if not isinstance(factor, int | float) or factor <= 0 or transcodes:
        raise DictionaryError(
            f"{config.path} scales its inputs by a factor measured on text that the file does not "
            "hold; fold it in with SAELens (fold_activation_norm_scaling_factor) and save again"
        )
    return parts.with_scaled_inputs(float(factor))


def _parts(architecture: str, tensors: Fields, config: Fields) -> Parts:
    encoder: Tensor = tensors.matrix("W_enc", None, None)
    width, num_features = encoder.shape
    W_dec = tensors.matrix("W_dec", num_features, None)
    b_dec = tensors.matrix("b_dec", W_dec.shape[1])
    factor = tensors.maybe("scaling_factor")
    if factor is not None and bool((factor != 1).any()):
        raise DictionaryError(
            f"{tensors.path} has a finetuning scaling factor; fold it into W_dec and save again"
        )
    if architecture == "gated":
        return gated(
            W_enc=encoder.T,
            W_dec=W_dec,
            b_dec=b_dec,
            **{name: tensors.matrix(name, num_features) for name in ("r_mag", "b_mag", "b_gate")},
        )
    skip = None
    if "skip" in architecture:
        skip = tensors.matrix("W_skip", W_dec.shape[1], width)
    parts = Parts(
        W_enc=encoder.T,
        b_enc=tensors.matrix("b_enc", num_features),
        W_dec=W_dec,
        b_dec=b_dec,
        W_skip=skip,
        activation=_activation(architecture, tensors, config, num_features),
    )
    if config.flag("rescale_acts_by_decoder_norm", False):
        parts = parts.selected_by_norm()
    return parts


def _activation(
    architecture: str, tensors: Fields, config: Fields, num_features: int
) -> Activation:
    if architecture == "topk":
        return TopK(config.count("k"))
    if "jumprelu" in architecture:
        return clamped_jumprelu(tensors.matrix("threshold", num_features))
    return ReLU()


def _hooks(places: Fields, host: HostModel | None) -> tuple[Hook, Hook | None]:
    """Where it reads, and where it writes if that is elsewhere.

    A name in Hugging Face's terms is preferred: SAELens calls what Gemma's MLPs read
    `hook_mlp_in`, which in TransformerLens is the residual before the norm.
    """
    output = places.word("hook_name_out")
    by_module = places.word("hf_hook_name"), places.word("hf_hook_name_out")
    if by_module[0] and (by_module[1] or not output):
        read = Hook(site_of_hf_hook(by_module[0], host))
        return read, Hook(site_of_hf_hook(by_module[1], host)) if by_module[1] else None
    name = places.text("hook_name")
    if places.word("model_class_name") == "AutoModelForCausalLM":
        read = Hook(site_of_module(name, "output", host))
        return read, Hook(site_of_module(output, "output", host)) if output else None
    return hook_of_name(name), hook_of_name(output) if output else None


def _written(
    dictionary: Dictionary, layer: int, export: Export
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the configuration of one dictionary."""
    of_kind(dictionary, layer, (SAE, Transcoder), "SAELens")
    is_sae = isinstance(dictionary, SAE)
    activation = dictionary.activation
    what = "SAELens" if is_sae else "a transcoder of SAELens"
    if not (is_sae and isinstance(activation, TopK)) and not isinstance(activation, ReLU):
        activation = as_jumprelu(dictionary, layer, export, what)
    tensors = {
        "W_enc": dictionary.W_enc.T,
        "b_enc": dictionary.b_enc,
        "W_dec": dictionary.W_dec,
        "b_dec": dictionary.b_dec,
    }
    if dictionary.W_skip is not None:
        tensors["W_skip"] = dictionary.W_skip
    config: dict[str, Any] = {
        "architecture": _name_of(activation, is_sae, dictionary.W_skip is not None, layer),
        "d_in": dictionary.d_in,
        "d_sae": dictionary.num_features,
        "dtype": str(dictionary.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": is_sae,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if not is_sae:
        config["d_out"] = dictionary.d_out
    if isinstance(activation, TopK):
        config |= {"k": activation.k, "rescale_acts_by_decoder_norm": False}
    if isinstance(activation, JumpReLU):
        tensors["threshold"] = _not_negative(activation, layer)
    return tensors, config


def _name_of(activation: Activation, is_sae: bool, skips: bool, layer: int) -> str:
    if isinstance(activation, TopK):
        return "topk"
    if not isinstance(activation, ReLU | JumpReLU):
        raise not_held(activation, layer, "SAELens")
    jumps = isinstance(activation, JumpReLU)
    if is_sae:
        return "jumprelu" if jumps else "standard"
    return ("jumprelu_" if jumps else "") + ("skip_" if skips else "") + "transcoder"


def _not_negative(activation: JumpReLU, layer: int) -> Tensor:
    """The thresholds; SAELens takes max(pre, 0), so none may be negative."""
    if bool((activation.threshold < 0).any()):
        raise DictionaryError(
            f"SAELens gives no negative activation, and layer {layer} has a threshold of "
            f"{float(activation.threshold.min()):g}, under which features are active below 0"
        )
    return activation.threshold
