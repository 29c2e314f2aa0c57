"""The demo's models: a server process of their own on loopback, which never outlives us."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from types import TracebackType

CONFIG = """\
models:
  - name: eliza
    type: text-generation
    owned_by: tetrad-demo (rule-based, not a language model)
    providers: [{{type: openai, url: "{url}"}}]
  - name: wordllama
    type: text-embeddings-inference
    owned_by: wordllama
    providers: [{{type: tei, url: "{url}"}}]
  - name: wordllama-rerank
    type: text-classification
    owned_by: wordllama
    providers: [{{type: tei, url: "{url}"}}]
  - name: pocketsphinx-en-us
    type: automatic-speech-recognition
    owned_by: pocketsphinx
    providers: [{{type: whisper, url: "{url}"}}]
"""
"""What anybody would write who had such a server: the gateway takes its ordinary path."""

_LISTENING = re.compile(r"listening on (http://\S+)")
_STOP_WITHIN = 5


class DemoError(Exception):
    """The embedded models did not start."""


class EmbeddedModels:
    """A context in which the models answer at `url`."""

    def __init__(self) -> None:
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> EmbeddedModels:
        # Its standard input is a pipe of ours: when we die, however, it sees the end and goes too.
        # A session of its own keeps Ctrl-C from reaching it before the gateway has drained.
        command = [sys.executable, "-m", "demo", "--port", "0", "--exit-with-stdin"]
        self._process = subprocess.Popen(  # noqa: S603  (our own module)
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101  (a pipe was asked for)
        for line in self._process.stdout:
            found = _LISTENING.search(line)
            if found:
                self.url = found[1]
                return self
        code = self._process.wait()
        raise DemoError(
            f"the embedded models did not start (exit code {code}); what they said stands above. "
            "Are the demo's packages installed? `make run` installs them."
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_WITHIN)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
