"""PEFT adapters: their base, and the trainable model of both."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PeftConfig, VeraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn

from probe_engine.errors import ProbeError
from probe_engine.sources.checkpoints.json_file import read_object
from probe_engine.sources.checkpoints.layout import ADAPTER_CONFIG, MODEL_CONFIG, Layout
from probe_engine.sources.checkpoints.library import library_call
from probe_engine.sources.checkpoints.names import shown, writable

READ: dict[str, type[PeftConfig]] = {"LORA": LoraConfig, "IA3": IA3Config, "VERA": VeraConfig}
"""peft_type to configuration, of the adapters that are read: those that stand on a model's own layers."""


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a folder.

    Raises:
        ProbeError: it is no JSON object, or of an adapter that is not read (CKPT001).
    """
    try:
        config = read_object(folder / ADAPTER_CONFIG)
    except ValueError as error:
        raise ProbeError(f"{error}: the adapter's configuration can't be read", code="CKPT001") from error
    if str(config.get("peft_type")) not in READ:
        raise _not_read(folder, f"found peft_type {config.get('peft_type')!r}")
    if config.get("megatron_config"):
        raise _not_read(folder, "found Megatron layers, whose module it wants imported")
    return config


def find_base(config: dict[str, Any], layout: Layout, option: str | None) -> Path:
    """The folder of the adapter's base model.

    Args:
        config: adapter_config.json's contents.
        layout: where the adapter lies; a relative base is looked for from the working directory,
            the checkpoint and its parents.
        option: `--base`, which overrides the configuration.

    Raises:
        ProbeError: no such folder (CKPT003).
    """
    name = option if option is not None else config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ProbeError(
            f"{layout.weights / ADAPTER_CONFIG}: expected the name of the base model, found {name!r}",
            code="CKPT003",
        )
    places = [Path.cwd()]
    if option is None:
        checkpoint = layout.weights.resolve()
        places += [checkpoint, *checkpoint.parents]
    for place in places:
        if os.path.isfile(place / name / MODEL_CONFIG):
            return place / name
    models = _models_near(layout)
    raise ProbeError(
        f"expected the adapter's base model {name!r} as a folder with {MODEL_CONFIG}, found none "
        f"{'there' if option is not None else 'from here, beside the checkpoint or above it'}; model hubs "
        "are never asked" + (f"; there is a model in {shown([str(m) for m in models])}" if models else ""),
        code="CKPT003",
        commands=tuple(f"probe-tui CHECKPOINT --base {shlex.quote(str(model))}" for model in models[:3]),
    )


def _models_near(layout: Layout) -> list[Path]:
    """Folders with a model in them, here and up to three levels above the checkpoint."""
    places = dict.fromkeys((Path.cwd(), *layout.weights.resolve().parents[:3]))
    configs = (found for place in places for found in sorted(place.glob(f"*/{MODEL_CONFIG}")))
    return list(dict.fromkeys(config.parent for config in configs))


def attach_adapter(
    base: nn.Module,
    base_name: str,
    config: dict[str, Any],
    state: dict[str, Tensor],
    layout: Layout,
) -> Any:
    """The base with the adapter on it, the adapter trainable, in eval mode.

    Args:
        base: the base model; it is changed.
        base_name: what to call it in messages.
        config: adapter_config.json's contents.
        state: the adapter's state dict as PEFT saves it, without the adapter's name in the keys.
        layout: the adapter's name and place.

    Raises:
        ProbeError: keys or shapes do not fit this base (CKPT004).
    """

    def misfit(what: str) -> ProbeError:
        wanted = config.get("base_model_name_or_path")
        return ProbeError(
            f"{layout.weights}: expected an adapter for {base_name}, {what}: its own configuration names "
            f"the base {wanted!r}",
            code="CKPT004",
        )

    with library_call(lambda words: misfit(f"putting it on failed ({words})")):
        adapter: Any = READ[config["peft_type"]].from_pretrained(str(layout.weights))
        # Saved configurations always say inference_mode, which would freeze the adapter.
        adapter.inference_mode = False
        # A damaged rank would take all memory before the weights show that it is wrong.
        rank = max([getattr(adapter, "r", 0), *getattr(adapter, "rank_pattern", {}).values()])
        if rank > max(size for tensor in state.values() for size in tensor.shape):
            raise misfit(f"found rank {rank}, more than any of its tensors has")
        with torch.random.fork_rng(devices=[]):
            model = get_peft_model(
                base, adapter, adapter_name=layout.adapter_name, autocast_adapter_dtype=False
            )
        result = set_peft_model_state_dict(model, state, adapter_name=layout.adapter_name)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    missing = sorted(trainable.intersection(result.missing_keys))
    if missing or result.unexpected_keys:
        raise misfit(
            f"found {len(missing)} of its keys missing ({shown(missing)}) and "
            f"{len(result.unexpected_keys)} without a place ({shown(result.unexpected_keys)})"
        )
    return model.eval()


def _not_read(folder: Path, found: str) -> ProbeError:
    return ProbeError(
        writable(
            f"{folder / ADAPTER_CONFIG}: expected a LoRA adapter (DoRA and modules_to_save included), IA3 or "
            f"VeRA, {found}"
        ),
        code="CKPT001",
    )
