"""Write a comparison as files for a paper: a LaTeX and a Markdown table, every score as CSV, all figures as JSON."""

import csv
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

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
    "[": "{[}",  # otherwise read as an argument of the row end before it
    "*": "{*}",
}
ARROWS = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}


def decimals(comparison: Comparison, measure: str) -> int:
    """Return the decimals, at most four, that show the largest mean of a measure to four significant digits."""
    largest = float(np.abs(comparison.statistics[measure].mean).max())
    return min(4, max(0, 3 - math.floor(math.log10(largest)))) if largest > 0 else 4


def number(value: float, places: int) -> str:
    """Write a number with fixed decimals; "n/a" for NaN, no minus before zero."""
    if not math.isfinite(value):
        return "n/a"
    text = f"{value:.{places}f}"
    return text.lstrip("-") if float(text) == 0 else text


def marks(comparison: Comparison, measure: str) -> list[str]:
    """Return "best", "second" or "" for each method's mean, as the table prints it.

    Means that print alike are marked alike; if all do, none is marked. Of two methods none is second.
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
    """Escape any text for LaTeX; line breaks and other control characters become spaces."""
    text = re.sub(r"([-,'`?!])(?=[-,'`])", "\\1\0", _one_line(text))  # pairs that TeX makes one character of
    return "".join(TEX.get(character, character) for character in text).replace("\0", "{}")


def escape_markdown(text: str) -> str:
    """Escape any text for a cell of a Markdown table."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>()#+-.!|~$&" else c for c in _one_line(text))


def escape_csv(text: str) -> str:
    """Escape a file's name that a spreadsheet would take for a formula."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r", "\n") else text


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


class Cell(NamedTuple):
    """A method under a measure, as tables show it."""

    mean: str
    mark: str  # see ``marks``
    deviation: str  # "" for one picture
    letters: str  # of the groups; "" if nothing is tested


def table_cell(comparison: Comparison, measure: str, method: int) -> Cell:
    """Return the texts of a cell of the table."""
    found, places = comparison.statistics[measure], decimals(comparison, measure)
    deviation = found.deviation[method]
    return Cell(
        mean=number(found.mean[method], places),
        mark=marks(comparison, measure)[method],
        deviation=number(deviation, places) if math.isfinite(deviation) else "",
        letters=found.letters[method] if tested(comparison) else "",
    )


def unranked_mean(comparison: Comparison, label: str, measure: str) -> str:
    """Write the mean of the input or the reference; "" if it has no score."""
    score = comparison.score_of(label, measure)
    return "" if score is None else number(float(score.mean()), decimals(comparison, measure))


def latex(comparison: Comparison) -> str:
    """Return a booktabs table: best bold, second underlined, mean and deviation, letters of the groups."""
    names = ordered_measures(comparison)

    def cell(measure: str, method: int) -> str:
        mean, mark, deviation, letters = table_cell(comparison, measure, method)
        text = {"best": rf"\textbf{{{mean}}}", "second": rf"\underline{{{mean}}}", "": mean}[mark]
        if deviation:
            text += rf" {{\scriptsize$\pm$ {deviation}}}"
        return text + (rf"\,$^{{\mathrm{{{letters}}}}}$" if letters else "")

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
        mean, mark, deviation, letters = table_cell(comparison, measure, method)
        text = {"best": f"**{mean}**", "second": f"<u>{mean}</u>", "": mean}[mark]
        return text + (f" ± {deviation}" if deviation else "") + (f" {letters}" if letters else "")

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
    """Explain how to read the table."""
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
    """Tell whether there are two methods and two pictures at least, so that methods can be tested."""
    return len(comparison.methods) > 1 and len(comparison.names) > 1


def ordered_measures(comparison: Comparison) -> list[str]:
    """Return the names of the measures, sorted by what they need."""
    kinds = list(KINDS)
    return sorted(comparison.measures, key=lambda name: kinds.index(comparison.measures[name].needs))


def write_scores(comparison: Comparison, file: Path) -> None:
    """Write one row for each picture, method and metric, in that order, with input and reference."""
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
    """Return everything but the single scores, as JSON values."""
    return {
        "version": __version__,
        "pictures": list(comparison.names),
        "methods": list(comparison.methods),
        "measures": {name: _measure_facts(comparison, name) for name in ordered_measures(comparison)},
        "mean_rank": dict(zip(comparison.methods, comparison.mean_rank.tolist(), strict=True)),
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
                "pairs_interval": _interval(row.pairs_interval),
                "srcc_within_pictures": row.srcc,
                "srcc_interval": _interval(row.srcc_interval),
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


def _measure_facts(comparison: Comparison, name: str) -> dict[str, Any]:
    """Return the statistics of one measure by method."""
    methods, measure, found = comparison.methods, comparison.measures[name], comparison.statistics[name]

    def by_method(values: Iterable[Any]) -> dict[str, Any]:
        return dict(zip(methods, values, strict=True))

    def by_pair(values: Matrix) -> dict[str, dict[str, float]]:
        return {
            first: {second: float(values[a, b]) for b, second in enumerate(methods) if a != b}
            for a, first in enumerate(methods)
        }

    return {
        "lower_better": measure.lower_better,
        "needs": measure.needs,
        "mean": by_method(found.mean.tolist()),
        "deviation": by_method(value if math.isfinite(value) else None for value in found.deviation.tolist()),
        "mean_interval": by_method(map(_interval, found.interval)),
        "rank": by_method(found.rank.tolist()),
        "rank_interval": by_method(map(_interval, found.rank_interval)),
        "groups": {letter: [methods[i] for i in members] for letter, members in found.groups.items()},
        "p_value": by_pair(found.p_value),
        "share_won": by_pair(found.share_won),
        "beside": {label: float(scores[name].mean()) for label, scores in comparison.beside.items() if name in scores},
    }


def _interval(ends: Any) -> list[float] | None:
    """Return an interval as a list; None if it is not known."""
    return None if ends is None or not np.isfinite(ends).all() else [float(end) for end in ends]


def top(values: Matrix, count: int = 10) -> list[int]:
    """Return the indices of the largest positive values, descending."""
    order = np.argsort(-values, kind="stable")[:count]
    return [int(index) for index in order if values[index] > 0]
