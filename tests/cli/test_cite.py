"""``cite`` and the licences that ``card`` shows."""

import re

import pytest
from support import ROOT

import lowlight_iqa
from lowlight_iqa.citations import bibtex
from lowlight_iqa.cli.main import main


@pytest.mark.parametrize("name", lowlight_iqa.list_metrics())
def test_every_metric_has_a_paper(name):
    entry = bibtex(name)
    assert re.match(r"@(article|inproceedings|misc)\{\w+,\n", entry)
    assert entry.count("{") == entry.count("}")
    for field in ("title", "author", "year", "journal|booktitle", "doi|eprint|pages"):
        assert re.search(rf"^  ({field}) +=", entry, re.MULTILINE)


def test_papers_are_printed_once_each(capsys):
    assert main(["cite", "niqe", "leiq", "leiq-b16"]) == 0
    out = capsys.readouterr().out
    assert out.index("mittal2013making") < out.index("2606.29752")
    assert out.count("@") == 2
    assert main(["cite", "niqee"]) == 2
    assert "did you mean 'niqe'" in capsys.readouterr().err


def test_card_shows_both_licenses(capsys):
    assert main(["card", "leiq"]) == 0
    out = capsys.readouterr().out
    assert "license of the code: Apache-2.0" in out
    assert "research use" in out


def test_the_commercial_filter_follows_the_cards():
    may = lowlight_iqa.list_metrics(commercial=True)
    assert {"niqe", "piqe", "exposure"} <= set(may)
    assert not {"leiq", "iaca", "bmqa", "brisque-dark"} & set(may)
    assert all(lowlight_iqa.registry.get_card(name).commercial for name in may)


def test_the_citation_file_has_this_version_and_an_author():
    text = (ROOT / "CITATION.cff").read_text()
    assert "authors:\n  - name: The lowlight_iqa contributors\n" in text
    assert f"version: {lowlight_iqa.__version__}\n" in text
    assert text.startswith("cff-version: 1.2.0\n")
