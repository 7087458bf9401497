"""The README of saved weights: a model card with the metadata of the Hub's specification."""

import re
from pathlib import Path
from typing import Any

from ..card import Card

LICENSES = {
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-nc-4.0",
}  # the Hub's ids
TASK = "image-classification"  # the nearest of the Hub's tasks: from a picture to numbers
METRICS = {"SRCC": "spearmanr", "PLCC": "pearsonr"}  # the Hub's names of figures in Card.reached


def model_card(card: Card) -> str:
    """Write the README of a saved metric."""
    from huggingface_hub import ModelCardData

    results = _eval_results(card)
    metadata = ModelCardData(
        library_name="lowlight-iqa",
        pipeline_tag=TASK,
        tags=["image-quality-assessment", "no-reference", "low-light", card.name],
        base_model=card.base_model or None,
        datasets=list(card.datasets) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=card.name if results else None,
        eval_results=results or None,
        **license_metadata(card),
    )
    return (
        Path(__file__)
        .with_suffix(".md")
        .read_text(encoding="utf-8")
        .format(
            card=card,
            metadata=metadata.to_yaml(),
            better="lower" if card.lower_better else "higher",
            trained_on=card.trained_on or "nothing",
            blind_spots=card.blind_spots or "not known",
            reached="\n".join(f"- {what}: {figure}" for what, figure in card.reached.items()) or "- not measured",
        )
    )


def _eval_results(card: Card) -> list[Any]:
    """Return the correlations in ``card.reached`` as the Hub's ``EvalResult``."""
    from huggingface_hub import EvalResult

    results = []
    for what, figure in card.reached.items():
        name, _, data = what.partition(", ")  # "SRCC, BIQ2021 test split": "0.868 [0.857, 0.880]"
        metric = METRICS.get(name.partition(" ")[0].upper())
        value = re.match(r"-?\d*\.\d+\b", figure)
        if metric and data and value:
            results.append(
                EvalResult(
                    task_type=TASK,
                    task_name="no-reference image quality assessment",
                    dataset_type=_slug(data),
                    dataset_name=data,
                    metric_type=metric,
                    metric_name=name,
                    metric_value=float(value[0]),
                )
            )
    return results


def license_metadata(card: Card) -> dict[str, Any]:
    """Return the Hub's metadata of a license; a license without an id of the Hub is written to a LICENSE file."""
    known = card.license.lower()
    if known in LICENSES:
        return {"license": known}
    if known == "not stated":
        return {"license": "unknown"}
    return {"license": "other", "license_name": _slug(re.split("[;:(]", known)[0]), "license_link": "LICENSE"}


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-.")
