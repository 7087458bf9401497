"""Frozen: a module that only its owner can change, whatever is done to the modules around it."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

F = TypeVar("F", bound="Frozen")


class Frozen(nn.Module):
    """A module in evaluation mode whose tensors no parent, optimizer or checkpoint changes.

    ======================================== ====================================================================
    what is done                             what happens
    ======================================== ====================================================================
    a parent's ``.to(device)``               it moves
    a parent's ``.half()``, ``.bfloat16()``  nothing; it computes in float32, or float64 after ``.double()``
    its own ``.double()`` and ``.float()``   it computes in float64 or float32 from then on
    ``.train()``, ``.apply(init)``           nothing
    a parent's ``.parameters()``             does not list its own, so no optimizer reaches them
    a parent's ``.state_dict()``             omits it: its weights have a file and a hash of their own
    a parent's ``.load_state_dict(...)``     does not change it, even with ``strict=True``
    its own, or ``.requires_grad_(True)``    refused, with the remedy
    copy, pickle, ``torch.save``, spawn      an equal module, also in a process that has not imported timm
    ======================================== ====================================================================
    """

    def train(self: F, mode: bool = True) -> F:
        """Stay in evaluation mode: a loss must not change because its parent trains."""
        return super().train(False)

    def apply(self: F, fn: Callable[[nn.Module], None]) -> F:
        """Do nothing: a function that initializes a parent's weights must not initialize these."""
        return self

    def requires_grad_(self: F, requires_grad: bool = True) -> F:
        """Stay frozen: true is a ValueError."""
        if requires_grad:
            raise ValueError(
                f"{type(self).__name__} stays frozen; train with `lowlight-iqa train`, or train its .network alone"
            )
        return super().requires_grad_(False)

    def to(self: F, *args: Any, **kwargs: Any) -> F:
        """Move to a device; convert to float64 or float32, and ignore narrower dtypes."""
        dtype = torch._C._nn._parse_to(*args, **kwargs)[1]
        super().to(*args, **kwargs)
        return self._cast(dtype) if dtype in (torch.float32, torch.float64) else self

    def double(self: F) -> F:
        """Compute in float64 from now on; a parent's ``.double()`` does not do so."""
        return self._cast(torch.float64)

    def float(self: F) -> F:
        """Compute in float32 from now on."""
        return self._cast(torch.float32)

    def _cast(self: F, dtype: torch.dtype) -> F:
        return self._replace(lambda t: t.to(dtype) if t.is_floating_point() else t)

    def _apply(self: F, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> F:
        """Apply the device of a conversion and ignore its dtype."""
        return self._replace(lambda t: t.to(fn(t).device))

    def _replace(self: F, fn: Callable[[Tensor], Tensor]) -> F:
        with torch.inference_mode(False):  # gradients could not pass later through tensors made in inference mode
            super()._apply(fn)  # type: ignore[no-untyped-call]
        return self

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield itself and its contents; only itself to a parent, which passes its ``memo``."""
        if memo is None:
            yield from super().named_modules(None, prefix, remove_duplicate)
        elif self not in memo or not remove_duplicate:
            memo.add(self)
            yield prefix, self

    def weight_module(self) -> nn.Module:
        """Return the module whose state dict a weights file holds: itself, or its network alone."""
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the tensors that ``save_pretrained`` writes; none to a parent, which passes a destination."""
        destination: dict[str, Any] | None = args[0] if args else kwargs.get("destination")
        if destination is not None:
            return destination

        module = self.weight_module()
        tensors: dict[str, Any] = super().state_dict(**kwargs) if module is self else module.state_dict(**kwargs)
        return tensors

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: weights are loaded by name and checked by hash."""
        raise ValueError(
            f"{type(self).__name__} keeps the weights that it was made with; use create_metric(name, weights=DIR)"
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Load its own tensors where a parent loads: nothing changes, and no key is missing or unexpected."""
        if prefix:
            for key in [key for key in state_dict if key.startswith(prefix)]:
                del state_dict[key]
            nn.Module.state_dict(self, destination=state_dict, prefix=prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle so that unpickling imports timm by ``backbones.import_timm`` if the module contains its classes."""
        state = super().__reduce_ex__(2)[2]
        foreign = any(type(module).__module__.startswith(("timm", "torchvision")) for module in self.modules())
        return _blank, (type(self), foreign), state


def _blank(cls: type[F], foreign: bool) -> F:
    """Return an object without state, after importing the packages that the state needs."""
    if foreign:
        from .backbones import import_timm

        import_timm()
    return cls.__new__(cls)
