"""The adapter for servers that only transcribe: speaches, whisper-openai-api, whisper.cpp.

They take OpenAI's form; whisper.cpp under a path of its own, and told to translate by a member.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.body import Body
from services.call import Call
from services.upstream.base import Endpoint, Limited
from services.upstream.exchange import Exchange
from services.upstream.live import Live
from services.upstream.speech import Speech, SpeechDialect
from services.upstream.transport import Transport

INFERENCE = "/inference"
WHISPER = SpeechDialect(
    transcribe=("/v1/audio/transcriptions", INFERENCE),
    translate=("/v1/audio/translations", INFERENCE),
    translate_member=True,
)
WHISPER_CPP = SpeechDialect(transcribe=(INFERENCE,), translate=(INFERENCE,), translate_member=True)


class WhisperAdapter(Limited):
    """See `base.Adapter`. It offers transcription and nothing else."""

    def __init__(
        self, endpoint: Endpoint, transport: Transport, dialect: SpeechDialect = WHISPER
    ) -> None:
        super().__init__(endpoint)
        self._speech = Speech(Exchange(endpoint, transport), dialect)
        self._live = Live(endpoint, self._speech)

    async def transcribe(self, request: Body, call: Call) -> Body:
        """See `speech.Speech.transcribe`."""
        return await self._speech.transcribe(request, call)

    def stream_transcribe(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """See `speech.Speech.stream_transcribe`."""
        return self._speech.stream_transcribe(request, call)

    def live_transcribe(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """See `live.Live.transcribe`."""
        return self._live.transcribe(request, call)
