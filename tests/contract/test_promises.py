"""The promises of lowlight_iqa.testing, on every registered metric."""

import pytest

pytest.register_assert_rewrite("lowlight_iqa.testing")

from lowlight_iqa.testing.test_frozen import *  # noqa: E402, F403
from lowlight_iqa.testing.test_gradients import *  # noqa: E402, F403
from lowlight_iqa.testing.test_input import *  # noqa: E402, F403
from lowlight_iqa.testing.test_loss import *  # noqa: E402, F403
from lowlight_iqa.testing.test_scores import *  # noqa: E402, F403
