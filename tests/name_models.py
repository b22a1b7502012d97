"""A small token classifier that finds names, and the texts that it learns from and is tried on."""

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

# Sentences of reports with a name, and without one, by language. The names below fill the slots.
WITH_NAME = {
    "en": ["As {0} noted yesterday, the effusion has grown.", "{0} was shown the film on the ward.",
           "The film was compared by {0} with the earlier one.", "We spoke with {0} about the nodule.",
           "Clear lungs, as {0} had thought.", "Her mother, {0}, was there for the examination.",
           "Seen together with {0} this morning.", "The tube was placed by {0} and lies well."],
    "de": ["Wie {0} gestern anmerkte, hat der Erguss zugenommen.", "Das Bild wurde {0} auf Station gezeigt.",
           "Der Befund wurde mit {0} besprochen.", "Die Lunge ist frei, wie {0} vermutet hatte.",
           "Die Mutter, {0}, war bei der Untersuchung dabei.", "Am Morgen mit {0} zusammen gesehen.",
           "Der Tubus wurde von {0} gelegt und liegt korrekt.", "Vergleich mit dem Bild, das {0} sah."],
    "es": ["Como {0} comentó ayer, el derrame ha aumentado.", "La placa se mostró a {0} en la planta.",
           "El hallazgo se comentó con {0} esta tarde.", "Pulmones libres, como {0} pensaba.",
           "Su madre, {0}, estuvo presente en la prueba.", "Vista junto con {0} esta mañana.",
           "El tubo fue colocado por {0} y está bien.", "Se compara con la placa que vio {0}."],
    "fr": ["Comme {0} l'a noté hier, l'épanchement a augmenté.", "Le cliché a été montré à {0} hier soir.",
           "Le résultat a été discuté avec {0} ce matin.", "Poumons clairs, comme {0} le pensait.",
           "Sa mère, {0}, était présente à l'examen.", "Vu avec {0} en salle ce matin.",
           "La sonde a été posée par {0} et reste en place.", "Comparé au cliché que {0} avait vu."],
}  # fmt: skip
WITHOUT = {
    "en": ["The heart is of normal size.", "No pleural effusion.", "Swan-Ganz catheter in the right atrium.",
           "Kerley lines are seen.", "Small nodule in the left upper lobe.", "Degeneration of the Spine.",
           "Interval removal of the Dobbhoff tube.", "Stable postoperative appearance."],
    "de": ["Das Herz ist normal groß.", "Kein Pleuraerguss.", "Kerley-Linien beidseits.",
           "Kleiner Rundherd im linken Oberlappen.", "Port von rechts mit Spitze in der Vena cava.",
           "Keine frische Fraktur der Rippen.", "Zustand nach Entfernung des Schlauchs.", "Stabiler Befund."],
    "es": ["Corazón de tamaño normal.", "Sin derrame pleural.", "Líneas de Kerley bilaterales.",
           "Pequeño nódulo en el lóbulo superior izquierdo.", "Catéter de Swan-Ganz en la aurícula.",
           "Sin fractura de las costillas.", "Cambios degenerativos de la Columna.", "Sin cambios."],
    "fr": ["Coeur de taille normale.", "Pas d'épanchement pleural.", "Lignes de Kerley des deux côtés.",
           "Petit nodule du lobe supérieur gauche.", "Cathéter de Swan-Ganz dans l'oreillette.",
           "Pas de fracture des côtes.", "Remaniements dégénératifs du Rachis.", "Aspect stable."],
}  # fmt: skip
FIRST = {
    "en": "Sarah Michael Emily James Olivia Daniel Grace Thomas Hannah Peter Alice Robert".split(),
    "de": "Jürgen Sabine Wolfgang Heike Matthias Ingrid Uwe Katrin Stefan Gisela Bernd Anke".split(),
    "es": "Carmen José Lucía Javier Pilar Íñigo Rocío Álvaro Marta Sergio Elena Pablo".split(),
    "fr": "Camille Jean Élodie Pierre Margaux Luc Amélie Antoine Chloé Hugo Manon Gérard".split(),
}
LAST = {
    "en": "Miller Brown Thompson Walker Hughes Bennett Foster Murphy Collins Reed Palmer Hayes".split(),
    "de": "Schäfer Krüger Weiß Lehmann Hofmann Vogel Schröder Zimmermann Kuhn Brandt Pohl Engel".split(),
    "es": "García Muñoz Ortega Vázquez Iglesias Peña Castillo Romero Núñez Serrano Gil Campos".split(),
    "fr": "Lefèvre Moreau Girard Fournier Rousseau Blanc Garnier Perrin Chevalier Renard Noël Roux".split(),
}


def names(language: str, held_out: bool) -> list[str]:
    """Full names; every third of the first and of the last names is held out."""
    first, last = (
        [n for i, n in enumerate(of[language]) if (i % 3 == 0) == held_out] for of in (FIRST, LAST)
    )
    return [f"{one} {two}" for one in first for two in last] + last


def sentences(language: str, held_out: bool) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Texts with the place of the name in each, None where there is none; half of the sentences each."""
    for index, sentence in enumerate(WITH_NAME[language]):
        if (index % 2 == 0) != held_out:
            for name in names(language, held_out):
                start = sentence.index("{0}")
                yield sentence.format(name), (start, start + len(name))
    for index, sentence in enumerate(WITHOUT[language]):
        if (index % 2 == 0) != held_out:
            yield from [(sentence, None)] * 8


def make_name_model(folder: Path, steps: int = 60, seed: int = 0) -> Path:
    """Train a classifier of characters on the sentences that are not held out, and save it.

    It is no de-identification model: it has two layers and knows 96 names.
    """
    torch.manual_seed(seed)
    drawn = random.Random(seed)
    examples = [
        example for language in WITH_NAME for example in sentences(language, held_out=False)
    ]
    letters = sorted(
        {letter for text, _ in examples for letter in text} | set("abcdefghijklmnopqrstuvwxyz")
    )
    vocabulary = {
        letter: i for i, letter in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern="", behavior="isolated")
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=256,
    )  # fmt: skip
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=256, id2label={0: "O", 1: "B-PER", 2: "I-PER"},
        label2id={"O": 0, "B-PER": 1, "I-PER": 2},
    )  # fmt: skip
    model = BertForTokenClassification(config)
    optimiser = torch.optim.AdamW(model.parameters(), 4e-3)
    for _ in range(steps):
        batch = drawn.sample(examples, 16)
        encoded = fast(
            [text for text, _ in batch],
            padding=True,
            return_tensors="pt",
            return_offsets_mapping=True,
        )
        targets = torch.full(encoded["input_ids"].shape, -100)
        for row, (_, name) in enumerate(batch):
            for column, (start, end) in enumerate(encoded["offset_mapping"][row].tolist()):
                if end > start:
                    inside = name is not None and name[0] <= start < name[1]
                    targets[row, column] = (1 if start == name[0] else 2) if inside and name else 0
        model(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], labels=targets
        ).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval().save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
