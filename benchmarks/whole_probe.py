"""What the whole probe costs on real SmolLM2-135M + LoRA r=16: time by stage, peak memory.

python benchmarks/whole_probe.py [--cache FOLDER] [--json] [probe-tui options …]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import platformdirs
from smollm2 import checkpoint


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(platformdirs.user_cache_dir("probe-tui")) / "bench-smollm2"
    parser.add_argument("--cache", type=Path, default=default)
    parser.add_argument("--json", action="store_true")
    arguments, options = parser.parse_known_args()
    target = checkpoint(arguments.cache)
    done = subprocess.run(
        [sys.executable, "-m", "probe_tui", str(target), "--json", *options],
        stdout=subprocess.PIPE,
        check=False,
    )
    report = json.loads(done.stdout)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    figures = {
        "exit_code": done.returncode,
        "method": report["method"],
        "environment": report["environment"],
        "trainable_parameters": report["checkpoint"]["trainable_parameters"],
        "prompts": report["rollouts"]["prompts"],
        "responses": report["rollouts"]["responses"],
        "response_tokens": report["rollouts"]["tokens"],
        "seconds": report["timings"],
        "peak_memory_gib": peak,
    }
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    print(figures["environment"])
    print(figures["method"])
    print(
        f"{figures['prompts']} prompts, {figures['responses']} responses, "
        f"{figures['response_tokens']} response tokens, {figures['trainable_parameters']:,} parameters"
    )
    for stage, seconds in figures["seconds"].items():
        print(f"  {stage:<10} {seconds:8.2f} s")
    print(f"  {'whole':<10} {sum(figures['seconds'].values()):8.2f} s, peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
