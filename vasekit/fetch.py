"""Fetch the published data set and models from a hub: pinned to a commit, resumable, every checksum verified.

The first fetch of a name writes its commit and checksums to the lock; later ones take what the lock says.
A proxy (http_proxy, https_proxy, no_proxy) and HF_ENDPOINT or MODELSCOPE_ENDPOINT are honoured.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import queue
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vasekit import cli, files, hub
from vasekit.cli import UserError

if TYPE_CHECKING:
    import httpx

SOURCES = cli.ROOT / "data" / "sources.yaml"
# In the target folder: what was placed there, written last; and what is on its way.
MANIFEST, PARTIAL = ".fetched.json", ".partial"
# Seconds before another try after a lost connection; a try that brought bytes begins the count anew.
WAITS = (0.5, 1.0, 2.0)
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0


class File(NamedTuple):
    """Size in bytes and checksum of a file. git: the blob id, which the hub states of small files instead."""

    size: int
    sha256: str = ""
    git: str = ""

    @property
    def checksum(self) -> str:
        return f"sha256 {self.sha256}" if self.sha256 else f"git blob {self.git}"

    def noted(self) -> dict[str, Any]:
        """As the lock and the manifest write it: without what is not known."""
        return {name: value for name, value in self._asdict().items() if value != ""}


class Snapshot(NamedTuple):
    """A repository at one commit."""

    revision: str  # as asked for: a branch, a tag or a commit
    commit: str
    files: dict[str, File]


@dataclass(frozen=True)
class Repo:
    """What to fetch, from where, to where."""

    name: str  # in the lock
    source: str
    kind: str
    id: str
    revision: str  # "" where nobody asked for one
    patterns: tuple[str, ...]
    folder: Path

    def __str__(self) -> str:
        return f"{self.source} {self.kind} {self.id}"


# ---- the two hubs ----


class Hub(Protocol):
    """What a hub is asked. Failures leave as UserError."""

    login: str
    branch: str
    endpoint: str

    def snapshot(self, repo: Repo, revision: str) -> Snapshot: ...

    def url(self, repo: Repo, commit: str, path: str) -> str: ...

    def headers(self) -> dict[str, str]: ...


class HuggingFace:
    """huggingface_hub's own listing, addresses and login; HF_ENDPOINT and HF_TOKEN are its business."""

    login, branch = "HF_TOKEN=...", "main"

    def __init__(self) -> None:
        from huggingface_hub import constants

        self.endpoint = constants.ENDPOINT

    def snapshot(self, repo: Repo, revision: str) -> Snapshot:
        import httpx
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.hf_api import RepoFile

        api = HfApi()
        try:
            commit = api.repo_info(repo.id, repo_type=repo.kind, revision=revision, timeout=READ_SECONDS).sha
            tree = list(api.list_repo_tree(repo.id, repo_type=repo.kind, revision=commit, recursive=True))
        except HfHubHTTPError as error:
            raise _refused(repo, revision, self, error.response.status_code) from None
        except httpx.HTTPError as error:
            raise _lost(repo, error) from None
        except (ValueError, KeyError, TypeError) as error:
            raise _no_hub(repo, self, error) from None
        entries = [entry for entry in tree if isinstance(entry, RepoFile)]
        found = {e.path: File(e.size, e.lfs.sha256) if e.lfs else File(e.size, git=e.blob_id) for e in entries}
        return Snapshot(revision, commit or revision, found)

    def url(self, repo: Repo, commit: str, path: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(repo.id, path, repo_type=repo.kind, revision=commit)

    def headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers

        return build_hf_headers()


class ModelScope:
    """modelscope_hub's listing, addresses and login; MODELSCOPE_ENDPOINT and MODELSCOPE_API_TOKEN are its business."""

    login, branch = "MODELSCOPE_API_TOKEN=...", "master"

    def __init__(self) -> None:
        from modelscope_hub import HubApi

        self._client = HubApi().legacy
        self.endpoint = self._client.endpoint

    def snapshot(self, repo: Repo, revision: str) -> Snapshot:
        from modelscope_hub.errors import APIError, HubError

        try:
            tree = self._client.list_repo_files(repo.id, repo.kind, revision)
            entries = [entry for entry in tree if entry.get("Type") != "tree"]
            found = {e["Path"]: File(int(e["Size"]), e.get("Sha256") or "") for e in entries}
        except APIError as error:
            raise _refused(repo, revision, self, error.status_code or 0) from None
        except HubError as error:
            raise _lost(repo, error) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _no_hub(repo, self, error) from None
        # The listing names the commit that each file comes from: the newest of them has all files as they are now.
        newest = max(entries, key=lambda entry: entry.get("CommittedDate") or 0, default={})
        return Snapshot(revision, newest.get("Revision") or revision, found)

    def url(self, repo: Repo, commit: str, path: str) -> str:
        return self._client.get_download_url(repo.id, repo.kind, path, commit)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._client.token}"} if self._client.token else {}


HUBS: dict[str, Callable[[], Hub]] = {"huggingface": HuggingFace, "modelscope": ModelScope}


@lru_cache
def _reached(source: str) -> Hub:
    """The hub, once it is known to answer. Raises UserError within seconds when it does not."""
    _client()
    server = HUBS[source]()
    if not server.endpoint.startswith(("http://", "https://")):
        raise UserError(f"HF_ENDPOINT {server.endpoint}: needs an address that begins with https://")
    offline = hub.HuggingFace().offline() if source == "huggingface" else not hub.Probe(server.endpoint).answered()
    if offline:
        raise UserError(
            f"--source {source}: no network, {server.endpoint} does not answer (or HF_HUB_OFFLINE is set); a proxy is"
            " named with https_proxy, a mirror with HF_ENDPOINT, another hub with --source"
        )
    return server


def _refused(repo: Repo, revision: str, server: Hub, status: int) -> UserError:
    if status in (401, 403):
        return UserError(
            f"{repo}: access refused ({status}); it is gated, private, or does not exist: check the name, ask for"
            f" access on {server.endpoint}, and log in with {server.login}"
        )
    if status == 404:
        return UserError(f"{repo}: not found at revision {revision}; check the name, --kind and --revision")
    return UserError(f"{repo}: {server.endpoint} answers with status {status}; try again later")


def _lost(repo: Repo, error: Exception) -> UserError:
    return UserError(f"{repo}: connection lost ({_reason(error)}); the same command again goes on where it stopped")


def _no_hub(repo: Repo, server: Hub, error: Exception) -> UserError:
    return UserError(f"{repo}: {server.endpoint} does not answer as a hub does ({_reason(error)}); check its address")


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# ---- what can be fetched, and the lock ----


def sources() -> dict[str, dict[str, Any]]:
    """The entries of data/sources.yaml by short name."""
    import yaml

    return yaml.safe_load(SOURCES.read_text(encoding="utf-8"))


def find(name: str, args: argparse.Namespace) -> Repo:
    """The repository that a short name or a hub id stands for. Raises UserError for another."""
    known = sources()
    entry, key = known.get(name), name
    if entry is None:
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
            raise UserError(f"{name}: no such name; there are {', '.join(known)}, or a hub id such as Org/Name")
        key = f"{args.kind}s/{name}"
        folder = ("data/" if args.kind == "dataset" else "models/") + name.split("/")[1]
        entry = {"kind": args.kind, args.source: name, "output_dir": folder}
    if args.source not in entry:
        there = " and ".join(source for source in HUBS if source in entry)
        raise UserError(
            f"{name} --source {args.source}: known on {there} only; if that hub has it under another name, give the id"
            f" (Org/Name --kind {entry['kind']})"
        )
    repo, _, pinned = entry[args.source].partition("@")
    output = args.output_dir or cli.default_path(entry["output_dir"])
    return Repo(
        key, args.source, entry["kind"], repo, args.revision or pinned, tuple(entry.get("files", ["*"])), output
    )


def read_lock(lock: Path, repo: Repo) -> Snapshot | None:
    """What the lock says of a repository. Raises UserError when it is locked to something else than asked for."""
    noted = (files.read_json(lock, "--lock") if lock.exists() else {}).get(repo.name, {}).get(repo.source)
    if noted is None:
        return None
    try:
        found = {path: File(**file) for path, file in noted["files"].items()}
        locked, other = Snapshot(noted["revision"], noted["commit"], found), noted["repo"] != repo.id
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"--lock {lock}: {repo.name} is not as this script writes it; restore or remove it") from None
    if other or (repo.revision and repo.revision not in (locked.revision, locked.commit)):
        raise UserError(
            f"{repo} {repo.revision}: {lock} has {noted['repo']} at {locked.commit} ({locked.revision});"
            " --update moves it"
        )
    return locked


def write_lock(lock: Path, repo: Repo, snapshot: Snapshot) -> None:
    """Put a snapshot into the lock, beside what it has of others."""
    noted = files.read_json(lock, "--lock") if lock.exists() else {}
    stated = {path: file.noted() for path, file in snapshot.files.items()}
    entry = {"repo": repo.id, "revision": snapshot.revision, "commit": snapshot.commit, "files": stated}
    if noted.get(repo.name, {}).get(repo.source) != entry:
        noted.setdefault(repo.name, {})[repo.source] = entry
        files.write_json(lock, dict(sorted(noted.items())))


def newest(repo: Repo, server: Hub) -> Snapshot:
    """The repository as the hub has it now, at the revision asked for."""
    found = server.snapshot(repo, repo.revision or server.branch)
    chosen = {p: f for p, f in sorted(found.files.items()) if any(fnmatch(p, pattern) for pattern in repo.patterns)}
    if not chosen:
        raise UserError(f"{repo}: has no file that matches {', '.join(repo.patterns)} at revision {found.revision}")
    return found._replace(files=chosen)


# ---- files on the disk ----


def _inside(folder: Path, path: str) -> Path:
    """Where a file of the repository goes; refuses names that lead elsewhere."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or ".." in parts or parts[0] in (MANIFEST, PARTIAL):
        raise UserError(f"{path!r}: the hub's name for a file leads out of {folder}; nothing was written")
    return folder.joinpath(*parts)


def _found(path: Path, stated: File) -> File:
    """A file as it is on the disk, with the kind of checksum that `stated` has."""
    if stated.sha256 or not stated.git:
        return File(path.stat().st_size, files.sha256(path))
    content = path.read_bytes()  # git keeps small files only
    return File(len(content), git=hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


def _same(found: File, stated: File) -> bool:
    """Whether size and checksum agree; a hub that states no checksum is taken at its size."""
    bare = not (stated.sha256 or stated.git)
    return found.size == stated.size if bare else found == stated


def _untouched(path: Path, noted: Mapping[str, Any] | None) -> bool:
    """Whether a file has the size and time that the manifest noted when its checksum was verified."""
    return noted is not None and [path.stat().st_size, path.stat().st_mtime_ns] == [noted["size"], noted["mtime_ns"]]


def missing(repo: Repo, snapshot: Snapshot, noted: Mapping[str, Any], verify: bool) -> list[str]:
    """The files that have to be fetched. With `verify` all others are read again, else only those changed since.

    Raises UserError for a file that is neither the hub's nor from an earlier fetch: it may be somebody's work.
    """
    wanted, strange = [], []
    for path, stated in snapshot.files.items():
        target = _inside(repo.folder, path)
        ours = target.exists() and _untouched(target, noted.get(path))
        replaceable = ours and noted[path]["sha256"] != stated.sha256
        if not target.exists() or (replaceable and stated.sha256):
            wanted.append(path)
        elif ours and stated.sha256 and not verify:
            continue
        elif not _same(found := _found(target, stated), stated):
            if replaceable:
                wanted.append(path)
            else:
                strange.append(f"{target}: {stated.checksum} expected, {found.checksum} found ({found.size:,} bytes)")
    if strange:
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise UserError(f"{strange[0]}{more}; move or remove the file, then the same command fetches it anew")
    return wanted


def _part(repo: Repo, path: str, stated: File) -> Path:
    """Where a file is collected: named by its checksum, so that it never continues another version."""
    return _inside(repo.folder / PARTIAL, f"{path}.{(stated.sha256 or stated.git)[:16]}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _need_space(repo: Repo, snapshot: Snapshot, wanted: Sequence[str]) -> None:
    need = sum(snapshot.files[p].size - _size(_part(repo, p, snapshot.files[p])) for p in wanted)
    there = next(folder for folder in (repo.folder, *repo.folder.parents) if folder.exists())
    if need > (free := shutil.disk_usage(there).free):
        raise UserError(
            f"{repo.folder}: needs {need / 1e6:,.1f} MB more, {free / 1e6:,.1f} MB are free; make room or name another"
            " disk with --output_dir"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a folder that another process is fetching into."""
    (folder / PARTIAL).mkdir(parents=True, exist_ok=True)
    with (folder / PARTIAL / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--output_dir {folder}: another fetch is writing there; wait for it") from None
        yield


# ---- bytes over the network ----


class _Again(Exception):
    """The hub asks to come back later, or lost its place."""


@dataclass
class Transfer:
    """Collects files of one snapshot, in several threads.

    Plain ranged requests, since hf_hub_download of huggingface_hub 1.33 removes a partial file when it fails: an
    interrupted shard of 5 GB would start anew.
    """

    repo: Repo
    snapshot: Snapshot
    server: Hub
    moved: Callable[[int], None]  # told of every block, in bytes
    stop: threading.Event

    def fetch(self, path: str) -> None:
        """Bring one file to its place, verified. Raises UserError; what has come stays for the next time."""
        stated, target = self.snapshot.files[path], _inside(self.repo.folder, path)
        part = _part(self.repo, path, stated)
        part.parent.mkdir(parents=True, exist_ok=True)
        self._persist(path, part, stated.size)
        if not _same(found := _found(part, stated), stated):
            part.unlink()
            raise UserError(
                f"{target}: {stated.checksum} expected, {found.checksum} came ({found.size:,} of {stated.size:,} bytes)"
                " and was removed; fetch again, or take another --source or HF_ENDPOINT if it stays so"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)

    def _persist(self, path: str, part: Path, size: int) -> None:
        """Try until the file is there; give up after some tries in a row that bring nothing."""
        import httpx

        failures = 0
        while _size(part) != size or not part.exists():
            before = _size(part)
            try:
                self._collect(path, part, size)
                return
            except (httpx.HTTPError, _Again) as error:
                failures = 1 if _size(part) > before else failures + 1
                if failures > len(WAITS):
                    raise _lost(self.repo, error) from None
                self.stop.wait(WAITS[failures - 1])

    def _collect(self, path: str, part: Path, size: int) -> None:
        """One request for what is missing of a file, appended to `part`."""
        have = _size(part) if _size(part) < size else 0
        url = self.server.url(self.repo, self.snapshot.commit, path)
        headers = self.server.headers() | {"Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={have}-"} if have else {}
        with _client().stream("GET", url, headers=headers) as answer:
            self._check(answer.status_code, path, part)
            if answer.status_code != 206:
                self.moved(-have)  # the whole file comes
            with part.open("ab" if answer.status_code == 206 else "wb") as stream:
                for block in answer.iter_bytes():
                    self._write(stream, block, part)

    def _write(self, stream: Any, block: bytes, part: Path) -> None:
        if self.stop.is_set():
            raise UserError("stopped")
        try:
            stream.write(block)
        except OSError as error:  # a full disk: Python does not name the file
            raise OSError(error.errno, error.strerror, str(part)) from None
        self.moved(len(block))

    def _check(self, status: int, path: str, part: Path) -> None:
        if status == 416:  # more is here than there: begin anew
            part.unlink(missing_ok=True)
        if status in (408, 416, 429) or status >= 500:
            raise _Again(f"{path}: status {status}")
        if status >= 400:
            raise _refused(self.repo, self.snapshot.commit, self.server, status)


@lru_cache
def _client() -> httpx.Client:
    """The HTTP client of all transfers; it knows the proxies of the environment."""
    import httpx

    try:
        return httpx.Client(follow_redirects=True, timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS))
    except (ImportError, ValueError) as error:  # socks5:// without its package, or no address at all
        raise UserError(f"http_proxy, https_proxy or all_proxy: {error}; name an http:// proxy") from None


def _in_threads(work: Callable[[str], None], items: Sequence[str], workers: int, stop: threading.Event) -> None:
    """Call `work` on each item; the first error stops the others.

    In daemon threads, so that Ctrl-C waits for no stalled server.
    """
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def loop() -> None:
        while not stop.is_set():
            try:
                work(todo.get_nowait())
                done.put(None)
            except queue.Empty:
                return
            except Exception as error:
                done.put(error)

    for item in items:
        todo.put(item)
    for _ in range(min(workers, len(items))):
        threading.Thread(target=loop, daemon=True).start()
    try:
        for _ in items:
            if error := done.get():
                raise error
    finally:
        stop.set()


def transfer(repo: Repo, snapshot: Snapshot, wanted: Sequence[str], workers: int) -> None:
    """Fetch `wanted` into the repository's folder, with a progress bar on a terminal."""
    from tqdm import tqdm

    sizes = {path: snapshot.files[path].size for path in wanted}
    have = sum(_size(_part(repo, path, snapshot.files[path])) for path in wanted)
    stop = threading.Event()
    with tqdm(total=sum(sizes.values()), initial=have, unit="B", unit_scale=True, disable=None) as bar:
        job = Transfer(repo, snapshot, _reached(repo.source), bar.update, stop)
        # The biggest first, so that none is left alone at the end.
        _in_threads(job.fetch, sorted(wanted, key=sizes.__getitem__, reverse=True), workers, stop)


# ---- one name from end to end ----


def fetch(repo: Repo, args: argparse.Namespace) -> None:
    """Bring one repository to its folder as the lock has it, or lock it now."""
    watch = cli.Stopwatch()
    snapshot = None if args.update else read_lock(args.lock, repo)
    snapshot = snapshot or newest(repo, _reached(repo.source))
    noted = _manifest(repo)
    wanted = missing(repo, snapshot, noted.get("files", {}), args.verify)
    size = sum(snapshot.files[path].size for path in wanted) / 1e6
    at = f"{repo} {snapshot.revision}@{snapshot.commit[:12]}"
    if wanted or args.dry_run:
        print(f"fetch: {at}: {len(wanted)} of {len(snapshot.files)} files to fetch, {size:,.1f} MB", flush=True)
    if args.dry_run:
        return
    if wanted:
        _need_space(repo, snapshot, wanted)
        _reached(repo.source)
        write_lock(args.lock, repo, snapshot)
        with _alone(repo.folder):
            transfer(repo, snapshot, wanted, args.workers)
    full = finish(repo, snapshot, noted, args.lock)
    if wanted or noted.get("commit") != snapshot.commit:
        watch.close("fetch", f"{at}: {len(full)} files -> {repo.folder}", round(size, 1), "MB")
    else:
        how = "every checksum" if args.verify else "sizes and times"
        watch.close("fetch", f"{at}: done before, {repo.folder}; {how} verified", len(full), "files")


def _manifest(repo: Repo) -> dict[str, Any]:
    path = repo.folder / MANIFEST
    return files.read_json(path, "--output_dir") if path.exists() else {}


def finish(repo: Repo, snapshot: Snapshot, noted: Mapping[str, Any], lock: Path) -> dict[str, File]:
    """All is there and verified: complete the lock, remove what an update left over, write the manifest."""
    paths = {path: _inside(repo.folder, path) for path in snapshot.files}
    full = {p: File(f.size, f.sha256 or files.sha256(paths[p])) for p, f in snapshot.files.items()}
    write_lock(lock, repo, snapshot._replace(files=full))
    _remove_left_over(repo, noted.get("files", {}), full)
    entries = {path: file.noted() | {"mtime_ns": paths[path].stat().st_mtime_ns} for path, file in full.items()}
    about = {"source": repo.source, "repo": repo.id, "revision": snapshot.revision, "commit": snapshot.commit}
    if noted != (now := about | {"files": entries}):
        files.write_json(repo.folder / MANIFEST, now)
    shutil.rmtree(repo.folder / PARTIAL, ignore_errors=True)
    return full


def _remove_left_over(repo: Repo, before: Mapping[str, Any], now: Mapping[str, File]) -> None:
    """Files that an earlier commit had and this one has not: an old shard would be loaded with the new ones."""
    for path in set(before) - set(now):
        left = _inside(repo.folder, path)
        if left.exists() and _untouched(left, before[path]):
            left.unlink()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser("Fetch the published data set and models from a hub: pinned, resumable, checksums verified.")
    parser.prog = "data/fetch.sh"
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help=f"{', '.join(sources())}; or a hub id such as Org/Name")
    add("--output_dir", type=cli.user_path, help="for one NAME (default: its folder in data/ or models/)")
    add("--source", choices=list(HUBS), default="huggingface", help="which hub")
    add("--kind", choices=["model", "dataset"], default="model", help="what an Org/Name is")
    add("--revision", help="branch, tag or commit for one NAME (default: the locked one, else the newest)")
    add("--update", action="store_true", help="move the lock to the newest commit, or to --revision")
    add("--verify", action="store_true", help="read every file again, not only those changed since they were fetched")
    add("--workers", type=cli.positive_int, default=4, help="files at a time")
    add("--lock", type=cli.user_path, default=cli.default_path("data/fetch.lock.json"), help="commits and checksums")
    add("--dry_run", action="store_true", help="say what would be fetched")
    args = parser.parse_args(argv)
    if len(args.names) > 1 and (args.output_dir or args.revision):
        parser.error("--output_dir and --revision are for one NAME")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch every name; all are checked before the first is fetched."""
    args = parse(argv)
    for repo in [find(name, args) for name in args.names]:
        fetch(repo, args)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
