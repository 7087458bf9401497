"""Ranks: the processes started by torchrun; sharding a batch, gathering outputs, summing gradients.

A batch loss such as PLCC is not a mean over pictures, so ordinary data parallelism (the mean of the ranks' gradients)
would optimize something else. Here each rank computes its shard of the batch, ``Ranks.gather`` gives every rank the
outputs of the whole batch, the loss is computed on the whole batch, and the ranks' gradients are summed: any number of
processes takes the same step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor, nn


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
        """Return this rank's shard of a batch.

        Raises:
            ValueError: the batch size is not a multiple of the number of processes.
        """
        if len(items) % self.world:
            raise ValueError(f"a batch of {len(items)} cannot be shared by {self.world} processes; change either")
        return list(items[self.rank :: self.world])

    def gather(self, outputs: Tensor) -> Tensor:
        """Return the outputs (N, ...) of the whole batch in its order, with gradient through this rank's own shard.

        ``torch.distributed.nn.all_gather`` passes gradients to the other ranks too, which would count each of them once
        for every rank; and it knows nothing of the interleaved order of ``share``.
        """
        if self.world == 1:
            return outputs
        parts = [torch.empty_like(outputs) for _ in range(self.world)]
        dist.all_gather(parts, outputs.detach().contiguous())
        parts[self.rank] = outputs
        return rearrange(torch.stack(parts), "rank n ... -> (n rank) ...")

    def sum_gradients(self, module: nn.Module) -> None:
        """Sum the ranks' gradients in one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def average_statistics(self, module: nn.Module) -> None:
        """Average the running statistics of batch norms in training mode over the ranks, in one message.

        Each rank normalizes by the statistics of its own shard: this is the one respect in which training with several
        processes differs from training with one.
        """
        if self.world == 1:
            return
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
        buffers = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
        if not buffers:
            return
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.all_reduce(flat)
        flat /= self.world
        for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))

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
