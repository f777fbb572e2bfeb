"""Fetching: from a server of this test only, with what can go wrong on the way; and archives that mean harm."""

import hashlib
import http.server
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from everloop.data.sets import fetch
from everloop.data.sets.debian import summaries
from everloop.data.sets.fetch import Archives, DebianPackage, NpmPackage, PythonPackage, Url
from everloop.data.sets.unpack import unpack


def archive_of(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return data.getvalue()


WHOLE = archive_of({"top/a.txt": b"A" * 3_000, "top/sub/b.txt": os.urandom(50_000), "top/other.bin": b"no"})


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`; stops after `most` bytes; knows Range if `resumes`."""

    content, most, resumes = WHOLE, 10**9, True
    ranges: list[str | None] = []  # noqa: RUF012 - set anew by the fixture

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.ranges.append(asked)
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.resumes else 0
        body = self.content[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.most])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("EVERLOOP_DATA", str(tmp_path / "cache"))
    kind = type("OneServer", (Server,), {"ranges": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        kind.address = f"http://127.0.0.1:{running.server_port}/set.tar.gz"
        yield kind
        running.shutdown()


def recipe(address: str, content: bytes = WHOLE, sha256: str | None = None) -> Archives:
    url = Url(address, sha256 or hashlib.sha256(content).hexdigest(), len(content))
    return Archives((url,), ("top/*.txt",), 1)


def bring(one: fetch.Recipe, folder: Path) -> list[str]:
    said: list[str] = []
    fetch.fetch("set", one, folder, said.append)
    return said


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class TestUrl:
    def test_what_was_asked_for_arrives(self, server, tmp_path):
        folder = tmp_path / "cache" / "set"
        said = bring(recipe(server.address), folder)
        assert names_in(folder) == ["a.txt", "sub/b.txt"]
        assert (folder / "a.txt").read_bytes() == b"A" * 3_000
        assert said[-1] == f"set is in {folder}"
        assert names_in(tmp_path / "cache") == ["set/a.txt", "set/sub/b.txt"]

    def test_what_is_there_is_left_alone(self, server, tmp_path):
        (tmp_path / "set").mkdir()
        assert bring(recipe(server.address), tmp_path / "set") == [f"set is in {tmp_path / 'set'} already"]
        assert server.ranges == []

    def test_another_file_is_refused_and_removed(self, server, tmp_path):
        with pytest.raises(ValueError, match=f"has SHA-256 {hashlib.sha256(WHOLE).hexdigest()}; expected 0000"):
            bring(recipe(server.address, sha256="0" * 64), tmp_path / "cache" / "set")
        assert list((tmp_path / "cache").iterdir()) == []

    def test_a_transfer_that_was_cut_goes_on(self, server, tmp_path):
        server.most = 20_000
        with pytest.raises(OSError, match="20,000 bytes are kept: run it again to go on"):
            bring(recipe(server.address), tmp_path / "cache" / "set")
        assert not (tmp_path / "cache" / "set").exists()
        server.most = 10**9
        said = bring(recipe(server.address), tmp_path / "cache" / "set")
        assert "going on after 0.0 MB of an earlier try" in said
        assert server.ranges == [None, "bytes=20000-"]
        assert names_in(tmp_path / "cache" / "set") == ["a.txt", "sub/b.txt"]

    def test_a_server_that_cannot_go_on_begins_again(self, server, tmp_path):
        server.most, server.resumes = 20_000, False
        with pytest.raises(OSError, match="20,000 bytes"):
            bring(recipe(server.address), tmp_path / "set")
        server.most = 10**9
        bring(recipe(server.address), tmp_path / "set")
        assert names_in(tmp_path / "set") == ["a.txt", "sub/b.txt"]

    def test_no_more_is_taken_than_was_promised(self, server, tmp_path):
        server.content = WHOLE + b"x" * 5_000_000
        bring(recipe(server.address), tmp_path / "set")
        assert names_in(tmp_path / "set") == ["a.txt", "sub/b.txt"]

    def test_files_on_this_machine(self, tmp_path, monkeypatch):
        monkeypatch.setenv("EVERLOOP_DATA", str(tmp_path / "cache"))
        (tmp_path / "set.tar.gz").write_bytes(WHOLE)
        bring(recipe((tmp_path / "set.tar.gz").as_uri()), tmp_path / "set")
        assert names_in(tmp_path / "set") == ["a.txt", "sub/b.txt"]

    def test_nobody_answers(self, tmp_path, monkeypatch):
        monkeypatch.setenv("EVERLOOP_DATA", str(tmp_path / "cache"))
        with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9/set\.tar\.gz: .*; is there a network\?"):
            bring(recipe("http://127.0.0.1:9/set.tar.gz"), tmp_path / "set")

    def test_an_archive_that_does_not_hold_it_leaves_nothing(self, server, tmp_path):
        server.content = archive_of({"elsewhere/a.txt": b"A"})
        with pytest.raises(ValueError, match=r'holds no file like "top/\*\.txt"'):
            bring(recipe(server.address, server.content), tmp_path / "cache" / "set")
        assert names_in(tmp_path) == []


def test_the_cache_is_where_it_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("EVERLOOP_DATA", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.cache() == tmp_path / "everloop" / "datasets"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert fetch.cache() == Path.home() / ".cache" / "everloop" / "datasets"
    monkeypatch.setenv("EVERLOOP_DATA", "~/sets")
    assert fetch.cache() == Path.home() / "sets"


class TestClients:
    """npm, pip and apt-get stand-ins: they write the file that the real ones would, or fail as those do."""

    @pytest.fixture
    def client(self, monkeypatch, tmp_path):
        """A program of that name that writes `content` to `file`, or fails with a message."""
        folder = tmp_path / "bin"
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

        def make(name: str, file: str = "", content: bytes = b"", fails: str = "") -> Path:
            (tmp_path / "content").write_bytes(content)
            program = folder / name
            does = f"cp {tmp_path / 'content'} {file}" if file else f"echo '{fails}' >&2; exit 1"
            program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path / "asked"}\n{does}\n')
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
            return program

        return make

    def test_npm(self, client, tmp_path):
        client("npm", "set-1.0.0.tgz", WHOLE)
        package = NpmPackage("set", "1.0.0", hashlib.sha256(WHOLE).hexdigest())
        bring(Archives((package,), ("top/a.txt",), 1), tmp_path / "set")
        assert (tmp_path / "asked").read_text() == "pack set@1.0.0 --ignore-scripts --silent\n"
        assert names_in(tmp_path / "set") == ["a.txt"]

    def test_npm_brings_something_else(self, client, tmp_path):
        client("npm", "set-1.0.0.tgz", archive_of({"top/a.txt": b"other"}))
        with pytest.raises(ValueError, match=r"npm package set 1\.0\.0: the file that came has SHA-256"):
            bring(Archives((NpmPackage("set", "1.0.0", hashlib.sha256(WHOLE).hexdigest()),)), tmp_path / "set")
        assert not (tmp_path / "set").exists()

    def test_npm_fails(self, client, tmp_path):
        client("npm", fails="npm ERR! 404 no such package")
        with pytest.raises(OSError, match=r"npm package set 1\.0\.0: npm failed: npm ERR! 404 no such package"):
            bring(Archives((NpmPackage("set", "1.0.0", "0" * 64),)), tmp_path / "set")

    def test_pip(self, client, monkeypatch, tmp_path):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as file:
            file.writestr("pkg/data/a.txt", "A")
            file.writestr("pkg/code.py", "no")
        python = client("python", "py_set-2-py3-none-any.whl", data.getvalue())
        monkeypatch.setattr(sys, "executable", str(python))
        package = PythonPackage("py-set", "2", hashlib.sha256(data.getvalue()).hexdigest())
        bring(Archives((package,), ("pkg/data/*",), 2), tmp_path / "set")
        assert "--require-hashes" in (tmp_path / "asked").read_text()
        assert names_in(tmp_path / "set") == ["a.txt"]

    @pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb here")
    def test_apt(self, client, tmp_path):
        tree = tmp_path / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN" / "control").write_text(
            "Package: set\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: set\n"
        )
        (tree / "usr" / "share").mkdir(parents=True)
        (tree / "usr" / "share" / "a.txt").write_text("A")
        deb = tmp_path / "set.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(deb)], check=True, capture_output=True)
        client("apt-get", "set_1_all.deb", deb.read_bytes())
        package = DebianPackage("set", "1", hashlib.sha256(deb.read_bytes()).hexdigest())
        bring(Archives((package,), ("*/a.txt",), 2), tmp_path / "set")
        assert (tmp_path / "asked").read_text() == "download set=1\n"
        assert names_in(tmp_path / "set") == ["a.txt"]
        deb.write_bytes(deb.read_bytes()[:150])
        with pytest.raises(ValueError, match=r"set\.deb"):
            unpack(deb, tmp_path / "again")

    def test_a_client_that_is_missing(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(OSError, match="npm is not installed here, and brings it; it comes with Node"):
            bring(Archives((NpmPackage("set", "1", "0" * 64),)), tmp_path / "set")


class TestUnpack:
    @pytest.fixture
    def tar(self, tmp_path):
        """A tar of members given as TarInfo and content."""

        def make(*members: tuple[tarfile.TarInfo, bytes]) -> Path:
            path = tmp_path / "evil.tar"
            with tarfile.open(path, "w") as file:
                for member, content in members:
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))
            return path

        return make

    @pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "a\\..\\out.txt", "C:out.txt"])
    def test_names_that_lead_out(self, tar, tmp_path, name):
        archive = tar((tarfile.TarInfo(name), b"evil"))
        with pytest.raises(ValueError, match="not a place inside a folder"):
            unpack(archive, tmp_path / "into")
        assert not list(tmp_path.rglob("out.txt"))

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
    def test_links_and_devices(self, tar, tmp_path, kind):
        member = tarfile.TarInfo("inside")
        member.type, member.linkname = kind, "/etc/passwd"
        with pytest.raises(ValueError, match=r"holds the (link|device) 'inside'; only plain files are taken out"):
            unpack(tar((member, b"")), tmp_path / "into")
        assert not (tmp_path / "into").exists()

    def test_links_that_nobody_asked_for_do_no_harm(self, tar, tmp_path):
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        unpack(tar((link, b""), (tarfile.TarInfo("a.txt"), b"A")), tmp_path / "into", ("*.txt",))
        assert names_in(tmp_path / "into") == ["a.txt"]

    def test_the_same_name_twice(self, tar, tmp_path):
        archive = tar((tarfile.TarInfo("a.txt"), b"A"), (tarfile.TarInfo("./a.txt"), b"B"))
        with pytest.raises(ValueError, match=r"holds two files named 'a\.txt'"):
            unpack(archive, tmp_path / "into")

    def test_a_bomb(self, tmp_path):
        archive = tmp_path / "bomb.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("zeros", bytes(3_000_000))
        assert archive.stat().st_size < 10_000
        with pytest.raises(ValueError, match="unpacks to more than 1,000,000 bytes"):
            unpack(archive, tmp_path / "into", most_bytes=1_000_000)
        assert sum(path.stat().st_size for path in (tmp_path / "into").iterdir()) <= 1_000_000

    def test_too_many_files(self, tar, tmp_path):
        archive = tar(*((tarfile.TarInfo(f"{k}"), b"") for k in range(4)))
        with pytest.raises(ValueError, match="more than 3 files"):
            unpack(archive, tmp_path / "into", most_files=3)

    def test_a_link_in_a_zip(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
            link = zipfile.ZipInfo("inside")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(link, "/etc/passwd")
        with pytest.raises(ValueError, match="holds the link 'inside'"):
            unpack(tmp_path / "link.zip", tmp_path / "into")

    @pytest.mark.parametrize("kept", [0, 10, 2_000])
    def test_an_archive_that_was_cut_short(self, tmp_path, kept):
        (tmp_path / "cut.tar.gz").write_bytes(WHOLE[:kept])
        with pytest.raises(ValueError, match=r"cut\.tar\.gz is damaged or cut short"):
            unpack(tmp_path / "cut.tar.gz", tmp_path / "into")
        (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04" + bytes(kept))
        with pytest.raises(ValueError, match=r"cut\.zip is damaged or cut short"):
            unpack(tmp_path / "cut.zip", tmp_path / "into")


def test_descriptions_of_packages(tmp_path):
    (tmp_path / "x_Packages").write_text(
        "Package: one\nVersion: 1\n\nPackage: one-dev\nSource: one (1.2)\nVersion: 1\n\nPackage: bare\n"
    )
    (tmp_path / "x_Translation-en").write_text(
        "Package: one-dev\nDescription-en: first thing (headers)\n Makes one\n thing.\n .\n The headers.\n\n"
        "Package: one\nDescription-en: first thing\n Makes one\n thing.\n\n"
        "Package: gone\nDescription-en: not in the list\n Gone.\n\n"
        "Package: bare\nDescription-en: has nothing more\n"
    )
    assert summaries(tmp_path) == [
        ("one", "one", "Makes one thing.", "first thing"),
        ("one-dev", "one", "Makes one thing. The headers.", "first thing (headers)"),
    ]
