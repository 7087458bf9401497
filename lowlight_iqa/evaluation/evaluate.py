"""Agreement of a metric with people on a data set: every picture counted, every figure with its interval.

Scores are cached (``scoring.cache``): an interrupted run continues where it stopped. Under torchrun the pictures can be
divided among the processes; each picture is scored alone, so the result is that of one process.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..card import Card
from ..data import Dataset, Rated, load
from ..data.rated import DARK
from ..functional.logistic import Vector
from ..metric import Metric
from ..registry import create_metric, get_card
from ..scoring.cache import Cache, cache_folder
from ..scoring.pipeline import Record, Work, run
from ..scoring.sinks import csv_line, inert
from ..scoring.sources import find_sources
from ..wholefile import write_whole
from .correlation import MAX_DRAWS, Indices, members_of, plcc, srcc
from .figures import Figure, LogisticFit, Part, figure, figures_within, main_figures, split_figures

if TYPE_CHECKING:
    from ..distributed import Ranks

BRIGHT = 140.0  # mean luma from which a picture counts as bright


@dataclass(frozen=True)
class Evaluation:
    """Scores of every picture of a data set and their agreement with people. Correlations are signed."""

    card: Card
    dataset: Dataset
    scores: Vector  # (N,), in the order of dataset.items
    lumas: Vector  # (N,), mean luma, 0 to 255
    mapping: LogisticFit | None = None  # from scores to the labels' scale; None if no logistic fits
    figures: Mapping[str, Figure] = field(default_factory=dict)  # empty if labels are not public
    within: Mapping[str, Figure] = field(default_factory=dict)  # inside scenes
    parts: Mapping[str, Part] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)
    splits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # means over random 80/20 splits
    explained: Mapping[str, Vector] = field(default_factory=dict)  # the metric's attributes, (N,) each

    @property
    def labels(self) -> Vector:
        """People's scores, (N,)."""
        return np.array([item.mos for item in self.dataset.items])

    def __str__(self) -> str:
        """Return the figures as Markdown."""
        better = "lower is better: good figures are negative" if self.card.lower_better else "higher is better"
        name, split, count = self.dataset.name, self.dataset.split, len(self.scores)
        blocks = [f"{self.card.name} on {name}, {split}, {count} pictures ({better})"]
        if not self.figures:
            return f"{blocks[0]}\n\nThe labels are not public: there are scores, but no figures."

        rows = [(what, figure) for what, figure in self.figures.items()]
        rows += [(f"{what} (within scenes)", figure) for what, figure in self.within.items()]
        blocks.append(_markdown(("figure", "value [95 %]"), rows))
        if self.dataset.relative:
            blocks.append("Labels compare the pictures of one scene: only the figures within scenes are meaningful.")
        if self.parts:
            lines = [(what, part.count, *part.figures.values()) for what, part in self.parts.items()]
            blocks.append(_markdown(("part", "pictures", "SRCC [95 %]", "PLCC [95 %]"), lines))
        if self.attributes:
            attributes = [(name, *figures.values()) for name, figures in self.attributes.items()]
            blocks.append(_markdown(("attribute", "SRCC [95 %]", "PLCC [95 %]"), attributes))
        if self.splits:
            heads = list(next(iter(self.splits.values())))
            means = [(by, *(f"{figures[head]:.4f}" for head in heads)) for by, figures in self.splits.items()]
            blocks.append("Ten random splits, logistic fitted on 80 %, figures of the other 20 %:")
            blocks.append(_markdown(("split by", *heads), means))
        return "\n\n".join(blocks)

    def facts(self) -> dict[str, Any]:
        """Return the figures as plain numbers, for JSON."""

        def plain(figures: Mapping[str, Figure]) -> dict[str, Any]:
            numbers = {what: (figure.value, figure.low, figure.high) for what, figure in figures.items()}
            return {what: [None if math.isnan(v) else v for v in values] for what, values in numbers.items()}

        return {
            "metric": self.card.name,
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "pictures": len(self.scores),
            "figures": plain(self.figures),
            "within": plain(self.within),
            "parts": {w: {"pictures": part.count, **plain(part.figures)} for w, part in self.parts.items()},
            "attributes": {name: plain(figures) for name, figures in self.attributes.items()},
            "splits": {by: dict(figures) for by, figures in self.splits.items()},
        }

    def write_csv(self, path: str | Path) -> None:
        """Write one row per picture: labels, score, and the score mapped to the labels' scale."""
        mapped = self.mapping(self.scores) if self.mapping else np.full(len(self.scores), math.nan)
        head = ["picture", "group", "device", "mean_luma", "mos", "score", "mapped", *self.explained]
        lines = [csv_line(head)]
        for index, item in enumerate(self.dataset.items):
            texts = [inert(text) for text in (str(item.path), item.group, item.device)]
            numbers = [float(column[index]) for column in (self.scores, mapped, *self.explained.values())]
            lines.append(csv_line([*texts, round(float(self.lumas[index]), 2), item.mos, *numbers]))
        write_whole(Path(path), "\n".join([*lines, ""]))

    def write_submission(self, path: str | Path) -> None:
        """Write the MLE challenge's result.json: a list of {id, mos}, mos on 0..10, higher is better."""
        low, high = self.card.score_range
        good = (high - self.scores if self.card.lower_better else self.scores - low) / (high - low)
        rows = [
            {"id": item.path.stem, "mos": round(10 * float(value), 6)}
            for item, value in zip(self.dataset.items, good, strict=True)
        ]
        write_whole(Path(path), json.dumps(rows, indent=2) + "\n")

    def plot(self, path: str | Path) -> None:
        """Draw MOS against score with the fitted logistic, as an image file."""
        from .plot import plot

        plot(self, path)


def evaluate(
    metric: str | Metric,
    dataset: str | Dataset,
    root: str | Path | None = None,
    split: str | None = None,
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    cache: str | Path | None = None,
    draws: int = 1000,
    progress: bool = False,
    distributed: bool = False,
) -> Evaluation:
    """Score every picture of a data set and measure the agreement with people.

    Args:
        metric: a name, or a metric made by ``create_metric``.
        dataset: a name (``lowlight_iqa.data.list_datasets()``), or a data set read by ``lowlight_iqa.data.load``.
        root: the data set's folder; see ``lowlight_iqa.data``.
        split: one of the data set's splits; None for the one that papers report.
        weights: as for ``create_metric``, with a metric's name.
        device: as for ``create_metric``, with a metric's name.
        cache: folder of the scores; None for $LOWLIGHT_IQA_CACHE or ~/.cache/lowlight_iqa.
        draws: resamples of each bootstrap interval; of whole scenes if there are scenes.
        progress: show a progress bar on stderr.
        distributed: divide the pictures among the processes of torchrun; otherwise each process scores all.

    Returns:
        All figures: SRCC, KRCC, PLCC raw and after the logistic, RMSE after the logistic, the same within scenes, for
        devices, luminance bands and attributes, and as means over random splits by scene and by image. The logistic of
        the main figures is fitted to the pictures that it is applied to, as in papers.

    Raises:
        ValueError: pictures that could not be scored, which it names: no figure is given over the rest; a metric that
            needs a reference; no such metric, data set or split.
        FileNotFoundError: the data set is missing or incomplete.
        WeightsNotFound: the weights are not on this machine.
    """
    from ..distributed import Ranks

    if isinstance(metric, Metric) and (weights is not None or device is not None):
        raise ValueError("weights and device are for a metric given by name; this one exists already, leave them out")
    card = metric.card if isinstance(metric, Metric) else get_card(metric)
    if card.needs_reference:
        raise ValueError(f"{card.name} compares with the dark input, which sets of rated pictures do not contain")
    if not 1 <= draws <= MAX_DRAWS:
        raise ValueError(f"the number of draws is {draws}; give 1 to {MAX_DRAWS}, 1000 is usual")

    dataset = _load_labeled(dataset, root, split)
    ranks = Ranks(0, 1)
    if distributed:  # before the metric is created, since joining selects this process's GPU
        ranks = Ranks.join(metric.device.type if isinstance(metric, Metric) else device or "cpu")
    if isinstance(metric, str):
        metric = create_metric(metric, device=device, weights=weights)
    attributes = any(item.attributes for item in dataset.items)
    with Cache(cache_folder(cache), [metric], attributes) as opened:
        records = _score(metric, dataset.items, opened, ranks, progress)
    return _measure(metric.card, dataset, records, draws)


def _load_labeled(dataset: str | Dataset, root: str | Path | None, split: str | None) -> Dataset:
    """Load a data set given by name, and check that its labels differ."""
    if isinstance(dataset, str):
        if root is None:
            raise ValueError(f"give root, the folder that holds {dataset}")
        dataset = load(dataset, root, split)
    labels = {item.mos for item in dataset.items}
    if len(labels) == 1 and not math.isnan(min(labels)):
        raise ValueError(
            f"all {len(dataset.items)} pictures of {dataset.name} are rated {min(labels):g}; "
            "agreement is measured on labels that differ"
        )
    return dataset


def _score(metric: Metric, items: Sequence[Rated], cache: Cache, ranks: Ranks, progress: bool) -> list[Record]:
    """Return the record of every picture; this process scores its shard. A picture that fails is a ValueError."""
    from tqdm import tqdm

    shard = range(ranks.rank, len(items), ranks.world)
    work = Work([metric], attributes=cache.attributes, luma=True, known=cache.get)
    stream = run(find_sources(items[index].path for index in shard), work)
    bar = tqdm(stream, total=len(shard), unit="picture", file=sys.stderr, disable=not progress or ranks.rank > 0)
    records: dict[int, Record] = {}
    for index, record in zip(shard, bar, strict=True):
        cache.put(record)
        records[index] = record

    if ranks.world > 1:
        shards: list[Any] = [None] * ranks.world
        torch.distributed.all_gather_object(shards, records)
        for other in shards:
            records |= other
    problems = [records[index].error for index in range(len(items)) if records[index].error]
    if problems:
        raise ValueError(
            f"{len(problems)} of {len(items)} pictures could not be scored, and figures over the others would not be "
            f"comparable: {'; '.join(problems[:5])}{'; ...' if len(problems) > 5 else ''}"
        )
    return [records[index] for index in range(len(items))]


def _measure(card: Card, dataset: Dataset, records: Sequence[Record], draws: int) -> Evaluation:
    items = dataset.items
    results = [record.results[card.name] for record in records]
    scores = np.array([result.score for result in results])
    labels = np.array([item.mos for item in items])
    listed = np.array([item.mean_luma for item in items])
    lumas = np.where(np.isnan(listed), [record.luma for record in records], listed)
    names = results[0].attributes if results else {}
    explained = {name: np.array([result.attributes[name] for result in results]) for name in names}
    if np.isnan(labels).all():
        return Evaluation(card, dataset, scores, lumas, explained=explained)

    groups: list[Hashable] = [item.group or index for index, item in enumerate(items)]  # a picture alone: a number
    scenes = len(set(groups)) < len(items)
    mapping, figures = main_figures(scores, labels, groups, card.lower_better, draws)

    def both(x: Vector, y: Vector, members: Indices) -> dict[str, Figure]:
        own = [groups[index] for index in members]
        return {what: figure(of, x[members], y[members], own, draws) for what, of in (("SRCC", srcc), ("PLCC", plcc))}

    everything = np.arange(len(items))
    rated = {name: np.array([item.attributes[name] for item in items]) for name in items[0].attributes}
    return Evaluation(
        card,
        dataset,
        scores,
        lumas,
        mapping,
        figures,
        figures_within(scores, labels, groups, card.lower_better, draws) if scenes else {},
        {what: Part(len(members), both(scores, labels, members)) for what, members in _parts(items, lumas).items()},
        {name: both(explained[name], values, everything) for name, values in rated.items() if name in explained},
        split_figures(items, scores, labels, card.lower_better, scenes),
        explained,
    )


def _parts(items: Sequence[Rated], lumas: Vector) -> dict[str, Indices]:
    """Return the pictures of each device and luminance band with at least three."""
    parts: dict[str, Indices] = {}
    if any(item.device for item in items):
        parts |= {str(device): members for device, members in members_of([item.device for item in items]).items()}
        if "" in parts:
            parts["unknown camera"] = parts.pop("")

    parts[f"dark (mean luma < {DARK:g})"] = np.flatnonzero(lumas < DARK)
    parts["medium"] = np.flatnonzero((lumas >= DARK) & (lumas < BRIGHT))
    parts[f"bright (mean luma >= {BRIGHT:g})"] = np.flatnonzero(lumas >= BRIGHT)
    return {what: members for what, members in parts.items() if len(members) >= 3}


def _markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a table; bars and line breaks in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[" ".join(str(cell).replace("|", "\\|").split()) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
