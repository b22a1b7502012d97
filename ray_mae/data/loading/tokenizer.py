"""Report text to tokens: a WordPiece vocabulary of our own, trained on the training split."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ray_mae.data.shard_set import ShardSet

PAD, UNKNOWN, FIRST, LAST, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL = (PAD, UNKNOWN, FIRST, LAST, MASK)  # BERT's names, so that its vocabularies fit

# A vocabulary travels with every checkpoint: a word of a single report, perhaps a name that no rule
# found, must not become part of it.
MIN_FREQUENCY = 5


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


def training_reports(shards: ShardSet, section: str) -> Iterator[str]:
    """Yields the report texts of the training split.

    Args:
        shards: folders of studies.
        section: as of `report_text`.
    """
    for path, _ in shards.of_split("train"):
        table = pq.read_table(path, columns=["findings", "impression"])
        for row in table.to_pylist():
            text = report_text(row, section)
            if text:
                yield text


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> str:
    """Trains a lower-case WordPiece tokenizer and returns it as a tokenizers JSON document.

    The same texts give the same document. By itself the trainer numbers the letters inside of words as
    a hash table happens to hold them, and of merges that are equally frequent takes the lower numbers:
    each training would end with another vocabulary. So they are given to it in order, first of all.

    Args:
        texts: to train on.
        vocabulary: size, at most.
    """
    texts = list(texts)
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    inside = [f"##{letter}" for letter in sorted(_letters_inside(tokenizer, texts))]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*SPECIAL, *inside],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [t for t in document["added_tokens"] if t["content"] in SPECIAL]
    words = sorted(set(document["model"]["vocab"]) - set(SPECIAL))
    document["model"]["vocab"] = {word: i for i, word in enumerate((*SPECIAL, *words))}
    return json.dumps(document)


def _letters_inside(tokenizer: Tokenizer, texts: list[str]) -> set[str]:
    """Characters that stand anywhere but at the beginning of a word."""
    words = {
        word
        for text in texts
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(
            tokenizer.normalizer.normalize_str(text)
        )
    }
    return {letter for word in words for letter in word[1:]}


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
