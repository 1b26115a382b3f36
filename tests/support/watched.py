"""Watched steps by hand, with random graphs."""

from pellucid.verification.steps.place import StepPlace
from pellucid.verification.watching.accused import Accused
from pellucid.verification.watching.segments import Segment
from pellucid.verification.watching.watch import WatchedStep
from support.graphs import random_graph

EVIL = (
    '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>\u2028"@GRAPH@"'
)


def watched(number: int, *, text: str = "( 7 * 2 )", flagged: bool = False) -> WatchedStep:
    """One step; a flagged one has a graph, a reason and an accused feature of that graph."""
    place = StepPlace(start=3, stop=5, answer=(3, 4), roles=("question",) * 3 + ("answer", "step"))
    graph = random_graph(number)
    node = int(graph.nodes.activation.argmax())
    accused = Accused(
        kind="feature",
        target="answer",
        layer=int(graph.nodes.layer[node]),
        index=int(graph.nodes.index[node]),
        position=int(graph.nodes.position[node]),
        token=text,
        activation=float(graph.nodes.activation[node]),
        influence=0.25,
        contribution=1.5,
    )
    return WatchedStep(
        segment=Segment(number=number, text=text, before=text, question=text, place=place),
        score=0.5,
        graphed=flagged,
        probability=0.9 if flagged else 0.02,
        interval=(0.8, 0.95) if flagged else (0.01, 0.03),
        flagged=flagged,
        reasons=((text, 2.25),) if flagged else (),
        accused=(accused,) if flagged else (),
        graphs={"answer": graph} if flagged else {},
    )


def repair_record(step: int, text: str = "mended") -> dict[str, object]:
    """A record as repairs are kept."""
    tried = [{"feature": text, "operation": text, "outcome": "rejected"}]
    return {"step": step, "tried": tried, "outcome": text}
