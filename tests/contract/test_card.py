"""What a card says of weights is true."""

import re

import pytest

from lowlight_iqa import create_metric
from lowlight_iqa.testing.subject import ERRORS
from lowlight_iqa.weights.files import BUNDLED


def test_the_card_tells_where_weights_are(subject):
    card = subject.card
    if card.weights:
        assert (BUNDLED / card.weights).is_file()
        assert len(card.sha256) == 64
    if card.hub:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", card.hub)
    if card.learned:
        assert card.trained_on or not card.weights


def test_the_card_counts_the_looks_at_a_test_split(subject):
    assert subject.card.looks > 0 or not any("test split" in figure for figure in subject.card.reached)


def test_a_caption_makes_a_score_constant_by_pieces_and_nothing_else_does(subject):
    assert subject.card.piecewise == hasattr(subject.metric(), "caption")


def test_weights_that_are_not_at_hand_are_named(subject, tmp_path):
    with pytest.raises(ERRORS, match=r"\w{3,} .*\w{3,}"):
        create_metric(subject.name, weights=tmp_path / "nowhere")
    if subject.card.weights:
        subject.metric()
