"""Path patching against a brute force that freezes every head and MLP of the whole model."""

import pytest
import torch
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.places import HeadSite, parse_place
from pellucid.core.types import Site
from pellucid.interventions.tracing import Contrast, contrast, path_patching
from pellucid.interventions.tracing.paths import Path, path_logits, path_runs, sender_changes
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.tiny_models import FAMILIES, tiny_model

CLEAN, CORRUPT = [1, 9, 30, 12, 51, 8], [1, 22, 17, 40, 33, 60]
CASES = [
    ("embed", ["z@0[1]"]),
    ("embed", ["mlp_in@0", "z@2[0]"]),
    ("z@0[1]", ["logits"]),
    ("z@0[1]", ["q@2[1]"]),
    ("mlp_out@0", ["k@1[0]", "v@2[1]"]),
    ("z@1[3]", ["mlp_in@2"]),
    ("z@0[2]", ["z@1[0]", "z@1[2]", "mlp_out@2"]),
    ("z@1[0]", ["mlp_in@1"]),
]


class Frozen:
    """Two runs of a model, all heads and MLPs kept, and the frozen run between them."""

    def __init__(self, model: LanguageModel, base: Tensor, source: Tensor) -> None:
        self.model, self.base = model, base
        self.own, self.other = self.values(base), self.values(source)

    def values(self, ids: Tensor) -> dict[str, Tensor]:
        kept: dict[str, Tensor] = {}

        def keep(name: str):
            return lambda value, _: kept.update({name: value.clone()})

        taps = [(self.model.point(Site("embed")), keep("embed"))]
        for layer in range(self.model.n_layers):
            taps += [
                (self.model.head_point(HeadSite("z", layer))[0], keep(f"z{layer}")),
                (self.model.point(Site("mlp_out", layer)), keep(f"m{layer}")),
            ]
        with self.model.tapped(taps):
            self.model.logits(ids[None])
        return kept

    def received(self, sender, receivers) -> tuple[dict, Tensor]:
        """What the receivers give, and the logits, with all else frozen."""
        got: dict[object, Tensor] = {}
        taps = []
        if sender == Site("embed"):
            taps.append((self.model.point(sender), lambda value, _: self.other["embed"]))
        for layer in range(self.model.n_layers):
            for receiver in receivers:
                if receiver != "logits" and receiver.layer == layer:
                    taps.append(self._reader(receiver, got))
            taps.append((self.model.head_point(HeadSite("z", layer))[0], self._z(sender, layer)))
            sends = sender == Site("mlp_out", layer)
            mlp = (self.other if sends else self.own)[f"m{layer}"]
            taps.append((self.model.point(Site("mlp_out", layer)), lambda _v, _c, mlp=mlp: mlp))
        with self.model.tapped(taps):
            return got, self.model.logits(self.base[None])[0, -1]

    def _reader(self, receiver, got):
        if isinstance(receiver, HeadSite):
            point, columns = self.model.head_point(receiver)
        else:
            point, columns = self.model.point(Site("mlp_out", receiver.layer)), slice(None)
        return point, lambda value, _: got.update({receiver: value[..., columns].clone()})

    def _z(self, sender, layer: int):
        frozen = self.own[f"z{layer}"].clone()
        if isinstance(sender, HeadSite) and sender.layer == layer:
            columns = self.model.head_point(sender)[1]
            frozen[..., columns] = self.other[f"z{layer}"][..., columns]
        return lambda _value, _call: frozen

    @torch.no_grad()
    def logits(self, sender, receivers) -> Tensor:
        got, direct = self.received(sender, receivers)
        if "logits" in receivers:
            return direct
        taps = []
        for receiver, new in got.items():
            if not isinstance(receiver, HeadSite):
                point, columns = self.model.point(Site("mlp_out", receiver.layer)), slice(None)
            else:
                point, columns = self.model.head_point(receiver)

            def write(value, _, columns=columns, new=new):
                value = value.clone()
                value[..., columns] = new
                return value

            taps.append((point, write))
        with self.model.tapped(taps):
            return self.model.logits(self.base[None])[0, -1]


@pytest.mark.parametrize("family", FAMILIES)
def test_paths_equal_brute_force(family: str) -> None:
    model = load_model(tiny_model(family), check=False)
    pair = contrast(model, CLEAN, CORRUPT, metric="kl")
    with torch.no_grad():
        frozen = Frozen(model, pair.clean, pair.corrupt)
    for sender, names in CASES:
        if model.spec is not None and model.spec.parallel and names == ["mlp_in@1"]:
            continue
        place = parse_place(sender)
        receivers = tuple(n if n == "logits" else parse_place(n) for n in names)
        runs = path_runs(model, pair, "noise", [place])
        paths = [Path(place, receivers)]
        found = path_logits(runs, paths, sender_changes(runs, paths)).logits[0]
        wanted = frozen.logits(place, receivers)
        assert torch.allclose(found, wanted, atol=2e-5), (sender, names)
        assert not torch.allclose(wanted, runs.base.logits, atol=1e-4), (sender, names)


def test_tokens_apart_find_where_the_sender_matters(
    specimen: LanguageModel, pair: Contrast
) -> None:
    found = path_patching(specimen, pair, ["mlp_out@0"], ["v@1[5]"], by_position=True)
    assert found.effect[0].argmax() == 7
    assert found.noise is not None
    assert found.effect[0, 7] > 0.3 > abs(found.noise[0]).max()


@pytest.mark.parametrize(
    ("senders", "receivers", "message"),
    [
        (["mlp_out@2"], ["z@1[0]"], r"z@1\[0\] does not come after mlp_out@2"),
        (["resid_pre@1"], ["logits"], "resid_pre@1 cannot send; use embed"),
        (["z@1"], ["logits"], "z@1 cannot send"),
        (["embed"], ["resid_post@1"], "resid_post@1 cannot receive; use logits"),
        (["embed"], ["logits", "mlp_in@1"], "give the logits alone"),
    ],
)
def test_bad_input(
    specimen: LanguageModel, pair: Contrast, senders: list[str], receivers: list[str], message: str
) -> None:
    with pytest.raises(InterventionError, match=message):
        path_patching(specimen, pair, senders, receivers)
