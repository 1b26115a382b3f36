"""Obtaining a model: from the hub, from a folder, or from a module already in memory."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import model_info, try_to_load_from_cache
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from pellucid.core.errors import ConfigError, ModelError
from pellucid.models.arch import ArchSpec
from pellucid.models.conformance import check_model
from pellucid.models.families import FAMILIES, find_spec
from pellucid.models.model import LanguageModel

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_TIMEOUT = 10.0  # seconds
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)


def load_model(
    source: str | Path | nn.Module,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    check: bool = True,
    generic: bool = False,
    weights: bool = True,
) -> LanguageModel:
    """A language model, ready to be read and edited.

    Weights are read from safetensors only, remote code is never run, and a local folder is read
    without touching the network. Attention runs eagerly, because its pattern is needed.

    Args:
        source: a hub id, a local folder, or a module (used as it is: put in eval mode, its
            parameters frozen, its attention made eager).
        tokenizer: instead of the one beside the weights; for a module, None means ids only.
        dtype: of the weights; float32 by default. A module keeps its own unless this is given.
        device: where to put it.
        check: run `conformance.check_model`, a few forwards on eight tokens.
        generic: ignore the family: any transformer loads, from a folder or the hub without its
            head, and only `ModuleSite`s work on it.
        weights: without them only the configuration is read, and the model has shapes but no
            values (torch's "meta" device): enough to plan a training.

    Raises:
        ModelError: not found, unreadable, damaged, or of an unsupported family.
        ConformanceError: it does not behave as its family is described.
        ConfigError: the device is not available.
    """
    place = _device(device if weights else "meta")
    if isinstance(source, nn.Module):
        name = type(source).__name__
        spec = None if generic else _spec_of(source)
        module: Any = source
        if hasattr(module, "set_attn_implementation"):
            module.set_attn_implementation("eager")
    else:
        name = str(source)
        where = _locate(source)
        module, spec = _read_module(where, dtype or torch.float32, generic, weights)
        if weights:
            tokenizer = tokenizer or _read_tokenizer(where)
    module = module.to(place) if dtype is None else module.to(place, dtype)
    model = LanguageModel(module, tokenizer, spec=spec, name=name)
    if check and weights and spec is not None:
        check_model(model)
    return model


def _device(device: str | torch.device) -> torch.device:
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {str(device)!r} is not available ({reason}); use cpu") from None


def _spec_of(module: nn.Module) -> ArchSpec | None:
    """The description of a module in memory, None if its family is not known."""
    spec = find_spec(getattr(module, "config", None))
    if spec is not None and spec.unembedding not in dict(module.named_modules()):
        raise ModelError(
            f"{type(module).__name__} has no language-model head at {spec.unembedding!r}; give the "
            "causal-LM class of the family, or pass generic=True to work by module paths"
        )
    return spec


def _locate(source: str | Path) -> dict[str, Any]:
    """The arguments by which transformers finds a source."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} has no config.json; give a folder written by save_pretrained"
            )
        return {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    if isinstance(source, Path) or folder.exists() or not _HUB_ID.fullmatch(source):
        raise ModelError(
            f"there is no model folder at {str(source)!r}; give a folder written by "
            "save_pretrained, a hub id such as 'openai-community/gpt2', or 'specimen'"
        )
    if try_to_load_from_cache(source, "config.json") is None:
        # One request, where reading the files of an unknown name would retry for half a minute.
        with _reading(f"model {source!r}"):
            model_info(source, timeout=_HUB_TIMEOUT)
    return {"pretrained_model_name_or_path": source}


def _read_module(
    where: dict[str, Any], dtype: torch.dtype, generic: bool, weights: bool
) -> tuple[nn.Module, ArchSpec | None]:
    name = where["pretrained_model_name_or_path"]
    with _reading(f"configuration of {name}"):
        settings, _ = PretrainedConfig.get_config_dict(**where)
        model_type = settings.get("model_type")
    if not generic and model_type not in {FAMILIES[each].model_type for each in FAMILIES}:
        raise ModelError(
            f"{name} is of the family {model_type!r}, which is not supported; use one of "
            f"{', '.join(FAMILIES)}, or train on its modules by path (--read and --write)"
        )
    with _reading(f"configuration of {name}"):
        config = AutoConfig.from_pretrained(**where, trust_remote_code=False)
    spec = None if generic else find_spec(config)
    factory = AutoModel if spec is None else AutoModelForCausalLM
    if not weights:
        with _reading(f"configuration of {name}"), torch.device("meta"):
            module = factory.from_config(
                config, dtype=dtype, attn_implementation="eager", trust_remote_code=False
            )
        return module, spec
    with _reading(f"model {name}"):
        module, report = factory.from_pretrained(
            **where,
            config=config,
            dtype=dtype,
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check_complete(name, report)
    return module, spec


def _check_complete(name: str, report: dict[str, Any]) -> None:
    """Refuse weights that transformers filled up with random numbers.

    An encoder's pooler may be absent: checkpoints with another head do not have it.
    """
    missing = {key for key in report["missing_keys"] if "pooler" not in key}
    reshaped = {key for key, *_ in report["mismatched_keys"]}
    for keys, what in ((missing, "lack"), (reshaped, "have another shape than its config for")):
        if keys:
            raise ModelError(
                f"the weights of {name} {what} {min(keys)!r} ({len(keys)} tensors in all); restore "
                "the files or download them again"
            )


def _read_tokenizer(where: dict[str, Any]) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside the weights, None if a folder holds none."""
    name = where["pretrained_model_name_or_path"]
    is_local = where.get("local_files_only", False)
    if is_local and not any((Path(name) / file).exists() for file in _TOKENIZER_FILES):
        return None
    with _reading(f"tokenizer of {name}"):
        return AutoTokenizer.from_pretrained(**where, trust_remote_code=False)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Read quietly, and turn the many ways in which transformers fails into one error."""
    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except Exception as error:  # tokenizers and safetensors raise bare Exceptions too
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ModelError(
            f"the {what} cannot be read ({reason}); check the name, the files and, for a hub id, "
            "the connection"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()
