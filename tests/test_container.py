"""The container: what its files promise, its entry point as a script, and, where an engine is, the images at work."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from vasekit import health, runs
from vasekit.cli import ROOT, UserError

DOCKERFILES = [ROOT / "Dockerfile.cuda", ROOT / "docker" / "Dockerfile.cpu"]
COMPOSE = [ROOT / name for name in ("compose.yaml", "docker/gpu.yaml", "docker/cpu.yaml")]
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"
SERVICES = {"filter", "train", "sft", "merge", "grpo", "hf2megatron", "eval", "tensorboard", "demo", "test", "shell"}
ON_GPU = {"filter", "train", "sft", "grpo", "hf2megatron", "eval", "shell"}
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

by_name = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)


def instructions(path: Path) -> list[str]:
    """The Dockerfile's instructions, a line each."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return [line for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines() if line]


# ---- files ----


@by_name
def test_the_image_runs_as_a_user_by_number_under_tini_with_a_healthcheck(path: Path) -> None:
    found = instructions(path)
    users = [line for line in found if line.startswith("USER ")]
    assert users == ["USER ${VASE_UID}:${VASE_GID}"]
    assert "ARG VASE_UID=1000" in found
    assert found.index(users[0]) > max(k for k, line in enumerate(found) if line.startswith(("RUN", "COPY")))
    assert any(line.startswith("HEALTHCHECK ") and '"--health"' in line for line in found)
    assert 'ENTRYPOINT ["tini", "-g", "--", "/kit/docker/entrypoint.sh"]' in found


@by_name
def test_the_image_is_pinned_and_keeps_neither_secrets_nor_caches(path: Path) -> None:
    text = path.read_text()
    found = instructions(path)
    assert not text.startswith("# syntax=")
    assert "latest" not in text
    bases = re.findall(r"^ARG BASE_IMAGE=(\S+)$", text, re.MULTILINE)
    assert len(bases) == 1
    assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?", bases[0])
    stages = [line.split() for line in found if line.startswith("FROM ")]
    assert {words[1] for words in stages} <= {"${BASE_IMAGE}", "base"}
    for line in found:
        assert not re.match(r"(ENV|ARG|LABEL)\b.*(TOKEN|PASSWORD|SECRET|API_KEY|proxy|CERT)", line), line
        assert not line.startswith("ADD ")
        if line.startswith("RUN") and "install.sh system" in line:
            assert "--mount=type=cache,target=/var/cache/apt" in line
            assert "--mount=type=cache,target=/var/lib/apt" in line
        if line.startswith("RUN") and "install.sh python" in line:
            assert "--mount=type=cache,target=/var/cache/python" in line
            assert "--mount=type=secret,id=ca" in line


def test_only_the_cuda_image_keeps_a_compiler() -> None:
    for path in DOCKERFILES:
        named = {word for line in instructions(path) if "install.sh system" in line for word in line.split()}
        assert ("gcc" in named) == (path.name == "Dockerfile.cuda")


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_hold_exact_versions_and_hashes_alone(path: Path) -> None:
    entries = re.sub(r"\\\n\s*", "", path.read_text()).splitlines()
    assert entries
    for entry in entries:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==[\w.+!]+( ; [^-]*)?\s*(--hash=sha256:[0-9a-f]{64}\s*)+$", entry), entry


def test_what_the_images_install_is_what_was_tried_together() -> None:
    wanted = re.findall(r"^(\S+==\S+)", (ROOT / "requirements" / "base.in").read_text(), re.MULTILINE)
    for name in ("base", "dev", "gpu", "megatron"):
        lock = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert len(wanted) > 8
        for pin in wanted:
            assert f"{pin.lower().replace('_', '-')} " in lock, (name, pin)


def test_packages_are_installed_from_hashed_locks_alone() -> None:
    for path in [*DOCKERFILES, *(ROOT / "docker").glob("*.sh")]:
        text = re.sub(r"\\\n\s*", "", path.read_text())
        for line in re.findall(r"^.*\bpip\b.* (?:install|sync)\b.*$", text, re.MULTILINE):
            assert "--require-hashes" in line, line


def services(device: str) -> dict[str, dict]:
    """compose.yaml with what each service extends, as Compose merges it; variables stay as they are written."""
    extended = {
        name: yaml.safe_load((ROOT / "docker" / f"{name}.yaml").read_text())["services"] for name in ("gpu", "cpu")
    }
    merged = {}
    for name, service in yaml.safe_load(COMPOSE[0].read_text())["services"].items():
        file = "cpu" if "DEVICE" not in service["extends"]["file"] else device
        base = extended[file][service["extends"]["service"]]
        variables = base.get("environment", {}) | service.get("environment", {})
        merged[name] = base | service | {"environment": variables}
    return merged


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_services_are_complete_without_root_and_reserve_gpus_only_where_they_need_them(device: str) -> None:
    found = services(device)
    assert found.keys() == SERVICES
    for name, service in found.items():
        assert service["user"] == "${VASE_UID:-1000}:${VASE_GID:-1000}"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "pid"} & service.keys()
        assert "latest" not in service["image"]
        assert service["entrypoint"][:4] == ["tini", "-g", "--", "/kit/docker/entrypoint.sh"]
        reserved = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices")
        assert bool(reserved) == (device == "gpu" and name in ON_GPU), name
        assert service["image"] == (
            "${IMAGE:-vasekit:cuda}"
            if device == "gpu" and name not in ("demo", "test")
            else "${IMAGE_CPU:-vasekit:cpu}"
        )
    assert found["demo"]["network_mode"] == found["test"]["network_mode"] == "none"
    assert found["train"] == found["sft"]
    for name in ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "https_proxy", "HF_ENDPOINT"):
        assert found["train"]["environment"][name] is None  # handed on, and not set here


def test_every_variable_of_the_compose_files_is_explained() -> None:
    used = {name for path in COMPOSE for name in re.findall(r"\$\{(\w+)", path.read_text())}
    example = (ROOT / ".env.example").read_text()
    assert {"DATA", "MODELS", "OUTPUT", "CACHE"} <= used
    assert {name for name in used if not re.search(rf"^#?{name}=", example, re.MULTILINE)} == set()
    assert not re.search(r"(TOKEN|KEY)=\S", example)
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_what_goes_into_the_image_is_named() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert not {"!output", "!models", "!.git", "!.env", "!data", "!.venv"} & set(lines)
    assert "**/.env" in lines


# ---- the entry point, without an engine ----


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("data", "output", "cache"):
        (tmp_path / name).mkdir()
    return tmp_path


def entry(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    named = ("GPUS", "CUDA_VISIBLE_DEVICES", "NPROC_PER_NODE", "VASE_COMMIT")
    kept = {name: value for name, value in os.environ.items() if name not in named}
    env = kept | {"VASE_HOME": str(home), "HF_HOME": str(home / "cache")} | variables
    return subprocess.run([ENTRYPOINT, *words], capture_output=True, text=True, env=env, check=False)


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({}, "unset unset"),
        ({"GPUS": "0,1,2,3"}, "0,1,2,3 4"),
        ({"GPUS": "2"}, "2 1"),
        ({"GPUS": "cpu"}, " unset"),
        ({"GPUS": "0,1", "CUDA_VISIBLE_DEVICES": "5", "NPROC_PER_NODE": "1"}, "5 1"),
    ],
)
def test_gpus_are_mapped_and_what_runs_is_said(home: Path, variables: dict[str, str], shown: str) -> None:
    command = "echo ${CUDA_VISIBLE_DEVICES-unset} ${NPROC_PER_NODE-unset}"
    done = entry(home, "bash", "-c", command, **variables, VASE_COMMIT="0123456789abcdef")
    assert done.stdout.strip() == shown.strip()
    assert done.stderr == f"vasekit 0123456789ab: bash -c {command}\n"


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["true"], {"GPUS": "all"}, "GPUS=all: give numbers such as 0,1, or cpu"),
        ([], {}, "nothing to run"),
        (["true"], {"HF_HOME": "/nonexistent"}, "CACHE in .env"),
    ],
)
def test_the_entry_point_refuses_in_one_line(home: Path, words: list[str], variables: dict, said: str) -> None:
    done = entry(home, *words, **variables)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_the_entry_point_becomes_the_command(home: Path) -> None:
    assert entry(home, "bash", "-c", "exit 7").returncode == 7
    script = home / "hello.py"
    script.write_text("print('hello')")
    assert entry(home, str(script)).stdout == "hello\n"


def test_scripts_work_through_links_and_away_from_home(tmp_path: Path) -> None:
    """As in the image, where /workspace links to the kit's rooms and holds the user's folders."""
    (tmp_path / "model").symlink_to(ROOT / "model")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"VASE_HOME": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run(["model/merge.sh"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{tmp_path}/output/sft" in done.stderr
    assert done.stderr.count("\n") == 1


# ---- health ----


def test_a_whole_installation_is_healthy(tmp_path: Path) -> None:
    env = os.environ | {"GPUS": "cpu", "HF_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "vasekit.doctor", "--health"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("healthy: 6 packages, no GPU asked for")


def test_what_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="HF_HOME"):
        health.check({"GPUS": "cpu", "HF_HOME": str(tmp_path / "file")})
    monkeypatch.setattr(health.gpus, "visible", lambda environment: [])
    with pytest.raises(UserError, match="GPUS=0,1: the driver shows 0"):
        health.check({"GPUS": "0,1", "HF_HOME": str(tmp_path)})
    monkeypatch.setattr(health, "PACKAGES", ("torch", "no_such_package"))
    with pytest.raises(UserError, match="import no_such_package"):
        health.check({"GPUS": "cpu", "HF_HOME": str(tmp_path)})


# ---- make ----


def test_in_docker_runs_the_same_target_with_its_settings_in_the_container() -> None:
    def said(*words: str) -> str:
        command = ["make", "--no-print-directory", "--dry-run", "IN=docker", *words]
        env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "GPUS", "DEVICE", "KIT")}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, check=True)
        return done.stdout.splitlines()[-1].strip()

    assert said("sft", "GPUS=0,1", "MODEL=builtin").startswith("docker compose run --rm shell make sft ")
    assert {"GPUS=0,1", "MODEL=builtin"} <= set(said("sft", "GPUS=0,1", "MODEL=builtin").split())
    assert r"ARGS=--max_steps\ 3" in said("sft", "ARGS=--max_steps 3")
    assert "IN=docker" not in said("sft")
    assert said("demo") == "docker compose run --rm demo"
    assert said("test", "ARGS=-k caption") == "docker compose run --rm test -k caption"


def test_the_audit_says_what_it_found_and_what_it_could_not_ask() -> None:
    audit = importlib.util.module_from_spec(
        spec := importlib.util.spec_from_file_location("audit", ROOT / "docker" / "audit.py")
    )
    spec.loader.exec_module(audit)
    hole = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    lines, status = audit.judge([hole, {"name": "b", "version": "1", "vulns": []}])
    assert (lines[0], status) == ("a 1: CVE-1, mended in 2", 1)
    lines, status = audit.judge([{"name": "b", "version": "1", "vulns": []}, {"name": "c", "skip_reason": "unknown"}])
    assert (lines[0], status) == ("1 packages examined, 0 known vulnerabilities", 0)
    assert "1 packages could not be examined" in lines[1]
    command = [sys.executable, ROOT / "docker" / "audit.py", "false", "requirements/base.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "was not examined" in done.stdout) == (0, True)


# ---- with an engine ----


def image(name: str) -> None:
    """Skip where the image can't be run."""
    if shutil.which("docker") is None:
        pytest.skip("no docker on this machine")
    done = subprocess.run(["docker", "image", "inspect", name], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = "no such image" if "no such" in done.stderr.lower() else "the engine does not answer"
        pytest.skip(f"{name}: {reason}; make image-cpu, make image")


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of user 1000 with a small data set, and the variables that name them to Compose."""
    image("vasekit:cpu")
    folder = tmp_path_factory.mktemp("mounted")
    for path in (folder, *folder.parents):
        if path == Path(path.anchor) or path.stat().st_mode & 0o001:
            break
        path.chmod(0o755)  # pytest's folders are its user's alone
    names = ("data", "models", "output", "cache")
    for name in names:
        (folder / name).mkdir()
    world = folder / "world"
    for words in (
        ("make_world.py", "--vases", "30", "--views", "1", "--size", "112", "--output", world),
        ("build.py", "--images", world / "photos", "--records", world / "records.csv", "--output", folder / "made"),
    ):
        done = subprocess.run([sys.executable, ROOT / "data" / words[0], *words[1:]], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    shutil.copytree(world / "photos", folder / "data" / "photos")
    for name in ("video_training_dataset.json", "grpo_video_dataset.json"):
        text = (folder / "made" / name).read_text().replace(str(world), "/workspace/data")
        (folder / "data" / name).write_text(text)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "1000:1000", *(folder / name for name in names)], check=True)
    owner = {} if os.geteuid() == 0 else {"VASE_UID": str(os.geteuid()), "VASE_GID": str(os.getegid())}
    return {name.upper(): str(folder / name) for name in names} | owner | {"DEVICE": "cpu", "NETWORK": "none"}


def compose(mounted: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = ["docker", "compose", "run", "--rm", "-T", *words]
    env = {k: v for k, v in os.environ.items() if k != "GPUS"} | mounted
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)


SHORT = ("--model", "builtin", "--split_dataset_ratio", "0", "--save_steps", "2", "--logging_steps", "1")
SHORT += ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1", "--dataloader_num_workers", "0")


@pytest.mark.docker
@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_compose_takes_the_files(device: str) -> None:
    if shutil.which("docker") is None:
        pytest.skip("no docker on this machine")
    command = ["docker", "compose", "config", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"DEVICE": device}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.docker
def test_the_container_has_no_root_no_network_and_a_root_that_can_only_be_read(mounted: dict[str, str]) -> None:
    looked = "id -u; touch /kit/x /opt/x; ls /sys/class/net; which gcc cc; grep CapEff /proc/self/status"
    looked += "; ls -A /var/cache/python"  # nothing that the build fetched
    done = compose(mounted, "shell", "bash", "-c", looked)
    assert done.stdout.split() == [mounted.get("VASE_UID", "1000"), "lo", "CapEff:", "0000000000000000"]
    assert done.stderr.count("Read-only file system") == 2


@pytest.mark.docker
def test_a_folder_of_another_user_is_refused_in_one_line(mounted: dict[str, str]) -> None:
    done = compose(mounted | {"VASE_UID": "4321"}, "sft", "--max_steps", "1")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "set VASE_UID=" in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.docker
@pytest.mark.slow
def test_a_stopped_training_keeps_its_checkpoint_and_goes_on(mounted: dict[str, str]) -> None:
    name = f"vasekit-test-{os.getpid()}"
    command = ["docker", "compose", "run", "--rm", "-T", "--name", name, "train", *SHORT, "--max_steps", "2000"]
    output = Path(mounted["OUTPUT"]) / "sft"
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | mounted,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    limit = time.monotonic() + 240
    while not runs.checkpoints(output) if output.is_dir() else True:
        assert process.poll() is None, process.stdout.read()[-2000:]
        assert time.monotonic() < limit
        time.sleep(0.2)
    asked = ["docker", "inspect", "--format", "{{.State.Health.Status}}", name]
    while subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() != "healthy":
        assert time.monotonic() < limit
        time.sleep(0.5)
    started = time.monotonic()
    subprocess.run(["docker", "stop", "--time", "10", name], check=True, capture_output=True)
    assert time.monotonic() - started < 10
    process.communicate(timeout=30)
    kept = runs.checkpoints(output)
    assert kept
    done = compose(mounted, "train", *SHORT, "--max_steps", "2000", "--dry_run")
    assert f"--resume_from_checkpoint output/sft/{kept[-1].name}" in done.stdout.replace("/workspace/", ""), done.stderr


@pytest.mark.docker
@pytest.mark.slow
def test_the_chain_runs_offline_service_by_service(mounted: dict[str, str]) -> None:
    done = compose(mounted, "sft", *SHORT, "--max_steps", "2", "--fresh")
    assert done.returncode == 0, done.stderr[-2000:]
    done = compose(mounted, "merge")
    assert done.returncode == 0, done.stderr[-2000:]
    grpo = ("--max_steps", "1", "--num_generations", "2", "--max_completion_length", "16", "--save_steps", "1")
    grpo += ("--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "1", "--split_dataset_ratio", "0")
    done = compose(mounted, "grpo", *grpo, "--dataloader_num_workers", "0")
    assert done.returncode == 0, done.stderr[-2000:]
    note = json.loads((Path(mounted["OUTPUT"]) / "grpo" / "run.json").read_text())
    assert note["finished"]["checkpoint"].startswith("/workspace/output/grpo/")
    assert (Path(mounted["OUTPUT"]) / "grpo" / "run.json").stat().st_uid == int(mounted.get("VASE_UID", "1000"))


@pytest.mark.docker
@pytest.mark.slow
def test_the_cuda_image_imports_what_the_fast_recipes_need() -> None:
    image("vasekit:cuda")
    code = "import os, torch, vllm, swift, deepspeed, liger_kernel\n"
    code += "print(os.getuid(), torch.version.cuda, vllm.__version__)"
    command = [
        "docker",
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/tmp:exec",
        "--tmpfs",
        "/cache:mode=1777",
        "--network",
        "none",
        "-e",
        "GPUS=cpu",
    ]
    done = subprocess.run([*command, "vasekit:cuda", "python", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith("1000 13.0 0.28.0")
