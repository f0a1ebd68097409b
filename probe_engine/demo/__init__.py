"""The demo: a small real checkpoint with its rollouts, made on first use without any network.

Importing this package loads no torch; building the demo does.
"""

from __future__ import annotations

from probe_engine.demo.cache import ensure_demo

__all__ = ["ensure_demo"]
