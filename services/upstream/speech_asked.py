"""What one transcription request wants, and its members as the upstream is to get them.

A subtitle format that the upstream lacks is made from verbose_json, so that is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from services import errors
from services.body import Body
from services.languages import code_of
from services.upstream.documents import WRITERS

FORMAT: Final = "response_format"
VERBOSE: Final = "verbose_json"

_TASKS = (None, "transcribe", "translate")


class Asked:
    """One request, for one attempt. lacks: formats that the upstream is known not to have.

    translates: whether English text is wanted. members: what goes before the file.
    """

    def __init__(self, request: Body, model: str, lacks: Collection[str]) -> None:
        members = dict(request.value())
        if "file" in members:
            raise errors.InvalidRequest("file: expected a file's bytes, found JSON", param="file")
        task = members.pop("task", None)
        if task not in _TASKS:
            raise errors.InvalidRequest(
                f"task: expected one of {', '.join(filter(None, _TASKS))}", param="task"
            )
        if model:
            members["model"] = model
        self.upload = request.upload
        self.translates = task == "translate"
        self._lacks = lacks
        self._late: Mapping[str, Any] = {}
        self._given = members
        self.members = self._as_taken(members)

    @property
    def format(self) -> Any:
        """The format that the caller wants; None is the upstream's own choice, JSON."""
        return self._late.get(FORMAT, self._given.get(FORMAT))

    @property
    def makes(self) -> bool:
        """Whether the format is made here, from a verbose answer."""
        return self.format in self._lacks and self.format in WRITERS

    def later(self) -> dict[str, Any]:
        """What goes behind the file, once that was read. A stream asked for so late is none."""
        after = self.upload.after() if self.upload is not None else {}
        self._late = {name: value for name, value in after.items() if name != "stream"}
        return self._as_taken(self._late)

    def _as_taken(self, members: Mapping[str, Any]) -> dict[str, Any]:
        taken = dict(members)
        if isinstance(taken.get("language"), str):
            taken["language"] = code_of(taken["language"])
        if isinstance(taken.get("languages"), list):
            taken["languages"] = [
                code_of(one) if isinstance(one, str) else one for one in taken["languages"]
            ]
        if taken.get(FORMAT) in WRITERS and taken[FORMAT] in self._lacks:
            taken[FORMAT] = VERBOSE
        return taken
