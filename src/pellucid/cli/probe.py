"""`pellucid probe`: linear probes at every layer, beside their controls."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.run import Run
from pellucid.core.errors import ConfigError

Positive = Annotated[
    Path,
    typer.Option("--positive", metavar="FILE", help="Prompts: one a line, or JSONL with `prompt`."),
]
Negative = Annotated[
    Path, typer.Option("--negative", metavar="FILE", help="Prompts of the other class.")
]
Groups = Annotated[
    str,
    typer.Option(
        "--groups",
        metavar="KEY",
        help="Field of the JSONL objects that names a prompt's group; no group is in training and "
        "test at once.",
    ),
]
Sites = Annotated[
    list[str] | None,
    typer.Option(
        "--site", metavar="SITE", help="As in mlp_in@2; repeatable; resid_post of all layers."
    ),
]
ReadAt = Annotated[str, typer.Option("--tokens", help="last, mean or max over the prompt.")]
How = Annotated[str, typer.Option("--method", help="logistic or mean_difference.")]


def probe(
    run: Run,
    model: options.Model,
    positive: Positive,
    negative: Negative,
    out: options.OutFolder,
    groups: Groups = "group",
    site: Sites = None,
    tokens: ReadAt = "last",
    method: How = "logistic",
) -> None:
    """Fit probes that tell two files of prompts apart, and measure them on held-out groups.

    Beside each probe stand probes of shuffled labels and random directions. The best probe is
    written to --out; its direction is then removed from the model, beside a random one, because
    what can be read need not be used.
    """
    from rich.table import Table

    from pellucid import api
    from pellucid.core.types import parse_site
    from pellucid.probes.fit import check_method
    from pellucid.probes.probe import save_probe
    from pellucid.probes.reading import check_tokens
    from pellucid.probes.sweep import read_examples, sweep

    started = time.perf_counter()
    check_tokens(tokens)
    check_method(method)
    if out.is_file():
        raise ConfigError(f"--out {out} is a file; give a folder")
    examples = read_examples(positive, negative, key=groups)
    sites = None if site is None else [parse_site(text) for text in site]
    loaded = api.load_model(model, device=run.device)
    with run.stages() as on_progress:
        found = sweep(
            loaded,
            examples,
            sites,
            tokens=tokens,  # type: ignore[arg-type]
            method=method,  # type: ignore[arg-type]
            seed=run.seed,
            progress=on_progress,
        )
        save_probe(out, found.best, model_fingerprint=loaded.fingerprint())
        checked = _removed(loaded, found.best, [examples.prompts[n] for n in found.test], run.seed)
    table = Table("site", "AUROC (held out)", "shuffled", "random")
    for row in found.layers():
        area = f"{row['auroc']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
        table.add_row(row["site"], area, f"{row['shuffled']:.3f}", f"{row['random']:.3f}")
    effect = checked["effect"]
    record = {"layers": found.layers(), "best": str(found.best.site), "out": str(out)} | checked
    run.report(
        record | {"seconds": time.perf_counter() - started},
        table,
        f"removing the direction at {found.best.site} moves the next token by {effect['kl']:.4f} "
        f"nats, a random one by {effect['kl_random']:.4f}",
        f"wrote {out}",
    )


def _removed(model: Any, probe: Any, prompts: list[str], seed: int) -> dict[str, Any]:
    """What the model does without the probe's direction at the last token, and a random one."""
    import torch

    from pellucid.interventions.operations import ProjectOut
    from pellucid.interventions.run import run as forward
    from pellucid.interventions.spec import Intervention
    from pellucid.interventions.where import at

    prompts = prompts[:128]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(probe.vector), generator=generator)
    with torch.no_grad():
        plain = forward(model, prompts).last.float().log_softmax(-1)
        moved, receipts = [], []
        for vector in (probe.vector, drawn):
            made = forward(model, prompts, [Intervention(probe.site, ProjectOut(vector), at(-1))])
            edited = made.last.float().log_softmax(-1)
            moved.append(float((plain.exp() * (plain - edited)).sum(-1).mean()))
            receipts.append(made.receipt)
    return {
        "effect": {"kl": moved[0], "kl_random": moved[1], "prompts": len(prompts)},
        "receipt": receipts[0].to_json(),
    }
