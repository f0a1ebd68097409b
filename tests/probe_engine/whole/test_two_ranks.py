"""DDP and FSDP2 on two gloo processes: the doctor on the live wrapped model (tests/two_ranks.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import two_ranks

Seen = dict[str, dict[str, Any]]

ROOTS: dict[str, set[str]] = {
    "ddp": set(),
    "ddp_compiled": set(),
    "ddp_frozen": {"PEFT001"},
    "ddp_detached": {"GRAD013"},
    "plain_lora": set(),
    "fsdp2_lora": set(),
    "fsdp2_full": set(),
    "fsdp2_without_a_batch": set(),
    "fsdp2_gathered": set(),
    "fsdp2_detached": {"GRAD013"},
    "fsdp2_frozen": {"PEFT001"},
    "fsdp2_old_optimizer": {"OPT009"},
    "fsdp2_no_grad": {"GRAD002"},
    "fsdp2_accumulating": {"GRAD014"},
    "fsdp2_probe": {"GRAD014"},
    "fsdp1": {"GRAD014"},
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Seen, dict[str, bool]]]:
    """What each rank saw."""
    out = tmp_path_factory.mktemp("ranks") / "seen.json"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(Path(two_ranks.__file__)), str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [(seen, left) for seen, left in json.loads(out.read_text("utf-8"))]


@pytest.mark.parametrize("case", ROOTS)
def test_the_cause_is_named_on_every_rank_and_healthy_models_give_no_alarm(
    case: str, ranks: list[tuple[Seen, dict[str, bool]]]
) -> None:
    for seen, _ in ranks:
        assert set(seen[case]["roots"]) == ROOTS[case], seen[case]["messages"]


def test_every_case_is_judged(ranks: list[tuple[Seen, dict[str, bool]]]) -> None:
    assert set(ranks[0][0]) == set(ROOTS)


def test_norms_over_shards_are_those_of_the_whole_parameters(
    ranks: list[tuple[Seen, dict[str, bool]]],
) -> None:
    """And of the first rank's group, though the second one was given other prompts."""
    for seen, _ in ranks:
        assert seen["fsdp2_lora"]["norms"] == pytest.approx(seen["plain_lora"]["norms"], rel=1e-6)
        assert seen["fsdp2_lora"]["panel"] == seen["plain_lora"]["panel"] == [12, 12, 12, 12]


def test_the_module_that_detaches_is_named_under_fsdp2(ranks: list[tuple[Seen, dict[str, bool]]]) -> None:
    message = ranks[0][0]["fsdp2_detached"]["messages"]["GRAD013"]
    assert "layers.1.mlp (LlamaMLP): input requires grad, output does not" in message


def test_what_shards_can_not_do_is_said(ranks: list[tuple[Seen, dict[str, bool]]]) -> None:
    seen = ranks[0][0]
    assert seen["fsdp2_lora"]["statuses"]["GRAD014"] == "info"
    assert "every rank must make this call" in seen["fsdp2_lora"]["messages"]["GRAD014"]
    assert seen["fsdp2_probe"]["exit_code"] == 1
    assert "FSDP1" in seen["fsdp1"]["messages"]["GRAD014"]


def test_all_is_as_it_was_and_training_goes_on_bit_for_bit(
    ranks: list[tuple[Seen, dict[str, bool]]],
) -> None:
    for _, left in ranks:
        assert left == {"ddp": True, "fsdp2": True}
