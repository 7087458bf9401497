"""Metrics from elsewhere: an installed package, a script, and packages that are broken."""

import os
import subprocess
import sys
import textwrap

import pytest
from support import ROOT

METRIC = '''
import lowlight_iqa
from lowlight_iqa import Card, Metric

@lowlight_iqa.register(
    Card(name="{name}", summary="mean of the red channel", source="a test", lower_better=True,
         score_range=(0.0, 1.0), license="Apache-2.0")
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
        ("2 * x[:, 0].mean((1, 2))", "range"),
        ("x[:, 0].mean((1, 2)) / x.mean((1, 2, 3))", "finite"),
        ("x[:, 0].mean((1, 2)) - x[:, 0].mean()", "batch"),
    ],
)
def test_the_promises_fail_on_a_bad_one(script, score, broken):
    done = promises(script(score), "-k", broken)
    assert done.returncode == 1, done.stdout[-3000:]


def test_a_metric_that_is_not_there_is_a_usage_error():
    plugin = ("-p", "lowlight_iqa.testing.plugin", "-n", "0", "-q", "-c", os.devnull)
    done = run("-m", "pytest", *plugin, "--pyargs", "lowlight_iqa.testing", "--metric", "no")
    assert done.returncode != 0
    assert "'no'; there are: " in done.stdout + done.stderr
