"""A plain `torch.save` file: `{model, optimizer, param_names, config, …}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from probe_engine.errors import ProbeError
from probe_engine.sources.checkpoints.names import shown
from probe_engine.sources.checkpoints.torch_file import is_plain, read_torch, state_dict_of

_MODEL = ("model", "model_state_dict", "state_dict")
_OPTIMIZER = ("optimizer", "optimizer_state_dict")
_NAMES = ("param_names", "names")
_CONFIG = ("config", "model_config")
_STEP = ("step", "global_step")


@dataclass(frozen=True)
class SavedRun:
    """What a training script saved in one file."""

    model: dict[str, Tensor]
    optimizer: Any
    """An optimizer's `state_dict()`, None where there is none."""
    names: tuple[str, ...] | None
    """The parameters' names in the optimizer's order."""
    config: dict[str, Any] | None
    """The model's configuration as config.json holds it."""
    step: int | None


def read_saved_run(path: Path, *, trust: bool = False) -> SavedRun:
    """Reads the file; a bare state dict will do.

    Raises:
        ProbeError: damaged (CKPT002), a pickle (CKPT007), or without a state dict (CKPT001).
    """
    saved = read_torch(path, trust=trust)
    if not isinstance(saved, Mapping) or not saved:
        raise _no_state_dict(path, type(saved).__name__)
    if all(is_plain(value) for value in saved.values()):
        return SavedRun(state_dict_of(saved, str(path)), None, None, None, None)
    model = _under(saved, _MODEL)
    if model is None:
        raise _no_state_dict(path, f"keys {shown(list(saved), 8)}")
    names, config, step = (_under(saved, keys) for keys in (_NAMES, _CONFIG, _STEP))
    return SavedRun(
        model=state_dict_of(model, f"{path}, under its model key"),
        optimizer=_under(saved, _OPTIMIZER),
        names=tuple(map(str, names)) if isinstance(names, list | tuple) else None,
        config=dict(config) if isinstance(config, Mapping) else None,
        step=step if isinstance(step, int) and 0 <= step < 2**63 else None,
    )


def _under(saved: Mapping[Any, Any], keys: tuple[str, ...]) -> Any:
    return next((saved[key] for key in keys if key in saved), None)


def _no_state_dict(path: Path, found: str) -> ProbeError:
    return ProbeError(
        f"{path}: expected a state dict, alone or under one of {', '.join(_MODEL)}; found {found}",
        "Save {'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'param_names': [...], "
        "'config': model.config.to_dict()}.",
        code="CKPT001",
    )
