"""Training from a cache: the same run as live, whatever happened in between."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.harvest.live import LiveActivations
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from pellucid.training import TrainProgress, TrainResult, train
from support.tiny_models import tiny_model, word_tokenizer
from support.word_text import word_documents

TOKENIZER = word_tokenizer()
MODEL = load_model(tiny_model("llama", tokenizer=TOKENIZER), TOKENIZER)
TEXT = TextList(word_documents(100, longest=40))
SETTINGS: dict[str, Any] = {
    "tokens": 3_000,  # the text has fewer, and is repeated
    "shuffle_tokens": 600,
    "batch_tokens": 128,
    "num_features": 48,
    "k": 4,
    "learning_rate": 3e-3,
    "held_out_tokens": 300,
}


def run(out: Path, **changes: Any) -> TrainResult:
    return train(MODEL, **({"data": TEXT, "out": out} | SETTINGS | changes))


def weights(out: Path) -> dict[str, bytes]:
    found = {
        f"{file.stem}.{name}": tensor.numpy().tobytes()
        for file in sorted(out.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    assert found
    return found


class Stop(Exception):
    pass


def run_until(out: Path, tokens: int, **changes: Any) -> None:
    def stop(progress: TrainProgress) -> None:
        if progress.tokens > tokens:
            raise Stop

    with pytest.raises(Stop):
        run(out, checkpoint_seconds=0.0, on_progress=stop, **changes)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("live")
    run(out)
    return out


@pytest.mark.parametrize(
    "settings", [{}, {"packing": "packed", "exclude_high_norm": 1.3, "context_length": 24}], ids=str
)
def test_training_from_a_cache_is_the_same_run_as_live(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    result = run(tmp_path / "live", **settings)
    told: list[tuple[int, int]] = []
    cached = run(
        tmp_path / "cached",
        cache=tmp_path / "cache",
        on_cache=lambda *now: told.append(now),
        **settings,
    )
    assert told
    assert weights(tmp_path / "cached") == weights(tmp_path / "live")
    assert (result.excluded_tokens > 0) == bool(settings)
    left, right = result.to_json(), cached.to_json()
    for changing in ("out", "tokens_per_second"):
        assert left.pop(changing) != right.pop(changing)
    assert left == right


def test_a_run_may_change_between_model_and_cache_whenever_it_resumes(
    tmp_path: Path, live: Path
) -> None:
    cache = {"cache": tmp_path / "cache"}
    run_until(tmp_path / "run", 500)
    run_until(tmp_path / "run", 1_400, resume=True, **cache)
    run_until(tmp_path / "run", 2_200, resume=True)
    run(tmp_path / "run", resume=True, **cache)
    assert weights(tmp_path / "run") == weights(live)


def test_the_model_is_not_read_again_where_the_cache_is_whole(
    tmp_path: Path, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "first", cache=tmp_path / "cache")
    original, read = LiveActivations.next_block, []

    def next_block(self: LiveActivations):
        read.append(self.rows.source.fingerprint)
        return original(self)

    monkeypatch.setattr(LiveActivations, "next_block", next_block)
    run(tmp_path / "second", cache=tmp_path / "cache", seed=1)
    assert set(read) == {TEXT.split("heldout").fingerprint}
    assert weights(tmp_path / "second") != weights(live)


@pytest.mark.parametrize("changes", [{"cache_dtype": "int8"}, {"cache_order": "shuffled"}], ids=str)
def test_another_dtype_or_order_is_another_run_and_resumes_as_such(
    tmp_path: Path, live: Path, changes: dict[str, Any]
) -> None:
    changes = changes | {"cache": tmp_path / "cache"}
    run(tmp_path / "whole", **changes)
    assert weights(tmp_path / "whole") != weights(live)
    run_until(tmp_path / "broken", 1_500, **changes)
    name = "stored" if "cache_dtype" in changes else "order"
    with pytest.raises(ConfigError, match=f"cannot resume .* its {name} is '"):
        run(tmp_path / "broken", resume=True)
    run(tmp_path / "broken", resume=True, **changes)
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


def test_caches_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    run(tmp_path / "first", cache=cache, layers=[1])
    with pytest.raises(ConfigError, match=r"its sites is mlp_in@1, .*, asked for is mlp_in@0"):
        run(out, cache=cache)
    with pytest.raises(ConfigError, match="its text is"):
        run(out, cache=cache, layers=[1], data=TextList(word_documents(100, seed=1)))
    with pytest.raises(ConfigError, match="cache_dtype and cache_order are of a cache; give its"):
        run(out, cache_dtype="int8")
    path = cache / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"shard-00000\.safetensors is damaged"):
        run(out, cache=cache, layers=[1])
    assert not out.exists()


def test_an_occupied_folder_is_refused_before_the_cache_is_made(tmp_path: Path, live: Path) -> None:
    with pytest.raises(ConfigError, match="already holds trained dictionaries"):
        run(live, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_several_sources_train_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.harvest.live.MOST_BLOCK_TOKENS", 2_048)
    files = []
    for number, longest in enumerate((10, 50)):
        files.append(tmp_path / f"{number}.jsonl")
        lines = [json.dumps({"text": each}) for each in word_documents(60, longest=longest)]
        files[-1].write_text("\n".join(lines), encoding="utf-8")
    data = [f"{files[0]}=1", f"{files[1]}=2"]
    run(tmp_path / "whole", data=data)
    run_until(tmp_path / "broken", 1_500, data=data)
    with pytest.raises(ConfigError, match="its text is"):
        run(tmp_path / "broken", data=[f"{files[0]}=1", f"{files[1]}=3"], resume=True)
    run(tmp_path / "broken", data=data, resume=True, cache=tmp_path / "cache")
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
