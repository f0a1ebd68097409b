"""How many bytes of tensors are alive: every storage counts from the operation that makes it to its end.

No clock and no allocator has a part in it, so the peak of a run is the same every time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Counts what is made inside; what was there before does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs the operation; a storage of its results that is not one of its arguments' is a new one."""
        kwargs = kwargs or {}
        given = {_key(t) for t in _tensors((*args, *kwargs.values()))}
        made = func(*args, **kwargs)
        for tensor in _tensors((made,)):
            if _key(tensor) not in given:
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._counted:
            return
        self._counted.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._end, key, size)

    def _end(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    """An operation takes and gives tensors and lists of them; a walk of whole trees takes thrice the time."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
