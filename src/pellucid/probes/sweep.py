"""Probes at many sites of a model, on the same held-out groups, each beside its controls."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Int64

from pellucid.core.errors import DataError
from pellucid.core.types import AnySite, Site
from pellucid.models.model import LanguageModel
from pellucid.probes.controls import Part, Scored, scored
from pellucid.probes.fit import Method
from pellucid.probes.groups import split
from pellucid.probes.probe import Probe
from pellucid.probes.reading import Tokens, read_sites


@final
@dataclass(frozen=True, slots=True)
class Examples:
    """Prompts of two classes.

    Attributes:
        prompts: texts.
        labels: True for positives.
        groups: each prompt's group.
    """

    prompts: list[str]
    labels: Bool[np.ndarray, " N"]
    groups: list[str]


@final
@dataclass(frozen=True, slots=True)
class Sweep:
    """What probes found.

    Attributes:
        sites: where, in the order given.
        found: the probe of each site with its figures.
        test: the rows that none of them was fitted on.
        best: at the site with the highest held-out AUROC, the earliest of equals.
    """

    sites: list[AnySite]
    found: list[Scored]
    test: Int64[np.ndarray, " test"]
    best: Probe

    def layers(self) -> list[dict[str, Any]]:
        """The figures of every site as JSON-able records."""
        return [
            {"site": str(site)} | each.to_json()
            for site, each in zip(self.sites, self.found, strict=True)
        ]


def read_examples(positive: str | Path, negative: str | Path, *, key: str = "group") -> Examples:
    """Prompts of two files: one a line, or JSONL objects with `prompt` and maybe a group.

    Args:
        positive: of the first class.
        negative: of the second.
        key: the field that names a prompt's group; prompts without one are their own group.

    Raises:
        DataError: a file cannot be read, is empty, or has a line that is no prompt.
    """
    prompts: list[str] = []
    groups: list[str] = []
    counts = []
    for path in (Path(positive), Path(negative)):
        rows = _read(path, key)
        counts.append(len(rows))
        prompts += [prompt for prompt, _ in rows]
        groups += [group for _, group in rows]
    return Examples(prompts, np.arange(len(prompts)) < counts[0], groups)


def sweep(
    model: LanguageModel,
    examples: Examples,
    sites: Sequence[AnySite] | None = None,
    *,
    tokens: Tokens = "last",
    method: Method = "logistic",
    seed: int = 0,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> Sweep:
    """Fit a probe at every site on one part of the groups, and measure it on the rest.

    The best site is chosen on the same held-out rows as it is reported on; with many sites and few
    rows its figure is a little too good, and the table of all sites is what to read.

    Args:
        model: the model.
        examples: of both classes.
        sites: where; the residual stream after every block if not given.
        tokens: which tokens are read, see `reading.read_sites`.
        method: `logistic` or `mean_difference`.
        seed: of splits, controls and resamples.
        progress: told how far it is.

    Raises:
        DataError: one class only, or groups that cannot be split.
        PromptError: a prompt that the model cannot be asked.
        SiteError: the model has no such site.
    """
    train, test = split(examples.labels, examples.groups, seed=seed)
    if sites is None:
        sites = [Site("resid_post", layer) for layer in range(model.n_layers)]
    for site in sites:
        model.point(site)
    ids = [model.encode(prompt).tolist() for prompt in examples.prompts]
    progress("reading", 0.0)
    values = read_sites(model, ids, list(sites), tokens=tokens)
    found = []
    for number, site in enumerate(sites):
        progress(str(site), number / len(sites))
        x = values[site].cpu().double().numpy()
        parts = [
            Part(x[rows], examples.labels[rows], [examples.groups[n] for n in rows])
            for rows in (train, test)
        ]
        found.append(scored(*parts, method=method, seed=seed))
    top = max(range(len(found)), key=lambda n: found[n].auroc.value)
    best = Probe.of(sites[top], found[top].line, tokens=tokens, method=method, seed=seed)
    return Sweep(list(sites), found, test, best)


def _read(path: Path, key: str) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); check the path") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            rows.append(
                _example(line, key, f"{path}:{number}")
                if path.suffix == ".jsonl"
                else (line.strip(), line.strip())
            )
    if not rows:
        raise DataError(f"{path} holds no prompt; write one a line")
    return rows


def _example(line: str, key: str, where: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}); write one object a line") from None
    prompt = record.get("prompt") if isinstance(record, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError(f"{where} has no prompt; write an object with prompt and maybe {key}")
    return prompt, str(record.get(key, prompt))
