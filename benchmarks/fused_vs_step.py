"""What `--method fused` costs beside one training step on the same sequences.

The step is forward and backward of the policy-gradient loss in the same micro-batches, without the
optimizer's update. `measure` is X, Y, s, r and t of all units; `whole` is the probe from the gradient-flow
check to the verdict. Times are medians of rounds in alternation; memory is the peak above the loaded model,
of a process of its own.

python benchmarks/fused_vs_step.py [--model smollm2|tiny] [--full] [--sequences 16] [--tokens 96] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import platformdirs
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

from probe_engine import probe
from probe_engine.model.teacher_forcing import (
    Layout,
    response_log_probs,
    response_logits,
    sequence_log_probs,
)
from probe_engine.model.unit_gradients import Fused, objectives
from probe_engine.registry import ParameterRegistry
from probe_engine.types import Batch, Group, Response, Unit

GENERATIONS = 4
PROMPT_SHARE = 1 / 3
"""Of a sequence's tokens."""


def main() -> None:
    """Prints one table, or its figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("smollm2", "tiny"), default="smollm2")
    parser.add_argument(
        "--full", action="store_true", help="full finetuning; else LoRA r=16 on all linear layers"
    )
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=96, help="of a sequence")
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    default = Path(platformdirs.user_cache_dir("probe-tui")) / "bench-smollm2"
    parser.add_argument("--cache", type=Path, default=default)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak-of", choices=("step", "whole"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    case = Case(options)
    if options.peak_of:
        print(case.peak(case.step if options.peak_of == "step" else case.whole))
        return
    figures = compare(case, options)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:<24} {value:.3f}" if isinstance(value, float) else f"{name:<24} {value}")


class Case:
    """A model, its optimizer after one step, and a batch."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.micro_batch, self.device = options.micro_batch, options.device
        self.model = (
            adapted(load(options), options.full).to(options.device, getattr(torch, options.dtype)).eval()
        )
        self.batch = random_batch(self.model.config.vocab_size, options.sequences, options.tokens)
        self.units = objectives(self.batch)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5)
        self.step()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Forward and backward of the loss −(1/B) Σ Y's objective, the gradients in `.grad`."""
        self.optimizer.zero_grad()
        pairs = [
            (sequence, weight / len(self.units))
            for unit in self.units
            for sequence, weight in zip(
                unit.sequences, unit.weights(torch.zeros(len(unit.sequences)))[1], strict=True
            )
        ]
        for start in range(0, len(pairs), self.micro_batch):
            chunk = pairs[start : start + self.micro_batch]
            layout = Layout.of([s for s, _ in chunk], device=torch.device(self.device))
            S = sequence_log_probs(response_log_probs(response_logits(self.model, layout), layout))
            weights = torch.stack([w for _, w in chunk]).to(S.device)
            (-(weights * S).sum()).backward()
        self._wait()

    def whole(self) -> dict[str, float]:
        """Seconds of the probe, by stage."""
        report = probe(
            self.model,
            optimizer=self.optimizer,
            batch=self.batch,
            method="fused",
            micro_batch=self.micro_batch,
            fail_on="never",
        )
        if report.run is None or report.run.status != "complete":
            raise SystemExit(f"the probe did not come through: {report.findings[-1].message}")
        return report.timings

    def measure(self) -> None:
        """The first pass alone; what it gives is let go."""
        method = Fused(self.model, ParameterRegistry.of(self.model).trainable, self.micro_batch)
        for _ in method.measurements(self.units, lambda *_: None):
            pass

    def peak(self, run: Any) -> float:
        """Bytes above those before: of the process on the CPU, of the allocator on CUDA."""
        if self.device.startswith("cuda"):
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            run()
            return float(torch.cuda.max_memory_allocated() - before)
        before = resident()
        run()
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


def compare(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Ratios, with what they are made of."""
    steps: list[float] = []
    stages: list[dict[str, float]] = []
    for _ in range(options.rounds):
        begin = time.perf_counter()
        case.step()
        steps.append(time.perf_counter() - begin)
        stages.append(case.whole())
    step = statistics.median(steps)
    seconds = {
        name: statistics.median(timings[name] for timings in stages)
        for name in stages[0]
        if name not in ("load", "rollouts")
    }
    peaks = {of: peak_in_own_process(of) for of in ("step", "whole")}
    return {
        "model": options.model,
        "adaptation": "full" if options.full else "LoRA r=16, all linear layers",
        "sequences": options.sequences,
        "tokens": options.tokens,
        "micro_batch": options.micro_batch,
        "device": options.device,
        "dtype": options.dtype,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "step_seconds": step,
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "measure_over_step": seconds["measure"] / step,
        "whole_over_step": sum(seconds.values()) / step,
        "first_pass_flops_over_step": flops(case.measure) / flops(case.step),
        "step_gib": peaks["step"] / 2**30,
        "whole_gib": peaks["whole"] / 2**30,
        "memory_over_step": peaks["whole"] / peaks["step"],
    }


def load(options: argparse.Namespace) -> nn.Module:
    """The base model, in float32."""
    if options.model == "tiny":
        config = LlamaConfig(
            vocab_size=2048,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
        return AutoModelForCausalLM.from_config(config)
    from smollm2 import base_model  # trl and reasoning-gym come with it

    return AutoModelForCausalLM.from_pretrained(base_model(options.cache / "base"), dtype=torch.float32)


def adapted(base: nn.Module, full: bool) -> nn.Module:
    """As it is, or with an adapter whose B is not 0."""
    if full:
        return base
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.01)
    return model


def random_batch(vocabulary: int, sequences: int, tokens: int) -> Batch:
    """Prompts of random tokens with GENERATIONS responses each, all sequences equally long."""
    prompt = max(1, int(tokens * PROMPT_SHARE))

    def drawn(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (count,)).tolist())

    units = []
    for index in range(sequences // GENERATIONS):
        advantages = torch.randn(GENERATIONS).tolist()
        responses = tuple(Response(tokens=drawn(tokens - prompt), text="", advantage=a) for a in advantages)
        group = Group(id=f"p{index}", text="", tokens=drawn(prompt), responses=responses)
        units.append(Unit(id=group.id, role="EU"[index % 2], groups=(group,)))
    return Batch(tuple(units), tokens - prompt, "longest response", "dr_grpo", "dr_grpo")


def flops(run: Any) -> int:
    """Floating-point operations in matrix products."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def peak_in_own_process(of: str) -> float:
    """Nothing that another run has touched counts."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", of]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.split()[-1])


def resident() -> int:
    """Bytes in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
