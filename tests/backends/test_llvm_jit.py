"""Code is compiled once, lives as long as it is used, and comes back from the disk only if it is what was written."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

import pytest
from llvmlite import binding

from everloop.backends.llvm import disk, jit, machine
from everloop.testing import FUNCTION

POSIX = sys.platform != "win32"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of its own, no machine but this one, and nothing in memory."""
    monkeypatch.setenv("EVERLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EVERLOOP_CPU", raising=False)
    monkeypatch.setattr(disk, "BETWEEN_LOOKS", 1)
    forget(monkeypatch)
    return tmp_path / "cache"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process."""
    monkeypatch.setattr(jit, "_alive", WeakValueDictionary())
    monkeypatch.setattr(jit, "_recent", OrderedDict())


def adding(number: int) -> str:
    return f"define i64 @f(i64 %x) nounwind {{\n  %y = add i64 %x, {number}\n  ret i64 %y\n}}"


def run(library: jit.Library, value: int) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.address("f"))(value)


def never() -> str:
    raise AssertionError("the code was at hand, and yet it is made")


class Made:
    """Gives intermediate code, and counts how often."""

    def __init__(self, ir: str) -> None:
        self.ir, self.times = ir, 0

    def __call__(self) -> str:
        self.times += 1
        return self.ir


def entry(cache: Path) -> Path:
    (found,) = cache.iterdir()
    return found


# Machines


def levels() -> list[str]:
    """Those that this host has."""

    def has(level: str) -> bool:
        try:
            machine._named(level)
        except ValueError:
            return False
        return True

    return [level for level in ("baseline", "sse", "avx2", "avx512") if has(level)]


SQUARES = """
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)

define internal <16 x float> @square(<16 x float> %x) alwaysinline nounwind {
  %y = fmul <16 x float> %x, %x
  ret <16 x float> %y
}

define void @f(ptr %p) nounwind "min-legal-vector-width"="512" {
  %local = alloca <16 x float>
  %x = load <16 x float>, ptr %p, align 4
  store <16 x float> %x, ptr %local
  %same = load <16 x float>, ptr %local
  %y = call <16 x float> @square(<16 x float> %same)
  %z = call <16 x float> @llvm.fma.v16f32(<16 x float> %y, <16 x float> %x, <16 x float> splat (float 2.0))
  store <16 x float> %z, ptr %p, align 4
  ret void
}
"""

REGISTERS = {"baseline": ("xmm", 4, 16), "sse": ("xmm", 4, 16), "avx2": ("ymm", 8, 16), "avx512": ("zmm", 16, 32)}


@pytest.mark.skipif(machine._processor() != "x86_64", reason="levels of x86-64")
@pytest.mark.parametrize("level", levels())
def test_a_lesser_machine_has_its_own_registers_and_the_same_results(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERLOOP_CPU", level)
    widest, lanes, registers = REGISTERS[level]
    assert (machine.host().lanes, machine.host().registers) == (lanes, registers)
    text = jit.assembly(SQUARES)
    assert [name for name in ("xmm", "ymm", "zmm") if name in text][-1] == widest
    assert ("vfmadd" in text) == (lanes > 4)
    values = (ctypes.c_float * 16)(*range(16))
    library = jit.library("squares", lambda: SQUARES)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(library.address("f"))(ctypes.addressof(values))
    assert list(values) == [x**3 + 2 for x in range(16)]


def test_this_host_is_used_to_the_full() -> None:
    host = machine.host()
    has = {name for name, present in binding.get_host_cpu_features().items() if present}
    assert host.lanes == (16 if "avx512f" in has else 8 if {"avx2", "fma"} <= has else 4)
    assert host.cpu == binding.get_host_cpu_name()
    assert host is machine.host()
    if host.lanes == 16:
        assert "zmm" in jit.assembly(SQUARES)
        indifferent = '"min-legal-vector-width"="0"'
        assert "zmm" in jit.assembly(
            SQUARES.replace('"512"', '"0"').replace("alwaysinline", f"alwaysinline {indifferent}")
        )


def test_small_functions_are_inlined() -> None:
    assert "square" not in jit.assembly(SQUARES)


SUM = """
define float @f(ptr %p, i64 %n) nounwind {
start:
  %i = alloca i64
  %sum = alloca float
  store i64 0, ptr %i
  store float 0.0, ptr %sum
  br label %loop
loop:
  %at = load i64, ptr %i
  %more = icmp ult i64 %at, %n
  br i1 %more, label %body, label %end
body:
  %place = getelementptr float, ptr %p, i64 %at
  %x = load float, ptr %place
  %before = load float, ptr %sum
  %after = fadd float %before, %x
  store float %after, ptr %sum
  %next = add i64 %at, 1
  store i64 %next, ptr %i
  br label %loop
end:
  %all = load float, ptr %sum
  ret float %all
}
"""


@pytest.mark.skipif(machine._processor() != "x86_64", reason="reads assembly of x86-64")
def test_locals_are_in_registers() -> None:
    assert "rsp" not in jit.assembly(SUM)
    values = (ctypes.c_float * 5)(1, 2, 3, 4, 5)
    function = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_void_p, ctypes.c_int64)(
        jit.library("sum", lambda: SUM).address("f")
    )
    assert [function(ctypes.addressof(values), count) for count in (0, 1, 5)] == [0, 1, 15]


@pytest.mark.parametrize(
    ("has", "lanes", "registers"),
    [
        ({"avx2", "fma", "avx512f"}, 16, 32),
        ({"avx2", "fma"}, 8, 16),
        ({"avx2"}, 4, 16),
        ({"sse2"}, 4, 16),
        (set(), 4, 16),
    ],
)
def test_registers_follow_from_the_features(has: set[str], lanes: int, registers: int, processor: Processor) -> None:
    processor("x86_64-unknown-linux-gnu", has)
    assert (machine.host().lanes, machine.host().registers) == (lanes, registers)


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-darwin24.0.0"])
def test_arm_has_32_registers(triple: str, processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(triple, {"neon", "fp-armv8"})
    assert (machine.host().lanes, machine.host().registers) == (4, 32)
    monkeypatch.setenv("EVERLOOP_CPU", "baseline")
    assert (machine.host().lanes, machine.host().registers, machine.host().features) == (4, 32, "")
    monkeypatch.setenv("EVERLOOP_CPU", "avx2")
    with pytest.raises(ValueError, match=r"EVERLOOP_CPU is 'avx2', but this host lacks sse, sse2, avx"):
        machine.host()


def test_a_machine_that_is_not_there_is_refused(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    processor("x86_64-unknown-linux-gnu", set(machine._AVX2))
    monkeypatch.setenv("EVERLOOP_CPU", "avx512")
    with pytest.raises(ValueError, match=r"lacks avx512f, avx512bw.*; set a lesser one"):
        machine.host()
    monkeypatch.setenv("EVERLOOP_CPU", "pentium")
    with pytest.raises(ValueError, match=r"EVERLOOP_CPU is 'pentium'; expected one of baseline, sse, avx2, avx512"):
        machine.host()


Processor = Callable[[str, set[str]], None]


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processor]:
    """Another host, as far as LLVM is asked about it."""

    def pretend(triple: str, has: set[str]) -> None:
        monkeypatch.setattr(binding, "get_process_triple", lambda: triple)
        monkeypatch.setattr(
            binding, "get_host_cpu_features", lambda: binding.targets.FeatureMap(dict.fromkeys(has, True))
        )
        machine._named.cache_clear()

    yield pretend
    machine._named.cache_clear()


# In memory


def test_code_is_made_once() -> None:
    made = Made(adding(3))
    first = jit.library("add 3", made)
    assert run(first, 4) == 7
    assert jit.library("add 3", made) is first
    assert run(jit.library("add 5", lambda: adding(5)), 4) == 9
    assert made.times == 1


def test_a_name_that_is_not_there_is_said() -> None:
    with pytest.raises(KeyError, match=r"no function 'g' in this library, which has f"):
        jit.library("add", lambda: adding(1)).address("g")


def test_functions_for_inside_have_no_address() -> None:
    ir = """
    define internal i64 @inside(i64 %x) noinline nounwind {
      %y = mul i64 %x, 3
      ret i64 %y
    }
    define i64 @f(i64 %x) nounwind {
      %y = call i64 @inside(i64 %x)
      ret i64 %y
    }
    define i64 @g(i64 %x) nounwind {
      %y = call i64 @f(i64 %x)
      ret i64 %y
    }
    """
    found = jit.library("inside", lambda: ir)
    assert (found.names, run(found, 5)) == (("f", "g"), 15)


@pytest.mark.parametrize(
    ("ir", "words"),
    [
        ("define foo", r"no machine code for bad gru: .*expected type"),
        ("define i64 @f(i64 %x) {\n  %y = add i64 %x, %z\n  ret i64 %y\n}", r"bad gru: .*undefined value '%z'"),
        ("define float @f(i64 %x) {\n  ret i64 %x\n}", r"bad gru: .*value doesn't match function result type"),
        ("define i64 @f(i64 %x) {\n  %y = add i64 %y, %x\n  ret i64 %y\n}", r"bad gru: Only PHI nodes"),
    ],
)
def test_what_llvm_refuses_is_one_error_with_the_key(ir: str, words: str, cache: Path) -> None:
    with pytest.raises(RuntimeError, match=f"(?s){words}"):
        jit.library("bad gru", lambda: ir)
    assert not cache.exists()
    assert run(jit.library("bad gru", lambda: adding(1)), 1) == 2


def test_an_error_of_the_maker_is_not_ours() -> None:
    def fails() -> str:
        raise RuntimeError("no such layout")

    with pytest.raises(RuntimeError, match=r"^no such layout$"):
        jit.library("layout", fails)


@pytest.mark.skipif(not POSIX, reason="symbols are listed with dlsym")
def test_what_the_process_has_not_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    ir = "declare i64 @nowhere(i64)\ndefine i64 @f(i64 %x) {\n  %y = call i64 @nowhere(i64 %x)\n  ret i64 %y\n}"
    with pytest.raises(RuntimeError, match=r"no machine code for far: it calls nowhere, which this process has not"):
        jit.library("far", lambda: ir)
    assert capfd.readouterr() == ("", "")


def test_code_that_nobody_holds_goes_when_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "KEPT", 2)
    monkeypatch.setenv("EVERLOOP_CACHE", "")
    held = jit.library("0", lambda: adding(0))
    place = jit.library("1", lambda: adding(1)).address("f")
    gone = weakref.ref(jit.library("2", lambda: adding(2)))
    for number in range(3, 6):
        jit.library(str(number), Made(adding(number)))
    gc.collect()
    assert gone() is None
    assert jit.library("0", never) is held
    assert jit.library("1", never) is place.library
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(place)(4) == 5
    again = Made(adding(2))
    assert run(jit.library("2", again), 4) == 6
    assert again.times == 1


def test_hundreds_of_libraries_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLOOP_CACHE", "")
    held = [jit.library(f"{number}", Made(adding(number))) for number in range(jit.KEPT + 50)]
    assert [run(library, 1) for library in held] == [number + 1 for number in range(jit.KEPT + 50)]


def test_threads_ask_at_once() -> None:
    made = Made(adding(1))
    start = threading.Barrier(8)
    found: list[tuple[jit.Library, int]] = []

    def ask(number: int) -> None:
        start.wait()
        for turn in range(5):
            own = 100 * number + turn
            assert run(jit.library(f"own {own}", Made(adding(own))), 1) == own + 1
        common = jit.library("common", made)
        found.append((common, run(common, number)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result for _, result in found) == list(range(1, 9))
    assert len({id(library) for library, _ in found}) == made.times == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_process_that_compiles_can_compile() -> None:
    stop = threading.Event()

    def keep_compiling() -> None:
        for number in range(10_000):
            if stop.is_set():
                return
            jit.library(f"thread {number}", lambda: adding(1))

    thread = threading.Thread(target=keep_compiling)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                os._exit(run(jit.library("child", lambda: adding(2)), 5))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    finally:
        stop.set()
        thread.join()


# On disk


def test_the_next_process_makes_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jit.library("add 3", lambda: adding(3))
    forget(monkeypatch)
    assert run(jit.library("add 3", never), 4) == 7
    assert len(list(cache.iterdir())) == 1


def test_code_from_the_disk_finds_the_functions_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = """
    @table = internal constant [2 x double] [double 1.0, double 2.0]
    declare double @cos(double)
    declare double @llvm.exp.f64(double)
    declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
    declare i32 @pthread_mutex_lock(ptr)
    declare i32 @pthread_mutex_unlock(ptr)

    define double @f(double %x, i64 %i, ptr %mutex, i64 %size) {
      call void @llvm.memset.p0.i64(ptr %mutex, i8 0, i64 %size, i1 false)
      %locked = call i32 @pthread_mutex_lock(ptr %mutex)
      %place = getelementptr double, ptr @table, i64 %i
      %entry = load double, ptr %place
      %cos = call double @cos(double %x)
      %exp = call double @llvm.exp.f64(double %x)
      %sum = fadd double %cos, %exp
      %y = fadd double %sum, %entry
      %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
      ret double %y
    }
    """
    mutex = (ctypes.c_int64 * 16)()
    for make in (lambda: calls, never):
        forget(monkeypatch)
        library = jit.library("calls", make)
        signature = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
        function = signature(library.address("f"))
        result = function(0.0, 1, ctypes.addressof(mutex), ctypes.sizeof(mutex))
        assert result == pytest.approx(4.0, rel=FUNCTION.relative, abs=FUNCTION.absolute)


def test_another_machine_and_another_generator_have_entries_of_their_own(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(adding(3))
    jit.library("add 3", made)
    monkeypatch.setenv("EVERLOOP_CPU", "baseline")
    jit.library("add 3", made)
    monkeypatch.delenv("EVERLOOP_CPU")
    forget(monkeypatch)
    monkeypatch.setattr(jit, "_TEXT", "a later version")
    jit.library("add 3", made)
    forget(monkeypatch)
    monkeypatch.setattr(binding, "llvm_version_info", (99, 0, 0))
    jit.library("add 3", made)
    assert made.times == len(list(cache.iterdir())) == 4


HEAD = len(disk._MAGIC)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda good: b"", id="empty"),
        pytest.param(lambda good: good[:5], id="cut in the first line"),
        pytest.param(lambda good: good[: HEAD + 7], id="cut in the checksum"),
        pytest.param(lambda good: good[: HEAD + 32], id="nothing but a checksum"),
        pytest.param(lambda good: good[: len(good) // 2], id="cut in the code"),
        pytest.param(lambda good: good[:-1], id="one byte short"),
        pytest.param(lambda good: good + b"\0", id="one byte long"),
        pytest.param(lambda good: good.replace(b"code 1", b"code 2", 1), id="another version"),
        pytest.param(lambda good: bytes(len(good)), id="zeros"),
        pytest.param(lambda good: random.Random(1).randbytes(len(good)), id="noise"),
        pytest.param(lambda good: good[HEAD + 32 :], id="code without a checksum"),
    ],
)
def test_a_spoiled_entry_is_replaced(
    spoil: Callable[[bytes], bytes], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jit.library("add 3", lambda: adding(3))
    good = entry(cache).read_bytes()
    entry(cache).write_bytes(spoil(good))
    forget(monkeypatch)
    made = Made(adding(3))
    assert run(jit.library("add 3", made), 4) == 7
    assert made.times == 1
    assert entry(cache).read_bytes() == good


def test_no_entry_with_a_flipped_bit_is_read(cache: Path) -> None:
    name = "0" * 64
    disk.write(name, b"f g\n" + bytes(range(256)))
    good = entry(cache).read_bytes()
    for place in range(len(good)):
        spoiled = bytearray(good)
        spoiled[place] ^= 1 << place % 8
        entry(cache).write_bytes(spoiled)
        assert disk.read(name) is None
    entry(cache).write_bytes(good)
    assert disk.read(name) == b"f g\n" + bytes(range(256))


def test_an_entry_under_another_name_is_none(cache: Path) -> None:
    disk.write("a", b"code of a")
    disk.write("b", b"code of b")
    shutil.copy(cache / "a.everloop", cache / "b.everloop")
    assert (disk.read("a"), disk.read("b")) == (b"code of a", None)


@pytest.mark.skipif(not POSIX, reason="files have owners elsewhere too, but not these")
def test_what_somebody_else_could_have_written_is_not_run(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger=disk.__name__)
    disk.write("a", b"code")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry(cache).stat().st_mode) == 0o600
    for mode in (0o620, 0o602):
        entry(cache).chmod(mode)
        assert disk.read("a") is None
    entry(cache).chmod(0o600)
    assert disk.read("a") == b"code"
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: cache.stat().st_uid + 1)
        assert disk.read("a") is None
        disk.write("b", b"code")
    assert f"{cache} is not used: it belongs to somebody else" in caplog.text
    assert disk.read("a") == b"code"
    assert disk.read("b") is None


@pytest.mark.skipif(not POSIX or os.geteuid() != 0, reason="only root gives files away")
def test_an_entry_of_somebody_else_in_our_folder_is_not_run(cache: Path) -> None:
    disk.write("a", b"code")
    os.chown(entry(cache), 12345, -1)
    assert disk.read("a") is None


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write everywhere; nobody may not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(not POSIX, reason="folders have no such modes")
def test_a_folder_that_cannot_be_written_is_no_error(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger=disk.__name__)
    cache.mkdir()
    if os.geteuid() == 0:
        os.chown(cache, 65534, -1)
        for folder in cache.parents:
            if folder.stat().st_uid == 0 and not folder.stat().st_mode & stat.S_IXOTH:
                folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    cache.chmod(0o500)
    with without_privileges():
        assert run(jit.library("add 3", lambda: adding(3)), 4) == 7
        assert run(jit.library("add 4", lambda: adding(4)), 4) == 8
    assert list(cache.iterdir()) == []
    assert len(caplog.messages) == 1
    assert f"{cache} is not used: Permission denied" in caplog.text
    cache.chmod(0o700)


def test_a_cache_for_reading_only_is_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.write("a", b"code")

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert disk.read("a") == b"code"


def test_a_file_in_the_place_of_the_folder_is_no_error(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger=disk.__name__)
    cache.write_text("mine")
    assert run(jit.library("add 3", lambda: adding(3)), 4) == 7
    assert cache.read_text() == "mine"
    assert all(record.levelname == "DEBUG" for record in caplog.records)


def test_a_folder_in_the_place_of_an_entry_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jit.library("add 3", lambda: adding(3))
    path = entry(cache)
    path.unlink()
    path.mkdir()
    forget(monkeypatch)
    assert run(jit.library("add 3", lambda: adding(3)), 4) == 7
    assert list(cache.iterdir()) == [path]


def test_with_no_folder_nothing_is_written(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVERLOOP_CACHE", "")
    monkeypatch.chdir(tmp_path)
    made = Made(adding(3))
    for _ in range(2):
        forget(monkeypatch)
        assert run(jit.library("add 3", made), 4) == 7
    assert made.times == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "home/.cache/everloop"),
        ("linux", {"XDG_CACHE_HOME": "elsewhere"}, "home/.cache/everloop"),
        ("linux", {"XDG_CACHE_HOME": "{root}/xdg"}, "xdg/everloop"),
        ("darwin", {"XDG_CACHE_HOME": "{root}/xdg"}, "home/Library/Caches/everloop"),
        ("win32", {"LOCALAPPDATA": "{root}/local"}, "local/everloop/cache"),
        ("win32", {}, "home/AppData/Local/everloop/cache"),
    ],
)
def test_the_folder_is_among_the_caches_of_the_user(
    platform: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("EVERLOOP_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(root=tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(disk.sys, "platform", platform)
    assert disk._folder() == tmp_path / expected


def test_what_was_used_longest_ago_goes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LIMIT", 10_000)
    names = [f"entry {number}" for number in range(9)]
    for age, name in enumerate(reversed(names)):
        disk.write(name, bytes(1000))
        os.utime(cache / f"{name}.everloop", (time.time() - 1000 - age,) * 2)
    assert disk.read(names[0]) == bytes(1000)  # the oldest, but just used
    (cache / "notes.txt").write_bytes(bytes(20_000))
    (cache / "left.everloop-tmp").write_bytes(b"half")
    os.utime(cache / "left.everloop-tmp", (time.time() - 2 * 3600,) * 2)
    (cache / "fresh.everloop-tmp").write_bytes(b"half")
    disk.write("large", bytes(1500))
    disk.write("last", bytes(10))
    kept = sorted(path.name for path in cache.iterdir())
    assert kept == [
        "entry 0.everloop",
        *(f"entry {number}.everloop" for number in range(5, 9)),
        "fresh.everloop-tmp",
        "large.everloop",
        "last.everloop",
        "notes.txt",
    ]


PROCESS = """
import ctypes, sys, time
from everloop.backends.llvm import jit

def make():
    time.sleep(0.05)  # all of them are in here at once
    return "define i64 @f(i64 %x) nounwind { %y = add i64 %x, 3 ret i64 %y }"

print("ready", flush=True)
sys.stdin.readline()
for turn in range(20):
    library = jit.library("race", make)
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.address("f"))(turn) == turn + 3
    del library
    jit._recent.clear()
    if turn == 10:
        for entry in __import__("pathlib").Path(sys.argv[1]).iterdir():
            entry.unlink(missing_ok=True)
"""


def test_processes_race_for_one_entry(cache: Path) -> None:
    words = [sys.executable, "-c", textwrap.dedent(PROCESS), str(cache)]
    racers = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    ends = [racer.communicate(timeout=60) for racer in racers]
    assert [(racer.returncode, err) for racer, (_, err) in zip(racers, ends, strict=True)] == [(0, "")] * 3
    stored = disk.read(entry(cache).stem)
    assert stored is not None
    assert run(jit._link(jit._Code.unpack(stored)), 4) == 7
