"""What one of two processes runs: spawned, it is found by this module's name."""

import torch
import torch.distributed as dist

from lowlight_iqa.torchmetrics import QualityMetric


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """Random pictures of unlike brightness."""
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 32, 40, generator=draw) * torch.rand(count, 1, 1, 1, generator=draw)


def share(rank: int, file: str, results) -> None:
    """One of two processes: 3 pictures here, 1 there."""
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    quality = QualityMetric("exposure")
    quality.update(pictures(4).split((3, 1))[rank])
    results[rank] = quality.compute().item()
    quality.update(pictures(1, seed=1))  # the sums are each process's own again after compute
    results[2 + rank] = int(quality.count)
    dist.barrier()
    dist.destroy_process_group()
