"""Watching a chain: each step gets a free score when it is complete, and a graph if that leaves
doubt."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import ConfigError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.graphs.graph import AttributionGraph
from pellucid.models.model import LanguageModel
from pellucid.verification.reading.confidence import CONFIDENCE, confidence_scores
from pellucid.verification.reading.reader import Reader, ReaderSettings, StepReading
from pellucid.verification.verifier.verifier import FREE, Verifier
from pellucid.verification.watching.accused import Accused, accused_features, reasons
from pellucid.verification.watching.band import AGREEMENT, Band, choose_band
from pellucid.verification.watching.row import as_steps
from pellucid.verification.watching.segments import EXPRESSIONS, Segment, segmenter
from pellucid.verification.watching.streaming import prompt_ids, stream

_GRAPH = "graph."


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """How a chain is written, cut and judged.

    Attributes:
        by: `expressions`, or a rule of `chains.cutting.separator` for free text.
        language: of expressions; found from the prompt if None.
        max_new_tokens: the most tokens of the chain; what the context leaves if None.
        temperature: 0 for greedy.
        seed: of sampling.
        threshold: probability from which on a step is flagged; the verifier's own if None.
        banded: let the free score decide where it decides as the verifier does.
        agreement: share of such decisions that must be the verifier's.
        stop: write no further after the first flagged step.
        features: how many accused features a flagged step names.
        keep_graphs: keep the graphs of steps (a page shows them).

    Raises:
        ConfigError: the threshold or the agreement is no share.
    """

    by: str = EXPRESSIONS
    language: str | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    threshold: float | None = None
    banded: bool = True
    agreement: float = AGREEMENT
    stop: bool = False
    features: int = 3
    keep_graphs: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ConfigError(f"the threshold is {self.threshold}; give a probability above 0")
        if not 0 < self.agreement <= 1:
            raise ConfigError(f"the agreement is {self.agreement}; give a share above 0")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedStep:
    """A step and what is thought of it.

    Attributes:
        segment: the step.
        score: its free score, None where no free score decides.
        graphed: whether its graph was needed; else the free score decided.
        probability: that it is wrong: the verifier's, or without a graph the share of wrong steps
            among training steps of such a free score.
        interval: of that.
        flagged: whether it is called wrong.
        reasons: columns that speak most against it, with what each adds to the log-odds.
        accused: features of its graph that speak against it; only of flagged steps with a graph.
        seconds: processor time that judging took (writing it is not counted).
        graphs: by target, where they are kept.
    """

    segment: Segment
    score: float | None
    graphed: bool
    probability: float
    interval: tuple[float, float] | None
    flagged: bool
    reasons: tuple[tuple[str, float], ...] = ()
    accused: tuple[Accused, ...] = ()
    seconds: float = 0.0
    graphs: dict[str, AttributionGraph] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-able, without the graphs."""
        place = self.segment.place
        return {
            "number": self.segment.number,
            "text": self.segment.text,
            "before": self.segment.before,
            "start": place.start,
            "stop": place.stop,
            "score": self.score,
            "graphed": self.graphed,
            "probability": self.probability,
            "interval": None if self.interval is None else list(self.interval),
            "flagged": self.flagged,
            "reasons": [{"column": name, "contribution": value} for name, value in self.reasons],
            "accused": [each.to_json() for each in self.accused],
            "seconds": self.seconds,
        }


class Watcher:
    """Watches chains of one model with one verifier.

    Args:
        model: the model under test.
        dictionaries: transcoders of every layer.
        verifier: fitted on steps of this model.
        settings: how chains are written, cut and judged.

    Attributes:
        band: where the free score leaves doubt; None where every step gets a graph.
        needs_graphs: whether the verifier reads graphs at all.

    Raises:
        ConfigError: the verifier was fitted with other dictionaries.
        DictionaryError: the dictionaries do not fit the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        dictionaries: DictionarySet,
        verifier: Verifier,
        settings: WatchSettings | None = None,
    ) -> None:
        self.model, self.verifier = model, verifier
        self.settings = settings or WatchSettings()
        fitted = verifier.record.get("dictionaries")
        if fitted is not None and fitted != dictionaries.name:
            raise ConfigError(
                f"the verifier was fitted with the dictionaries {fitted!r}, not "
                f"{dictionaries.name!r}; give those, or fit a verifier with these"
            )
        self.needs_graphs = any(name.startswith(_GRAPH) for name in verifier.columns)
        self._reader = Reader(model, dictionaries, _reading(verifier))
        self.band = band_of(verifier, self.settings) if self.settings.banded else None

    def watch(self, prompt: str | Sequence[int]) -> Iterator[WatchedStep]:
        """Write a chain and give out each step as it is complete, judged.

        Args:
            prompt: text or ids; for expressions a question and its first `=`.

        Raises:
            PromptError: the prompt cannot be asked, or does not fit the way of cutting.
        """
        now = self.settings
        ids = prompt_ids(self.model, prompt)
        begin, logits, done = len(ids), list[Tensor](), 0
        language = now.language or _language(self.model.token_texts(ids))
        cutting = segmenter(self.model, ids, by=now.by, language=language)
        tokens = stream(
            self.model,
            ids,
            max_new_tokens=now.max_new_tokens,
            temperature=now.temperature,
            seed=now.seed,
        )
        for ended, token in _with_end(tokens):
            if token is not None:
                ids.append(token.id)
                logits.append(token.logits)
            segments = cutting.complete(ids, ended=ended)
            for segment in segments[done:]:
                first = segment.place.start - begin
                mine = torch.stack(logits[first : segment.place.stop - begin])
                step = self.judge(segment, ids, mine, language)
                yield step
                if step.flagged and now.stop:
                    return
            done = len(segments) or done

    def summary(self, steps: Sequence[WatchedStep]) -> dict[str, Any]:
        """What was watched and what it cost, JSON-able.

        Args:
            steps: of one chain.
        """
        count = max(len(steps), 1)
        return {
            "steps": [step.to_json() for step in steps],
            "flagged": [step.segment.number for step in steps if step.flagged],
            "graphed_share": sum(step.graphed for step in steps) / count,
            "seconds_per_step": sum(step.seconds for step in steps) / count,
            "stopped": bool(steps) and steps[-1].flagged and self.settings.stop,
            "band": None if self.band is None else self.band.to_json(),
            "promise": self.verifier.conformal.statement(),
        }

    def judge(
        self, segment: Segment, ids: Sequence[int], logits: Float[Tensor, "T V"], language: str
    ) -> WatchedStep:
        """Judge one complete step.

        Args:
            segment: the step.
            ids: the chain so far.
            logits: that its tokens were drawn from.
            language: of the chain.
        """
        started = time.process_time()
        place = segment.place
        score = None
        if self.band is not None:
            answer = (place.answer[0] - place.start, place.answer[1] - place.start)
            written = torch.tensor(list(ids[place.start : place.stop]))
            score = confidence_scores(logits, written, answer)[self.band.column.removeprefix(FREE)]
            decided = self.band.decides(score)
            if decided is not None:
                share = self.band.side(score).wrong
                assert share is not None, "no training step is on a side that decides"
                return WatchedStep(
                    segment=segment,
                    score=score,
                    graphed=False,
                    probability=share.value,
                    interval=(share.low, share.high),
                    flagged=decided,
                    seconds=time.process_time() - started,
                )
        reading = self._reader.chain(list(ids)).step(place)
        found = self._verdict(segment, reading, language)
        return WatchedStep(
            segment=segment,
            score=score,
            graphed=bool(reading.graphs),
            seconds=time.process_time() - started,
            graphs=dict(reading.graphs) if self.settings.keep_graphs else {},
            **found,
        )

    def _verdict(self, segment: Segment, reading: StepReading, language: str) -> dict[str, Any]:
        """What the whole verifier says of a step that was read."""
        verifier, row = self.verifier, as_steps(segment, [reading.columns], language)
        probability = float(verifier.probability(row)[0])
        limit = self.settings.threshold
        flagged = bool(verifier.flags(row)[0]) if limit is None else probability >= limit
        ends = verifier.interval(row)[0] if verifier.refits else None
        count = self.settings.features if flagged else 0
        return {
            "probability": probability,
            "interval": None if ends is None else (float(ends[0]), float(ends[1])),
            "flagged": flagged,
            "reasons": reasons(verifier, row),
            "accused": accused_features(verifier, segment, reading, language, count=count),
        }


def watch(
    model: LanguageModel,
    dictionaries: DictionarySet,
    verifier: Verifier,
    prompt: str | Sequence[int],
    settings: WatchSettings | None = None,
) -> Iterator[WatchedStep]:
    """Let a model write a chain, and judge each step as it is complete.

    Args:
        model: the model under test.
        dictionaries: transcoders of every layer.
        verifier: fitted on steps of this model.
        prompt: text or ids; for expressions a question and its first `=`.
        settings: how the chain is written, cut and judged.

    Raises:
        ConfigError: the verifier was fitted with other dictionaries.
        DictionaryError: the dictionaries do not fit the model.
        PromptError: the prompt cannot be asked, or does not fit the way of cutting.
    """
    return Watcher(model, dictionaries, verifier, settings).watch(prompt)


def band_of(verifier: Verifier, settings: WatchSettings) -> Band | None:
    """The band of a verifier, from the margins that it keeps of its training steps.

    Each of them is from a fit without the step's question. There is no band without free scores
    that can be had while writing, or where the threshold differs by length.

    Args:
        verifier: with its training record.
        settings: the threshold and the agreement.
    """
    kept = verifier.training
    names = {f"{FREE}{form}{name}" for name in CONFIDENCE for form in ("", "answer.")}
    free = {name: kept[name] for name in sorted(names & set(kept))}
    if not free or (settings.threshold is None and len(verifier.conformal.margins) > 1):
        return None
    margin = kept["margin"]
    if settings.threshold is None:
        flagged = margin >= verifier.conformal.margins[0]
    else:
        flagged = verifier.calibration(margin) >= settings.threshold
    wrong = np.asarray(kept["wrong"]).astype(bool)
    return choose_band(free, flagged, wrong, kept["weight"], agreement=settings.agreement)


def _reading(verifier: Verifier) -> ReaderSettings:
    """What has to be read for a verifier: its targets, with as many features as it learned from."""
    read = dict(verifier.record.get("readings") or {}).get("settings") or {}
    targets = {name.split(".")[1] for name in verifier.columns if name.startswith(_GRAPH)}
    known = {"max_features": int(read["max_features"])} if "max_features" in read else {}
    return ReaderSettings(targets=tuple(sorted(targets)), tokens=False, **known)  # type: ignore[arg-type]


def _with_end(tokens: Iterator[Any]) -> Iterator[tuple[bool, Any]]:
    for token in tokens:
        yield False, token
    yield True, None


def _language(words: Sequence[str]) -> str:
    logical = {"true", "false", "and", "or", "xor", "not"}
    return "boolean" if logical & {word.strip().lower() for word in words} else "arithmetic"
