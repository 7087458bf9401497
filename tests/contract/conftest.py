"""Every registered metric is a subject of the contract."""

import pytest
from support.contract import subject_of

from lowlight_iqa import list_metrics

SLOW = ("bmqa-rn50", "loe")  # a minute each; bmqa-vitb32, bmqa-convnext and loe-lime run most of the same code


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in list_metrics()])
def name(request):
    return request.param


@pytest.fixture
def subject(name):
    return subject_of(name)
