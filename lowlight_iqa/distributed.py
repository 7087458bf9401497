"""Ranks: the processes started by torchrun; sharding a batch, gathering outputs, summing gradients.

A batch loss such as PLCC is not a mean over pictures. So each rank computes its shard of the batch, ``Ranks.gather``
gives every rank the outputs of the whole batch and so its loss, and the ranks' gradients are summed: any number of
processes takes the same step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's rank and the number of processes; (0, 1) without torchrun."""

    rank: int
    world: int

    joined: ClassVar[bool] = False  # whether ``join`` made the process group; one made by the caller is left alone

    @classmethod
    def join(cls, device: str = "cpu") -> Ranks:
        """Join the process group described in the environment: gloo on CPUs, nccl with one GPU per process."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world > 1 and not dist.is_initialized():
            if device.startswith("cuda"):
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
            Ranks.joined = True
        return cls(int(os.environ.get("RANK", "0")), world)

    def share(self, items: Sequence[Any]) -> list[Any]:
        """Return this rank's shard of a batch, whose size must be a multiple of the number of processes."""
        if len(items) % self.world:
            raise ValueError(f"a batch of {len(items)} cannot be shared by {self.world} processes; change either")
        return list(items[self.rank :: self.world])

    def gather(self, outputs: Tensor) -> Tensor:
        """Return the outputs (N, ...) of the whole batch in its order, with gradient through this rank's own shard.

        ``torch.distributed.nn.all_gather`` would count each gradient once for every rank, and does not know the
        interleaved order of ``share``.
        """
        if self.world == 1:
            return outputs
        parts = [torch.empty_like(outputs) for _ in range(self.world)]
        dist.all_gather(parts, outputs.detach().contiguous())
        parts[self.rank] = outputs
        return rearrange(torch.stack(parts), "rank n ... -> (n rank) ...")

    def sum_gradients(self, module: nn.Module) -> None:
        """Sum the ranks' gradients in one message."""
        self._reduce([p.grad for p in module.parameters() if p.grad is not None], 1)

    def average_statistics(self, module: nn.Module) -> None:
        """Average the running statistics of batch norms in training mode over the ranks, in one message.

        Each rank normalizes by its own shard's statistics, so here alone several processes differ from one.
        """
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
        self._reduce([b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None], self.world)

    def _reduce(self, tensors: list[Tensor], divisor: int) -> None:
        """Replace tensors by their sum over the ranks, divided by ``divisor``."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= divisor
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def make_once(self, path: Path, read: Callable[[], T | None], write: Callable[[], None]) -> T:
        """Return what ``read`` finds in a file; if it finds nothing, rank 0 writes the file before all read again."""
        found = read()
        self.barrier()  # all ranks have read before one writes
        if found is not None:
            return found

        if self.rank == 0:
            write()
        self.barrier()
        found = read()
        if found is None:
            raise ValueError(
                f"{path} changed while it was read; does another run use this folder? give each its own --out"
            )
        return found

    @staticmethod
    def leave() -> None:
        """Leave the group made by ``join``: a process that exits without doing so can crash the others."""
        if Ranks.joined:
            dist.destroy_process_group()
            Ranks.joined = False

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if self.world > 1:
            dist.barrier()
