"""What the pages show is true: every block runs or says why not, every command parses, every link leads somewhere.

The Python blocks run where conftest.py collects the pages. Commands want data, hours or a network: their blocks are run
by bash with stand-ins that write down what they are called with, and the real parsers read that.
"""

import re
import subprocess

import pytest
from support import ROOT

from lowlight_iqa.cli.main import build_parser

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
    *sorted((ROOT / "tests").rglob("*.md")),
]
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STAND_INS = """
note() { printf '%s\\0' "$@" '' >> "$NOTES"; }
lowlight-iqa() { note lowlight-iqa "$@"; }
python() { note python "$@"; }
torchrun() { while [ "$1" != lowlight_iqa ]; do shift; done; note lowlight-iqa "${@:2}"; }
python3() { :; } ; pip() { :; } ; pytest() { :; } ; make() { :; } ; git() { :; } ; pre-commit() { :; } ; cp() { :; }
cd() { :; } ; find() { :; } ; .() { :; }
set -eu
initial="--initial start" data="--data biq2021"
"""


def blocks(*languages):
    """Every fenced block, or those of some languages: the language and the content."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in FENCE.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            if not languages or block[1] in languages:
                found.append(pytest.param(block[1], block[2], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def headings(text):
    """The anchors of a page, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    plain = (re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize(("language", "content"), blocks())
def test_a_block_is_of_a_kind_that_is_tried(language, content):
    assert language in ("python", "py", "sh", "toml"), "name the language: python runs, sh is parsed, toml is read"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_that_does_not_run_says_why_and_is_python(page):
    text = page.read_text(encoding="utf-8")
    for block in FENCE.finditer(text):
        if block[1] == "py":
            assert re.search(r"<!-- not run: [^\n]+ -->\n\n$", text[: block.start()])
            compile(block[2], str(page), "exec")


@pytest.mark.parametrize(("language", "content"), blocks("sh"))
def test_the_commands_of_a_block_are_ones_that_there_are(language, content, tmp_path):
    notes = tmp_path / "notes"
    notes.touch()
    script = STAND_INS + content
    command = ["bash", "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={"NOTES": str(notes), "PATH": "/bin"}
    )
    assert done.returncode == 0, done.stderr
    for call in notes.read_text().split("\0\0")[:-1]:
        program, *arguments = call.split("\0")
        if program == "lowlight-iqa":
            build_parser(arguments).parse_args(arguments)
        elif arguments[0] != "-m":
            script = (ROOT / arguments[0]).read_text(encoding="utf-8")
            for option in re.findall(r"--[a-z-]+", " ".join(arguments)):
                assert f'"{option}"' in script, f"{arguments[0]} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in headings(file.read_text(encoding="utf-8")), target
