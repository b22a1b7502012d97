"""Pseudonyms of patients and studies, and the split that follows from a pseudonym."""

import hashlib
import hmac
import os
from pathlib import Path

ENVIRONMENT = "RAY_MAE_PSEUDONYM_KEY"
_PUBLIC_KEY = b"ray_mae: a key everybody knows"
_LEAST_BYTES = 16
_SPLIT_NAMES = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validate", "validation", "dev"},
    "test": {"test", "testing"},
}


def load_key(file: Path | None, insecure: bool, dataset: str | None = None) -> bytes:
    """Load the secret key of the pseudonyms.

    Args:
        file: that holds it; None: the environment variable does.
        insecure: use the publicly known key, for public or generated data.
        dataset: whose patients the publicly known key is for: "patient 1" of another one is another
            person. None: one key for all, as shards of earlier versions have it.

    Raises:
        ValueError, FileNotFoundError: there is no key, or none that will do, and what to do about it.
    """
    if insecure and file is not None:
        raise ValueError(
            "insecure_pseudonyms asks for the publicly known key and pseudonym_key names a secret "
            "one: leave one of them out"
        )
    if insecure:
        return _PUBLIC_KEY if dataset is None else _hmac(_PUBLIC_KEY, f"dataset\0{dataset}")
    if file is not None:
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} does not exist (pseudonym_key): make one with `openssl rand -hex 32 > "
                f"{file}` and keep it secret"
            )
        key, origin = file.read_bytes().strip(), str(file)
    else:
        key, origin = os.environ.get(ENVIRONMENT, "").strip().encode(), ENVIRONMENT
    if not key:
        raise ValueError(
            f"there is no key for the pseudonyms: set {ENVIRONMENT} to a secret, or pseudonym_key "
            "to a file that holds one; for public or generated data say "
            "--insecure-pseudonyms"
        )
    if len(key) < _LEAST_BYTES:
        raise ValueError(
            f"the pseudonym key in {origin} must have at least {_LEAST_BYTES} bytes, got {len(key)}: "
            "`openssl rand -hex 32` makes a good one"
        )
    return key


def pseudonym(key: bytes, kind: str, identifier: str) -> str:
    """The pseudonym of an identifier: 20 hexadecimal digits.

    Without the key nobody can go back, nor try which of the known identifiers it is.

    Args:
        key: the secret one.
        kind: patient, study, volume or session: the same identifier has another pseudonym in each.
        identifier: the archive's own.
    """
    return _hmac(key, f"{kind}\0{identifier}").hex()[:20]


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.digest(key, message.encode(errors="surrogatepass"), "sha256")


def split_by_hash(patient_id: str, validation_share: float, test_share: float) -> str:
    """The split of a patient, by a hash of the pseudonym: the same whatever else is in the archive.

    A larger test share only moves patients into test, it never moves one out of it.

    Args:
        patient_id: pseudonym.
        validation_share, test_share: of all patients, 0 to 1.

    Returns:
        train, val or test.
    """
    digest = hashlib.sha256(f"split\0{patient_id}".encode()).digest()
    position = int.from_bytes(digest[:8]) / 2**64
    if position < test_share:
        return "test"
    # From the other end, so that changing the one share leaves the other split as it is.
    return "val" if position >= 1 - validation_share else "train"


def split_named(word: str) -> str | None:
    """train, val or test for the archive's own word; None if it is none of them."""
    return next((s for s, names in _SPLIT_NAMES.items() if word.strip().lower() in names), None)
