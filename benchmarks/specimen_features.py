"""What are the packaged transcoders' features like, one by one?

Dead, dense and near-duplicate features of every layer, and how features stand for the concepts that
the specimen's corpus is annotated with, beside random dictionaries and shuffled labels. From the
repository's root, with pellucid importable (about a minute on one thread):

    python -m benchmarks.specimen_features [--tokens 50000]
"""

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.measure import hardware, versions
from pellucid import api
from pellucid.evaluation.concepts import measure_concepts
from pellucid.evaluation.duplicates import near_duplicates
from pellucid.evaluation.rows import EvaluationRows
from pellucid.harvest.fidelity import measure_dictionaries
from pellucid.harvest.text import SpecimenText

RESULTS = Path(__file__).parent / "results" / "specimen_features.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=50_000)
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    model, dictionaries = api.load_model("specimen"), api.load_dictionaries("specimen")
    rows = EvaluationRows(SpecimenText(split="heldout"), model, tokens=options.tokens)
    sites = [site for each in dictionaries for site in (each.read_site, each.write_site)]
    fidelity = measure_dictionaries(
        dictionaries.dictionaries, rows.activations(sites), tokens=rows.tokens
    )
    result = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": hardware(),
        "versions": versions(("torch", "pellucid")),
        "tokens": rows.tokens,
        "layers": [
            layer.to_json() | {"duplicates": asdict(near_duplicates(dictionary))}
            for layer, dictionary in zip(fidelity, dictionaries, strict=True)
        ],
        "concepts": [
            asdict(report)
            for report in measure_concepts(model, dictionaries, tokens=options.tokens)
        ],
    }
    RESULTS.write_text(json.dumps(result) + "\n", encoding="utf-8")
    from benchmarks.tables import table

    print(table("specimen_features"))
    print(table("concepts"))


if __name__ == "__main__":
    main()
