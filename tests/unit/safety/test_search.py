"""The causal search against exact ablation, on a tiny random model."""

import pytest
import torch

from pellucid.core.errors import DataError
from pellucid.core.places import FeatureSite
from pellucid.models.load import load_model
from pellucid.probes.reading import read_features
from pellucid.safety.candidates import leans, search
from pellucid.safety.discover import discover
from pellucid.safety.judge import RefusalJudge
from pellucid.safety.readout import Readout, readout_of
from pellucid.safety.requests import Request
from pellucid.safety.subject import Subject
from pellucid.safety.treatment import clamp_features
from support.tiny_dictionaries import tiny_transcoders
from support.tiny_models import tiny_model, word_tokenizer

READOUT = Readout((5, 6, 7), (20, 21))
ATTACKS = [[1, 8, 9, 10], [1, 11, 12], [1, 13, 14, 15, 16]]
REFUSED = [[1, 30, 31], [1, 32, 33, 34]]


@pytest.fixture(scope="module")
def parts():
    model = load_model(tiny_model("llama"), tokenizer=word_tokenizer())
    dictionaries = tiny_transcoders(model)
    means = [
        {n: x.mean(0) for n, x in read_features(model, p, dictionaries, tokens="last").items()}
        for p in (ATTACKS, REFUSED)
    ]
    return model, dictionaries, means


def test_the_readout_is_the_log_odds(parts) -> None:
    logits = torch.randn(3, 67)
    p = logits.softmax(-1)
    expected = (p[:, [5, 6, 7]].sum(1) / p[:, [20, 21]].sum(1)).log()
    torch.testing.assert_close(READOUT(logits), expected)


def test_first_round_predictions_are_derivatives(parts) -> None:
    model, dictionaries, (attacks, refused) = parts
    found = search(model, dictionaries, ATTACKS, attacks, refused, READOUT)
    plain = leans(model, ATTACKS, READOUT)
    step = 1e-2
    for each in [c for c in found.candidates if c.round == 1]:
        site = each.site
        read = read_features(model, ATTACKS, dictionaries, tokens="last")[site.layer]
        change = []
        for row, prompt in enumerate(ATTACKS):
            now = float(read[row, site.feature])
            part = clamp_features("", {site: now + step * (each.refused_mean - now)})
            lean = leans(model, [prompt], READOUT, part.interventions, dictionaries)
            change.append(float(lean - plain[row]) / step)
        assert each.predicted == pytest.approx(sum(change) / 3, rel=0.1, abs=5e-3)
        whole = clamp_features("", {site: each.refused_mean})
        exact = leans(model, ATTACKS, READOUT, whole.interventions, dictionaries) - plain
        assert each.measured == pytest.approx(float(exact.mean()), abs=1e-5)


def test_rounds_report_what_the_whole_treatment_does(parts) -> None:
    model, dictionaries, (attacks, refused) = parts
    found = search(model, dictionaries, ATTACKS, attacks, refused, READOUT)
    assert len({each.site for each in found.candidates}) == len(found.candidates)
    assert all(isinstance(each.site, FeatureSite) for each in found.candidates)
    edits = found.treatment().interventions
    lean = leans(model, ATTACKS, READOUT, edits, dictionaries)
    assert found.lean[-1] == pytest.approx(float(lean.mean()), abs=1e-4)
    assert found.restored[-1] == pytest.approx(float((lean > 0).float().mean()))


def test_a_model_that_is_never_caught_is_refused(parts) -> None:
    model = parts[0]
    requests = [
        Request(prompt=f"w{5 + n} w{9 + n}", label=label, group=f"{label}{n}", part=part)
        for n in range(12)
        for label in ("harmful", "benign")
        for part in ("fit", "test")
    ]
    subject = Subject(model=model, judge=RefusalJudge(("never said",)), max_new_tokens=2)
    with pytest.raises(DataError, match="answered 12 of 12 harmful requests of the part 'fit'"):
        discover(subject, requests)


def test_behaviours_with_the_same_first_token_are_refused(parts) -> None:
    subject = Subject(model=parts[0], judge=RefusalJudge())
    requests = [
        Request(prompt="w5", label="harmful", group="g", part="fit", behaviour=b, answer="w9 w8")
        for b in ("complied", "refused")
    ]
    with pytest.raises(DataError, match="do not tell them apart"):
        readout_of(subject, requests)
