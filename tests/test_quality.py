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


def test_data_tasks_do_not_import_torch() -> None:
    """Processes that only read data start fast."""
    code = (
        "import sys; import ray_mae.data.loading.stream, ray_mae.data.ingest.job; "
        "import ray_mae.data.loading.tokenizer; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
