"""Learned metrics as the loss of a network that is trained: autocast, accumulation, DDP, torch.compile, memory."""

import functools
import resource
import subprocess
import sys

import pytest
import torch
from support import ROOT
from torch import nn

from lowlight_iqa import create_metric, list_metrics, read_image
from lowlight_iqa.registry import get_card

LEARNED = [name for name in list_metrics(learned=True) if get_card(name).weights]

every_learned_metric = pytest.mark.parametrize("name", LEARNED)


@functools.cache
def make(name):
    return create_metric(name)


def dark(count, size=64):
    """Dark crops (count, 3, size, size)."""
    x = read_image(ROOT / "samples" / "coffee_dark.png")
    return torch.stack([x[:, 20 : 20 + size, 24 * k : 24 * k + size] for k in range(count)])


class Enhancer(nn.Module):
    """Two convolutions that brighten."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))

    def forward(self, x):
        return (x + 0.2 * self.body(x).sigmoid()).clamp(0, 1)


def gradients(network):
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def difference(one, other):
    """Relative, of whole gradients; in float32 the sums of other batches round otherwise."""
    return ((one - other).norm() / other.norm()).item()


def steps(name, network, x, count, autocast=False):
    """Losses before each of ``count`` steps."""
    optimizer, losses = torch.optim.Adam(network.parameters(), 0.02), []
    for _ in range(count):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = make(name).loss(network(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@every_learned_metric
@pytest.mark.parametrize("autocast", [False, True])
def test_a_network_learns_from_it_also_under_bfloat16_autocast(name, autocast):
    losses = steps(name, Enhancer(), dark(2), 5, autocast)
    assert losses[-1] < losses[0]


@every_learned_metric
def test_a_scaled_loss_gives_scaled_gradients_under_autocast(name):
    """What a GradScaler relies on."""
    found = []
    for scale in (1, 1024):
        network = Enhancer()
        with torch.autocast("cpu", torch.bfloat16):
            loss = make(name).loss(network(dark(2)))
        (loss * scale).backward()
        assert loss.dtype == torch.float32
        assert gradients(network).isfinite().all()
        found.append(gradients(network) / scale)
    assert difference(*found) < 1e-2


@every_learned_metric
def test_accumulated_gradients_equal_those_of_the_whole_batch(name):
    x, whole, parts = dark(4), Enhancer(), Enhancer()
    make(name).loss(whole(x)).backward()
    for part in x.split(2):
        (make(name).loss(parts(part)) / 2).backward()
    assert difference(gradients(parts), gradients(whole)) < 1e-2


@pytest.mark.slow
@every_learned_metric
def test_torch_compile_changes_nothing(name):
    """The graph is captured for forward and backward; generating code for it is the compiler's matter."""
    torch.compiler.reset()
    metric, x = make(name), dark(2)
    compiled = torch.compile(metric.loss, backend="aot_eager")
    found = []
    for loss in (metric.loss, compiled):
        leaf = x.clone().requires_grad_()
        value = loss(leaf)
        value.backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-5)
    assert torch.cosine_similarity(found[0][1].flatten(), found[1][1].flatten(), dim=0) > 0.999


@pytest.mark.slow
@every_learned_metric
def test_memory_does_not_grow_over_200_steps(name):
    network, x = Enhancer(), dark(1, 32)
    steps(name, network, x, 20)  # what is kept from then on has been allocated
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps(name, network, x, 200)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 20  # megabytes; a graph kept alive costs that in a few steps


DDP = """
import sys
import torch
import torch.distributed as dist

sys.path.insert(0, "tests")
from test_as_loss import Enhancer, dark, gradients
from lowlight_iqa import create_metric

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
for name in sys.argv[2:]:
    network = torch.nn.parallel.DistributedDataParallel(Enhancer())
    metric = create_metric(name)
    metric.loss(network(dark(4).chunk(world)[rank])).backward()
    if rank == 0:
        torch.save(gradients(network), f"{sys.argv[1]}/{name}.pt")
    del network, metric  # what listens to the group must not outlive it
dist.barrier()  # nor one process the other's last message
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ddp_gives_the_gradient_of_the_whole_batch(tmp_path):
    script = tmp_path / "ddp.py"
    script.write_text(DDP)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(script), str(tmp_path), *LEARNED], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    for name in LEARNED:
        network = Enhancer()
        make(name).loss(network(dark(4))).backward()
        found = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert difference(found, gradients(network)) < 1e-2
