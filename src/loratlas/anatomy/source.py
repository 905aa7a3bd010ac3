"""Where does the configuration of a model come from: a folder, a file, the bundle, the hub?"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loratlas.bundled import demo_model_folder
from loratlas.errors import ModelError, did_you_mean

_CONFIG = "config.json"
_ADAPTER = "adapter_config.json"
_PATIENCE_SECONDS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A configuration and where it was found.

    Attributes:
        name: the model as it was asked for.
        location: folder of the configuration, or its name on the hub.
        config: the content of ``config.json``.
    """

    name: str
    location: str
    config: dict[str, Any]

    @property
    def has_code(self) -> bool:
        """Whether code of its own comes with the model."""
        return bool(self.config.get("auto_map"))

    @property
    def kernels(self) -> list[str]:
        """Names of code on the hub (OWNER/NAME) that it wants to compute with."""
        return list(_kernels(self.config))


def find_source(model: str | Path, revision: str | None = None) -> Source:
    """Find and read the configuration of a model.

    Args:
        model: folder with a ``config.json``, path of such a file, bundled model such as
            ``demo:gpt2``, or name on the hub.
        revision: branch, tag or commit on the hub.

    Raises:
        ModelError: nothing is there, or what is there is no configuration.
    """
    name = str(model)
    file = _local_file(model)
    if file is None:
        return Source(name=name, location=name, config=_parse(_hub_file(name, revision), name))
    if revision is not None:
        raise ModelError(f"{name}: a revision ({revision}) can only be given for a name on the hub")
    return Source(name=name, location=str(file.parent), config=_parse(file, str(file)))


def _kernels(config: Mapping[str, Any]) -> Iterator[str]:
    parts = [(config, False)]
    while parts:
        part, chosen = parts.pop()
        for key, value in part.items():
            names_code = chosen or key.endswith("_implementation")
            if isinstance(value, Mapping):
                parts.append((value, names_code))
            elif names_code and isinstance(value, str) and "/" in value:
                yield value


def _local_file(model: str | Path) -> Path | None:
    """Return the local configuration file, None for a name on the hub."""
    name = str(model)
    if name.startswith("demo:"):
        return demo_model_folder(name) / _CONFIG
    if not name.strip():
        raise ModelError("the name of the model is empty")
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            if not (path / _CONFIG).is_file():
                raise ModelError(f"{name}: this folder has no config.json")
            if (path / _ADAPTER).exists():
                # transformers would put them into the model, whatever format they are in.
                raise ModelError(
                    f"{name}: adapters lie beside the model ({_ADAPTER}); give a folder with the "
                    "base alone"
                )
            return path / _CONFIG
        if path.is_file():
            return path
    except OSError as error:  # no folder can have such a name, or it may not be looked at
        raise ModelError(f"{name}: cannot be looked up: {error.strerror}") from error
    except RuntimeError as error:  # ~NAME of somebody who is not known here
        raise ModelError(f"{name}: {error}") from error
    if isinstance(model, Path) or _looks_like_path(name):
        raise ModelError(f"{name}: no such file or folder{_nearest_entry(path)}")
    return None


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".json") or name.count("/") > 1


def _nearest_entry(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, (entry.name for entry in path.parent.iterdir()))


def _hub_file(name: str, revision: str | None) -> Path:
    """Return the hub's configuration file, from its local copy where there is one.

    The client's own download tries for half a minute to reach a hub that is not there;
    one question without patience comes first.
    """
    from huggingface_hub import errors, hf_hub_download

    wanted = f"{name} at revision {revision}" if revision else name
    try:
        offline = not _hub_answers(name, revision)
        return Path(hf_hub_download(name, _CONFIG, revision=revision, local_files_only=offline))
    except errors.GatedRepoError as error:
        raise ModelError(f"{wanted}: the hub wants a login with access to this model") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{name}: the hub has no revision {revision} of it") from error
    except errors.LocalEntryNotFoundError as error:
        raise ModelError(
            f"{wanted}: no folder of this name is here, and the hub cannot be reached"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"{name}: neither a folder here nor a model on the hub") from error
    except errors.EntryNotFoundError as error:
        raise ModelError(f"{wanted}: the model on the hub has no config.json") from error
    except errors.HFValidationError as error:
        raise ModelError(f"{name}: no folder here, and no valid name on the hub") from error
    except (errors.HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{wanted}: the hub did not give its configuration: {reason}") from error


def _hub_answers(name: str, revision: str | None) -> bool:
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(
            hf_hub_url(name, _CONFIG, revision=revision), timeout=_PATIENCE_SECONDS
        )
    except (errors.HfHubHTTPError, errors.HFValidationError):
        return True  # it answered; the download says what is wrong
    except Exception:  # no route, no name service, offline mode: the client's types vary
        return False
    return True


def _parse(file: Path, shown: str) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ModelError(f"{shown}: not valid JSON ({where}: {error.msg})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{shown}: cannot be read as text ({error})") from error
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond any use
        raise ModelError(f"{shown}: cannot be read as a configuration ({error})") from error
    if not isinstance(config, dict):
        raise ModelError(f"{shown}: holds a {type(config).__name__}, not a configuration")
    return config
