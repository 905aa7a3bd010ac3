"""What has the frozen part of a model below a layer made of an example, computed once?

Below a trial's lowest adapted layer nothing is trained, so that a base without active dropout
gives each example the same hidden states at the entry of that layer in every epoch, for every
seed and in every trial.
"""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from loratlas.train.prefix_file import StateFile

_FILE_NAME = "frozen_prefix.states"

_log = logging.getLogger(__name__)


class PrefixCache:
    """Hidden states at the entry of a layer, one array per example, in memory and in a file.

    States are found under the SHA-256 of base, dtype, layer and tokens. Memory is filled first,
    then a memory-mapped file; both keep whole examples within their limits. What came first
    stays: every epoch visits every example once, so that an example put out for another is
    missed as often as the other was, and each exchange costs a write.

    The file belongs to one run. A run that was killed finds it again and reads what is whole; a
    file of another base, dtype, setting or format is replaced. No trouble with the file raises:
    less is kept, and `notes` says so.

    One thread uses a cache.

    Attributes:
        notes: what a person should know, one sentence each, none twice.
        num_hits: calls of `get` that found states.
        num_misses: calls of `get` that did not.
        memory_bytes: bytes of the states in memory.
    """

    def __init__(
        self,
        *,
        base_digest: str,
        dtype: torch.dtype,
        memory_limit: int,
        file_limit: int = 0,
        folder: Path | None = None,
        numerics: str = "",
    ) -> None:
        """Start with an empty memory and with what an interrupted run left in its file.

        Args:
            base_digest: SHA-256 over the base's configuration and weights as loaded.
            dtype: of the hidden states.
            memory_limit: bytes of states in memory; 0 keeps none there.
            file_limit: bytes of the file, its heads included; 0 keeps none there.
            folder: where the file lies, made when needed; None for no file.
            numerics: what else the last bits depend on: device, attention kernel, TF32.
        """
        self.notes: list[str] = []
        self.num_hits = 0
        self.num_misses = 0
        self.memory_bytes = 0
        self._dtype = dtype
        self._memory_limit = memory_limit
        self._file_limit = file_limit
        self._memory: dict[bytes, torch.Tensor] = {}
        # A new torch may bring new kernels, and a file outlives the process.
        setting = [base_digest, str(dtype), numerics, torch.__version__]
        self._identity = hashlib.sha256(json.dumps(setting).encode())
        self._file = None if folder is None else self._open(folder / _FILE_NAME)

    @property
    def file_bytes(self) -> int:
        """Size of the file; 0 without one."""
        return self._file.num_bytes if self._file else 0

    def get(self, layer: int, tokens: NDArray[np.int32]) -> torch.Tensor | None:
        """Return the hidden states of an example, or None when they are not kept.

        Args:
            layer: at whose entry.
            tokens: everything the states depend on, shape ``(num_tokens,)``.

        Returns:
            the caller's own copy on the CPU, shape ``(num_tokens, width)``.
        """
        key = self._key(layer, tokens)
        kept = self._memory.get(key)
        states = self._read(key) if kept is None else kept.clone()
        if states is None:
            self.num_misses += 1
        else:
            self.num_hits += 1
        return states

    def put(self, layer: int, tokens: NDArray[np.int32], states: torch.Tensor) -> None:
        """Keep a copy of the hidden states of an example if there is room for them.

        States that are kept already stay as they are.

        Args:
            layer: at whose entry.
            tokens: everything the states depend on, shape ``(num_tokens,)``.
            states: of the cache's dtype, on any device, shape ``(num_tokens, width)``.

        Raises:
            ValueError: the states have another dtype, or not one row per token.
        """
        self._check(tokens, states)
        key = self._key(layer, tokens)
        if key in self._memory or (self._file is not None and key in self._file):
            return
        if self.memory_bytes + states.nbytes <= self._memory_limit:
            self._memory[key] = _copied(states)
            self.memory_bytes += states.nbytes
        elif self._file is not None and self._file.fits(states.nbytes):
            self._append(self._file, key, _copied(states))
        else:
            self._note(
                "the hidden states of the frozen prefix do not all fit in "
                f"{self._memory_limit} bytes of memory and {self._file_limit} bytes of file; "
                "the rest is computed whenever it is needed"
            )

    def close(self, *, keep: bool = False) -> None:
        """Let go of everything, and delete the file unless it is to be kept.

        A closed cache finds nothing and takes nothing.
        """
        self._memory.clear()
        self.memory_bytes = self._memory_limit = self._file_limit = 0
        if self._file is None:
            return
        try:
            self._file.close(remove=not keep)
        except OSError as error:
            self._note(f"the file of the frozen prefix could not be deleted: {_reason(error)}")
        self._file = None

    def _key(self, layer: int, tokens: NDArray[np.int32]) -> bytes:
        key = self._identity.copy()
        key.update(layer.to_bytes(8, "little"))
        # As 64-bit numbers every integer type gives one key, and none is cut.
        key.update(tokens.astype("<i8", casting="safe").data)
        return key.digest()

    def _check(self, tokens: NDArray[np.int32], states: torch.Tensor) -> None:
        if states.dtype != self._dtype:
            raise ValueError(f"the cache is for {self._dtype}, the states are {states.dtype}")
        if states.ndim != 2 or tokens.shape != states.shape[:1]:
            raise ValueError(
                f"states of shape {tuple(states.shape)} do not have one row for each of the "
                f"tokens of shape {tokens.shape}"
            )

    def _open(self, path: Path) -> StateFile | None:
        # With a limit of 0 it is opened only to take an earlier run's states off the disk.
        if self._file_limit == 0 and not path.exists():
            return None
        try:
            return StateFile(
                path,
                identity=self._identity.digest(),
                element_bytes=self._dtype.itemsize,
                limit=self._file_limit,
            )
        except OSError as error:
            self._note(f"the frozen prefix has no file: {path}: {_reason(error)}")
            self._file_limit = 0
            return None

    def _read(self, key: bytes) -> torch.Tensor | None:
        if self._file is None or key not in self._file:
            return None
        try:
            found = self._file.read(key)
        except OSError as error:
            self._note(f"the file of the frozen prefix cannot be read: {_reason(error)}")
            return None
        if found is None:
            self._note("the file of the frozen prefix is damaged; what was lost is computed anew")
            return None
        shape, data = found
        states = torch.empty(shape, dtype=self._dtype)
        _bytes_of(states)[:] = data
        return states

    def _append(self, file: StateFile, key: bytes, states: torch.Tensor) -> None:
        rows, width = states.shape
        try:
            file.append(key, (rows, width), _bytes_of(states))
        except OSError as error:
            self._note(f"the file of the frozen prefix takes no more: {_reason(error)}")
            self._file_limit = file.num_bytes

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)
            _log.info(sentence)


def _copied(states: torch.Tensor) -> torch.Tensor:
    """Return a copy on the CPU that holds no larger batch alive."""
    return torch.empty(states.shape, dtype=states.dtype).copy_(states.detach())


def _bytes_of(states: torch.Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, in place; numpy has no bfloat16."""
    return states.view(-1).view(torch.uint8).numpy().data


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
