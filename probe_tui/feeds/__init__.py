"""Where the screen's events come from: a run of its own, one that somebody else started, a recording."""

from __future__ import annotations

from probe_tui.feeds.attach import AttachFeed
from probe_tui.feeds.feed import Feed, News
from probe_tui.feeds.live import LiveFeed
from probe_tui.feeds.replay import ReplayFeed
from probe_tui.feeds.tail import Tail

__all__ = ["AttachFeed", "Feed", "LiveFeed", "News", "ReplayFeed", "Tail"]
