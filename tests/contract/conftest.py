"""Every registered metric is a subject of the contract."""

import pytest
from support.contract import subject_of

from lowlight_iqa import list_metrics


@pytest.fixture(params=list_metrics())
def name(request):
    return request.param


@pytest.fixture
def subject(name):
    return subject_of(name)
