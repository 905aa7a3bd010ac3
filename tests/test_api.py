"""What ``import loratlas`` offers, and what it costs."""

import subprocess
import sys

import pytest

import loratlas as la


def test_every_public_name_is_there_and_no_other_is_promised():
    assert la.__all__ == sorted(la.__all__) == ["explain", "lint", "place", "read", "verify"]
    assert set(la._HOMES) == set(la.__all__) <= set(dir(la))
    for name in la.__all__:
        value = getattr(la, name)
        assert callable(value)
        assert value.__module__ == la._HOMES[name]
        assert value.__doc__
    with pytest.raises(AttributeError, match="'loratlas' has no attribute 'plcae'"):
        la.plcae  # noqa: B018


def loaded_after(code):
    program = f"import sys\n{code}\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_it_loads_nothing():
    loaded = loaded_after("import loratlas; dir(loratlas)")
    assert {name for name in loaded if name.startswith("loratlas.")} == set()


def test_placing_and_linting_plain_data_loads_no_torch(tiny_folder):
    la.read(tiny_folder)  # in the cache from here on
    loaded = loaded_after(
        "import loratlas as la\n"
        f"anatomy = la.read({str(tiny_folder)!r})\n"
        "placement = la.place(anatomy, 'attention')\n"
        "la.lint({'target_modules': ['c_attn', '.*']}, anatomy)\n"
        "placement._repr_html_(); anatomy._repr_html_(); placement.diff(placement)"
    )
    assert not loaded & {"torch", "peft", "transformers", "rich", "pandas"}
