"""The configuration that the gateway runs on: a file's settings, or the command line's, or both.

Immutable; what the command line changes makes a new one, judged by the same checks.
"""

from collections.abc import Collection, Sequence
from typing import Any, Self, get_args

from pydantic import Field, ValidationError

from services.config.address import Address, Malformed, base_url
from services.config.checks import missing_type, problems
from services.config.explain import explain
from services.config.fault import NOWHERE, ConfigError, Fault, Loc, Mark, Report
from services.config.kinds import ModelType
from services.config.sections import Provider, Settings, Timeouts

_FLAGS: dict[Loc, str] = {
    ("grpc", "address"): "--grpc",
    ("http", "address"): "--http",
    ("workers",): "--workers",
    ("required_types",): "--require",
}
NONE = "none"


class Config(Settings):
    """Settings, and where they came from."""

    upstreams: tuple[str, ...] = Field(
        default=(), description="Base URLs of --upstream; their models are learnt by asking."
    )
    source: str = Field(default="", description="Name of the file; empty without one.")
    warnings: tuple[str, ...] = Field(
        default=(), description="One line for each thing that the file holds and that is not used."
    )

    @classmethod
    def for_upstreams(cls, urls: Sequence[str]) -> Self:
        """A configuration of `--upstream URL`s alone. Raises ConfigError for a bad URL."""
        report = Report("")
        upstreams = read_upstreams(urls, report)
        if report.faults:
            raise ConfigError(report.faults)
        return cls(upstreams=upstreams)

    def with_overrides(
        self,
        *,
        grpc: str | Address | None = None,
        http: str | Address | None = None,
        workers: int | None = None,
        required_types: Sequence[str] | None = None,
        auth_open: bool | None = None,
    ) -> Self:
        """A copy with what the command line says; None leaves a value as it is.

        `http="none"` turns REST off, `required_types=["none"]` (or []) lifts the rule. Raises
        ConfigError, whose faults name the option.
        """
        data: dict[str, Any] = dict(self)
        given: set[Loc] = set()
        if grpc is not None:
            data["grpc"] = {**dict(self.grpc), "address": grpc}
            given.add(("grpc", "address"))
        if http is not None:
            data["http"] = {**dict(self.http or {}), "address": http} if http != NONE else None
            given.add(("http", "address"))
        if workers is not None:
            data["workers"] = workers
            given.add(("workers",))
        if required_types is not None:
            names = tuple(name for name in required_types if name != NONE)
            data["required_types"] = names
            given.add(("required_types",))
        if auth_open is not None:
            data["auth"] = self.auth.model_copy(update={"open": auth_open})
        report = _FlagReport(self.source, given=given)
        changed: Self | None = None
        try:
            changed = type(self).model_validate(data)
        except ValidationError as error:
            explain(error.errors(include_url=False), None, report)
        if changed is not None:
            for problem in problems(changed.model_dump(mode="json")):
                report.fault(problem.loc, NOWHERE, problem.message, problem.hint)
        if changed is None or report.faults:
            raise ConfigError(report.faults)
        return changed

    def required_type_faults(self, found: Collection[str] = ()) -> list[Fault]:
        """One fault for each required type that no model has; `found` are the types of the
        models that the `upstreams` turned out to serve."""
        present = {model.type for model in self.models} | set(found)
        return [
            Fault(self.source, 0, 0, "required_types", *missing_type(required))
            for required in dict.fromkeys(self.required_types)
            if required not in present
        ]

    def timeouts_of(self, provider: Provider) -> Timeouts:
        """The time limits of one attempt at a provider: its own `timeout` bounds both kinds."""
        if provider.timeout is None:
            return self.timeouts
        limit = {"total": provider.timeout, "stream_total": provider.timeout}
        return self.timeouts.model_copy(update=limit)


class _FlagReport(Report):
    """Names the option where the command line set what is wrong."""

    def __init__(self, file: str, given: set[Loc]) -> None:
        super().__init__(file)
        self.given = given

    def _make(self, loc: Loc, at: Mark, message: str, hint: str, key: str) -> Fault:
        for place in self.given:
            if loc[: len(place)] == place:
                return Fault("", 0, 0, _FLAGS[place], message, hint)
        return super()._make(loc, at, message, hint, key)


def read_upstreams(urls: Sequence[str], report: Report) -> tuple[str, ...]:
    """The base URLs of `--upstream`, each once."""
    found: dict[str, None] = {}
    for index, url in enumerate(urls):
        try:
            found[base_url(url)] = None
        except Malformed as error:
            report.fault(
                ("--upstream", index), NOWHERE, error.message, error.hint, key="--upstream"
            )
    return tuple(found)


MODEL_TYPES: tuple[ModelType, ...] = get_args(ModelType)
