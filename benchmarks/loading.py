"""What loading an encoder takes: seconds, memory, modules and packages, each time in a fresh process.

python -m benchmarks.loading --checkpoint encoder [encoder …]
"""

import argparse
import json
import statistics
import subprocess
import sys

PROBE = """
import json, resource, sys, time
began = time.perf_counter()
import ray_mae
encoder, _ = ray_mae.load_encoder(sys.argv[1])
seconds = time.perf_counter() - began
packages = {
    name.partition(".")[0]
    for name, module in list(sys.modules.items())
    if "site-packages" in (getattr(module, "__file__", None) or "")
}
megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([seconds, megabytes, len(sys.modules), sorted(packages)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", nargs="+", required=True, help="what load_encoder takes")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    for checkpoint in arguments.checkpoint:
        runs = []
        for _ in range(arguments.repeats + 1):
            command = [sys.executable, "-c", PROBE, checkpoint]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        warm = runs[1:]  # the first one read the files from disk
        seconds = sorted(run[0] for run in warm)
        _, megabytes, modules, packages = warm[0]
        print(
            f"{checkpoint}: {statistics.median(seconds):.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f}, "
            f"{len(warm)} processes), {megabytes:.0f} MB, {modules} modules of {len(packages)} packages: "
            f"{' '.join(packages)}"
        )


if __name__ == "__main__":
    main()
