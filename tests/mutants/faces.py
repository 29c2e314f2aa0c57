"""Mutants of the faces: keys, limits, forms, uploads, routes, SDK shapes."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

_KEYS = "tests/faces/test_keys.py::"
_AUTH = "tests/unit/test_auth.py::"
_GRPC = "tests/unit/test_grpc_face.py::"
_REQUESTS = "tests/unit/test_rest_requests.py::"
_FORMS = "tests/unit/test_rest_multipart.py::"
_ADAPTERS = "tests/unit/test_upstream_adapters.py::"

MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "any-key-is-good",
        "auth",
        "services/auth.py",
        find="        if hmac.compare_digest(known, digest):\n",
        replace="        if digest:\n",
        tests=(
            _AUTH + "test_a_wrong_key_is_told_apart_and_not_repeated",
            _KEYS + "test_who_has_no_good_key_is_not_let_in",
            _GRPC + "test_a_key_is_required_where_there_are_keys",
        ),
        why="every key opens the gateway",
    ),
    Mutant(
        "half-a-digest-is-compared",
        "auth",
        "services/auth.py",
        find="        if hmac.compare_digest(known, digest):\n",
        replace="        if hmac.compare_digest(known[:0], digest[:0]):\n",
        tests=(_AUTH + "test_a_wrong_key_is_told_apart_and_not_repeated",),
        why="every key opens the gateway",
    ),
    Mutant(
        "no-key-is-anonymous",
        "auth",
        "services/auth.py",
        find="    if not text:\n",
        replace="    if not text:\n        return b''\n    if not text:\n",
        tests=(_AUTH + "test_no_key_is_told_apart",),
        why="who sends no key is told that it is unknown",
    ),
    Mutant(
        "grpc-needs-no-key",
        "auth",
        "services/server/bind.py",
        find="ending.call.principal = self._settings.keyring.identify(\n"
        '            given.get("authorization"), '
        '_identity(context) if self._settings.certified else ""\n'
        "        )",
        replace="pass",
        tests=(
            _GRPC + "test_a_key_is_required_where_there_are_keys",
            _KEYS + "test_who_has_no_good_key_is_not_let_in",
        ),
        why="gRPC is open to everyone",
    ),
    Mutant(
        "a-key-may-use-every-model",
        "auth",
        "services/routing/table.py",
        find="        if principal.models is not None and principal.models.isdisjoint(\n"
        "            (model.name, *model.aliases)\n"
        "        ):\n"
        "            raise errors.ModelForbidden.named(name)\n",
        replace="",
        tests=(
            "tests/unit/test_routing.py::test_a_key_s_model_may_be_named_by_any_of_its_names",
            _KEYS + "test_a_model_that_the_key_may_not_use_is_forbidden",
        ),
        why="a key's models are a suggestion",
    ),
    Mutant(
        "every-model-is-listed",
        "auth",
        "services/routing/table.py",
        find="        if allowed is None:\n            return self.models\n",
        replace="        if True:\n            return self.models\n",
        tests=(
            _KEYS + "test_a_key_sees_its_models_only",
            "tests/unit/test_models_service.py::test_a_caller_sees_the_models_that_its_key_may_use",
        ),
        why="names of models that a caller is not to know",
    ),
    Mutant(
        "the-body-comes-before-the-key",
        "auth",
        "gateway_http/calls.py",
        find="""        authorization = exchange.headers.get(b"authorization")
        call.principal =""",
        replace="""        authorization = exchange.headers.get(b"authorization")
        await exchange.receive()
        call.principal =""",
        tests=(_REQUESTS + "test_without_a_good_key_a_call_is_401_before_its_body_is_read",),
        why="strangers make us read",
    ),
    Mutant(
        "grpc-has-no-size-limit",
        "G28",
        "services/server/bind.py",
        find="        if len(data) > limit:\n",
        replace="        if False:\n",
        tests=(_GRPC + "test_a_message_over_the_limit_is_refused_with_details",),
        why="grpc's own error without details, or none",
    ),
    Mutant(
        "grpc-answers-have-a-limit",
        "G28",
        "services/server/face.py",
        find='("grpc.max_send_message_length", -1),',
        replace='("grpc.max_send_message_length", 1024 * 1024),',
        tests=(_GRPC + "test_answers_may_be_of_any_size",),
        why="a batch of vectors is an error",
    ),
    Mutant(
        "announced-lengths-are-not-looked-at",
        "G34",
        "gateway_http/incoming.py",
        find="            self._check(int(told))\n",
        replace="            pass\n",
        tests=(
            _REQUESTS + "test_a_length_over_the_limit_is_413_before_the_body_is_read",
            _FORMS + "test_a_form_over_the_limit_is_413_before_it_is_read",
        ),
        why="what is too large is read to its end",
    ),
    Mutant(
        "unknown-lengths-are-not-counted",
        "G34",
        "gateway_http/incoming.py",
        find="        self._check(self.size)\n",
        replace="",
        tests=(
            _REQUESTS + "test_a_body_of_unknown_length_is_counted",
            _FORMS + "test_a_form_of_unknown_length_is_counted",
        ),
        why="a chunked body has no limit",
    ),
    Mutant(
        "parts-are-held-whole",
        "G34",
        "services/multipart.py",
        find="        self._emit(data, at, rest, events)\n        if rest > at:\n"
        "            self._lead = 0\n        self._held = data[rest:]\n        return -1\n",
        replace="        self._held = data[at:]\n        return -1\n",
        tests=(
            "tests/unit/test_multipart.py"
            "::test_content_leaves_the_reader_with_the_read_that_brought_it",
        ),
        why="an upload is in memory as a whole",
    ),
    Mutant(
        "uploads-are-collected-before-they-go-on",
        "G34",
        "services/upstream/speech_form.py",
        find="""        async for piece in self._upload.chunks():
            if piece:
                yield piece
""",
        replace="""        held = [piece async for piece in self._upload.chunks()]
        yield b"".join(held)
""",
        tests=(
            "tests/faces/test_transcribe.py::test_live_audio_reaches_the_upstream_while_it_is_sent",
        ),
        why="an upload is in memory as a whole",
    ),
    Mutant(
        "spools-never-go-to-the-disk",
        "G34",
        "gateway_http/spool.py",
        find="        if len(self._held) > self._memory:\n            await self._flush()\n",
        replace="",
        tests=("tests/unit/test_mutants_gap_spool.py::test_a_large_file_is_not_held_in_memory",),
        why="an upload is in memory as a whole",
    ),
    Mutant(
        "live-audio-has-no-limit",
        "G34",
        "services/transcribe.py",
        find="            if total > self.max_upload_bytes:\n",
        replace="            if False:\n",
        tests=("tests/unit/test_live_transcribe.py::test_audio_past_the_limit_is_refused",),
        why="live audio has no end",
    ),
    Mutant(
        "form-members-are-lost",
        "G33",
        "services/upstream/speech_asked.py",
        find="        members = dict(request.value())\n",
        replace="        members = {\n"
        '            k: v for k, v in request.value().items() if k != "timestamp_granularities"\n'
        "        }\n",
        tests=(
            _ADAPTERS + "test_every_recorded_form_reaches_the_upstream_again",
            "tests/faces/test_recorded.py"
            "::test_a_recorded_form_arrives_at_the_upstream_as_it_was_sent",
        ),
        why="granularities do not arrive: no words",
    ),
    Mutant(
        "documents-become-json",
        "G33",
        "gateway_http/response.py",
        find="    if answer.document is not None:\n"
        "        return answer.document.media_type, answer.document.text.encode()\n",
        replace="",
        tests=(
            "tests/unit/test_rest_answers.py::test_a_document_keeps_its_media_type",
            "tests/faces/test_openai_sdk.py::test_a_transcript_can_be_plain_text",
        ),
        why="text, srt and vtt are broken",
    ),
    Mutant(
        "the-form-sets-the-task",
        "G33",
        "gateway_http/request.py",
        find="{**form.members, **operation.constants}, form.upload)",
        replace="{**operation.constants, **form.members}, form.upload)",
        tests=(_FORMS + "test_the_path_sets_the_task_whatever_the_form_says",),
        why="a translation is a transcription",
    ),
    Mutant(
        "streams-are-chosen-by-any-value",
        "G42",
        "gateway_http/request.py",
        find="    if asked is None or asked is False:\n        return False\n",
        replace="    if asked is None:\n        return False\n    asked = True\n",
        tests=(
            "tests/unit/test_rest_streams.py"
            "::test_the_streaming_twin_is_chosen_by_the_member_alone",
        ),
        why="`stream: false` is a stream",
    ),
    Mutant(
        "events-have-no-done",
        "G42",
        "gateway_http/calls.py",
        find="        await answer.finish(events(due) + operation.ending)",
        replace="        await answer.finish(events(due))",
        tests=("tests/unit/test_rest_streams.py::test_chunks_become_events_and_done_ends_them",),
        why="clients wait for [DONE]",
    ),
    Mutant(
        "sse-media-type",
        "G42",
        "gateway_http/response.py",
        find='(b"content-type", b"text/event-stream")',
        replace='(b"content-type", b"application/json")',
        tests=("tests/unit/test_rest_streams.py::test_chunks_become_events_and_done_ends_them",),
        why="streams are not recognised as such",
    ),
    Mutant(
        "answers-do-not-name-their-model",
        "metadata",
        "services/routing/attempts.py",
        find='        call.endpoint = call.out["x-tetrad-endpoint"] = name\n',
        replace="        call.endpoint = name\n",
        tests=(
            "tests/unit/test_dispatch.py"
            "::test_a_call_goes_to_the_model_s_route_and_tells_where_it_went",
            "tests/faces/test_openai_sdk.py::test_the_raw_answer_names_model_and_endpoint",
        ),
        why="nobody knows which upstream answered",
    ),
    Mutant(
        "unknown-methods-have-no-details",
        "details",
        "services/server/face.py",
        find="add_generic_rpc_handlers((_reflection_v1(listed), unknown))",
        replace="add_generic_rpc_handlers((_reflection_v1(listed),))",
        tests=(
            _GRPC + "test_unknown_methods_are_answered_with_details",
            "tests/faces/test_refusals.py::test_an_unknown_method_is_unimplemented_with_details",
        ),
        why="a client of a newer contract learns nothing",
    ),
    Mutant(
        "a-taken-port-is-shared",
        "start",
        "services/server/face.py",
        find='("grpc.so_reuseport", int(shared))',
        replace='("grpc.so_reuseport", 1)',
        tests=(_GRPC + "test_a_port_that_is_taken_is_an_error_that_says_so",),
        why="two gateways take each other's calls",
    ),
    Mutant(
        "bulk-ids-may-be-open-twice",
        "bulk",
        "services/bulk.py",
        find="        elif name in self._tasks:\n",
        replace="        elif False:\n",
        tests=("tests/unit/test_embed_bulk.py::test_a_duplicate_open_id_ends_the_stream",),
        why="an answer cannot be told from another",
    ),
    Mutant(
        "one-bad-item-ends-a-bulk",
        "bulk",
        "services/bulk.py",
        find="        except errors.TetradError as error:\n"
        "            answer.error.MergeFromString(self._error_status(error, call.id))\n",
        replace="",
        tests=("tests/unit/test_embed_bulk.py::test_an_item_that_fails_does_not_end_the_stream",),
        why="one bad item costs the whole bulk its reasons",
    ),
)
