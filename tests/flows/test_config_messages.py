"""How the loader speaks: each `tests/messages/config/<name>.yaml` beside the whole text that it is answered with.

To see what changed: ``git diff`` after writing the new text into the ``.txt``; read it as the person at the terminal.
"""

from pathlib import Path

import pytest

from flows._config import load
from flows._errors import ConfigError
from flows.alerts._base import alerts
from flows.sources._base import sources
from flows.targets._base import targets
from transforms._transform import transforms
from validations._rule import rules

FOLDER = Path(__file__).parents[1] / "messages" / "config"
REGISTRIES = {"transforms": transforms, "sources": sources, "targets": targets, "rules": rules, "alerts": alerts}


@pytest.mark.parametrize("case", sorted(FOLDER.glob("*.yaml")), ids=lambda case: case.stem)
def test_the_loader_answers_with_the_whole_text(case, monkeypatch):
    monkeypatch.chdir(FOLDER)

    with pytest.raises(ConfigError) as caught:
        load(case.name, environ={})

    assert _without_catalogues(str(caught.value)) + "\n" == case.with_suffix(".txt").read_text()


def test_every_text_has_its_case():
    assert {case.stem for case in FOLDER.glob("*.txt")} == {case.stem for case in FOLDER.glob("*.yaml")}


def _without_catalogues(text):
    """A new transform must not need a new golden text: whole catalogues are replaced by their name."""
    for kind, registry in REGISTRIES.items():
        text = text.replace(f"Known: {', '.join(registry.names())}.", f"Known: <{kind}>.")
    return text
