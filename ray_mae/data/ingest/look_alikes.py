"""Patients whose images look the same, in one split: one person under two numbers, or one film twice."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray_mae.data.ingest.shards import IngestJob, ShardPlan
from ray_mae.data.look_alikes import ContentIndex
from ray_mae.data.parallel_map import parallel_map
from ray_mae.data.paths import retry_transient
from ray_mae.data.schema import SPLITS

Splits = dict[str, str]
"""Of patients, by their pseudonyms."""


def keep_together(
    job: IngestJob, root: Path, plan_again: Callable[[Splits], IngestJob]
) -> tuple[IngestJob, dict[str, int]]:
    """Plan the shards so that patients whose images look the same are in one split.

    Such a group goes to train if one of its patients is there, else to val: so none that was trained on
    moves out of train as an archive grows. Where the archive itself has put some into a split, the others
    follow.

    Args:
        job: as it is planned by patients alone.
        root: of the archive's files, all of which are read.
        plan_again: plans with other splits of some patients.

    Returns:
        The new job, and what to say of it in the summary.
    """
    groups, pairs = _find_groups(job, root)
    before = _splits_of(job, groups)
    splits: Splits = {}
    # the second time after those whom the archive leaves no choice
    for _ in range(2 if groups else 0):
        now = _splits_of(job, groups)
        for group in groups:
            here = {now[patient] for patient in group}
            fixed = {
                now[patient]
                for patient in group
                if splits.get(patient, now[patient]) != now[patient]
            }
            wanted = next(iter(fixed)) if len(fixed) == 1 else min(here, key=SPLITS.index)
            if len(here) > 1:
                splits |= dict.fromkeys(group, wanted)
        job = plan_again(splits)
    after = _splits_of(job, groups)
    return job, {
        "pairs_of_images": pairs,
        "groups_of_patients": len(groups),
        "patients": len(before),
        "largest_group": max(map(len, groups), default=0),
        "patients_moved": sum(before[patient] != after[patient] for patient in before),
        "groups_that_the_archive_splits": sum(
            len({after[patient] for patient in group}) > 1 for group in groups
        ),
    }


def _find_groups(job: IngestJob, root: Path) -> tuple[list[list[str]], int]:
    """Patients who look alike, directly or by others between them, and how many pairs of images do."""
    index, patients = ContentIndex(), []
    kind = job.plan  # not the job: what the task names travels to the workers
    seen: set[tuple[str, str]] = set()
    for looks in parallel_map(lambda fields: _looks(kind.from_json(fields), root), job.plans):
        for patient, bits in looks:
            if (patient, bits) not in seen:
                seen.add((patient, bits))
                patients.append(patient)
                index.add("", "", patient, b"", bytes.fromhex(bits))
    leader: dict[str, str] = {}

    def lead(patient: str) -> str:
        while (above := leader.get(patient, patient)) != patient:
            leader[patient] = leader.get(above, above)
            patient = above
        return patient

    pairs = 0
    for a, b in index.near():
        pairs += len(a)
        for i, j in zip(a, b, strict=True):
            one, other = sorted((lead(patients[i]), lead(patients[j])))
            leader[other] = one
    groups: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(leader):
        groups[lead(patient)].append(patient)
    for first, others in groups.items():
        groups[first] = sorted({first, *others})
    return list(groups.values()), pairs


def _looks(plan: ShardPlan, root: Path) -> list[tuple[str, str]]:
    """Patient and bits of each image or volume, as plain fields."""

    def read() -> list[tuple[str, str]]:
        return [(patient, bits.hex()) for patient, bits in plan.looks(root)]

    return retry_transient(read, remote=False)


def _splits_of(job: IngestJob, groups: list[list[str]]) -> Splits:
    wanted: dict[str, Any] = dict.fromkeys(patient for group in groups for patient in group)
    for plan in job.plans:
        for _, patient in plan.samples:
            if patient in wanted:
                wanted[patient] = plan.split
    return wanted
