"""Every family passes the full conformance suite, and the suite catches descriptions that lie."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from pellucid.core.errors import ConformanceError, ModelError
from pellucid.models import prompt
from pellucid.models.arch import ArchSpec
from pellucid.models.attention_layouts import SEPARATE, last_rows, middle_rows
from pellucid.models.conformance import (
    check_arch,
    check_hooks_removed,
    check_identity_edits,
    check_model,
    probe_ids,
)
from pellucid.models.families import GEMMA2, GPT2, GPT_NEOX, LLAMA
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapPoint
from support.tiny_models import FAMILIES, tiny_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family_passes_the_full_suite(family: str, dtype: torch.dtype) -> None:
    model = load_model(tiny_model(family, dtype=dtype), check=False)

    check_arch(model)

    assert model.spec is not None
    assert model.spec.family == family
    assert model.dtype == dtype


def described(family: str, **changes: Any) -> LanguageModel:
    """A model whose description is changed after the fact."""
    model = load_model(tiny_model(family), check=False)
    assert model.spec is not None
    return LanguageModel(model.module, spec=replace(model.spec, **changes), name="mutant")


WRONG_DESCRIPTIONS = [
    ("llama", {"mlp_norm": "input_layernorm"}, "mlp_in@0|resid_mid@0"),
    ("llama", {"attn_norm": "post_attention_layernorm"}, "attention's input in layer 0"),
    ("llama", {"attn_norm": None}, "attention's input in layer 0"),
    ("llama", {"mlp_post_norm": "input_layernorm"}, "resid_post@0"),
    ("llama", {"norm": GPT2.norm}, "layer 0"),
    ("llama", {"norm": replace(LLAMA.norm, centred=True)}, "attention's input in layer 0"),
    ("llama", {"norm": replace(LLAMA.norm, gain_offset=1.0)}, "attention's input in layer 0"),
    ("llama", {"layout": replace(SEPARATE, value="k_proj")}, "attn_out@0"),
    ("llama", {"layout": replace(SEPARATE, value="q_proj")}, "layer 0"),
    (
        "llama",
        {"layout": replace(SEPARATE, value="values")},
        "layer 0: .*no module at '[^']*values'",
    ),
    ("llama", {"final_norm": "model.layers.2.input_layernorm"}, "final norm"),
    ("llama", {"embedding": "model.norm"}, "embed"),
    ("llama", {"embedding": "lm_head"}, "embed"),
    ("llama", {"blocks": "model.blocks"}, "modules: .*no module at 'model.blocks.0"),
    ("llama", {"parallel": True}, "resid_post@0|mlp_in@0"),
    ("gpt2", {"positions": None}, "embed"),
    ("gpt2", {"attn_norm": "ln_2", "mlp_norm": "ln_1"}, "resid_mid@0"),
    ("gpt_neox", {"parallel": False}, "resid_mid@0"),
    ("gpt_neox_sequential", {"parallel": True}, "mlp_in@0"),
    ("gpt_neox", {"layout": replace(GPT_NEOX.layout, value_rows=last_rows)}, "attn_out@0"),
    ("gemma2", {"norm": replace(GEMMA2.norm, gain_offset=0.0)}, "layer 0"),
    ("gemma2", {"attn_post_norm": None}, "resid_mid@0"),
    ("gemma2", {"mlp_post_norm": None}, "resid_post@0"),
    ("gemma2", {"logit_softcap": None}, "logits from the unembedding"),
    ("gemma2", {"score_softcap": None}, "the attention pattern of layer 0"),
    ("gemma3", {"rotary": None}, "the attention pattern of layer 0"),
    ("gpt_neox", {"rotary": None}, "the attention pattern of layer 0"),
    ("qwen3", {"layout": SEPARATE}, "the attention pattern of layer 0"),
    ("llama", {"layout": replace(SEPARATE, key="v_proj")}, "the attention pattern of layer 0"),
    ("gpt2", {"layout": replace(GPT2.layout, query_rows=middle_rows)}, "the attention pattern"),
    ("olmo2", {"mlp_post_norm": None, "attn_post_norm": None}, "resid_mid@0"),
    ("phi3", {"layout": replace(SEPARATE, value="o_proj")}, "layer 0|attn_out@0"),
]


@pytest.mark.parametrize(
    ("family", "changes", "where"),
    WRONG_DESCRIPTIONS,
    ids=[f"{family}-{'-'.join(changes)}" for family, changes, _ in WRONG_DESCRIPTIONS],
)
def test_quick_check_names_the_site_of_a_wrong_description(
    family: str, changes: dict[str, Any], where: str
) -> None:
    with pytest.raises(ConformanceError, match=rf"described, at .*({where})"):
        check_model(described(family, **changes))


def test_a_model_that_attends_to_later_positions_is_refused() -> None:
    module = tiny_model("gemma3", use_bidirectional_attention=True)

    with pytest.raises(ConformanceError, match=r"attn_out@0.* looks at later positions"):
        load_model(module)


def test_weights_that_are_not_finite_are_refused() -> None:
    module = tiny_model("llama")
    module.model.layers[1].mlp.down_proj.weight.data[3, 4] = float("nan")

    with pytest.raises(ModelError, match=r"NaN or infinity.*'model.layers.1.mlp.down_proj.weight'"):
        load_model(module)


def test_a_resid_mid_edit_that_skips_the_residual_branch_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = ArchSpec.point

    def only_the_norm(self: ArchSpec, *args: Any) -> TapPoint:
        return replace(real(self, *args), in_place=False)

    monkeypatch.setattr(ArchSpec, "point", only_the_norm)
    with pytest.raises(ConformanceError, match="resid_post@0: is not the sum"):
        check_arch(load_model(tiny_model("llama")))


def test_positions_that_count_padding_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny_model("gpt2"))
    monkeypatch.setattr(prompt, "position_ids", lambda mask: torch.arange(mask.shape[1])[None])

    with pytest.raises(ConformanceError, match="padding on the left"):
        check_arch(model)


def test_an_edit_that_does_not_reach_the_logits_is_caught() -> None:
    module = tiny_model("llama")
    module.lm_head.weight.data.zero_()

    with pytest.raises(ConformanceError, match="at embed: an edit does not reach the logits"):
        check_arch(load_model(module))


def test_attention_that_does_more_than_mix_values_is_caught() -> None:
    module = tiny_model("llama")
    projection = module.model.layers[2].self_attn.o_proj
    projection.register_forward_hook(lambda _module, _args, output: output.tanh())

    with pytest.raises(ConformanceError, match="at attn_out@2, rebuilt: relative error"):
        load_model(module)


class WithoutEarlyExit(LanguageModel):
    """Reads its sites in a full forward."""

    def activations(self, ids: Any, sites: Any, mask: Any = None) -> Any:
        kept: dict[Any, torch.Tensor] = {}

        def keep(site: Any) -> tuple[Any, Callable[..., None]]:
            return site, lambda value, call: kept.update({site: value.clone()})

        with self.tapped([keep(site) for site in sites]):
            self.logits(ids, mask)
        return kept


def test_a_forward_that_goes_on_after_the_last_site_is_caught() -> None:
    model = load_model(tiny_model("llama"))

    with pytest.raises(ConformanceError, match=r"embed: reading it goes on to run"):
        check_arch(WithoutEarlyExit(model.module, spec=model.spec, name="slow"))


class ForgetsHooksAfterAnError(LanguageModel):
    """Removes its hooks only when all goes well."""

    @contextmanager
    def tapped(self, taps: Any) -> Iterator[None]:  # type: ignore[override]
        context = super().tapped(taps)
        self.left_open = [context]  # kept alive, or the generator's end would remove them
        context.__enter__()
        yield
        context.__exit__(None, None, None)


def test_hooks_that_stay_after_an_error_are_caught() -> None:
    model = load_model(tiny_model("llama"))
    forgetful = ForgetsHooksAfterAnError(model.module, spec=model.spec, name="forgetful")

    with pytest.raises(ConformanceError, match="at embed: a hook stays"):
        check_hooks_removed(forgetful, probe_ids(forgetful))


def test_a_model_that_is_not_deterministic_is_caught() -> None:
    model = load_model(tiny_model("gpt2"))
    model.module.train()

    with pytest.raises(ConformanceError, match="logits after adding zero at embed"):
        check_identity_edits(model, probe_ids(model))
