"""RUN: did the engine itself come through?"""

from __future__ import annotations

from probe_engine.catalogue.entry import Entry

ENTRIES = (
    Entry(
        "RUN001",
        "engine",
        "the engine died",
        "The run stopped by an error that no check foresaw, or memory ran out. What was found before "
        "stays in the report.",
        "Out of memory: fewer sequences a pass, shorter batches. Otherwise send the log's end with an issue.",
        ("probe-tui CHECKPOINT --micro-batch 1 --max-prompts 16",),
        origin="Memory ran out, a signal, or an error that no check foresaw.",
        by_hand="The end of engine.log in the run folder; dmesg for the kernel's out-of-memory killer.",
    ),
    Entry(
        "RUN002",
        "engine's signs of life",
        "the engine is silent",
        "An engine that is watched gives a sign of life every 2 seconds, also in the middle of a long "
        "forward pass. It has given none for longer than the limit: it hangs, its machine is overloaded or "
        "asleep, or a library holds the interpreter. What it found before stays.",
        "Look at the end of the log, and at the process with `top`; stop the run if it hangs.",
        origin="It hangs, its machine is overloaded or asleep, or a library holds the interpreter.",
        by_hand="top, or py-spy on the process.",
    ),
    Entry(
        "RUN003",
        "run folder",
        "the run folder can't be written",
        "The run's options, its events and its report go to a folder. It is not writable, holds another run "
        "already, or the disk is full. As a warning: something else changed the log while it was read.",
        "Give a folder with room.",
        ("probe-tui CHECKPOINT --out /tmp/run",),
        origin="The folder is not writable, holds another run already, or the disk is full.",
        by_hand="df -h and ls -ld on the folder.",
    ),
)
