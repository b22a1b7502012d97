"""Names in reports by a language model, beside the rules of deidentify.py.

The rules know forms, a token classifier knows sentences: "as Sarah Miller noted yesterday" has no form. It
is any of Hugging Face's layout, read from a folder, such as a published de-identification model or a NER
model of the reports' language. What it finds is never cut out by itself: the report goes to a person or to
quarantine.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

# What token classifiers call people and ways to reach or to tell them, without B-, I- …; models of general
# NER have PER or PERSON alone. Places, organisations and dates are left to the rules: in reports most of
# what a model calls so is none.
IDENTIFYING = frozenset(
    "per person name patient doctor staff hcw username surname givenname firstname lastname middlename "
    "id idnum medicalrecord mrn ssn phone phonenumber telephonenum fax email url contact".split()
)


@dataclass(frozen=True)
class Mention:
    """What a model takes for a name or the like."""

    label: str
    """The model's name for its kind."""
    start: int
    end: int
    """Characters [start, end) of the text."""
    score: float
    """The model's probability."""


class NameDetector:
    """A token classifier from a folder.

    Args:
        folder: with config.json, the weights and the tokenizer, as `save_pretrained` writes them.
        labels: of the model that count, without B- and I-; None: those of IDENTIFYING.
        min_score: probability from which a mention counts.

    Raises:
        FileNotFoundError: the folder holds no such model.
        ValueError: it is another kind of model, or has none of the labels.
        ModuleNotFoundError: transformers is not installed.
    """

    def __init__(self, folder: Path, labels: Sequence[str] | None, min_score: float) -> None:
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} holds no config.json (names.model): a folder is wanted with a token classifier "
                "as transformers saves it"
            )
        try:
            from transformers import AutoModelForTokenClassification, AutoTokenizer
            from transformers.utils.logging import disable_progress_bar
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "names.model needs transformers, of the extra `names`: uv sync --extra names"
            ) from error
        disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForTokenClassification.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{folder} cannot be read as a token classifier (names.model): {error}"
            ) from error
        if not tokenizer.is_fast:
            raise ValueError(
                f"{folder} has no fast tokenizer (names.model): tokenizer.json is missing; one that says "
                "where in the text its tokens stand is needed"
            )
        self.tokenizer, self.model, self.min_score = tokenizer, model.eval(), min_score
        own = {int(index): _bare(name) for index, name in model.config.id2label.items()}
        wanted = IDENTIFYING if labels is None else {_simple(label) for label in labels}
        self.labels: dict[str, list[int]] = {}  # places among the model's outputs: of B-, of I- …
        for index, name in own.items():
            if _simple(name) in wanted:
                self.labels.setdefault(name, []).append(index)
        known = {_simple(name) for name in own.values()}
        if unknown := [label for label in labels or () if _simple(label) not in known]:
            raise ValueError(
                f"{folder} has no label {', '.join(unknown)} (names.labels); it has "
                f"{', '.join(sorted(set(own.values())))}"
            )
        if not self.labels:
            raise ValueError(
                f"{folder} has the labels {', '.join(sorted(set(own.values())))}: which of them say that a "
                "person is named? Say so with names.labels"
            )

    def __call__(self, text: str) -> list[Mention]:
        """What the model finds in a text of any length, by its place.

        A token counts with its whole word. Words of one kind that touch, or have one character between
        them, are one mention; its score is that of its surest token.
        """
        import torch

        mentions: list[Mention] = []
        with torch.inference_mode():
            for offsets, probabilities in self._windows(text):
                for (start, end), of_token in zip(offsets, probabilities, strict=True):
                    scores = {
                        name: sum(of_token[index] for index in places)
                        for name, places in self.labels.items()
                    }
                    best = max(scores, key=scores.__getitem__)
                    if end > start and scores[best] >= self.min_score:
                        mentions.append(Mention(best, *_word(text, start, end), scores[best]))
        return _joined(sorted(mentions, key=lambda mention: (mention.start, mention.end)))

    def _windows(self, text: str) -> Any:
        """Offsets and probabilities by label of the tokens of each window, which overlap by a quarter."""
        import torch

        longest = min(self.tokenizer.model_max_length, self._positions(), 512)
        encoded = self.tokenizer(
            text, truncation=True, max_length=longest, stride=longest // 4,
            return_overflowing_tokens=True, return_offsets_mapping=True,
        )  # fmt: skip
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            logits = self.model(torch.tensor([ids])).logits[0]  # [tokens, labels]
            yield offsets, logits.float().softmax(-1).tolist()

    def _positions(self) -> int:
        """Tokens that the model has positions for. RoBERTa counts two of them for padding."""
        config = self.model.config
        positions = getattr(config, "max_position_embeddings", None) or 512
        offset = (getattr(config, "pad_token_id", None) or 0) + 1
        return int(positions - offset) if "roberta" in config.model_type else int(positions)


@lru_cache(maxsize=1)
def name_detector(folder: Path, labels: tuple[str, ...] | None, min_score: float) -> NameDetector:
    """The detector, read once by each process."""
    return NameDetector(folder, labels, min_score)


def _bare(label: str) -> str:
    """A label without the letter that says where in a mention its token stands."""
    return re.sub(r"^[BIELSU]-", "", label)


def _simple(label: str) -> str:
    return re.sub(r"[^a-z]", "", _bare(label).lower())


def _word(text: str, start: int, end: int) -> tuple[int, int]:
    while start > 0 and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    while end < len(text) and text[end - 1].isalnum() and text[end].isalnum():
        end += 1
    return start, end


def _joined(mentions: Sequence[Mention]) -> list[Mention]:
    joined: list[Mention] = []
    for mention in mentions:
        last = joined[-1] if joined else None
        if last and mention.label == last.label and mention.start <= last.end + 1:
            end, score = max(last.end, mention.end), max(last.score, mention.score)
            joined[-1] = Mention(last.label, last.start, end, score)
        else:
            joined.append(mention)
    return joined
