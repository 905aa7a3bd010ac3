"""Where the files lie that ship inside the package."""

from pathlib import Path

from loratlas.errors import ModelError, did_you_mean

_DEMO = Path(__file__).parent / "data" / "demo"
DEMO_MODELS = {"demo:gpt2": _DEMO / "gpt2"}


def demo_model_folder(name: str) -> Path:
    """Return the folder of a bundled model, such as ``demo:gpt2``.

    Raises:
        ModelError: no bundled model has this name.
    """
    folder = DEMO_MODELS.get(name)
    if folder is None:
        allowed = ", ".join(DEMO_MODELS)
        raise ModelError(
            f"{name}: no such bundled model{did_you_mean(name, DEMO_MODELS)}; there is: {allowed}"
        )
    return folder
