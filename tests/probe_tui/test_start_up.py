"""The screen starts light: what it loads is decided here, how long that takes by benchmarks/screen.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import recorded
import unit_states

from probe_engine.events import FindingEvent, StageFinished, StageStarted
from probe_engine.report import finding

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

HEAVY = {
    "arviz_stats",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "safetensors",
    "scipy",
    "torch",
    "transformers",
}
"""What the engine computes with. Any of these takes longer to load than the screen may take to appear."""

ENGINE = {"assembly", "catalogue", "control", "errors", "events", "liveness", "report", "spec"}
"""The rooms of the engine that the screen may enter."""

LOADED = "print(json.dumps(sorted(sys.modules)))"

SHOWN = """
import asyncio, json, os, sys
from pathlib import Path
from probe_tui.app import ProbeApp
from probe_tui.session import ReplaySession

async def look_around(run):
    session = ReplaySession(run)
    session.player.to_end()
    app = ProbeApp(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        assert app.state.report.findings and app.state.report.influence is not None
        for key in "1 e escape 2 enter escape 3 4 5 6 question_mark escape o enter".split():
            await pilot.press(key)
            await pilot.pause()

os.chdir(sys.argv[1])
asyncio.run(look_around(Path(sys.argv[1])))
"""


FAULTS_OF_A_TENSOR = """
import resource, sys
from contextlib import suppress
from probe_tui.cli import main

sys.argv = ["probe-tui", "--version"]
with suppress(SystemExit):
    main()
import torch

before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.zeros(2**26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@dataclass(frozen=True)
class Modules:
    """What a process had loaded at its end."""

    names: set[str]

    @property
    def packages(self) -> set[str]:
        return {name.partition(".")[0] for name in self.names}

    @property
    def rooms(self) -> set[str]:
        """Of the engine."""
        return {name.split(".")[1] for name in self.names if name.startswith("probe_engine.")}


def loaded_by(program: str, *arguments: str) -> Modules:
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{program}\n{LOADED}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Modules(set(json.loads(done.stdout.splitlines()[-1])))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A recording with something for every tab."""
    rows = unit_states.units(6)
    said = recorded.events(
        recorded.hello(),
        StageStarted(stage="measure"),
        FindingEvent(finding=finding("GRAD001", "ok", "gradients are on")),
        *unit_states.so_far(rows),
        StageFinished(stage="measure", seconds=1.0),
        *unit_states.finally_(rows),
        unit_states.influence(rows),
        recorded.finished(),
    )
    folder = tmp_path / "run"
    recorded.write(folder, said)
    return folder


def test_the_app_loads_nothing_that_the_engine_computes_with() -> None:
    modules = loaded_by("import probe_tui.app, probe_tui.session")
    assert "textual" in modules.packages
    assert not HEAVY & modules.packages
    assert modules.rooms == ENGINE


def test_pages_that_few_look_at_are_not_loaded_at_the_start() -> None:
    modules = loaded_by("import probe_tui.app, probe_tui.session")
    assert not {"jinja2", "markdown_it"} & modules.packages


def test_looking_at_everything_loads_nothing_either(run: Path) -> None:
    modules = loaded_by(SHOWN, str(run))
    assert (run / "run-export" / "report.html").exists()
    assert not HEAVY & modules.packages
    assert modules.rooms == ENGINE


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[madvise]" not in HUGE_PAGES.read_text(),
    reason="the system gives no huge pages, or gives them to all",
)
@pytest.mark.parametrize(("asked", "fewer"), [(None, True), ("0", False)])
def test_large_tensors_lie_in_huge_pages_unless_the_environment_says_otherwise(
    asked: str | None, fewer: bool
) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    if asked is not None:
        environ["THP_MEM_ALLOC_ENABLE"] = asked
    command = [sys.executable, "-c", FAULTS_OF_A_TENSOR]
    printed = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    pages_of_4_kib = 4 * 2**26 // 4096
    assert (int(printed.split()[-1]) < pages_of_4_kib / 2) == fewer
