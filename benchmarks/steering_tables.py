"""Refresh the tables of docs/steering.md: `python -m benchmarks.steering_tables`."""

import json
from collections.abc import Callable
from itertools import groupby
from math import isfinite
from typing import Any

from benchmarks.steering import RESULTS
from benchmarks.tables import BLOCK, PAGE, markdown
from pellucid.core.proportions import wilson

STEERING_PAGE = PAGE.with_name("steering.md")
Record = dict[str, Any]


def grouped(result: Record) -> list[tuple[str, str, list[Record]]]:
    """Concept, method and the cells of its targets, in the order of the results."""

    def name(cell: Record) -> tuple[str, str]:
        return cell["concept"], cell["method"]

    order = {key: number for number, key in reversed(list(enumerate(map(name, result["cells"]))))}
    cells = sorted(result["cells"], key=lambda cell: order[name(cell)])
    return [(*key, list(members)) for key, members in groupby(cells, key=name)]


def pooled(rows: list[Record]) -> Record:
    """Several targets as one: counts added, cross-entropies averaged."""
    found: Record = {}
    for key in rows[0]:
        if key in ("rho", "strength", "sample"):
            continue
        values = [row[key] for row in rows if isfinite(row[key])]
        counted = key in ("right", "first", "n", "random_right", "random_n")
        found[key] = sum(values) if counted else sum(values) / max(len(values), 1)
    return found


def share(right: int, n: int) -> str:
    """A share with its 95% interval (Wilson)."""
    found = wilson(right, n)
    return f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})"


def steering(result: Record) -> str:
    """Every method at what the development items chose."""
    rows = []
    for concept, method, cells in grouped(result):
        row = pooled([cell["by_rho"][cell["chosen"]] for cell in cells])
        rhos = [cell["by_rho"][cell["chosen"]].get("rho") for cell in cells]
        layers = [cell["site"].split("@")[1] for cell in cells if "site" in cell]
        rows.append(
            [
                concept,
                method,
                ", ".join(dict.fromkeys(layers)),
                ", ".join(dict.fromkeys(f"{rho:g}" for rho in rhos if rho is not None)),
                share(row["right"], row["n"]),
                share(row["random_right"], row["random_n"]) if "random_n" in row else "",
                f"{row['ce']:.2f}",
                f"{row['ce_rest']:.2f}",
                f"{row['random_ce']:.2f}" if "random_ce" in row else "",
                f"{row['neutral_ce']:+.2f}" if "neutral_ce" in row else "",
            ]
        )
    return markdown(
        "concept, method, layer, rho, right, random right, CE, CE after the first token, "
        "random CE, neutral CE",
        rows,
    )


def overall(result: Record) -> str:
    """Every method over all targets, at what the development items chose."""
    rows = []
    for name in dict.fromkeys(cell["method"] for cell in result["cells"]):
        cells = [cell for cell in result["cells"] if cell["method"] == name]
        row = pooled([cell["by_rho"][cell["chosen"]] for cell in cells])
        control = share(row["random_right"], row["random_n"]) if "random_n" in row else ""
        strongest = pooled([cell["by_rho"][-1] for cell in cells])
        worst = (
            share(strongest["random_right"], strongest["random_n"])
            if "random_n" in strongest
            else ""
        )
        rows.append([name, share(row["right"], row["n"]), control, worst])
    return markdown("method, right, random at the same rho, random at rho 2.5", rows)


def by_strength(result: Record) -> str:
    """Share right and cross-entropy at every strength."""
    rows = []
    for concept, method, cells in grouped(result):
        if "site" in cells[0]:
            strengths = [
                pooled(list(row)) for row in zip(*(c["by_rho"] for c in cells), strict=True)
            ]
            shown = [f"{row['right'] / row['n']:.0%}; {row['ce']:.2f}" for row in strengths]
            rows.append([concept, method, *shown])
    return markdown(", ".join(["concept", "method", *(f"{rho:g}" for rho in result["rhos"])]), rows)


def tokens(result: Record) -> str:
    """Development items right at the best strength, by the tokens that are steered."""
    names = dict.fromkeys(cell["method"] for cell in result["cells"] if "site" in cell)
    rows = []
    for name in names:
        cells = [cell for cell in result["cells"] if cell["method"] == name]
        n = len(cells) * result["development"]
        found = [sum(c["development_by_where"][w] for c in cells) for w in ("last", "on")]
        rows.append([name, *(share(right, n) for right in found)])
    return markdown("method, the prompt's last token, that and all that follow", rows)


def conditional(result: Record) -> str:
    """Refusal of one kind of request, gated and not."""
    rows = [
        [row["method"], share(row["refused"], row["n"]), share(row["kept"], row["kept_n"])]
        for row in result["conditional"]
    ]
    return markdown("method, dangerous objects refused, ordinary objects answered as before", rows)


def ablation(result: Record) -> str:
    """Directional ablation beside CAA."""
    rows = [
        [
            row["method"],
            row.get("site", ""),
            str(row.get("position", "")),
            f"{row['kl']:.1e}" if "kl" in row else "",
            f"{row['cosine_with_caa']:.2f}" if "cosine_with_caa" in row else "",
            share(row["complied"], row["n"]),
            share(row["kept"], row["kept_n"]),
        ]
        for row in result["ablation"]
    ]
    return markdown(
        "method, site, position, KL, cosine with CAA, harmful answered, benign as before", rows
    )


def overlap(result: Record) -> str:
    """Other concepts' vectors and refusal."""
    rows = [
        [
            f"{row['concept']} {row['target']}",
            row["site"],
            f"{row['cosine']:.2f}",
            share(row["complied"], row["n"]),
            share(row["refused_as_before"], row["n"]),
        ]
        for row in result["overlap"]
    ]
    return markdown("vector, site, cosine, harmful answered, refused as before", rows)


TABLES: dict[str, Callable[[Record], str]] = {
    "overall": overall,
    "steering": steering,
    "by_strength": by_strength,
    "tokens": tokens,
    "conditional": conditional,
    "ablation": ablation,
    "overlap": overlap,
}


def refreshed(page: str) -> str:
    """The page with every table as the results say."""
    result = json.loads(RESULTS.read_text(encoding="utf-8"))
    return BLOCK.sub(lambda match: match[1] + TABLES[match[2]](result) + match[3], page)


if __name__ == "__main__":
    STEERING_PAGE.write_text(refreshed(STEERING_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
