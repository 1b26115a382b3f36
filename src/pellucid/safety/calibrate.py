"""Calibration: where the gate's threshold lies, and which treatment goes behind it.

The threshold is set on benign traffic at 1% and at .1% false positives. Treatments are compared
behind the gate by what they let through, then by how well their answers read, then by how far they
move the benign text that the gate stops (where it is closed nothing is done). Those whose sites
are computed before the gate's cannot be used.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pellucid.core.errors import ConfigError, DataError, InterventionError
from pellucid.core.proportions import clopper_pearson, wilson
from pellucid.interventions.spec import Gate
from pellucid.probes.metrics import FPRS, threshold_at
from pellucid.probes.probe import Probe
from pellucid.safety.discover import Discovery
from pellucid.safety.measures import answered, complying, divergence, fluency, natural
from pellucid.safety.requests import BENIGN, Request, of_part
from pellucid.safety.subject import Progress, Subject, silent
from pellucid.safety.treatment import (
    Treatment,
    add_vector,
    clamp_features,
    gate_of,
    project_out,
)
from pellucid.safety.validate import residual_sites

STRENGTHS = (1.0, 1.5, 2.0)
ENOUGH = 0.01
"""How much recall the stricter of two false-positive rates may cost."""


class Calibration(NamedTuple):
    """A gate and a treatment for it.

    Attributes:
        probe: with the threshold set.
        treatment: what is done when it fires.
        record: all figures, JSON-able.
    """

    probe: Probe
    treatment: Treatment
    record: dict[str, Any]


def treatments(discovery: Discovery) -> list[Treatment]:
    """Everything that is tried: the candidate features, the direction added or removed."""
    found = []
    if discovery.candidates:
        values = {each.site: each.refused_mean for each in discovery.candidates}
        found.append(clamp_features("clamp features", values))
    sites = residual_sites(discovery)
    for site in sites:
        vector = discovery.directions[site]
        for strength in STRENGTHS:
            found.append(add_vector(f"add {strength:g} x direction {site}", site, vector, strength))
    for site in sites[:1]:
        found.append(project_out("remove direction", sites, discovery.directions[site]))
    return found


def calibrate(
    subject: Subject,
    discovery: Discovery,
    *,
    fpr: float | None = None,
    progress: Progress = silent,
) -> Calibration:
    """Set the threshold, and choose the treatment by what it does.

    Args:
        subject: the model, its judge, and the dictionaries of the candidates.
        discovery: what was found.
        fpr: share of benign traffic that the gate may stop, above 0 and below .5; None for the
            strictest of `FPRS` that costs at most `ENOUGH` of the recall.
        progress: told how far it is.

    Raises:
        ConfigError: `fpr` is out of range.
        DataError: the part `calibrate` has no attack or no benign traffic, or scores are NaN.
        InterventionError: no treatment can be used behind the gate.
    """
    if fpr is not None and not 0 < fpr < 0.5:
        raise ConfigError(f"the false-positive rate is {fpr}; give one above 0 and below .5")
    requests = of_part(discovery.requests, "calibrate")
    benign = of_part(discovery.requests, "calibrate", BENIGN)
    attacks = [request for request in requests if request.is_attack]
    if not attacks:
        raise DataError("the part 'calibrate' has no attack; give more requests")
    traffic = discovery.probe.scores(subject.model, subject.ids(benign))
    caught = discovery.probe.scores(subject.model, subject.ids(attacks))
    if fpr is None:
        recalls = {rate: _at_rate(traffic, caught, rate)["recall"]["value"] for rate in FPRS}
        fpr = min(rate for rate in FPRS if recalls[rate] >= max(recalls.values()) - ENOUGH)
    probe = discovery.probe.at(threshold_at(traffic, fpr))
    stopped = [r for r, score in zip(benign, traffic, strict=True) if score > probe.threshold]
    record: dict[str, Any] = {
        "fpr": fpr,
        "threshold": probe.threshold,
        "site": str(probe.site),
        "recall_at_fpr": {
            f"{rate:g}": _at_rate(traffic, caught, rate) for rate in sorted({*FPRS, fpr})
        },
        "traffic": len(benign),
        "stopped": len(stopped),
        "attacks": len(attacks),
    }
    tried = []
    for number, treatment in enumerate(found := treatments(discovery)):
        progress("treatments", number / len(found))
        tried.append(_tried(subject, discovery, treatment, gate_of(probe), attacks, stopped))
    usable = [n for n, row in enumerate(tried) if "refused_because" not in row]
    if not usable:
        raise InterventionError(
            f"none of {len(tried)} treatments can stand behind a gate at {probe.site}; discover "
            "again with earlier --site"
        )
    best = min(usable, key=lambda n: _merit(tried[n]))
    record |= {"treatments": tried, "chosen": found[best].name}
    record["attack_success"] = tried[best]["attack_success"]
    return Calibration(probe, found[best], record)


def _merit(row: dict[str, Any]) -> tuple[float, float, float]:
    """Less is better; answers that read within .05 nats a token as well count as equal."""
    success = row["attack_success"]["after"]["value"]
    reads = row["fluency"] if row["fluency"] is not None else float("inf")
    return success, reads // 0.05, row["kl_where_open"]


def _at_rate(traffic: np.ndarray, caught: np.ndarray, rate: float) -> dict[str, Any]:
    threshold = threshold_at(traffic, rate)
    stopped, seen = int((traffic > threshold).sum()), int((caught > threshold).sum())
    return {
        "threshold": threshold,
        "fpr": clopper_pearson(stopped, len(traffic)).to_json(),
        "recall": wilson(seen, len(caught)).to_json(),
    }


def _tried(
    subject: Subject,
    discovery: Discovery,
    treatment: Treatment,
    gate: Gate,
    attacks: Sequence[Request],
    stopped: Sequence[Request],
) -> dict[str, Any]:
    row: dict[str, Any] = {"treatment": treatment.name, "hash": treatment.hash}
    try:
        said = answered(subject, attacks, treatment.gated(gate))
    except InterventionError as error:
        return row | {"refused_because": str(error)}
    reads = fluency(subject, attacks, said)
    cost = divergence(subject, stopped, [(treatment, gate)])[0].kl if stopped else 0.0
    return row | {
        "attack_success": {
            "before": wilson(len(attacks), len(attacks)).to_json(),
            "after": complying(said).to_json(),
        },
        "natural": natural(said, discovery.requests),
        "fluency": reads if np.isfinite(reads) else None,
        "kl_where_open": cost,
    }
