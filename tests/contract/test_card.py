"""What a card says is true."""

import math
import re

import pytest
from support.contract import OWN, every_metric, make

from lowlight_iqa import create_metric
from lowlight_iqa.registry import get_card, get_class
from lowlight_iqa.weights.files import BUNDLED


@every_metric
def test_the_card_is_complete(name):
    cls, card = get_class(name), get_card(name)
    assert card.name == name
    assert cls.__doc__
    for fact in (card.summary, card.source, card.license, card.gradient):
        assert fact.strip()
        assert "\n" not in fact
    low, high = card.score_range
    assert -math.inf < low < high < math.inf
    assert card.best == (low if card.lower_better else high)
    assert card.min_size >= 1
    assert name in str(card)
    if card.weights:
        assert (BUNDLED / card.weights).is_file()
        assert len(card.sha256) == 64
    assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", card.hub or f"owner/repo@{'0' * 40}")
    if card.learned:
        assert card.trained_on or not card.weights


@every_metric
def test_weights_that_are_not_at_hand_are_named(name, tmp_path):
    with pytest.raises(OWN, match=r"\w{3,} .*\w{3,}"):
        create_metric(name, weights=tmp_path / "nowhere")
    if get_card(name).weights:
        make(name)
