"""Layouts are recognised by name, and safetensors files by header and size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from probe_engine.errors import ProbeError
from probe_engine.sources.checkpoints.layout import find_layout
from probe_engine.sources.checkpoints.names import shown, unwrapped_name, unwrapped_names
from probe_engine.sources.checkpoints.safetensors_file import check_safetensors
from probe_engine.sources.checkpoints.step import read_step
from probe_engine.sources.checkpoints.weights import find_weights


@pytest.mark.parametrize(
    ("entry", "framework"),
    [
        ("pytorch_model_fsdp_0/__0_0.distcp", "FSDP"),
        ("optimizer_0/.metadata", "FSDP"),
        ("global_step20/zero_pp_rank_0_mp_rank_00_optim_states.pt", "DeepSpeed"),
        ("zero_pp_rank_0_mp_rank_00_model_states.pt", "DeepSpeed"),
        ("actor/model_world_size_8_rank_0.pt", "verl"),
        ("model_world_size_8_rank_0.pt", "verl"),
        ("_actor/global_step1/mp_rank_00_model_states.pt", "OpenRLHF"),
        ("trainer/.metadata", "prime-rl"),
        (".metadata", "torch.distributed.checkpoint"),
        ("checkpoint-30/config.json", "checkpoint-30"),
        ("notes.txt", "notes.txt"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, entry: str, framework: str) -> None:
    (tmp_path / entry).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / entry).write_text("")
    with pytest.raises(ProbeError, match=framework) as refused:
        find_layout(tmp_path)
    assert refused.value.code == "CKPT001"


def test_two_adapters_are_a_question(tmp_path: Path) -> None:
    for name in ("one", "two", "ref"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
    with pytest.raises(ProbeError, match="one, two"):
        find_layout(tmp_path)


@pytest.mark.parametrize(
    ("wrapped", "name"),
    [
        ("module.lm_head.weight", "lm_head.weight"),
        ("module._orig_mod.a.b", "a.b"),
        ("_orig_mod.module.a", "a"),
        ("_fsdp_wrapped_module.a._fsdp_wrapped_module.b", "a.b"),
        ("a.module.b", "a.module.b"),
    ],
)
def test_prefixes_of_wrappers(wrapped: str, name: str) -> None:
    assert unwrapped_name(wrapped) == name


def test_two_keys_that_become_one_are_refused() -> None:
    with pytest.raises(ProbeError) as refused:
        unwrapped_names({"a": torch.zeros(1), "module.a": torch.zeros(1)}, "here")
    assert refused.value.code == "CKPT005"


def test_shown_names_are_few_and_writable() -> None:
    assert shown(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert shown(["\ud800"]).encode() == b"?"


class TestSafetensors:
    """The header is checked against itself and the file's size."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        save_file(
            {"a": torch.ones(3, 2), "b": torch.zeros(5, dtype=torch.bfloat16)}, tmp_path / "x.safetensors"
        )
        return tmp_path / "x.safetensors"

    def test_a_whole_file_passes(self, path: Path) -> None:
        assert check_safetensors(path).keys() == {"a", "b"}

    @given(cut=st.integers(0, 200), junk=st.binary(max_size=9))
    def test_another_size_never_passes(
        self, cut: int, junk: bytes, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "cut.safetensors"
        save_file({"a": torch.ones(3, 2), "b": torch.zeros(5)}, path)
        whole = path.read_bytes()
        changed = whole[: min(cut, len(whole))] + junk
        path.write_bytes(changed)
        if len(changed) != len(whole):
            with pytest.raises(ProbeError) as refused:
                check_safetensors(path)
            assert refused.value.code == "CKPT002"

    @pytest.mark.parametrize(
        "entry",
        [
            {"dtype": "F32", "shape": [3, 3], "data_offsets": [0, 24]},
            {"dtype": "F99", "shape": [3, 2], "data_offsets": [0, 24]},
            {"dtype": "F32", "shape": [-3, -2], "data_offsets": [4, 28]},
            {"dtype": "F32", "shape": "x", "data_offsets": [0, 24]},
            {"dtype": ["F32"], "shape": [3, 2], "data_offsets": [0, 24]},
            {"dtype": "F32", "shape": [3, 2], "data_offsets": [0]},
            {"shape": [3, 2]},
            7,
        ],
    )
    def test_a_header_that_contradicts_itself_is_refused(self, tmp_path: Path, entry: object) -> None:
        header = json.dumps({"a": entry}).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
        with pytest.raises(ProbeError) as refused:
            check_safetensors(path)
        assert refused.value.code == "CKPT002"

    def test_the_check_agrees_with_the_library(self, path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        with pytest.raises(Exception, match=r"(?i)header"):
            load_file(path)
        with pytest.raises(
            ProbeError, match=f"expected {len(data)} bytes by its header, found {len(data) - 1}"
        ):
            check_safetensors(path)


@pytest.mark.parametrize(
    "index",
    [
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "../secret.safetensors"}}',
        '{"weight_map": {"a": "absent.safetensors"}}',
        "nonsense",
    ],
)
def test_a_bad_index_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ProbeError) as refused:
        find_weights(tmp_path)
    assert refused.value.code == "CKPT002"


def test_the_step_is_the_trainers_else_the_names(tmp_path: Path) -> None:
    assert read_step(tmp_path, "checkpoint-200").value == 200
    assert read_step(tmp_path, "final").value is None
    (tmp_path / "trainer_state.json").write_text('{"global_step": 7}')
    assert read_step(tmp_path, "checkpoint-200").value == 7
    (tmp_path / "trainer_state.json").write_text('{"global_step": "seven"}')
    step = read_step(tmp_path, "checkpoint-200")
    assert step.value == 200
    assert "global_step" in step.problem
