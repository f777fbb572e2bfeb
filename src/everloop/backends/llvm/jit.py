"""LLVM's intermediate code as machine code in memory.

Code is looked for in memory, then on disk, and compiled only if it is in neither. From the disk it takes a
millisecond, without a look at the intermediate code.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from llvmlite import binding

from everloop.backends.llvm import disk
from everloop.backends.llvm.machine import Machine, host

# So many libraries stay in memory although nobody holds them: a test or a search builds the same few again and again.
KEPT = 256

# What generates code is part of what names it. Read here, together with the modules: the files might change later.
_FILES = sorted(file for file in Path(__file__).parent.iterdir() if file.is_file())
_TEXT = hashlib.sha256(b"".join(file.read_bytes() for file in _FILES)).hexdigest()

# LLVM is used by one thread at a time; a program that forks waits until nobody uses it.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)

_alive: WeakValueDictionary[tuple[str, Machine], Library] = WeakValueDictionary()
_recent: OrderedDict[tuple[str, Machine], Library] = OrderedDict()
_numbers = itertools.count()


class Library:
    """Machine code in memory, for as long as this object or an address got from it lives. names: its functions."""

    def __init__(self, tracker: Any, names: tuple[str, ...]) -> None:
        self._tracker, self.names = tracker, names

    def address(self, name: str) -> Address:
        """Where a function begins. A plain number made of it keeps nothing alive."""
        if name not in self.names:
            raise KeyError(f"no function {name!r} in this library, which has {', '.join(self.names) or 'none'}")
        return Address(self._tracker[name], self)


class Address(int):
    """A place in the code of a library, which it keeps alive."""

    library: Library

    def __new__(cls, value: int, library: Library) -> Address:
        made = super().__new__(cls, value)
        made.library = library
        return made


def library(key: str, make: Callable[[], str]) -> Library:
    """The code of a key. The key names all that the code depends on; the machine, LLVM's version and the text of this
    package are added here. `make` gives the intermediate code, and is called only if the code is not at hand.

    RuntimeError if it cannot be compiled.
    """
    machine = host()
    known = key, machine
    with _lock:
        found = _alive.get(known) or _load(key, machine, make)
        _alive[known] = _recent[known] = found
        _recent.move_to_end(known)
        if len(_recent) > KEPT:
            _recent.popitem(last=False)
    return found


def assembly(ir: str) -> str:
    """What the intermediate code becomes on this machine, for reading."""
    with _lock:
        module, target = _optimise(ir, host(), binding.create_context())
        return target.emit_assembly(module)


def _load(key: str, machine: Machine, make: Callable[[], str]) -> Library:
    name = _name(key, machine)
    stored = disk.read(name)
    ir = make() if stored is None else ""
    try:
        code = _compile(ir, machine) if stored is None else _Code.unpack(stored)
        made = _link(code)
    except RuntimeError as error:
        raise RuntimeError(f"no machine code for {key}: {error}") from error
    if stored is None:
        disk.write(name, code.pack())
    return made


@dataclass(frozen=True)
class _Code:
    """An object file, and the names of the functions in it that others may call."""

    names: tuple[str, ...]
    content: bytes

    def pack(self) -> bytes:
        return "\0".join(self.names).encode() + b"\n" + self.content

    @classmethod
    def unpack(cls, packed: bytes) -> _Code:
        names, _, content = packed.partition(b"\n")
        return cls(tuple(filter(None, names.decode().split("\0"))), content)


def _name(key: str, machine: Machine) -> str:
    """Under what name code lies on disk."""
    parts = [_TEXT, repr(binding.llvm_version_info), repr(machine), key]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _compile(ir: str, machine: Machine) -> _Code:
    module, target = _optimise(ir, machine, binding.create_context())
    ours = [function for function in module.functions if not function.is_declaration]
    unknown = [name for name in _called(module) if not _is_in_process(name)]
    if unknown:
        raise RuntimeError(f"it calls {', '.join(unknown)}, which this process has not")
    names = tuple(function.name for function in ours if function.linkage.name == "external")
    return _Code(names, target.emit_object(module))


def _optimise(ir: str, machine: Machine, context: Any) -> tuple[Any, Any]:
    """Loops come vectorised and unrolled, so that a few passes do what -O2 does, in a fifth of its time."""
    module = binding.parse_assembly(ir, context)
    module.verify()
    target = _target(machine)
    passes = binding.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_loop_rotate_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, binding.create_pass_builder(target, binding.create_pipeline_tuning_options()))
    return module, target


def _target(machine: Machine) -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, reloc="pic", codemodel="small", jit=True
    )


def _called(module: Any) -> list[str]:
    """The functions of this process that a module calls."""
    declared = [function.name for function in module.functions if function.is_declaration]
    return [name for name in declared if not name.startswith("llvm.")]


def _is_in_process(name: str) -> bool:
    # LLVM says this as well when it links, but on standard error and without the names.
    return sys.platform == "win32" or hasattr(ctypes.CDLL(None), name)


def _link(code: _Code) -> Library:
    builder = binding.JITLibraryBuilder().add_object_img(code.content).add_current_process()
    for name in code.names:
        builder.export_symbol(name)
    return Library(builder.link(_linker(), f"everloop {next(_numbers)}"), code.names)


@cache
def _linker() -> Any:
    binding.initialize_native_target()
    return binding.create_lljit_compiler(use_jit_link=sys.platform != "win32", suppress_errors=True)
