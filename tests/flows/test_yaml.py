"""YAML in, plain values and lines out; what could surprise is a mistake with its line."""

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import _nodes
from flows._errors import ConfigError
from flows._yaml import MAX_BYTES, parse, read, scalar


def mistake(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "a.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("null", None),
        ("", None),
        ("12", 12),
        ("012", 12),
        ("0o17", 15),
        ("1_000", 1000),
        ("1e3", 1000.0),
        ("'12'", "12"),
        ("2026-01-31", dt.date(2026, 1, 31)),
        ("2026-01-31T12:30:00Z", dt.datetime(2026, 1, 31, 12, 30, tzinfo=dt.UTC)),
        ("2026-01-31 12:30:00", dt.datetime(2026, 1, 31, 12, 30)),
        ("2026-13-45", "2026-13-45"),
        ("12:30", "12:30"),
        ("=", "="),
        ("!!str 5", "5"),
        ("[a, 1]", ["a", 1]),
        ("{a: 1}", {"a": 1}),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_a_scalar_is_read_by_yaml_1_2(text, value):
    found = parse(f"key: {text}", "a.yaml").data["key"]

    assert (value, type(value)) == (found, type(found))


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("a: b: c", "a: b: c"), ("[1", "[1"), ("", None), ("30s", "30s")]
)
def test_a_value_from_outside_is_yaml_or_a_text(text, value):
    assert value == scalar(text)


def test_every_key_and_item_knows_its_line():
    document = parse("a:\n  b: 1\n  c:\n    - x\n    - y: 2\n", "f.yaml")

    assert document.locate(("a",)) == "f.yaml:1"
    assert document.locate(("a", "b")) == "f.yaml:2"
    assert document.locate(("a", "c", 0)) == "f.yaml:4"
    assert document.locate(("a", "c", 1, "y")) == "f.yaml:5"


def test_what_is_not_there_is_located_at_what_is_above_it():
    document = parse("a:\n  b: 1\n", "f.yaml")

    assert document.locate(("a", "b", "missing", 3)) == "f.yaml:2"
    assert document.locate(("a", "missing")) == "f.yaml:1"
    assert document.locate(("missing",)) == "f.yaml"
    assert document.locate(()) == "f.yaml"


def test_merged_values_keep_the_line_where_they_were_written():
    document = parse("x: &x\n  a: 1\n  b: {c: 2}\ny:\n  <<: *x\n  b: 3\n", "f.yaml")

    assert document.data["y"] == {"a": 1, "b": 3}
    assert document.locate(("y", "a")) == "f.yaml:2"
    assert document.locate(("y", "b")) == "f.yaml:6"
    assert document.locate(("y", "b", "c")) == "f.yaml:6"


@pytest.mark.parametrize(
    ("merge", "value"),
    [("[*one, *two]", {"a": 1, "b": 2, "c": 3}), ("*one", {"a": 1, "c": 3}), ("*two", {"a": 2, "b": 2, "c": 3})],
)
def test_of_several_merges_the_first_wins(merge, value):
    text = f"x: &one {{a: 1}}\ny: &two {{a: 2, b: 2}}\nz:\n  c: 3\n  <<: {merge}\n"

    assert value == parse(text, "f.yaml").data["z"]


def test_an_alias_is_a_value_of_its_own():
    data = parse("x: &x {a: [1]}\ny: *x\n", "f.yaml").data
    data["x"]["a"].append(2)

    assert data["y"] == {"a": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1", "a.yaml:2: a tab stands where YAML wants spaces. Indent with spaces."),
        ("a: b: c", "a.yaml:1: a ':' stands where no key can be. Check the indentation, or put the text in quotes."),
        ("a: 1\n---\nb: 2", "a.yaml:2: a second document begins here. One file holds one document: remove the '---'."),
        ("a:\n  b: *c", "a.yaml:2: no anchor '&c' stands above '*c'."),
        ("a: [1,\n2\n", "a.yaml:1: a '[' or '{' opened here is not closed, or a ',' is missing in it."),
        ("a: {", "a.yaml:1: a '[' or '{' opened here is not closed, or a ',' is missing in it."),
        ("a: 1\nb: 'x\n\n", "a.yaml:2: a quote is opened here and never closed."),
        ("a: @x", "a.yaml:1: a text cannot begin with '@'. Put it in quotes."),
        ("- a\nb: c", "a.yaml:2: the indentation does not fit the lines above."),
        ("a: 1\nb: 2\na: 3", "a.yaml:3  a: 'a' stands here twice, first in line 1."),
        ("a: {1: x, 1: y}", "a.yaml:1  a[1]: 1 stands here twice, first in line 1."),
        ("a: !foo 1", "a.yaml:1  a: the tag '!foo' is not read. Remove it."),
        ("a: !!python/name:x y", "a.yaml:1  a: the tag 'tag:yaml.org,2002:python/name:x' is not read. Remove it."),
        ("a: !!int x", "a.yaml:1  a: 'x' is not an int."),
        ("? [1]\n: 2", "a.yaml:1: a key is a text."),
        ("~: 2", "a.yaml:1: a key is a text."),
        ("a: &a [*a]", "a.yaml:1: values are nested deeper than 60 levels."),
        ("a: &a {<<: *a}", "a.yaml:1  a: '<<' takes a mapping, as in '<<: *defaults'."),
        ("a: {<<: [1]}", "a.yaml:1  a: '<<' takes a mapping, as in '<<: *defaults'."),
        ("[" * 100, "a.yaml:1: values are nested deeper than 60 levels."),
        ("a: 1\nb: \x00", "a.yaml:2: a NUL character cannot stand in YAML. Remove it."),
        ("a: \x07", "a.yaml:1: the character U+0007 cannot stand in YAML. Remove it."),
        ("%YAML 1.1\n---\na: no", "a.yaml:1: only YAML 1.2 is read. Remove the '%YAML' line."),
        ("- a", "a.yaml:1: a configuration begins with 'pipelines:' and the names of pipelines under it."),
        ("", "a.yaml:1: a configuration begins with 'pipelines:' and the names of pipelines under it."),
        ("# nothing", "a.yaml:1: a configuration begins with 'pipelines:' and the names of pipelines under it."),
    ],
)  # fmt: skip
def test_what_could_surprise_is_refused_in_one_line(text, message):
    assert f"{message}\n1 mistake in a.yaml." == mistake(text)


def test_every_double_key_is_reported():
    assert mistake("a: 1\na: 2\nb: 1\nb: 2").endswith("2 mistakes in a.yaml.")


@pytest.mark.parametrize("kind", ["list", "merge"])
def test_an_alias_bomb_is_refused(kind):
    lines = ["a0: &a0 {k: v}"]
    for level in range(1, 30):
        aliases = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(
            f"a{level}: &a{level} [{aliases}]" if kind == "list" else f"a{level}: &a{level} {{<<: [{aliases}]}}"
        )

    assert f"more than {_nodes.MAX_VALUES:,} values. Use fewer aliases" in mistake("\n".join(lines))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: \xff", "a.yaml:1: byte 0xff is not UTF-8. Save the file as UTF-8."),
        (b"a: 1\nb: caf\xe9\n", "a.yaml:2: byte 0xe9 is not UTF-8. Save the file as UTF-8."),
        ("a: 1".encode("utf-16"), "a.yaml:1: the file is saved as UTF-16 or UTF-32. Save it as UTF-8."),
        ("a: 1".encode("utf-32"), "a.yaml:1: the file is saved as UTF-16 or UTF-32. Save it as UTF-8."),
        (b"a" * (MAX_BYTES + 1), "a.yaml: the file is larger than 1,048,576 bytes. Split it into a folder of files."),
    ],
)
def test_a_file_that_is_no_text_is_refused(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        read("a.yaml")
    assert f"{message}\n1 mistake in a.yaml." == str(caught.value)


@pytest.mark.parametrize("start", ["", "\ufeff", "%YAML 1.2\n---\n", "---\n", "# comment\n"])
def test_the_usual_beginnings_of_a_file_are_read(start, tmp_path):
    (tmp_path / "a.yaml").write_text(f"{start}a: é\r\nb: 2\r\n", encoding="utf-8")

    assert read(tmp_path / "a.yaml").data == {"a": "é", "b": 2}


def test_a_folder_is_one_document(tmp_path):
    (tmp_path / "b.yml").write_text("pipelines:\n  two: 2\n")
    (tmp_path / "a.yaml").write_text("x-defaults: 1\npipelines:\n  one: 1\n")
    (tmp_path / "c.txt").write_text("not: read: at all")

    document = read(tmp_path)

    assert document.data["pipelines"] == {"one": 1, "two": 2}
    assert f"{tmp_path}/b.yml:2" == document.locate(("pipelines", "two", "source"))


def test_a_pipeline_may_be_in_one_file_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("pipelines:\n  one: 1\n")
    Path("b.yaml").write_text("pipelines:\n\n  one: 2\n")

    with pytest.raises(ConfigError) as caught:
        read(".")
    assert str(caught.value).startswith("b.yaml:3  pipelines.one: 'one' is defined twice, first in a.yaml:2.")


def test_the_mistakes_of_every_file_of_a_folder_are_reported(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1\na: 2")
    (tmp_path / "b.yaml").write_text("b: [")

    with pytest.raises(ConfigError, match="2 mistakes in") as caught:
        read(tmp_path)
    assert [Path(problem.where).name for problem in caught.value.problems] == ["a.yaml:2", "b.yaml:1"]


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_path_without_yaml_says_what_to_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match=r"Name .* with --config\."):
        read(name)


_PIECES = ["<<", "- ", ": ", "\n  ", "&a ", "*a", "!!", "---\n", "0x", "%YAML 1.2\n"]
_YAMLISH = st.lists(
    st.sampled_from([*"abc01 \n\t:-?[]{},&*!|>'\"%@`#=~<.\\", *_PIECES]) | st.characters(), max_size=40
).map("".join)


@given(_YAMLISH)
def test_whatever_the_text_only_config_errors_come_out(text):
    try:
        document = parse(text, "a.yaml")
    except ConfigError as error:
        problems = error.problems
    else:
        problems = ()
        assert isinstance(document.data, dict)

    assert all(problem.where and "Traceback" not in str(problem) for problem in problems)
