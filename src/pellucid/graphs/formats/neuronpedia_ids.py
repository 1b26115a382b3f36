"""Which node a link of the JSON format means, where an old file gives two nodes one id.

Before 0.5.1 circuit-tracer named the error of layer l at position p `0_{l}_{p}`, as it names
feature l of layer 0 there. It lists a target's links by ascending number of the source, features
before errors, and an error reaches later layers alone. That tells nearly all such links apart.
"""

from collections.abc import Sequence

from pellucid.core.errors import GraphError
from pellucid.graphs.tables import ERROR, FEATURE


def link_ends(
    ids: Sequence[str],
    kinds: Sequence[int],
    layers: Sequence[int],
    links: Sequence[tuple[str, str]],
) -> list[tuple[int, int]]:
    """The (target, source) node numbers of every link, in the order of the file.

    Args:
        ids: the nodes' ids in the order of the file.
        kinds: the nodes' kinds.
        layers: the nodes' layers.
        links: target and source id of every link.

    Raises:
        GraphError: two nodes share an id for another reason, a link names an unknown id, or a
            link of two nodes with one id cannot be told apart.
    """
    numbers: dict[str, list[int]] = {}
    for number, node_id in enumerate(ids):
        numbers.setdefault(node_id, []).append(number)
    for node_id, owners in numbers.items():
        if len(owners) > 1 and not _is_old_collision(owners, kinds, layers):
            raise GraphError(
                f"two nodes of the graph JSON share the id {node_id!r:.60}, so its "
                "links are ambiguous; write the file again with circuit-tracer 0.5.1 or later, or "
                "pellucid"
            )
    unknown = next((name for link in links for name in link if name not in numbers), None)
    if unknown is not None:
        raise GraphError(
            f"a link of the graph JSON names {unknown!r:.60}, which is no node; check that the "
            "file is complete"
        )
    # Nothing leads to an error, so a target is the first of two: the feature.
    targets = [numbers[target][0] for target, _ in links]
    if len(numbers) == len(ids):
        return [(t, numbers[source][0]) for t, (_, source) in zip(targets, links, strict=True)]
    rows: dict[int, list[int]] = {}
    for row, target in enumerate(targets):
        rows.setdefault(target, []).append(row)
    ends = [(-1, -1)] * len(links)
    for target, own in rows.items():
        names = [links[row][1] for row in own]
        sources = _told_apart(names, [numbers[name] for name in names], layers, layers[target])
        for row, source in zip(own, sources, strict=True):
            ends[row] = (target, source)
    return ends


def _is_old_collision(owners: list[int], kinds: Sequence[int], layers: Sequence[int]) -> bool:
    """One feature of layer 0, then one error."""
    return [kinds[n] for n in owners] == [FEATURE, ERROR] and layers[owners[0]] == 0


def _told_apart(
    names: list[str], owners: list[list[int]], layers: Sequence[int], target_layer: int
) -> list[int]:
    """One target's sources: for each link the one node that it can mean."""
    result: list[int] = []
    for row, candidates in enumerate(owners):
        fitting = candidates
        if len(candidates) > 1:
            fitting = [n for n in candidates if n == candidates[0] or layers[n] < target_layer]
        if len(fitting) > 1 and names.count(names[row]) == 2:
            fitting = [candidates[names.index(names[row]) < row]]  # both are there, in order
        if len(fitting) > 1:
            before = result[-1] if result else -1
            after = next((o[0] for o in owners[row + 1 :] if len(o) == 1), None)
            fitting = [n for n in fitting if n > before and (after is None or n < after)]
        if len(fitting) != 1:
            raise GraphError(
                f"a link from {names[row]!r:.60} of the graph JSON may mean a feature or an error: "
                "both have this id; write the file again with circuit-tracer 0.5.1 or later"
            )
        result.append(fitting[0])
    return result
