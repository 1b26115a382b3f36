"""A tiny model with transcoders trained on it, to be fine-tuned."""

from functools import cache

from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.training import TrainConfig
from pellucid.training.run import Run, RunPlan
from pellucid.training.sites import layer_sites
from support.tiny_models import tiny_model, word_tokenizer
from support.word_text import word_documents

TEXT = TextList(word_documents(100, longest=40))
BATCH_TOKENS = 128


@cache
def tiny_subject() -> LanguageModel:
    """A tiny Llama with a tokenizer."""
    tokenizer = word_tokenizer()
    return load_model(tiny_model("llama", tokenizer=tokenizer), tokenizer)


def trained_transcoders(kind: str = "transcoder", steps: int = 60) -> DictionarySet:
    """Transcoders of `tiny_subject`, trained a little."""
    model = tiny_subject()
    config = TrainConfig(
        kind=kind,  # type: ignore[arg-type]
        num_features=48,
        k=4,
        learning_rate=3e-3,
        batch_tokens=BATCH_TOKENS,
    )
    plan = RunPlan(
        config=config,
        total_tokens=steps * BATCH_TOKENS,
        sites=layer_sites(model, kind),
        harvest=HarvestConfig(context_length=48),
        fill_batches=5,
    )
    text = TEXT.split("train")
    run = Run(plan, model, text, plan.live(model, text))
    for _ in range(steps):
        run.advance()
    return DictionarySet("tiny", run.dictionaries())
