"""Report text to tokens: a WordPiece vocabulary of our own, trained on the training split."""

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ray_mae.data.loading.order import permutation
from ray_mae.data.parquet import read_columns
from ray_mae.data.schema import Shard
from ray_mae.data.shard_set import ShardSet
from ray_mae.random_streams import Draw

PAD, UNKNOWN, FIRST, LAST, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL = (PAD, UNKNOWN, FIRST, LAST, MASK)  # BERT's names, so that its vocabularies fit

# A vocabulary travels with every checkpoint: what is written of a few patients, perhaps a name that no
# rule found, must not become part of it, however often it is written.
MIN_PATIENTS = 5
MOST_REPORTS = 500_000
"""That a vocabulary is trained on: more change no word that matters, and take minutes and gigabytes."""


@dataclass(frozen=True)
class TextIds:
    """What a method must know of a tokenizer: its size and the ids that are no words."""

    size: int
    pad: int
    first: int
    last: int
    mask: int


def report_text(row: dict, section: str) -> str | None:
    """Returns the text of a report, or None.

    Args:
        row: of a study.
        section: findings; impression, which falls back to findings; or both, joined.
    """
    findings, impression = row["findings"], row["impression"]
    if section == "findings":
        return findings
    if section == "impression":
        return impression or findings
    return " ".join(part for part in (findings, impression) if part) or None


def training_reports(shards: ShardSet, section: str) -> Iterator[tuple[str, str]]:
    """Yields patient and text of each report of the training split, or of MOST_REPORTS of them.

    Args:
        shards: folders of studies. Of more studies than MOST_REPORTS, whole files are taken in a fixed
            random order until there are as many.
        section: as of `report_text`.
    """
    files = shards.of_split("train")
    if shards.rows("train") > MOST_REPORTS:
        files = [files[i] for i in permutation(len(files), Draw.VOCABULARY)]
    return islice(_reports(files, section), MOST_REPORTS)


def _reports(files: Sequence[tuple[Path, Shard]], section: str) -> Iterator[tuple[str, str]]:
    for table in read_columns(files, ["patient_id", "findings", "impression"]):
        for row in table.to_pylist():
            text = report_text(row, section)
            if text:
                yield row["patient_id"], text


def train_tokenizer(reports: Iterable[tuple[str, str]], vocabulary: int) -> str:
    """Trains a lower-case WordPiece tokenizer and returns it as a tokenizers JSON document.

    A word counts as often as there are patients with it. What less than MIN_PATIENTS have is left out:
    such words are written in pieces of others, at last letter by letter.

    The same reports give the same document. By itself the trainer numbers the letters inside of words as
    a hash table happens to hold them, and of merges that are equally frequent takes the lower numbers:
    each training would end with another vocabulary. So they are given to it in order, first of all.

    Args:
        reports: patient and text of each.
        vocabulary: number of tokens at most.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    patients_of = _patients_of(tokenizer, reports)
    inside = sorted({f"##{letter}" for word in patients_of for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        min_frequency=MIN_PATIENTS,
        special_tokens=[*SPECIAL, *inside],
        initial_alphabet=sorted({word[0] for word in patients_of}),
        show_progress=False,
    )
    usual = {word: number for word, number in patients_of.items() if number >= MIN_PATIENTS}
    tokenizer.train_from_iterator(
        (" ".join([word] * usual[word]) for word in sorted(usual)), trainer
    )
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [t for t in document["added_tokens"] if t["content"] in SPECIAL]
    words = sorted(set(document["model"]["vocab"]) - set(SPECIAL))
    document["model"]["vocab"] = {word: i for i, word in enumerate((*SPECIAL, *words))}
    return json.dumps(document)


def _patients_of(tokenizer: Tokenizer, reports: Iterable[tuple[str, str]]) -> dict[str, int]:
    """How many patients have each word in a report."""
    patients: dict[str, int] = {}
    numbers: dict[str, int] = {}
    pairs = array("Q")  # patient and word, 32 bits each
    for patient, text in reports:
        of_patient = patients.setdefault(patient, len(patients)) << 32
        normal = tokenizer.normalizer.normalize_str(text)
        words = {word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)}
        pairs.extend(of_patient | numbers.setdefault(word, len(numbers)) for word in words)
    each_once = np.unique(np.array(pairs, np.uint64)) & np.uint64(0xFFFFFFFF)
    times = np.bincount(each_once.astype(np.int64), minlength=len(numbers))
    return {word: int(times[number]) for word, number in numbers.items()}


def load_tokenizer(path: Path) -> str:
    """Returns a tokenizers file as a JSON document.

    Raises:
        ValueError: it lacks a special token.
    """
    document = Tokenizer.from_file(str(path)).to_str()
    missing = [token for token in SPECIAL if parse(document).token_to_id(token) is None]
    if missing:
        raise ValueError(
            f"{path} lacks the special tokens {', '.join(missing)}: add them, or leave "
            "data.tokenizer empty to train a vocabulary on the reports"
        )
    return document


@lru_cache(maxsize=4)
def parse(document: str) -> Tokenizer:
    """Returns the tokenizer of a JSON document."""
    return Tokenizer.from_str(document)


def special_ids(document: str) -> TextIds:
    """Returns size, and ids of padding, first, last and mask token, of a JSON document."""
    vocabulary = parse(document).get_vocab()
    size = max(vocabulary.values()) + 1
    return TextIds(size, *(vocabulary[token] for token in (PAD, FIRST, LAST, MASK)))


def encode_reports(
    document: str, texts: list[str | None], max_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens [S, L] int64 and has_report [S] bool.

    Args:
        document: JSON document of the tokenizer.
        texts: of the reports; None for a study without one.
        max_tokens: first and last token included; L is the longest text here.
    """
    special = special_ids(document)
    encoded = parse(document).encode_batch([text or "" for text in texts], add_special_tokens=False)
    ids = [[special.first, *e.ids[: max_tokens - 2], special.last] for e in encoded]
    tokens = np.full((len(ids), max(map(len, ids))), special.pad, np.int64)
    for row, each in zip(tokens, ids, strict=True):
        row[: len(each)] = each
    return tokens, np.array([bool(text) for text in texts])


def decode_tokens(document: str, ids: list[int]) -> str:
    """Returns the text of tokens up to the last-token mark.

    Args:
        document: JSON document of the tokenizer.
        ids: of the tokens.
    """
    last = special_ids(document).last
    if last in ids:
        ids = ids[: ids.index(last)]
    return parse(document).decode(ids, skip_special_tokens=True)
