import pytest

from ray_mae.data.decoding.views import position_of, view_of


@pytest.mark.parametrize(
    ("words", "view"),
    [
        ("PA", "frontal"),
        ("frontal AP", "frontal"),
        ("AP Supine", "frontal"),
        ("A.P. erect", "frontal"),
        ("Postero-anterior", "frontal"),
        ("anteroposterior", "frontal"),
        ("LATERAL", "lateral"),
        ("Left lateral", "lateral"),
        ("LL", "lateral"),
        ("L", "lateral"),
        ("L shoulder", None),
        ("left lateral decubitus", "unknown"),
        ("PA and lateral", "unknown"),
        ("LAO", "unknown"),
        ("seitlich", "lateral"),
        ("Thorax seitlich links", "lateral"),
        ("Perfil izquierdo", "lateral"),
        ("Profil gauche", "lateral"),
        ("RLAT", "lateral"),
        ("LLAT", "lateral"),
        ("latéral", "lateral"),
        ("laterolaterale", "lateral"),
        ("PÓSTERO-ANTERIOR", "frontal"),
        ("postéro-antérieure", "frontal"),
        ("anterior-posterior", "frontal"),
        ("Antero Posterior", "frontal"),
        ("p.-a.", "frontal"),
        ("Thorax face", "frontal"),
        ("frontale", "frontal"),
        ("schräg", "unknown"),
        ("oblicua", "unknown"),
        ("Decúbito lateral", "unknown"),
        ("PA y perfil", "unknown"),
        ("face", None),
        ("unknown", None),
        ("nan", None),
        ("", None),
        (None, None),
    ],
)
def test_a_view_is_read_from_the_words_archives_use(words: str | None, view: str | None) -> None:
    assert view_of(words) == view


def test_a_position_keeps_only_words_that_are_positions() -> None:
    assert position_of("AP supine, Mrs Miller, ward 7") == "AP supine"
    assert position_of("Miller") is None
