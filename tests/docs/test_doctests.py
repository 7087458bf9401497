"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import lowlight_iqa

MODULES = ["lowlight_iqa", *(m.name for m in pkgutil.walk_packages(lowlight_iqa.__path__, "lowlight_iqa."))]
PUBLIC = (  # what users and authors of metrics call, and what must have an example
    *("lowlight_iqa", "lowlight_iqa.attributes", "lowlight_iqa.images", "lowlight_iqa.registry"),
    *(name for name in MODULES if name.startswith("lowlight_iqa.functional.")),
)
METHODS = ("forward", "loss", "assess", "map", "preprocess")


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_in_docstrings_run(name, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    try:
        module = importlib.import_module(name)
    except ImportError as error:  # of an extra that is not installed
        pytest.skip(str(error))
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_public_modules_have_an_example(name):
    found = doctest.DocTestFinder().find(importlib.import_module(name))
    assert any(test.examples for test in found), "give one of its public functions an example"


@pytest.mark.parametrize("method", METHODS)
def test_the_methods_of_a_metric_have_an_example(method):
    (found,) = doctest.DocTestFinder(recurse=False).find(getattr(lowlight_iqa.Metric, method))
    assert found.examples
