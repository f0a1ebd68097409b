"""What kind of checkpoint lies at a path?"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from probe_engine.errors import ProbeError
from probe_engine.sources.checkpoints.names import shown

ADAPTER_CONFIG = "adapter_config.json"
MODEL_CONFIG = "config.json"
TRL_REFERENCE_ADAPTER = "ref"

_NUMBERED = re.compile(r"checkpoint-(\d{1,15})")
_FOREIGN = (
    ("DeepSpeed ZeRO", ("zero_pp_rank_*", "global_step[0-9]*", "*/zero_pp_rank_*")),
    ("FSDP (accelerate)", ("pytorch_model_fsdp*", "optimizer_[0-9]*")),
    ("verl", ("model_world_size_*_rank_*.pt", "actor/model_world_size_*_rank_*.pt")),
    ("verl", ("*/actor/model_world_size_*_rank_*.pt",)),
    ("OpenRLHF", ("_actor", "_actor_*")),
    ("prime-rl", ("trainer/.metadata", "trainer/__*_*.distcp", "*/trainer/.metadata")),
    ("torch.distributed.checkpoint", (".metadata", "__*_*.distcp")),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a checkpoint lie."""

    kind: Literal["full", "peft", "file"]
    root: Path
    """The folder that holds trainer_state.json, optimizer.pt and training_args.bin, or the file."""
    weights: Path
    """The folder that holds the weights, or the `torch.save` file."""
    adapter_name: str = "default"

    @property
    def name(self) -> str:
        """The checkpoint's own name, `checkpoint-200`."""
        return self.root.stem if self.kind == "file" else self.root.resolve().name

    @property
    def format(self) -> str:
        """The report's name of the layout."""
        if self.kind == "file":
            return "torch.save"
        trained = any(os.path.isfile(self.root / name) for name in ("trainer_state.json", "optimizer.pt"))
        return "hf-trainer" if trained else "save_pretrained"


def find_layout(path: Path) -> Layout:
    """Recognises the checkpoint at a path by the names in it; opens no file.

    Raises:
        ProbeError: nothing that can be read (CKPT001), with what was looked for and what was found.
    """
    if os.path.isfile(path):
        if path.suffix in (".safetensors", ".json"):
            raise _unknown(path, "a single file of a checkpoint folder", "Point at the folder itself.")
        return Layout("file", path, path)
    if not os.path.isdir(path):
        raise _unknown(path, "no such file or folder", "Check the path.")
    if os.path.isfile(path / ADAPTER_CONFIG):
        return Layout("peft", path, path)
    if os.path.isfile(path / MODEL_CONFIG):
        return Layout("full", path, path)
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise _unknown(path, f"a folder that can't be listed ({error.strerror})") from error
    checkpoints = sorted((name for name in names if _NUMBERED.fullmatch(name)), key=lambda n: int(n[11:]))
    if checkpoints:
        raise _unknown(
            path,
            f"a folder of checkpoints: {shown(checkpoints)}",
            "Point at one of them.",
            f"probe-tui {shlex.quote(str(path / checkpoints[-1]))}",
        )
    adapters = [name for name in names if os.path.isfile(path / name / ADAPTER_CONFIG)]
    policies = [name for name in adapters if name != TRL_REFERENCE_ADAPTER]
    if len(policies) == 1:
        return Layout("peft", path, path / policies[0], policies[0])
    if policies:
        raise _unknown(path, f"adapters {shown(policies)}", "Point at the one that was trained.")
    foreign = foreign_layout(path)
    if foreign:
        raise _unknown(
            path,
            f"a {foreign} layout, which is recognised but not read",
            f"Consolidate the {foreign} states into a Hugging Face folder first.",
        )
    raise _unknown(path, shown(names, 8) or "an empty folder")


def earlier_checkpoint(layout: Layout) -> Path | None:
    """The checkpoint before this one in the same run, where it stands beside it."""
    here = _NUMBERED.fullmatch(layout.root.name)
    if here is None:
        return None
    beside = [
        (found, path)
        for path in layout.root.parent.glob("checkpoint-*")
        if (found := _NUMBERED.fullmatch(path.name))
    ]
    before = [(int(found[1]), path) for found, path in beside if int(found[1]) < int(here[1])]
    return max(before)[1] if before else None


def foreign_layout(folder: Path) -> str:
    """The name of the framework whose sharded states lie in a folder, empty for none."""
    for framework, patterns in _FOREIGN:
        if any(next(folder.glob(pattern), None) is not None for pattern in patterns):
            return framework
    return ""


def _unknown(path: Path, found: str, remedy: str = "", *commands: str) -> ProbeError:
    return ProbeError(
        f"{path}: expected a folder with {MODEL_CONFIG} and weights, a folder with {ADAPTER_CONFIG} and "
        f"adapter weights, or a torch.save file; found {found}",
        remedy,
        code="CKPT001",
        commands=commands,
    )
