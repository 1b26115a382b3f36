"""`pellucid train --finetune`: the pass after ordinary training, and what it shows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.table import Table

from pellucid.cli.run import Run
from pellucid.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from pellucid.models.model import LanguageModel
    from pellucid.training.finetune.comparison import Comparison
    from pellucid.training.finetune.drift import Spread

Finetune = Literal["kl", "local"]
BEFORE = "before"
"""Where in `--out` ordinary training leaves its dictionaries when fine-tuning follows."""
_TAKEN = {"model", "data", "out", "finetune", "finetune_tokens", "dictionaries"}
_TAKEN |= {"context_length", "field", "store", "resume", "checkpoint_every"}
_TAKEN |= {"json", "seed", "device", "threads", "quiet"}


def check_flags(context: typer.Context) -> None:
    """Check the flags of fine-tuning before anything is computed.

    Raises:
        ConfigError: one that would do nothing, or that fine-tuning cannot go with.
    """
    values = context.params
    if values["finetune"] is None:
        for name in ("finetune_tokens", "dictionaries"):
            if values[name] is not None:
                raise ConfigError(
                    f"{_flag(name)} {values[name]} does nothing without --finetune; add it"
                )
        return
    by_path = values["read"] is not None or values["write"] is not None
    if values["dictionaries"] is not None:
        given = [name for name in values if name not in _TAKEN and _is_given(context, name)]
        if given:
            raise ConfigError(
                f"{_flag(given[0])} is a setting of ordinary training, which --dictionaries "
                "leaves out; drop one of the two"
            )
    elif values["kind"] == "sae" or by_path:
        flag = "--read and --write" if by_path else "--kind sae"
        raise ConfigError(
            f"--finetune replaces MLPs by transcoders, which does not go with {flag}; use kind "
            "transcoder or skip-transcoder and its own places"
        )


def check_alone(finetune: Finetune | None, processes: int) -> None:
    """Fine-tuning is the work of one process.

    Raises:
        ConfigError: there are several.
    """
    if finetune is not None and processes > 1:
        raise ConfigError(
            f"--finetune {finetune} is not spread over processes, of which there are {processes}; "
            "train first, then fine-tune with --dictionaries in one process"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether the command line sets this parameter."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def run_finetune(
    run: Run,
    model: "LanguageModel",
    dictionaries: str | Path,
    data: list[str],
    out: Path,
    *,
    objective: Finetune,
    tokens: int | None,
    store: "torch.dtype",
    ordinary: dict[str, Any] | None,
    **options: Any,
) -> None:
    """Fine-tune a set and report it.

    Args:
        run: the invocation.
        model: whose MLPs are replaced.
        dictionaries: what to begin from.
        data: the text.
        out: folder to write.
        objective: see `FinetuneConfig`.
        tokens: how many; the default if None.
        store: what the dictionaries are stored as.
        ordinary: the record of the ordinary training before, if there was one.
        options: of `pellucid.training.finetune.finetune`.
    """
    from pellucid import api
    from pellucid.cli.tables import fidelity_table
    from pellucid.training.finetune import finetune

    if tokens is not None:
        options["tokens"] = tokens
    with run.finetuning() as on_progress:
        result = finetune(
            model,
            api.load_dictionaries(dictionaries, device=run.device),
            data,
            out,
            objective=objective,
            seed=run.seed,
            store_dtype=store,
            on_progress=on_progress,
            **options,
        )
    record = result.to_json()
    if ordinary is not None:
        record["ordinary"] = ordinary
    run.report(
        record,
        fidelity_table(result.layers),
        _predictions(result.comparison),
        _drift(result.comparison),
        f"{result.comparison.ce_gap_closed.value:.0%} of the cross-entropy gap closed (95%: "
        f"{result.comparison.ce_gap_closed.low:.0%} to {result.comparison.ce_gap_closed.high:.0%}),"
        f" {result.comparison.kl_closed.value:.0%} of the KL divergence",
        f"figures on {result.measured_on}; {result.tokens_per_second:,.0f} tokens/s",
        f"wrote {result.out}",
    )


def _predictions(comparison: "Comparison") -> Table:
    """Predictions with all MLPs replaced, before and after."""
    table = Table(title="All MLPs replaced at once", title_justify="left")
    for column in ("", "CE", "KL", "same top token", "loss recovered"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("nothing (the original)", f"{comparison.original_ce:.4f}", "0", "100%", "1")
    for name, each in (("before", comparison.before), ("after", comparison.after)):
        figures = [f"{each.ce:.4f}", f"{each.kl:.4f}", f"{each.top1:.1%}"]
        table.add_row(name, *figures, f"{each.loss_recovered:.4f}")
    return table


def _drift(comparison: "Comparison") -> Table:
    """How far features moved, by layer."""
    columns = ["layer", "FVU before", "L0 before", "encoder cosine", "decoder cosine"]
    columns += ["same tokens", "changed", "born", "died"]
    table = Table(title="Drift of the features (median, 5% quantile)", title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "layer" else "right")
    for layer in comparison.layers:
        drift = layer.drift
        spreads = (drift.encoder_cosine, drift.decoder_cosine, drift.same_tokens)
        table.add_row(
            str(layer.before.layer),
            f"{layer.before.fvu:.4f}",
            f"{layer.before.l0:.1f}",
            *map(_spread, spreads),
            f"{drift.changed:.1%}",
            str(drift.born),
            str(drift.died),
        )
    return table


def _spread(spread: "Spread") -> str:
    return f"{spread.median:.3f}, {spread.low:.3f}"
