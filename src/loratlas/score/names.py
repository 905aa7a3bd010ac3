"""What are scorers called, and where is each written? No torch."""

from loratlas.errors import RequestError, did_you_mean

PLACES = {
    "gradient": ("gradient", "Gradient"),
    "gradient_normalised": ("gradient", "GradientNormalised"),
    "gradient_spectrum": ("spectrum", "GradientSpectrum"),
    "lora_probe": ("lora_probe", "LoraProbe"),
    "plop": ("plop", "Plop"),
    "plop_site": ("plop", "PlopSite"),
    "eva": ("eva", "Eva"),
    "block_influence": ("block_influence", "BlockInfluence"),
    "para": ("para", "Para"),
    "uniform": ("controls", "Uniform"),
    "random": ("controls", "Random"),
    "parameters": ("controls", "Parameters"),
    "d_in": ("controls", "InputWidth"),
    "depth": ("controls", "Depth"),
}
"""File and class of each method; a file is loaded when its method is asked for."""
METHODS = tuple(PLACES)
"""Names of the methods; ``inverted:`` before one of them turns it upside down."""
INVERTED = "inverted:"


def require_known(name: str) -> None:
    """Refuse a name that no method has.

    Raises:
        RequestError: there is no such method.
    """
    plain = name
    while plain.startswith(INVERTED):
        plain = plain.removeprefix(INVERTED)
    if plain not in PLACES:
        raise RequestError(
            f"{plain}: there is no such method{did_you_mean(plain, METHODS)}; it is one of "
            f"{', '.join(METHODS)}, or {INVERTED} and one of them"
        )
