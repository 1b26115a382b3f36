"""What `pellucid steer` is given, read and checked, and the vector that comes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pellucid.attribution.many import read_prompts
from pellucid.core.errors import ConfigError
from pellucid.core.types import AnySite, Site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.steering.contrast import CONTRASTS, actadd
from pellucid.interventions.steering.features import feature_vector, rank_features
from pellucid.interventions.steering.targeted import measure_effects
from pellucid.interventions.steering.vector import SteeringVector, load_vector
from pellucid.interventions.where import EVERYWHERE, Where, at, window
from pellucid.models.model import LanguageModel

_PAIRED = (*CONTRASTS, "actadd")
_FEATURE = ("feature", "sae-ts")
_DEPTH = 0.4


@dataclass(frozen=True, slots=True)
class Source:
    """What the vector is to be made of, as the options say."""

    positive: Path | None
    negative: Path | None
    vector: Path | None
    feature: str | None
    method: str | None
    site: str | None
    target: tuple[str, ...]

    @property
    def way(self) -> str:
        """The method, or the usual one for what was given."""
        return self.method or ("feature" if self.feature is not None else "caa")

    def check(self) -> None:
        """Refuse options that contradict each other or are missing.

        Raises:
            ConfigError: with the option to give or to leave out.
        """
        pair = self.positive is not None or self.negative is not None
        if sum((pair, self.vector is not None, self.feature is not None)) > 1:
            raise ConfigError(
                "give one of --positive with --negative, --vector, or --feature, not several"
            )
        if self.vector is not None:
            if self.method is not None or self.site is not None:
                raise ConfigError(
                    "--vector brings its own method and site; leave out --method and --site"
                )
        elif self.way in _PAIRED and (self.positive is None or self.negative is None):
            raise ConfigError(f"--method {self.way} needs --positive and --negative; give both")
        elif self.way in _FEATURE and self.feature is None:
            raise ConfigError(f"--method {self.way} needs --feature LAYER:NUMBER; give one")
        elif self.way not in _PAIRED and pair:
            raise ConfigError(f"--method {self.way} takes no --positive or --negative; leave out")
        if self.way in ("feature", "output-score") and self.site is not None:
            raise ConfigError(
                f"--method {self.way} steers where the dictionary writes; leave out --site"
            )
        if not self.target and self.positive is None:
            raise ConfigError("--target is missing: name what should become likelier")

    def targets(self) -> tuple[str, ...]:
        """What should become likelier: the targets, or the positive texts."""
        if self.target or self.positive is None:
            return self.target
        return tuple(lines(self.positive))


def made_vector(
    model: LanguageModel,
    source: Source,
    prompts: list[str],
    dictionaries: Callable[[], DictionarySet],
) -> SteeringVector:
    """The vector that the options ask for.

    Args:
        model: the model.
        source: checked options.
        prompts: on which effects of SAE-TS and output scores are measured.
        dictionaries: loads them, where they are needed.

    Raises:
        ConfigError: a feature that cannot be read, or no feature that raises the target.
        InterventionError: as the methods say.
    """
    if source.vector is not None:
        found = load_vector(source.vector)
        found.check_model(model)
        return found
    site = source.site or f"resid_post@{int(_DEPTH * model.n_layers)}"
    if source.positive is not None and source.negative is not None:
        positive, negative = lines(source.positive), lines(source.negative)
        if source.way == "actadd":
            return actadd(model, positive[0], negative[0], site)
        return CONTRASTS[source.way](model, positive, negative, site)
    loaded = dictionaries()
    loaded.check_model(model, every_layer=False)
    if source.way == "output-score":
        ids = [model.tokenize(word)[-1] for word in source.target]
        ranked = rank_features(model, loaded, ids, prompts[:8])
        if not ranked:
            raise ConfigError(
                f"no feature reaches the output and promotes {source.target}; name another target"
            )
        return feature_vector(model, loaded, ranked[0].layer, ranked[0].feature)
    layer, number = _feature(source.feature or "")
    if source.way == "feature":
        return feature_vector(model, loaded, layer, number)
    return measure_effects(model, loaded, layer, site, prompts[:4]).solve({number: 1.0})


def wheres(tokens: str) -> Where:
    """The tokens that an option of that name steers."""
    return {"last": at(-1), "on": window(-1), "all": EVERYWHERE}[tokens]


def gate_sites(site: AnySite) -> list[AnySite]:
    """Where a condition may be read for steering at a site: every earlier block's output.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(site, Site) or site.layer < 1:
        raise ConfigError(
            f"a condition is read at the output of a block before {site}, and there is none; steer "
            "at a later layer with --site"
        )
    return [Site("resid_post", layer) for layer in range(site.layer)]


def neutral_texts(model: LanguageModel, data: str | None, count: int) -> list[str]:
    """The first held-out texts of a source that fit the model; empty without a source.

    Raises:
        ConfigError: none fits.
        DataError: the source cannot be read.
    """
    if data is None:
        return []
    from pellucid.harvest.sources import open_text

    fitting = (
        text
        for text in islice(open_text(data).split("heldout").documents(), 10 * count)
        if text.strip() and len(model.tokenize(text)) <= model.context_length
    )
    found = list(islice(fitting, count))
    if not found:
        raise ConfigError(
            f"--data {data}: none of its first texts fits the model's context of "
            f"{model.context_length} tokens; give shorter texts"
        )
    return found


def texts(given: str) -> list[str]:
    """The lines of a file, or the text itself where there is no such file."""
    path = Path(given)
    try:
        return lines(path) if path.is_file() else [given]
    except OSError:  # a text too long to be a path
        return [given]


def lines(path: Path) -> list[str]:
    """The texts of a file, one a line.

    Raises:
        DataError: no such file, or nothing in it.
        ConfigError: a line gives token ids.
    """
    found = [each.prompt for each in read_prompts(path)]
    if not all(isinstance(each, str) for each in found):
        raise ConfigError(f"{path} holds token ids; write texts")
    return [str(each) for each in found]


def _feature(text: str) -> tuple[int, int]:
    layer, _, number = text.partition(":")
    if not layer.isdecimal() or not number.isdecimal():
        raise ConfigError(f"--feature is {text!r}; write LAYER:NUMBER, as in 2:123")
    return int(layer), int(number)
