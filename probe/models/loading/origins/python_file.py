"""A network from the user's own Python file: `path/to/file.py:FACTORY`.

FACTORY is a function or a class that is called without arguments (or with the options given to
load_model) and gives an nn.Module, or a pair (module, transform). The file is run as the user's own
code, as `python file.py` would: its folder comes first on the module path while it runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from probe.errors import UsageError, named_first_line, unknown
from probe.models.loading.origins.common import Built, Request, load_exactly, read_state, size_after
from probe.models.loading.weights import seeded
from probe.paths import user_path

SUFFIX = ".py"
ACCEPTED = "a torch.nn.Module, or a pair (module, transform)"


def is_file_name(name: str) -> bool:
    """Does a model name mean a Python file?"""
    return name.endswith(SUFFIX) or name.rpartition(":")[0].endswith(SUFFIX)


def build_from_file(request: Request) -> Built:
    """Raises UsageError for a file or a factory that does not serve. The weights are those of the
    factory, under the seed, or those of a file.
    """
    path, factory = _split(request.name)
    with seeded(request.seed), _first_on_path(path.parent):
        made = _called(_attribute(_imported(path), factory, request.name), request)
    module, transform = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module) or not (transform is None or callable(transform)):
        raise UsageError(f"{request.name} gives {_kind(made)}; accepted: {ACCEPTED}")
    source = f"{request.name}, seed {request.seed}"
    if request.path is not None:
        state, source = read_state(request.path)
        load_exactly(module, state, request.name, request.path)
    transform = transform or _timm_transform(module)
    size = size_after(transform) if transform else ()
    prefix = getattr(module, "num_prefix_tokens", 0)
    return Built(module, transform, size, prefix if isinstance(prefix, int) else 0, source)


@dataclass(frozen=True)
class CodeFile:
    """The user's file that a model was made from. Unpickling it runs the file in that process, so
    that what follows may be of its classes.
    """

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return _run_again, (self.path,)


def code_of(origin: str, name: str) -> CodeFile | None:
    """The file of a model of that origin and name; None where it came from no file."""
    return CodeFile(_split(name)[0]) if origin == "file" else None


def _run_again(path: Path) -> CodeFile:
    if not path.is_file():
        raise UsageError(f"{path} is no file on the machine of a worker: put it there, too")
    with _first_on_path(path.parent):
        _imported(path)
    return CodeFile(path)


def _split(name: str) -> tuple[Path, str]:
    if name.endswith(SUFFIX):
        raise UsageError(f"model {name!r} names no factory; accepted: {name}:FUNCTION")
    place, _, factory = name.rpartition(":")
    path = user_path(place)
    if not path.is_file():
        raise UsageError(f"model {name!r}: {place} is not a file; accepted: FILE.py:FUNCTION")
    return path.resolve(), factory


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Files beside the user's own are found by its imports."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _imported(path: Path) -> ModuleType:
    """The file as a module of a name of its own, run anew each time."""
    name = f"probe_model_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look it up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(
            f"{path} cannot be run: {named_first_line(error)}{_line(error, path)}"
        ) from error
    return module


def _attribute(module: ModuleType, name: str, given: str) -> Any:
    own = [
        n
        for n, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    if not name or not hasattr(module, name):
        raise unknown(f"model {given!r}: function or class", name, own)
    factory = getattr(module, name)
    if isinstance(factory, nn.Module) or not callable(factory):
        raise UsageError(
            f"model {given!r}: {name} is {_kind(factory)}; accepted: a function or class that "
            "gives a torch.nn.Module"
        )
    return factory


def _called(factory: Callable[..., Any], request: Request) -> Any:
    """What the factory gives. Raises UsageError where it wants other arguments, and with its own
    words where it fails.
    """
    try:
        inspect.signature(factory).bind(**request.options)
    except ValueError:  # a signature that cannot be read: the call itself will tell
        pass
    except TypeError as error:
        given = ", ".join(request.options) or "none"
        raise UsageError(
            f"{request.name} wants other arguments ({error}); given: {given}; write a function "
            "that needs none"
        ) from None
    try:
        return factory(**request.options)
    except (Exception, SystemExit) as error:
        where = _line(error, Path(inspect.getsourcefile(factory) or ""))
        raise UsageError(f"{request.name} fails: {named_first_line(error)}{where}") from error


def _line(error: BaseException, path: Path) -> str:
    """` (line 12)` of the user's file, the last one on the way to the error."""
    if isinstance(error, SyntaxError):
        return f" (line {error.lineno})"
    traceback, line = error.__traceback__, None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f" (line {line})" if line else ""


def _timm_transform(module: nn.Module) -> Callable[..., Any] | None:
    """The evaluation transform of a network of timm, which a factory may well make."""
    if not isinstance(getattr(module, "pretrained_cfg", None), dict):
        return None
    from timm.data import create_transform, resolve_data_config

    return create_transform(**resolve_data_config({}, model=module), is_training=False)


def _kind(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"a value of type {type(value).__name__}"


__all__ = ["CodeFile", "build_from_file", "code_of", "is_file_name"]
