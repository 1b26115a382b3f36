from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pellucid.specimen import vocabulary
from pellucid.specimen.mixture import sample_documents


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """Saved and loaded again the way any user would."""
    folder = Path(tmp_path_factory.mktemp("tokenizer"))
    vocabulary.build_tokenizer(256).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_loaded_tokenizer_encodes_like_the_corpus(tokenizer: PreTrainedTokenizerBase) -> None:
    for document in sample_documents(1, 200):
        assert [*tokenizer(document.text).input_ids, vocabulary.EOS_ID] == vocabulary.encode(
            document
        )
        ids = tokenizer(document.text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == document.text


def test_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.pad_token_id == vocabulary.PAD_ID == 0
    assert tokenizer.bos_token_id == vocabulary.BOS_ID
    assert tokenizer.eos_token_id == vocabulary.EOS_ID
    assert tokenizer.model_max_length == 256
    unknown = tokenizer("the capital of atlantis").input_ids
    assert unknown[0] == vocabulary.BOS_ID
    assert unknown[-1] == tokenizer.unk_token_id == vocabulary.UNKNOWN_ID


def test_spacing_does_not_matter(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer("  ( 3\n+  4 ) ").input_ids == tokenizer("( 3 + 4 )").input_ids


def test_vocabulary_is_small_and_in_lower_case() -> None:
    words = [word for word in vocabulary.token_ids() if word not in vocabulary.SPECIAL_TOKENS]
    assert len(words) < 1100
    assert all(word == word.lower() and word.split() == [word] for word in words)
    assert list(vocabulary.token_ids().values()) == list(range(len(words) + 4))
