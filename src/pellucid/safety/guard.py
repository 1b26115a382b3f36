"""The guard: generation with a gate on every row, and a trail that says what it did."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

import torch

from pellucid.core.errors import CheckpointError, PromptError
from pellucid.core.files import storage_errors
from pellucid.core.types import parse_site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.generate import generate
from pellucid.interventions.receipts import Receipt
from pellucid.interventions.spec import Gate, Intervention
from pellucid.models.model import LanguageModel
from pellucid.probes.probe import Probe
from pellucid.safety.calibrate import Calibration
from pellucid.safety.stage import read_stage
from pellucid.safety.subject import BATCH, Progress, silent
from pellucid.safety.treatment import Treatment, gate_of

STAGE = "calibrate"
GUARDED, PASSED = "guarded", "passed"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """What came out of the guard.

    Attributes:
        texts: one answer a prompt.
        readings: of the gate, one a prompt.
        actions: `guarded` or `passed`, one a prompt, as the receipt has it.
        receipts: what was edited, one a batch.
        entries: of the audit trail.
    """

    texts: list[str]
    readings: list[float]
    actions: list[str]
    receipts: list[Receipt]
    entries: list[dict[str, Any]]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guard:
    """A gate and what is done when it opens, around a model's generation.

    Attributes:
        model: the model.
        probe: the gate's, with its threshold.
        treatment: the edit.
        dictionaries: of the features that it names.
    """

    model: LanguageModel
    probe: Probe
    treatment: Treatment
    dictionaries: DictionarySet | None = None

    @property
    def gate(self) -> Gate:
        """The gate, reading each prompt's last token."""
        return gate_of(self.probe)

    @property
    def interventions(self) -> list[Intervention]:
        """The gated edits: one list for all rows, as each row's gate decides for it."""
        return self.treatment.gated(self.gate)

    def answer(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 16,
        trail: str | Path | None = None,
        progress: Progress = silent,
        **options: Any,
    ) -> Guarded:
        """Answer prompts, editing only the rows whose gate opens.

        Args:
            prompts: texts.
            max_new_tokens: the most tokens of an answer.
            trail: a JSONL file that gets one line a prompt, batch by batch; None for none.
            progress: told how far it is.
            **options: of `interventions.generate`.

        Raises:
            PromptError: no prompts, or one that the model cannot be asked.
            StorageError: the disk refuses the trail.
        """
        if isinstance(prompts, str) or not len(prompts):
            raise PromptError(f"prompts is {prompts!r}; give a list of at least one text")
        ids = [self.model.encode(prompt).tolist() for prompt in prompts]
        made = Guarded(texts=[], readings=[], actions=[], receipts=[], entries=[])
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            readings = self.probe.scores(self.model, part).tolist()
            answer = generate(
                self.model,
                part,
                self.interventions,
                max_new_tokens=max_new_tokens,
                dictionaries=self.dictionaries,
                **options,
            )
            actions = _actions(answer.receipt, len(part))
            entries = self._entries(prompts[start : start + BATCH], readings, actions)
            if trail is not None:
                _append(Path(trail), entries)
            made.texts.extend(answer.texts)
            made.readings.extend(readings)
            made.actions.extend(actions)
            made.receipts.append(answer.receipt)
            made.entries.extend(entries)
            progress("answers", min(start + BATCH, len(ids)) / len(ids))
        return made

    def _entries(
        self, prompts: Sequence[str], readings: Sequence[float], actions: Sequence[str]
    ) -> list[dict[str, Any]]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        fixed = {
            "site": str(self.probe.site),
            "threshold": self.probe.threshold,
            "intervention": self.treatment.hash,
            "model": self.model.fingerprint(),
        }
        return [
            {
                "time": now,
                "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
                "reading": reading,
                "action": action,
            }
            | fixed
            for prompt, reading, action in zip(prompts, readings, actions, strict=True)
        ]


def _actions(receipt: Receipt, rows: int) -> list[str]:
    """What was done to each row, as the receipt has it."""
    edited = {row for site in receipt.sites for row, *counts in site.by_row if any(counts)}
    return [GUARDED if row in edited else PASSED for row in range(rows)]


def guard_record(calibration: Calibration) -> dict[str, Any]:
    """The gate and the treatment of a calibration, JSON-able and exact."""
    probe = calibration.probe
    return {
        "probe": {
            "site": str(probe.site),
            "vector": [float(value) for value in probe.vector],
            "bias": probe.bias,
            "threshold": probe.threshold,
            "tokens": probe.tokens,
        },
        "treatment": calibration.treatment.to_json(),
    }


def load_guard(
    root: str | Path, model: LanguageModel, dictionaries: DictionarySet | None = None
) -> Guard:
    """The guard that a workflow's calibration chose.

    Args:
        root: the workflow's folder.
        model: the model it was made for.
        dictionaries: of the features that its treatment names.

    Raises:
        CheckpointError: not calibrated yet, damaged, or of another model.
        DictionaryError: dictionaries of another model.
    """
    record = read_stage(Path(root), STAGE, fingerprint=model.fingerprint())
    try:
        probe, treatment = record["guard"]["probe"], record["guard"]["treatment"]
        probe = probe | {"site": parse_site(probe["site"]), "vector": torch.tensor(probe["vector"])}
        found = Guard(
            model=model,
            probe=Probe(**probe),
            treatment=Treatment.from_json(treatment),
            dictionaries=dictionaries,
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{root} has a calibration without {error}; run `pellucid safety calibrate` again"
        ) from None
    if dictionaries is not None:
        dictionaries.check_model(model, every_layer=False)
    return found


def _append(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in entries))
            file.flush()
            os.fsync(file.fileno())
