"""Imports go one way: no circle, nothing upward, and nothing heavy until it is needed."""

import ast
import subprocess
import sys

import pytest
from support import ROOT

PACKAGE = "lowlight_iqa"
ORDER = [  # from the ground up; a room imports from its own row and from those above it in this list
    {
        "_version",
        "card",
        "images",
        "functional",
        "attributes",
        "backbones",
        "jsonfile",
        "matfile",
        "distributed",
        "extras",
        "frozen",
        "wholefile",
    },
    {"data", "weights"},
    {"metric"},
    {"registry"},
    {"metrics", "citations"},
    {"scoring", "explanation"},
    {"evaluation"},
    {"comparison", "torchmetrics", "exporting", "testing"},
    {"training"},
    {"cli"},
    {"__main__"},
]
EXCEPTIONS = {  # (who, whom): why
    ("registry", "metrics"): "the scan for modules that register metrics",
    ("comparison.result", "comparison.tables"): "a result's methods write it, when they are called",
    ("comparison.result", "comparison.report"): "the same",
}


def modules():
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def checked_only(tree):
    """The nodes under ``if TYPE_CHECKING``, which import nothing at run time."""
    blocks = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


def graph():
    """{module: modules of ours that it imports}, inside functions too."""
    known, edges = modules(), {}
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = checked_only(tree)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        edges[name] = set()
        for node in ast.walk(tree):
            if node in skipped or not isinstance(node, ast.ImportFrom):
                continue
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            if source.split(".")[0] == PACKAGE:
                targets = (f"{source}.{alias.name}" for alias in node.names)
                edges[name] |= {target if target in known else source for target in targets}
    return edges


def room(name):
    return name.split(".")[1] if "." in name else ""


def excepted(name, target):
    """Whether EXCEPTIONS lists the two, as rooms or as modules."""
    ours = [(part.removeprefix(f"{PACKAGE}."), room(part)) for part in (name, target)]
    return any((who, whom) in EXCEPTIONS for who in ours[0] for whom in ours[1])


def test_no_import_goes_upward():
    rows = {name: row for row, names in enumerate(ORDER) for name in names}
    upward = []
    for name, targets in graph().items():
        if not room(name):
            continue
        assert room(name) in rows, f"{name} has no place in ORDER; give it one"
        for target in targets:
            if room(target) and rows[room(target)] > rows[room(name)] and not excepted(name, target):
                upward.append(f"{name} -> {target}")
    assert not upward


def test_there_is_no_circle():
    edges = {
        name: {target for target in targets if room(target) and not excepted(name, target) and target != name}
        for name, targets in graph().items()
    }
    done, way = set(), []

    def visit(name):
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name in done:
            return
        way.append(name)
        for target in edges.get(name, ()):
            visit(target)
        way.pop()
        done.add(name)

    for name in edges:
        visit(name)


@pytest.mark.parametrize("who", ["weights", "data"])
def test_weights_and_data_know_no_metric(who):
    own = {target for name, targets in graph().items() if room(name) == who for target in targets}
    assert {room(target) for target in own} <= {who, "card", "jsonfile", "matfile", "attributes"}


def test_the_package_loads_nothing_heavy():
    code = (
        f"import sys; from {PACKAGE} import create_metric; print({{'timm', 'torchvision', 'scipy'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
