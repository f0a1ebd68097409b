"""Pictures for the README, from a real run on the demo checkpoint."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
WIDTH = 132


def main() -> None:
    """Writes `plain.svg`: what `probe-tui --demo` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "probe_tui", "--demo", "--plain"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for line in done.stdout.splitlines():
        console.print(Text(line, style="bold" if line.startswith(("▶", "  VERDICT")) else ""))
    console.save_svg(str(HERE / "plain.svg"), title="probe-tui --demo", unique_id="plain")


if __name__ == "__main__":
    main()
