import pytest

from ray_mae.data.decoding.body_parts import body_part_of


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("CHEST", "chest"),
        ("PORTABLE CHEST", "chest"),
        ("THORAX^PA", "chest"),
        ("Tórax AP y L", "chest"),
        ("Radiographie des poumons", "chest"),
        ("ThoraxSeitlich", "chest"),
        ("Ribs left", "chest"),
        ("Thoracic spine", "spine"),
        ("TSPINE", "spine"),
        ("LWS seitlich", "spine"),
        ("columna lumbar", "spine"),
        ("HIP", "hip"),
        ("Hüfte axial", "hip"),
        ("cadera", "hip"),
        ("hanche droite", "hip"),
        ("Beckenübersicht", "pelvis"),
        ("ARM", "arm"),
        ("Unterarm rechts", "arm"),
        ("WRIST", "arm"),
        ("HAND", "hand"),
        ("Knie a.p.", "knee"),
        ("rodilla", "knee"),
        ("Sprunggelenk", "foot"),
        ("FEMUR", "leg"),
        ("JAW", "tooth"),
        ("Zahn 36", "tooth"),
        ("OPG", "tooth"),
        ("MAMMOGRAPHY", "breast"),
        ("SKULL", "head"),
        ("EXTREMETY", "extremity"),
        ("Upper extremity", "arm"),
        ("ABDOMENPELVIS", "several"),
        ("Chest and abdomen", "several"),
        ("CHEST C-ARM", "chest"),
        ("CHEST 6 FEET", "chest"),
        ("CHEST PA HEAD FIRST", "chest"),
        ("Torax de pie", "chest"),
        ("TG18-QC pattern", "phantom"),
        ("SMPTE", "phantom"),
        ("CHEST PHANTOM", "phantom"),
        ("Testbild", "phantom"),
        ("Chestnut, Army", "unknown"),
        ("Handley", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_part_is_named_in_the_words_of_archives(words: str, part: str) -> None:
    assert body_part_of(words) == part


def test_what_contradicts_itself_is_several_and_an_extremity_is_as_good_as_its_arm() -> None:
    assert body_part_of("CHEST", "HAND") == "several"
    assert body_part_of("EXTREMITY", "Forearm") == "arm"
    assert body_part_of("CHEST", "Thorax p.a.") == "chest"
