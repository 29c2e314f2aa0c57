"""Mutants of audio: uploads that are passed on, formats, realtime sessions."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_UPLOADS = "tests/faults/test_gateway_uploads.py::"
_FORMS = "tests/unit/test_rest_multipart.py::"
_FORMATS = "tests/unit/test_upstream_formats.py::"
_REALTIME = "tests/unit/test_realtime.py::"

MUTANTS = (
    Mutant(
        "files-always-wait-for-the-end-of-their-form",
        "G34",
        "gateway_http/form.py",
        find="            and self._spool.size > HELD\n",
        replace="            and False\n",
        tests=(_UPLOADS + "test_a_file_behind_the_model_reaches_the_upstream_while_it_arrives",),
        why="a large upload lies on the disk first",
    ),
    Mutant(
        "files-are-passed-on-before-it-is-known-where-to",
        "G34",
        "gateway_http/form.py",
        find="            and any(name == CHOOSES for name, _ in self._fields)\n",
        replace="",
        tests=(_UPLOADS + "test_a_file_before_the_model_waits_on_the_disk_for_it",),
        why="the default model gets a file that was meant for another",
    ),
    Mutant(
        "fields-behind-the-file-are-lost",
        "G33",
        "services/upstream/speech_form.py",
        find="            more = _written(self._writer, self._later())\n",
        replace='            more = b"" if self._later() else b""\n',
        tests=(_UPLOADS + "test_fields_behind_a_file_follow_it_to_the_upstream",),
        why="a language that was asked for is ignored",
    ),
    Mutant(
        "late-fields-may-contradict",
        "G33",
        "gateway_http/late.py",
        find="        if name in early and not grows:\n",
        replace="        if False:\n",
        tests=(_UPLOADS + "test_what_cannot_be_decided_any_more_is_refused",),
        why="a form says two things and gets one",
    ),
    Mutant(
        "hang-ups-are-not-seen-while-nobody-reads",
        "G5",
        "gateway_http/protocol.py",
        find="            self._hang_up = hangup.watch(self._cycle.transport, self.abort)\n",
        replace="            pass\n",
        tests=(_UPLOADS + "test_a_caller_whom_nobody_reads_is_seen_to_leave",),
        why="an upstream works for a caller who has left",
    ),
    Mutant(
        "refusals-drain-for-ever",
        "G34",
        "gateway_http/protocol.py",
        find="            self._lingering = self.loop.call_later(LINGER, self.transport.abort)\n",
        replace="            pass\n",
        tests=(_UPLOADS + "test_a_caller_who_sends_for_ever_after_a_refusal_is_cut_off",),
        why="a refused caller may send without end",
    ),
    Mutant(
        "the-body-s-reader-and-the-watch-read-each-other-s-messages",
        "G34",
        "gateway_http/incoming.py",
        find="        if not self.ended:\n            if self._over is None:\n",
        replace="        if False:\n            if self._over is None:\n",
        tests=(_FORMS + "test_a_file_that_arrives_during_its_call_is_read_to_its_end",),
        why="pieces of a file vanish on other servers than ours",
    ),
    Mutant(
        "arriving-files-have-the-limit-of-whole-answers",
        "G21",
        "services/transcribe.py",
        find="        if request.upload is None or request.upload.again:\n",
        replace="        if True:\n",
        tests=(_UPLOADS + "test_a_caller_may_take_his_time_to_send",),
        why="long uploads are cut off",
    ),
    Mutant(
        "silent-callers-are-the-upstream-s-fault",
        "G16",
        "services/routing/attempts.py",
        find='"idle", "total", "upstream"})',
        replace='"idle", "total", "upstream", "upload"})',
        tests=(_UPLOADS + "test_a_caller_who_sends_nothing_is_no_fault_of_the_upstream",),
        why="slow callers open breakers",
    ),
    Mutant(
        "formats-may-be-ignored",
        "G33",
        "services/upstream/speech.py",
        find="            if document is None:\n"
        '                raise self._lacking(asked, "and no segments to make it from")\n',
        replace="            if document is None:\n"
        '                return _document(TYPES[asked.format], value["text"])\n',
        tests=(_FORMATS + "test_what_a_server_ignores_is_not_taken_for_an_answer",),
        why="text without times is given for subtitles",
    ),
    Mutant(
        "subtitles-are-not-made",
        "G33",
        "services/upstream/speech_asked.py",
        find="        if taken.get(FORMAT) in WRITERS and taken[FORMAT] in self._lacks:\n",
        replace="        if False:\n",
        tests=(
            _FORMATS + "test_vllm_s_subtitles_are_made_from_its_segments",
            _FORMATS + "test_a_server_s_refusal_of_subtitles_is_learned_from",
        ),
        why="vLLM has no subtitles",
    ),
    Mutant(
        "left-sessions-stay-open",
        "G5",
        "services/upstream/realtime.py",
        find="            if not ended:\n                self._socket.transport.abort()\n",
        replace="            if not ended:\n",
        tests=(_REALTIME + "test_a_caller_who_leaves_closes_the_session_at_once",),
        why="a server listens to a caller who has left",
    ),
    Mutant(
        "sessions-that-end-early-are-answers",
        "G1",
        "services/upstream/realtime.py",
        find="            raise self._failure or self._broken_off() from None\n",
        replace='            self._wire.final = {"text": ""}\n            return {}\n',
        tests=(_REALTIME + "test_a_session_that_ends_early_is_no_answer",),
        why="half a transcript is a success",
    ),
    Mutant(
        "what-a-session-cannot-carry-is-left-out",
        "G33",
        "services/upstream/live.py",
        find="        if asked.format not in _FORMATS or named - _SESSION - wire.takes:\n",
        replace="        if False:\n",
        tests=(_REALTIME + "test_what_no_session_can_carry_is_sent_as_a_file",),
        why="a language that was asked for is ignored",
    ),
)
