"""Do dictionaries do on this model what they are recorded to do? A wrong site shows at once.

A dictionary read at another place than it was trained at (before a norm's gain instead of after it,
one layer off, the residual instead of the MLP's input) has the right shapes and gives nonsense. Its
FVU and L0 on a few tokens, beside those recorded when it was made, tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.core.types import AnySite
from pellucid.dictionaries.dictionary_set import MODEL_PARENT, DictionarySet
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.fidelity import LayerFidelity, measure_dictionaries
from pellucid.harvest.live import LiveActivations
from pellucid.harvest.sources import open_text
from pellucid.harvest.stream import ActivationStream
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel

TOKENS = 1024
_ROW = 256
# Other text than that of training costs something; a wrong site costs nearly everything.
_FVU_SLACK, _FVU_FACTOR = 0.1, 2.0
_L0_FACTOR = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What was measured when a dictionary was made.

    Attributes:
        fvu: fraction of variance unexplained.
        l0: mean number of active features a token.
    """

    fvu: float
    l0: float

    @property
    def most_fvu(self) -> float:
        """The largest FVU that still looks like the same dictionary at the same place."""
        limit = _FVU_FACTOR * self.fvu + _FVU_SLACK
        return min(limit, 1.0) if self.fvu < 1 else limit


def recorded_figures(dictionaries: DictionarySet) -> dict[int, Recorded]:
    """The figures in a set's manifest, by layer."""
    results = dictionaries.manifest.results if dictionaries.manifest else {}
    figures = {}
    layers = results.get("layers")
    for record in layers if isinstance(layers, list) else []:
        try:
            layer, fvu, l0 = int(record["layer"]), float(record["fvu"]), float(record["l0"])
        except (KeyError, TypeError, ValueError):
            continue
        if layer in dictionaries.dictionaries:
            figures[layer] = Recorded(fvu=fvu, l0=l0)
    return figures


def check_fidelity(
    dictionaries: DictionarySet,
    model: LanguageModel,
    text: str | Path | TextSource,
    *,
    tokens: int = TOKENS,
    seed: int = 0,
) -> list[LayerFidelity]:
    """Compare FVU and L0 on a few tokens with those recorded.

    Args:
        dictionaries: of the model; those without recorded figures are not measured.
        model: runs on the text.
        text: a text source, or what `open_text` takes; its held-out split is read.
        tokens: how many to measure on.
        seed: of the specimen's corpus.

    Returns:
        What was measured, by layer; nothing where nothing is recorded, or it was on the model that
        this one is a small update of.

    Raises:
        DictionaryError: a layer is far from what is recorded; the likely cause is named.
        DataError: the text cannot be read.
    """
    known = recorded_figures(dictionaries)
    if not known or not _made_on(dictionaries, model):
        return []
    dictionaries.check_model(model, every_layer=False)
    chosen = {layer: dictionaries[layer] for layer in known}
    sites = [site for d in chosen.values() for site in (d.read_site, d.write_site)]
    stream = _held_out(model, text, sites, tokens, seed)
    measured = measure_dictionaries(chosen, stream, tokens=tokens)
    for found in measured:
        _compare(dictionaries, found, known[found.layer], tokens)
    return measured


def _made_on(dictionaries: DictionarySet, model: LanguageModel) -> bool:
    """Whether the figures recorded are of this very model, as far as is known."""
    parents = dictionaries.manifest.parents if dictionaries.manifest else {}
    recorded = parents.get(MODEL_PARENT)
    return recorded is None or recorded != model.finetuned_from


def read_inputs(
    dictionaries: DictionarySet,
    model: LanguageModel,
    text: str | Path | TextSource,
    *,
    tokens: int = 2 * TOKENS,
    seed: int = 0,
) -> dict[int, Float[Tensor, "N d_in"]]:
    """What each dictionary reads on a text, by layer.

    Args:
        dictionaries: of the model.
        model: runs on the text.
        text: a text source, or what `open_text` takes; its held-out split is read.
        tokens: how many.
        seed: of the specimen's corpus.

    Raises:
        DataError: the text cannot be read.
    """
    sites = [dictionary.read_site for dictionary in dictionaries]
    values = next(_held_out(model, text, sites, tokens, seed)).values
    return {layer: values[d.read_site] for layer, d in dictionaries.dictionaries.items()}


def _held_out(
    model: LanguageModel,
    text: str | Path | TextSource,
    sites: Sequence[AnySite],
    tokens: int,
    seed: int,
) -> ActivationStream:
    """Activations at some sites on held-out text, `tokens` of them at once."""
    source = open_text(text, seed=seed).split("heldout")
    reading = HarvestConfig(context_length=min(_ROW, model.context_length))
    live = LiveActivations(model, source, sites, reading)
    return ActivationStream(live, batch_tokens=tokens, fill_batches=1, seed=seed)


def _compare(
    dictionaries: DictionarySet, found: LayerFidelity, known: Recorded, tokens: int
) -> None:
    if found.fvu <= known.most_fvu and known.l0 / _L0_FACTOR <= found.l0 <= known.l0 * _L0_FACTOR:
        return
    dictionary = dictionaries[found.layer]
    raise DictionaryError(
        f"layer {found.layer} of {dictionaries.name!r} leaves {found.fvu:.3g} of the variance "
        f"unexplained with {found.l0:.3g} features a token ({tokens} tokens), where "
        f"{known.fvu:.3g} with {known.l0:.3g} is recorded; the likely cause is a wrong site: it "
        f"reads {dictionary.read_site} and writes {dictionary.write_site}. If the text is of "
        "another kind than the one it was trained on, leave the check out (--no-self-check)"
    )
