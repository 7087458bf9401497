"""Ranks: the processes that torchrun started; sharing a batch, gathering outputs, summing gradients.

A batch loss such as PLCC is no mean over pictures, so data parallelism as usual (mean of the ranks' gradients) would
train something else. Here each rank computes its share of the pictures, ``Ranks.gather`` makes the whole batch's
outputs known to all, the loss is that of the whole batch, and the ranks' gradients are summed: any number of
processes takes the same step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among those that torchrun started; (0, 1) where it did not."""

    rank: int
    world: int

    joined: ClassVar[bool] = False  # by ``join``; a group that the caller made is the caller's to leave

    @classmethod
    def join(cls, device: str = "cpu") -> Ranks:
        """Join the group that torchrun announces in the environment: gloo for the CPU, nccl for a GPU per process."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world > 1 and not dist.is_initialized():
            if device.startswith("cuda"):
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
            Ranks.joined = True
        return cls(int(os.environ.get("RANK", "0")), world)

    def share(self, items: Sequence[Any]) -> list[Any]:
        """This rank's items of a batch.

        Raises:
            ValueError: the batch cannot be shared out evenly.
        """
        if len(items) % self.world:
            raise ValueError(f"a batch of {len(items)} cannot be shared by {self.world} processes; change either")
        return list(items[self.rank :: self.world])

    def gather(self, outputs: Tensor) -> Tensor:
        """The whole batch's outputs (N, ...), in its order, from each rank's share; gradient through the own share."""
        if self.world == 1:
            return outputs
        parts = [torch.empty_like(outputs) for _ in range(self.world)]
        dist.all_gather(parts, outputs.detach().contiguous())
        parts[self.rank] = outputs
        return torch.stack(parts, 1).flatten(0, 1)

    def sum_gradients(self, module: nn.Module) -> None:
        """Add up the ranks' gradients, in one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def average_statistics(self, module: nn.Module) -> None:
        """Average the statistics of batch norms in training mode, which each rank has of its own share, in one message.

        What such a norm does to a picture still depends on its share: only there is training by several processes not
        the same as by one.
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
        """Leave the group that ``join`` has joined: a process that ends without may pull others down."""
        if Ranks.joined:
            dist.destroy_process_group()
            Ranks.joined = False

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            dist.barrier()
