"""Flags of `pellucid train` that go with others, or without them: checked before anything else.

A flag that would do nothing is refused, so that nobody believes it did something.
"""

import typer

from pellucid.core.errors import ConfigError

_NEEDS = {
    "cache_dtype": "cache",
    "cache_order": "cache",
    "finetune_tokens": "finetune",
    "dictionaries": "finetune",
}
_OF_FINETUNING = {"model", "data", "out", "finetune", "finetune_tokens", "dictionaries"}
_OF_FINETUNING |= {"context_length", "field", "store", "resume", "checkpoint_every"}
_OF_FINETUNING |= {"json", "seed", "device", "threads", "quiet"}


def check_flags(context: typer.Context, *, under_torchrun: bool, processes: int) -> None:
    """Check which flags are given together.

    Args:
        context: of the command.
        under_torchrun: whether it started this process.
        processes: how many it started.

    Raises:
        ConfigError: a flag that would do nothing, or cannot go with another.
    """
    values = context.params
    for name, needed in _NEEDS.items():
        if _is_given(context, name) and values[needed] is None:
            raise ConfigError(
                f"{_flag(name)} {values[name]} does nothing without {_flag(needed)}; add it"
            )
    if values["layout"] and not under_torchrun:
        raise ConfigError(
            f"--layout {values['layout']} does nothing without torchrun; start torchrun with as "
            "many processes, or leave it out"
        )
    if values["finetune"] is not None:
        _check_finetuning(context, processes)


def _check_finetuning(context: typer.Context, processes: int) -> None:
    values = context.params
    if processes > 1:
        raise ConfigError(
            f"--finetune {values['finetune']} is not spread over processes, of which there are "
            f"{processes}; train first, then fine-tune with --dictionaries in one process"
        )
    by_path = values["read"] is not None or values["write"] is not None
    if values["dictionaries"] is not None:
        others = (name for name in values if name not in _OF_FINETUNING)
        given = next((name for name in others if _is_given(context, name)), None)
        if given:
            raise ConfigError(
                f"{_flag(given)} is a setting of ordinary training, which --dictionaries leaves "
                "out; drop one of the two"
            )
    elif values["kind"] == "sae" or by_path:
        flag = "--read and --write" if by_path else "--kind sae"
        raise ConfigError(
            f"--finetune replaces MLPs by transcoders, which does not go with {flag}; use kind "
            "transcoder or skip-transcoder and its own places"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether the command line sets this parameter."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
