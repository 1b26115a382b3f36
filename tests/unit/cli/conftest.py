"""Running the command line in this process, and small artifacts for it to work on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pellucid.cli import main
from pellucid.dictionaries.checkpoint import save_dictionaries
from pellucid.models.load import load_model
from support.tiny_dictionaries import tiny_transcoders
from support.tiny_models import save_tiny_llama
from support.word_text import word_documents


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one invocation did."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@dataclass(frozen=True, slots=True)
class Workshop:
    """Folders and files that verbs can be pointed at."""

    model: Path
    dictionaries: Path
    text: Path


@pytest.fixture
def pellucid(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command with these arguments."""

    def run(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A tiny model with random transcoders, and text in its vocabulary."""
    folder = tmp_path_factory.mktemp("workshop")
    model_folder = save_tiny_llama(folder / "model")
    model = load_model(model_folder)
    save_dictionaries(
        folder / "dictionaries",
        tiny_transcoders(model).dictionaries,
        model_fingerprint=model.fingerprint(),
    )
    text = folder / "text.txt"
    text.write_text("\n".join(word_documents(2000, longest=20)), encoding="utf-8")
    return Workshop(model_folder, folder / "dictionaries", text)
