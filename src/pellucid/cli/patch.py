"""`pellucid patch`: causal tracing between two prompts."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.cli import options
from pellucid.cli import patch_options as given
from pellucid.cli.run import Run, finite
from pellucid.core.errors import ConfigError

_WITHOUT_CORRUPT = ("rome", "dla", "lens")
_NO_EDIT = {"sites": [], "tokens_edited": 0, "mean_relative_norm": 0.0}


def patch(
    run: Run,
    model: options.Model,
    clean: given.Clean,
    corrupt: given.Corrupt = None,
    answer: given.Answer = None,
    other: given.Other = None,
    site: given.SiteOption = "resid_pre",
    method: given.MethodOption = "patching",
    direction: given.DirectionOption = "denoise",
    metric: given.MetricOption = None,
    same: given.Same = None,
    subject: given.Subject = None,
    window: given.Window = 1,
    draws: given.Draws = 3,
    sender: given.Senders = None,
    receiver: given.Receivers = None,
    top: given.Top = 20,
    lens: given.Lens = None,
    out: given.Out = None,
) -> None:
    """Find the places that carry what tells two prompts apart.

    Values of one run are put into the other, one place and token at a time; an effect of 1 means
    that the patch alone carries the whole difference over. Every effect is shown beside its
    controls.
    """
    from pellucid import api
    from pellucid.interventions.tracing import contrast, single

    started = time.perf_counter()
    _check(method, corrupt=corrupt, subject=subject, sender=sender, receiver=receiver)
    loaded = api.load_model(model, device=run.device)
    named: dict[str, Any] = {"answer": answer, "other": other}
    if method in _WITHOUT_CORRUPT:
        pair = single(loaded, clean, **named, metric=metric or "probability")
    else:
        assert corrupt is not None
        pair = contrast(loaded, clean, corrupt, **named, metric=metric or "logit_difference")
    request = _Request(
        run=run,
        model=loaded,
        pair=pair,
        method=method,
        site=site,
        direction=direction,
        same=same,
        subject=subject,
        window=window,
        draws=draws,
        senders=sender or [],
        receivers=receiver or [],
        top=top,
        lens=lens,
    )
    found = _METHODS[method](request)
    record = found.record | {"receipt": found.receipt, "prompt": _prompt(pair)}
    files = {} if out is None else _write(out, record, found.result)
    record |= {"seconds": time.perf_counter() - started, "files": files}
    run.report(record, *found.shown, *(f"wrote {path}" for path in files.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """All that was asked."""

    run: Run
    model: Any
    pair: Any
    method: Any
    site: str
    direction: Any
    same: str | None
    subject: str | None
    window: int
    draws: int
    senders: list[str]
    receivers: list[str]
    top: int
    lens: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What came of it: for JSON, for a reader, and the result that can draw itself, if any."""

    record: dict[str, Any]
    shown: list[Any]
    receipt: dict[str, Any]
    result: Any


def _sweep(request: _Request) -> _Found:
    from pellucid.interventions.tracing import patching_sweep

    with request.run.counter("patches run") as on_progress:
        result = patching_sweep(
            request.model,
            request.pair,
            request.site,
            direction=request.direction,
            noise=request.draws,
            same=request.same,
            seed=request.run.seed,
            on_progress=on_progress,
        )
    return _swept(result)


def _rome(request: _Request) -> _Found:
    from pellucid.interventions.tracing import noise_tracing

    assert request.subject is not None
    site = "resid_post" if request.site == "resid_pre" else request.site
    with request.run.counter("draws of noise") as on_progress:
        result = noise_tracing(
            request.model,
            request.pair,
            request.subject,
            site,
            window=request.window,
            draws=max(2, request.draws),
            seed=request.run.seed,
            on_progress=on_progress,
        )
    return _swept(result)


def _paths(request: _Request) -> _Found:
    from pellucid.interventions.tracing import path_patching

    result = path_patching(
        request.model,
        request.pair,
        request.senders,
        request.receivers,
        direction=request.direction,
        seed=request.run.seed,
    )
    return _swept(result)


def _swept(result: Any) -> _Found:
    from pellucid.cli.patch_tables import cells_table

    strongest = result.strongest(10)
    record = result.to_json() | {"effect": strongest[0], "map": result.effect.tolist()}
    note = [result.note] if result.note else []
    shown = [cells_table(result.title, strongest), *note]
    return _Found(record=record, shown=shown, receipt=result.receipt(), result=result)


def _screen(request: _Request) -> _Found:
    from pellucid.cli.patch_tables import verified_table
    from pellucid.interventions.tracing import edge_scores, screen

    amounts = {"top": request.top, "sample": request.top, "seed": request.run.seed}
    if request.site == "edges":
        if request.method != "eap-ig":
            raise ConfigError(f"--site edges is for eap-ig, not {request.method}; change --method")
        result: Any = edge_scores(
            request.model, request.pair, direction=request.direction, **amounts
        )
        title, picture, receipt = "edges by eap-ig", None, _NO_EDIT
    else:
        result = screen(
            request.model,
            request.pair,
            request.site,
            method=request.method,
            direction=request.direction,
            **amounts,
        )
        title, picture = result.estimate.title, result.estimate
        receipt = result.receipt()
    record = result.to_json()
    best = record["verified"]["top"]
    shown = verified_table(title, record["verified"])
    return _Found(
        record=record | {"effect": best[0] if best else None},
        shown=shown,
        receipt=receipt,
        result=picture,
    )


def _direct(request: _Request) -> _Found:
    from pellucid.cli.patch_tables import components_table
    from pellucid.interventions.tracing import direct_attribution

    pair = request.pair
    result = direct_attribution(
        request.model, pair.clean, pair.answer, pair.other, seed=request.run.seed
    )
    record = result.to_json()
    record["effect"] = max(record["components"], key=lambda each: abs(each["contribution"]))
    return _Found(record=record, shown=[components_table(record)], receipt=_NO_EDIT, result=result)


def _lens(request: _Request) -> _Found:
    from pellucid.cli.patch_tables import lens_table
    from pellucid.interventions.tracing import lens, load_tuned_lens

    pair, tuned = request.pair, None
    if request.lens is not None:
        tuned = load_tuned_lens(request.lens)
        tuned.check_model(request.model)
    result = lens(
        request.model,
        pair.clean,
        [pair.answer, pair.other],
        translate=tuned,
        seed=request.run.seed,
    )
    record = result.to_json() | {"tuned": tuned is not None}
    record["effect"] = {"kl": record["kl"], "kl_shuffled": record["controls"]["kl_shuffled"]}
    return _Found(record=record, shown=[lens_table(result)], receipt=_NO_EDIT, result=result)


_METHODS: dict[str, Callable[[_Request], _Found]] = {
    "patching": _sweep,
    "rome": _rome,
    "paths": _paths,
    "atp": _screen,
    "atp*": _screen,
    "eap-ig": _screen,
    "dla": _direct,
    "lens": _lens,
}


def _check(method: str, **values: Any) -> None:
    """What a method needs is there, before the model is loaded.

    Raises:
        ConfigError: it is not.
    """
    needs = {"rome": ["subject"], "paths": ["sender", "receiver"]}.get(method, [])
    if method not in _WITHOUT_CORRUPT:
        needs = ["corrupt", *needs]
    for name in needs:
        if not values[name]:
            raise ConfigError(f"--method {method} needs --{name}; give it")


def _prompt(pair: Any) -> dict[str, Any]:
    return {
        "clean": pair.clean_tokens,
        "corrupt": pair.corrupt_tokens,
        "answer": pair.answer_text,
        "other": pair.other_text,
        "metric": pair.metric_name,
        "clean_value": pair.clean_value,
        "corrupt_value": pair.corrupt_value,
    }


def _write(out: Path, record: dict[str, Any], result: Any) -> dict[str, str]:
    from pellucid.core.files import write_text

    text = json.dumps(finite(record), indent=2, allow_nan=False)
    write_text(out / "result.json", text + "\n")
    files = {"json": str(out / "result.json")}
    if result is not None:
        for kind in ("png", "svg"):
            files[kind] = str(result.save(out / f"result.{kind}"))
    return files
