"""Files of compiled kernels that several processes may write at the same time.

numba numbers the files in which it keeps what it compiled of a kernel, one for each signature, and
has a list that says which is which. Two processes that compile two signatures at the same moment
read the same list and take the same number, and the list that stays may name the file of the other
signature: no later process can call the kernel, until somebody deletes the files.

Here there is no list. The name of a file follows from what is in it, so that no two signatures, and
no two processors of machines that share a disk, ever write the same one. A file says what it was
compiled from. One that does not fit, as after a change of the code, or that cannot be read, counts
as none: the kernel is compiled, and takes its place.
"""

from __future__ import annotations

import glob
import hashlib
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

# what of numba's files of a kernel is used here
USED = ("_cache_path", "_data_name", "_data_name_pattern", "_dump", "_load_data", "_save_data")
FACTS = ("_version", "_source_stamp")  # of numba and of the file of the kernel


def without_list(kernel: Any) -> Any:
    """The kernel, whose files are kept as it is said above. Left as it is: one that is not kept, or
    that a numba keeps which works otherwise.
    """
    kept = getattr(kernel, "_cache", None)
    files = getattr(kept, "_cache_file", None)
    if all(hasattr(files, name) for name in (*USED, *FACTS)):
        kept._cache_file = KernelFiles(files)  # type: ignore[union-attr]
    return kernel


class KernelFiles:
    """The files of one kernel, in place of numba's `IndexDataCacheFile`.

    A key is all that numba tells compiled kernels apart by: the types of the arguments, the
    processor, the byte code.
    """

    def __init__(self, files: Any) -> None:
        self._files = files
        self._made_from = [getattr(files, fact) for fact in FACTS]

    def save(self, key: Any, data: Any) -> None:
        """Keep `data`, in one step."""
        # what another numba has pickled may be read by that one only, so it stands in a shell
        self._files._save_data(self._name(key), (self._made_from, self._files._dump((key, data))))

    def load(self, key: Any) -> Any:
        """What was kept; None where that is nothing, or nothing of use."""
        try:
            made_from, pickled = self._files._load_data(self._name(key))
            if made_from != self._made_from:
                return None
            kept_key, data = pickle.loads(pickled)
        except Exception:  # a damaged pickle raises anything
            return None
        return data if kept_key == key else None

    def flush(self) -> None:
        """Forget all that was kept of the kernel."""
        names = glob.escape(self._files._data_name_pattern).replace("{number:d}", "*")
        for path in Path(self._files._cache_path).glob(names):
            with suppress(OSError):
                path.unlink()

    def _name(self, key: Any) -> str:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
        name: str = self._files._data_name(int.from_bytes(digest))
        return name


__all__ = ["KernelFiles", "without_list"]
