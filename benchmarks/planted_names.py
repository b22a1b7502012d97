"""Names planted in sentences of four languages: how many the rules find, the detector, and both.

    python -m benchmarks.planted_names [--model FOLDER] [--labels PATIENT STAFF] [--reports TABLE.csv]

Without --model a small classifier is trained first, on other sentences and other names than it is tried
on: it shows that the way from a model to the quarantine works, and not what a published model finds.
--reports: a table with a column `text` of real reports without names, for false alarms.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path

from ray_mae.data.privacy.name_detector import NameDetector
from ray_mae.data.privacy.report_sections import sections
from tests.name_models import WITH_NAME, make_name_model, sentences


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--labels", nargs="*")
    parser.add_argument("--min_score", type=float, default=0.5)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--steps", type=int, default=300, help="of the small classifier")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or make_name_model(Path(folder), args.steps)
        detect = NameDetector(model, args.labels, args.min_score)
    print("language  planted  rules  detector  either  false alarms")
    for language in WITH_NAME:
        planted = rules = found = either = clean = alarms = 0
        for text, name in sentences(language, held_out=True):
            mentions = detect(text)
            if name is None:
                clean, alarms = clean + 1, alarms + bool(mentions)
                continue
            by_rule = text[slice(*name)] not in (sections(text).findings or "")
            by_model = any(m.start < name[1] and m.end > name[0] for m in mentions)
            planted, rules, found = planted + 1, rules + by_rule, found + by_model
            either += by_rule or by_model
        print(
            f"{language:8}  {planted:7}  {rules:5}  {found:8}  {either:6}  {alarms} of {clean} sentences"
        )
    if args.reports:
        with args.reports.open(newline="") as file:
            texts = [
                text for row in csv.DictReader(file) if (text := sections(row["text"]).findings)
            ]
        start = time.perf_counter()
        alarms = sum(bool(detect(text)) for text in texts)
        each = (time.perf_counter() - start) / max(1, len(texts))
        print(f"real reports: alarms in {alarms} of {len(texts)}, {1000 * each:.1f} ms each")


if __name__ == "__main__":
    main()
