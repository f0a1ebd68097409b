"""What a run computes, whatever the machine."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode


def flops(run: Callable[[], object]) -> int:
    """Floating-point operations in matrix products."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
