"""The Python API as a notebook has it: names, strings and dictionaries, in any order, as often as wanted."""

import pkgutil
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest

import ray_mae
from ray_mae.checkpoint.integrity import write_checksums
from tests.checkpoints import write_checkpoint
from tests.shards import write_shards

CALLS = [
    'ray_mae.export(ray_mae.ExportConfig(checkpoint="checkpoint", output="exported"))',
    'ray_mae.checkpoint_verify(ray_mae.CheckpointVerifyConfig(path="checkpoint"))',
    """import tempfile; ray_mae.checkpoint_convert(ray_mae.CheckpointConvertConfig(
        checkpoint="checkpoint", output=tempfile.mkdtemp(dir=".")))""",
    'ray_mae.inspect(ray_mae.InspectConfig(shards="shards", output="card", duplicates=False))',
    """ray_mae.plan(ray_mae.PlanConfig(
        shards="shards", method="mvmae", optim={"steps": 8, "batch_size": 4, "micro_batch_size": 2}))""",
    'ray_mae.embed(ray_mae.EmbedConfig(checkpoint="checkpoint", shards="shards", output="vectors"))',
    'encoder, prepare = ray_mae.load_encoder("exported")',
    "[name for name in ray_mae.__all__ if not callable(getattr(ray_mae, name))]",
]


@pytest.mark.slow
def test_every_call_works_twice_in_a_fresh_kernel(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    write_shards(tmp_path / "shards", train=12, held_out=4)
    write_checksums(
        write_checkpoint(tmp_path / "checkpoint", tmp_path / "shards", "mvmae", depth=1), 0
    )
    cells = [
        "import ray_mae; set(ray_mae.__all__) - set(dir(ray_mae))",
        *(call for call in CALLS for _ in range(2)),
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    results = [
        output.data["text/plain"]
        for cell in notebook.cells
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert (results[0], results[-2:]) == ("set()", ["[]", "[]"])
    said = [o for cell in notebook.cells for o in cell.outputs if o.output_type == "display_data"]
    assert not said, "what is printed is text, without a box of its own"
    red = [o.text for cell in notebook.cells for o in cell.outputs if o.get("name") == "stderr"]
    assert not [text for text in red if "tqdm" not in text]


def test_no_module_has_the_name_of_a_function() -> None:
    modules = {module.name for module in pkgutil.iter_modules(ray_mae.__path__)}
    assert not modules & {*ray_mae.__all__}


def test_a_run_is_described_by_names_strings_and_dictionaries(tmp_path: Path) -> None:
    config = ray_mae.PretrainConfig(
        shards="shards",
        output=str(tmp_path),
        method="mvmae",
        encoder={"preset": "tiny"},
        data={"tokenizer": "words.json"},
        optim={"steps": 8, "batch_size": np.int64(8)},
        scaling={"workers": [1, 2], "cpus_per_worker": 1},
    )
    assert config.folders == [Path("shards")]
    assert config.output == tmp_path
    assert config.method == ray_mae.MvmaeSettings()
    assert config.encoder == ray_mae.VitSettings(preset="tiny")
    assert config.data == ray_mae.StudyDataConfig(tokenizer=Path("words.json"))
    assert config.optim == ray_mae.OptimConfig(steps=8, batch_size=8)
    assert type(config.optim.batch_size) is int
    assert config.scaling.workers == (1, 2)
    again = ray_mae.PretrainConfig(shards=["a", "b"], output="o", method={"name": "mdae"})
    assert again.optim == ray_mae.MdaeSettings().default_optim(again.encoder)
    search = ray_mae.TuneConfig(
        shards="s",
        output="o",
        run={"method": {"name": "mvmae", "gamma": 0}, "scaling": {"workers": 1}},
        space={"optim.lr": {"loguniform": [1e-4, 1e-3]}},
    )
    assert search.run.scaling.workers == 1
    assert search.run.method == ray_mae.MvmaeSettings(gamma=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "mvmea"}, r"method\.name must be .* got mvmea; did you mean mvmae\?"),
        ({"method": 3}, r"method must be a section \(MethodSettings\) or a dictionary"),
        (
            {"scaling": {"worker": 1}},
            r"scaling\.worker is no setting; did you mean scaling\.workers\?",
        ),
        ({"optim": {"steps": "x"}}, r"optim\.steps must be a whole number, or None, got 'x'"),
        ({"optim": {"steps": True}}, r"optim\.steps must be a whole number"),
        (
            {"optim": {"betas": [0.9]}},
            r"optim\.betas must be 2 values, each a number, got \[0\.9\]",
        ),
        (
            {"engine": {"precision": "bf_16"}},
            r"engine\.precision must be one of .* did you mean bf16",
        ),
        (
            {"data": {"max_view": 3}},
            r"data\.max_view is no setting; did you mean data\.max_views\?",
        ),
        ({"encoder": {"name": "vti"}}, r"encoder\.name must be one of .* did you mean vit\?"),
        ({"shards": 3}, r"shards must be a list, each a path, or a path, got 3"),
        ({"optim": {"steps": 0}}, r"optim\.steps must be at least 1, got 0"),
    ],
)
def test_what_is_no_value_of_a_setting_is_refused_by_its_name(
    values: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        ray_mae.PretrainConfig(**{"shards": "s", "output": tmp_path, "method": "mvmae", **values})


def test_a_group_of_commands_lists_what_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    from ray_mae import cli

    cli.run(["evaluate", "--help"])
    printed = capsys.readouterr().out
    assert all(f"  evaluate {name}" in printed for name in ("probe", "finetune", "segment"))
    assert "pretrain " not in printed
    with pytest.raises(
        ValueError, match=r"checkpoint is several commands\n(.|\n)*checkpoint verify"
    ):
        cli.run(["checkpoint"])


def test_more_workers_than_cores_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    import ray

    from ray_mae.cluster.admission import check_machine

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(
        ValueError,
        match=r"8 workers with 1 CPUs each want 8, this machine has 2.* scaling.workers to 2 or less, "
        r"scaling.cpus_per_worker to 0.25",
    ):
        check_machine(ray_mae.ScalingConfig(workers=8))
    check_machine(ray_mae.ScalingConfig(workers=8, cpus_per_worker=0.25))
    check_machine(ray_mae.ScalingConfig(workers=(2, 8)))
