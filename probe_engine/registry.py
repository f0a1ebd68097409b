"""ParameterRegistry: the one enumeration of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from probe_engine.report import IdMatch


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel, `torch.compile` and DeepSpeed's engine.

    What shards parameters in its own forward (FSDP1) stays: the module inside can't run without it.
    """
    while True:
        inner = getattr(model, "_orig_mod", None)
        engine = any(base.__name__ == "DeepSpeedEngine" for base in type(model).__mro__)
        if engine or isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@dataclass(frozen=True)
class ParameterRegistry:
    """Ordered (name, parameter) of a model, tied weights once.

    Built once, from the module that runs the forward, right after wrapping.
    Buffers, gradients, preconditioner, contractions and dot products iterate it.
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]

    @classmethod
    def of(cls, model: nn.Module) -> ParameterRegistry:
        """Every parameter of `model`; `named_parameters` lists a tied weight once."""
        named = list(unwrapped(model).named_parameters())
        return cls(tuple(n for n, _ in named), tuple(p for _, p in named))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(zip(self.names, self.parameters, strict=True))

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """`id(p)` in registry order."""
        return tuple(id(p) for p in self.parameters)

    @cached_property
    def trainable(self) -> ParameterRegistry:
        """Those that require a gradient."""
        return self._where([p.requires_grad for p in self.parameters])

    @cached_property
    def lora(self) -> ParameterRegistry:
        """lora_A, lora_B and a trainable lm_head."""
        return self._where(
            [
                "lora_A" in name or "lora_B" in name or ("lm_head" in name and p.requires_grad)
                for name, p in self
            ]
        )

    @property
    def numel(self) -> int:
        """P, the number of scalars."""
        return sum(p.numel() for p in self.parameters)

    def name_of(self, parameter: nn.Parameter) -> str | None:
        """The name of this very object, None for a stranger."""
        index = self._index.get(id(parameter))
        return None if index is None else self.names[index]

    def verify(self, model: nn.Module) -> IdMatch:
        """Does the live module still hold these objects?"""
        mine = set(self.ids)
        live = {id(p) for p in unwrapped(model).parameters() if p.requires_grad}
        return IdMatch.count(mine, live)

    @cached_property
    def _index(self) -> dict[int, int]:
        return {key: index for index, key in enumerate(self.ids)}

    def _where(self, mask: Sequence[bool]) -> ParameterRegistry:
        kept = [pair for pair, keep in zip(self, mask, strict=True) if keep]
        return ParameterRegistry(tuple(n for n, _ in kept), tuple(p for _, p in kept))
