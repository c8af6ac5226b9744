"""The Dockerfile, as far as it can be read without docker."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_what_is_copied_is_here_and_is_not_left_out() -> None:
    left_out = {line.strip("/") for line in ignored(".dockerignore")}
    for word, rest in instructions():
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] not in left_out


def test_it_has_all_that_the_wheel_is_built_from() -> None:
    copied = {source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]}
    project = (ROOT / "pyproject.toml").read_text()
    assert set(re.findall(r'"(\w+)"', project.partition("packages = [")[2].partition("]")[0])) <= copied
    assert {"pyproject.toml", "README.md", "LICENSE", "deploy/constraints.txt"} <= copied


def test_it_ends_as_a_user_that_is_not_root_with_the_id_that_kubernetes_is_told() -> None:
    users = [rest for word, rest in instructions() if word == "USER"]
    assert users == ["ray"]
    assert any("useradd --create-home --uid 1000 ray" in rest for word, rest in instructions() if word == "RUN")
    assert not any("PYTHONDONTWRITEBYTECODE" in rest for _, rest in instructions())


def test_its_python_is_one_that_the_project_takes() -> None:
    _, python = next((word, rest) for word, rest in instructions() if word == "ARG" and rest.startswith("PYTHON="))
    assert tuple(map(int, python.partition("=")[2].split("."))) >= (3, 10)


def ignored(name: str) -> set[str]:
    lines = (ROOT / name).read_text().splitlines()
    return {line.removeprefix("**/") for line in lines if line and not line.startswith("#")}


def test_what_is_not_uploaded_is_not_in_the_image_either() -> None:
    assert ignored(".rayignore") <= ignored(".dockerignore")
