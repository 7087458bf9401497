"""What training runs reached, kept in a file of JSON lines so that each is made once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lowlight_iqa import list_metrics
from lowlight_iqa.registry import get_card

Figures = Mapping[str, float]


class Runs:
    """Figures by key. Scores of a metric whose weights have changed since are not read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        cards = map(get_card, list_metrics())
        self.weights = {card.name: card.sha256[:8] for card in cards if card.weights}
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.known: dict[str, Figures] = {}
        for row in map(json.loads, lines):
            stale = {name for name, weights in row["weights"].items() if weights != self.weights.get(name)}
            self.known[row["key"]] = {name: value for name, value in row["figures"].items() if name not in stale}

    def note(self, label: str, key: str, figures: Figures) -> None:
        """Keep what was measured, and the weights that the scores among it were made with."""
        self.known[key] = figures
        weights = {name: self.weights[name] for name in figures if name in self.weights}
        row = {"label": label, "figures": figures, "key": key, "weights": weights}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def over_seeds(rows: Sequence[Figures]) -> dict[str, np.ndarray]:
    """Figures that every row has, an array over the rows; empty without any."""
    names = set(rows[0]).intersection(*rows) if rows else ()
    return {name: np.array([figures[name] for figures in rows]) for name in names}


def scored_by(rows: Iterable[Figures]) -> list[str]:
    """Names of the metrics that every row has scores of: columns of a table."""
    return sorted(set(list_metrics()).intersection(*rows))
