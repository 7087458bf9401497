"""Copies in a fresh process, and devices."""

import pickle
import subprocess
import sys

import pytest
import torch
from support import ROOT
from support.contract import subject_of

from lowlight_iqa import create_metric, list_metrics
from lowlight_iqa.registry import get_card
from lowlight_iqa.testing.test_frozen import beside, probe

FRESH = """
import pickle, sys, torch
torch.set_num_threads(1)
for name, (parent, x, reference, expected) in pickle.load(open(sys.argv[1], "rb")).items():
    assert torch.allclose(pickle.loads(parent)["metric"](x, **reference), expected, rtol=1e-5, atol=1e-6), name
print("the same")
"""


@pytest.mark.slow
def test_every_metric_is_unpickled_in_a_fresh_process(tmp_path):
    """As a spawned worker does: timm is imported by the pickle alone."""
    names = [name for name in list_metrics() if name != "leiq-ensemble"]  # whose parts are read from a folder
    content = {name: (pickle.dumps(beside(subject_of(name).build())), *probe(subject_of(name))) for name in names}
    (tmp_path / "metrics.pickle").write_bytes(pickle.dumps(content))
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path / "metrics.pickle")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "the same", done.stderr


@pytest.mark.parametrize("device", ["gpu", "", 99, "meta", "cuda:99", None.__class__])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match="'cpu'"):
        create_metric("exposure", device=device)


def test_a_device_that_is_there_is_taken():
    assert create_metric("exposure", device="cpu").device.type == "cpu"
    assert get_card("exposure").name == "exposure"


TF32 = """
import sys, torch
from lowlight_iqa.metric import full_precision

cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
parts = [cuda, getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None)]
parts = [part for part in parts if hasattr(part, "fp32_precision")]

def settings():
    found = [part.fp32_precision for part in parts]
    for switch in (cuda, cudnn):
        try:
            found.append(switch.allow_tf32)
        except RuntimeError:  # torch's refusal after fp32_precision was set
            found.append("refused")
    return found

exec(sys.argv[1])
before = settings()
try:
    with full_precision("cuda"):
        assert not {"tf32", True} & set(settings()), settings()
        raise KeyError
except KeyError:
    pass
assert settings() == before, (settings(), before)
print("off, and back")
"""


@pytest.mark.parametrize(
    "allow",
    [
        "pass",
        "torch.set_float32_matmul_precision('high')",
        "cuda.allow_tf32 = cudnn.allow_tf32 = True",
        "torch.backends.fp32_precision = 'tf32'",
        "cuda.fp32_precision = 'tf32'",
    ],
)
def test_tf32_is_off_in_a_score_however_it_was_allowed_and_allowed_again_after_it(allow):
    if "fp32_precision" in allow and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this version of torch has no fp32_precision")
    done = subprocess.run([sys.executable, "-c", TF32, allow], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "off, and back", done.stderr
