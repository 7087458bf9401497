"""Compare enhancement methods on the same pictures: scores, statistics, agreement of metrics, and a report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..attributes import ATTRIBUTES
from ..metric import Assessment
from ..registry import get_card
from ..scoring.cache import cache_folder
from . import full_reference
from .cached import full_reference_cached, score_cached
from .match import Matched, match_folders, printable
from .result import DARK_INPUT, DRAWS, FULL_REFERENCE, INPUT, NO_REFERENCE, REFERENCE, Comparison, Measure
from .significance import Matrix

if TYPE_CHECKING:
    from .pictures import Box

DEFAULT = ("leiq", "iaca", "niqe")


def compare(
    methods: Mapping[str, str | Path] | Sequence[str | Path],
    metrics: Sequence[str] | None = None,
    *,
    inputs: str | Path | None = None,
    references: str | Path | None = None,
    out: str | Path | None = None,
    suffixes: Sequence[str] | None = None,
    partial: bool = False,
    crop: Box | None = None,
    show: Sequence[str] | None = None,
    draws: int = DRAWS,
    cache: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> Comparison:
    """Compare the pictures that several enhancement methods made from the same inputs.

    Args:
        methods: the folder of each, by its name, or only the folders. Pictures are matched by the stem of their file's
            name, without a known suffix such as ``_out`` or ``_enhanced``.
        metrics: names of metrics; None for ``DEFAULT``, and ``loe`` if there are inputs.
        inputs: the folder of the dark pictures.
        references: the folder of the normal-light pictures; adds PSNR, SSIM and CIEDE2000.
        out: folder for tables, figures and the page (extra ``report``); None writes nothing.
        suffixes: suffixes to cut off the names, instead of the known ones; () for none.
        partial: leave out pictures that a folder lacks or that cannot be scored, instead of raising an error.
        crop: of the page and the figure, see ``Comparison.write``.
        show: likewise.
        draws: resamples of the pictures for the intervals.
        cache: folder of cached scores; None for $LOWLIGHT_IQA_CACHE or ~/.cache/lowlight_iqa.
        progress: show a progress bar on stderr.
        options: of ``lowlight_iqa.score``: ``device``, ``workers``, ``batch``.

    Raises:
        ValueError: pictures that have no match or cannot be scored, unless ``partial``; no such metric.
        OSError: a folder is missing.
    """
    folders = label_folders(methods, inputs, references)
    names = choose_metrics(metrics, inputs is not None)
    _import_extras(references is not None, out is not None)

    matched = match_folders(folders, suffixes)
    if matched.missing and not partial:
        raise ValueError(f"{matched.complaint()}; add them, or leave them out with --partial")

    result = _measure(folders, matched, names, cache_folder(cache), progress, options)
    _check_failures(result, partial)
    result = replace(result, draws=draws)
    if out is not None:
        result.write(out, crop=crop, show=show)
    return result


def _import_extras(references: bool, report: bool) -> None:
    """Import optional packages now, rather than after scoring, so that one that is missing is noticed."""
    if references:
        full_reference.import_skimage()
    if report:
        from .report import import_extra

        import_extra()


def _check_failures(result: Comparison, partial: bool) -> None:
    """Refuse pictures that could not be scored, or with ``partial`` only that there are no others."""
    if result.failed and not partial:
        count, reasons = len(result.failed), "; ".join(list(result.failed.values())[:5])
        raise ValueError(
            f"{count} picture{'s' * (count != 1)} could not be scored: {reasons}; "
            "repair them, or leave them out with --partial"
        )
    if not result.names:
        raise ValueError(f"no picture could be scored for every method: {next(iter(result.failed.values()))}")


def label_folders(
    methods: Mapping[str, str | Path] | Sequence[str | Path], inputs: str | Path | None, references: str | Path | None
) -> dict[str, Path]:
    """Name every folder; methods in folders of the same name get as much of their path as tells them apart.

    Raises:
        TypeError: methods is one path.
        ValueError: no method; a method called "input" or "reference"; a folder given twice.
    """
    if isinstance(methods, (str, os.PathLike)):
        raise TypeError(f"methods is a list of folders or a dict of them by name; give [{os.fspath(methods)!r}]")
    if not methods:
        raise ValueError("no method is given; give the folder of at least one")
    if isinstance(methods, Mapping):
        folders = {str(label): Path(folder) for label, folder in methods.items()}
    else:
        folders = dict(zip(_shortest_names([Path(folder) for folder in methods]), map(Path, methods), strict=True))

    for label in (INPUT, REFERENCE):
        if label in folders:
            raise ValueError(f"a method must not be called {label!r}; name it: NAME={folders[label]}")
    if inputs is not None:
        folders[INPUT] = Path(inputs)
    if references is not None:
        folders[REFERENCE] = Path(references)
    return folders


def _shortest_names(folders: Sequence[Path]) -> list[str]:
    """Return the last parts of each path, as few as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for index, own in enumerate(parts):
        if own in parts[:index]:
            raise ValueError(f"{folders[index]} is given twice; name a method once")
    for depth in range(1, max(map(len, parts)) + 1):
        names = [printable("/".join(own[-depth:])) for own in parts]
        if len(set(names)) == len(names):
            break
    return names


def choose_metrics(metrics: Sequence[str] | None, have_inputs: bool) -> list[str]:
    """Return the names of the metrics to score with."""
    if metrics is None:
        return [*DEFAULT, *(["loe"] if have_inputs else [])]
    names = list(dict.fromkeys(metrics))
    if not names:
        raise ValueError(f"no metric is given; name one, such as {DEFAULT[0]}")
    for name in names:
        card = get_card(name)
        if card.needs_reference and not have_inputs:
            raise ValueError(f"{name} compares with the dark input; give --input")
    return names


Job: TypeAlias = tuple[str, str]  # a folder's label and a picture's name


@dataclass
class _Found:
    """The results of scoring by job."""

    results: dict[Job, dict[str, Assessment]] = field(default_factory=dict)
    figures: dict[Job, Mapping[str, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # {picture: reason}

    def value(self, job: Job, measure: Measure) -> float:
        """Return the score of a picture by a measure."""
        if measure.needs == FULL_REFERENCE:
            return self.figures[job][measure.name]
        return self.results[job][measure.name].score


def _measure(
    folders: Mapping[str, Path], matched: Matched, metrics: Sequence[str], cache: Path, progress: bool, options: Any
) -> Comparison:
    """Score every picture of every folder; a picture that fails for one method is left out for all."""
    methods = tuple(label for label in folders if label not in (INPUT, REFERENCE))
    measures = _measures(metrics, REFERENCE in folders)
    found = _score_all(folders, matched, measures, cache, progress, options)

    names = tuple(name for name in matched.names if name not in found.failed)

    def column(label: str, measure: Measure) -> Matrix:
        return np.array([found.value((label, name), measure) for name in names])

    beside = {
        label: {
            key: column(label, measure)
            for key, measure in measures.items()
            if measure.needs == NO_REFERENCE or (measure.needs == FULL_REFERENCE and label == INPUT)
        }
        for label in (INPUT, REFERENCE)
        if label in folders
    }
    explainer = _explainer(found.results[methods[0], names[0]], measures) if names else ""
    explained = {label: [found.results[label, name][explainer] for name in names] for label in folders if explainer}
    return Comparison(
        methods=methods,
        names=names,
        measures=measures,
        scores={key: np.stack([column(label, m) for label in methods], 1) for key, m in measures.items()},
        beside=beside,
        attributes={
            label: np.array([[result.attributes[key] for key in ATTRIBUTES] for result in results])
            for label, results in explained.items()
        },
        sentences={label: [result.description for result in results] for label, results in explained.items()},
        explainer=explainer,
        files={label: {name: matched.files[label][name] for name in names} for label in folders},
        matched=matched,
        failed=found.failed,
    )


def _measures(metrics: Sequence[str], have_references: bool) -> dict[str, Measure]:
    """Return the columns of the comparison."""
    measures = {}
    for name in metrics:
        card = get_card(name)
        needs = DARK_INPUT if card.needs_reference else NO_REFERENCE
        measures[name] = Measure(name, card.lower_better, needs, card.summary)
    if have_references:
        for name in full_reference.NAMES:
            lower_better = full_reference.LOWER_BETTER[name]
            measures[name] = Measure(name, lower_better, FULL_REFERENCE, full_reference.SUMMARY[name])
    return measures


def _explainer(results: Mapping[str, Assessment], measures: Mapping[str, Measure]) -> str:
    """Return the first metric that has all six attributes, or ""."""
    known = (name for name in measures if name in results and set(ATTRIBUTES) <= set(results[name].attributes))
    return next(known, "")


def _score_all(
    folders: Mapping[str, Path],
    matched: Matched,
    measures: Mapping[str, Measure],
    cache: Path,
    progress: bool,
    options: Mapping[str, Any],
) -> _Found:
    """Score all pictures without reference, those of the methods with their dark input, and against references."""
    found = _Found()
    everything = [(label, name) for label in folders for name in matched.names]

    def paths(jobs: Sequence[Job], label: str | None = None) -> list[Path]:
        return [matched.files[label or own][name] for own, name in jobs]

    for needs in (NO_REFERENCE, DARK_INPUT):
        metrics = [name for name, measure in measures.items() if measure.needs == needs]
        if not metrics:
            continue
        jobs, dark = everything, None
        if needs == DARK_INPUT:
            jobs = [job for job in everything if job[0] not in (INPUT, REFERENCE)]
            dark = paths(jobs, INPUT)
        outcomes = score_cached(paths(jobs), metrics, cache, references=dark, progress=progress, **options)
        for job, (results, error) in zip(jobs, outcomes, strict=True):
            found.results.setdefault(job, {}).update(results)
            if error:
                found.failed.setdefault(job[1], error)

    if REFERENCE in folders:
        jobs = [job for job in everything if job[0] != REFERENCE and job[1] not in found.failed]
        compared = full_reference_cached(paths(jobs), paths(jobs, REFERENCE), cache, progress=progress)
        for job, (figures, error) in zip(jobs, compared, strict=True):
            found.figures[job] = figures
            if error:
                found.failed.setdefault(job[1], error)
    return found
