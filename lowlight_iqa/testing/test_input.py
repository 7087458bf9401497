"""Every form of input that is scored, and bad input that is refused with advice."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from .. import read_image
from .subject import ERRORS, Subject


def bad_inputs(folder: Path, x: Tensor) -> dict[str, tuple[Any, str]]:
    """Return input that a metric must refuse, with a word of the message, by name."""
    whole = folder / "whole.png"
    image = Image.fromarray((x.permute(1, 2, 0) * 255).byte().numpy())
    image.save(whole)
    (folder / "short.png").write_bytes(whole.read_bytes()[:3000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    image.putalpha(99)
    image.save(folder / "alpha.png")
    image.convert("RGB").save(folder / "frames.gif", save_all=True, append_images=[Image.new("RGB", image.size)])
    spoiled = x.clone()
    spoiled[0, 3, 4] = math.nan
    return {
        "uint8": ((x * 255).byte(), "255"),
        "bool": (x > 0.5, "bool"),
        "complex": (x.to(torch.complex64), "complex"),
        "0 to 255": (x * 255, "255"),
        "-1 to 1": (x * 2 - 1, "/ 2"),
        "NaN": (spoiled, "NaN"),
        "infinity": (x + math.inf, "infinity"),
        "2-D": (x[0], "expand"),
        "5-D": (x[None, None], "flatten"),
        "gray": (x[:1], "expand"),
        "4 channels": (torch.cat([x, x[:1]]), "alpha"),
        "channels last": (x.permute(1, 2, 0), "permute"),
        "empty batch": (x[None][:0], "empty"),
        "another device": (x.to("meta"), "meta"),
        "None": (None, "NoneType"),
        "number": (3, "int"),
        "bytes": (whole.read_bytes(), "BytesIO"),
        "int array": (np.zeros((*x.shape[1:], 3), np.int64), "int64"),
        "empty list": ([], "empty"),
        "a batch inside a list": ([x[None]], "list"),
        "missing": (folder / "missing.png", "missing.png"),
        "folder": (str(folder), "folder"),
        "truncated": (folder / "short.png", "short.png"),
        "0 bytes": (folder / "empty.jpg", "empty.jpg"),
        "text": (folder / "text.jpg", "text.jpg"),
        "alpha": (folder / "alpha.png", "transparent"),
        "animated": (folder / "frames.gif", "2 frames"),
    }


def test_bad_input_is_refused_with_advice(subject: Subject, tmp_path: Path) -> None:
    good, least = subject.picture(), subject.card.min_size
    cases = bad_inputs(tmp_path, good)
    if least > 1:
        cases["too small"] = (good[:, : least - 1], str(least))
    for case, (bad, word) in cases.items():
        reference = {"reference": good} if subject.card.needs_reference else {}
        with pytest.raises(ERRORS) as caught:
            subject.metric()(bad, **reference)
        assert word in str(caught.value), case
        assert len(str(caught.value)) > 20, case


def test_the_smallest_picture_is_scored(subject: Subject) -> None:
    least = subject.card.min_size
    x = subject.picture()[:, :least, : least + 1]
    assert subject.score(x).isfinite().all()
    assert subject.gradient(x[None]).isfinite().all()


def test_references_are_wanted_or_refused(subject: Subject) -> None:
    metric, x = subject.metric(), subject.picture()
    if metric.card.needs_reference:
        with pytest.raises(TypeError, match="reference"):
            metric(x)
        with pytest.raises(TypeError, match="reference"):
            metric.loss(x)
        with pytest.raises(ValueError, match="same size"):
            metric(x, reference=subject.picture(side=subject.side + 8))
        with pytest.raises(ValueError, match="2 pictures but 1 references"):
            metric([x, x], reference=[x])
    else:
        with pytest.raises(TypeError, match="no-reference"):
            metric(x, reference=x)


def test_a_picture_in_every_form(subject: Subject, tmp_path: Path) -> None:
    metric = subject.metric()
    array = (subject.picture().permute(1, 2, 0) * 255).byte().numpy()
    path = tmp_path / "picture.png"
    Image.fromarray(array).save(path)
    tensor = read_image(path)
    reference = subject.reference_of(tensor)
    decoded = metric(metric.preprocess(tensor), **reference)  # as files, PIL images and arrays come
    given = metric(tensor, **reference)  # tensors are scored as they are
    forms: list[tuple[Any, list[Tensor]]] = [
        (path, [decoded]),
        (str(path), [decoded]),
        (Image.open(path), [decoded]),
        (array, [decoded]),
        (tensor[None], [given]),
        ([path], [decoded]),
        ([array, tensor], [decoded, given]),
    ]
    for form, expected in forms:
        references = {key: [value] * len(expected) for key, value in reference.items()}
        torch.testing.assert_close(metric(form, **references), torch.cat(expected), rtol=0, atol=1e-6 * subject.span)
