"""What is said of one thing as if it were several, in the languages of the texts."""

import re

ONE = r"(?<![\w.,·−⁻])1\s"
OF_ONE = r"(?:of(?: the)?\s1|(?:des?|sur)\s1)(?![\w]|[.,·]\w| /)"  # 1 / B is a formula
WRONG = {
    "en": (
        ONE + r"(?:random )?(?:seed|order|epoch|step|batche|run|network|passe|point|sample|number"
        r"|pair|update|step size|batch gradient|combination|row|second|other)s\b",
        rf"\b(?:\d+|none|each|any|half|all|medians?|mean) {OF_ONE}",
        ONE + r"of (?:the )?\d+ (?:random )?\w+ (?:stop|diverge|come|get|are|do|have|end|differ)\b",
    ),
    "fr": (
        ONE + r"(?:graines|ordres|époques|lots|exécutions|réseaux|passages|points|échantillons"
        r"|nombres|mises à jour|mesures|gradients|secondes|autres)\b",
        rf"\b(?:\d+|aucune?|chacune?|moitié|tous|toutes|médianes?|moyenne) {OF_ONE}",
        ONE + r"(?:des|sur) \d+ \w+ (?:s'arrêtent|divergent|sont|ont|diffèrent|passent)\b",
    ),
}


def plurals_of_one(text, lang):
    """Return the words of a text that count one thing in the plural, as `1 seeds`, `2 of 1`."""
    return [found[0] for wrong in WRONG[lang] for found in re.finditer(wrong, text)]
