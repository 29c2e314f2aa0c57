"""Files and texts: variables, what cannot be read, and that nothing ends in a traceback."""

import os
import random
import threading
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.config import ConfigError, Fault, load, parse
from services.config.expand import expand
from services.config.source import resolve

ENVIRON = {"A": "a", "EMPTY": "", "T": "7", "BRACES": "{x: ${A}}", "URL": "http://h"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("${A}", "a"),
        ("x${A}y${T}z", "xay7z"),
        ("${EMPTY}", ""),
        ("${EMPTY:-d}", "d"),
        ("${A:-d}", "a"),
        ("${NO:-d}", "d"),
        ("${NO:-}", ""),
        ("${NO:-http://h:1/{x}", "http://h:1/{x"),
        ("${NO:-a b, c: d #e}", "a b, c: d #e"),
        ("${NO:-${A}}", "a"),
        ("${NO:-x${EMPTY:-y${T}}z}", "xy7z"),
        ("${A:-${NO}}", "a"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("${NO:-$${A}}", "${A}"),
        ("$A $$ $ {A} }", "$A $$ $ {A} }"),
        ("${BRACES}", "{x: ${A}}"),
    ],
)
def test_a_variable_is_expanded(text: str, expanded: str) -> None:
    result = expand(text, ENVIRON, 1000)
    assert (result.text, result.faults) == (expanded, [])


def test_every_variable_that_is_not_set_is_named() -> None:
    result = expand("${NO} ${A} ${NEITHER}", ENVIRON, 1000)
    assert [message for message, _ in result.faults] == [
        "the variable NO is not set",
        "the variable NEITHER is not set",
    ]
    assert result.variables == ("NO", "A", "NEITHER")


@pytest.mark.parametrize(
    "text",
    ["${", "${}", "${A", "${A:", "${A:x}", "${A-x}", "${NO:-x", "${é}", "${ A}", "${NO:-" * 99],
)
def test_a_brace_that_begins_no_variable_is_a_fault(text: str) -> None:
    result = expand(text, ENVIRON, 1000)
    assert len(result.faults) == 1
    assert result.faults[0][1] == "write $${ for a literal ${"


def test_variables_cannot_make_a_text_endless() -> None:
    result = expand("${X}" * 100, {"X": "x" * 100}, 1000)
    assert result.text == ""
    assert result.faults[0][0] == "the variables of this text make it too long"


@pytest.mark.parametrize(
    "value",
    [
        "timeout: ${T}",
        "timeout: ${NO:-7}",
        "timeout: ${EMPTY:-7}",
        "{timeout: ${T}, priority: ${NO:-1}}",
        "{timeout: ${NO:-${T}}}",
        "<<: {timeout: ${T}}",
    ],
)
def test_a_variable_without_quotes_may_be_a_number(value: str) -> None:
    line = f"<<: {value}" if value.startswith("{") else value
    text = (
        "models:\n- name: a\n  type: text-generation\n  providers:\n"
        f"  - url: ${{URL}}\n    {line}\n"
    )
    provider = parse(text, "t.yaml", ENVIRON).models[0].providers[0]
    assert (provider.url, provider.timeout) == ("http://h", 7)


def test_a_variable_within_quotes_is_text() -> None:
    text = "models: [{name: '${T}', type: text-generation, providers: [{url: '${URL}'}]}]\n"
    assert parse(text, "t.yaml", ENVIRON).models[0].name == "7"
    with pytest.raises(ConfigError, match="found text \\(from T\\); leave out the quotes"):
        parse(text + 'timeouts: {total: "${T}"}\n', "t.yaml", ENVIRON)


def test_a_variable_never_becomes_structure() -> None:
    """G22: what a variable holds is a value, whatever it looks like."""
    environ = {"X": "a, type: b}]\nworkers: 5 #"}
    text = "models: [{name: '${X}', type: text-generation, providers: [{url: 'http://h'}]}]\n"
    with pytest.raises(ConfigError) as caught:
        parse(text, "t.yaml", environ)
    assert [str(fault) for fault in caught.value.faults] == [
        "t.yaml:1:17: models[0].name: control characters and line breaks cannot stand here"
    ]


def test_a_comment_may_hold_anything() -> None:
    text = "# ${NO} ${ $${ }\nmodels: [{name: a, type: text-generation, providers: [{url: 'http://h'}]}]"
    assert parse(text, "t.yaml", {}).models[0].name == "a"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("Null", None),
        ("True", True),
        ("NO", False),
        ("tRUE", "tRUE"),
        ("-12", -12),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("1:30", "1:30"),
        ("1_000", 1000),
        ("1.5", 1.5),
        ("-.5e-3", -0.0005),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".", "."),
        ("e3", "e3"),
        ("1.2.3", "1.2.3"),
        ("2024-01-31", "2024-01-31"),
        ("9" * 400, "9" * 400),
        ("٣", "٣"),
    ],
)
def test_a_plain_scalar_has_its_type(text: str, value: object) -> None:
    found = resolve(text)
    assert (found, type(found)) == (value, type(value))


def reading(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    (fault,) = caught.value.faults
    return str(fault).replace(str(path), "PATH")


def test_a_file_that_is_not_there_says_how_to_start(tmp_path: Path) -> None:
    assert reading(tmp_path / "tetrad.yaml") == (
        "PATH: cannot be read: no such file or directory; "
        "name one with --config FILE, or start on a server with --upstream URL"
    )


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    assert reading(tmp_path) == "PATH: cannot be read: is a directory; name the file in it"


def test_a_link_to_itself_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert reading(tmp_path / "loop").startswith("PATH: cannot be read: too many levels")


def test_a_name_that_is_no_name_is_a_fault() -> None:
    with pytest.raises(ConfigError, match=r"^a\\x00b: cannot be read: not the name of a file$"):
        load(Path("a\0b"), {})


def test_a_file_that_may_not_be_read_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("relay: true")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads every file, but not this one
        path = Path("/proc/self/mem")
    assert "cannot be read: " in reading(path)


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"relay: true\n# caf\xe9\n", "PATH:2:6: not UTF-8 text; save it as UTF-8"),
        (b"\xff", "PATH:1:1: not UTF-8 text; save it as UTF-8"),
        (
            "relay: true".encode("utf-16"),
            "PATH:1:1: not UTF-8 text; it looks like UTF-16; save it as UTF-8",
        ),
        (b"\xc3\xa9\xff", "PATH:1:2: not UTF-8 text; save it as UTF-8"),
        (b"#" * (5 << 20), "PATH:1:1: the file is larger than 4 MiB"),
    ],
)
def test_bytes_that_are_no_text_are_a_fault(tmp_path: Path, raw: bytes, place: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(raw)
    assert reading(path) == place


def test_a_file_is_read_as_utf8_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "été.yaml"
    path.write_bytes(
        "models: [{name: é, type: text-generation, providers: [{url: 'http://h'}]}]".encode()
    )
    config = load(path, {})
    assert (config.models[0].name, config.source) == ("é", str(path))


def test_a_pipe_can_be_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "models: [{name: a, type: text-generation, providers: [{url: 'http://h'}]}]"
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    assert load(pipe, {}).models[0].name == "a"
    writer.join()


def test_aliases_that_multiply_are_cut_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(ConfigError) as caught:
        parse("\n".join(lines), "t.yaml", {})
    assert (
        str(caught.value)
        == "t.yaml:1:1: anchors and aliases make more than 100000 values of this file"
    )


def test_merges_that_multiply_are_cut_off() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 9)]
    with pytest.raises(ConfigError) as caught:
        parse("\n".join(lines), "t.yaml", {})
    assert (
        str(caught.value)
        == "t.yaml:1:1: anchors and aliases make more than 100000 values of this file"
    )


# --- nothing but ConfigError -------------------------------------------------------------------

GOOD = """\
grpc: {address: "127.0.0.1:50051", tls: null}
http: {address: "127.0.0.1:8080", cors: ["*"]}
required_types: []
models:
  - &m
    name: a
    type: text-generation
    aliases: [b, "c"]
    routing_strategy: shuffle
    providers:
      - {type: vllm, url: "http://h/v1", key: ${K:-k}, qos_metric: inflight, qos_limit: 3}
  - id: d
    type: text-classification
    clients: [{model: x, type: tei, args: {api_url: "http://h", api_key: z}}]
auth: {keys: [{name: n, sha256: "%s", models: [a], limits: {}}]}
timeouts: {connect: 1.5, idle: 1e2}
ledger: {url: null}
settings: {auth_master_key: x}
""" % ("ab" * 32)


def only_faults(text: str) -> None:
    faults: list[Fault] = []
    try:
        parse(text, "t.yaml", ENVIRON)
    except ConfigError as error:
        faults = error.faults or [Fault("an error without faults", 0, 0, "", "")]
    for fault in faults:
        line = str(fault)
        assert line.startswith("t.yaml:")
        assert line.isprintable()
        assert fault.line >= 1
        assert fault.column >= 1


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
@example("? ")
@example("%YAML " + "1" * 5000 + ".1\n---\na: b")
@example("%TAG ! tag:x,2000:\n---\n!a b")
@example('a: "\\U00110000"')
@example("&a [*a, {<<: *a}]")
@example("{<<: [[{a: b}]]}")
@example("{<<: []}")
@example("models: [{}, [], '', null, 5]")
@example("\ud800")
@example("a: \U0010f700${X}")
def test_no_text_ends_in_anything_but_faults(text: str) -> None:
    only_faults(text)


def test_no_damage_to_a_file_ends_in_anything_but_faults() -> None:
    only_faults(GOOD)
    source = random.Random(7)  # noqa: S311 - repeatable
    alphabet = "\n  :-[]{},'\"&*!|>%@`#?~0123456789aeno$\t\\\ufeff<"
    for _ in range(400):
        text = GOOD
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(text))
            end = at + source.choice((0, 0, 1, 2, 9))
            put = "".join(source.choices(alphabet, k=source.choice((0, 1, 1, 2))))
            text = text[:at] + put + text[end:]
        only_faults(text)


VALUES = (
    "5",
    "-1",
    "1e999",
    "'t'",
    "[]",
    "{}",
    "null",
    "true",
    "[[1]]",
    "{a: b}",
    "x",
    "é",
    "9" * 400,
)


def test_no_value_of_another_kind_ends_in_anything_but_faults() -> None:
    lines = GOOD.splitlines(keepends=True)
    for index, line in enumerate(lines):
        head, colon, _ = line.partition(":")
        for value in VALUES:
            only_faults("".join([*lines[:index], f"{head}{colon} {value}\n", *lines[index + 1 :]]))
