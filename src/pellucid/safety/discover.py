"""Discovery: what sets the attacks apart, and which features do it.

Positives are harmful requests that the model answers. Negatives are harmful requests that it
refuses, and benign text of all kinds: the hard negatives. The raw-activation probe is the baseline
that a feature probe has to be read beside; a bag of words is the baseline of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from pellucid.core.errors import DataError
from pellucid.core.types import AnySite, Site
from pellucid.probes.controls import Part, scored
from pellucid.probes.features import FeatureProbe, fit_features, rank
from pellucid.probes.fit import Choice, cross_validated, fit, logistic, mean_difference
from pellucid.probes.metrics import auroc, separation
from pellucid.probes.probe import Probe
from pellucid.probes.reading import Tokens, read_features, read_sites
from pellucid.safety.candidates import SEARCHED, Candidate, Search, leans, search
from pellucid.safety.evidence import firing_tokens, suspects
from pellucid.safety.readout import Readout, readout_of
from pellucid.safety.requests import BENIGN, HARMFUL, REFUSED, Request, of_part
from pellucid.safety.subject import Progress, Subject, silent
from pellucid.safety.treatment import clamp_features

FEWEST = 10
CLOSE, CLOSE_RECALL = 2e-3, 0.02


@final
@dataclass(frozen=True, slots=True)
class Discovery:
    """What discovery found.

    Attributes:
        requests: observed, of all parts.
        probe: the raw-activation probe.
        candidates: features that hold refusals back; none without dictionaries.
        readout: of the lean to refusing.
        directions: by site, mean of refused less mean of answered harmful requests.
        refusal: by site, mean of refused harmful less mean of answered benign requests.
        record: all figures, JSON-able.
    """

    requests: list[Request]
    probe: Probe
    candidates: list[Candidate]
    readout: Readout
    directions: dict[AnySite, torch.Tensor]
    refusal: dict[AnySite, torch.Tensor]
    record: dict[str, Any]


def default_sites(subject: Subject) -> list[AnySite]:
    """What every MLP reads and the residual stream after every block, in order."""
    layers = range(subject.model.n_layers)
    return [Site(kind, layer) for layer in layers for kind in ("mlp_in", "resid_post")]


def discover(
    subject: Subject,
    requests: Sequence[Request],
    *,
    sites: Sequence[AnySite] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Discovery:
    """Observe a model on a contrast set and find what tells its attacks apart.

    Args:
        subject: the model, its judge, and maybe dictionaries.
        requests: the contrast set, of all parts.
        sites: where the raw probe is tried, in the order of the computation.
        seed: of folds, controls and resamples.
        progress: told how far it is.

    Raises:
        DataError: too few attacks, or a part without attacks or negatives.
    """
    sites = default_sites(subject) if sites is None else list(sites)
    observed = subject.observe(requests, progress)
    fitted, tested = (of_part(observed, part) for part in ("fit", "test"))
    _require_attacks(fitted, tested)
    readout = readout_of(subject, fitted)
    progress("probes", 0.0)
    probe, by_site, values = _raw(subject, fitted, tested, sites, seed)
    directions, refusal = _directions(fitted, values)
    record: dict[str, Any] = {
        "requests": _counts_by_part(observed),
        "raw": {"site": str(probe.site), "sites": by_site},
        "words": _words(subject, fitted, tested, seed),
    }
    features: FeatureProbe | None = None
    candidates: list[Candidate] = []
    if subject.dictionaries is not None:
        progress("features", 0.3)
        features, record["features"] = _feature_probe(subject, fitted, tested, seed)
        progress("search", 0.6)
        candidates, record["candidates"] = _search(subject, fitted, readout)
    progress("evidence", 0.9)
    attacks = subject.ids([r for r in fitted if r.is_attack])
    record["suspects"] = suspects(subject.model, attacks, readout)
    if features is not None and subject.dictionaries is not None:
        places = [*features.features, *(each.site for each in candidates)]
        record["fires_on"] = firing_tokens(subject.model, subject.dictionaries, attacks, places)
    chosen = by_site[[str(site) for site in sites].index(str(probe.site))]
    record |= {key: chosen[key] for key in ("auroc", "low", "high", "recall_at_fpr")}
    return Discovery(observed, probe, candidates, readout, directions, refusal, record)


def _require_attacks(fitted: Sequence[Request], tested: Sequence[Request]) -> None:
    for part, name in ((fitted, "fit"), (tested, "test")):
        harmful = [request for request in part if request.label == HARMFUL]
        attacks = sum(request.is_attack for request in harmful)
        if attacks < FEWEST or len(harmful) - attacks < FEWEST:
            raise DataError(
                f"the model answered {attacks} of {len(harmful)} harmful requests of the part "
                f"{name!r}; discovery needs at least {FEWEST} answered and {FEWEST} refused"
            )


def _counts_by_part(requests: Sequence[Request]) -> dict[str, dict[str, int]]:
    parts = dict.fromkeys(request.part for request in requests)
    return {part: _counts([r for r in requests if r.part == part]) for part in parts}


def _counts(part: Sequence[Request]) -> dict[str, int]:
    harmful = [request for request in part if request.label == HARMFUL]
    return {
        "harmful": len(harmful),
        "answered": sum(request.is_attack for request in harmful),
        "benign": len(part) - len(harmful),
        "benign_refused": sum(r.label == BENIGN and r.behaviour == REFUSED for r in part),
    }


def _raw(
    subject: Subject,
    fitted: Sequence[Request],
    tested: Sequence[Request],
    sites: Sequence[AnySite],
    seed: int,
) -> tuple[Probe, list[dict[str, Any]], dict[AnySite, np.ndarray]]:
    """The probe at the earliest site that is near the best in cross-validation."""
    read = [read_sites(subject.model, subject.ids(part), sites) for part in (fitted, tested)]
    train, test = ({site: v.cpu().double().numpy() for site, v in each.items()} for each in read)
    rows, inner, lines = [], [], []
    for site in sites:
        known, new = _part(train[site], fitted), _part(test[site], tested)
        inner.append(cross_validated(known.x, known.labels, known.groups, seed=seed))
        lines.append(logistic(known.x, known.labels, inner[-1].penalty))
        found = scored(known, new, line=lines[-1], seed=seed)
        figures = separation(lines[-1](new.x), new.labels, new.groups, seed=seed)
        plain = mean_difference(known.x, known.labels)
        rows.append(
            {"site": str(site), "cross_validated": inner[-1]._asdict()}
            | found.to_json()
            | {"recall_at_fpr": figures["recall_at_fpr"]}
            | {"mean_difference": auroc(plain(new.x), new.labels)}
        )
    chosen = _earliest(inner)
    probe = Probe.of(sites[chosen], lines[chosen], method="logistic", penalty=lines[chosen].penalty)
    return probe, rows, train


def _earliest(choices: Sequence[Choice]) -> int:
    """The first site that is near the best in recall without false alarms, and in AUROC."""
    recall = max(each.recall for each in choices) - CLOSE_RECALL
    good = [n for n, each in enumerate(choices) if each.recall >= recall]
    area = max(choices[n].auroc for n in good) - CLOSE
    return next(n for n in good if choices[n].auroc >= area)


def _part(x: np.ndarray, requests: Sequence[Request]) -> Part:
    labels = np.array([request.is_attack for request in requests])
    return Part(x, labels, [request.group for request in requests])


def _directions(
    fitted: Sequence[Request], values: dict[AnySite, np.ndarray]
) -> tuple[dict[AnySite, torch.Tensor], dict[AnySite, torch.Tensor]]:
    attack = np.array([request.is_attack for request in fitted])
    harmful = np.array([request.label == HARMFUL for request in fitted])
    refused = np.array([r.label == HARMFUL and r.behaviour == REFUSED for r in fitted])

    def difference(x: np.ndarray, other: np.ndarray) -> torch.Tensor:
        return torch.tensor(x[refused].mean(0) - x[other].mean(0), dtype=torch.float32)

    return (
        {site: difference(x, attack) for site, x in values.items()},
        {site: difference(x, ~harmful) for site, x in values.items()},
    )


def _words(
    subject: Subject, fitted: Sequence[Request], tested: Sequence[Request], seed: int
) -> dict[str, Any]:
    """A bag of words: what the prompt's tokens tell without the model."""
    ids = [subject.ids(part) for part in (fitted, tested)]
    known = sorted({token for prompt in ids[0] for token in prompt})
    column = {token: number for number, token in enumerate(known)}
    parts = []
    for prompts, requests in zip(ids, (fitted, tested), strict=True):
        x = np.zeros((len(prompts), len(known)))
        for row, prompt in enumerate(prompts):
            for token in prompt:
                if token in column:
                    x[row, column[token]] = 1
        parts.append(_part(x, requests))
    line = fit(parts[0].x, parts[0].labels, parts[0].groups, seed=seed)
    return separation(line(parts[1].x), parts[1].labels, parts[1].groups, seed=seed)


def _feature_probe(
    subject: Subject, fitted: Sequence[Request], tested: Sequence[Request], seed: int
) -> tuple[FeatureProbe, dict[str, Any]]:
    """Sparse probes on features at the last token and anywhere; the better by cross-validation."""
    assert subject.dictionaries is not None
    labels = np.array([request.is_attack for request in fitted])
    groups = [request.group for request in fitted]
    found: dict[Tokens, FeatureProbe] = {}
    choices: tuple[Tokens, ...] = ("max", "last")
    for tokens in choices:
        read = read_features(
            subject.model, subject.ids(fitted), subject.dictionaries, tokens=tokens
        )
        found[tokens] = fit_features(read, labels, groups, seed=seed)
    best = max(choices, key=lambda tokens: max(found[tokens].cross_validated.values()))
    probe = found[best]
    read = read_features(
        subject.model,
        subject.ids(tested),
        subject.dictionaries,
        layers=sorted({each.layer for each in probe.features}),
        tokens=best,
    )
    part = _part(probe.scores(read)[:, None], tested)
    figures = separation(part.x[:, 0], part.labels, part.groups, seed=seed)
    return probe, figures | {"tokens": best} | {"probe": probe.to_json()}


def _search(
    subject: Subject, fitted: Sequence[Request], readout: Readout
) -> tuple[list[Candidate], dict[str, Any]]:
    """Candidates by causal effect, and beside them as many by difference of activation."""
    dictionaries, model = subject.dictionaries, subject.model
    assert dictionaries is not None
    attacks = subject.ids([r for r in fitted if r.is_attack][:SEARCHED])
    refused = [r for r in fitted if r.label == HARMFUL and r.behaviour == REFUSED][:SEARCHED]
    at_refused = read_features(model, subject.ids(refused), dictionaries, tokens="last")
    at_attacks = read_features(model, attacks, dictionaries, tokens="last")
    means = {layer: x.mean(0) for layer, x in at_refused.items()}
    attack_means = {layer: x.mean(0) for layer, x in at_attacks.items()}
    found: Search = search(model, dictionaries, attacks, attack_means, means, readout)
    labels = np.arange(len(attacks) + len(refused)) < len(attacks)
    stacked = {n: torch.cat([at_attacks[n], at_refused[n]]).cpu().numpy() for n in at_refused}
    places = [(layer, i) for layer, x in stacked.items() for i in range(x.shape[1])]
    order = rank(np.concatenate(list(stacked.values()), axis=1), labels)[: len(found.candidates)]
    sites = [type(found.candidates[0].site)(*places[n]) for n in order] if found.candidates else []
    by_activation = clamp_features("", {s: float(means[s.layer][s.feature]) for s in sites})
    lean = leans(model, attacks, readout, by_activation.interventions, dictionaries)
    return found.candidates, {
        "features": [each.to_json() for each in found.candidates],
        "restored": found.restored,
        "lean": found.lean,
        "by_activation": {
            "features": [str(site) for site in sites],
            "restored": float((lean > 0).float().mean()),
            "lean": float(lean.mean()),
        },
    }
