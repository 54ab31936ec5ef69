"""README, Makefile, locks, compose file and docs must tell the truth about each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import supervisor
from tests.support.docs import PARTS, replace_part

ROOT = Path(__file__).resolve().parents[2]
DOCS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md")]
LOCKS = ["build", "dev", "supervisor", "worker"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def lock_entries(name: str) -> dict[str, str]:
    """Package name to the whole entry, continuation lines joined."""
    joined = read(f"requirements/{name}.txt").replace("\\\n", " ")
    entries = [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return {f"{line.split('==')[0].strip()}{marker_of(line)}": line for line in entries}


def marker_of(line: str) -> str:
    head = line.split("--hash")[0]
    return f";{head.split(';', 1)[1].strip()}" if ";" in head else ""


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))


# ------------------------------------------------------------ README and Makefile


@pytest.mark.parametrize("command", ["make demo", "make test", "docker compose up"])
def test_docs_readme_names_the_commands(command: str) -> None:
    texts = read("README.md")
    assert command in texts


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_docs_name_only_make_targets_that_exist(path: Path) -> None:
    code = re.findall(r"`([^`\n]+)`|^(make [^\n]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    named = {
        match for pair in code for match in re.findall(r"^make (?:\w+=\S+ )*([a-z][a-z-]*)", "".join(pair))
    }
    assert named <= make_targets()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_docs_link_only_to_files_that_exist(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_make_help_lists_every_target() -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    shown = subprocess.run(
        ["make", "help"],  # noqa: S607 - make of the PATH
        cwd=ROOT, capture_output=True, text=True, check=True, env=env,
    )  # fmt: skip
    assert set(re.findall(r"^  make ([a-z-]+)", shown.stdout, re.MULTILINE)) == make_targets()


def test_make_setup_says_what_is_wrong_without_a_python(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(
        ["make", "setup", f"VENV={tmp_path}/none", f"PYTHON={tmp_path}/no-python"],  # noqa: S607 - make of the PATH
        cwd=ROOT, capture_output=True, text=True, check=False, env=env,
    )  # fmt: skip
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "none").exists()


def test_ci_script_is_executable_and_runs_the_tests() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    lines = read(".ci/run").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"


# ------------------------------------------------------------ locks


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_an_exact_version_and_a_hash(name: str) -> None:
    entries = lock_entries(name)
    assert entries
    for line in entries.values():
        assert re.match(r"^[a-z0-9._-]+(\[[a-z0-9,._-]+\])?==[^ ;]+ ", line), line
        assert "--hash=sha256:" in line, line


@pytest.mark.parametrize("name", LOCKS)
def test_locks_name_no_host_and_no_path(name: str) -> None:
    for line in lock_entries(name).values():
        assert not re.search(r"://|file:| @ |--(extra-)?index|--find-links|/", line), line


def test_the_supervisor_image_has_no_livekit() -> None:
    assert not [entry for entry in lock_entries("supervisor") if entry.startswith("livekit")]
    assert any(entry.startswith("livekit-agents") for entry in lock_entries("worker"))


def versions(name: str) -> dict[str, set[str]]:
    """Package to its locked versions; there are two where markers of Python versions part them."""
    found: dict[str, set[str]] = {}
    for line in lock_entries(name).values():
        package, version = line.split()[0].split("==")
        found.setdefault(re.sub(r"\[.*", "", package), set()).add(version)
    return found


@pytest.mark.parametrize("image", ["supervisor", "worker", "build"])
def test_the_images_run_what_was_tested(image: str) -> None:
    tested = versions("dev")
    assert {
        name: found for name, found in versions(image).items() if not found <= tested.get(name, set())
    } == {}


def test_every_dependency_of_pyproject_is_locked() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]

    def names(requirements: list[str]) -> set[str]:
        found = {re.split(r"[\[<>=~! ;]", requirement)[0].lower() for requirement in requirements}
        return found - {"livekit-supervisor"}

    def locked(name: str) -> set[str]:
        return {re.split(r"[\[;]", entry)[0] for entry in lock_entries(name)}

    base = names(project["dependencies"])
    assert base | names(extras["supervisor"]) | names(extras["otel"]) <= locked("supervisor")
    assert base | names(extras["worker"]) | names(extras["otel"]) <= locked("worker")
    assert base | {name for extra in extras.values() for name in names(extra)} <= locked("dev")


# ------------------------------------------------------------ images and compose


def compose() -> dict[str, Any]:
    return yaml.safe_load(read("docker-compose.yml"))


def test_compose_has_the_services_and_workers_can_be_scaled() -> None:
    services = compose()["services"]
    assert set(services) >= {"redis", "livekit", "supervisor", "worker", "simulator", "callers"}
    assert services["worker"]["deploy"]["replicas"] == 2
    assert "ports" not in services["worker"]
    assert not [name for name, service in services.items() if "container_name" in service]


def test_compose_services_are_hardened() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["init"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_compose_publishes_on_loopback_only() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_compose_builds_stages_that_exist_and_pins_the_rest() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", read("Dockerfile"), re.MULTILINE))
    for name, service in compose()["services"].items():
        if "build" in service:
            assert service["build"]["target"] in stages, name
        else:
            assert re.search(r":v?\d", service["image"]), name


def test_dockerfile_runs_as_nobody_special_and_needs_no_newer_builder() -> None:
    text = read("Dockerfile")
    assert "# syntax=" not in text
    final = {"supervisor", "worker"}
    for stage in final:
        body = text.split(f" AS {stage}\n", 1)[1].split("\nFROM ", 1)[0]
        assert "\nUSER app\n" in body
        assert "HEALTHCHECK" in body
    assert f'version="{supervisor.__version__}"' in text


def test_env_example_names_what_compose_reads() -> None:
    example = set(re.findall(r"^([A-Z_]+)=", read(".env.example"), re.MULTILINE))
    texts = read("docker-compose.yml") + read("deploy/providers-real.env")
    read_by_compose = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", texts))
    optional = {"SUPERVISOR_PUBLISHED_PORT", "SIMULATOR_PUBLISHED_PORT"}
    assert read_by_compose - optional == example


def test_compose_test_changes_only_what_needs_livekit() -> None:
    """What `make compose-test` proves must be true of the file that users start."""
    text = read("tests/compose/rehearsal.yml").replace("!override", "")
    changed = yaml.safe_load(text)["services"]
    assert set(changed) == {"livekit", "callers", "worker"}
    assert changed["livekit"] == changed["callers"] == {"profiles": ["rooms"]}
    assert set(changed["worker"]) == {"command", "environment", "depends_on"}
    kept = compose()["services"]["worker"]["depends_on"]
    assert changed["worker"]["depends_on"] == {name: kept[name] for name in kept if name != "livekit"}


def test_compose_test_says_so_without_docker(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.compose"],
        cwd=ROOT, capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "skipped: there is no docker command\n"), done.stderr


def test_stand_ins_serve_supervisor_and_workers_alike() -> None:
    def settings(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([A-Z_]+)=(.*)$", read(f"deploy/{name}.env"), re.MULTILINE))

    stand_ins = settings("providers")
    assert stand_ins["WORKER_SIMULATOR_URL"] == "http://simulator:9100"
    urls = [value for name, value in stand_ins.items() if name.endswith("_URL")]
    assert [url for url in urls if not url.startswith("http://simulator:9100")] == []
    real = settings("providers-real")
    assert {value for value in real.values() if "simulator" in value or "stand-in" in value} == set()
    assert set(real) >= {"GROQ_API_KEY", "CARTESIA_API_KEY"}


# ------------------------------------------------------------ generated docs


@pytest.mark.parametrize("name", sorted(PARTS))
def test_docs_generated_parts_are_current(name: str) -> None:
    path, make = PARTS[name]
    text = read(path)
    assert replace_part(text, name, make()) == text, "run: make docs"
