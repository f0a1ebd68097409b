"""What PEFT's layers say of their adapters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from peft import PeftModel, get_layer_status
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from probe_engine.registry import ParameterRegistry


@dataclass(frozen=True)
class AdapterState:
    """The adapters of a model, over all its adapter layers."""

    layers: tuple[str, ...]
    """Names of the modules that carry an adapter."""
    disabled: tuple[str, ...]
    """Those whose forward passes the adapter by."""
    merged: tuple[str, ...]
    """Those whose adapter is in the base weight."""
    available: frozenset[str]
    """Names of adapters."""
    active: frozenset[str]
    """Names that the layers would use; not all need be available."""
    trainable: frozenset[str]
    """Adapters with a parameter that requires a gradient."""
    strays: tuple[str, ...]
    """Trainable parameters that no adapter's configuration names."""
    fresh: bool
    """Whether every lora_B of the trainable parameters is 0 (False without LoRA)."""
    untied: bool
    """Whether modules_to_save parted the head from the embedding."""

    @classmethod
    def of(cls, model: nn.Module) -> AdapterState | None:
        """Looks without changing anything; None where no module carries an adapter."""
        if isinstance(model, PeftModel) and not isinstance(model.base_model, BaseTuner):
            return None  # prompt tuning and its kin put nothing on layers
        if not any(True for _ in _adapter_layers(model)):
            return None
        layers = get_layer_status(model)
        registry = ParameterRegistry.of(model).trainable
        lora_b = [p for name, p in registry if "lora_B" in name or "lora_embedding_B" in name]
        return cls(
            layers=tuple(layer.name for layer in layers),
            disabled=tuple(layer.name for layer in layers if not layer.enabled),
            merged=tuple(layer.name for layer in layers if layer.merged_adapters),
            available=frozenset(name for layer in layers for name in layer.available_adapters),
            active=frozenset(name for layer in layers for name in layer.active_adapters),
            trainable=frozenset(
                name for layer in layers for name, on in layer.requires_grad.items() if on is not False
            ),
            strays=_strays(model, registry),
            fresh=bool(lora_b) and not any(bool(p.detach().any()) for p in lora_b),
            untied=_untied(model),
        )


def _adapter_layers(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            yield module


def _strays(model: nn.Module, registry: ParameterRegistry) -> tuple[str, ...]:
    named = {
        id(p)
        for layer in _adapter_layers(model)
        for part in cast("tuple[str, ...]", layer.adapter_layer_names)
        for p in _parameters(getattr(layer, part, None))
    }
    configs = getattr(model, "peft_config", {}).values()
    biases = any(getattr(config, "bias", "none") != "none" for config in configs)
    return tuple(
        name for name, p in registry if id(p) not in named and not (biases and name.endswith("bias"))
    )


def _parameters(part: object) -> Iterator[nn.Parameter]:
    if isinstance(part, nn.Parameter):
        yield part
    elif isinstance(part, nn.Module):
        yield from part.parameters()


def _untied(model: nn.Module) -> bool:
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not getattr(getattr(base, "config", None), "tie_word_embeddings", False):
        return False
    ends = [getattr(base, f"get_{which}_embeddings", lambda: None)() for which in ("input", "output")]
    if not any(isinstance(end, AuxiliaryTrainingWrapper) for end in ends):
        return False
    weights = [getattr(end, "weight", None) for end in ends]
    return len({weight.data_ptr() for weight in weights if isinstance(weight, Tensor)}) == 2
