"""Every example of the documentation runs, on fewer tokens and questions than it shows.

`python` blocks of a page run in one namespace. Lines of a `console` block that begin with
`$ pellucid` run as commands, in the order of the page. Other `$` lines and `text` blocks are not
run: they need a network, or are what `make` itself does.
"""

import re
import shlex
from pathlib import Path

import pytest

from pellucid.cli import main
from pellucid.specimen.tasks import task_accuracy
from pellucid.training.finetune import finetune
from pellucid.training.loop import train

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FEW = {
    re.compile(r"--finetune-tokens \S+"): "--finetune-tokens 3k",
    re.compile(r"--tokens \S+"): "--tokens 9k",
    re.compile(r"--questions \S+"): "--questions 150 --max-features 16",
    re.compile(r"(?<=verify fit )"): "--refits 0 --folds 3 ",
    re.compile(r"\btokens=[\d_]+"): "tokens=9_000",
}
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if BLOCK.search(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for function in (train, finetune):
        monkeypatch.setitem(function.__kwdefaults__, "held_out_tokens", 2_000)
    monkeypatch.setitem(task_accuracy.__kwdefaults__, "count", 8)
    namespace: dict[str, object] = {"__name__": "example"}
    for kind, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for pattern, fewer in FEW.items():
            block = pattern.sub(fewer, block)
        if kind == "python":
            exec(compile(block, page.name, "exec"), namespace)
            continue
        for line in block.splitlines():
            if line.startswith("$ pellucid"):
                assert main([*shlex.split(line)[2:], "--quiet"]) == 0, line
