"""`evaluate` against a model with its MLP modules exchanged by hand, document by document."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pellucid.core.errors import DataError, DictionaryError
from pellucid.core.types import Site
from pellucid.dictionaries.activations import TopK
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.sae import SAE
from pellucid.dictionaries.transcoder import Transcoder
from pellucid.evaluation import Evaluation, evaluate
from pellucid.harvest.text import HELD_OUT_EVERY, TextList
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.tiny_dictionaries import tiny_transcoders
from support.tiny_models import D_MODEL, N_LAYERS, tiny_model, word_tokenizer
from support.word_text import word_documents

TEXTS = word_documents(20 * HELD_OUT_EVERY, longest=30)
HELD_OUT = [text for text in TEXTS[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY] if text]
ALL = 10**6


def new_model(**settings: Any) -> LanguageModel:
    tokenizer = word_tokenizer()
    return load_model(tiny_model("llama", tokenizer=tokenizer, **settings), tokenizer)


class ByHand(nn.Module):
    """A transcoder written out in plain matrices; the first position keeps the real MLP."""

    def __init__(self, mlp: nn.Module, dictionary: Transcoder) -> None:
        super().__init__()
        self.mlp, self.dictionary = mlp, dictionary

    def forward(self, x: Tensor) -> Tensor:
        d = self.dictionary
        dense = torch.relu(x @ d.W_enc.T + d.b_enc)
        kept = torch.where(dense >= dense.topk(d.activation.k, dim=-1).values[..., -1:], dense, 0)
        output = kept @ d.W_dec + d.b_dec + x @ d.W_skip.T
        return torch.cat([self.mlp(x)[:, :1], output[:, 1:]], dim=1)


def losses_by_hand(model: LanguageModel, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Next-token losses and argmaxes of every text run by itself."""
    losses, best = [], []
    for text in texts:
        ids = torch.tensor([[1, *model.tokenizer(text)["input_ids"]]])
        logits = model.module(input_ids=ids).logits[0, :-1]
        losses.append(cross_entropy(logits, ids[0, 1:], reduction="none"))
        best.append(logits.argmax(-1))
    return torch.cat(losses), torch.cat(best)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    model = new_model()
    return evaluate(model, tiny_transcoders(model, skip=True), TextList(TEXTS), tokens=ALL)


@pytest.mark.parametrize("layers", [[0, 1, 2], [1], [0, 1]])
def test_replacement_equals_modules_exchanged_by_hand(
    evaluation: Evaluation, layers: list[int]
) -> None:
    model = new_model()
    dictionaries = tiny_transcoders(model, skip=True)
    original, original_best = losses_by_hand(model, HELD_OUT)
    for layer in layers:
        block = model.module.model.layers[layer]
        block.mlp = ByHand(block.mlp, dictionaries[layer])
    replaced, best = losses_by_hand(model, HELD_OUT)

    replacement = evaluation.replacement
    assert replacement is not None
    found = [replacement.all, *replacement.per_layer, *replacement.cumulative]
    matching = [prediction for prediction in found if prediction.layers == layers]
    assert matching
    assert evaluation.original_ce == pytest.approx(float(original.mean()), rel=1e-5)
    for prediction in matching:
        assert prediction.ce == pytest.approx(float(replaced.mean()), rel=1e-5)
        assert prediction.top1 == pytest.approx(float((best == original_best).double().mean()))


def test_loss_recovered_follows_from_the_reported_losses(evaluation: Evaluation) -> None:
    assert evaluation.replacement is not None
    whole, original = evaluation.replacement.all, evaluation.original_ce
    for ablation, figure in (("mean", whole.loss_recovered), ("zero", whole.loss_recovered_zero)):
        ablated = evaluation.baselines[ablation].ce
        assert figure == pytest.approx((ablated - whole.ce) / (ablated - original))
    assert evaluation.baselines["mean"].loss_recovered == 0
    assert evaluation.baselines["zero"].loss_recovered_zero == 0


def test_counts_are_those_of_the_held_out_documents(evaluation: Evaluation) -> None:
    words = sum(len(text.split()) for text in HELD_OUT)
    assert evaluation.documents == len(HELD_OUT)
    assert evaluation.tokens == evaluation.predictions == words
    assert evaluation.baselines_fitted_apart


def test_intervals_hold_the_figures(evaluation: Evaluation) -> None:
    assert evaluation.replacement is not None
    whole = evaluation.replacement.all
    for name in ("ce", "kl", "top1"):
        low, high = whole.intervals[name]
        assert low < getattr(whole, name) < high


def test_json_has_the_documented_keys(evaluation: Evaluation) -> None:
    record = evaluation.to_json()
    assert set(record["original"]) == {"ce"}
    assert [row["layer"] for row in record["layers"]] == [0, 1, 2]
    assert set(record["layers"][0]) == {
        *("layer", "fvu", "l0", "dead", "dense", "density", "duplicates")
    }
    assert len(record["density_edges"]) == len(record["layers"][0]["density"]) + 1
    for row in record["layers"]:
        alive = tiny_transcoders(new_model())[0].num_features * (1 - row["dead"])
        assert sum(row["density"]) == pytest.approx(alive)
        assert set(row["duplicates"]) == {"share", "random"}
    assert set(record["baselines"]) == {"zero", "mean", "linear", "random"}
    assert {"ce", "loss_recovered"} <= set(record["baselines"]["linear"])
    assert {"ce", "kl", "top1", "loss_recovered"} <= set(record["replacement"]["all"])
    assert len(record["replacement"]["per_layer"]) == N_LAYERS
    assert len(record["replacement"]["cumulative"]) == N_LAYERS
    assert record["tasks"] == {}


def test_without_layerwise_only_the_whole_is_replaced() -> None:
    model = new_model()
    found = evaluate(model, tiny_transcoders(model), TextList(TEXTS), tokens=100, layerwise=False)
    assert found.replacement is not None
    assert found.replacement.per_layer == found.replacement.cumulative == []


def test_saes_have_fidelity_alone() -> None:
    rows = torch.nn.functional.normalize(torch.randn(40, D_MODEL), dim=1)
    site = Site("resid_post", 1)
    sae = SAE(
        W_enc=rows,
        b_enc=torch.zeros(40),
        W_dec=rows.clone(),
        b_dec=torch.zeros(D_MODEL),
        activation=TopK(5),
        read_site=site,
        write_site=site,
    )
    found = evaluate(new_model(), DictionarySet("sae", {1: sae}), TextList(TEXTS), tokens=200)
    assert [row.layer for row in found.layers] == [1]
    assert found.replacement is None
    assert found.to_json()["original"] == {"ce": None}


def test_dictionaries_of_another_width_are_refused() -> None:
    narrow = new_model(hidden_size=D_MODEL // 2)
    with pytest.raises(DictionaryError, match="width 16"):
        evaluate(new_model(), tiny_transcoders(narrow), TextList(TEXTS), tokens=100)


def test_a_text_too_short_to_hold_out_says_so() -> None:
    model = new_model()
    texts = TextList([text for text in TEXTS if text][:3])
    found = evaluate(model, tiny_transcoders(model), texts, tokens=ALL, layerwise=False)
    assert not found.baselines_fitted_apart
    assert found.documents == 3


def test_text_of_two_known_words_can_be_scored_but_one_that_does_not_vary_cannot() -> None:
    model = new_model()
    dictionaries = tiny_transcoders(model)
    assert evaluate(model, dictionaries, TextList(["w5 w6"]), layerwise=False).predictions == 2
    for text, message in (("w5", "the same at all 1 tokens"), (" ", "no usable token")):
        with pytest.raises(DataError, match=message):
            evaluate(model, dictionaries, TextList([text]), layerwise=False)
