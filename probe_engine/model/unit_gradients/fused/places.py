"""Where the parameters are in a model, and which layers have a rule."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn

from probe_engine.model.unit_gradients.fused.rules import Rule, rule_for
from probe_engine.registry import ParameterRegistry, unwrapped


@dataclass(frozen=True)
class Layer:
    """A layer with a rule."""

    module: nn.Module
    rule: Rule
    names: Mapping[int, str]
    """Of its parameters within it, by `id`."""


@dataclass(frozen=True)
class Places:
    """What is watched in a forward pass."""

    embeddings: nn.Module | None
    """The input embeddings."""
    layers: tuple[Layer, ...]
    blocks: tuple[nn.Module, ...]
    """Modules in the outermost lists: a decoder's layers, each of which is given what the last one gave."""
    around: Mapping[str, nn.Module]
    """Modules that hold a parameter, at any depth, by path; the model itself is the empty path."""
    homes: Mapping[int, str]
    """For each parameter, by `id`, the innermost module that holds all that own it."""

    @classmethod
    def of(cls, model: nn.Module, registry: ParameterRegistry) -> Places:
        """Looks through the module that runs the forward."""
        model = unwrapped(model)
        registered = set(registry.ids)
        modules = dict(model.named_modules())
        layers: list[Layer] = []
        around: dict[str, nn.Module] = {"": model}
        homes: dict[int, str] = {}
        for path, module in modules.items():
            names = {id(p): n for n, p in module.named_parameters(recurse=False) if id(p) in registered}
            if not names:
                continue
            if (rule := rule_for(module)) is not None:
                layers.append(Layer(module, rule, names))
            around |= {outer: modules[outer] for outer in _upwards(path)}
            for key in names:
                homes[key] = _shared(homes[key], path) if key in homes else path
        lists = [path for path, module in modules.items() if isinstance(module, nn.ModuleList)]
        outermost = [path for path in lists if not set(_upwards(path)[1:]) & set(lists)]
        blocks = tuple(block for path in outermost for block in modules[path].children())
        embeddings = getattr(model, "get_input_embeddings", lambda: None)()
        found = embeddings if isinstance(embeddings, nn.Module) else None
        return cls(found, tuple(layers), blocks, around, homes)

    def outside_of_rules(self, known: Collection[int]) -> list[nn.Module]:
        """The modules around parameters, by `id`, that are in no layer with a rule, or are `known` to be used
        outside of it."""
        ruled = {key for layer in self.layers for key in layer.names}
        paths = {
            path
            for key in self.homes
            if key in known or key not in ruled
            for path in _upwards(self.homes[key])
        }
        return [module for path, module in self.around.items() if path in paths]

    def upwards(self, key: int) -> list[nn.Module]:
        """The modules around a parameter, by `id`, innermost first."""
        return [self.around[path] for path in _upwards(self.homes[key])]


def _upwards(path: str) -> list[str]:
    """The path and all above it, down to the empty one."""
    parts = path.split(".") if path else []
    return [".".join(parts[:depth]) for depth in range(len(parts), -1, -1)]


def _shared(one: str, other: str) -> str:
    above = set(_upwards(other))
    return next(path for path in _upwards(one) if path in above)
