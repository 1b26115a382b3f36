"""How the command line says what a graph is to explain."""

import re

from pellucid.attribution.explain import Feature, Logit, LogitDifference, Target
from pellucid.core.errors import ConfigError

_FEATURE = re.compile(r"(\d+)\.(\d+)(?:@(\d+))?")


def parse_target(text: str) -> Target:
    """Read `logit:WORD`, `difference:WORD,WORD` or `feature:LAYER.NUMBER@POSITION`.

    A word written as `#12` is a token id.

    Raises:
        ConfigError: it is none of these.
    """
    kind, _, rest = text.partition(":")
    words = [_token(word) for word in rest.split(",")]
    if kind == "logit" and rest:
        return Logit(_token(rest))
    if kind == "difference" and len(words) == 2 and all(words):
        return LogitDifference(words[0], words[1])
    found = _FEATURE.fullmatch(rest)
    if kind == "feature" and found:
        layer, feature, position = (None if part is None else int(part) for part in found.groups())
        assert layer is not None and feature is not None
        return Feature(layer, feature, position)
    raise ConfigError(
        f"--target is {text!r}; write logit:WORD, difference:WORD,WORD or "
        "feature:LAYER.NUMBER@POSITION"
    )


def _token(word: str) -> str | int:
    return int(word[1:]) if re.fullmatch(r"#\d+", word) else word
