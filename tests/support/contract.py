"""What the contract tests share: each metric once, on stand-in weights where none are at hand, and photographs."""

import copy
import functools
import math

import torch
from torch import nn

from lowlight_iqa import Metric, create_metric, read_image
from lowlight_iqa.registry import get_card, get_class
from lowlight_iqa.testing.subject import Subject
from support import ROOT
from support.small_metrics import small_towers, stand_in

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")


class Ours(Subject):
    """A metric of this library, on photographs."""

    def __init__(self, name):
        super().__init__(name)
        self.smooth = True  # a caption is held fixed

    def build(self):
        """Make the metric anew; a stand-in is copied."""
        if is_bundled(self.name):
            return create_metric(self.name)
        with torch.inference_mode(False):
            return copy.deepcopy(original(self.name))

    def picture(self, seed=0, side=None):
        return photo(side or self.side, SAMPLES[seed])

    def fixed(self, x):
        metric = self.metric(x.dtype)
        return {"text": metric.caption(x)} if hasattr(metric, "caption") else super().fixed(x)


subject_of = functools.cache(Ours)


@functools.cache
def original(name):
    with small_towers():
        return stand_in(name)


def is_bundled(name):
    """Whether it needs no stand-in: it has its weights here, or has none."""
    card = get_card(name)
    return bool(card.weights) or (
        get_class(name).from_weights.__func__ is Metric.from_weights.__func__
        and (get_class(name).from_source.__func__ is Metric.from_source.__func__)
    )


@functools.cache
def photo(side, sample="astronaut"):
    whole = read_image(ROOT / "samples" / f"{sample}.jpg")
    scale = max(1.0, side / min(whole.shape[1:]))
    if scale > 1:
        size = [math.ceil(length * scale) for length in whole.shape[1:]]
        whole = nn.functional.interpolate(whole[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    top, left = ((length - side) // 2 for length in whole.shape[1:])
    return whole[:, top : top + side, left : left + side].contiguous()
