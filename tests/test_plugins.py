"""Metrics from elsewhere: an installed package, a script, and packages that are broken."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image
from support import ROOT

METRIC = '''
import lowlight_iqa
from lowlight_iqa import Card, Metric

@lowlight_iqa.register(
    Card(name="{name}", summary="mean of the red channel", source="a test", lower_better=True,
         score_range=(0.0, 1.0), license="Apache-2.0", bibtex="@misc{{{name}}}")
)
class Redness(Metric):
    """Mean of the red channel."""

    def score_batch(self, x, reference=None):
        return {score}
'''


def write_package(folder, name, code):
    """Source of a package whose module is an entry point."""
    source = folder / name
    (source / name).mkdir(parents=True)
    (source / name / "__init__.py").write_text(code)
    (source / "pyproject.toml").write_text(
        textwrap.dedent(f"""
        [build-system]
        requires = ["setuptools"]
        build-backend = "setuptools.build_meta"
        [project]
        name = "{name}"
        version = "1"
        [tool.setuptools]
        packages = ["{name}"]
        [project.entry-points."lowlight_iqa.metrics"]
        {name} = "{name}"
        """)
    )
    return source


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with three installed packages: one works, one cannot be imported, one takes a name that is ours."""
    folder = tmp_path_factory.mktemp("plugins")
    packages = [
        write_package(folder, "redness_metric", METRIC.format(name="redness", score="x[:, 0].mean((1, 2))")),
        write_package(folder, "broken_metric", "import a_package_that_is_not_there"),
        write_package(folder, "rude_metric", METRIC.format(name="leiq", score="x[:, 0].mean((1, 2))")),
    ]
    target = folder / "target"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", str(target), *map(str, packages)], capture_output=True, text=True)
    if done.returncode and "No module named pip" in done.stderr:
        pytest.skip("pip is not installed")
    assert done.returncode == 0, done.stderr
    return target


def run(*command, path=None):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (ROOT, path))))}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=environment)


def test_an_installed_metric_is_listed_and_scores(installed):
    done = run("-m", "lowlight_iqa", "list", path=installed)
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert {"redness", "leiq", "niqe"} <= set(names)
    done = run("-m", "lowlight_iqa", "score", "samples/coffee.jpg", "-m", "redness", "--format", "csv", path=installed)
    assert done.returncode == 0
    assert "redness" in done.stdout
    assert "redness" not in run("-m", "lowlight_iqa", "list").stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two methods' pictures of three scenes, and a list of ratings."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for method, light in (("ours", 200), ("theirs", 90)):
        (folder / method).mkdir()
        for index in range(3):
            picture = rng.integers(0, light, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(picture).save(folder / method / f"{index}.png")
    rows = [f"ours/{index}.png,{index}" for index in range(3)] + [
        f"theirs/{index}.png,{3 + index}" for index in range(3)
    ]
    (folder / "list.csv").write_text("\n".join(["image,mos", *rows]))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("card redness", "mean of the red channel"),
        ("cite redness", "@misc{redness}"),
        ("evaluate -m redness --dataset csv --root {pictures}/list.csv --draws 20 --cache {out}", "SRCC"),
        (
            "compare {pictures}/ours {pictures}/theirs -m redness,contrast --draws 20 --cache {out} -o {out}/r",
            "redness ↓",
        ),
        ("explain {pictures}/ours/0.png -m redness -o {out}/page.html", "wrote"),
        ("explain {pictures}/ours/0.png -m redness -o {out}/figure.png", "wrote"),
    ],
)
def test_an_installed_metric_gets_every_command(installed, pictures, tmp_path, command, told):
    arguments = command.format(pictures=pictures, out=tmp_path).split()
    done = run("-m", "lowlight_iqa", *arguments, path=installed)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    if command.startswith("compare"):
        assert "redness" in (tmp_path / "r" / "table.tex").read_text(encoding="utf-8")
    if "page.html" in command:
        assert "redness" in (tmp_path / "page.html").read_text(encoding="utf-8")


IN_A_SCRIPT = (
    METRIC.format(name="redness", score="x[:, 0].mean((1, 2))")
    + """
import sys
from pathlib import Path
from lowlight_iqa.citations import bibtex
from lowlight_iqa.explanation import explain, write_html

pictures, out = map(Path, sys.argv[1:])
assert "redness" in lowlight_iqa.list_metrics()
(record,) = lowlight_iqa.score(pictures / "ours" / "0.png", "redness")
assert 0 < record.results["redness"].score < 1
evaluation = lowlight_iqa.evaluate("redness", "csv", pictures / "list.csv", draws=20, cache=out)
assert evaluation.figures["SRCC"].value < 0
comparison = lowlight_iqa.compare([pictures / "ours", pictures / "theirs"], ["redness"], draws=20, cache=out)
assert comparison.scores["redness"].shape == (3, 2)
assert bibtex("redness") == "@misc{redness}"
write_html(explain(pictures / "ours" / "0.png", lowlight_iqa.create_metric("redness")), out / "page.html")
print("all of it")
"""
)


@pytest.mark.slow
def test_a_metric_of_a_script_gets_every_function(pictures, tmp_path):
    (tmp_path / "script.py").write_text(IN_A_SCRIPT)
    done = run(tmp_path / "script.py", pictures, tmp_path)
    assert done.stdout == "all of it\n", done.stderr


@pytest.mark.slow
def test_the_promises_pass_on_an_installed_metric(installed):
    own = ("-p", "lowlight_iqa.testing.plugin", "-p", "no:cacheprovider", "-n", "0", "-q", "-c", os.devnull)
    done = run("-m", "pytest", *own, "--pyargs", "lowlight_iqa.testing", "--metric", "redness", path=installed)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.slow
def test_broken_packages_are_one_warning_each_and_the_rest_works(installed):
    code = "import lowlight_iqa; print(type(lowlight_iqa.create_metric('leiq')).__module__)"
    done = run("-W", "always", "-c", code, path=installed)
    assert done.returncode == 0
    assert done.stdout.split()[0] == "lowlight_iqa.metrics.leiq"
    warnings = [line for line in done.stderr.splitlines() if "UserWarning" in line]
    assert len(warnings) == 2
    assert any("broken_metric" in line and "a_package_that_is_not_there" in line for line in warnings)
    assert any("rude_metric" in line and "'leiq' is registered already" in line for line in warnings)


@pytest.fixture
def script(tmp_path):
    def write(score):
        path = tmp_path / "script.py"
        path.write_text(METRIC.format(name="redness", score=score))
        return path

    return write


def promises(script, *more):
    own = ("-p", "lowlight_iqa.testing.plugin", "-p", "no:cacheprovider", "-n", "0", "-q", "-c", os.devnull, *more)
    return run("-m", "pytest", *own, "--pyargs", "lowlight_iqa.testing", "--metric", "redness", "--metric-from", script)


@pytest.mark.slow
def test_the_promises_pass_on_a_good_metric(script):
    done = promises(script("x[:, 0].mean((1, 2))"))
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "broken"),
    [
        ("x[:, 0].mean((1, 2)).detach() + 0 * x.sum()", "alive"),
        ("2 * x[:, 0].mean((1, 2))", "range_of"),
        ("x[:, 0].mean((1, 2)) / x.mean((1, 2, 3))", "finite"),
        ("x[:, 0].mean((1, 2)) - x[:, 0].mean()", "batch"),
    ],
)
def test_the_promises_fail_on_a_bad_one(script, score, broken):
    done = promises(script(score), "-k", broken)
    assert done.returncode == 1, done.stdout[-3000:]


@pytest.mark.slow
def test_a_metric_that_is_not_there_is_a_usage_error():
    plugin = ("-p", "lowlight_iqa.testing.plugin", "-n", "0", "-q", "-c", os.devnull)
    done = run("-m", "pytest", *plugin, "--pyargs", "lowlight_iqa.testing", "--metric", "no")
    assert done.returncode != 0
    assert "'no'; there are: " in done.stdout + done.stderr
