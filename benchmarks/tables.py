"""Refresh the tables of docs/benchmarks.md from the results: `python -m benchmarks.tables`.

The page (and those of `ALSO`) is written by hand but for what stands between `<!-- table NAME -->`
and `<!-- end of table -->`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
ALSO = tuple(
    PAGE.with_name(f"{name}.md")
    for name in (
        "watching",
        "verification",
        "repair",
        "quality",
        "interchange",
        "cache",
        "training",
        "planning",
        "sweep",
    )
)
"""Other pages with tables of their own."""
RESULTS = Path(__file__).parent / "results"
BLOCK = re.compile(
    r"(^<!-- table (\w+) -->\n).*?(^<!-- end of table -->$)", re.MULTILINE | re.DOTALL
)
Record = dict[str, Any]


def markdown(headings: str, rows: Iterable[Sequence[str]]) -> str:
    """A table; headings are separated by commas, and every row is as long as they are."""
    names, rows = headings.split(", "), list(rows)
    if any(len(row) != len(names) for row in rows):
        raise ValueError(f"a row is not as long as the {len(names)} headings")
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def parity(result: Record) -> str:
    """Agreement with circuit-tracer, a row a model and kind of transcoder."""
    rows = [
        [
            case["family"],
            case["kind"],
            f"{case['shared_features']} ({case['differing_features']})",
            f"{case['max_edge_difference']:.1e}",
            f"{case['influence_difference']:.1e}",
            f"{case['replacement']:.4f}",
            f"{case['completeness']:.4f}",
            f"{case['score_difference']:.1e}",
            f"{case['pruned_nodes']} ({case['differing_nodes']})",
            f"{case['pruned_edges']} ({case['differing_edges']})",
        ]
        for case in result["cases"]
    ]
    return markdown(
        "model, transcoders, features, edges, influence, replacement, completeness, scores, "
        "kept nodes, kept edges",
        rows,
    )


def trace(result: Record) -> str:
    """Seconds and memory of both tracers."""
    rows = []
    for case in result["cases"]:
        ours, theirs = case["ours"], case["theirs"]
        bound = "> " if case["ratio_is_lower_bound"] else ""
        graph = case["graph"]
        rows.append(
            [
                str(case["tokens"]),
                f"{ours['features']:,}",
                f"{ours['active']:,}",
                f"{theirs['cpu_s']:.1f}" if theirs else f"> {case['their_limit_s']}",
                str(theirs["batch_size"]) if theirs else "",
                f"{ours['cpu_s']:.2f}",
                f"{bound}{case['ratio']:.1f}",
                f"{theirs['peak_mb']:,.0f}" if theirs else "",
                f"{ours['peak_mb']:,.0f}",
                f"{case['memory_ratio']:.2f}" if theirs else "",
                f"{graph['max_edge_difference']:.0e}" if graph else "",
            ]
        )
    return markdown(
        "tokens, nodes, of, theirs s, at batch, ours s, ratio, theirs MB, ours MB, ratio of MB, "
        "edges differ",
        rows,
    )


def floor(result: Record) -> str:
    """What the arithmetic costs on this machine beside what the traces took."""
    rows = []
    for case in result["cases"]:
        ours, work = case["ours"], case["ours"]["work"]
        rows.append(
            [
                str(case["tokens"]),
                f"{ours['features']:,}",
                f"{work['must'] / 1e9:,.1f}",
                f"{work['done'] / 1e9:,.1f}",
                f"{work['rate'] / 1e9:.0f}",
                f"{work['floor_s']:.2f}",
                f"{ours['cpu_s']:.2f}",
                f"{work['floor_s'] / ours['cpu_s']:.0%}",
                f"{work['bare_s'] / ours['cpu_s']:.0%}",
            ]
        )
    return markdown(
        "tokens, nodes, must G, done G, rate G/s, floor s, taken s, floor / taken, bare / taken",
        rows,
    )


def growth(result: Record) -> str:
    """The fitted powers."""
    rows = []
    for axis, fitted in result["axes"].items():
        values = [run[axis] for run in fitted["runs"]]
        times = [run["ours"]["cpu_s"] for run in fitted["runs"]]
        rows.append(
            [
                axis,
                f"{min(values):,} to {max(values):,}",
                f"{min(times):.2f} to {max(times):.2f}",
                f"{fitted['slope']:.2f}",
                f"{fitted['low']:.2f} to {fitted['high']:.2f}",
            ]
        )
    return markdown("what grows, range, seconds, power, 95% interval", rows)


def step_growth(result: Record) -> str:
    """A training step and its encoder product, a row a number of features and of k."""
    runs = [run for axis in result["axes"].values() for run in axis["runs"]]
    rows = [
        [
            f"{run['num_features']:,}",
            str(run["k"]),
            f"{run['product_s'] * 1e3:,.0f}",
            f"{run['step_s'] * 1e3:,.0f}",
            f"{1 / run['share']:.2f}",
            f"{run['share']:.0%}",
            f"{run['peak_mb']:,.0f}",
        ]
        for run in runs
    ]
    return markdown("features, k, product ms, step ms, step / product, share, peak MB", rows)


def step_powers(result: Record) -> str:
    """The powers fitted to a training step, and to what it does beyond the product."""
    rows = []
    for name, axis in result["axes"].items():
        at = [run[name] for run in axis["runs"]]
        for what in ("step", "beyond the product"):
            power = axis[what]
            rows.append(
                [
                    "features" if name == "num_features" else name,
                    f"{min(at):,} to {max(at):,}",
                    what,
                    f"{power['slope']:.2f}",
                    f"{power['low']:.2f} to {power['high']:.2f}",
                ]
            )
    return markdown("what grows, range, of, power, 95% interval", rows)


def long(result: Record) -> str:
    """The long prompt."""
    run = result["long"]
    ours = run["ours"]
    row = [f"{run['tokens']:,}", f"{ours['active']:,}", f"{ours['features']:,}"]
    row += [f"{ours['edges']:,}", f"{ours['cpu_s']:.0f}", f"{ours['peak_mb'] / 1024:.1f}"]
    row.append(f"{ours['row_sum_max_error']:.0e}")
    return markdown(
        "tokens, active features, nodes, edges, seconds, peak GiB, row sums off by", [row]
    )


def all_steps(result: Record) -> str:
    """Every step's graph, by one trace and by one trace a step; a row a cap and task."""
    rows = []
    for cap, record in sorted(result["caps"].items(), key=lambda item: int(item[0])):
        for task in sorted({chain["task"] for chain in record["chains"]}):
            mine = [chain for chain in record["chains"] if chain["task"] == task]
            rows.append([f"{int(cap):,}", task, *_steps_row(mine, result["steps"])])
    return markdown(
        "nodes at most, task, chains, tokens, anew s, one trace s, ratio, by chain, of rows, "
        "same nodes, edges differ",
        rows,
    )


def _steps_row(mine: list[Record], steps: int) -> list[str]:
    ratios = sorted(chain["ratio"] for chain in mine)
    graphs = steps * len(mine)
    anew = sum(sum(chain["anew_s"]) for chain in mine) / graphs
    reused = sum(chain["start_s"] + sum(chain["reused_s"]) for chain in mine) / graphs
    lengths = [chain["tokens"] for chain in mine]
    return [
        str(len(mine)),
        f"{min(lengths)} to {max(lengths)}",
        f"{anew:.3f}",
        f"{reused:.3f}",
        f"{anew / reused:.1f}",
        f"{ratios[0]:.1f} to {ratios[-1]:.1f}",
        f"{sum(c['rows_anew'] for c in mine) / sum(c['rows_shared'] for c in mine):.1f}",
        f"{sum(chain['same_nodes'] for chain in mine)} of {graphs}",
        f"{max(chain['max_edge_difference'] for chain in mine):.0e}",
    ]


def cache(result: Record) -> str:
    """What a cache costs by what it stores, and live harvesting above it."""
    live = result["rates"]["live"]
    rows = [["live", "", "", "", f"{live['tokens_a_cpu_s']:,.0f}", "", "", "", ""]]
    exact = fmean(result["fvu"]["float32"])
    for dtype, row in result["rates"]["stored"].items():
        fvu = result["fvu"][dtype]
        rates = [f"{row[name]['tokens_a_cpu_s']:,.0f}" for name in _CACHE_RATES]
        quality = [f"{fmean(fvu):.5f}", f"{fmean(fvu) - exact:+.5f}", f"{max(fvu) - min(fvu):.5f}"]
        rows.append([f"`{dtype}`", f"{row['bytes_a_token']:,}", *rates, *quality])
    return markdown(
        "stored, bytes a token, store, verify, read, read shuffled, FVU, against float32, spread",
        rows,
    )


_CACHE_RATES = ("write", "verify", "read", "read_shuffled")


def clamps(result: Record) -> str:
    """The same clamped generations by every side."""
    part = result["clamps"]
    rows = [
        [
            way["side"],
            way["way"],
            f"{way['clamps_run']} of {part['clamps']}",
            f"{way['cpu_s']:.1f}",
            f"{way['ratio']:.1f}",
            f"{way['peak_mb']:,.0f}",
            f"{way['different_tokens']} of {way['clamps_run'] * part['new_tokens']:,}",
        ]
        for way in part["ways"]
    ]
    return markdown("by, way, clamps run, seconds for all, ratio, peak MB, tokens differ", rows)


def idle(result: Record) -> str:
    """What edits that change nothing or little cost."""
    rows = [
        [
            case["what"],
            case["edit"],
            f"{case['plain_s']:.3f}",
            f"{case['overhead']:+.1%}",
            f"{case['quartiles'][0]:+.1%} to {case['quartiles'][1]:+.1%}",
            f"{case['overhead_of_fastest']:+.1%}",
            str(case["repeats"]),
        ]
        for case in result["idle"]["cases"]
    ]
    return markdown("of, edit, plain s, overhead, quartiles, of the fastest runs, repeats", rows)


def patching(result: Record) -> str:
    """Processor seconds of a whole sweep, a row a side."""
    rows = [
        [
            name,
            f"{case['patches']}",
            side,
            f"{figures['cpu_s']:.3f}",
            f"{figures['times_ours']:.1f}",
            f"{figures['largest_difference']:.0e}",
        ]
        for name, case in result["speed"].items()
        for side, figures in case["sides"].items()
    ]
    return markdown("model, patches, side, CPU s, times ours, values differ by", rows)


def swaps(result: Record) -> str:
    """Share of two-hop pairs, a row a swap or control."""
    rows = [
        [name, f"{row['mean']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", str(row["n"])]
        for name, row in result["two_hop"]["figures"].items()
    ]
    return markdown("what, share, 95% interval, pairs", rows)


def screening(result: Record) -> str:
    """How screens agree with real patches, a row a site and method."""

    def shown(row: Record, name: str) -> str:
        figure = row[name]
        return f"{figure['mean']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"

    rows = [
        [row["site"], row["method"], *(shown(row, name) for name in _SCREENED)]
        for row in result["screens"]
    ]
    return markdown("site, method, rank agreement, beat the median, largest of the rest", rows)


_SCREENED = ("agreement", "missed", "largest_missed")


def lenses(result: Record) -> str:
    """KL to the final prediction, a row a lens and a column a layer."""
    rows = [
        [name, *(f"{value:.3f}" for value in values)] for name, values in result["lens_kl"].items()
    ]
    layers = [f"layer {layer}" for layer in range(len(rows[0]) - 1)]
    return markdown(", ".join(["lens", *layers]), rows)


def share(figure: Record) -> str:
    """A share with its interval, in percent."""
    return f"{figure['value']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})"


def figure(value: Record) -> str:
    """A figure with its interval."""
    return f"{value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f})"


def backdoor(result: Record) -> str:
    """What each arm lets through and what it costs."""
    rows = []
    for arm in result["arms"]:
        rows.append(
            [
                arm["arm"],
                share(arm["attack_success"]),
                share(arm["over_refusal"]),
                share(arm["over_refusal_triggered"]),
                figure(arm["kl"]) if "kl" in arm else "",
            ]
        )
    return markdown(
        "arm, attacks that succeed, benign requests refused, of those with the word, benign KL",
        rows,
    )


def backdoor_discovery(result: Record) -> str:
    """How well attacks are told apart on held-out requests."""
    found = result["discover"]
    raw = {row["site"]: row for row in found["raw"]["sites"]}[found["raw"]["site"]]
    rows = [
        [name, figure(each), share(each["recall_at_fpr"]["0.01"]),
         share(each["recall_at_fpr"]["0.001"])]
        for name, each in (
            (f"logistic probe at {found['raw']['site']}", raw),
            (f"{len(found['features']['probe']['features'])} features", found["features"]),
            ("bag of words", found["words"]),
        )
    ]  # fmt: skip
    rows += [
        ["mean difference, same site", f"{raw['mean_difference']:.4f}", "", ""],
        ["shuffled labels, same site", f"{raw['shuffled']:.4f}", "", ""],
        ["random directions, same site", f"{raw['random']:.4f}", "", ""],
    ]
    return markdown("reading, AUROC, recall at 1% FPR, recall at .1% FPR", rows)


def backdoor_arms(result: Record) -> str:
    """What editing the findings does to attacks, beside controls."""
    rows = [
        [arm["arm"], str(arm["draws"]), share(arm["refused"]), f"{arm['lean_change']:+.2f}",
         share(arm["benign_refused"])]
        for arm in result["validate"]["arms"]
    ]  # fmt: skip
    return markdown(
        "edit without a gate, draws, attacks refused, change of log odds, benign refused", rows
    )


def fingerprints(result: Record) -> str:
    """Milliseconds of a step's fingerprint, and of its graph."""
    median = result["median"]
    parts = {"tracing the graph": median["trace"], "fingerprint and bags": median["all"]}
    parts |= {"of it: pruning": median["pruning"]}
    parts |= {f"of it: `{name}`": value for name, value in median["parts"].items()}
    return markdown("what, ms", [[name, f"{value:.1f}"] for name, value in parts.items()])


def watching(result: Record) -> str:
    """First errors caught as they are written, false alarms, and processor time."""
    rows = []
    for name, ways in result["sets"].items():
        for way, row in ways.items():
            alarms = row["alarms_a_right_chain"]
            rows.append(
                [
                    name,
                    way,
                    f"{row['auroc']['value']:.3f} ({row['auroc']['low']:.3f} to "
                    f"{row['auroc']['high']:.3f})",
                    share(row["caught"]),
                    f"{alarms['value']:.2f} ({alarms['low']:.2f} to {alarms['high']:.2f})",
                    share(row["right_steps_flagged"]),
                    f"{row['graphed_share']:.0%}",
                    f"{row['seconds_a_step']:.3f}",
                    f"{row['writing_seconds_a_step']:.3f}",
                ]
            )
            if equal := row.get("at_the_alarms_of_graphs"):
                flagged = ways["a graph for every step"]["right_steps_flagged"]["value"]
                way = f"{way}, at as many alarms as with graphs"
                rows.append([name, way, "", share(equal), "", f"{flagged:.1%}", "0%", "", ""])
    return markdown(
        "chains, judged by, AUROC, first errors caught, false alarms a right chain, "
        "right steps flagged, graphs, s a step, s to write it",
        rows,
    )


RUNGS = ("text", "confidence", "hidden", "activations", "error", "direct")
OURS = ("crv", "graph", "graph+confidence", "without-graph", "everything")


def verification(result: Record) -> str:
    """AUROC of the best method of every rung and of the graphs, a row a regime."""
    rows = []
    for name, record in result["regimes"].items():
        methods = record["methods"]
        best = [methods[record["ladder"][rung]]["auroc"] for rung in RUNGS]
        rows.append(
            [named(name), *(f"{v:.3f}" for v in best), *(spanned(methods[n]) for n in OURS)]
        )
    return markdown(", ".join(("regime", *RUNGS, *OURS)), rows)


def verification_adds(result: Record) -> str:
    """What the graph adds to the best baseline and to everything else, with intervals."""
    return added(result["regimes"])


def verification_matched(result: Record) -> str:
    """The same with right steps weighted to the wrong ones' lengths and operators."""
    regimes = result["regimes"].items()
    return added({name: each["matched"] for name, each in regimes if "matched" in each})


def added(records: dict[str, Record]) -> str:
    """Paired differences of AUROC, and FPR@95."""
    pairs = ("graph - best baseline", "graph+confidence - best baseline", "graph - crv")
    pairs = (*pairs, "everything - without-graph")
    rows = []
    for name, record in records.items():
        methods, best = record["methods"], record["best_baseline"]
        found = [record["differences"][pair]["auroc"] for pair in pairs]
        rows.append(
            [
                named(name),
                f"`{best}` {methods[best]['auroc']:.3f}",
                *(f"{d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})" for d in found),
                *(f"{methods[each]['fpr95']:.1%}" for each in (best, "graph", "graph+confidence")),
            ]
        )
    heads = "FPR@95 of it, of the graph, of graph+confidence"
    return markdown(", ".join(("regime", "best baseline", *pairs, heads)), rows)


def verification_folds(result: Record) -> str:
    """AUROC on each planted copy, whose rule no training step follows."""
    names = ("graph", "graph+confidence", "without-graph", "crv")
    rows = []
    for task in ("arithmetic", "boolean"):
        record = result["regimes"][f"{task}-planted"]
        best = record["best_baseline"]
        for fold, each in record["folds"].items():
            rule = fold.removeprefix(f"{task}-planted-")
            rows.append([rule, f"`{best}` {each[best]:.3f}", *(f"{each[n]:.3f}" for n in names)])
    return markdown(", ".join(("copy", "best baseline", *names)), rows)


def verification_families(result: Record) -> str:
    """AUROC of the graph's numbers without a family of them, and of the family alone."""
    regimes = result["regimes"]
    families = [n.removeprefix("only ") for n in regimes["arithmetic-in"]["methods"] if "only" in n]
    shown = ("arithmetic-in", "arithmetic-deeper", "arithmetic-planted", "boolean-planted")
    rows = []
    for family in families:
        row = [f"`{family}`"]
        for name in shown:
            methods = regimes[name]["methods"]
            alone, without = methods[f"only {family}"], methods[f"without {family}"]
            row.append(f"{alone['auroc']:.3f} / {without['auroc']:.3f}")
        rows.append(row)
    whole = [f"{regimes[n]['methods']['graph-logistic']['auroc']:.3f}" for n in shown]
    return markdown(
        ", ".join(("family", *map(named, shown))), [*rows, ["all (`graph-logistic`)", *whole]]
    )


def verification_cost(result: Record) -> str:
    """Seconds a step and AUROC by budget; beside the published recipe where that was paired."""
    rows = []
    for row in result["rows"]:
        beyond = row.get("beyond_published")
        rows.append(
            [
                row["verifier"],
                f"{row['target']}, {row['way']}",
                f"{row['max_features']:,}",
                f"{row['seconds_per_step']:.3f}",
                f"{row['times_cheaper']:.1f}",
                between(row["auroc"], ".3f"),
                between(beyond, "+.3f") if beyond else "",
            ]
        )
    return markdown(
        "verifier, graph, features, s a step, times cheaper, AUROC, beyond the published recipe",
        rows,
    )


def culprit(result: Record) -> str:
    """The layer accused, and what taking the accused away mends and harms, a row a copy."""
    rows = []
    for name, each in {**result["copies"], "all": result["all"]}.items():
        edits = each["edits"]
        cells = [edits["layer's errors"], edits["random layer's errors"], edits["16 features"]]
        rows.append(
            [
                name,
                str(each.get("tampered", "")),
                between(each["layer"], ".0%"),
                between(each["layer_by_rule"], ".0%"),
                between(each["layer_by_norm"], ".0%"),
                *(between(cell[what], ".1%") for cell in cells for what in ("mended", "harmed")),
            ]
        )
    return markdown(
        "copy, changed layer, accused, of the rule's errors, by norm alone, mended, harmed, "
        "random: mended, random: harmed, 16 features: mended, 16 features: harmed",
        rows,
    )


def culprit_edits(result: Record) -> str:
    """Every edit over all copies."""
    rows = [
        [name, between(each["mended"], ".1%"), between(each["mended_by_rule"], ".1%"),
         between(each["harmed"], ".1%")]
        for name, each in result["all"]["edits"].items()
    ]  # fmt: skip
    return markdown("taken away or scaled, mended, of the rule's errors, harmed", rows)


def repair(result: Record) -> str:
    """What every arm mends and harms, a row an arm of a setting."""
    rows = []
    for name, setting in result["settings"].items():
        for arm, each in setting["repair"].items():
            gain = each.get("gain")
            rows.append(
                [
                    name,
                    arm,
                    f"{each['fix_rate']:.1%} ({each['low']:.1%} to {each['high']:.1%})",
                    "" if gain is None else between(gain, "+.1%"),
                    f"{each['harm']:.2%} (to {each['harm_high']:.2%})",
                    f"{each['proposed']:.0%}" if "proposed" in each else "",
                    f"{each['seconds']:.2f}" if "seconds" in each else "",
                ]
            )
    return markdown(
        "errors, arm, mended, beyond resampling, right steps harmed, right answer among those "
        "judged, s a step",
        rows,
    )


def recovery(result: Record) -> str:
    """What dictionaries recover of a known truth, a row a dictionary."""
    shown = ("fvu", "mmcs", "mcc", "recovered", "latent_f1", "feature_f1", "split", "absorbed")
    rows = [
        [name, *(spread(figures[key]) for key in shown)] for name, figures in result["rows"].items()
    ]
    return markdown(
        "dictionary, FVU, MMCS, MCC, recovered, F1 of latents, F1 of features, split, absorbed",
        rows,
    )


def planning(result: Record) -> str:
    """Plans beside real runs, a row a training."""
    rows = []
    for name, case in result["cases"].items():
        plan, run = case["plan"], case["run"]
        speeds = ["", "", ""]
        if case["speed_ratio"] is not None:
            rates = [each["tokens_per_second"] for each in (plan, run)]
            speeds = [*(f"{rate:,.0f}" for rate in rates), f"{case['speed_ratio']:.2f}"]
        peaks = [f"{each['peak_mb']:,.0f}" for each in (plan, run)]
        rows.append([name, *peaks, f"{case['memory_ratio']:.2f}", *speeds])
    return markdown(
        "training, planned MB, measured MB, ratio, planned tokens/s, measured tokens/s, ratio", rows
    )


def end_to_end(result: Record) -> str:
    """The whole pipeline beside sparsify's, a row a side."""
    mine = result["sides"]["ours"]
    rows = []
    for name, side in result["sides"].items():
        rate = side["tokens"] / side["cpu_s"]
        row = [name, f"{side['tokens']:,}", f"{side['cpu_s']:,.0f}", f"{rate:,.0f}"]
        row += [f"{mine['tokens'] / mine['cpu_s'] / rate:.2f}", f"{side['peak_mb']:,.0f}"]
        for packing in ("packed", "documents"):
            row.append(", ".join(f"{layer['fvu']:.4f}" for layer in side.get(packing, ())))
        row.append(", ".join(f"{layer['dead']:.1%}" for layer in side.get("packed", ())))
        rows.append(row)
    return markdown(
        "side, tokens, processor s, tokens/s, ours over it, peak MB, FVU by layer, FVU on rows of "
        "one document, dead",
        rows,
    )


def pareto(result: Record) -> str:
    """A sweep of kinds by k: means over seeds, and half the distance between them."""
    groups: dict[tuple[str, int, int], list[Record]] = {}
    for row in result["rows"]:
        groups.setdefault((row["kind"], row["features"], row["k"]), []).append(row)
    rows = []
    for (kind, features, k), seeds in groups.items():
        front = result["front"][seeds[0]["target"]]
        names = {each["name"] for each in seeds}
        best = [measure for measure in ("fvu", "kl") if names & set(front.get(measure, []))]
        cells = [_over_seeds(seeds, name) for name in ("l0", "fvu", "kl", "ce", "top1", "dead")]
        rows.append([kind, f"{features:,}", str(k), *cells, ", ".join(best)])
    return markdown("kind, features, k, L0, FVU, KL, CE, top-1, dead, on the front of", rows)


def _over_seeds(seeds: Sequence[Record], name: str) -> str:
    values = [row[name] for row in seeds if row[name] is not None]
    if not values:
        return ""
    return f"{fmean(values):.4g} ± {(max(values) - min(values)) / 2:.1g}"


def kinds(result: Record) -> str:
    """Short trainings of kinds and activations, a row each."""
    rows = [
        [
            name,
            ", ".join(f"{fvu:.4f}" for fvu in row["fvu"]),
            f"{row['l0']:.1f}",
            f"{row['dead']:.1%}",
        ]
        for name, row in result["rows"].items()
    ]
    table = markdown("what, FVU by layer, L0, dead", rows)
    return f"{result['tokens']:,} tokens:\n\n{table}"


def specimen_features(result: Record) -> str:
    """Dead, dense and near-duplicate features, a row a layer."""
    rows = [
        [
            str(layer["layer"]),
            f"{layer['dead']:.1%}",
            f"{layer['dense']:.2%}",
            f"{layer['duplicates']['share']:.1%}",
            f"{layer['duplicates']['random']:.1%}",
        ]
        for layer in result["layers"]
    ]
    return markdown("layer, dead, dense, near-duplicates, of random directions", rows)


def concepts(result: Record) -> str:
    """How features stand for concepts, a row a dictionary and its controls."""
    rows = []
    for report in result["concepts"]:
        for name in ("figures", "random", "shuffled"):
            each = report[name]

            def cell(key: str, each: Record = each) -> str:
                low, high = each["intervals"][key]
                return f"{each[key]:.3f} ({low:.3f} to {high:.3f})"

            rows.append(
                [
                    str(report["layer"]) if name == "figures" else "",
                    {"figures": "transcoder"}.get(name, name),
                    cell("f1"),
                    f"{each['features']:.2f}",
                    cell("together"),
                    f"{each['represented']:.0%}",
                    cell("absorbed"),
                ]
            )
    return markdown("layer, features of, F1, features, F1 together, represented, absorbed", rows)


def spread(estimate: Record) -> str:
    """A figure and half the width of its interval."""
    half = (estimate["high"] - estimate["low"]) / 2
    return f"{estimate['value']:.3f} ± {half:.3f}"


def between(estimate: Record, form: str) -> str:
    """A figure and its interval."""
    value, low, high = (format(estimate[key], form) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def named(regime: str) -> str:
    """`arithmetic-in` as `arithmetic: in`."""
    return regime.replace("-", ": ", 1)


def spanned(row: Record) -> str:
    """AUROC with its interval."""
    return f"{row['auroc']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def interop(result: Record) -> str:
    """Largest difference of outputs, a row a format, kind and activation, a column a direction."""
    cells = {(cell["case"], cell["direction"]): cell for cell in result["cells"]}
    rows = []
    for name in dict.fromkeys(cell["case"] for cell in result["cells"]):
        both = [cells.get((name, direction)) for direction in ("they read ours", "we read theirs")]
        peer = next(f"{cell['peer']} {cell['version']}" for cell in both if cell)
        rows.append([*name.split("--"), peer, *(_interop_cell(cell) for cell in both)])
    return markdown("format, kind, activation, peer, they read ours, we read theirs", rows)


def _interop_cell(cell: Record | None) -> str:
    if cell is None:
        return ""
    return f"{cell['max_abs_diff']:.1e}" if "max_abs_diff" in cell else cell["error"]


def faults(result: Record) -> str:
    """Trainings that were killed, a row a scenario."""
    rows = []
    for name in dict.fromkeys(training["scenario"] for training in result["trainings"]):
        own = [each for each in result["trainings"] if each["scenario"] == name]
        during = Counter(
            kill["during"]
            for each in own
            for kill in each["kills"]
            if not kill["during"].startswith("nothing")
        )
        rows.append(
            [
                name,
                str(during.total()),
                "; ".join(f"{what} {count}" for what, count in during.items()),
                f"{sum(each['outcome'] == 'bit-identical' for each in own)} of {len(own)}",
                f"{sum(each.get('bytes_compared', 0) for each in own):,}",
            ]
        )
    return markdown("training, kills, during, ended bit-identical, bytes compared", rows)


def damage(result: Record) -> str:
    """What damaged files do, a row an artifact."""
    rows = []
    for name, files in result["damage"]["artifacts"].items():
        done, verdicts = Counter[str](), Counter[str]()
        for file in files.values():
            for what in file.keys() - {"bytes"}:
                done[what] += sum(file[what].values())
                verdicts.update(file[what])
        flipped = done.pop("flipped")
        known = [verdicts.pop(each, 0) for each in ("warning", "one error")]
        cells = [len(files), flipped, done.total(), *known, verdicts.total()]
        rows.append([name, *(f"{cell:,}" for cell in cells)])
    return markdown(
        "artifact, files, flipped bits, other damage, older one taken, one error, unseen", rows
    )


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {  # name -> (results, what prints it)
    "parity": ("parity.json", parity),
    "trace": ("trace.json", trace),
    "floor": ("trace.json", floor),
    "growth": ("growth.json", growth),
    "long": ("growth.json", long),
    "step_growth": ("step_growth.json", step_growth),
    "step_powers": ("step_growth.json", step_powers),
    "all_steps": ("all_steps.json", all_steps),
    "cache": ("cache.json", cache),
    "kinds": ("kinds.json", kinds),
    "end_to_end": ("end_to_end.json", end_to_end),
    "pareto": ("pareto.json", pareto),
    "planning": ("planning.json", planning),
    "clamps": ("interventions.json", clamps),
    "idle": ("interventions.json", idle),
    "patching": ("patching.json", patching),
    "swaps": ("patching.json", swaps),
    "screening": ("screening.json", screening),
    "lenses": ("screening.json", lenses),
    "backdoor": ("backdoor.json", backdoor),
    "backdoor_discovery": ("backdoor.json", backdoor_discovery),
    "backdoor_arms": ("backdoor.json", backdoor_arms),
    "fingerprints": ("fingerprints.json", fingerprints),
    "watching": ("watching.json", watching),
    "verification": ("verification.json", verification),
    "verification_adds": ("verification.json", verification_adds),
    "verification_matched": ("verification.json", verification_matched),
    "verification_folds": ("verification.json", verification_folds),
    "verification_families": ("verification.json", verification_families),
    "repair": ("repair.json", repair),
    "culprit": ("culprit.json", culprit),
    "culprit_edits": ("culprit.json", culprit_edits),
    "recovery": ("recovery.json", recovery),
    "specimen_features": ("specimen_features.json", specimen_features),
    "concepts": ("specimen_features.json", concepts),
    "verification_cost": ("verification_cost.json", verification_cost),
    "interop": ("interop.json", interop),
    "faults": ("faults.json", faults),
    "damage": ("faults.json", damage),
}


def table(name: str) -> str:
    """One table, from the results as they are."""
    file, build = TABLES[name]
    return build(json.loads((RESULTS / file).read_text(encoding="utf-8")))


def refreshed(page: str) -> str:
    """The page with every table as the results say."""
    return BLOCK.sub(lambda match: match[1] + table(match[2]) + match[3], page)


if __name__ == "__main__":
    for each in (PAGE, *ALSO):
        each.write_text(refreshed(each.read_text(encoding="utf-8")), encoding="utf-8")
