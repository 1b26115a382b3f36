"""The specimen's words and its word-level tokenizer."""

from functools import cache
from types import MappingProxyType

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from pellucid.specimen.labels import Document
from pellucid.specimen.mixture import CORPORA

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNKNOWN)
PAD_ID, BOS_ID, EOS_ID, UNKNOWN_ID = range(len(SPECIAL_TOKENS))


@cache
def token_ids() -> MappingProxyType[str, int]:
    """Token -> id: special tokens first, then each corpus's words in order of appearance."""
    words = (word for corpus in CORPORA.values() for word in corpus.words())
    ordered = dict.fromkeys((*SPECIAL_TOKENS, *words))
    return MappingProxyType({word: number for number, word in enumerate(ordered)})


def encode(document: Document) -> list[int]:
    """`<bos> document <eos>` as ids."""
    ids = token_ids()
    return [BOS_ID, *(ids[token] for token in document.tokens), EOS_ID]


def build_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """A standard fast tokenizer: splits on white space, adds `<bos>`, decodes with spaces."""
    tokenizer = Tokenizer(WordLevel(dict(token_ids()), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        pad_token=PAD,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
