"""Records short runs for the tests of the screen: `python tests/recordings/make.py [NAME ...]`.

Each is a run folder beside this file, `events.jsonl` and `spec.json`, with paths relative to nowhere.
The faults are those of issue reports: what one sees of each on the screen is tested from its recording.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import checkpoints  # noqa: E402 - of the folder above
import tiny  # noqa: E402
from torch import nn  # noqa: E402

from probe_engine import probe  # noqa: E402
from probe_engine.demo import ensure_demo  # noqa: E402
from probe_engine.types import Batch  # noqa: E402

RUN = "probe"
"""The run folder of every recording, relative to a folder that is gone afterwards."""


def healthy() -> None:
    """The demo's first prompts: the step is predicted, taken and measured, and the two agree."""
    demo = ensure_demo()
    shutil.copytree(demo.parent, "demo")
    probe(f"demo/{demo.name}", device="cpu", max_prompts=16, out=RUN)


def frozen_adapter() -> None:
    """`PeftModel.from_pretrained` without `is_trainable=True`."""
    model = adapted()
    optimizer = tiny.optimizer(model)
    model.requires_grad_(False)
    probe(model, optimizer=optimizer, batch=prompts(), device="cpu", out=RUN)


def detached_module() -> None:
    """A layer whose output is cut from the graph."""
    model = adapted()

    def detach(_: nn.Module, __: object, output: object) -> object:
        hidden = output[0] if isinstance(output, tuple) else output
        return hidden.detach()  # type: ignore[attr-defined]

    model.get_base_model().model.layers[0].register_forward_hook(detach)  # type: ignore[operator]
    probe(model, optimizer=tiny.optimizer(model), batch=prompts(), device="cpu", out=RUN)


def no_optimizer() -> None:
    """`save_only_model=True`: there is no optimizer state, and so no learning rate."""
    checkpoint = checkpoints.run(Path())
    (checkpoint / "optimizer.pt").unlink()
    probe(checkpoint, device="cpu", out=RUN)


def lr_zero() -> None:
    """The last checkpoint of a schedule that decays to 0."""
    model = adapted()
    probe(model, optimizer=tiny.optimizer(model, lr=0.0), batch=prompts(), device="cpu", out=RUN)


def stale_rollouts() -> None:
    """Rollouts of a later step than this checkpoint's weights sampled."""
    checkpoint = checkpoints.run(Path())
    table = checkpoints.completions(checkpoint)
    later = [row | {"step": checkpoints.STEP + 9} for row in checkpoints.rows()]
    table.unlink()
    checkpoints.native(table.with_name("later.jsonl"), later)
    probe(checkpoint, rollouts=table.with_name("later.jsonl"), device="cpu", out=RUN)


def tiny_ess() -> None:
    """A step so large that a few responses carry the measurement."""
    model = adapted()
    probe(model, optimizer=tiny.optimizer(model), batch=prompts(), device="cpu", lr=0.3, out=RUN)


def cut_weights() -> None:
    """A download that stopped early: nothing can be read."""
    checkpoint = checkpoints.run(Path())
    weights = checkpoint / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    probe(checkpoint, device="cpu", out=RUN)


def prompts() -> Batch:
    """As many as a standard error needs."""
    return tiny.batch(sizes=(4,) * 8)


def adapted() -> nn.Module:
    """A model with an adapter that looks trained."""
    return tiny.with_lora(tiny.model("llama"))


RECORDINGS: tuple[Callable[[], None], ...] = (
    healthy,
    frozen_adapter,
    detached_module,
    no_optimizer,
    lr_zero,
    stale_rollouts,
    tiny_ess,
    cut_weights,
)


@contextmanager
def _elsewhere() -> Iterator[Path]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder).resolve()
        finally:
            os.chdir(before)


def record(make: Callable[[], None]) -> None:
    """Runs it in a folder of its own and keeps what it wrote, with that folder's name taken out."""
    with _elsewhere() as folder:
        make()
        kept = HERE / make.__name__.replace("_", "-")
        kept.mkdir(exist_ok=True)
        for name in ("events.jsonl", "spec.json"):
            text = (folder / RUN / name).read_text("utf-8")
            (kept / name).write_text(text.replace(f"{folder}/", ""), "utf-8")


if __name__ == "__main__":
    for make in RECORDINGS:
        if not sys.argv[1:] or make.__name__.replace("_", "-") in sys.argv[1:]:
            record(make)
