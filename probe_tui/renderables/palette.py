"""Style names by meaning. What draws asks for `falls` or `fail`, never for a colour."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Palette:
    """Rich style strings."""

    falls: str
    """Entropy falls: negative, left of zero."""
    rises: str
    zero: str
    """The zero line, and what may lie on either side of it."""
    ok: str
    info: str
    warn: str
    fail: str
    muted: str
    accent: str
    selected: str

    def status(self, status: str) -> str:
        """The style of a finding's status."""
        styles = {
            "ok": self.ok,
            "info": self.info,
            "warn": self.warn,
            "fail": self.fail,
            "crash": self.fail,
        }
        return styles.get(status, self.muted)

    def sign(self, value: float | None) -> str:
        """The style of a change of entropy."""
        if value is None or value == 0 or value != value:
            return self.zero
        return self.falls if value < 0 else self.rises


# Names of the terminal's own colours: they follow its light or dark theme, and textual's.
DEFAULT = Palette(
    falls="cyan",
    rises="yellow",
    zero="dim",
    ok="green",
    info="blue",
    warn="bold yellow",
    fail="bold red",
    muted="dim",
    accent="bold",
    selected="reverse",
)

# Okabe and Ito's colours, which stay apart under every common colour blindness; of their two blues the
# lighter one, which is read on dark.
COLOURBLIND = Palette(
    falls="#56b4e9",
    rises="#e69f00",
    zero="dim",
    ok="#009e73",
    info="#cc79a7",
    warn="bold #e69f00",
    fail="bold #d55e00",
    muted="dim",
    accent="bold",
    selected="reverse",
)

MONO = Palette(
    falls="",
    rises="bold",
    zero="dim",
    ok="",
    info="dim",
    warn="bold",
    fail="bold reverse",
    muted="dim",
    accent="bold",
    selected="reverse",
)
