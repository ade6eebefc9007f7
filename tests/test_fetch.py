"""data/fetch.sh against small hubs on the loopback: what it writes, what it refuses, how it goes on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from vasekit import cli, fetch, files
from vasekit.cli import ROOT

SCRIPT = ROOT / "data" / "fetch.sh"
DATASET, QWEN = "AIGeeksGroup/VaseVQA-3D", "Qwen/Qwen2.5-VL-3B-Instruct"
ONE, TWO = "1" * 40, "2" * 40
BIG = bytes(range(256)) * 4000  # 1,024,000 bytes: several blocks of the network
FIRST = {"README.md": b"vases\n", "data/train.json": b"[1]", "images/a.bin": BIG, "empty.txt": b""}
SECOND = {"README.md": b"more vases\n", "data/train.json": b"[1]", "images/b.bin": BIG[::-1]}
LFS = (".bin", ".safetensors")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Hub(ThreadingHTTPServer):
    """Enough of Hugging Face and of ModelScope for one client; the tests set what it holds and what goes wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.commits: dict[str, dict[str, bytes]] = {ONE: FIRST}
        self.head, self.repos = ONE, [DATASET, QWEN]
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.status: dict[str, list[int]] = {}  # file: what it answers, once each
        self.cut: dict[str, list[int]] = {}  # file: after how many bytes the connection drops, once each
        self.sent: dict[str, bytes] = {}  # file: what comes instead
        self.listed_size: dict[str, int] = {}
        self.repo_status, self.ranges, self.delay = 200, True, 0.0
        self.page = b""  # what a network answers that wants a login first

    def ranges_asked(self) -> list[str]:
        return [headers["range"] for _, headers in self.asked if "range" in headers]


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:  # the probe
        self.say(200)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        words = unquote(url.path).strip("/").split("/")
        if self.server.page:
            return self.say(200, body=self.server.page)
        if words[0] == "cdn":
            return self.file(words[1], "/".join(words[2:]))
        if "resolve" in words:
            at = words.index("resolve")
            return self.resolve(words[at + 1], "/".join(words[at + 2 :]))
        if words[:2] == ["api", "v1"]:
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            return self.modelscope("/".join(words[3:5]), words[5:], query)
        return self.hugging_face("/".join(words[2:4]), words[4:])

    def hugging_face(self, repo: str, words: list[str]) -> None:
        if self.server.repo_status != 200 or repo not in self.server.repos:
            return self.say(self.server.repo_status if self.server.repo_status != 200 else 404)
        commit = self.server.head if words[1] in ("main", "master") else words[1]
        if commit not in self.server.commits:
            return self.say(404, {"X-Error-Code": "RevisionNotFound"})
        if words[0] == "revision":
            return self.json({"id": repo, "sha": commit, "siblings": []})
        return self.json([self.entry(path, body) for path, body in self.server.commits[commit].items()])

    def entry(self, path: str, body: bytes) -> dict[str, object]:
        size = self.server.listed_size.get(path, len(body))
        blob = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        lfs = {"lfs": {"oid": sha256(body), "size": size, "pointerSize": 130}} if path.endswith(LFS) else {}
        return {"type": "file", "path": path, "size": size, "oid": blob} | lfs

    def resolve(self, commit: str, path: str) -> None:
        if path.endswith(LFS):  # as the hub does: big files are elsewhere, on a host that must not see the token
            elsewhere = f"http://localhost:{self.server.server_port}/cdn/{commit}/{path}"
            return self.say(302, {"Location": elsewhere})
        return self.file(commit, path)

    def modelscope(self, repo: str, words: list[str], query: dict[str, str]) -> None:
        if self.server.repo_status != 200 or repo not in self.server.repos:
            return self.say(self.server.repo_status if self.server.repo_status != 200 else 404)
        commit = self.server.head if query["Revision"] == "master" else query["Revision"]
        if words == ["repo"]:
            return self.file(commit, query["FilePath"])
        listed = [
            {"Path": p, "Type": "blob", "Size": len(b), "Sha256": sha256(b), "Revision": commit, "CommittedDate": 1}
            for p, b in self.server.commits[commit].items()
        ]
        folder = {"Path": "images", "Type": "tree", "Size": 0, "Revision": commit, "CommittedDate": 1}
        return self.json({"Code": 200, "Success": True, "Data": {"Files": [folder, *listed]}})

    def file(self, commit: str, path: str) -> None:
        if left := self.server.status.get(path):
            return self.say(left.pop(0))
        body = self.server.sent.get(path, self.server.commits[commit][path])
        asked = self.headers.get("Range") if self.server.ranges else None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        part = body[start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        left = self.server.cut.get(path)
        if left:
            self.wfile.write(part[: left.pop(0)])
            self.close_connection = True
            return None
        for at in range(0, len(part), 65536):
            self.wfile.write(part[at : at + 65536])
            time.sleep(self.server.delay)
        return None

    def json(self, value: object) -> None:
        self.say(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def say(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Forward(BaseHTTPRequestHandler):
    """A proxy that counts, and takes every host for the hub."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        there = f"{self.server.target}{url.path}?{url.query}"  # type: ignore[attr-defined]
        headers = {k: v for k, v in self.headers.items() if k.lower() in ("range", "authorization")}
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            answer = direct.open(urllib.request.Request(there, headers=headers), timeout=10)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()


def served(server: ThreadingHTTPServer) -> Iterator[ThreadingHTTPServer]:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    yield from served(Hub())  # type: ignore[misc]


@pytest.fixture
def proxy(hub: Hub) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    server.seen, server.target = [], hub.url  # type: ignore[attr-defined]
    yield from served(server)


def environment(folder: Path, endpoint: str, **more: str) -> dict[str, str]:
    """Nothing of the machine's own proxies and logins. The proxy that leads nowhere must not be asked for the hub."""
    mine = {k: v for k, v in os.environ.items() if not k.upper().startswith(("HF_", "MODELSCOPE_"))}
    mine = {k: v for k, v in mine.items() if not k.lower().endswith("_proxy")}
    mine |= {"HF_ENDPOINT": endpoint, "MODELSCOPE_ENDPOINT": endpoint, "PYTHON": sys.executable}
    mine |= {"HF_HOME": str(folder / "hf"), "MODELSCOPE_HOME": str(folder / "ms")}
    return mine | {"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"} | more


def run(folder: Path, endpoint: str, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Start data/fetch.sh as a person would, standing in `folder`."""
    command = [str(SCRIPT), *map(str, words), "--lock", "lock.json"]
    env = environment(folder, endpoint, **more)
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def held(folder: Path) -> dict[str, bytes]:
    """The repository's files in a folder, without what the script keeps beside them."""
    paths = (p for p in folder.rglob("*") if p.is_file())
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}
    return {k: v for k, v in found.items() if k != fetch.MANIFEST and not k.startswith(fetch.PARTIAL)}


def one_line(done: subprocess.CompletedProcess[str], said: str, status: int = 2) -> None:
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr


def test_the_script_is_strict_and_short_and_its_help_lists_the_names_at_once(tmp_path: Path) -> None:
    text = SCRIPT.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert len(text.splitlines()) <= 20
    assert os.access(SCRIPT, os.X_OK)
    started = time.monotonic()
    done = run(tmp_path, "http://127.0.0.1:9", "--help")
    assert time.monotonic() - started < 3  # a tenth of a second when nothing else runs
    assert all(name in done.stdout for name in fetch.sources())


def test_the_sources_are_whole_and_the_stages_defaults_are_among_them() -> None:
    for name, entry in fetch.sources().items():
        assert set(entry) <= {"kind", "huggingface", "modelscope", "output_dir", "files"}, name
        assert entry["kind"] in ("model", "dataset")
        assert "huggingface" in entry
    folders = {entry["output_dir"] for entry in fetch.sources().values()}
    assert {"models/Qwen2.5-VL-7B-Instruct", "models/Qwen2.5-VL-3B-Instruct"} <= folders
    args = cli.argparse.Namespace(source="huggingface", kind="model", output_dir=None, revision=None)
    assert fetch.find("qwen-7b", args).folder == ROOT / "models" / "Qwen2.5-VL-7B-Instruct"
    assert fetch.find("Org/Name", args).folder == ROOT / "models" / "Name"


@pytest.mark.parametrize(("source", "name"), [("huggingface", "dataset"), ("modelscope", "qwen-3b")])
def test_fetched_locked_and_done_before_without_a_network(tmp_path: Path, hub: Hub, source: str, name: str) -> None:
    words = (name, "--source", source, "--output_dir", "out")
    done = run(tmp_path, hub.url, *words)
    assert done.returncode == 0, done.stderr
    assert held(tmp_path / "out") == FIRST
    assert not (tmp_path / "out" / fetch.PARTIAL).exists()
    assert f"{ONE[:12]}: 4 files -> {tmp_path / 'out'}; 1.0 MB in " in done.stdout.splitlines()[-1]
    lock = files.read_json(tmp_path / "lock.json", "--lock")[name][source]
    assert lock["commit"] == ONE
    assert lock["files"] == {p: {"size": len(b), "sha256": sha256(b)} for p, b in sorted(FIRST.items())}
    before = (tmp_path / "lock.json").stat().st_mtime_ns, (tmp_path / "out" / fetch.MANIFEST).stat().st_mtime_ns
    again = run(tmp_path, "http://127.0.0.1:9", *words)  # nothing listens there
    assert again.returncode == 0, again.stderr
    assert "done before" in again.stdout
    assert before == (
        (tmp_path / "lock.json").stat().st_mtime_ns,
        (tmp_path / "out" / fetch.MANIFEST).stat().st_mtime_ns,
    )


def test_a_hub_id_and_several_names_and_patterns(tmp_path: Path, hub: Hub) -> None:
    hub.repos.append("timm/vit_base_patch32_clip_224.openai")
    hub.commits[ONE] = {"open_clip_config.json": b"{}", "open_clip_model.safetensors": b"w", "pytorch_model.bin": b"no"}
    done = run(tmp_path, hub.url, "clip", "--output_dir", "clip")
    assert done.returncode == 0, done.stderr
    assert sorted(held(tmp_path / "clip")) == ["open_clip_config.json", "open_clip_model.safetensors"]
    hub.commits[ONE] = {"README.md": b"no weights"}
    one_line(
        run(tmp_path, hub.url, "clip", "--output_dir", "other", "--update"), "no file that matches open_clip_config"
    )
    hub.commits[ONE] = FIRST
    done = run(tmp_path, hub.url, DATASET, "--kind", "dataset", "--output_dir", "direct")
    assert held(tmp_path / "direct") == FIRST, done.stderr
    assert {"clip", f"datasets/{DATASET}"} == set(files.read_json(tmp_path / "lock.json", "--lock"))
    done = run(tmp_path, hub.url, "dataset", "qwen-3b", "--dry_run")
    assert [line.split(":")[1].split()[2] for line in done.stdout.splitlines()] == [DATASET, QWEN]


def test_a_dry_run_writes_nothing(tmp_path: Path, hub: Hub) -> None:
    done = run(tmp_path, hub.url, "dataset", "--output_dir", "out", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert f"main@{ONE[:12]}: 4 of 4 files to fetch, 1.0 MB" in done.stdout
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "lock.json").exists()


def test_the_lock_pins_and_update_moves_it(tmp_path: Path, hub: Hub) -> None:
    assert run(tmp_path, hub.url, "dataset", "--output_dir", "out").returncode == 0
    hub.commits[TWO], hub.head = SECOND, TWO
    assert run(tmp_path, hub.url, "dataset", "--output_dir", "elsewhere").returncode == 0
    assert held(tmp_path / "elsewhere") == FIRST
    one_line(run(tmp_path, hub.url, "dataset", "--output_dir", "out", "--revision", TWO), f"at {ONE} (main); --update")
    assert run(tmp_path, hub.url, "dataset", "--output_dir", "out", "--revision", ONE).returncode == 0
    (tmp_path / "out" / "mine.txt").write_text("mine")
    done = run(tmp_path, hub.url, "dataset", "--output_dir", "out", "--update")
    assert done.returncode == 0, done.stderr
    assert held(tmp_path / "out") == SECOND | {"mine.txt": b"mine"}  # what the first commit alone had is gone
    assert "2 of 3 files" in done.stdout
    assert files.read_json(tmp_path / "lock.json", "--lock")["dataset"]["huggingface"]["commit"] == TWO
    done = run(tmp_path, hub.url, "dataset", "--output_dir", "out", "--update", "--revision", ONE)
    assert held(tmp_path / "out") == FIRST | {"mine.txt": b"mine"}, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "there are dataset, vasevlm-3b"),
        (["../etc/passwd"], "no such name"),
        (["dataset", "nope", "--dry_run"], "nope: no such name"),
        (["vasevlm-7b", "--source", "modelscope"], "known on huggingface only"),
        (["vasevlm-7b"], "AIGeeksGroup/VaseVLM-7B: not found at revision main"),
        (["Org/Missing", "--source", "modelscope"], "modelscope model Org/Missing: not found at revision master"),
        (["dataset", "--revision", "nope"], "not found at revision nope"),
        (["dataset", "qwen-3b", "--output_dir", "x"], "are for one NAME"),
        (["dataset", "--workers", "0"], "needs at least 1"),
        (["dataset", "--lock", "broken.json"], "not valid JSON"),
        (["dataset", "--lock", "foreign.json"], "is not as this script writes it"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, hub: Hub, words: list[str], said: str) -> None:
    (tmp_path / "lock.json").write_text("[{]" if "broken.json" in words else "{}")
    if "foreign.json" in words:
        (tmp_path / "lock.json").write_text('{"dataset": {"huggingface": {"commit": "1"}}}')
    one_line(run(tmp_path, hub.url, *words[: words.index("--lock") if "--lock" in words else None]), said)
    assert {path.name for path in tmp_path.iterdir()} <= {"lock.json", "hf", "ms"}


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository_says_where_to_ask(tmp_path: Path, hub: Hub, source: str, status: int) -> None:
    words = ("qwen-3b", "--source", source, "--output_dir", "out")
    hub.status["README.md"] = [status]  # the list is public, the files are not
    login = {"huggingface": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}[source]
    one_line(run(tmp_path, hub.url, *words), f"access refused ({status})")
    hub.repo_status = status
    one_line(run(tmp_path, hub.url, *words, "--update"), f"log in with {login}")


def test_the_token_reaches_the_hub_and_no_other_host(tmp_path: Path, hub: Hub) -> None:
    done = run(tmp_path, hub.url, "dataset", "--output_dir", "out", HF_TOKEN="hf_secret")
    assert done.returncode == 0, done.stderr
    told = {"cdn" if path.startswith("/cdn/") else "hub": "authorization" in headers for path, headers in hub.asked}
    assert told == {"hub": True, "cdn": False}
    assert "hf_secret" not in done.stdout + done.stderr + (tmp_path / "lock.json").read_text()


def test_wrong_bytes_never_come_to_their_place(tmp_path: Path, hub: Hub) -> None:
    hub.sent = {"images/a.bin": BIG[:-1] + b"!"}
    done = run(tmp_path, hub.url, "dataset", "--output_dir", "out")
    one_line(done, f"sha256 {sha256(BIG)} expected, sha256 {sha256(BIG[:-1] + b'!')} came")
    assert "images/a.bin" not in held(tmp_path / "out")
    assert not (tmp_path / "out" / fetch.MANIFEST).exists()
    hub.sent = {"README.md": b"<html>log in</html>"}
    one_line(run(tmp_path, hub.url, "dataset", "--output_dir", "other"), "git blob")
    hub.sent = {}
    assert run(tmp_path, hub.url, "dataset", "--output_dir", "out").returncode == 0
    assert held(tmp_path / "out") == FIRST


def test_a_locked_checksum_holds_against_the_hub(tmp_path: Path, hub: Hub) -> None:
    assert run(tmp_path, hub.url, "dataset", "--output_dir", "out").returncode == 0
    hub.commits[ONE] = FIRST | {"README.md": b"vasez\n"}  # the same commit, another text of the same size
    one_line(
        run(tmp_path, hub.url, "dataset", "--output_dir", "other"), f"sha256 {sha256(b'vases' + bytes([10]))} expected"
    )


def test_a_file_changed_on_this_disk_is_named_and_kept(tmp_path: Path, hub: Hub) -> None:
    assert run(tmp_path, hub.url, "dataset", "--output_dir", "out").returncode == 0
    target = tmp_path / "out" / "README.md"
    target.write_text("mine now")
    done = run(tmp_path, hub.url, "dataset", "--output_dir", "out")
    one_line(done, f"{target}: sha256 {sha256(FIRST['README.md'])} expected, sha256 {sha256(b'mine now')} found")
    assert target.read_text() == "mine now"
    target.unlink()
    assert "1 of 4 files" in run(tmp_path, hub.url, "dataset", "--output_dir", "out").stdout
    assert held(tmp_path / "out") == FIRST


def test_verify_finds_what_size_and_time_do_not_show(tmp_path: Path, hub: Hub) -> None:
    assert run(tmp_path, hub.url, "dataset", "--output_dir", "out").returncode == 0
    target = tmp_path / "out" / "images" / "a.bin"
    times = target.stat().st_atime_ns, target.stat().st_mtime_ns
    target.write_bytes(BIG[:-1] + b"!")
    os.utime(target, ns=times)
    assert run(tmp_path, hub.url, "dataset", "--output_dir", "out").returncode == 0
    one_line(run(tmp_path, hub.url, "dataset", "--output_dir", "out", "--verify"), str(target))


def test_files_that_are_there_already_are_taken_when_they_are_right(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_bytes(FIRST["README.md"])
    done = run(tmp_path, hub.url, "dataset", "--output_dir", "out")
    assert "3 of 4 files" in done.stdout
    assert held(tmp_path / "out") == FIRST


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_a_dropped_connection_goes_on_with_a_range_in_the_next_call(tmp_path: Path, hub: Hub, source: str) -> None:
    words = ("qwen-3b", "--source", source, "--output_dir", "out")
    hub.cut, hub.status = {"images/a.bin": [300_000]}, {}
    hub.status["images/a.bin"] = []
    broken = threading.Event()

    def then_down() -> None:  # after the drop the hub is out of order for the rest of the call
        while hub.cut["images/a.bin"]:
            time.sleep(0.005)
        hub.status["images/a.bin"] = [503] * 9
        broken.set()

    threading.Thread(target=then_down, daemon=True).start()
    one_line(run(tmp_path, hub.url, *words), "connection lost")
    assert broken.is_set()
    (part,) = (tmp_path / "out" / fetch.PARTIAL / "images").iterdir()
    have = part.stat().st_size
    assert 0 < have <= 300_000
    assert "images/a.bin" not in held(tmp_path / "out")
    hub.status, hub.asked = {}, []
    hub.commits[TWO], hub.head = SECOND, TWO  # a newer commit in between does not mix with the older
    done = run(tmp_path, hub.url, *words)
    assert done.returncode == 0, done.stderr
    assert hub.ranges_asked()[-1] == f"bytes={have}-"
    assert held(tmp_path / "out") == FIRST


def test_a_drop_is_mended_in_the_same_call_also_without_ranges(tmp_path: Path, hub: Hub) -> None:
    hub.cut = {"images/a.bin": [200_000, 300_000], "README.md": [2]}
    done = run(tmp_path, hub.url, "dataset", "--output_dir", "out")
    assert done.returncode == 0, done.stderr
    assert held(tmp_path / "out") == FIRST
    assert len(hub.ranges_asked()) >= 3
    hub.cut, hub.ranges = {"images/a.bin": [200_000]}, False
    assert run(tmp_path, hub.url, "dataset", "--output_dir", "other").returncode == 0
    assert held(tmp_path / "other") == FIRST


def test_ctrl_c_ends_at_once_and_the_next_call_goes_on(tmp_path: Path, hub: Hub) -> None:
    hub.delay = 0.3
    command = [str(SCRIPT), "dataset", "--output_dir", "out", "--lock", "lock.json"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(tmp_path, hub.url),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # Tests started in the background of a shell inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    parts = tmp_path / "out" / fetch.PARTIAL / "images"
    until = time.monotonic() + 20
    while not (parts.exists() and any(part.stat().st_size for part in parts.iterdir())):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert said.decode().count("\n") == 1
    assert not (tmp_path / "out" / fetch.MANIFEST).exists()
    hub.delay, hub.asked = 0.0, []
    assert run(tmp_path, hub.url, "dataset", "--output_dir", "out").returncode == 0
    assert hub.ranges_asked()
    assert held(tmp_path / "out") == FIRST


def test_a_disk_too_small_is_refused_before_a_byte_is_fetched(tmp_path: Path, hub: Hub) -> None:
    hub.listed_size = {"images/a.bin": 10**15}
    one_line(run(tmp_path, hub.url, "dataset", "--output_dir", "out"), "needs 1,000,000,000.0 MB more")
    assert not any("/cdn/" in path for path, _ in hub.asked)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "lock.json").exists()


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_no_network_is_one_line_within_seconds(tmp_path: Path, source: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and never answers
        started = time.monotonic()
        done = run(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}", "qwen-3b", "--source", source)
        one_line(done, "no network")
        assert time.monotonic() - started < 10
    one_line(run(tmp_path, "http://127.0.0.1:9", "qwen-3b", "--source", source), "no network")


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_an_address_that_is_no_hub_is_said_so(tmp_path: Path, hub: Hub, source: str) -> None:
    hub.page = b"<html>log in to this network</html>"
    one_line(run(tmp_path, hub.url, "qwen-3b", "--source", source), "does not answer as a hub does")
    hub.page = b"{}"
    one_line(run(tmp_path, hub.url, "qwen-3b", "--source", source), "")


def test_addresses_that_are_none_are_refused(tmp_path: Path) -> None:
    one_line(run(tmp_path, "127.0.0.1", "dataset"), "begins with https://")
    one_line(run(tmp_path, "http://127.0.0.1:9", "dataset", all_proxy="socks5://127.0.0.1:9"), "name an http:// proxy")


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_a_proxy_is_used(tmp_path: Path, hub: Hub, proxy: ThreadingHTTPServer, source: str) -> None:
    hub.commits[ONE] = {"README.md": b"vases\n", "data/train.json": b"[1]"}
    through = {"http_proxy": f"http://127.0.0.1:{proxy.server_port}", "no_proxy": ""}
    words = ("qwen-3b", "--source", source, "--output_dir", "out")
    done = run(tmp_path, "http://hub.invalid", *words, **through)  # a name that only the proxy can know
    assert done.returncode == 0, done.stderr
    assert held(tmp_path / "out") == hub.commits[ONE]
    assert len(proxy.seen) >= 4  # type: ignore[attr-defined]
    assert [path for path in proxy.seen if not path.startswith("http://hub.invalid")] == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "a\\..\\evil.txt", fetch.MANIFEST])
def test_file_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, hub: Hub, name: str) -> None:
    hub.commits[ONE] = {name: b"evil"}
    one_line(run(tmp_path, hub.url, "dataset", "--output_dir", "out"), "leads out of")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil.txt").exists()


def test_two_fetches_do_not_write_into_one_folder(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "out" / fetch.PARTIAL).mkdir(parents=True)
    with (tmp_path / "out" / fetch.PARTIAL / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        one_line(run(tmp_path, hub.url, "dataset", "--output_dir", "out"), "another fetch is writing there")
    assert run(tmp_path, hub.url, "dataset", "--output_dir", "out").returncode == 0
