"""Training end to end on tiny models, in this process."""

import json
import logging
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, BertTokenizerFast

from pellucid.core.errors import ConfigError, DataError, SiteError, StorageError
from pellucid.core.types import ModuleSite, Site
from pellucid.dictionaries import SAE, load_dictionaries
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from pellucid.training import TrainConfig, TrainProgress, TrainResult, train
from pellucid.training.run_checkpoint import load_newest
from support.tiny_models import save_tiny_llama, tiny_model, word_tokenizer
from support.word_text import word_documents

TOKENIZER = word_tokenizer()
MODEL = load_model(tiny_model("llama", tokenizer=TOKENIZER), TOKENIZER)
TEXT = TextList(word_documents(100, longest=40))
SETTINGS: dict[str, Any] = {
    "tokens": 3_000,
    "shuffle_tokens": 600,
    "batch_tokens": 128,
    "num_features": 64,
    "k": 4,
    "precision": "float32",
    "learning_rate": 3e-3,
    "held_out_tokens": 300,
}


def run(out: Path, **changes: Any) -> TrainResult:
    return train(MODEL, **({"data": TEXT, "out": out} | SETTINGS | changes))


def weights(out: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.stem}.{name}": tensor
        for file in sorted(out.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def same_weights(left: Path, right: Path) -> bool:
    a, b = weights(left), weights(right)
    return bool(a) and a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


class Stop(Exception):
    """Stands for whatever ends a process between two steps."""


def run_until(out: Path, tokens: int, **changes: Any) -> None:
    """Train with a checkpoint at every step, and die after `tokens`."""

    def stop(progress: TrainProgress) -> None:
        if progress.tokens > tokens:
            raise Stop

    with pytest.raises(Stop):
        run(out, checkpoint_seconds=0.0, on_progress=stop, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run(out)
    return out


def test_a_run_ends_with_dictionaries_that_explain_the_model(tmp_path: Path) -> None:
    progress: list[TrainProgress] = []
    result = run(tmp_path, tokens=15_000, on_progress=progress.append)
    assert result.tokens == 15_000 // 128 * 128
    assert result.measured_on == "held-out text"
    assert [layer.layer for layer in result.layers] == [0, 1, 2]
    assert all(0.2 < layer.fvu < 0.7 and layer.l0 <= 4 for layer in result.layers)

    assert len(progress) == result.tokens // 128
    assert progress[-1].seconds_left == 0 < progress[0].seconds_left
    assert progress[-1].layers[0].fvu < progress[0].layers[0].fvu
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["tokens"] for line in lines] == [
        each.tokens for each in progress[9::10]
    ]

    loaded = load_dictionaries(tmp_path)
    loaded.check_model(MODEL)
    assert loaded.manifest is not None
    assert loaded.manifest.results == result.to_json()
    assert (loaded[1].read_site, loaded[1].write_site) == (Site("mlp_in", 1), Site("mlp_out", 1))
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / ".export").exists()


def test_dictionaries_can_be_stored_at_half_the_size(tmp_path: Path, finished: Path) -> None:
    run(tmp_path / "half", store_dtype=torch.float16)
    half, full = weights(tmp_path / "half"), weights(finished)
    assert half.keys() == full.keys()
    for name, tensor in half.items():
        assert tensor.dtype == torch.float16
        assert tensor.equal(full[name].half())


def test_saved_dictionaries_take_raw_activations(finished: Path) -> None:
    """Scales are folded: on the model's own values the FVU is the one the manifest records."""
    loaded = load_dictionaries(finished)
    error = variance = 0.0
    ids = [MODEL.encode(text) for text in TEXT.split("heldout").documents() if len(text) > 20]
    for layer in (0, 2):
        sites = [Site("mlp_in", layer), Site("mlp_out", layer)]
        values = [MODEL.activations(row[None], sites) for row in ids]
        x, y = (torch.cat([value[site][0, 1:] for value in values]) for site in sites)
        error = float((y - loaded[layer](x)).square().sum())
        variance = float((y - y.mean(dim=0)).square().sum())
        assert loaded.manifest is not None
        recorded = loaded.manifest.results["layers"][layer]["fvu"]
        assert error / variance == pytest.approx(recorded, rel=0.15)


@pytest.mark.parametrize("stopped_after", [1, 600, 1_500])
def test_resuming_ends_with_the_same_weights(
    tmp_path: Path, finished: Path, stopped_after: int
) -> None:
    run_until(tmp_path, stopped_after)
    run(tmp_path, resume=True)
    assert same_weights(tmp_path, finished)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["tokens"] for line in lines]
    assert steps == sorted(set(steps))


def test_resuming_falls_back_to_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_until(tmp_path, 1_000)
    newest = max((tmp_path / "checkpoints").iterdir())
    file = newest / "layer_1.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with caplog.at_level(logging.WARNING):
        run(tmp_path, resume=True)
    assert f"passing over the checkpoint {newest.name}" in caplog.text
    assert same_weights(tmp_path, finished)


def test_resuming_a_run_that_has_saved_nothing_begins_it(
    tmp_path: Path, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, resume=True)
    assert "no checkpoint yet" in caplog.text
    assert same_weights(tmp_path, finished)


def test_resuming_a_finished_run_gives_its_result(finished: Path) -> None:
    before = (finished / "manifest.json").read_bytes()
    again = run(finished, resume=True)
    assert again.to_json() == load_dictionaries(finished).manifest.results  # type: ignore[union-attr]
    assert (finished / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 5}, "its k is 4, now it is 5"),
        ({"tokens": 5_000}, "its tokens is 3000, now it is 5000"),
        ({"layers": [0, 1]}, "its sites is"),
        ({"data": TextList(word_documents(100, seed=1))}, "its text is"),
        ({"seed": 1}, "its seed is 0"),
        ({"forward_precision": "bfloat16"}, "its forward_precision is 'float32'"),
    ],
)
def test_only_the_same_run_can_be_resumed(
    tmp_path: Path, finished: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(finished, resume=True, **changes)
    run_until(tmp_path, 200)
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, resume=True, **changes)


def test_another_model_cannot_resume(tmp_path: Path) -> None:
    run_until(tmp_path, 200)
    other = load_model(tiny_model("llama", seed=1, tokenizer=TOKENIZER), TOKENIZER)
    with pytest.raises(ConfigError, match="its model is"):
        train(other, TEXT, tmp_path, resume=True, **SETTINGS)


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(ConfigError, match="already holds trained dictionaries"):
        run(finished)
    run_until(tmp_path, 200)
    with pytest.raises(ConfigError, match="already holds a run that is not finished"):
        run(tmp_path)


def test_a_disk_that_fills_up_costs_only_the_last_checkpoint(
    tmp_path: Path, finished: Path
) -> None:
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up(progress: TrainProgress) -> None:
        if progress.tokens > 1_500:  # no file may grow past what the log needs
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    try:
        with pytest.raises(StorageError, match=r"cannot write .*checkpoint-.*File too large"):
            run(tmp_path, checkpoint_seconds=0.0, on_progress=fill_up)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_newest(tmp_path / "checkpoints").tokens == 11 * 128
    assert not list((tmp_path / "checkpoints").glob(".*"))
    run(tmp_path, resume=True)
    assert same_weights(tmp_path, finished)


def test_a_short_text_is_repeated_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = TextList(word_documents(5), name="five texts")
    result = run(tmp_path, data=text, tokens=1_280)
    total = sum(len(TOKENIZER.encode(document)) for document in text.documents())
    assert result.measured_on == "training text"
    assert f"five texts has {total:,} tokens: it is repeated" in caplog.text


def test_an_sae_and_a_skip_transcoder_train_in_the_same_loop(tmp_path: Path) -> None:
    run(tmp_path / "sae", kind="sae", layers=[1], tokens=8_000)
    sae = load_dictionaries(tmp_path / "sae")[1]
    assert isinstance(sae, SAE)
    assert sae.read_site == sae.write_site == Site("resid_post", 1)
    result = run(tmp_path / "skip", kind="skip-transcoder", layers=[0], tokens=8_000)
    assert "W_skip" in load_dictionaries(tmp_path / "skip")[0].tensors()
    assert result.layers[0].fvu < 0.7


def test_a_saved_model_trains_on_a_folder_of_files(tmp_path: Path) -> None:
    model = load_model(save_tiny_llama(tmp_path / "model"))
    folder = tmp_path / "text"
    folder.mkdir()
    for number, text in enumerate(word_documents(40)):
        (folder / f"{number:02}.txt").write_text(text + "\n", encoding="utf-8")
    out = tmp_path / "out"
    result = train(model, data=folder, out=out, **SETTINGS)
    assert result.measured_on == "held-out text"
    load_dictionaries(out).check_model(load_model(tmp_path / "model"))


def test_an_encoder_trains_on_modules_named_by_path(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(5, 30))]
    tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )
    torch.manual_seed(0)
    encoder = load_model(BertModel(config), tokenizer)
    train(
        encoder,
        TEXT,
        tmp_path,
        read="encoder.layer.{layer}.intermediate.dense",
        write="encoder.layer.{layer}.output.dense",
        **SETTINGS,
    )
    loaded = load_dictionaries(tmp_path)
    assert loaded.layers == [0, 1]
    assert loaded[1].write_site == ModuleSite("encoder.layer.1.output.dense", "output")
    assert (loaded[1].d_in, loaded[1].d_out) == (16, 16)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"k": 65}, ConfigError, "k is 65 but there are only 64 features"),
        ({"tokens": 0}, ConfigError, "tokens is 0"),
        ({"shuffle_tokens": 0}, ConfigError, "shuffle_tokens is 0"),
        ({"held_out_tokens": -1}, ConfigError, "held_out_tokens is -1"),
        ({"topk": 3}, ConfigError, "unknown setting 'topk'"),
        ({"config": TrainConfig()}, ConfigError, "give config or batch_tokens, .* not both"),
        ({"forward_precision": "float8"}, ConfigError, "unknown forward precision 'float8'"),
        ({"context_length": 4_096}, ConfigError, "rows of 4096 tokens do not fit"),
        ({"read": "a", "write": "b"}, SiteError, "'a'"),
        ({"data": TextList([" "])}, DataError, "no usable token"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        run(tmp_path / "file" / "out")
