"""One intervention of every kind, each beside the plain way to do the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.core.places import FeatureSite, HeadSite
from pellucid.dictionaries.activations import ReLU, TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.operations import (
    Add,
    Clamp,
    Custom,
    Operation,
    PatchFrom,
    ProjectOut,
    Scale,
    Set,
)
from pellucid.interventions.spec import Intervention
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.naive_edits import (
    PARALLEL,
    Edit,
    Seen,
    at_positions,
    head_columns,
    naive_activation,
    naive_logits,
)
from support.tiny_dictionaries import tiny_dictionary
from support.tiny_models import D_MODEL, tiny_model, word_tokenizer

Positions = Callable[[int], Sequence[int]]
PROMPTS = [[1, 5, 9, 22, 41], [1, 13, 60], [1, 33, 8, 44, 17, 29, 5]]
# Longer than any prompt with what is generated, so that it has a value for every position.
OTHER_PROMPT = (1, 50, 6, 31, 12, 9, 40, 7, 26, 35, 14, 19)


@dataclass(frozen=True, slots=True)
class Case:
    """An intervention, and the naive edits that do the same to one row.

    Attributes:
        name: for messages.
        declared: the intervention, everywhere and in all rows.
        naive: from the selected positions (given a row's length) to edits in order.
        read: sites that the naive edits must have seen.
    """

    name: str
    declared: Intervention
    naive: Callable[[Positions], list[Edit]]
    read: tuple[str, ...] = ()


def but_first(length: int) -> range:
    """What `EVERYWHERE` selects in a row that begins with BOS."""
    return range(1, length)


def tiny_language_model(family: str, **settings: object) -> LanguageModel:
    """A tiny model of a family with a word tokenizer."""
    tokenizer = word_tokenizer()
    module = tiny_model(family, tokenizer=tokenizer, **settings)
    return load_model(module, tokenizer, check=False)


def mixed_dictionaries(model: LanguageModel) -> DictionarySet:
    """A cross-layer transcoder at layer 0, one with a skip path at 1, an SAE at 2."""
    kinds = [("clt", ReLU()), ("skip", TopK(8)), ("sae", ReLU())]
    return DictionarySet(
        "mixed",
        {
            layer: tiny_dictionary(model, kind, layer, activation=activation)
            for layer, (kind, activation) in enumerate(kinds)
        },
    )


def vector(seed: int, width: int = D_MODEL) -> Tensor:
    """A random vector of about the size of the tiny models' residuals."""
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def value_cases(model: LanguageModel, family: str) -> list[Case]:
    """Every operation on values, and every site."""
    middle = "resid_pre@1" if family in PARALLEL else "resid_mid@1"
    directions = torch.stack([vector(3), vector(4), vector(3) + vector(4)])
    basis = torch.linalg.qr(directions[:2].T.double())[0].float()
    cases = [
        _plain(middle, Set(vector(2)), lambda x: vector(2)),
        _plain("attn_out@1", Set(0.0), torch.zeros_like),
        _plain("mlp_out@0", Scale(-1.5), lambda x: -1.5 * x),
        _plain(middle, ProjectOut(directions), lambda x: x - basis @ (basis.T @ x)),
        _plain("resid_post@0", Custom("wild", torch.sin), torch.sin),
        _patch(model, family, "resid_post@1"),
        _patch(model, family, "z@1[2]"),
    ]
    sites = ["embed", "resid_pre@1", middle, "resid_post@1", "attn_out@2", "mlp_in@1", "mlp_out@1"]
    for number, site in enumerate(dict.fromkeys(sites)):
        cases.append(_add(site, vector(number)))
    for number, kind in enumerate("qkvz"):
        for head in (1, None):
            site = str(HeadSite(kind, 1, head))
            _, columns = head_columns(family, model.module.config, kind, head)
            cases.append(_add(site, vector(10 + number, len(columns))))
    return cases


def feature_cases(model: LanguageModel, family: str, dictionaries: DictionarySet) -> list[Case]:
    """Every operation on features, of every kind of dictionary."""
    cases = []
    for layer, dictionary in dictionaries.dictionaries.items():
        chosen = active_feature(model, family, dictionary)
        for op, amount in _FEATURE_OPERATIONS:
            site = FeatureSite(layer, chosen)
            read, writes = dictionary.read_site, dictionary.write_sites

            def naive(
                positions: Positions,
                dictionary=dictionary,
                feature=chosen,
                amount=amount,
                read=str(read),
                writes=writes,
            ) -> list[Edit]:
                def write(slot: int) -> Callable[[Tensor, Seen], Tensor]:
                    def edit(value: Tensor, seen: Seen) -> Tensor:
                        new = value.clone()
                        for position in positions(len(value)):
                            active = naive_activation(dictionary, seen[read][position], feature)
                            direction = dictionary.decoder(slot)[feature]
                            new[position] += (amount(active) - active) * direction
                        return new

                    return edit

                return [(str(site), write(slot)) for slot, site in enumerate(writes)]

            name = f"{op.name} at {site} of a {dictionary.kind}"
            cases.append(Case(name, Intervention(site, op), naive, (str(read),)))
    return cases


@torch.no_grad()
def active_feature(model: LanguageModel, family: str, dictionary: Dictionary) -> int:
    """The feature that is most active in the prompt in which it is least."""
    site, highest = str(dictionary.read_site), []
    for ids in PROMPTS:
        _, seen = naive_logits(model.module, family, ids, read=[site])
        active = [
            [naive_activation(dictionary, x, feature) for feature in range(len(dictionary.b_enc))]
            for x in seen[site][1:]
        ]
        highest.append(torch.tensor(active).amax(0))
    return int(torch.stack(highest).amin(0).argmax())


_FEATURE_OPERATIONS: list[tuple[Operation, Callable[[Tensor], Tensor]]] = [
    (Clamp(3.0), lambda active: torch.full_like(active, 3.0)),
    (Set(-1.0), lambda active: torch.full_like(active, -1.0)),
    (Scale(4.0), lambda active: 4 * active),
    (Add(strength=-2.0), lambda active: active - 2),
]


def _plain(site: str, op: Operation, function: Callable[[Tensor], Tensor]) -> Case:
    def naive(positions: Positions) -> list[Edit]:
        return [(site, at_positions(positions, function))]

    return Case(f"{op.name} at {site}", Intervention(site, op), naive)


def _add(site: str, added: Tensor) -> Case:
    return _plain(site, Add(added, 1.5), lambda x: x + 1.5 * added)


def _patch(model: LanguageModel, family: str, site: str) -> Case:
    _, seen = naive_logits(model.module, family, OTHER_PROMPT, read=[site])

    def naive(positions: Positions) -> list[Edit]:
        def edit(value: Tensor, _: Seen) -> Tensor:
            new = value.clone()
            chosen = list(positions(len(value)))
            new[chosen] = seen[site][chosen]
            return new

        return [(site, edit)]

    return Case(f"patch_from at {site}", Intervention(site, PatchFrom(OTHER_PROMPT)), naive)


def in_row(case: Case, row: int) -> Intervention:
    """The case's intervention in one row of a batch."""
    declared = case.declared
    return Intervention(declared.site, declared.op, declared.where, (row,), declared.gate)


def all_cases(model: LanguageModel, family: str, dictionaries: DictionarySet) -> list[Case]:
    """Value and feature cases, everywhere."""
    return value_cases(model, family) + feature_cases(model, family, dictionaries)
