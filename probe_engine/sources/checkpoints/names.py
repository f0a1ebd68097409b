"""Names of parameters: without what wrappers add, and as a message shows them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import islice

from torch import Tensor

from probe_engine.errors import ProbeError

_WRAPPERS = re.compile(
    r"^(?:module\.)+|(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.(?:module\.)?"
)


def unwrapped_name(name: str) -> str:
    """The name without the prefixes of DDP, `torch.compile`, FSDP and checkpoint wrappers."""
    return _WRAPPERS.sub("", name)


def unwrapped_names(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """A state dict under unwrapped names.

    Raises:
        ProbeError: two keys become one (CKPT005).
    """
    renamed = {unwrapped_name(name): tensor for name, tensor in state.items()}
    if len(renamed) < len(state):
        raise ProbeError(
            f"{source}: expected one key for each parameter; {len(state)} keys become {len(renamed)} "
            "after the wrappers' prefixes are stripped, so the file holds two models in one",
            code="CKPT005",
        )
    return renamed


def shown(names: Collection[object], limit: int = 3) -> str:
    """`a, b, c and 12 more`, safe to write as UTF-8."""
    first = ", ".join(str(name) for name in islice(names, limit))
    rest = len(names) - limit
    return writable(first + (f" and {rest} more" if rest > 0 else ""))


def listed(names: Iterable[object], limit: int = 20) -> list[str]:
    """The first names, as a finding's evidence holds them."""
    return [writable(str(name)) for name in islice(names, limit)]


def writable(text: str) -> str:
    """The text with what is no Unicode (a lone surrogate of a damaged file) replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")
