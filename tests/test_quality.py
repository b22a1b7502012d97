"""The project's own rules: lint, types, direction of imports."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
def test_the_code_passes(command: list[str]) -> None:
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_line_starts_without_torch_or_ray() -> None:
    """`--help` must not cost seconds."""
    code = (
        "import sys; from ray_mae import cli\n"
        "try: cli.run(['pretrain', '--help'])\n"
        "except SystemExit: sys.exit(bool({'torch', 'ray', 'pandas'} & set(sys.modules)))\n"
        "sys.exit('no help')"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_settings_of_all_methods_and_encoders_do_not_import_torch() -> None:
    """Every driver and every trial reads them."""
    code = (
        "import sys; from ray_mae.methods.registry import METHODS; "
        "from ray_mae.encoders.registry import ENCODERS; "
        "[METHODS[name]().check(METHODS[name]().default_encoder(), None) for name in METHODS]; "
        "[ENCODERS[name]().check() for name in ENCODERS]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_run_starts_without_what_it_does_not_use() -> None:
    """A dozen processes of a run import this: the controller, the readers, the workers."""
    code = (
        "import sys; import ray_mae.train.trainer; "
        "sys.exit(bool({'torch', 'scipy', 'sklearn', 'matplotlib', 'monai'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_optimiser_steps_as_pytorch_s_own_and_without_its_compiler(optimizer: str) -> None:
    code = (
        "import sys, torch; from ray_mae.config import OptimConfig; "
        "from ray_mae.train.optim import optimizer_of\n"
        f"optim = OptimConfig(optimizer={optimizer!r})\n"
        "of = {True: [], False: []}\n"
        "for own in of:\n"
        "    torch.manual_seed(0); net = torch.nn.Linear(3, 3)\n"
        "    tune = optimizer_of([{'params': [*net.parameters()]}], optim, own=own)\n"
        "    for _ in range(3): net(torch.ones(2, 3)).sum().backward(); tune.step(); tune.zero_grad()\n"
        "    tune.load_state_dict(tune.state_dict())\n"
        "    of[own] = net.weight.tolist()\n"
        "    if own and 'torch._dynamo' in sys.modules: sys.exit('the compiler is imported')\n"
        "sys.exit(of[True] != of[False])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_workers_meet_without_the_compiler_and_it_is_there_for_who_wants_it(tmp_path: Path) -> None:
    code = (
        "import importlib, sys, torch, torch.distributed as dist; "
        "from ray_mae.train.ddp_engine import _data_parallel\n"
        f"dist.init_process_group('gloo', init_method='file://{tmp_path}/store', rank=0, world_size=1)\n"
        "shared = _data_parallel(torch.nn.Linear(3, 3), compiler=False)\n"
        "with shared.no_sync(): shared(torch.ones(2, 3)).sum().backward()\n"
        "shared(torch.ones(2, 3)).sum().backward()\n"
        "assert shared.module.weight.grad.tolist() == [[4.0] * 3] * 3\n"
        "if 'torch._dynamo' in sys.modules: sys.exit('the compiler is imported')\n"
        "sys.exit(importlib.import_module('torch._dynamo') is not torch._dynamo)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_data_tasks_do_not_import_torch() -> None:
    """Processes that only read data start fast."""
    code = (
        "import sys; import ray_mae.data.loading.stream, ray_mae.data.ingest.job; "
        "import ray_mae.data.loading.tokenizer; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
