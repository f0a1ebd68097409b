"""A causal language model from a configuration and a state dict."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, GenerationConfig, PretrainedConfig

from probe_engine.errors import ProbeError
from probe_engine.sources.checkpoints.json_file import read_object
from probe_engine.sources.checkpoints.layout import MODEL_CONFIG
from probe_engine.sources.checkpoints.library import library_call
from probe_engine.sources.checkpoints.names import listed, shown

_NAMES_CODE = ("auto_map", "custom_pipelines")
_SLACK = 2**28
"""Numbers that a model may hold beyond four times its files' (tied copies, tables that are computed).

A damaged size in the configuration would else take all memory before the weights show that it is wrong.
"""
_NAMES_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model and what of its state dict found no place in it."""

    model: Any
    """A transformers model, in eval mode, every floating-point parameter trainable."""
    unexpected: tuple[str, ...]


def read_model_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder.

    Raises:
        ProbeError: it is no JSON object (CKPT001).
    """
    try:
        return read_object(folder / MODEL_CONFIG)
    except ValueError as error:
        raise ProbeError(f"{error}: the model's configuration can't be read", code="CKPT001") from error


def causal_lm_config(config: Mapping[str, Any], source: str) -> PretrainedConfig:
    """The configuration of a causal language model that transformers has; builds nothing.

    Args:
        config: config.json's contents.
        source: what to call the checkpoint in messages.

    Raises:
        ProbeError: it describes something else (CKPT001).
    """
    # Attention stays at the library's default (SDPA where there is one): a checkpoint must not
    # choose kernels, which may be downloaded code.
    plain = {key: value for key, value in config.items() if key not in (*_NAMES_CODE, *_NAMES_KERNELS)}
    model_type = plain.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise _not_a_model(source, f"found model_type {model_type!r}")
    if plain.get("quantization_config") is not None:
        raise _not_a_model(source, "found quantised weights, which have no gradient")
    with library_call(lambda words: _not_a_model(source, f"building it failed ({words})")):
        parsed = CONFIG_MAPPING[model_type].from_dict(plain)
        if type(parsed) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise _not_a_model(source, f"found model_type {model_type!r}, which is none")
    return parsed


def build_causal_lm(
    parsed: PretrainedConfig,
    state: dict[str, Tensor],
    dtype: torch.dtype,
    source: str,
) -> LoadedModel:
    """Builds the model and fills it; no code beside the checkpoint is run, no network is used.

    Args:
        parsed: of `causal_lm_config`.
        state: the state dict, unwrapped names to CPU tensors; tied copies may be absent.
        dtype: of every parameter.
        source: what to call the checkpoint in messages.

    Raises:
        ProbeError: the configuration can't be built or describes a far larger model (CKPT001), or the
            state dict lacks parameters or holds other shapes (CKPT005).
    """
    with library_call(lambda words: _not_a_model(source, f"building it failed ({words})")):
        layers = getattr(parsed, "num_hidden_layers", 0)
        if layers > len(state):  # building more than the files could fill may take forever
            raise _not_a_model(source, f"found {layers} layers for {len(state)} tensors")
        described, held = _described(parsed), sum(tensor.numel() for tensor in state.values())
        if described > 4 * held + _SLACK:
            raise _not_a_model(source, f"found one of {described:,} numbers, the files hold {held:,}")
        with torch.random.fork_rng(devices=[]):
            model, keys = MODEL_FOR_CAUSAL_LM_MAPPING[type(parsed)].from_pretrained(
                None,
                config=parsed,
                state_dict=state,
                dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                # Reported below, with all names, instead of raised at the first.
                ignore_mismatched_sizes=True,
            )
    _require_all_keys(source, keys)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return LoadedModel(model.eval(), tuple(sorted(keys["unexpected_keys"])))


def read_generation_config(model: Any, folder: Path) -> None:
    """Gives the model the folder's generation_config.json, which names every token that ends a response.

    Raises:
        ProbeError: the file is there and can't be read (CKPT001).
    """
    path = folder / "generation_config.json"
    if not os.path.isfile(path):
        return
    with library_call(
        lambda words: ProbeError(f"{path}: no generation configuration ({words})", code="CKPT001")
    ):
        model.generation_config = GenerationConfig.from_dict(read_object(path))


def embedding_rows(model: nn.Module) -> int:
    """How many tokens the input embedding knows."""
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]  # of every transformers model
    return int(embedding.weight.shape[0])


def _described(config: PretrainedConfig) -> int:
    """How many numbers the model of a configuration holds; nothing is allocated."""
    with torch.device("meta"):
        model: nn.Module = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    return sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))


def _require_all_keys(source: str, keys: Mapping[str, Any]) -> None:
    missing = sorted(keys["missing_keys"])
    mismatched = [
        f"{name} {list(found)} for {list(wanted)}" for name, found, wanted in keys["mismatched_keys"]
    ]
    unexpected = sorted(keys["unexpected_keys"])
    if missing or mismatched:
        parts = [
            *([f"{len(missing)} missing ({shown(missing)})"] if missing else []),
            *([f"{len(mismatched)} of another shape ({shown(mismatched)})"] if mismatched else []),
            *([f"{len(unexpected)} unexpected ({shown(unexpected)})"] if unexpected else []),
        ]
        raise ProbeError(
            f"{source}: expected the keys of the model that its configuration describes, found "
            f"{', '.join(parts)}: such weights would be random, and every number about another model",
            code="CKPT005",
            evidence={
                "missing": listed(missing),
                "mismatched": listed(mismatched),
                "unexpected": listed(unexpected),
            },
        )


def _not_a_model(source: str, found: str) -> ProbeError:
    return ProbeError(
        f"{source}: expected the configuration of a causal language model that transformers has, {found}",
        "Check config.json; models that bring their own code are not read.",
        code="CKPT001",
    )
