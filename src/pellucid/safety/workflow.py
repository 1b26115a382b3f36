"""The workflow: five stages over one folder, each resumable and each checked against the others."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

from pellucid.core.errors import CheckpointError
from pellucid.core.types import AnySite
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.model import LanguageModel
from pellucid.safety import stage
from pellucid.safety.audit import audit
from pellucid.safety.calibrate import calibrate
from pellucid.safety.discover import discover
from pellucid.safety.guard import Guard, guard_record, load_guard
from pellucid.safety.judge import RefusalJudge
from pellucid.safety.requests import Request
from pellucid.safety.saved import read_discovery, record_of, write_data
from pellucid.safety.stage import Record
from pellucid.safety.subject import Progress, Subject, silent
from pellucid.safety.validate import validate

STAGES = ("discover", "validate", "calibrate", "audit")
HEADLINES = ("auroc", "recall_at_fpr", "benign_kl", "attack_success")


@final
class Workflow:
    """One folder, one model.

    Args:
        root: the folder; made by `discover`.
        model: under examination.
        dictionaries: of its features; None to go without.
        seed: of all randomness.
        progress: told the stage at hand and the share of it that is done.
    """

    def __init__(
        self,
        root: str | Path,
        model: LanguageModel,
        dictionaries: DictionarySet | None = None,
        *,
        seed: int = 0,
        progress: Progress = silent,
    ) -> None:
        self.root = Path(root)
        self.model = model
        self.dictionaries = dictionaries
        self._seed = seed
        self._progress = progress
        self._fingerprint = model.fingerprint()

    def discover(
        self,
        requests: Sequence[Request],
        judge: RefusalJudge,
        *,
        sites: Sequence[AnySite] | None = None,
        max_new_tokens: int = 12,
    ) -> Record:
        """Observe the model on a contrast set and find what sets its attacks apart.

        Args:
            requests: the contrast set.
            judge: of the answers, in this stage and all later ones.
            sites: where probes are tried; see `discover.default_sites`.
            max_new_tokens: of an answer.

        Raises:
            DataError: the contrast set does not serve.
            StorageError: the disk refuses.
        """
        lines = "".join(json.dumps(asdict(request)) for request in requests)
        config = {
            "requests": hashlib.sha256(lines.encode()).hexdigest(),
            "sites": None if sites is None else [str(site) for site in sites],
            "seed": self._seed,
            "judge": list(judge.phrases),
            "max_new_tokens": max_new_tokens,
        }
        parents = self._parents() | self._dictionary_parent()

        def make() -> tuple[Record, Callable[[Path], list[str]]]:
            subject = self._subject(judge, max_new_tokens)
            found = discover(
                subject, requests, sites=sites, seed=self._seed, progress=self._progress
            )
            settings = {"judge": list(judge.phrases), "max_new_tokens": max_new_tokens}
            return record_of(found) | settings, lambda folder: write_data(folder, found)

        return self._made("discover", config, parents, make)

    def validate(self) -> Record:
        """Edit what was found and watch the behaviour, beside controls.

        Raises:
            CheckpointError: there is no discovery yet, or of another model.
            DataError: too few attacks.
        """
        config, parents = {"seed": self._seed}, self._parents("discover")

        def make() -> tuple[Record, Callable[[Path], list[str]]]:
            subject, found = self._found()
            record = validate(subject, found, seed=self._seed, progress=self._progress)
            return record, _nothing_more

        return self._made("validate", config, parents, make)

    def calibrate(self, *, fpr: float | None = None) -> Record:
        """Set the gate's threshold and choose the treatment.

        Args:
            fpr: see `calibrate.calibrate`.

        Raises:
            CheckpointError: there is no discovery yet, or of another model.
            ConfigError: `fpr` is out of range.
            DataError: too few attacks.
            InterventionError: no treatment can be used.
        """
        config, parents = {"fpr": fpr}, self._parents("discover")

        def make() -> tuple[Record, Callable[[Path], list[str]]]:
            subject, found = self._found()
            made = calibrate(subject, found, fpr=fpr, progress=self._progress)
            return made.record | {"guard": guard_record(made)}, _nothing_more

        return self._made("calibrate", config, parents, make)

    def guard(self) -> Guard:
        """The calibrated guard.

        Raises:
            CheckpointError: not calibrated yet, or another model.
        """
        return load_guard(self.root, self.model, self.dictionaries)

    def audit(self) -> Record:
        """Measure the guard on held-out requests.

        Raises:
            CheckpointError: not calibrated yet, or another model.
            DataError: too few attacks.
        """
        config = {"seed": self._seed}
        guard, parents = self.guard(), self._parents("discover", "calibrate")

        def make() -> tuple[Record, Callable[[Path], list[str]]]:
            subject, found = self._found()
            record = audit(subject, found, guard, seed=self._seed, progress=self._progress)
            return record, _nothing_more

        return self._made("audit", config, parents, make)

    def headline(self) -> Record:
        """The four figures that the stages made so far have, the latest of each, and intervals.

        Returns:
            `auroc`, `recall_at_fpr` by rate, `benign_kl` and `attack_success{before,after}`, None
            where no stage has measured it; `intervals` has the same with (low, high) pairs.
        """
        record: Record = dict.fromkeys(HEADLINES) | {"intervals": {}}
        for name in STAGES:
            try:
                made = stage.read_stage(self.root, name, fingerprint=self._fingerprint)
            except CheckpointError:
                continue
            for key, value in _figures(name, made).items():
                record[key] = _part(value, "value")
                record["intervals"][key] = _ends(value)
        return record

    def _subject(self, judge: RefusalJudge, max_new_tokens: int) -> Subject:
        return Subject(
            model=self.model,
            judge=judge,
            dictionaries=self.dictionaries,
            max_new_tokens=max_new_tokens,
        )

    def _found(self) -> tuple[Subject, Any]:
        found = read_discovery(self.root, fingerprint=self._fingerprint)
        judge = RefusalJudge(tuple(found.record["judge"]))
        return self._subject(judge, found.record["max_new_tokens"]), found

    def _parents(self, *stages: str) -> dict[str, str]:
        for name in stages:
            stage.read_stage(self.root, name, fingerprint=self._fingerprint)
        hashes = {name: stage.stage_hash(self.root, name) for name in stages}
        return hashes | {stage.MODEL: self._fingerprint}

    def _dictionary_parent(self) -> dict[str, str]:
        if self.dictionaries is None:
            return {}
        self.dictionaries.check_model(self.model, every_layer=False)
        manifest = self.dictionaries.manifest
        files = json.dumps(manifest.files if manifest else self.dictionaries.name, sort_keys=True)
        return {"dictionaries": hashlib.sha256(files.encode()).hexdigest()}

    def _made(
        self,
        name: str,
        config: Mapping[str, Any],
        parents: Mapping[str, str],
        make: Callable[[], tuple[Record, Callable[[Path], list[str]]]],
    ) -> Record:
        """The stage's figures, from its folder if it was made just so before."""
        record = stage.finished(self.root, name, config, parents)
        if record is not None:
            return record
        record, write = make()
        return stage.write_stage(
            self.root, name, record, config=config, parents=parents, write=write
        )


def _nothing_more(_folder: Path) -> list[str]:
    return []


def _figures(name: str, made: Record) -> Record:
    """What a stage says of the headlines, every figure with value, low and high."""
    if name == "discover":
        own = {key: made[key] for key in ("low", "high")}
        return {"auroc": {"value": made["auroc"], **own}, "recall_at_fpr": made["recall_at_fpr"]}
    if name == "calibrate":
        recalls = {rate: each["recall"] for rate, each in made["recall_at_fpr"].items()}
        return {"recall_at_fpr": recalls, "attack_success": _pair(made["attack_success"])}
    if name == "audit":
        kept = {key: made[key] for key in ("auroc", "recall_at_fpr", "benign_kl")}
        return kept | {"attack_success": _pair(made["attack_success"])}
    return {}


def _pair(record: Record) -> Record:
    return {key: record[key] for key in ("before", "after")}


def _part(figure: Record, key: str) -> Any:
    if "value" in figure:
        return figure[key]
    return {name: _part(each, key) for name, each in figure.items()}


def _ends(figure: Record) -> Any:
    if "value" in figure:
        return [figure["low"], figure["high"]]
    return {name: _ends(each) for name, each in figure.items()}
