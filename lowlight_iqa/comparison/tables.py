"""The comparison as files for a paper: a LaTeX and a Markdown table, every score as CSV, all figures as JSON."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..attributes import ATTRIBUTES
from ..wholefile import replacing
from .result import DARK_INPUT, FULL_REFERENCE, NO_REFERENCE, Comparison
from .significance import LEVEL, Matrix

KINDS = {NO_REFERENCE: "No reference", DARK_INPUT: "Dark input", FULL_REFERENCE: "Full reference"}
TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # \textquotedbl is not in every font encoding
    "±": r"$\pm$",
    "[": "{[}",  # which the end of a row before it would take for its own
    "*": "{*}",
}
ARROWS = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}


def decimals(comparison: Comparison, measure: str) -> int:
    """Return how many decimals show the largest mean of a measure to four significant digits; four at most."""
    largest = float(np.abs(comparison.statistics[measure].mean).max())
    return min(4, max(0, 3 - math.floor(math.log10(largest)))) if largest > 0 else 4


def number(value: float, places: int) -> str:
    """Write a number with a fixed count of decimals; "n/a" for NaN, no minus before zero."""
    if not math.isfinite(value):
        return "n/a"
    text = f"{value:.{places}f}"
    return text.lstrip("-") if float(text) == 0 else text


def marks(comparison: Comparison, measure: str) -> list[str]:
    """Say of each method whether it is "best" or "second" as the table prints its mean, or "".

    Means that print alike are marked alike; where all do, nobody is marked. Of two methods the worse is no second.
    """
    found = comparison.statistics[measure]
    places = decimals(comparison, measure)
    shown = [float(number(mean, places)) for mean in found.mean]
    order = sorted(set(shown), reverse=not comparison.measures[measure].lower_better)
    if len(order) < 2:
        return [""] * len(shown)
    second = order[1] if len(shown) > 2 else None
    return ["best" if value == order[0] else "second" if value == second else "" for value in shown]


def escape_tex(text: str) -> str:
    """Make plain text of anything for LaTeX; line breaks and other control characters become spaces."""
    text = re.sub(r"([-,'`?!])(?=[-,'`])", "\\1\0", _one_line(text))  # pairs that TeX makes one character of
    return "".join(TEX.get(character, character) for character in text).replace("\0", "{}")


def escape_markdown(text: str) -> str:
    """Make plain text of anything for a cell of a Markdown table."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>()#+-.!|~$&" else c for c in _one_line(text))


def escape_csv(text: str) -> str:
    """Keep a spreadsheet from taking a file's name for a formula."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r", "\n") else text


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def unranked_mean(comparison: Comparison, label: str, measure: str) -> str:
    """Write the mean of the input or the reference; nothing where it has no score."""
    score = comparison.score_of(label, measure)
    return "" if score is None else number(float(score.mean()), decimals(comparison, measure))


def latex(comparison: Comparison) -> str:
    """Return a booktabs table: best bold, second underlined, mean and deviation, letters of the groups."""
    names = ordered_measures(comparison)

    def cell(measure: str, method: int) -> str:
        found, places = comparison.statistics[measure], decimals(comparison, measure)
        mean = number(found.mean[method], places)
        mark = marks(comparison, measure)[method]
        text = {"best": rf"\textbf{{{mean}}}", "second": rf"\underline{{{mean}}}", "": mean}[mark]
        if math.isfinite(found.deviation[method]):
            text += rf" {{\scriptsize$\pm$ {number(found.deviation[method], places)}}}"
        return text + (rf"\,$^{{\mathrm{{{found.letters[method]}}}}}$" if tested(comparison) else "")

    kinds = [comparison.measures[name].needs for name in names]
    spans = [(kind, kinds.count(kind)) for kind in dict.fromkeys(kinds)]
    groups = " & ".join(rf"\multicolumn{{{count}}}{{c}}{{{KINDS[kind]}}}" for kind, count in spans)
    rules, column = [], 2
    for _, count in spans:
        rules.append(rf"\cmidrule(lr){{{column}-{column + count - 1}}}")
        column += count
    head = [f"{escape_tex(name)} {ARROWS[comparison.measures[name].arrow]}" for name in names]

    rows = []
    for index, method in enumerate(comparison.methods):
        rows.append([escape_tex(method), *(cell(name, index) for name in names)])
    unranked = [
        [rf"\textit{{{escape_tex(label)}}}", *(unranked_mean(comparison, label, name) for name in names)]
        for label in comparison.beside
    ]
    body = [" & ".join(row) + r" \\" for row in rows]
    if unranked:
        body += [r"\midrule", *(" & ".join(row) + r" \\" for row in unranked)]
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_tex(caption(comparison))}}}",
        r"\label{tab:comparison}",
        r"\setlength{\tabcolsep}{4pt}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",  # never wider than the text
        rf"\begin{{tabular}}{{l{'c' * len(names)}}}",
        r"\toprule",
        rf" & {groups} \\",
        " ".join(rules),
        " & ".join(["Method", *head]) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def markdown(comparison: Comparison) -> str:
    """Return the same table in Markdown."""
    names = ordered_measures(comparison)

    def cell(measure: str, method: int) -> str:
        found, places = comparison.statistics[measure], decimals(comparison, measure)
        mean = number(found.mean[method], places)
        mark = marks(comparison, measure)[method]
        text = {"best": f"**{mean}**", "second": f"<u>{mean}</u>", "": mean}[mark]
        if math.isfinite(found.deviation[method]):
            text += f" ± {number(found.deviation[method], places)}"
        return text + (f" {found.letters[method]}" if tested(comparison) else "")

    head = ["method"]
    for name in names:
        measure = comparison.measures[name]
        kind = "" if measure.needs == NO_REFERENCE else f" ({measure.needs})"
        head.append(f"{escape_markdown(name)} {measure.arrow}{kind}")
    rows = [head, ["---", *("---:" for _ in names)]]
    for index, method in enumerate(comparison.methods):
        rows.append([escape_markdown(method), *(cell(name, index) for name in names)])
    for label in comparison.beside:
        rows.append([f"*{label}*", *(unranked_mean(comparison, label, name) for name in names)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{caption(comparison)}\n"


def caption(comparison: Comparison) -> str:
    """Say how the table is to be read."""
    count = len(comparison.names)
    parts = [f"Mean{' ± standard deviation' * (count > 1)} over {count} picture{'s' * (count != 1)}"]
    if len(comparison.methods) > 1:
        parts.append("best bold" + ", second underlined" * (len(comparison.methods) > 2))
    if tested(comparison):
        parts.append(
            "methods that share a letter in a column cannot be told apart "
            f"(Wilcoxon signed-rank test, Holm-corrected, {100 * LEVEL:.0f} %)"
        )
    return "; ".join(parts) + "."


def tested(comparison: Comparison) -> bool:
    """Return whether there is anything to test: two methods and two pictures at least."""
    return len(comparison.methods) > 1 and len(comparison.names) > 1


def ordered_measures(comparison: Comparison) -> list[str]:
    """Names of the measures, those of one kind side by side."""
    kinds = list(KINDS)
    return sorted(comparison.measures, key=lambda name: kinds.index(comparison.measures[name].needs))


def write_scores(comparison: Comparison, file: Path) -> None:
    """Write a row for each picture, method and metric, in that order; input and reference beside the methods."""
    with replacing(file) as new, new.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["picture", "method", "metric", "needs", "score"])
        for place, name in enumerate(comparison.names):
            for label in comparison.labels:
                for measure in ordered_measures(comparison):
                    score = comparison.score_of(label, measure)
                    if score is None:
                        continue
                    needs = comparison.measures[measure].needs
                    writer.writerow([escape_csv(name), escape_csv(label), measure, needs, f"{score[place]:.6g}"])
                if label in comparison.attributes:
                    for attribute, value in zip(ATTRIBUTES, comparison.attributes[label][place], strict=True):
                        metric = f"{comparison.explainer}.{attribute}"
                        writer.writerow([escape_csv(name), escape_csv(label), metric, NO_REFERENCE, f"{value:.6g}"])


def facts(comparison: Comparison) -> dict[str, Any]:
    """Return everything but the single scores, JSON-able."""
    methods = comparison.methods

    def by_method(values: Sequence[Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
        return {method: convert(value) for method, value in zip(methods, values, strict=True)}

    def table(values: Matrix) -> dict[str, dict[str, float]]:
        return {
            first: {second: float(values[a, b]) for b, second in enumerate(methods) if a != b}
            for a, first in enumerate(methods)
        }

    def pair(values: Any) -> list[float] | None:
        return None if values is None or not np.isfinite(values).all() else [float(value) for value in values]

    measures = {}
    for name in ordered_measures(comparison):
        measure, found = comparison.measures[name], comparison.statistics[name]
        measures[name] = {
            "lower_better": measure.lower_better,
            "needs": measure.needs,
            "mean": by_method(found.mean.tolist(), float),
            "deviation": by_method(found.deviation.tolist(), lambda value: value if math.isfinite(value) else None),
            "mean_interval": by_method(list(found.interval), pair),
            "rank": by_method(found.rank.tolist(), int),
            "rank_interval": by_method(list(found.rank_interval), pair),
            "groups": {letter: [methods[i] for i in members] for letter, members in found.groups.items()},
            "p_value": table(found.p_value),
            "share_won": table(found.share_won),
            "beside": {
                label: float(scores[name].mean()) for label, scores in comparison.beside.items() if name in scores
            },
        }
    return {
        "version": __version__,
        "pictures": list(comparison.names),
        "methods": list(methods),
        "measures": measures,
        "mean_rank": by_method(comparison.mean_rank.tolist(), float),
        "attributes": {
            label: dict(zip(ATTRIBUTES, values.mean(0).tolist(), strict=True))
            for label, values in comparison.attributes.items()
        },
        "attributes_from": comparison.explainer or None,
        "agreement": [
            {
                "metric": row.measure,
                "figure": row.figure,
                "pairs_in_order": row.pairs,
                "pairs_interval": pair(row.pairs_interval),
                "srcc_within_pictures": row.srcc,
                "srcc_interval": pair(row.srcc_interval),
            }
            for row in comparison.agreement
        ],
        "methods_differ_most": [comparison.names[i] for i in top(comparison.spread)],
        "measures_conflict_most": [comparison.names[i] for i in top(comparison.conflict)],
        "unmatched": {name: {"missing_from": list(labels)} for name, labels in comparison.matched.missing.items()},
        "failed": dict(comparison.failed),
        "notes": comparison.notes(),
        "tests": f"Wilcoxon signed-rank, two-sided, Holm-corrected over the pairs of one measure, {LEVEL}",
        "intervals": f"95 % percentile bootstrap over pictures, {comparison.draws} draws",
    }


def top(values: Matrix, count: int = 10) -> list[int]:
    """Places of the largest positive values, falling."""
    order = np.argsort(-values, kind="stable")[:count]
    return [int(index) for index in order if values[index] > 0]
