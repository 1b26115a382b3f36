"""`pellucid trace --prompts`: many prompts into one dataset, alone or as a rank of torchrun."""

import time
from pathlib import Path
from typing import Any

from pellucid.attribution.many import read_prompts, trace_prompts
from pellucid.cli.ranks import gathered, ranks
from pellucid.cli.run import Run, peak_megabytes
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.model import LanguageModel


def trace_file(
    run: Run,
    model: LanguageModel,
    dictionaries: DictionarySet | None,
    prompts: Path,
    out: Path,
    **settings: Any,
) -> None:
    """Trace this process's share of a file of prompts, and report for all processes."""
    started = time.perf_counter()
    wanted = read_prompts(prompts)
    with ranks() as share:
        with run.counter("prompts traced") as on_progress:
            counts = trace_prompts(
                model,
                wanted,
                dictionaries,
                out,
                share=share,
                on_progress=on_progress,
                seed=run.seed,
                **settings,
            )
        every = gathered(counts, share)
    if share.rank == 0:
        seconds = time.perf_counter() - started
        totals = {key: sum(each[key] for each in every) for key in counts}
        record: dict[str, Any] = totals | {
            "processes": share.world,
            "seconds": seconds,
            "peak_mb": peak_megabytes(),
            "files": {"graphs": str(out)},
        }
        run.report(
            record,
            f"traced {record['traced']} prompts in {seconds:.1f} s with {share.world} "
            f"process{'' if share.world == 1 else 'es'}; {record['found']} were there already",
            f"wrote {out}",
        )
