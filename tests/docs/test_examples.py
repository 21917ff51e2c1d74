"""Everything between three backticks in README and docs: it loads, it runs, and what it prints is what is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import _config, _offline
from flows._errors import ConfigError
from flows._keys import PipelineKeys
from transforms._transform import transforms
from validations._rule import rules

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDE = ROOT / "docs" / "guide.md"
FENCED = re.compile(r"^```(?P<language>\w+)(?P<marks>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)

#: What a fragment is a part of.
ORDERS, CUSTOMERS = ({"type": "file", "path": f"{name}.csv"} for name in ("orders", "customers"))
REST = {"type": "batch", "target": {"type": "database", "connection_string": "embedded://shop", "table_name": "t"}}


@dataclass(frozen=True)
class Block:
    """A fenced block; its marks are what stands behind the language: ``file=orders.csv``, ``mistaken``."""

    page: Path
    line: int
    language: str
    marks: tuple[str, ...]
    text: str

    @property
    def file(self) -> str | None:
        return next((mark.removeprefix("file=") for mark in self.marks if mark.startswith("file=")), None)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str, pages: list[Path] = PAGES) -> list[Block]:
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found["language"], tuple(found["marks"].split()), found[3])
        for page in pages
        for text in [page.read_text(encoding="utf-8")]
        for found in FENCED.finditer(text)
        if found["language"] in languages
    ]


def completed(value: object) -> dict[str, object]:
    """A whole file around what may be a part of one."""
    if isinstance(value, dict) and "pipelines" in value:
        return value
    if isinstance(value, dict):
        assert value.keys() <= {field.alias or name for name, field in PipelineKeys.model_fields.items()}
        rest = {key: part for key, part in (REST | {"source": ORDERS}).items() if f"{key}s" not in value}
        return {"pipelines": {"example": rest | value}}
    assert isinstance(value, list)
    kinds = {name for name, _ in transforms}, {*(name for name, _ in rules), *rules.aliases}
    steps = [item for item in value if item["type"] in kinds[0]]
    checks = [item for item in value if item["type"] in kinds[1]]
    assert value in (steps, checks)
    parts = {"sources": {"orders": ORDERS, "customers": CUSTOMERS}, "transformations": steps, "quality_rules": checks}
    return {"pipelines": {"example": REST | parts}}


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_yaml_example_is_valid(block, tmp_path):
    value = YAML(typ="safe", pure=True).load(block.text)
    file = tmp_path / "pipelines.yaml"
    if "mistaken" in block.marks:
        file.write_text(block.text)
        with pytest.raises(ConfigError):
            _config.load(file, environ={})
        return
    with file.open("w") as stream:
        YAML().dump(completed(value), stream)

    pipelines = _config.load(file, environ={}).pipelines

    for pipeline in pipelines.values():
        assert _offline.check(pipeline).mistakes == ()


def test_the_readmes_pipeline_is_the_one_that_runs():
    (shown,) = blocks("yaml", pages=[ROOT / "README.md"])
    assert shown.text in (ROOT / "flows" / "customer_etl.yaml").read_text(encoding="utf-8")


# --- the guide, from top to bottom ---


@pytest.fixture
def folder(tmp_path, database, monkeypatch):
    """A folder with the guide's files, and an environment in which its commands run."""
    for block in blocks("csv", "yaml", "python", pages=[GUIDE]):
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
    monkeypatch.setenv("SHOP_URL", database)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def printed(command: str, folder: Path) -> str:
    """What a command says: its results; its complaints, where there are none."""
    done = subprocess.run(["/bin/sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


def same(text: str) -> str:
    """`text` without what differs from run to run, and from terminal to terminal."""
    text = re.sub(r"\d{8}T\d{6}_[0-9a-f]{8}", "RUN", text)
    text = re.sub(r"in [\d.]+ s, [\d,]+ rows/s", "in SECONDS", text)
    text = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(.*?)\d+\.\d$", r"STARTED\1SECONDS", text, flags=re.MULTILINE)
    return "\n".join(re.sub(" +", " ", line).rstrip() for line in text.strip().splitlines())


@pytest.mark.postgres
def test_the_guides_commands_print_what_it_shows(folder):
    for block in blocks("console", pages=[GUIDE]):
        sessions = re.findall(r"^\$ (.*?)\n(.*?)(?=^\$ |\Z)", block.text, re.DOTALL | re.MULTILINE)
        assert sessions, block
        for command, shown in sessions:
            assert same(printed(command, folder)) == same(shown), f"{block}: {command}"


@pytest.mark.postgres
def test_the_guides_python_runs(folder):
    calls = "\nfor name, thing in list(globals().items()):\n    name.startswith('test_') and thing()\n"
    source = "\n".join(block.text for block in blocks("python", pages=[GUIDE]) if block.file != "mask.py")
    (folder / "guide.py").write_text(source + calls, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "guide.py"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "orders are too few" in done.stdout
