"""Single features for concepts, splitting and absorption, beside controls.

Features are chosen on the corpus's training split and measured on its held-out split. Absorption is
that of Chanin et al. (2024), with a concept's best feature m in place of a probe: m is absorbed at
a token of the concept iff

    m is silent, and
    the active feature j that writes most along m's decoder row, argmax_j a_j <W_dec[j], W_dec[m]>,
        is a more specific case of the concept (see `choice.Choice.specific`), and
        has a decoder row whose cosine with m's is above 3 / sqrt(d), by `aligned_above`.

It is counted where m stands for the concept: its F1 is at least `REPRESENTED_FROM`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from pellucid.core.errors import DataError
from pellucid.core.types import SparseCodes
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.evaluation.absorption import aligned_above, strongest_writer
from pellucid.evaluation.agreement import document_weights
from pellucid.evaluation.baselines import random_transcoder
from pellucid.evaluation.concepts.choice import Choice, choose, firing
from pellucid.evaluation.concepts.report import Concept, ConceptFigures, ConceptReport
from pellucid.evaluation.concepts.text import (
    FEWEST_TOKENS,
    AnnotatedText,
    ConceptName,
    annotated,
    draw_documents,
    shared_concepts,
)
from pellucid.models.model import LanguageModel

REPRESENTED_FROM = 0.5
TOKENS = 20_000
_RESAMPLES = 1000
Sums = dict[str, Float[Tensor, "D C"]]


@torch.no_grad()
def measure_concepts(
    model: LanguageModel,
    dictionaries: DictionarySet,
    *,
    tokens: int = TOKENS,
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[ConceptReport]:
    """For every dictionary, how its features stand for the concepts of the corpus.

    Args:
        model: the specimen, or another model with its vocabulary.
        dictionaries: of the model, each with one decoder.
        tokens: how much of either split to read.
        seed: of the corpus, the random dictionary, the shuffled labels and the bootstrap.
        on_progress: told the share that is done.

    Raises:
        DataError: so few tokens that no concept is measured.
    """
    documents = [draw_documents(split, tokens=tokens, seed=seed) for split in ("train", "heldout")]
    names = shared_concepts(*documents)
    if not names:
        raise DataError(
            f"no concept of the corpus is at {FEWEST_TOKENS} tokens or more of {tokens} in either "
            "split; measure on more tokens"
        )
    sites = list(dict.fromkeys(dictionary.read_site for dictionary in dictionaries))
    chosen_on, measured_on = (annotated(model, text, names, sites) for text in documents)
    reports = []
    for done, (layer, dictionary) in enumerate(dictionaries.dictionaries.items(), start=1):
        reports.append(_report(layer, dictionary, names, (chosen_on, measured_on), seed=seed))
        on_progress(done / len(dictionaries))
    return reports


def _report(
    layer: int,
    dictionary: Dictionary,
    names: list[ConceptName],
    texts: tuple[AnnotatedText, AnnotatedText],
    *,
    seed: int,
) -> ConceptReport:
    """What is chosen on the first text and measured on the second."""
    generator = torch.Generator().manual_seed(seed * 10_007 + layer)
    xs = [text.values[dictionary.read_site] for text in texts]
    codes = [_encoded(dictionary, x) for x in xs]
    random = random_transcoder(
        dictionary,
        mean=xs[0].mean(dim=0),
        k=max(1, round(float(codes[0].l0().mean()))),
        generator=generator,
    )
    members = [text.members for text in texts]
    shuffled = [labels[torch.randperm(len(labels), generator=generator)] for labels in members]

    def measured(
        decoder: Tensor, codes: list[SparseCodes], members: list[Tensor]
    ) -> tuple[Choice, Sums]:
        choice = choose(codes[0], members[0])
        return choice, document_sums(decoder, codes[1], choice, members[1], texts[1].document)

    choice, sums = measured(dictionary.W_dec, codes, members)
    by_random = measured(random.W_dec, [_encoded(random, x) for x in xs], members)
    return ConceptReport(
        layer=layer,
        figures=figures(choice, sums, seed=seed),
        random=figures(*by_random, seed=seed),
        shuffled=figures(*measured(dictionary.W_dec, codes, shuffled), seed=seed),
        concepts=_each(names, choice, sums),
    )


def _encoded(dictionary: Dictionary, x: Float[Tensor, "N d"]) -> SparseCodes:
    """The codes, on the CPU, where labels are."""
    codes = dictionary.encode(x)
    return SparseCodes(codes.values.cpu(), codes.indices.cpu(), codes.num_features)


def document_sums(
    decoder: Float[Tensor, "F d"],
    codes: SparseCodes,
    choice: Choice,
    members: Bool[Tensor, "N C"],
    document: Int[Tensor, " N"],
) -> Sums:
    """Tokens of each document and concept, by what happens there.

    Args:
        decoder: what each feature writes.
        codes: of the N tokens.
        choice: the features chosen, on another text.
        members: which concepts each token belongs to.
        document: each token's document.

    Returns:
        `tokens` of the concept; tokens at which its best feature is `active`, at which it is so on
        the concept (`both`); the same for all that share it (`any_active`, `any_both`); and those
        at which the best feature is `absorbed`.
    """
    active = firing(codes, choice.main)
    any_active = active.clone()
    for further in choice.sets.T[1:]:
        if bool((further >= 0).any()):
            any_active |= firing(codes, further)
    decoder = decoder.float().cpu()
    directions = normalize(decoder[choice.main], dim=1)
    aligned = normalize(decoder, dim=1) @ directions.T > aligned_above(decoder.shape[1])
    token, concept = (members & ~active).nonzero(as_tuple=True)
    strongest = strongest_writer(codes, token, decoder @ directions.T, concept)
    covered = (choice.specific & aligned)[strongest, concept] & (strongest >= 0)
    absorbed = torch.zeros_like(active)
    absorbed[token[covered], concept[covered]] = True
    by_token = {
        "tokens": members,
        "active": active,
        "both": active & members,
        "any_active": any_active,
        "any_both": any_active & members,
        "absorbed": absorbed,
    }
    documents = int(document.max()) + 1
    return {
        name: torch.zeros(documents, values.shape[1], dtype=torch.float64).index_add_(
            0, document, values.double()
        )
        for name, values in by_token.items()
    }


def figures(choice: Choice, sums: Sums, *, seed: int) -> ConceptFigures:
    """Means over concepts, with intervals from resampling documents."""
    represented = choice.f1 >= REPRESENTED_FROM
    names = list(sums)
    stacked = torch.stack(list(sums.values()))  # [sums, D, C]
    means = _means(dict(zip(names, stacked.sum(dim=1), strict=True)), represented)
    drawn = document_weights(stacked.shape[1], seed=seed, resamples=_RESAMPLES)
    resampled = torch.tensordot(torch.stack(list(drawn)), stacked, dims=([1], [1]))
    spread = torch.stack(
        [_means(dict(zip(names, totals, strict=True)), represented) for totals in resampled]
    )
    edges = torch.quantile(spread, torch.tensor([0.025, 0.975], dtype=spread.dtype), dim=0)
    f1, together, absorbed = means.tolist()
    return ConceptFigures(
        f1=f1,
        together=together,
        features=float(choice.features.double().mean()),
        represented=float(represented.double().mean()),
        absorbed=absorbed,
        intervals={
            name: (low, high)
            for name, (low, high) in zip(
                ("f1", "together", "absorbed"), edges.T.tolist(), strict=True
            )
        },
    )


def _means(totals: dict[str, Float[Tensor, " C"]], represented: Tensor) -> Float[Tensor, "3"]:
    """Means over the concepts that have tokens: F1, F1 of all together, share absorbed."""
    there = totals["tokens"] > 0
    f1 = _f1(totals["both"], totals["active"], totals["tokens"])
    together = _f1(totals["any_both"], totals["any_active"], totals["tokens"])
    absorbed = (totals["absorbed"] / totals["tokens"].clamp_min(1))[there & represented]
    share = absorbed.mean() if len(absorbed) else absorbed.sum()
    return torch.stack([f1[there].mean(), together[there].mean(), share])


def _f1(both: Tensor, active: Tensor, tokens: Tensor) -> Float[Tensor, " C"]:
    return 2 * both / (active + tokens).clamp_min(1)


def _each(names: list[ConceptName], choice: Choice, sums: Sums) -> list[Concept]:
    totals = {name: values.sum(dim=0) for name, values in sums.items()}
    tokens = totals["tokens"]
    f1 = _f1(totals["both"], totals["active"], tokens).tolist()
    absorbed = (totals["absorbed"] / tokens).tolist()
    represented = (choice.f1 >= REPRESENTED_FROM).tolist()
    return [
        Concept(
            kind=kind,
            value=value,
            tokens=int(tokens[number]),
            feature=int(choice.main[number]),
            f1=f1[number],
            features=int(choice.features[number]),
            absorbed=absorbed[number] if represented[number] else None,
        )
        for number, (kind, value) in enumerate(names)
    ]
