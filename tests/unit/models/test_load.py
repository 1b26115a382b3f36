import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM, LlamaModel
from transformers.utils import logging as transformers_logging

from pellucid.core.errors import ConfigError, ModelError
from pellucid.core.types import ModuleSite
from pellucid.models.load import load_model
from support.tiny_models import save_tiny_llama, tiny_model, word_tokenizer

IDS = torch.tensor([[1, 7, 30, 5]])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("saved") / "llama")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_folder_gives_the_model_that_transformers_reads(saved: Path, as_type: type) -> None:
    model = load_model(as_type(saved))

    reference = AutoModelForCausalLM.from_pretrained(saved, attn_implementation="eager")
    assert torch.equal(model.logits(IDS), reference(IDS, use_cache=False).logits)
    assert model.name == str(saved)
    assert model.encode("w7").tolist() == [1, 7]
    assert model.fingerprint() == load_model(reference).fingerprint()


def test_the_fingerprint_outlives_saving_and_precision(saved: Path) -> None:
    model = load_model(saved, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert model.fingerprint() == load_model(saved).fingerprint()


def test_a_tied_checkpoint_saved_without_its_head(tmp_path: Path) -> None:
    """The form of the hub's GPT-2: no `transformer.` before the names, no head."""
    module = tiny_model("gpt2")
    module.transformer.save_pretrained(tmp_path)
    torch.testing.assert_close(load_model(tmp_path).logits(IDS), module(IDS).logits)


def test_weights_are_float32_by_default_whatever_was_stored(tmp_path: Path) -> None:
    tiny_model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert load_model(tmp_path).dtype == torch.float32


def test_a_module_keeps_its_dtype_unless_told(saved: Path) -> None:
    assert load_model(tiny_model("gpt2", dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert load_model(tiny_model("gpt2"), dtype=torch.bfloat16).dtype == torch.bfloat16


def test_attention_is_made_eager() -> None:
    module = tiny_model("llama")
    module.set_attn_implementation("sdpa")
    assert load_model(module).module.config._attn_implementation == "eager"


def test_a_given_tokenizer_is_used(saved: Path) -> None:
    tokenizer = word_tokenizer()
    assert load_model(saved, tokenizer).tokenizer is tokenizer


def test_a_folder_without_a_tokenizer_loads_without_one(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert load_model(folder).tokenizer is None


def test_loading_prints_nothing_and_restores_verbosity(
    saved: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    load_model(saved)
    with pytest.raises(ModelError):
        load_model(saved.parent / "nowhere")
    assert capfd.readouterr() == ("", "")
    after = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    assert after == before


class TestNotFound:
    @pytest.mark.parametrize("source", ["./nowhere/at/all", "a/b/c", "~/nowhere", Path("nowhere")])
    def test_a_path(self, source: str | Path) -> None:
        with pytest.raises(ModelError, match=r"no model folder at '.*'; give a folder written by"):
            load_model(source)

    def test_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "weights.bin"
        file.write_bytes(b"weights")
        with pytest.raises(ModelError, match="no model folder at"):
            load_model(str(file))

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"has no config\.json; give a folder written by"):
            load_model(tmp_path)

    def test_a_hub_id_without_a_connection(self) -> None:
        with pytest.raises(ModelError, match=r"model 'nobody/nothing' cannot be read \(.*network"):
            load_model("nobody/nothing")


class TestDamaged:
    def weights(self, folder: Path) -> Path:
        return folder / "model.safetensors"

    def test_truncated_weights(self, folder: Path) -> None:
        content = self.weights(folder).read_bytes()
        self.weights(folder).write_bytes(content[: len(content) // 2])
        with pytest.raises(ModelError, match=r"model .* cannot be read \(.*header.*\); check"):
            load_model(folder)

    @pytest.mark.parametrize("position", [0, 20])
    def test_a_flipped_bit_in_the_header(self, folder: Path, position: int) -> None:
        content = bytearray(self.weights(folder).read_bytes())
        content[position] ^= 0x80
        self.weights(folder).write_bytes(bytes(content))
        with pytest.raises(ModelError, match="cannot be read"):
            load_model(folder)

    def test_weights_of_nan(self, folder: Path) -> None:
        content = bytearray(self.weights(folder).read_bytes())
        content[-400:] = b"\xff" * 400
        self.weights(folder).write_bytes(bytes(content))
        with pytest.raises(ModelError, match="hold NaN or infinity, first in"):
            load_model(folder)

    def test_no_weights(self, folder: Path) -> None:
        self.weights(folder).unlink()
        with pytest.raises(ModelError, match=r"no file named model\.safetensors"):
            load_model(folder)

    def test_pickled_weights_are_not_read(self, folder: Path) -> None:
        self.weights(folder).unlink()
        (folder / "pytorch_model.bin").write_bytes(b"never unpickled")
        with pytest.raises(ModelError, match="cannot be read"):
            load_model(folder)

    def test_more_layers_than_weights(self, folder: Path) -> None:
        change_config(folder, num_hidden_layers=4)
        with pytest.raises(ModelError, match=r"lack 'model\.layers\.3\.input_layernorm"):
            load_model(folder)

    def test_another_width_than_the_weights(self, folder: Path) -> None:
        change_config(folder, hidden_size=64)
        with pytest.raises(ModelError, match="have another shape than its config for 'lm_head"):
            load_model(folder)

    def test_a_configuration_that_is_not_json(self, folder: Path) -> None:
        (folder / "config.json").write_text("{")
        with pytest.raises(ModelError, match=r"configuration of .* not a valid JSON"):
            load_model(folder)

    def test_a_broken_tokenizer(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")
        with pytest.raises(ModelError, match=r"tokenizer of .* cannot be read"):
            load_model(folder)


@pytest.mark.parametrize("model_type", ["opt", "no-such-family"])
def test_an_unsupported_family_lists_the_supported_ones(folder: Path, model_type: str) -> None:
    change_config(folder, model_type=model_type)
    with pytest.raises(ModelError, match=rf"family '{model_type}', which is not.*gpt2.*phi3"):
        load_model(folder)


def test_remote_code_is_never_run(folder: Path, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(proof)!r}).touch()\n")
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    change_config(folder, auto_map=auto_map)

    load_model(folder)  # the family is known: transformers' own class is used

    change_config(folder, model_type="evil")
    for generic in (False, True):
        with pytest.raises(ModelError):
            load_model(folder, generic=generic)
    assert not proof.exists()


def test_a_model_without_its_head_is_explained() -> None:
    module = LlamaModel(tiny_model("llama").config)
    with pytest.raises(ModelError, match="LlamaModel has no language-model head at 'lm_head'"):
        load_model(module)
    assert load_model(module, generic=True).spec is None


def test_any_transformer_loads_generically(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=67,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
    )
    masked_lm = BertForMaskedLM(config).eval()
    masked_lm.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="family 'bert', which is not supported"):
        load_model(tmp_path)

    model = load_model(tmp_path, generic=True)

    site = ModuleSite("encoder.layer.0", "output")
    expected = masked_lm.bert(IDS).last_hidden_state
    torch.testing.assert_close(model.activations(IDS, [site])[site], expected)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ConfigError, match=rf"device '{device}' is not available \(.*\); use cpu"):
        load_model(tiny_model("llama"), device=device)
