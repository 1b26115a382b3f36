"""The specimen and one pair of its two-hop prompts."""

import pytest

from pellucid import api
from pellucid.interventions.tracing import Contrast, contrast
from pellucid.models.model import LanguageModel

CLEAN = "the capital of the state containing dallas is"
CORRUPT = "the capital of the state containing fresno is"
BRIDGE, LAST = 7, 8


@pytest.fixture(scope="session")
def specimen() -> LanguageModel:
    return api.load_model("specimen")


@pytest.fixture(scope="session")
def pair(specimen: LanguageModel) -> Contrast:
    return contrast(specimen, CLEAN, CORRUPT)
