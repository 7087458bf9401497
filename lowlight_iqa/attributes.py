"""The six attributes of a picture, their names, words and sentence. The names are LEIQ-Assessor's."""

from collections.abc import Mapping

ATTRIBUTES = ("light", "color", "noise", "exposure", "nature", "content_recovery")

# Words of MLE's descriptions for the low, middle and high third of an attribute's 1..5.
WORDS = {
    "light": ("dim brightness", "moderate brightness", "good brightness"),
    "color": ("poor color", "fair color", "good color"),
    "noise": ("severe noise", "obvious noise", "slight noise"),
    "exposure": ("severe overexposure", "local overexposure", "well-controlled exposure"),
    "content_recovery": ("much detail lost", "some detail lost", "its detail kept"),
    "nature": ("an unnatural appearance", "a partly natural appearance", "a natural appearance"),
}


def third_of_scale(rating: float) -> int:
    """Return 0, 1 or 2 for the low, middle and high third of the 1..5 scale.

    Example:
        >>> [third_of_scale(rating) for rating in (1, 2.3, 2.4, 3.6, 3.7, 5)]
        [0, 0, 1, 1, 2, 2]
    """
    return min(2, max(0, int(3 * (rating - 1) / 4)))


def sentence(attributes: Mapping[str, float]) -> str:
    """Describe the six attributes, on 1..5, in one sentence.

    Example:
        >>> sentence(dict.fromkeys(ATTRIBUTES, 1.5) | {"noise": 4.5})
        'The image has dim brightness, poor color, slight noise, severe overexposure and much detail lost, presenting
        an unnatural appearance.'
    """
    phrases = {name: WORDS[name][third_of_scale(attributes[name])] for name in WORDS}
    *listed, nature = phrases.values()
    return f"The image has {', '.join(listed[:-1])} and {listed[-1]}, presenting {nature}."
