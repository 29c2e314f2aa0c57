"""How `tetrad top` lays its figures out: widths, heights, colours, names that misbehave. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from math import inf
from unicodedata import east_asian_width

import pytest

from services.commands.top_figures import Figures, Model, Provider
from services.commands.top_screen import lines

URL = "http://127.0.0.1:8080"
STYLE = re.compile(r"\x1b\[\d+m")
PROVIDER = Provider("vllm 10.0.0.1:8000", True, "closed", 4.0, 12.0, 1.5, 0.0)
MODEL = Model(
    name="guillaumetell-7b",
    type="text-generation",
    ready=True,
    in_flight=4.0,
    waiting=2.0,
    calls=1.5,
    failed=0.034,
    p50=1.234,
    p95=inf,
    first_p95=0.0421,
    tokens_in=1200.0,
    tokens_out=34.0,
    providers=(PROVIDER, replace(PROVIDER, name="vllm 10.0.0.2:8000", ready=False)),
)
FIGURES = Figures(
    version="0.1.0",
    status="ready",
    not_taken=(),
    generation=3,
    workers=4,
    up=273_000.0,
    seconds=10.02,
    since_start=False,
    in_flight=4.0,
    waiting=2.0,
    calls=1.5,
    failed=0.034,
    errors={"UPSTREAM_FAILED": 0.05},
    tokens_in=1200.0,
    tokens_out=34.0,
    overhead=0.000468,
    cpu=0.25,
    memory=312e6,
    models=(MODEL,),
)


def test_a_screen_of_80_columns() -> None:
    assert lines(FIGURES, URL, 80) == [
        "tetrad 0.1.0 at http://127.0.0.1:8080: ready, up 3.2 d",
        "4 in flight, 2 waiting, 1.5 calls/s, 3.4 % failed, tokens/s 1200 in 34.0 out",
        "overhead 468us, CPU 25%, memory 312 MB, 4 workers, configuration 3; over 10 s",
        "errors: UPSTREAM_FAILED 0.05/s",
        "",
        "MODEL                      STATE    FLIGHT WAIT CALLS/S  FAIL   P50   P95  TOK/S",
        "guillaumetell-7b           1/2 up        4    2     1.5 3.4 %  1.2s  >82s   1234",
        "  vllm 10.0.0.1:8000       ready         4          1.5   0 %",
        "  vllm 10.0.0.2:8000       down          4          1.5   0 %",
    ]


def test_a_wider_screen_shows_more() -> None:
    heads = [lines(FIGURES, URL, width)[5].split() for width in (80, 100, 110, 140)]
    assert [len(head) for head in heads] == [9, 10, 11, 12]
    assert heads[-1][-2:] == ["LOAD", "TYPE"]
    row = lines(FIGURES, URL, 140)[6]
    assert "42ms" in row
    assert row.endswith("text-generation")


@pytest.mark.parametrize("width", [20, 40, 79, 80, 81, 132, 200])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    names = ("x" * 300, "模型" * 40, "a\x1b[2Jb\n\u202e", "")
    models = tuple(replace(MODEL, name=name, tokens_in=9.9e9, calls=123_456.0) for name in names)
    shown = replace(FIGURES, models=models, not_taken=("y" * 300,))
    for line in lines(shown, URL, width, colour=True):
        plain = STYLE.sub("", line)
        assert plain.isprintable()
        assert sum(2 if east_asian_width(one) in "WF" else 1 for one in plain) <= width


def test_a_long_name_is_cut_where_it_differs_least() -> None:
    models = tuple(replace(MODEL, name=f"organisation/a-long-family-name-{n}b") for n in (7, 70))
    shown = lines(replace(FIGURES, models=models), URL, 80)
    first, second = (line for line in shown if "org" in line)
    assert "7b " in first
    assert "70b " in second


def test_what_does_not_fit_is_left_out_and_said_so() -> None:
    idle = tuple(
        replace(MODEL, name=f"idle-{number}", calls=0.0, waiting=0.0) for number in range(30)
    )
    sick = replace(MODEL, name="sick", ready=False, calls=0.0)
    shown = lines(replace(FIGURES, models=(*idle, sick, MODEL)), URL, 80, 24)
    assert len(shown) <= 24
    text = "\n".join(shown)
    assert text.index("sick") < text.index("guillaumetell-7b") < text.index("idle-0")
    assert shown[-1] == "and 27 models more, with fewer calls"


def test_colour_marks_what_is_wrong_and_nothing_depends_on_it() -> None:
    plain, coloured = lines(FIGURES, URL, 80), lines(FIGURES, URL, 80, colour=True)
    assert [STYLE.sub("", line) for line in coloured] == plain
    assert not any("\x1b" in line for line in plain)
    assert "\x1b[31m down" in "\n".join(coloured)
    well = replace(PROVIDER, failed=None)
    good = replace(MODEL, failed=0.0, waiting=0.0, p95=1.0, providers=(well,))
    calm = replace(FIGURES, failed=0.0, waiting=0.0, errors={}, models=(good,))
    assert not any("\x1b[31m" in line for line in lines(calm, URL, 80, colour=True))


@pytest.mark.parametrize(
    ("provider", "state"),
    [
        (replace(PROVIDER, breaker="open"), "cut off"),
        (replace(PROVIDER, breaker="half_open"), "on trial"),
        (replace(PROVIDER, breaker="open", ready=False), "down"),
    ],
)
def test_a_provider_s_breaker_is_told_in_words(provider: Provider, state: str) -> None:
    shown = replace(FIGURES, models=(replace(MODEL, providers=(provider,)),))
    assert state in lines(shown, URL, 80)[-1]


def test_a_refused_configuration_and_a_drain_stand_at_the_top() -> None:
    shown = lines(replace(FIGURES, status="draining", not_taken=("bad.yaml:1:2: x",)), URL, 120)
    assert ": draining, up" in shown[0]
    assert shown[1] == "not taken: bad.yaml:1:2: x"
