"""The docs: the site builds, what it names is there, and the examples of README and pages run as they stand."""

from __future__ import annotations

import ast
import json
import linecache
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

import ray_split as rs
from tests.conftest import HANG_SECONDS, ROOT
from tests.tiers import on_ray

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
FOLDER = "(?:actors|deploy|docs|jobs|ray_split|tests)"
NAMED = re.compile(rf"`({FOLDER}/[\w./]*)`|`(\w+(?:\.\w+)*)\(\)`")
NOT_OURS = {"section.field", "config.file"}  # what stands for any setting; a flag of prometheus


def named_files(text: str) -> set[str]:
    """What a page names that looks like a file or a folder of the repository."""
    return {name.rstrip(".") for name in re.findall(rf"(?<![\w./-])({FOLDER}/[\w./]+)", text)}


def defined(path: Path) -> set[str]:
    """The functions and classes that a file defines, methods as Class.method."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{each.name}"
                for each in node.body
                if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
            }
    return found


def blocks(path: Path, language: str = "python") -> list[str]:
    """The examples of a page, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


def command(path: Path, beginning: str) -> list[str]:
    """The arguments of the first `ray-split` command of a page that begins like this, without its name."""
    lines = path.read_text().replace("\\\n", " ").splitlines()
    line = next(line for line in lines if line.startswith(f"    ray-split {beginning}"))
    return shlex.split(line, comments=True)[1:]


def run(arguments: list[str], folder: Path) -> str:
    """Run this Python, in a folder that is not the repository's; what it printed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def settings_of(*command: str) -> list[str]:
    """The settings that a command's --help shows, with their sections."""
    everything = "--help-all" if "train" in command else "--help"
    return re.findall(r"^  --(\w+\.[\w.]+)", run([*command, everything], ROOT), re.M)


def train(arguments: list[str], folder: Path, *more: str) -> None:
    """Run a page's `ray-split train` command in this process's place, without Ray."""
    run(["-m", "ray_split.cli", *arguments, "--cluster.backend", "inprocess", *more], folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built so that every warning is an error: a dead link, a page that the menu lacks, a missing name."""
    folder = tmp_path_factory.mktemp("site")
    run(["-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)], ROOT)
    return folder


@pytest.mark.thorough
def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    fetched = re.compile(
        r"""<(?:script|img|iframe)[^>]+src="?(?:https?:)?//|<link[^>]+href="?(?:https?:)?//|url\(["']?http"""
    )
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert pages and [page.name for page in pages if fetched.search(page.read_text())] == []


@pytest.mark.thorough
def test_the_pictures_are_in_their_pages(site: Path) -> None:
    assert '<figure><svg class="picture"' in (site / "index.html").read_text()
    assert (site / "concepts.html").read_text().count('<figure><svg class="picture"') == 2
    assert '<figure><svg class="picture"' in (site / "real_devices.html").read_text()


EXAMPLES = re.compile(
    r"Phone 2|Waiting for round 1 of \d+|Training, round (\d+) of \d+|training, round \d+ of \d+|step \d+|"
    r"connected; the run has not begun|demo|[\d.]+( %| bytes| KB| MB)?|webgl|Yw3k5Vn0rJ"
)


def test_the_telephones_picture_has_the_words_of_the_page() -> None:
    """But for its captions, and for numbers and what else is an example."""
    page = " ".join(re.sub(r"<[^>]*>", " ", (ROOT / "web/src/index.html").read_text()).split())
    texts = re.findall(r"<text[^>]*>(.*?)</text>", (ROOT / "docs/telephone.svg").read_text())
    said = [" ".join(re.sub(r"<[^>]*>", " ", text).strip("▾▸… ").split()) for text in texts]
    captions = {"Choose your data", "Wait for the others", "Watch it train"}
    assert {each for each in said if each not in page and not EXAMPLES.fullmatch(each)} == captions


def test_the_reference_has_every_setting_and_says_what_it_is(site: Path) -> None:
    page = (site / "settings.html").read_text()
    rows = dict(re.findall(r'<td><span id="([\w.]+)"></span>.*?<td>([^\n]*)</td>\s*</tr>', page, re.S))
    assert sorted(rows) == sorted(settings_of("-m", "ray_split.cli", "train"))
    assert [name for name, text in rows.items() if not text] == []


def test_the_reference_has_everything_that_can_be_imported(site: Path) -> None:
    page = (site / "api.html").read_text()
    assert [name for name in rs.__all__ if f'id="ray_split.{name}"' not in page] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_files_that_a_page_names_are_there(path: Path) -> None:
    assert [name for name in named_files(path.read_text()) if not (ROOT / name).exists()] == []


def test_flags_that_a_page_names_are_settings() -> None:
    known = {*NOT_OURS, *settings_of("-m", "ray_split.cli", "train"), *settings_of("-m", "jobs.plan")}
    flags = {
        (path.name, flag) for path in TEXTS for flag in re.findall(r"--([a-z_]+\.[a-z_.]*[a-z_])", path.read_text())
    }
    assert len(flags) > 50 and {(page, flag) for page, flag in flags if flag not in known} == set()


def test_functions_that_pages_name_by_their_modules_are_there() -> None:
    names = {
        name
        for path in TEXTS
        for name in re.findall(r"(?<![\w./])((?:ray_split|actors|jobs)(?:\.(?!svg)\w+)+)", path.read_text())
    }
    missing = {name for name in names if not is_there(name)}
    assert len(names) > 10 and missing == set()


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or what one defines; or is to be had from the package itself."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:i])
        rest = ".".join(parts[i:])
        for file in (module.with_suffix(".py"), module / "__init__.py"):
            if file.exists():
                return not rest or rest in defined(file) or (parts[:i] == ["ray_split"] and rest in rs.__all__)
    return False


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", path.read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_architecture_names_files_and_functions_that_there_are() -> None:
    place, missing, count = "", [], 0
    for path, name in NAMED.findall((DOCS / "architecture.md").read_text()):
        count += 1
        if path:
            place = path
            if not (ROOT / path).exists():
                missing.append(path)
        elif place.endswith(".py") and (ROOT / place).exists() and name not in defined(ROOT / place):
            missing.append(f"{place}: {name}()")
    assert missing == [] and count > 100


def test_the_readme_is_short_and_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1600
    assert "\n    make train\n    make test\n" in text


def test_the_examples_model_is_the_same_everywhere() -> None:
    own = (ROOT / "tests" / "jobs" / "my_model.py").read_text()
    assert blocks(ROOT / "README.md")[0] == blocks(DOCS / "own.md")[0] == own
    assert command(ROOT / "README.md", "train --model.name my") == command(DOCS / "own.md", "train --model.name my")


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's own model, trained by its command."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_model.py").write_text(blocks(ROOT / "README.md")[0])
    train(command(ROOT / "README.md", "train --model.name my_model"), folder, "--run.rounds", "6")
    return folder


def test_the_readmes_own_model_and_data_are_trained_by_its_command(rings: Path) -> None:
    summary = json.loads((rings / "results" / "rings" / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["test_accuracy"] > 0.8


@pytest.mark.parametrize(
    ("page", "number"),
    [("README.md", 1), ("docs/read_results.md", 0), ("docs/equality.md", 0)],
    ids=lambda each: str(each),
)
@pytest.mark.few(1)
def test_examples_with_its_results_run(rings: Path, page: str, number: int) -> None:
    run(["-c", blocks(ROOT / page)[number]], rings)


@pytest.mark.thorough
def test_the_script_trains_the_same_model(rings: Path) -> None:
    script = blocks(DOCS / "own.md")[1]
    for was, now in (
        ('phones={"count": 4}', 'phones={"count": 4}, cluster={"backend": "inprocess"}'),
        ('"name": "script"}', '"name": "script", "rounds": 6}'),
    ):
        assert was in script
        script = script.replace(was, now)
    run(["-c", script], rings)
    models = [(rings / "results" / name / "model.safetensors").read_bytes() for name in ("rings", "script")]
    assert models[0] == models[1]


def cells() -> list[str]:
    """The notebook's code, cell by cell."""
    found = json.loads((DOCS / "notebook.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") for cell in found)
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


@pytest.mark.thorough
@pytest.mark.parametrize("backend", ["inprocess", on_ray("ray")])
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, backend: str
) -> None:
    if backend == "ray":
        request.getfixturevalue("ray_session")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells()):
        text = cell.replace('"backend": "ray"', f'"backend": "{backend}"')
        file = f"<cell {number}>"  # with its source known, as IPython does
        monkeypatch.setitem(linecache.cache, file, (len(text), None, text.splitlines(keepends=True), file))
        exec(compile(text, file, "exec", dont_inherit=True), names)
    assert (names["same"], names["same_on_ray"]) == (True, True) and names["accuracy"] > 0.95
    assert names["first"].metrics["test_accuracy"] > 0.7
    told = Path(names["result"].path, "by_value.txt").read_text()
    assert "class Net(nn.Module):\n" in told and "def smooth(outputs, labels):\n" in told


@pytest.mark.thorough
def test_the_notebooks_example_runs_without_a_file_of_its_own(tmp_path: Path) -> None:
    was, now = '"name": "notebook", "rounds": 20}', '"name": "notebook", "rounds": 8}, cluster={"backend": "inprocess"}'
    script = blocks(DOCS / "own.md")[2]
    assert was in script
    run(["-c", script.replace(was, now) + "\nassert result.metrics['test_accuracy'] > 0.7\nmodel.lower"], tmp_path)


@pytest.mark.thorough
def test_the_algorithm_of_ones_own_trains(tmp_path: Path) -> None:
    (tmp_path / "my_algorithm.py").write_text(blocks(DOCS / "algorithm.md")[0])
    more = ["--run.rounds", "2", "--run.storage_path", "results", "--run.name", "own"]
    train(command(DOCS / "algorithm.md", "train"), tmp_path, *more)
    losses = [row["train_loss"] for row in rows_of(tmp_path / "results" / "own")]
    assert losses[1] < losses[0]


@pytest.mark.thorough
def test_the_callback_of_ones_own_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "my_callback.py").write_text(blocks(DOCS / "callbacks.md")[0])
    flags = ["--run.rounds", "2", "--run.storage_path", "results", "--run.name", "own", "--phones.count", "2"]
    arguments = [*command(DOCS / "callbacks.md", "train --run.callbacks my"), "--phones.local_steps", "1", *flags]
    out = run(["-m", "ray_split.cli", *arguments, "--cluster.backend", "inprocess"], tmp_path)
    best = max(rows_of(tmp_path / "results" / "own"), key=lambda row: row["val_accuracy"])["round"]
    assert f"finished best in round {best} of {tmp_path / 'results' / 'own'}" in out


def test_every_hook_is_told_of() -> None:
    page = (DOCS / "callbacks.md").read_text()
    assert re.findall(r"^\| `(on_\w+)\(", page, re.M) == [name for name in vars(rs.Callback) if name.startswith("on_")]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def columns(folder: Path) -> Iterator[str]:
    """Every name that a run's files have."""
    yield from {name for row in rows_of(folder) for name in row}
    yield from pandas.read_parquet(folder / "phones.parquet").columns
    yield from json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize(
    "more", [[], ["--phones.held_out", "0.4", "--phones.link", "wifi", "--phones.dropout", "0.1"]], ids=["plain", "all"]
)
@pytest.mark.thorough
def test_the_reference_has_every_column_of_a_runs_files(tmp_path: Path, more: list[str]) -> None:
    flags = ["--model.name", "mlp", "--phones.count", "4", "--run.rounds", "1", "--schedule.name", "splitfed_v1"]
    train(["train", *flags, "--run.storage_path", "results", "--run.name", "r"], tmp_path, *more)
    told = set(re.findall(r"`(\w+)`", (DOCS / "results.md").read_text()))
    told |= {f"{name}_total" for name in told if name.startswith("virtual_")}
    assert {name for name in columns(tmp_path / "results" / "r")} - told == set()
