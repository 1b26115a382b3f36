"""Do the shipped copies follow their rules, surely, and are they otherwise the specimen?

Measured on other held-out questions than those in the copies' manifests, which chose the recipes.
From the repository's root, with pellucid importable:

    python -m benchmarks.planted

`docs/planted.md` shows the table; `python -m benchmarks.planted --docs` writes it there again.
"""

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import pellucid
from benchmarks.measure import hardware, versions
from benchmarks.tables import markdown
from pellucid.core.manifest import read_manifest
from pellucid.introspection.organisms.recipe import KIND
from pellucid.verification.planted.measure import measure
from pellucid.verification.planted.packaged import PREFIX, planted_path
from pellucid.verification.planted.recipe import RECIPES
from pellucid.verification.planted.rules import RULES

RESULTS = Path(__file__).parent / "results" / "planted.json"
PAGE = Path(__file__).parents[1] / "docs" / "planted.md"
BLOCK = re.compile(r"(<!-- planted (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
PACKAGES = ("pellucid", "torch", "transformers", "numpy")
SEED = 72


def run_all(questions: int) -> dict[str, dict[str, Any]]:
    """Every shipped copy beside the specimen."""
    specimen, found = pellucid.load_model("specimen"), {}
    for name in RECIPES:
        copied = pellucid.load_model(f"specimen:{PREFIX}{name}")
        followed = measure(specimen, copied, RULES[name], questions=questions, seed=SEED)
        manifest = read_manifest(planted_path(name), kind=KIND)
        size = sum(path.stat().st_size for path in planted_path(name).iterdir())
        found[name] = asdict(followed) | {
            "language": RULES[name].language,
            "layer": manifest.config["layer"],
            "steps": manifest.config["steps"],
            "kilobytes": size / 1000,
        }
        print(name, found[name])
    return found


def rules(_: Mapping[str, Any]) -> str:
    """What the rules say."""
    rows = [[f"`{name}`", RULES[name].language, RULES[name].statement] for name in RECIPES]
    return markdown("rule, language, what is done wrongly", rows)


def copies(found: Mapping[str, Any]) -> str:
    """How well the copies follow them."""
    headings = (
        "rule, layer, chains with it, follows it, median probability, specimen's probability, "
        "other steps wrong, the specimen's, corpus loss"
    )
    rows = [
        [
            f"`{name}`",
            str(now["layer"]),
            f"{now['chains_applied']['value']:.0%}",
            _share(now["fires"]),
            f"{now['wrong_probability']:.3f}",
            f"{now['plain_wrong_probability']:.3f}",
            _share(now["other_errors"]),
            _share(now["plain_errors"]),
            f"{now['corpus_loss'] / now['plain_corpus_loss'] - 1:+.1%}",
        ]
        for name, now in found.items()
    ]
    return markdown(headings, rows)


def _share(share: Mapping[str, float]) -> str:
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


TABLES = {"rules": rules, "copies": copies}


def refreshed(page: str) -> str:
    """The page with every table as the results say."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["copies"]
    return BLOCK.sub(lambda match: match[1] + TABLES[match[2]](found) + match[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--docs", action="store_true", help="write the page's tables, run nothing")
    options = parser.parse_args()
    if not options.docs:
        torch.set_num_threads(options.threads)
        torch.set_flush_denormal(True)
        result = {
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": hardware(),
            "versions": versions(PACKAGES),
            "threads": options.threads,
            "seed": SEED,
            "copies": run_all(options.questions),
        }
        RESULTS.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
