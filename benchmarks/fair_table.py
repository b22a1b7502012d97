"""The claims of both papers on phantoms: pretrainings of several seeds, compared by `ray-mae benchmark`.

    python -m benchmarks.fair_table --output /tmp/table studies     # MVMAE, MAE, V2T with β and without
    python -m benchmarks.fair_table --output /tmp/table volumes     # MDAE, MAE-3D, DSM
    python -m benchmarks.fair_table --output /tmp/table alignment   # its forms, at equal search of β
    python -m benchmarks.fair_table --output /tmp/table length      # the same three times as long
    python -m benchmarks.fair_table --output /tmp/table rare        # weights and draws by rare findings
    python -m benchmarks.fair_table --output /tmp/table decode      # a share of the hidden patches decoded
    python -m benchmarks.fair_table --output /tmp/table real --data ../shared/data   # on real images
    python -m benchmarks.fair_table --output /tmp/table --seeds 3 family          # every method of studies
    python -m benchmarks.fair_table --output /tmp/table --seeds 3 family_volumes  # and of volumes
    python -m benchmarks.fair_table --output /tmp/table --seeds 1 --data ../shared/data family_real

Every pretraining has the same network (of the family: of its kind), steps, batches and seeds. Phantoms say
nothing of medicine: what is shown is whether the product, at the size of its demo, does what the papers say.
What is there stays, so the same command goes on.
"""

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks import family
from ray_mae.benchmarking.records import ALL
from ray_mae.benchmarking.store import Store
from ray_mae.data.phantoms.brain_anatomy import PRETRAINING
from ray_mae.data.phantoms.brain_cohort import TABLE, write_volumes
from ray_mae.data.phantoms.chest_cohort import write_studies
from ray_mae.demos import studies, volumes
from ray_mae.demos.studies import SIZE

CHESTS, HEADS = 900, 300
"""Patients."""
COMMON = {"scaling.workers": 1}
NO_CAPTION = {
    "method.caption_depth", "method.caption_heads", "method.caption_memory",
    "method.caption_parallel_share", "method.gamma",
}  # fmt: skip
MVMAE = {k: v for k, v in studies.PRETRAIN.items() if k not in NO_CAPTION}
STUDIES: dict[str, dict[str, Any]] = {
    "mvmae": {**MVMAE, "method.beta": 2, "method.gamma": 0},
    "mae": {**MVMAE, "method.beta": 0, "method.gamma": 0},
    "v2t": {**studies.PRETRAIN, "method.beta": 2},
    "v2t_beta0": {**studies.PRETRAIN, "method.beta": 0},
}
VOLUMES: dict[str, dict[str, Any]] = {
    "mdae": volumes.PRETRAIN,
    "mae3d": {**volumes.PRETRAIN, "method.sigma_max": 0, "method.lambda_visible": 0},
    "dsm": {**volumes.PRETRAIN, "method.mask_ratio": "[0.0,0.0]", "method.lambda_masked": 0},
}
ALIGNMENT: dict[str, dict[str, Any]] = {
    f"{form}_{beta}": {**STUDIES["mvmae"], "method.alignment": form, "method.beta": beta}
    for form in ("mse", "centred", "infonce", "vicreg")
    for beta in (2, 20)
}
NONE = "none_0"
"""Without an alignment: there is no weight to search."""
FORMS: dict[str, dict[str, Any]] = {NONE: STUDIES["mae"], **ALIGNMENT}
LONG: dict[str, dict[str, Any]] = {
    f"{name}_long": FORMS[name] for name in (NONE, "mse_2", "infonce_2")
}
SEARCHED = range(3)
"""Seeds of the search of weights."""
REPORTS: dict[str, dict[str, Any]] = {
    f"v2t_{form}": {**STUDIES["v2t"], "method.alignment": form} for form in ("mse", "infonce")
}
RARE: dict[str, dict[str, Any]] = {
    "mvmae": STUDIES["mvmae"],
    "rare_more": {**STUDIES["mvmae"], "method.rare_power": 0.5},
    "rare_less": {**STUDIES["mvmae"], "method.rare_power": -0.5},
    "repeated": {**STUDIES["mvmae"], "data.repeat_below": 0.4},
}
DECODE: dict[str, dict[str, Any]] = {
    "mvmae": STUDIES["mvmae"],
    "decode_50": {**STUDIES["mvmae"], "method.decode_share": 0.5},
    "decode_25": {**STUDIES["mvmae"], "method.decode_share": 0.25},
    "v2t": STUDIES["v2t"],
    "v2t_decode_25": {**STUDIES["v2t"], "method.decode_share": 0.25},
}
FAMILY = {f"family_{name}": flags for name, flags in family.STUDIES.items()}
FAMILY3D = {f"family3d_{name}": flags for name, flags in family.VOLUMES.items()}
OTHERS = {
    "family": {"random_convnextv2": "family_fcmae"},
    "family_volumes": {"random_primus": "family3d_mae_primus"},
}
"""Random weights of the networks that not the first method has, and a method that has them."""
RAREST = ["Consolidation", "Lung Opacity", "Pneumonia"]
"""Of the findings that these phantoms have; all five are in 9 to 14 % of the studies."""
METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "studies": STUDIES,
    "volumes": VOLUMES,
    "alignment": {**FORMS, **REPORTS},
    "length": LONG,
    "rare": RARE,
    "decode": DECODE,
    "real": {**STUDIES, **VOLUMES},
    "family": FAMILY,
    "family_volumes": FAMILY3D,
    "family_real": {**FAMILY, **FAMILY3D},
}
STEPS = {"volumes": 300, "family_volumes": 300, "length": 1500}
"""Where they are not 500."""
BASELINES = {
    "pixels": {"kind": "pixels"},
    "histogram": {"kind": "histogram"},
    "prevalence": {"kind": "prevalence"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=list(METHODS))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="default: 500; 300 of volumes, 1500 for length")
    parser.add_argument("--at-once", type=int, default=1, help="pretrainings side by side")
    parser.add_argument("--data", type=Path, help="folder with cxr/ and mri/, for real")
    wanted = parser.parse_args()
    root, seeds = wanted.output.resolve(), range(wanted.seeds)
    methods, steps = METHODS[wanted.what], wanted.steps or STEPS.get(wanted.what, 500)
    if wanted.what.endswith("real"):
        runs = {name: [str(root / "runs" / f"{name}-{seed}") for seed in seeds] for name in methods}
        suite = _suite_of_real(root, runs, _real(root, wanted.data.resolve()), wanted.what)
    elif wanted.what.endswith("volumes"):
        shards = _volumes(root)
        runs = _pretrained(root, methods, shards["seen"], seeds, steps, wanted.at_once)
        suite = _suite_of_volumes(root, runs, shards, wanted.what)
    else:
        chests = _studies(root)
        if wanted.what == "alignment":
            methods = _of_chosen_weights(root, chests, steps)
        runs = _pretrained(root, methods, chests, seeds, steps, wanted.at_once)
        suite = _suite_of_studies(root, runs, chests, wanted.what)
    began = time.time()
    _run("benchmark", "--config", str(_written(root, wanted.what, suite)))
    print(f"{wanted.what}: benchmark {time.time() - began:.0f} s, {suite['output']}/report.html")


def _written(root: Path, name: str, suite: dict[str, Any]) -> Path:
    file = root / f"{name}.yaml"
    file.write_text(yaml.safe_dump(suite, sort_keys=False))
    return file


def _of_chosen_weights(root: Path, shards: Path, steps: int) -> dict[str, dict[str, Any]]:
    """The forms of the alignment, each with the weight that validation patients prefer over a few seeds."""
    runs = _pretrained(root, FORMS, shards, SEARCHED, steps)
    suite = _suite_of_studies(root, runs, shards, "alignment")
    suite["output"] = str(root / "search-alignment")
    _run("benchmark", "fit", "--config", str(_written(root, "search-alignment", suite)))
    scores: dict[str, list[float]] = {}
    for fit in Store(Path(suite["output"])).fits():
        if fit.key.cell.studies == ALL and fit.key.cell.head == "linear" and fit.trials:
            scores.setdefault(fit.key.encoder, []).append(max(t.score for t in fit.trials))
    mean = {name: sum(scores[name]) / len(scores[name]) for name in FORMS}
    best: dict[str, str] = {}
    for name in FORMS:
        form = name.rpartition("_")[0]
        best[form] = max(name, best.get(form, name), key=mean.__getitem__)
    print(
        "validation AUROC", {name: round(score, 3) for name, score in mean.items()}, best.values()
    )
    return {name: FORMS[name] for name in best.values()} | REPORTS


def _run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "ray_mae", *words], check=True)


def _studies(root: Path) -> Path:
    shards = root / "studies"
    if not (shards / "manifest.json").is_file():
        write_studies(root / "chest", CHESTS, 0, SIZE, processes=2, caricature=True)
        _run(
            *("ingest", "--archive", "dicom", "--source", str(root / "chest"), "--output", str(shards)),
            *("--dataset", "phantoms", "--insecure_pseudonyms", "true", "--image_size", str(SIZE)),
            *("--validation_share", "0.15", "--test_share", "0.35"),
            *("--attributes", "[sex,age,site,manufacturer]"),
        )  # fmt: skip
    return shards


def _volumes(root: Path) -> dict[str, Path]:
    table = root / "brain" / TABLE
    if not table.is_file():
        write_volumes(root / "brain", HEADS, 0, volumes.SIZE, processes=2)
    found = {}
    for name, contrasts in (("seen", ",".join(PRETRAINING)), ("unseen", volumes.UNSEEN)):
        found[name] = root / f"volumes-{name}"
        if not (found[name] / "manifest.json").is_file():
            _run(
                *("ingest", "--archive", "volume-table", "--source", str(table)),
                *("--dataset", "phantoms", "--insecure_pseudonyms", "true"),
                *("--volumes.spacing_mm", str(volumes.SPACING), "--volumes.modalities", f"[{contrasts}]"),
                *("--validation_share", "0.2", "--test_share", "0.35", "--output", str(found[name])),
            )  # fmt: skip
    return found


def _pretrained(
    root: Path,
    methods: dict[str, dict[str, Any]],
    shards: Path,
    seeds: range,
    steps: int,
    at_once: int = 1,
) -> dict[str, list[str]]:
    """Runs of each method, so many side by side, a seed of all before the next seed."""

    def pretrain(name: str, seed: int) -> None:
        run = root / "runs" / f"{name}-{seed}"
        if not (run / "summary.json").is_file():
            _run(
                *("pretrain", "--shards", str(shards), "--output", str(run)),
                *("--seed", str(seed), "--optim.steps", str(steps)),
                *family.words({**methods[name], **COMMON}),
            )  # fmt: skip

    with ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(pretrain, name, seed) for seed in seeds for name in methods]:
            done.result()
    return {name: [str(root / "runs" / f"{name}-{seed}") for seed in seeds] for name in methods}


def _suite_of_studies(
    root: Path, runs: dict[str, list[str]], shards: Path, what: str
) -> dict[str, Any]:
    first = next(iter(runs))
    forms = what != "studies"
    contrasts = [["v2t", "mvmae"], ["mvmae", "mae"], ["v2t", "v2t_beta0"], ["mvmae", "random"]]
    if forms:
        contrasts = [[name, first] for name in runs if name != first and name not in REPORTS]
    if what == "alignment" and set(REPORTS) < set(runs):
        mse = next(name for name in runs if name.startswith("mse"))
        others = [name for name in runs if name not in (first, mse, *REPORTS)]
        contrasts = [[mse, first], *([name, mse] for name in others), ["v2t_infonce", "v2t_mse"]]
    if what == "decode":
        contrasts = [["decode_50", "mvmae"], ["decode_25", "mvmae"], ["v2t_decode_25", "v2t"]]
    tasks: dict[str, Any] = {"findings": {"dataset": "phantoms"}}
    if what == "rare":
        tasks["rarest"] = {"dataset": "phantoms", "labels": RAREST}
    return {
        "title": f"Phantoms of chests: {what}",
        "output": str(root / f"table-{what}"),
        "encoders": {
            **{name: {"paths": paths} for name, paths in runs.items()},
            **_random(first, what),
            **BASELINES,
            "metadata": {"kind": "metadata", "columns": ["sex", "age", "manufacturer", "view"]},
        },
        "datasets": {"phantoms": {"shards": str(shards)}},
        "tasks": tasks,
        "heads": {"use": ["linear"] if forms else ["linear", "knn"]},
        "label_counts": {"studies": [] if forms else [50, 200], "draws": 3},
        "views": ["all"] if forms else ["all", "frontal", "lateral", "both_features"],
        "contrasts": contrasts,
        "trust": {}
        if forms
        else {
            "subgroups": ["sex", "manufacturer"],
            "knows": ["sex", "manufacturer", "age"],
            "corruptions": ["noise", "jpeg"],
        },
    }


def _random(first: str, what: str) -> dict[str, Any]:
    """Random weights of each network."""
    like = {"random": first, **OTHERS.get(what, {})}
    return {
        name: {"kind": "random", "like": method, "seeds": [0, 1, 2, 3, 4]}
        for name, method in like.items()
    }


def _suite_of_volumes(
    root: Path, runs: dict[str, list[str]], shards: dict[str, Path], what: str
) -> dict[str, Any]:
    first, *others = runs
    contrasts = [["mdae", "mae3d"], ["mdae", "dsm"], ["mdae", "random"]]
    if what != "volumes":
        contrasts = [[name, first] for name in others]
    return {
        "title": f"Phantoms of brains: {what}, on seen and unseen contrasts",
        "output": str(root / f"table-{what}"),
        "encoders": {
            **{name: {"paths": paths} for name, paths in runs.items()},
            **_random(first, what),
            **BASELINES,
            "metadata": {"kind": "metadata", "columns": ["site", "modality"]},
        },
        "datasets": {name: {"shards": str(folder)} for name, folder in shards.items()},
        "tasks": {
            "seen": {"dataset": "seen", "cohort": "heads"},
            "unseen": {"dataset": "unseen", "cohort": "heads"},
        },
        "heads": {"use": ["linear", "knn"] if what == "volumes" else ["linear"]},
        "label_counts": {"studies": [100] if what == "volumes" else [], "draws": 3},
        "contrasts": contrasts,
        "trust": {"subgroups": ["site"], "knows": ["site"], "corruptions": ["bias_field"]}
        if what == "volumes"
        else {},
    }


def _real(root: Path, data: Path) -> dict[str, Path]:
    """Shards of the X-rays and of the brain volumes; labels and sites as their tables have them."""
    films, brains = root / "real-films", root / "real-brains"
    common = ("--insecure_pseudonyms", "true", "--validation_share", "0.2", "--test_share", "0.35")
    if not (films / "manifest.json").is_file():
        columns = {
            "study": "study_id", "patient": "patient_id", "path": "image_path", "site": "source",
            "labels": "labels", "label_names": "own", "split": "null",
        }  # fmt: skip
        flags = [w for k, v in columns.items() for w in (f"--columns.{k}", v)]
        _run(
            *("ingest", "--archive", "table", "--source", str(data / "cxr" / "metadata.csv")),
            *("--dataset", "films", "--image_size", str(SIZE), "--attributes", "[sex,age,site]"),
            *flags, *common, "--output", str(films),
        )  # fmt: skip
    if not (brains / "manifest.json").is_file():
        table = pd.read_csv(data / "mri" / "metadata.csv")
        table = table[(table["kind"] == "image") & (table["use"] == "pretrain")]
        table = table[table["diagnosis"].notna()]
        told = pd.DataFrame(
            {
                "volume": table["volume_id"],
                "patient": table["subject"],
                "path": [str(data / "mri" / path) for path in table["path"]],
                "modality": table["modality"].replace({"T1": "T1w", "T2": "T2w"}),
                "site": table["source"],
                "label_glioma": (table["diagnosis"] == "glioma").astype(int),
                "label_depression": (table["diagnosis"] == "mild depression").astype(int),
            }
        )
        told.to_csv(root / "brains.csv", index=False)
        _run(
            *("ingest", "--archive", "volume-table", "--source", str(root / "brains.csv")),
            *("--dataset", "brains", "--volumes.spacing_mm", str(volumes.SPACING)),
            *common, "--output", str(brains),
        )  # fmt: skip
    return {"films": films, "brains": brains}


def _suite_of_real(
    root: Path, runs: dict[str, list[str]], shards: dict[str, Path], what: str
) -> dict[str, Any]:
    like, like3d = "mvmae", "mdae"
    contrasts = [
        ["v2t", "mvmae"], ["mvmae", "mae"], ["mvmae", "random"],
        ["mdae", "mae3d"], ["mdae", "random3d"],
    ]  # fmt: skip
    if what == "family_real":
        like, like3d = first, first3d = next(iter(FAMILY)), next(iter(FAMILY3D))
        contrasts = [[name, first] for name in FAMILY if name != first]
        contrasts += [[name, first3d] for name in FAMILY3D if name != first3d]
    return {
        "title": "Real X-rays and brain volumes, with encoders pretrained on phantoms",
        "output": str(root / f"table-{what}"),
        "encoders": {
            **{name: {"paths": paths} for name, paths in runs.items()},
            "random": {"kind": "random", "like": like, "seeds": [0, 1, 2, 3, 4]},
            "random3d": {"kind": "random", "like": like3d, "seeds": [0, 1, 2, 3, 4]},
            **BASELINES,
            "metadata": {"kind": "metadata", "columns": ["site"]},
        },
        "datasets": {name: {"shards": str(folder)} for name, folder in shards.items()},
        "tasks": {
            "findings": {"dataset": "films"},
            "age": {"dataset": "films", "kind": "number", "labels": ["age"]},
            "diagnosis": {"dataset": "brains", "least_patients": 3},
        },
        "heads": {"use": ["linear", "knn", "ridge"]},
        "contrasts": contrasts,
        "trust": {"subgroups": ["sex"], "knows": ["site", "sex"]},
        "notes": ["The encoders saw phantoms alone; heads and tests are of real patients."],
    }  # fmt: skip


if __name__ == "__main__":
    main()
