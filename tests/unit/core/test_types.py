"""Sites, sparse codes, configuration and registries."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.config import config_from_dict, config_to_dict
from pellucid.core.errors import ConfigError, SiteError
from pellucid.core.registry import Registry
from pellucid.core.types import SITE_KINDS, ModuleSite, Site, SparseCodes, parse_site

sites = st.one_of(
    st.just(Site("embed")),
    st.builds(Site, st.sampled_from([k for k in SITE_KINDS if k != "embed"]), st.integers(0, 99)),
    st.builds(
        ModuleSite,
        st.from_regex(r"[a-z]{1,8}(\.[a-z0-9]{1,4}){0,3}", fullmatch=True),
        st.sampled_from(["input", "output"]),
    ),
)


@given(sites)
def test_the_text_of_a_site_reads_back(site: Site | ModuleSite) -> None:
    assert parse_site(str(site)) == site


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mlp_inn@3", "unknown site kind 'mlp_inn'"),
        ("mlp_in", "needs a layer"),
        ("mlp_in@x", "has layer 'x'"),
        ("embed@1", "got layer 1"),
        ("", "unknown site kind ''"),
    ],
)
def test_a_text_that_is_no_site_says_why(text: str, message: str) -> None:
    with pytest.raises(SiteError, match=message):
        parse_site(text)


def test_padding_of_sparse_codes_adds_nothing() -> None:
    codes = SparseCodes(torch.tensor([[2.0, 0.0], [1.0, 3.0]]), torch.tensor([[1, 1], [0, 2]]), 4)
    expected = torch.tensor([[0.0, 2.0, 0.0, 0.0], [1.0, 0.0, 3.0, 0.0]])
    assert torch.equal(codes.dense(), expected)
    assert codes.l0().tolist() == [1.0, 2.0]


@dataclass(kw_only=True)
class Settings:
    k: int = 3


def test_configuration_is_strict() -> None:
    assert config_to_dict(config_from_dict(Settings, {"k": 4})) == {"k": 4}
    with pytest.raises(ConfigError, match="unknown setting 'kk' for Settings; known: k"):
        config_from_dict(Settings, {"kk": 4})


def test_a_registry_names_what_it_has() -> None:
    registry = Registry("activation", {"topk": 1, "relu": 2})
    assert registry["relu"] == 2
    assert list(registry) == ["topk", "relu"]
    assert "gelu" not in registry
    with pytest.raises(ConfigError, match="unknown activation 'gelu'; use one of topk, relu"):
        registry["gelu"]
