"""Render the report page: collect what the template shows. The page loads nothing from the network."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any

import numpy as np

from .. import __version__
from ..attributes import ATTRIBUTES
from ..extras import fill_template
from .figures import POINTS, color, panel_height, panels, svg
from .pictures import THUMB, Strip
from .result import Comparison
from .significance import FEWEST, LEVEL, Matrix
from .tables import KINDS, caption, decimals, number, ordered_measures, table_cell, tested, top, unranked_mean

SECTIONS = {
    "scores": "Scores",
    "ranking": "Ranking",
    "pairs": "Pairs",
    "attributes": "Attributes",
    "distributions": "Distributions",
    "agreement": "Agreement",
    "disagreement": "Disagreement",
    "pictures": "Pictures",
    "about": "How measured",
}
GALLERY = 8  # pictures in each list of disagreements


def render(comparison: Comparison, strips: Sequence[Strip], figures: Sequence[str], chosen_crop: bool = True) -> str:
    """Return the page; the template escapes every file name."""
    from markupsafe import Markup

    template = files(__package__) / "template"
    script = (template / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    columns = f":root {{ --columns: {len(comparison.labels)}; }}\n"

    drawn = {
        name: [Markup(svg(draw, panel_height(name, comparison))) for draw in parts.values()]
        for name, parts in panels(comparison).items()
    }
    content = {
        **_overview(comparison),
        **_pairs(comparison),
        **_attributes(comparison),
        **_agreement(comparison),
        **_disagreement(comparison, strips),
        **_pictures(comparison, strips),
        "panels": {"attributes": [], "agreement": [], **drawn},
        "files": ["table.tex", "table.md", "scores.csv", "summary.json"],
        "figures": figures,
        "chosen_crop": chosen_crop,
    }
    empty = {
        "ranking": len(comparison.methods) < 2,
        "pairs": len(comparison.methods) < 2,
        "attributes": not comparison.attributes,
        "agreement": not comparison.agreement,
        "disagreement": not content["differ"] and not content["conflict"],
    }
    return fill_template(
        (template / "index.html").read_text(encoding="utf-8"),
        **content,
        sections=[(key, name) for key, name in SECTIONS.items() if not empty.get(key)],
        css=Markup(columns + (template / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        version=__version__,
    )


def _overview(comparison: Comparison) -> dict[str, Any]:
    """Return the head, the table of means and the facts of each measure."""
    measures = [comparison.measures[name] for name in ordered_measures(comparison)]
    count, methods = len(comparison.names), len(comparison.methods)
    ranked = methods > 1
    rows = []
    for index, method in enumerate(comparison.methods):
        cells = [_cell(comparison, measure.name, index) for measure in measures]
        rank = number(comparison.mean_rank[index], 2)
        rows.append({"method": method, "color": color(index), "cells": cells, "rank": rank})
    spread = "the bar the middle half" if count <= POINTS else "the bar the middle half, the line 5 to 95 %"
    return {
        "title": f"Comparison of {methods} method{'s' * (methods != 1)} on {count} picture{'s' * (count != 1)}",
        "methods": comparison.methods,
        "labels": comparison.labels,
        "beside": comparison.beside,
        "measures": measures,
        "kinds": [(KINDS[kind], len(list(run))) for kind, run in groupby(measure.needs for measure in measures)],
        "notes": comparison.notes(),
        "table": rows,
        "unranked": [
            {"label": label, "cells": [unranked_mean(comparison, label, measure.name) for measure in measures]}
            for label in comparison.beside
        ],
        "ranked": ranked,
        "tested": tested(comparison),
        "caption": caption(comparison),
        "intervals": count >= FEWEST,
        "distribution_caption": f"{'Each dot is a picture, ' * (count <= POINTS)}{spread}, the stroke the median.",
        "unmatched": comparison.matched.missing,
        "failed": comparison.failed,
    }


def _cell(comparison: Comparison, measure: str, method: int) -> dict[str, Any]:
    found, places = comparison.statistics[measure], decimals(comparison, measure)
    return {
        **table_cell(comparison, measure, method)._asdict(),
        "value": f"{found.mean[method]:.8g}",
        "interval": _span(found.interval[method], places),
    }


def _span(interval: Any, places: int) -> str:
    """Write an interval; "" if it is not known."""
    if interval is None or not np.isfinite(interval).all():
        return ""
    return f"{number(interval[0], places)}, {number(interval[1], places)}"


def _pairs(comparison: Comparison) -> dict[str, Any]:
    """Return a square of methods for each measure: share of pictures won and p-value."""
    tables = []
    count = len(comparison.methods)
    for name in ordered_measures(comparison):
        found = comparison.statistics[name]
        rows: list[list[dict[str, Any]]] = [[{} for _ in range(count)] for _ in range(count)]
        for a in range(count):
            for b in range(count):
                if a != b:
                    won, p = 100 * found.share_won[a, b], found.p_value[a, b]
                    shown = "p < .001" if p < 0.001 else f"p {p:.3f}".replace("0.", ".")
                    rows[a][b] = {"won": number(won, 0), "p": shown, "heat": max(50, round(won)), "sure": p < LEVEL}
        alike = [
            ", ".join(comparison.methods[index] for index in members)
            for members in found.groups.values()
            if len(members) > 1
        ]
        said = f"Cannot be told apart: {'; '.join(alike)}." if alike else "All methods differ."
        tables.append({"name": name, "arrow": comparison.measures[name].arrow, "rows": rows, "groups": said})
    return {"pairs": tables, "pair_count": count * (count - 1) // 2, "level": LEVEL}


def _attributes(comparison: Comparison) -> dict[str, Any]:
    rows = [
        {"label": label, "cells": [number(value, 2) for value in comparison.attributes[label].mean(0)]}
        for label in comparison.labels
        if label in comparison.attributes
    ]
    return {
        "explainer": comparison.explainer,
        "attribute_names": [name.replace("_", " ") for name in ATTRIBUTES],
        "attribute_rows": rows,
    }


def _agreement(comparison: Comparison) -> dict[str, Any]:
    rows = [
        {
            "measure": row.measure,
            "figure": row.figure,
            "pairs": number(100 * row.pairs, 0),
            "pairs_interval": _span(row.pairs_interval and [100 * end for end in row.pairs_interval], 0),
            "srcc": "" if row.srcc is None else number(row.srcc, 2),
            "srcc_interval": _span(row.srcc_interval, 2),
        }
        for row in comparison.agreement
    ]
    return {"agreement": rows, "has_srcc": len(comparison.methods) > 2}


def _disagreement(comparison: Comparison, strips: Sequence[Strip]) -> dict[str, Any]:
    """Return the pictures on which methods, and those on which measures, differ most."""

    def gallery(values: Matrix, places: int) -> list[dict[str, Any]]:
        items = []
        for index in top(values, GALLERY):
            view = strips[index].views[comparison.methods[0]]
            size = _thumb_size(view.width, view.height)
            value = number(values[index], places)
            items.append({"index": index, "name": strips[index].name, "value": value, "thumb": view.thumb} | size)
        return items

    enough = len(comparison.names) > 1
    return {
        "differ": gallery(comparison.spread, 2) if enough else [],
        "conflict": gallery(100 * comparison.conflict, 0) if enough else [],
    }


def _thumb_size(width: int, height: int) -> dict[str, int]:
    scale = min(1.0, THUMB / max(width, height))
    return {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}


def _pictures(comparison: Comparison, strips: Sequence[Strip]) -> dict[str, Any]:
    """Return the strips and the script's data for sorting them."""
    names = ordered_measures(comparison)
    places = {name: decimals(comparison, name) for name in names}
    first = comparison.scores[names[0]]
    content = []
    for index, strip in enumerate(strips):
        views = [strip.views[label] for label in comparison.labels]
        own = views[comparison.labels.index(comparison.methods[0])]
        x, y, w, h = (100 * part for part in strip.box)
        sentences = [comparison.sentences[label][index] for label in comparison.labels if comparison.sentences]
        crop_width = max(1, round(strip.box[2] * own.width))
        content.append(
            {
                "name": strip.name,
                "first": [number(score, places[names[0]]) for score in first[index]],
                "spread": number(comparison.spread[index], 2),
                "conflict": number(100 * comparison.conflict[index], 0),
                "views": [vars(view) | _thumb_size(view.width, view.height) for view in views],
                "box": f"left:{x:.2f}%;top:{y:.2f}%;width:{w:.2f}%;height:{h:.2f}%",
                "crop_width": crop_width,
                "crop_height": max(1, round(strip.box[3] * own.height)),
                "rows": [
                    {"name": f"{name} {comparison.measures[name].arrow}"}
                    | {"cells": _score_cells(comparison, name, index, places[name])}
                    for name in names
                ],
                "attributes": _attribute_rows(comparison, index),
                "sentences": sentences,
            }
        )
    data = {
        "names": comparison.names,
        "methods": comparison.methods,
        "labels": comparison.labels,
        "decimals": [places[name] for name in names],
        "scores": [np.round(comparison.scores[name], places[name] + 2).tolist() for name in names],
        "spread": comparison.spread.round(4).tolist(),
        "conflict": comparison.conflict.round(4).tolist(),
    }
    return {"strips": content, "data": data}


def _score_cells(comparison: Comparison, measure: str, index: int, places: int) -> list[dict[str, Any]]:
    """Return a picture's scores by one measure for every label; the best method is marked unless all print alike."""
    shown = [number(score, places) for score in comparison.scores[measure][index]]
    values = [float(text) for text in shown]
    best = min(values) if comparison.measures[measure].lower_better else max(values)
    distinct = len(set(values)) > 1
    cells = []
    for label in comparison.labels:
        score = comparison.score_of(label, measure)
        text = "" if score is None else number(score[index], places)
        cells.append({"text": text, "best": label in comparison.methods and distinct and float(text) == best})
    return cells


def _attribute_rows(comparison: Comparison, index: int) -> list[dict[str, Any]]:
    """Return a picture's attributes; bars go from 1 to 5."""
    if not comparison.attributes:
        return []
    rows = []
    for place, name in enumerate(ATTRIBUTES):
        values = [comparison.attributes[label][index, place] for label in comparison.labels]
        cells = [{"text": number(v, 1), "share": round(min(100, max(0, 25 * (v - 1))))} for v in values]
        rows.append({"name": name.replace("_", " "), "cells": cells})
    return rows
