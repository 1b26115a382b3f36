import pytest
import torch
import transformers

from pellucid.core.errors import PromptError
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.models.prompt import SpecialTokens, position_ids, special_tokens
from support.tiny_models import tiny_model, word_tokenizer


@pytest.fixture
def model() -> LanguageModel:
    tokenizer = word_tokenizer()
    return load_model(tiny_model("llama", tokenizer=tokenizer), tokenizer)


@pytest.mark.parametrize(
    ("special", "first"),
    [
        (SpecialTokens(bos=1, eos=2, pad=3), [1]),
        (SpecialTokens(eos=2, pad=3), [3]),
        (SpecialTokens(eos=2), [2]),
        (SpecialTokens(bos=0, eos=2), [0]),
        (SpecialTokens(), []),
    ],
)
def test_a_prompt_begins_with_bos_else_pad_else_eos(
    special: SpecialTokens, first: list[int]
) -> None:
    assert special.with_first([7, 8]) == [*first, 7, 8]


def test_a_prompt_that_begins_with_a_special_token_is_left_alone() -> None:
    special = SpecialTokens(bos=1, eos=2, pad=3, unknown=4, others=frozenset({1, 2, 3, 9}))
    for first in (1, 2, 3, 9):
        assert special.with_first([first, 7]) == [first, 7]
    assert special.with_first([4, 7]) == [1, 4, 7]  # unknown is a word, if a strange one


def test_special_tokens_of_a_tokenizer() -> None:
    special = special_tokens(word_tokenizer(), config=None)
    assert (special.pad, special.bos, special.eos, special.unknown) == (0, 1, 2, 3)
    assert special.structural == {0, 1, 2}
    assert special.unknown not in special.others


def test_special_tokens_of_a_configuration() -> None:
    config = transformers.LlamaConfig(bos_token_id=5, eos_token_id=[6, 7], pad_token_id=None)
    assert special_tokens(None, config) == SpecialTokens(bos=5, eos=6)


def test_encode_adds_bos_once(model: LanguageModel) -> None:
    assert model.encode("w7 w9").tolist() == [1, 7, 9]
    assert model.encode("<bos> w7 w9").tolist() == [1, 7, 9]
    assert model.encode_ids([7, 9]).tolist() == [1, 7, 9]
    assert model.encode_ids([0, 7]).tolist() == [0, 7]


def test_tokenize_takes_any_length_and_unknown_words(model: LanguageModel) -> None:
    ids = model.tokenize("strange " + "w7 " * 100)
    assert ids == [1, 3] + [7] * 100


def test_a_prompt_as_long_as_the_context_passes(model: LanguageModel) -> None:
    assert len(model.encode("w7 " * 47)) == model.context_length == 48


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "prompt is empty; give at least one word"),
        (" \n", "prompt is empty"),
        ("<bos>", "prompt is empty"),
        ("w7 " * 48, "has 49 tokens, the model reads at most 48; shorten it"),
        ("w7 Paris w9", "the word 'Paris' is not in the model's vocabulary"),
    ],
)
def test_bad_prompts(model: LanguageModel, text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        model.encode(text)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "prompt is empty"),
        ([1, 0], "prompt is empty"),
        ([7, 67], "token id 67 is outside the vocabulary; use 0 to 66"),
        ([-1], "token id -1 is outside"),
        ([7] * 48, "has 49 tokens"),
    ],
)
def test_bad_prompt_ids(model: LanguageModel, ids: list[int], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        model.encode_ids(ids)


def test_a_word_that_is_the_unknown_token_itself_is_allowed(model: LanguageModel) -> None:
    assert model.encode("<unk> w7").tolist() == [1, 3, 7]


def test_text_without_a_tokenizer() -> None:
    model = load_model(tiny_model("llama"))
    with pytest.raises(PromptError, match=r"'w7' cannot be tokenized.*loaded without a tokenizer"):
        model.encode("w7")
    assert model.encode_ids([7]).tolist() == [1, 7]
    assert model.token_texts([1, 7]) == ["<1>", "<7>"]


def test_token_texts(model: LanguageModel) -> None:
    assert model.token_texts(model.encode("w7 w9")) == ["<bos>", "w7", "w9"]


def test_special_token_mask(model: LanguageModel) -> None:
    ids = torch.tensor([[1, 7, 3, 2], [0, 0, 8, 2]])
    expected = [[True, False, False, True], [True, True, False, True]]
    assert model.special_token_mask(ids).tolist() == expected


def test_positions_count_real_tokens_only() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 0]])
    assert position_ids(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2], [0, 0, 1, 1]]
    assert torch.equal(position_ids(mask.bool()), position_ids(mask))
