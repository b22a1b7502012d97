"""What the summary of an ingest says of studies: counted by the workers, described for each split."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ray_mae.data.archives.attributes import OLDEST
from ray_mae.data.decoding.image_preprocessing import PreparedImage
from ray_mae.data.ingest.grouping import StudyEntry
from ray_mae.data.labels import STATE_NAMES
from ray_mae.data.privacy.report_sections import Sections
from ray_mae.data.schema import VIEWS


def count_header(counts: Counter[str], prepared: PreparedImage) -> None:
    """Count what the header says that is not in the row."""
    if header := prepared.header:
        counts["burned in"] += header.burned_in
        counts["for processing"] += header.for_processing
        counts[f"body part/{header.body_part}"] += 1


def count_study(
    counts: Counter[str],
    study: StudyEntry,
    report: Sections,
    views: list[dict[str, Any]],
    label_names: Sequence[str],
    attributes: Sequence[str],
) -> None:
    """Count a study that is written."""
    counts["study"] += 1
    counts["image"] += len(views)
    counts["image bytes"] += sum(len(view["image"]) for view in views)
    counts["with findings"] += report.findings is not None
    counts["with impression"] += report.impression is not None
    counts["report"] += any(report)
    counts[f"views per study/{len(views)}"] += 1
    counts.update(f"views/{view['view']}" for view in views)
    for label, state in zip(label_names, study.labels, strict=True):
        counts[f"labels/{label}/{STATE_NAMES[state]}"] += 1
    for name in attributes:
        counts[f"attributes/{name}/{described_attribute(name, study.attributes.get(name))}"] += 1


def described_attribute(name: str, value: Any) -> str:
    """What an attribute is counted under: ages by decade."""
    if value is None:
        return "unknown"
    if name == "field_strength":
        return f"{value:.4g} T"
    if name != "age":
        return str(value)
    return f"{OLDEST}+" if value >= OLDEST else f"{value // 10 * 10}-{value // 10 * 10 + 9}"


def describe(
    counts: Counter[str], label_names: Sequence[str], attributes: Sequence[str]
) -> dict[str, Any]:
    """What the summary says of a split."""
    kept = {name: _under(counts, f"attributes/{name}/") for name in attributes}
    return {
        "images": counts["image"],
        "views": {view: counts[f"views/{view}"] for view in VIEWS},
        "views_per_study": _under(counts, "views per study/"),
        "with_report": counts["report"],
        "with_findings": counts["with findings"],
        "with_impression": counts["with impression"],
        "labels": {
            label: {name: counts[f"labels/{label}/{name}"] for name in STATE_NAMES.values()}
            for label in label_names
        },
        **({"attributes": kept} if attributes else {}),
        "images_with_burned_in_text": counts["burned in"],
        "images_for_processing": counts["for processing"],
        "body_parts": _under(counts, "body part/"),
        "image_bytes": counts["image bytes"],
    }


def _under(counts: Counter[str], prefix: str) -> dict[str, int]:
    """The counts whose names begin so, by the rest of the name."""
    below = {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}
    return dict(sorted(below.items(), key=lambda item: (len(item[0]), item[0])))
