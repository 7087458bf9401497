"""MATLAB's imresize."""

import pytest
import torch

from lowlight_iqa.functional.resize import _resize_side, imresize

DOUBLE = torch.float64


def test_half_size_is_the_general_code_at_one_half():
    for shape in ((2, 31, 46), (1, 3, 8, 5)):
        x = torch.rand(shape, dtype=DOUBLE)
        height, width = (x.shape[-2] + 1) // 2, (x.shape[-1] + 1) // 2
        general = _resize_side(_resize_side(x, -2, height, 0.5), -1, width, 0.5)
        assert torch.allclose(imresize(x, 0.5), general, atol=1e-12)


def test_known_values():
    ramp = torch.arange(1, 9, dtype=DOUBLE).expand(8, 8)
    # By hand from the kernel's eight taps, the border mirrored; inside, a ramp stays one.
    row = imresize(ramp, 0.5)[0]
    assert row[1:3].tolist() == pytest.approx([3.5, 5.5], abs=0.02)
    assert row.flip(0).tolist() == pytest.approx((9 - row).tolist())
    assert torch.allclose(imresize(torch.full((7, 9), 0.3, dtype=DOUBLE), 1.7), torch.tensor(0.3, dtype=DOUBLE))
    assert imresize(torch.rand(3, 10, 20), size=(5, 7)).shape == (3, 5, 7)


@pytest.mark.parametrize("scale", [0.5, 0.3, 1.6])
def test_gradient(scale):
    x = torch.rand(1, 6, 7, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: imresize(y, scale), x)


@pytest.mark.parametrize(
    ("x", "arguments", "error"),
    [
        (torch.zeros(4, 4, dtype=torch.uint8), {"scale": 0.5}, TypeError),
        (torch.zeros(4), {"scale": 0.5}, ValueError),
        (torch.zeros(4, 4), {"scale": 0}, ValueError),
        (torch.zeros(4, 4), {}, ValueError),
        (torch.zeros(4, 4), {"scale": 0.5, "size": (2, 2)}, ValueError),
        (torch.zeros(4, 4), {"size": (0, 2)}, ValueError),
    ],
)
def test_unusable_arguments(x, arguments, error):
    with pytest.raises(error, match=r"imresize|scale|size"):
        imresize(x, **arguments)
