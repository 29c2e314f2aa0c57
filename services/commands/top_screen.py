"""What `tetrad top` prints: a gateway's figures as lines of a given width, coloured or not.

Pure: knows no terminal, only its width, its height and whether it shows colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf, isinf
from typing import Final, NamedTuple
from unicodedata import east_asian_width

from services.commands.top_figures import Figures, Model, Provider

_RED, _YELLOW, _BOLD, _DIM = "31", "33", "1", "2"

_NONE: Final = "-"
_LEAST_NAME: Final = 16
_LATENCY_TOP: Final = 81.92
"""The highest bucket: what is above it is above that."""

_SCALES: Final = ((1e-3, 1e6, "us"), (1.0, 1e3, "ms"), (inf, 1.0, "s"))
_SPANS: Final = ((86400, "d"), (3600, "h"), (60, "m"))


class Cell(NamedTuple):
    """A piece of text and how it looks."""

    text: str
    style: str = ""


class _Column(NamedTuple):
    """`wider`: columns that the screen must have for it."""

    head: str
    width: int
    of_model: Callable[[Model], Cell]
    of_provider: Callable[[Provider], Cell]
    wider: int = 0


def _nothing(_: object) -> Cell:
    return Cell("")


_COLUMNS: Final = (
    _Column("STATE", 8, lambda one: _model_state(one), lambda one: _provider_state(one)),
    _Column("FLIGHT", 6, lambda m: _count(m.in_flight), lambda p: _count(p.in_flight)),
    _Column("WAIT", 4, lambda m: _count(m.waiting, _YELLOW), _nothing),
    _Column("CALLS/S", 7, lambda m: _rate(m.calls), lambda p: _rate(p.calls)),
    _Column("FAIL", 5, lambda m: _share(m.failed), lambda p: _share(p.failed)),
    _Column("P50", 5, lambda m: _time(m.p50), _nothing),
    _Column("P95", 5, lambda m: _time(m.p95), _nothing),
    _Column("FIRST95", 7, lambda m: _time(m.first_p95), _nothing, wider=96),
    _Column("TOK/S", 6, lambda m: _rate(m.tokens_in + m.tokens_out), _nothing),
    _Column("LOAD", 6, _nothing, lambda p: _count(p.load), wider=104),
    _Column("TYPE", 28, lambda m: Cell(m.type), _nothing, wider=132),
)


def lines(
    figures: Figures, url: str, width: int, height: int | None = None, *, colour: bool = False
) -> list[str]:
    """The screen. With a height the idlest models are left out, and said to be."""
    columns = [one for one in _COLUMNS if one.wider <= width]
    name = max(width - sum(one.width + 1 for one in columns), _LEAST_NAME)
    heads = [Cell(_fit("MODEL", name)), *(Cell(_placed(one.head, one)) for one in columns)]
    above = [*_summary(figures, url), [], [Cell(cell.text, _BOLD) for cell in heads]]
    blocks = [(one, _block(one, name, columns)) for one in figures.models]
    shown, left = _those_that_fit(blocks, None if height is None else height - len(above))
    rows = [*above, *(row for block in shown for row in block)]
    if left:
        rows.append([Cell(f"and {left} models more, with fewer calls", _DIM)])
    return [_painted(row, width, colour) for row in rows]


def _those_that_fit(
    blocks: list[tuple[Model, list[list[Cell]]]], room: int | None
) -> tuple[list[list[list[Cell]]], int]:
    """In their order, as long as all find room; else those in trouble and the busiest first."""
    if room is None or sum(len(block) for _, block in blocks) <= room:
        return [block for _, block in blocks], 0
    ranked = sorted(
        blocks, key=lambda pair: (pair[0].ready, -pair[0].waiting, -pair[0].calls, pair[0].name)
    )
    shown: list[list[list[Cell]]] = []
    left = room - 1  # for the line that says how many are left out
    for _, block in ranked:
        left -= len(block)
        if left < 0:
            break
        shown.append(block)
    return shown, len(blocks) - len(shown)


def _summary(of: Figures, url: str) -> Iterable[list[Cell]]:
    program = f"tetrad {of.version}".rstrip()
    workers = f"{of.workers} workers, " if of.workers > 1 else ""
    state = Cell(of.status, "" if of.status == "ready" else _RED)
    over = "since its start" if of.since_start else f"over {of.seconds:.0f} s"
    yield [Cell(f"{program} at {_shown(url)}: ", _BOLD), state, Cell(f", up {_span(of.up)}")]
    for fault in of.not_taken:
        yield [Cell(f"not taken: {_shown(fault)}", _RED)]
    failing = "" if not of.failed else _RED
    yield [
        Cell(f"{of.in_flight:.0f} in flight, {of.waiting:.0f} waiting, "),
        Cell(f"{_rate(of.calls).text} calls/s, "),
        Cell(f"{_share(of.failed).text} failed", failing),
        Cell(f", tokens/s {_rate(of.tokens_in).text} in {_rate(of.tokens_out).text} out"),
    ]
    yield [
        Cell(f"overhead {_time(of.overhead).text}, CPU {of.cpu:.0%}, "),
        Cell(f"memory {of.memory / 1e6:,.0f} MB, {workers}configuration {of.generation}; {over}"),
    ]
    if of.errors:
        told = ", ".join(f"{name} {_rate(rate).text}/s" for name, rate in of.errors.items())
        yield [Cell("errors: "), Cell(told, failing)]


def _block(model: Model, name: int, columns: list[_Column]) -> list[list[Cell]]:
    """A model, and under it its providers."""
    busy = model.calls or model.in_flight or model.waiting or not model.ready
    rows = [[Cell(_fit(model.name, name), "" if busy else _DIM), *_cells(model, columns)]]
    for one in model.providers:
        cells = [_styled(column.of_provider(one), column) for column in columns]
        rows.append([Cell(_fit(f"  {one.name}", name), _DIM), *cells])
    return rows


def _cells(model: Model, columns: list[_Column]) -> list[Cell]:
    return [_styled(column.of_model(model), column) for column in columns]


def _styled(cell: Cell, column: _Column) -> Cell:
    return Cell(_placed(cell.text, column), cell.style)


def _placed(text: str, column: _Column) -> str:
    """Words to the left, numbers to the right; one space before."""
    words = column.head in ("STATE", "TYPE")
    return " " + (_fit(text, column.width) if words else text.rjust(column.width))


def _model_state(model: Model) -> Cell:
    if model.ready:
        ready = sum(one.ready for one in model.providers)
        partly = ready < len(model.providers)
        return Cell(f"{ready}/{len(model.providers)} up", _YELLOW if partly else "")
    return Cell("down", _RED)


def _provider_state(provider: Provider) -> Cell:
    if not provider.ready:
        return Cell("down", _RED)
    if provider.breaker != "closed":
        shown = {"open": ("cut off", _RED), "half_open": ("on trial", _YELLOW)}
        return Cell(*shown.get(provider.breaker, (provider.breaker, _YELLOW)))
    return Cell("ready")


def _count(number: float | None, style: str = "") -> Cell:
    if number is None:
        return Cell(_NONE)
    return Cell(f"{number:.0f}", style if number else "")


def _rate(rate: float) -> Cell:
    if not rate:
        return Cell("0")
    for limit, divided, unit in ((1e6, 1e6, "M"), (1e5, 1e3, "k")):
        if rate >= limit:
            return Cell(f"{rate / divided:.1f}{unit}")
    return Cell(f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 0.1 else f"{rate:.2f}")


def _share(share: float | None) -> Cell:
    if share is None:
        return Cell(_NONE)
    if not share:
        return Cell("0 %")
    return Cell(f"{share:.0%}".replace("%", " %") if share >= 0.1 else f"{share * 100:.1f} %", _RED)


def _time(seconds: float | None) -> Cell:
    """With two or three figures and a unit."""
    if seconds is None:
        return Cell(_NONE)
    if isinf(seconds):
        return Cell(f">{_LATENCY_TOP:.0f}s", _YELLOW)
    factor, unit = next(
        (factor, unit) for below, factor, unit in _SCALES if seconds < below or below == inf
    )
    number = seconds * factor
    return Cell(f"{number:.1f}{unit}" if number < 10 else f"{number:.0f}{unit}")


def _span(seconds: float) -> str:
    for size, unit in _SPANS:
        if seconds >= size:
            return (
                f"{seconds / size:.0f} {unit}"
                if seconds >= 10 * size
                else (f"{seconds / size:.1f} {unit}")
            )
    return f"{seconds:.0f} s"


def _shown(text: str) -> str:
    """Nothing in a name may move a terminal's cursor."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _fit(text: str, width: int) -> str:
    """As many columns of a terminal as `width`, cut in the middle where it is longer: names often
    differ at their ends."""
    text = _shown(text)
    if _columns(text) > width:
        half = (width - 2) // 2
        text = f"{text[: width - 2 - half]}..{text[len(text) - half :]}"
        while _columns(text) > width:
            text = text[1:]
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(one) in "WF" else 1 for one in text)


def _painted(row: list[Cell], width: int, colour: bool) -> str:
    """A line that no terminal of that width wraps."""
    line, left = "", width
    for position, (text, style) in enumerate(row):
        if _columns(text) > left:
            text = text[: max(left, 0)]
        if position == len(row) - 1:
            text = text.rstrip()
        left -= _columns(text)
        line += f"\x1b[{style}m{text}\x1b[0m" if colour and style and text.strip() else text
    return line.rstrip()
