"""ENV: versions by metadata, a trial of the device, and a forecast of memory that its remedy meets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoConfig, AutoModelForCausalLM

from probe_engine.checks.environment import computes, memory, versions
from probe_engine.environment.device import devices, trial
from probe_engine.environment.memory import FreeMemory, container_limits, free_memory, own_memory
from probe_engine.environment.requirements import Demand, demands
from probe_engine.errors import ProbeError
from probe_engine.model.double_backward import twice_differentiable
from probe_engine.model.memory import SMALL_PART, Need, Sizes, need, sequence_bytes
from probe_engine.model.teacher_forcing import TokenSequence, token_log_probs
from probe_engine.registry import ParameterRegistry
from probe_engine.spec import RunSpec
from probe_engine.types import Extent

CPU = torch.device("cpu")


class TestVersions:
    """ENV001 reads the ranges where the packages keep them."""

    def test_this_installation_fits(self) -> None:
        asked = demands()
        assert {d.library for d in asked} == {"torch", "transformers", "peft"}
        assert {d.installed for d in asked if d.library == "peft"} == {version("peft")}
        assert versions(asked).status == "ok"

    @pytest.mark.parametrize(
        ("range_", "installed", "met"),
        [
            (">=5.0", "4.57.1", False),
            (">=5.0", "5.0", True),
            (">=2.6", "2.13.0+cpu", True),
            (">=2.6", "2.14.0.dev20261101", True),
            (">=4.56.2,!=5.1.0", "5.1.0", False),
            ("", "0.1", True),
            ("", None, False),
        ],
    )
    def test_a_version_lies_in_a_range_or_does_not(
        self, range_: str, installed: str | None, met: bool
    ) -> None:
        assert Demand("somebody", "transformers", range_, installed).met is met

    def test_what_does_not_fit_is_named_with_who_asks_and_what_to_type(self) -> None:
        found = versions([Demand("peft", "torch", ">=9", "2.6"), Demand("probe-tui", "torch", ">=8", "2.6")])
        assert found.status == "fail"
        assert "peft asks for torch >=9, 2.6 is installed" in found.message
        assert found.remedy.commands == ["pip install 'torch>=9,>=8'"]

    def test_metadata_found_first_is_what_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "torch-1.0.dist-info").mkdir()
        (tmp_path / "torch-1.0.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n"
        )
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        assert versions(demands()).evidence == {"torch": "1.0"}


class TestDevice:
    """ENV002 multiplies and differentiates."""

    @pytest.mark.parametrize("around", [torch.inference_mode, torch.no_grad, torch.enable_grad])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_a_cpu_computes_whatever_surrounds_the_call(self, around: Any, dtype: torch.dtype) -> None:
        with around():
            assert trial(CPU, dtype) == ""
        assert "cpu" in devices()

    def test_a_dtype_without_a_product_stops_the_run(self) -> None:
        with pytest.raises(ProbeError, match="float8_e4m3fn") as refused:
            computes([(CPU, torch.float32), (CPU, torch.float8_e4m3fn)])
        assert (refused.value.code, refused.value.exit_code) == ("ENV002", 1)

    def test_meta_tensors_hold_no_numbers(self) -> None:
        assert "meta" in trial(torch.device("meta"), torch.float32)

    def test_the_random_state_stays(self) -> None:
        before = torch.random.get_rng_state()
        trial(CPU, torch.float32)
        assert torch.equal(before, torch.random.get_rng_state())


class TestDoubleBackward:
    """ENV003: what alpha needs of a model."""

    SEQUENCE = TokenSequence((3, 4, 5), (6, 7, 8))

    @pytest.mark.parametrize("kind", ["llama", "gpt2"])
    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_the_library_s_attention_has_one_under_the_math_backend(self, kind: str, attention: str) -> None:
        model = tiny.model(kind)
        model.set_attn_implementation(attention)  # type: ignore[operator]
        assert twice_differentiable(model, ParameterRegistry.of(model).trainable, self.SEQUENCE) == ""

    def test_bfloat16_is_precise_enough_to_tell(self) -> None:
        model = tiny.model("llama", dtype=torch.bfloat16)
        assert twice_differentiable(model, ParameterRegistry.of(model).trainable, self.SEQUENCE) == ""

    @pytest.mark.parametrize("how", ["a pinned kernel", "a reverse pass that can't be differentiated"])
    def test_what_has_none_is_told(self, how: str) -> None:
        model: Any = tiny.model("llama")
        mlp = model.model.layers[0].mlp
        attention = model.model.layers[0].self_attn
        forward = attention.forward if how == "a pinned kernel" else mlp.forward

        def pinned(*args: Any, **kwargs: Any) -> Any:
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                return forward(*args, **kwargs)

        if how == "a pinned kernel":
            attention.forward = pinned
        else:
            mlp.forward = lambda x: _Once.apply(forward(x))
        told = twice_differentiable(model, ParameterRegistry.of(model).trainable, self.SEQUENCE)
        assert ("flash" if how == "a pinned kernel" else "its second derivative is") in told


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


CONFIGS: dict[str, dict[str, Any]] = {
    "llama": tiny.CONFIGS["llama"] | {"hidden_size": 64, "intermediate_size": 160},
    "qwen2": tiny.CONFIGS["qwen2"] | {"hidden_size": 64, "intermediate_size": 160, "vocab_size": 2000},
    "gpt2": tiny.CONFIGS["gpt2"] | {"n_embd": 64},
    "mixtral": tiny.CONFIGS["llama"] | {"hidden_size": 64, "intermediate_size": 160, "num_local_experts": 4},
}


class TestForecast:
    """ENV004: sizes are estimated, and options that are recommended fit the estimate."""

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    @pytest.mark.parametrize(("prompt", "response"), [(20, 20), (8, 50)])
    @pytest.mark.parametrize("kind", CONFIGS)
    def test_a_sequence_saves_what_autograd_saves_within_a_factor_of_2(
        self, kind: str, prompt: int, response: int, attention: str
    ) -> None:
        config = AutoConfig.for_model(kind, **CONFIGS[kind])
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
        sequence = TokenSequence(tuple(range(2, 2 + prompt)), (3,) * response)
        truth = saved_bytes(model, [sequence] * 4) / 4
        estimate = sequence_bytes(config, Extent(4, prompt, response), torch.float32)
        assert truth / 2 < estimate < truth * 2

    SIZES = Sizes(
        weights=1_000_000,
        held=0,
        trainable=100_000,
        optimizer=800_000,
        config=AutoConfig.for_model("llama", **CONFIGS["llama"]),
        extent=Extent(64, 100, 200),
    )

    def forecast(self) -> Callable[[str, int, int], Need]:
        return lambda dtype, micro_batch, budget: need(
            self.SIZES, getattr(torch, dtype), micro_batch=micro_batch, budget=budget, method="loop"
        )

    def test_enough_is_ok_and_says_nothing_that_changes_from_run_to_run(self) -> None:
        found, later = (
            memory(self.forecast(), RunSpec(), FreeMemory(free, "this machine"), "float32")
            for free in (2**34, 2**33)
        )
        assert found == later
        assert found.status == "ok"

    @pytest.mark.parametrize("share", [0.99, 0.8, 0.5, 0.3])
    def test_the_remedy_is_followed_and_the_finding_gone(self, share: float) -> None:
        spec = RunSpec(micro_batch=32)
        free = FreeMemory(int(share * self.forecast()("float32", 32, spec.memory_budget_bytes).total), "cpu")
        found = memory(self.forecast(), spec, free, "float32")
        assert found.status == "warn"
        (command,) = found.remedy.commands
        words = command.split()
        said = dict(zip(words[2::2], words[3::2], strict=True))
        followed = RunSpec(
            micro_batch=int(said.get("--micro-batch", 32)),
            memory_budget=said.get("--memory-budget", "4GiB"),
            dtype=said.get("--dtype", "float32"),  # type: ignore[arg-type]
        )
        assert memory(self.forecast(), followed, free, followed.dtype).status == "ok"

    def test_weights_that_do_not_fit_are_not_loaded(self) -> None:
        with pytest.raises(ProbeError, match="nothing was loaded") as refused:
            memory(self.forecast(), RunSpec(), FreeMemory(3_000_000, "this container"), "float32")
        assert refused.value.code == "ENV004"
        assert refused.value.exit_code == 3

    def test_narrow_weights_are_widened_for_the_virtual_step(self) -> None:
        loop = partial(need, self.SIZES, micro_batch=1, budget=0, method="loop")
        assert loop(torch.float32).widened == 0
        assert loop(torch.bfloat16).widened == 4_000_000
        assert loop(torch.bfloat16).weights == loop(torch.float32).weights / 2

    def test_vectors_are_kept_within_the_budget_or_not_at_all(self) -> None:
        loop = partial(need, self.SIZES, torch.float32, micro_batch=1, method="loop")
        everything = 2 * 32 * 100_000 * 4
        assert loop(budget=everything).kept == everything
        assert loop(budget=everything - 1).kept == 0

    def test_the_second_form_of_x_has_passes_of_its_own_where_its_sums_are_large(self) -> None:
        sums = SMALL_PART * 2 * 100_000 * 4
        for method, most in (("loop", 9), ("fused", 6)):
            both = partial(need, self.SIZES, torch.float32, micro_batch=4, method=method, rao_blackwell=True)
            found = both(budget=sums), both(budget=sums - 1)
            assert [n.arrangement.passes for n in found] == [2, 4]
            assert [n.lengths for n in found] == [most, most - 2]
        alpha = need(self.SIZES, torch.float32, micro_batch=4, budget=0, method="alpha", rao_blackwell=True)
        assert alpha.arrangement.passes == 2

    def test_the_budget_that_leaves_no_room_for_two_forms_of_x_is_a_remedy(self) -> None:
        both = partial(need, self.SIZES, method="fused", rao_blackwell=True)

        def forecast(dtype: str, micro_batch: int, budget: int) -> Need:
            return both(getattr(torch, dtype), micro_batch=micro_batch, budget=budget)

        spec = RunSpec(micro_batch=1, memory_budget="8MiB")
        free = FreeMemory(forecast("float32", 1, 0).total, "this container")
        assert forecast("float32", 1, spec.memory_budget_bytes).total > free.nbytes
        found = memory(forecast, spec, free, "float32")
        assert found.status == "warn"
        assert found.remedy is not None
        assert found.remedy.commands == ["probe-tui CHECKPOINT --memory-budget 0"]

    def test_kept_vectors_leave_half_of_a_device_s_memory_to_the_passes(self) -> None:
        kept = 2 * 32 * 100_000 * 4
        loop = partial(need, micro_batch=1, budget=kept, method="loop", dtype=torch.float32)
        here, there = (loop(replace(self.SIZES, room=room)) for room in (2 * kept, 2 * kept - 1))
        assert (here.arrangement.on_device, there.arrangement.on_device) == (True, False)
        assert here.kept == there.kept == kept
        assert here.total - there.total == kept
        assert loop(self.SIZES).arrangement.on_device

    def test_only_a_device_with_memory_of_its_own_has_room_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "probe_engine.environment.memory.free_memory", lambda _device: FreeMemory(100, "there")
        )
        assert [own_memory(torch.device(name)) for name in ("cuda", "mps", "cpu")] == [100, None, None]

    def test_a_container_s_limit_counts_with_what_it_can_reclaim(self, tmp_path: Path) -> None:
        group = tmp_path / "job" / "step"
        group.mkdir(parents=True)
        for folder, limit, usage, cache in ((group, "max", 10, 0), (tmp_path / "job", "1000", 700, 200)):
            (folder / "memory.max").write_text(f"{limit}\n")
            (folder / "memory.current").write_text(f"{usage}\n")
            (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\n")
        (tmp_path / "mine").write_text("0::/job/step\n")
        assert list(container_limits(tmp_path, tmp_path / "mine")) == [500]

    def test_the_older_control_groups_are_read_too(self, tmp_path: Path) -> None:
        group = tmp_path / "memory"
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("1000")
        (group / "memory.usage_in_bytes").write_text("400")
        (group / "memory.stat").write_text("total_inactive_file 100\n")
        (tmp_path / "mine").write_text("4:memory:/docker/abc\n1:cpu:/\n")
        assert list(container_limits(tmp_path, tmp_path / "mine")) == [700]

    def test_a_machine_says_how_much_is_free(self) -> None:
        free = free_memory(CPU)
        assert free is not None
        assert free.nbytes > 0


def saved_bytes(model: nn.Module, sequences: list[TokenSequence]) -> int:
    """What autograd keeps of a forward pass, each storage once, parameters apart."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        token_log_probs(model, sequences)
    return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)
