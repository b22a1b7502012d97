"""All that wants a GPU: bf16 beside fp32, speed and utilisation, memory beside `plan`'s, compile, engines.

    benchmarks/gpu.sh [--toy] [--record] [--seconds 570]

Networks, losses and engines alone, with batches in the GPU's memory: neither Ray nor shards are needed. Each
part is a process of its own with a limit in seconds; one that fails is told, and the rest goes on. `--toy`
does all of it with tiny networks, on a CPU as well, so that it works on the day.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.record import Cell, finish, parser_of
from ray_mae.config import EngineConfig, OptimConfig
from ray_mae.data.kinds import KINDS
from ray_mae.methods.base import Method
from ray_mae.train.engine import Engine, engine_of
from ray_mae.train.forecast.activations import activation_bytes
from ray_mae.train.forecast.gpus import find_gpu
from ray_mae.train.forecast.memory import ddp_states, states
from tests import batches, volume_batches
from tests.settings import CASES, build_of, sections, small

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
GIB = 2.0**30
STEP = 100
"""At which every term of a loss has its weight."""
VOCABULARY, TOKENS = 8192, 128

Rows = list[dict[str, Cell]]


# --------------------------------------------------------------------------------- networks and batches


@dataclass(frozen=True)
class Case:
    """A method on a network, and how much of it a GPU is given at first."""

    title: str
    method: str
    values: dict[str, Any]
    samples: int
    """Of the first batch; each one after it has twice as many."""
    views: int = 1
    goal: float = 0.0
    """Share of the GPU's peak that is wanted."""

    def sections(self, toy: bool, **more: Any) -> dict[str, Any]:
        """Settings; toy: on a tiny network."""
        if not toy:
            return sections(self.method, **(self.values | more))
        own = {k: v for k, v in (self.values | more).items() if k not in ("preset", "crop_size")}
        return small(self.method, **own)

    def batch(self, run: dict[str, Any], samples: int) -> Any:
        """In memory of the device."""
        size = run["encoder"].input_size
        if run["encoder"].kind == "volume":
            batch: Any = volume_batches.volume_batch(samples, side=size)
            return replace(batch, voxels=batch.voxels.half()).to(DEVICE)
        batch = batches.study_batch([self.views] * samples, canvas=round(1.2 * size))
        g = torch.Generator().manual_seed(0)
        tokens = torch.randint(5, batches.VOCABULARY, (samples, TOKENS), generator=g)
        tokens[:, 0], tokens[:, -1] = 2, 3
        return replace(batch, tokens=tokens, known_most=self.views).to(DEVICE)


def _vit(preset: str, samples: int, goal: float) -> list[Case]:
    name = {"base": "ViT-B", "large": "ViT-L"}[preset]
    mae = {"preset": preset, "gamma": 0.0, "beta": 0.0, "mask_ratio": 0.75}
    return [
        Case(f"MVMAE {name}", "mvmae", {"preset": preset, "gamma": 0.0}, samples, 2, goal),
        Case(f"MVMAE-V2T {name}", "mvmae", {"preset": preset, "gamma": 1.0}, samples, 2, goal),
        Case(f"MAE {name}", "mvmae", mae, samples, 1, goal),
    ]


VIT_B, VIT_L = _vit("base", 128, 0.45), _vit("large", 128, 0.55)
RESENC_L = Case(
    "MDAE ResEnc-L 160³", "mdae", {"preset": "large", "crop_size": 160}, 2, 1, goal=0.35
)


# ------------------------------------------------------------------------------------------ measuring


@dataclass
class Budget:
    """Seconds that a part has."""

    seconds: float

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()


def wait() -> None:
    """Until the device has done what it was given."""
    if GPU:
        torch.cuda.synchronize()


def made(run: dict[str, Any], engine: EngineConfig) -> Engine:
    """An engine with fresh weights, alone in a process group."""
    if not dist.is_initialized():
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        store = dist.HashStore()
        dist.init_process_group("nccl" if GPU else "gloo", store=store, rank=0, world_size=1)
    module = build_of(run, vocabulary=VOCABULARY)
    return engine_of(module, engine, OptimConfig(), micro_batch_size=1, accumulation=1)


def step(engine: Engine, batch: Any) -> torch.Tensor:
    """One of the optimiser; returns the loss."""
    loss: torch.Tensor = engine(batch, STEP).total
    engine.backward(loss)
    engine.step(1e-4)
    return loss.detach()


def speed(engine: Engine, batch: Any, seconds: float) -> tuple[float, float, float]:
    """Steps a second, GiB of the GPU at most (0 on a CPU), and seconds of the first step."""
    if GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    step(engine, batch)
    wait()
    first = time.perf_counter() - began
    began = time.perf_counter()
    step(engine, batch)
    wait()
    one = time.perf_counter() - began
    number = max(2, min(50, round(seconds / one)))
    began = time.perf_counter()
    for _ in range(number):
        step(engine, batch)
    wait()
    rate = number / (time.perf_counter() - began)
    return rate, torch.cuda.max_memory_allocated() / GIB if GPU else 0.0, first


class Forecast:
    """What `plan` forecasts for micro-batches of a case, in GiB."""

    def __init__(self, case: Case, run: dict[str, Any], precision: str) -> None:
        with torch.device("meta"):
            method = build_of(run, vocabulary=VOCABULARY)
        self._parameters = sum(p.numel() for p in method.parameters())
        self._precision = precision
        empty = KINDS[run["encoder"].kind].empty_batch(
            run["encoder"].input_size,
            case.samples,
            case.samples * case.views,
            most=case.views,
            tokens=TOKENS if run["method"].reads_reports else None,
        )
        self._of_sample = activation_bytes(method, empty, precision) / case.samples

    def gib(self, engine: EngineConfig, samples: int) -> float:
        """With an engine on one worker."""
        ddp = engine.name == "ddp"
        of = (
            ddp_states(self._parameters, precision=self._precision)
            if ddp
            else states(
                self._parameters,
                stage=engine.zero_stage or 0,
                workers=1,
                precision=self._precision,
            )
        )
        return of.most(samples * self._of_sample) / GIB


def row(
    case: Case,
    method: Method,
    setting: str,
    samples: int,
    found: tuple[float, float, float],
    forecast: float,
) -> dict[str, Cell]:
    """A row of the table of speeds."""
    rate, peak, first = found
    inputs = samples * case.views
    gpu = find_gpu(torch.cuda.get_device_name()) if GPU else None
    used: Cell = "–"
    if gpu:
        used = rate * method.flops(inputs, samples) / (gpu.peak("bf16") * 1e12)
    return {
        "network": case.title,
        "setting": setting,
        "samples": samples,
        "inputs/s": rate * inputs,
        "of peak": used,
        "goal": case.goal,
        "GiB": peak if GPU else "–",
        "GiB forecast": forecast,
        "first step, s": first,
    }


# ------------------------------------------------------------------------------------------------ parts


def precision(given: argparse.Namespace, budget: Budget) -> Iterator[dict[str, Cell]]:
    """Each method in bf16 beside fp32: the first loss and gradient, and the losses of some steps."""
    torch.backends.cudnn.allow_tf32 = False
    for name in CASES:
        run = small(name)
        case = Case(name, name, {}, 4, 2)
        batch = case.batch(run, 4)
        losses, gradients = {}, {}
        for of in ("fp32", "bf16"):
            engine = made(run, EngineConfig(name="ddp", precision=of))  # type: ignore[arg-type]
            loss = engine(batch, STEP).total
            engine.backward(loss)
            gradients[of] = torch.cat(
                [p.grad.flatten().float() for p in engine.module.parameters() if p.grad is not None]
            )
            engine.step(1e-4)
            losses[of] = [float(loss.detach())]
            losses[of] += [float(step(engine, batch)) for _ in range(5 if given.toy else 50)]
        exact, rounded = gradients["fp32"], gradients["bf16"]
        apart = [abs(b / a - 1) for a, b in zip(losses["fp32"], losses["bf16"], strict=True)]
        yield {
            "method": name,
            "loss in fp32": losses["fp32"][0],
            "first loss apart": apart[0],
            "cosine of gradients": float(torch.cosine_similarity(exact, rounded, dim=0)),
            "norm over fp32's": float(rounded.norm() / exact.norm()),
            "steps": len(apart),
            "last loss apart": apart[-1],
        }


def sweep(
    cases: list[Case], given: argparse.Namespace, budget: Budget
) -> Iterator[dict[str, Cell]]:
    """Batches of twice the size each time, while they are faster and fit; at the best a quarter decoded."""
    config = EngineConfig(name="ddp", precision="bf16")
    share = budget.left / len(cases)
    for case in cases:
        mine = Budget(share)
        run = case.sections(given.toy)
        best, best_rate, samples = 0, 0.0, 2 if given.toy else case.samples
        limit = 4 if given.toy else 2**14
        engine, forecast = made(run, config), Forecast(case, run, config.precision)
        while samples <= limit and mine.left > 0:
            try:
                found = speed(engine, case.batch(run, samples), 0.2 if given.toy else 1.5)
            except torch.cuda.OutOfMemoryError:
                break
            yield row(
                case,
                engine.module,  # type: ignore[arg-type]
                "DDP bf16",
                samples,
                found,
                forecast.gib(config, samples),
            )
            if found[0] * samples < 1.02 * best_rate:  # no larger one is faster
                break
            best, best_rate, samples = samples, found[0] * samples, 2 * samples
        del engine
        if best and case.views > 1 and mine.left > 0:
            run = case.sections(given.toy, decode_share=0.25)
            engine = made(run, config)
            found = speed(engine, case.batch(run, best), 0.2 if given.toy else 1.5)
            gib = Forecast(case, run, config.precision).gib(config, best)
            yield row(case, engine.module, "decode_share 0.25", best, found, gib)  # type: ignore[arg-type]
            del engine


def compared(
    case: Case, configs: dict[str, EngineConfig], given: argparse.Namespace, budget: Budget
) -> Iterator[dict[str, Cell]]:
    """One batch under several engines."""
    run = case.sections(given.toy)
    samples = 2 if given.toy else 2 * case.samples
    forecast = Forecast(case, run, "bf16")
    for name, config in configs.items():
        if budget.left < 5:
            return
        try:
            engine = made(run, config)
        except ModuleNotFoundError as error:
            yield {"skipped": f"{name} ({error})"}
            continue
        found = speed(engine, case.batch(run, samples), 0.2 if given.toy else 2.0)
        gib = forecast.gib(config, samples)
        yield row(case, engine.module, name, samples, found, gib)  # type: ignore[arg-type]
        del engine


BF16_DDP = EngineConfig(name="ddp", precision="bf16")
COMPILED = {
    "DDP, not compiled": BF16_DDP,
    "DDP, compiled": replace(BF16_DDP, compile=True),
}
ZERO = {
    "DDP beside ZeRO": BF16_DDP,
    "ZeRO 1": EngineConfig(name="deepspeed", zero_stage=1, precision="bf16"),
}
Part = Callable[[argparse.Namespace, Budget], Iterator[dict[str, Cell]]]
PARTS: dict[str, tuple[float, Part]] = {
    "precision": (60, precision),
    "base": (90, lambda given, budget: sweep(VIT_B, given, budget)),
    "large": (90, lambda given, budget: sweep(VIT_L, given, budget)),
    "resenc": (70, lambda given, budget: sweep([RESENC_L], given, budget)),
    "zero": (50, lambda given, budget: compared(VIT_B[0], ZERO, given, budget)),
    "compile base": (60, lambda given, budget: compared(VIT_B[0], COMPILED, given, budget)),
    "compile large": (70, lambda given, budget: compared(VIT_L[0], COMPILED, given, budget)),
    "compile resenc": (80, lambda given, budget: compared(RESENC_L, COMPILED, given, budget)),
}
"""Seconds, and what is done in them."""
TOY = ("precision", "base", "resenc", "zero", "compile base")
"""Parts that differ where networks are tiny."""


def child(given: argparse.Namespace) -> None:
    """One part: its rows as JSON lines, as they come."""
    torch.manual_seed(0)
    if GPU:
        torch.cuda.set_device(0)
    elif given.toy:  # making kernels for a CPU takes minutes: networks are traced alone
        traced = partialmethod(torch.nn.Module.compile, backend="eager")
        torch.nn.Module.compile = traced  # type: ignore[assignment,method-assign]
    budget = Budget(given.seconds)
    with open(given.rows, "a", encoding="utf-8") as file:
        try:
            for found in PARTS[given.part][1](given, budget):
                file.write(json.dumps(found) + "\n")
                file.flush()
        except Exception as error:
            traceback.print_exc()
            file.write(json.dumps({"failed": f"{type(error).__name__}: {error}"[:300]}) + "\n")


def part(name: str, seconds: float, given: argparse.Namespace, folder: Path) -> Rows:
    """The rows of a part in a process of its own; the last one says why it failed, where it did."""
    file = folder / f"{name}.jsonl"
    file.touch()
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--rows", str(file)]
    command += ["--seconds", f"{seconds:.0f}", *(["--toy"] if given.toy else [])]
    failed = ""
    try:
        code = subprocess.run(command, timeout=seconds + 20).returncode
        failed = f"its process ended with {code}" if code else ""
    except subprocess.TimeoutExpired:
        failed = f"stopped after {seconds + 20:.0f} s"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return rows if not failed else [*rows, {"failed": failed}]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--toy", action="store_true", help="tiny networks, on a CPU as well")
    parser.add_argument("--seconds", type=float, default=570, help="for all of it")
    parser.add_argument("--parts", default="", help=f"only these, of: {', '.join(PARTS)}")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--rows", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        child(given)
        return
    if not GPU and not given.toy:
        parser.error("PyTorch sees no GPU here: try --toy")
    chosen = [name.strip() for name in given.parts.split(",") if name.strip()]
    if wrong := [name for name in chosen if name not in PARTS]:
        parser.error(f"--parts {', '.join(wrong)}: there are {', '.join(PARTS)}")
    end = time.monotonic() + given.seconds
    tables: dict[str, Rows] = {"gpu": [], "gpu_precision": []}
    failures: list[str] = []
    skipped: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen or (TOY if given.toy else PARTS):
            left = end - time.monotonic()
            if left < 10:
                failures.append(f"{name}: no time was left")
                continue
            print(f"{name} …", flush=True)
            seconds = left if given.toy else PARTS[name][0]  # a CPU may be busy
            for found in part(name, min(seconds, left - 5), given, Path(folder)):
                if "failed" in found:
                    failures.append(f"{name}: {found['failed']}")
                elif "skipped" in found:
                    skipped.append(str(found["skipped"]))
                else:
                    tables["gpu_precision" if name == "precision" else "gpu"].append(found)
    missed = [*failures, *skipped]
    told = f" Not measured: {'; '.join(missed)}." if missed else ""
    if tables["gpu"]:
        note = (
            "Batches in memory; `of peak` counts each method's own operations over the bf16 peak."
        )
        finish(given, tables["gpu"], note + told, "gpu")
    if tables["gpu_precision"]:
        note = "Passes in bf16 with fp32 weights beside fp32, on the same batch and tiny networks."
        finish(given, tables["gpu_precision"], note, "gpu_precision")
    if missed:
        print("\n".join(["Not measured:", *missed]))
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
