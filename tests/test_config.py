"""Settings: refused with the nearest right name and the bound, from every door."""

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import get_loader

from ray_mae import cli
from ray_mae.config import DemoConfig, PretrainConfig
from ray_mae.config.base import describe_bounds, to_dict
from ray_mae.config.migrate import MOVED, migrate
from ray_mae.config.sections import DATA, EncoderSettings
from ray_mae.encoders.registry import ENCODERS
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.methods.mdae.settings import MdaeSettings
from ray_mae.methods.mvmae.settings import MvmaeSettings
from ray_mae.methods.registry import METHODS, config_class, run_of
from ray_mae.search.space import read_space
from ray_mae.search.trial import Runs
from tests.shards import write_shards, write_volume_shards

JOBS = sorted((Path(__file__).parent.parent / "jobs").glob("*.yaml"))


def parse(*arguments: str, command: str = "pretrain") -> Any:
    return cli.parsed([command, *arguments])[1]


def mvmae(config: PretrainConfig) -> MvmaeSettings:
    assert isinstance(config.method, MvmaeSettings)
    return config.method


def test_defaults_are_the_papers() -> None:
    config = PretrainConfig(shards=Path("s"), output=Path("o"), method=MvmaeSettings())
    assert config == parse("--shards", "s", "--output", "o")
    assert isinstance(config.encoder, VitSettings)
    assert (config.encoder.preset, config.encoder.image_size) == ("base", 224)
    method = mvmae(config)
    assert (method.mask_ratio, method.beta, method.gamma) == (0.9, 2.0, 1.0)


def test_a_value_out_of_bounds_is_refused_by_its_dotted_name() -> None:
    with pytest.raises(ValueError, match=r"method\.mask_ratio must be more than 0 and less than 1"):
        PretrainConfig(shards=Path("s"), output=Path("o"), method=MvmaeSettings(mask_ratio=1.0))
    with pytest.raises(ValueError, match=r"patients must be at least 20, got 3"):
        DemoConfig(patients=3)
    with pytest.raises(ValueError, match=r"optim\.micro_batch_size must be at least 1, got 0"):
        parse("--shards", "s", "--output", "o", "--optim.micro_batch_size", "0")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("--method.mask_ration", "method.mask_ratio"),
        ("--optim.warmpu", "optim.warmup"),
        ("--mask_ratio", "method.mask_ratio"),
        ("--shard", "shards"),
    ],
)
def test_an_unknown_flag_is_refused_with_the_nearest_name(wrong: str, right: str) -> None:
    with pytest.raises(ValueError, match=rf"did you mean {right}\?"):
        parse("--shards", "s", "--output", "o", wrong, "0.5")


def test_an_unknown_setting_in_a_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"shards": "s", "output": "o", "method": {"mask_rato": 0.5}}))
    with pytest.raises(ValueError, match=r"mask_rato.*did you mean method\.mask_ratio\?"):
        parse("--config", str(file))


def test_flags_override_the_file_that_comes_before(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        yaml.safe_dump({"shards": "s", "output": "o", "method": {"beta": 20, "gamma": 0}})
    )
    config = parse("--config", str(file), "--method.beta", "0")
    assert (mvmae(config).beta, mvmae(config).gamma) == (0, 0)
    assert config.shards == Path("s")


def test_settings_survive_json() -> None:
    config = parse("--shards", "s", "--output", "o", "--data.crop_scale", "[0.3, 0.9]")
    assert run_of(json.loads(json.dumps(to_dict(config)))) == config


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.run([*words, "--help"])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def described(cls: type, prefix: str = "") -> dict[str, str]:
    """The settings by dotted name, and their bounds in words."""
    hints, found = get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        kind, name = hints[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(kind):
            found |= described(kind, f"{name}.")  # type: ignore[arg-type]
        else:
            found[name] = describe_bounds(field.metadata)
    return found


def require_documented(text: str, settings: dict[str, str]) -> None:
    """Every setting is there, and its bounds before its type."""
    options = text.split(" options: ", 1)[1]
    for name, bounds in settings.items():
        _, flag, rest = options.partition(f" --{name} ")
        assert flag, name
        assert bounds in re.split(r"\((?:required, )?type: ", rest)[0], name


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_documents_every_setting(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    cls, _ = cli.COMMANDS[command]
    cls = config_class(cls, "mvmae") if command in cli.CHOSEN else cls
    text = help_of(capsys, *command.split())
    require_documented(text, described(cls))
    if command == "pretrain":
        assert "Share of the patches hidden in each view" in text


@pytest.mark.parametrize("method", METHODS)
def test_help_is_of_the_chosen_method(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command, lead in cli.CHOSEN.items():
        text = help_of(capsys, command, f"--{lead}method.name", method)
        settings = METHODS[method]
        sections = {"method": settings, "data": DATA[settings().default_encoder().kind]}  # type: ignore[call-arg]
        sections["encoder"] = type(settings().default_encoder())  # type: ignore[call-arg]
        for name, cls in sections.items():
            require_documented(text, described(cls, f"{lead}{name}."))
        assert f"--{lead}method.name {{{','.join(METHODS)}}}" in text
        assert f"--{lead}encoder.name {{{','.join(ENCODERS)}}}" in text


@pytest.mark.parametrize("encoder", ENCODERS)
def test_help_is_of_the_chosen_encoder(encoder: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "pretrain", "--encoder.name", encoder)
    require_documented(text, described(ENCODERS[encoder], "encoder."))


def test_help_tells_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "pretrain")
    assert "rises from 0. [at least 0 and less than 1] (type: float, default: 0.1)" in text


@pytest.fixture(scope="module")
def shards_of_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of shards by the kind of sample."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("study", "volume")}
    write_shards(folders["study"])
    write_volume_shards(folders["volume"])
    return folders


@pytest.mark.parametrize("job", JOBS, ids=lambda p: p.name)
def test_every_job_is_valid(
    job: Path, shards_of_kind: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = {"search": "tune"}.get(kind := job.stem.split("_")[0], kind)
    command = f"evaluate {command}" if f"evaluate {command}" in cli.COMMANDS else command
    cls = cli.COMMANDS[command][0]
    missing = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory}
    values = yaml.safe_load(job.read_text())
    given = {name for part in (values, *values.get("stages", [])) for name in part}
    own = [f"--{name}=x" for name in missing - given]
    _, config = cli.parsed([*command.split(), "--config", str(job), *own])
    assert capsys.readouterr().err == ""  # it is in today's form
    if command == "pretrain":
        config.check_sizes()
    if command == "tune":
        shards = shards_of_kind[config.run.kind]
        search = dataclasses.replace(config, shards=shards)
        Runs(search).check(read_space(search.space), shards)


@pytest.mark.parametrize(
    ("words", "insecure"),
    [
        ("--insecure-pseudonyms --source a", True),
        ("--source a --insecure_pseudonyms", True),
        ("--insecure-pseudonyms=true --source a", True),
        ("--insecure_pseudonyms false --source a", False),
        ("--source a", False),
    ],
)
def test_a_switch_is_told_by_its_name_alone(words: str, insecure: bool) -> None:
    _, config = cli.parsed(["ingest", "--archive", "table", "--output", "b", *words.split()])
    assert config.insecure_pseudonyms is insecure


@pytest.mark.parametrize("words", ["demo", "demo mdae", "doctor", "submit -- doctor"])
def test_a_command_may_stand_alone(words: str) -> None:
    name, config = cli.parsed(words.split())
    assert words.startswith(name)
    assert type(config) is cli.COMMANDS[name][0]


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean pretrain"):
        cli.run(["pretrian"])


@pytest.mark.parametrize(
    "arguments", [["--method.name", "mdae"], ["--method.name=mdae"], ["--config", "FILE"]]
)
def test_the_method_decides_which_settings_there_are(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("method:\n  name: mdae\n  sigma_max: 0.5\n")
    seen = []
    monkeypatch.setitem(cli.COMMANDS, "pretrain", (PretrainConfig, seen.append))
    arguments = [str(file) if word == "FILE" else word for word in arguments]
    cli.run(["pretrain", "--shards", "s", "--output", "o", *arguments, "--encoder.crop_size", "96"])
    assert isinstance(seen[0].method, MdaeSettings)
    assert seen[0].encoder.crop_size == 96
    assert run_of(json.loads(json.dumps(to_dict(seen[0])))) == seen[0]
    with pytest.raises(ValueError, match=r"mask_ratio must be smallest, then largest"):
        cli.run(
            ["pretrain", "--shards=s", "--output=o", *arguments, "--method.mask_ratio=[0.9,0.1]"]
        )
    with pytest.raises(ValueError, match="did you mean mdae"):
        cli.run(["pretrain", "--method.name", "mdea"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("pretrain --method.name mvmea", r"method\.name must be one of .* did you mean mvmae\?"),
        ("plan --encoder.name vitt", r"encoder\.name must be one of .* did you mean vit\?"),
        ("tune --run.method.name mdea", r"method\.name must be one of .* did you mean mdae\?"),
        ("tune --run.encoder.name resnec", r"encoder\.name must be .* did you mean resenc\?"),
        ("pretrain --config FILE", r"method\.name must be one of .* did you mean mdae\?"),
    ],
)
def test_an_unknown_method_or_encoder_is_refused_with_the_nearest(
    words: str, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("method:\n  name: mda\n")
    with pytest.raises(ValueError, match=complaint):
        cli.run([str(file) if word == "FILE" else word for word in words.split()])


@pytest.mark.parametrize(
    ("method", "encoder", "complaint"),
    [
        ("mdae", "vit", "3D input, not 2D and maps, not tokens: take resenc"),
        ("mvmae", "resenc", "2D input, not 3D and tokens, not maps: take vit"),
    ],
)
def test_an_encoder_that_does_not_fit_a_method_is_refused_by_name(
    method: str, encoder: str, complaint: str
) -> None:
    names = ["--method.name", method, "--encoder.name", encoder]
    wrong = f"encoder.name {encoder} does not fit method.name {method}, which wants {complaint}"
    with pytest.raises(ValueError, match=wrong):
        cli.run(["plan", *names, "--samples", "100"])
    with pytest.raises(ValueError, match=wrong):
        parse("--shards", "s", "--output", "o", *names).check_sizes()


@pytest.mark.parametrize("text", ["shards: [a\n", "a b c", "method: mdae\n", "run:\n", ""])
@pytest.mark.parametrize("command", cli.CHOSEN)
def test_a_file_that_holds_no_settings_is_refused(command: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ValueError) as told:
        parse("--config", str(file), command=command)
    assert len(str(told.value).splitlines()) == 1


OLD_RUNS = {
    "mvmae": (
        """
        method: {preset: tiny, image_size: 64, patch_size: 8, width: 96, beta: 1e-1, qk_norm: false}
        data: {max_views: 2}
        optim: {lr: 1e-4}
        """,
        """
        method: {beta: 1e-1}
        encoder: {preset: tiny, image_size: 64, patch_size: 8, width: 96, qk_norm: false}
        data: {max_views: 2}
        optim: {lr: 1e-4}
        """,
        ["preset", "image_size", "patch_size", "width", "qk_norm"],
    ),
    "mdae": (
        """
        method: {name: mdae, preset: tiny, crop_size: 32, film: false, mirror: false,
                 scale_range: [0.9, 1.1], sigma_max: 5e-1}
        seed: 3
        """,
        """
        method: {name: mdae, sigma_max: 5e-1}
        encoder: {preset: tiny, crop_size: 32, film: false}
        data: {mirror: false, scale_range: [0.9, 1.1]}
        seed: 3
        """,
        ["preset", "crop_size", "film", "mirror", "scale_range"],
    ),
}
"""A run in the form of before, in today's form, and which settings have moved."""


@pytest.mark.parametrize("name", OLD_RUNS)
def test_a_file_of_an_earlier_version_is_read_with_a_line_that_says_how_it_reads_now(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, moved = OLD_RUNS[name]
    (tmp_path / "old.yaml").write_text(old)
    (tmp_path / "new.yaml").write_text(new)
    own = ["--shards", "s", "--output", "o"]
    expected = parse("--config", str(tmp_path / "new.yaml"), *own)
    assert capsys.readouterr().err == ""
    assert parse("--config", str(tmp_path / "old.yaml"), *own) == expected
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'old.yaml'} has settings of an earlier version")
    for setting in moved:
        assert f"method.{setting} is {MOVED[name][f'method.{setting}']} now" in line
    assert line.count(" now") == len(moved)
    # and what a run's folder holds of it, which no person reads
    kept = {**get_loader("yaml")(old), "shards": "s", "output": "o"}
    run = run_of(kept)
    assert (run.method, run.encoder, run.data) == (
        expected.method,
        expected.encoder,
        expected.data,
    )


def test_flags_of_an_earlier_version_are_read_in_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("method: {preset: tiny, crop_size: 64}\n")  # a flag says of which method
    own = ["--shards", "s", "--output", "o", "--method.name=mdae"]
    old = ["--method.crop_size=96", "--method.mirror", "false", "--method.block_size", "8"]
    new = ["--encoder.crop_size=96", "--data.mirror", "false", "--method.block_size", "8"]
    expected = parse(*own, "--encoder.preset", "tiny", *new)
    assert capsys.readouterr().err == ""
    assert parse("--config", str(file), *own, *old) == expected
    of_file, of_flags = capsys.readouterr().err.splitlines()
    assert of_file.startswith(str(file))
    assert of_flags == (
        "this command has settings of an earlier version, which are still read: method.crop_size is "
        "encoder.crop_size now, method.mirror is data.mirror now"
    )
    with pytest.raises(ValueError, match=r"encoder\.crop_size must be at least 16"):
        parse(*own, "--method.crop_size", "1")


def test_a_search_of_an_earlier_version_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = """
        shards: s
        output: o
        run:
          method: {name: mdae, preset: tiny, crop_size: 32, block_size: 4}
        space:
          optim.lr: {loguniform: [1e-4, 1e-2]}
          method.mask_ratio[0]: {uniform: [0.1, 0.5]}
          method.scale_range[1]: {uniform: [1.1, 1.5]}
          method.film: {choice: [true, false]}
          method.sigma_max: {uniform: [0.5, 1.0], when: {method.film: [true]}}
    """
    new = """
        shards: s
        output: o
        run:
          method: {name: mdae, block_size: 4}
          encoder: {preset: tiny, crop_size: 32}
        space:
          optim.lr: {loguniform: [1e-4, 1e-2]}
          method.mask_ratio[0]: {uniform: [0.1, 0.5]}
          data.scale_range[1]: {uniform: [1.1, 1.5]}
          encoder.film: {choice: [true, false]}
          method.sigma_max: {uniform: [0.5, 1.0], when: {encoder.film: [true]}}
    """
    (tmp_path / "old.yaml").write_text(old)
    (tmp_path / "new.yaml").write_text(new)
    expected = parse("--config", str(tmp_path / "new.yaml"), command="tune")
    assert capsys.readouterr().err == ""
    assert parse("--config", str(tmp_path / "old.yaml"), command="tune") == expected
    (line,) = capsys.readouterr().err.splitlines()
    for change in (
        "method.preset is encoder.preset now",
        "method.scale_range[1] is data.scale_range[1] now",
        "method.film is encoder.film now",
    ):
        assert change in line
    flag = ["--config", str(tmp_path / "new.yaml"), "--run.encoder.crop_size"]
    other = ["--config", str(tmp_path / "new.yaml"), "--run.method.crop_size"]
    assert parse(*other, "64", command="tune") == parse(*flag, "64", command="tune")


@st.composite
def runs_as_written(draw: st.DrawFn) -> tuple[str, dict[str, Any], bool]:
    """A method, settings of a run of it as a file has them, and whether they are in today's form."""
    name = draw(st.sampled_from(list(METHODS)))
    method: Any = METHODS[name]()
    sections = {
        "method": method,
        "encoder": method.default_encoder(),
        "data": DATA[method.default_encoder().kind](),
    }
    values = {
        section: draw(
            st.dictionaries(
                st.sampled_from([f.name for f in dataclasses.fields(of) if f.name != "name"]),
                st.one_of(st.integers(), st.booleans(), st.text(max_size=3)),
                max_size=5,
            )
        )
        for section, of in sections.items()
    }
    before = draw(st.sets(st.sampled_from(sorted(MOVED.get(name, {"": ""}))), max_size=4)) - {""}
    for path in before:
        values["method"][path.removeprefix("method.")] = draw(st.integers())
    values = {section: of for section, of in values.items() if of}
    values["method"] = {"name": name, **values.get("method", {})}
    if draw(st.booleans()):
        names = [f"{section}.{key}" for section, of in values.items() for key in of]
        space = {
            key: {"choice": [1, 2], "when": {draw(st.sampled_from(names)): [1]}} for key in names
        }
        values = {"run": values, "space": space}
    return name, values, not before


@given(runs_as_written())
@settings(deadline=None)
def test_today_s_form_stays_as_it_is_and_that_of_before_becomes_it(
    written: tuple[str, dict[str, Any], bool],
) -> None:
    name, values, is_of_today = written
    before = copy.deepcopy(values)
    once, changed = migrate(values)
    assert values == before  # the caller's own
    assert migrate(values, name) == (once, changed)
    assert migrate(once) == (once, {})
    assert bool(changed) != is_of_today
    if is_of_today:
        assert once == values


THEIRS = '''
from dataclasses import dataclass
from typing import ClassVar, Literal

from ray_mae.config.base import setting
from ray_mae.config.sections import EncoderSettings, MethodSettings, require_form


@dataclass(frozen=True, kw_only=True)
class BlurSettings(EncoderSettings):
    """A convolution."""

    name: Literal["blur"] = "blur"
    """The encoder."""
    side: int = setting(32, ge=8)
    """Side of an image."""

    dimensions: ClassVar[int] = 2
    form: ClassVar[str] = "maps"
    network: ClassVar[str] = "theirs_model:Blur"

    input_size = property(lambda self: self.side)
    described = property(lambda self: f"blur, {self.side} px")


@dataclass(frozen=True, kw_only=True)
class GuessSettings(MethodSettings):
    """Guess the image."""

    name: Literal["guess"] = "guess"
    """The method."""
    weight: float = setting(1.0, gt=0)
    """Of its loss."""

    kinds: ClassVar[tuple[str, ...]] = ("study",)
    model: ClassVar[str] = "theirs_model:Guess"
    losses: ClassVar[dict[str, str]] = {"guess": "Guessed"}

    described = property(lambda self: "guessing")

    def default_encoder(self):
        return BlurSettings()

    def check(self, encoder, data):
        require_form(self, encoder, "maps")


class Impostor(GuessSettings):
    pass
'''
THEIR_MODEL = """
from torch import nn

from ray_mae.encoders.base import Encoder
from ray_mae.encoders.registry import build_encoder
from ray_mae.methods.base import Losses, Method
from ray_mae.transforms.images import whole


class Blur(Encoder):
    def __init__(self, settings, *, recompute=False):
        super().__init__()
        self.settings, self.recompute = settings, recompute
        self.kernel = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, images):
        return self.kernel(images)


class Guess(Method):
    @classmethod
    def build(cls, settings, encoder, context):
        method = cls()
        method.weight, method.encoder = settings.weight, build_encoder(encoder)
        return method

    def forward(self, batch, step, watch=False):
        x = whole(batch, self.encoder.settings.side).to(self.encoder.kernel.weight.dtype)
        loss = (self.encoder(x) - x).square().mean()
        return Losses(self.weight * loss, {"guess": loss.detach()})

    def flops(self, images, samples):
        return 54.0 * images * self.encoder.settings.side ** 2
"""


def test_other_packages_add_methods_and_encoders_by_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that lies on the path as pip would leave it."""
    (tmp_path / "theirs.py").write_text(THEIRS)
    (tmp_path / "theirs_model.py").write_text(THEIR_MODEL)
    installed = tmp_path / "theirs-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[ray_mae.methods]\nguess = theirs:GuessSettings\nmdae = theirs:Impostor\n"
        "[ray_mae.encoders]\nblur = theirs:BlurSettings\n"
    )
    with pytest.raises(ValueError, match=r"method\.name must be one of .*, got guess"):
        parse("--method.name", "guess")
    monkeypatch.syspath_prepend(tmp_path)
    assert METHODS["mdae"] is MdaeSettings  # ours cannot be replaced
    assert "[more than 0]" in help_of(capsys, "pretrain", "--method.name", "guess")
    own = ["--method.name", "guess", "--encoder.side", "16"]
    config = parse("--shards", "s", "--output", "o", *own)
    assert isinstance(config.encoder, EncoderSettings)
    assert (config.method.name, config.encoder.input_size) == ("guess", 16)
    assert run_of(json.loads(json.dumps(to_dict(config)))) == config
    with pytest.raises(ValueError, match=r"method\.weight must be more than 0"):
        parse("--shards", "s", "--output", "o", *own, "--method.weight", "0")
    with pytest.raises(ValueError, match=r"encoder\.name vit does not fit method\.name guess"):
        cli.run(["plan", "--samples", "9", "--method.name", "guess", "--encoder.name", "vit"])
    cli.run(["plan", "--samples", "2000", *own, "--output", str(tmp_path / "plan")])
    shown = capsys.readouterr().out
    assert "guess, guessing" in shown
    assert "blur, 16 px" in shown
    summary = json.loads((tmp_path / "plan" / "summary.json").read_text())
    assert summary["forecast"]["parameters"] == 10


def test_a_flag_that_may_come_several_times_adds_to_its_list() -> None:
    words = [
        "publish",
        "--checkpoint",
        "a",
        "--output",
        "b",
        "--authors",
        "A, B and C",
        "--authors=D",
    ]
    _, config = cli.parsed([*words, "--figures", "probe", "--figures", "[finetune,segment]"])
    assert config.authors == ["A, B and C", "D"]
    assert config.figures == [Path("probe"), Path("finetune"), Path("segment")]
    assert config.cards == []
