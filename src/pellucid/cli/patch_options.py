"""The options of `pellucid patch`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pellucid.cli.values import parse_count

Method = Literal["patching", "atp", "atp*", "eap-ig", "rome", "paths", "dla", "lens"]

Clean = Annotated[str, typer.Option("--clean", metavar="TEXT", help="The prompt that is right.")]
Corrupt = Annotated[
    str | None,
    typer.Option(
        "--corrupt",
        metavar="TEXT",
        help="The same with something changed, as many tokens; rome, dla and lens do without.",
    ),
]
Answer = Annotated[
    str | None,
    typer.Option(
        "--answer", metavar="WORD", help="Answer to the clean prompt; the model's own if not given."
    ),
]
Other = Annotated[
    str | None,
    typer.Option(
        "--other",
        metavar="WORD",
        help="Answer to the corrupt prompt; the model's own if not given.",
    ),
]
SiteOption = Annotated[
    str,
    typer.Option(
        "--site",
        metavar="SITE",
        help="resid_pre, resid_mid, resid_post, attn_out, mlp_in, mlp_out, heads as z, q, k or v, "
        "neuron (with a method by gradients), edges (with eap-ig), or one place, as in z@1[3].",
    ),
]
MethodOption = Annotated[
    Method,
    typer.Option(
        "--method",
        help="patching: every place at every token. atp, atp*, eap-ig: estimated by gradients, the "
        "best verified. rome: noise on --subject, restored. paths: from --sender to --receiver. "
        "dla: direct logit attribution. lens: what every residual predicts.",
    ),
]
DirectionOption = Annotated[
    Literal["denoise", "noise"],
    typer.Option("--direction", help="denoise: clean into corrupt. noise: corrupt into clean."),
]
MetricOption = Annotated[
    Literal["logit_difference", "probability", "kl"] | None,
    typer.Option(
        "--metric", help="What is compared; logit_difference if not given (rome: probability)."
    ),
]
Same = Annotated[
    str | None,
    typer.Option(
        "--same",
        metavar="TEXT",
        help="Control: a third prompt with the answer of the patched one; it should do nothing.",
    ),
]
Subject = Annotated[
    str | None, typer.Option("--subject", metavar="TEXT", help="rome: the words to blur.")
]
Window = Annotated[
    int,
    typer.Option(
        "--window", parser=parse_count, metavar="N", help="rome: layers restored together."
    ),
]
Draws = Annotated[
    int,
    typer.Option(
        "--draws", parser=parse_count, metavar="N", help="rome, and noise controls: draws of noise."
    ),
]
Senders = Annotated[
    list[str] | None,
    typer.Option(
        "--sender",
        metavar="SITE",
        help="paths: embed, attn_out@L, mlp_out@L or a head, as in z@1[3]; repeatable.",
    ),
]
Receivers = Annotated[
    list[str] | None,
    typer.Option(
        "--receiver",
        metavar="SITE",
        help="paths: logits, mlp_in@L or a head, as in z@2[1], q@2[1], k@2[1]; repeatable.",
    ),
]
Top = Annotated[
    int,
    typer.Option(
        "--top",
        parser=parse_count,
        metavar="N",
        help="Methods by gradients: how many candidates to patch for real, and as many at random.",
    ),
]
Lens = Annotated[
    Path | None,
    typer.Option("--lens", metavar="DIR", help="lens: a tuned lens; the logit lens if not given."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder for result.json, result.png and result.svg."),
]
