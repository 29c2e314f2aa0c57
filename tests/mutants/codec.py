"""Mutants of bodies and codec: nothing lost, nothing changed, REQUIRED, both ways alike."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

_REMAINDER = "tests/contract/test_codec_remainder.py::"
_TEXT = "tests/contract/test_codec_text.py::"
_UNIONS = "tests/contract/test_codec_unions.py::"
_VECTORS = "tests/contract/test_codec_vectors.py::"
_RECORDED = "tests/contract/test_codec_recordings.py::"
_SPLICE = "tests/unit/test_splice.py::"
_CHUNKS = "tests/contract/test_codec_chunks.py::"
_SHAPES = "tests/unit/test_upstream_shapes.py::"

MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "unknown-members-are-dropped",
        "G23",
        "services/codec/to_wire.py",
        find="if rest: add(length_delimited({tag!r}, length_delimited(JSON, raw(rest))))",
        replace="pass",
        tests=(
            _REMAINDER + "test_unknown_members_are_kept_at_every_level",
            _REMAINDER + "test_a_member_that_does_not_fit_its_field_is_kept_in_extra",
            "tests/contract/test_codec_property.py"
            "::test_a_made_body_comes_back_equal_and_is_the_oracle_s_message",
        ),
        why="what we do not know is lost over gRPC",
    ),
    Mutant(
        "misfits-are-dropped",
        "remainder",
        "services/codec/to_wire.py",
        find="{{k: w for k, w in o.items() if k in odd or k not in {known}}}",
        replace="{{k: w for k, w in o.items() if k not in {known}}}",
        tests=(
            _REMAINDER + "test_a_member_that_does_not_fit_its_field_is_kept_in_extra",
            "tests/unit/test_rest_requests.py"
            "::test_odd_values_are_left_to_the_upstream_to_judge[False]",
        ),
        why="a member of another type than ours is lost",
    ),
    Mutant(
        "empty-lists-are-absent",
        "remainder",
        "services/codec/to_wire.py",
        find="if type(v) is list and v{shallow}:",
        replace="if type(v) is list{shallow}:",
        tests=(
            "tests/unit/test_rest_requests.py"
            "::test_odd_values_are_left_to_the_upstream_to_judge[False]",
        ),
        why="`stop: []` is lost",
    ),
    Mutant(
        "extra-is-not-printed",
        "G23",
        "services/codec/plain_wire.py",
        find='        yield f"if rest is not None: return merged(o, rest.decode(), '
        'FITS[{plan.name!r}])"\n',
        replace='        yield "pass"\n',
        tests=(_REMAINDER + "test_members_of_extra_are_printed_after_the_others_byte_for_byte",),
        why="what gRPC callers put into extra never reaches an upstream",
    ),
    Mutant(
        "extra-may-repeat-a-field",
        "remainder",
        "services/codec/leaves.py",
        find="if members.get(name) is not None or (name in typed and typed[name](value)):",
        replace="if False:",
        tests=(_REMAINDER + "test_a_member_of_extra_that_has_a_field_is_refused_by_its_name",),
        why="one member, two values",
    ),
    Mutant(
        "extra-need-not-be-an-object",
        "remainder",
        "services/codec/leaves.py",
        find="    if type(remainder) is not dict:\n        raise Misfit\n",
        replace="    if type(remainder) is not dict:\n        return orjson.Fragment(b'{}')\n",
        tests=(_REMAINDER + "test_an_extra_that_is_no_object_is_refused_by_its_path",),
        why="an extra of another kind vanishes without a word",
    ),
    Mutant(
        "big-integers-become-floats",
        "G23",
        "services/codec/jsontext.py",
        find="    if _SUSPECT.search(text):\n        raise NeedExact\n",
        replace="",
        tests=(
            _TEXT + "test_a_number_in_free_json_keeps_its_text",
            "tests/unit/test_jsontext.py::test_what_a_fast_reader_may_have_changed_is_not_printed",
        ),
        why="integers past 64 bits change on their way",
    ),
    Mutant(
        "any-depth",
        "depth",
        "services/codec/jsontext.py",
        find="            if depth > MAX_DEPTH:\n",
        replace="            if depth > MAX_DEPTH + 100_000:\n",
        tests=(
            _TEXT + "test_more_than_512_levels_are_refused",
            "tests/unit/test_jsontext.py::test_depth_past_the_limit_is_an_error",
        ),
        why="one face takes what the other cannot",
    ),
    Mutant(
        "lone-surrogates-pass",
        "text",
        "services/codec/jsontext.py",
        find='raise JsonError("a lone surrogate (half of a UTF-16 pair) in a string")',
        replace="return value",
        tests=("tests/unit/test_jsontext.py::test_a_lone_surrogate_is_refused_or_replaced",),
        why="a text that no protobuf string can hold",
    ),
    Mutant(
        "required-is-not-checked",
        "REQUIRED",
        "services/codec/explain.py",
        find='        if member is None:\n            yield Violation(field.member, "required, but '
        'absent")\n',
        replace="        if member is None:\n            continue\n",
        tests=(
            "tests/unit/test_body.py::test_a_check_names_what_is_missing",
            "tests/unit/test_rest_requests.py"
            "::test_a_body_that_cannot_be_taken_is_400_and_names_the_member",
            "tests/faces/test_refusals.py::test_what_cannot_be_served_reaches_no_upstream",
        ),
        why="a relay sends what gRPC refuses",
    ),
    Mutant(
        "required-of-any-type",
        "REQUIRED",
        "services/codec/explain.py",
        find="        elif not _looks_right(field, member):",
        replace="        elif False:",
        tests=(_REMAINDER + "test_a_required_member_must_be_there_with_its_type",),
        why="a relay sends what gRPC refuses",
    ),
    Mutant(
        "required-is-not-checked-in-wire",
        "REQUIRED",
        "services/codec/plain_wire.py",
        find="    needed = [field.member for field in plan.members if field.required]\n",
        replace="    needed: list[str] = []\n",
        tests=(
            _REMAINDER + "test_a_required_field_must_be_set",
            "tests/unit/test_grpc_face.py"
            "::test_a_bad_request_is_refused_by_its_fields[Chat-ChatRequest-violations0]",
        ),
        why="gRPC callers miss no required field",
    ),
    Mutant(
        "unknown-enum-numbers-pass",
        "enums",
        "services/codec/compiled.py",
        find="    except KeyError:\n        raise leaves.Misfit from None",
        replace="    except KeyError:\n        return None",
        tests=(_TEXT + "test_an_unknown_enum_number_is_refused",),
        why="an enum of a newer client crashes or is lost",
    ),
    Mutant(
        "no-nulls",
        "nulls",
        "services/codec/plain_wire.py",
        find='nulls = [f"{field.member!r}: None" for field in plan.members if _is_preset(field)]',
        replace="nulls: list[str] = []",
        tests=(_UNIONS + "test_nulls_are_printed_where_openai_prints_them",),
        why="SDKs miss `content: null`",
    ),
    Mutant(
        "usage-null-unasked",
        "nulls",
        "services/codec/plain_wire.py",
        find='asked = "asked and " if field.null_when is NullWhen.USAGE_ASKED else ""',
        replace='asked = ""',
        tests=(_UNIONS + "test_an_absent_usage_is_null_only_where_usage_was_asked_for",),
        why="chunks have a usage that nobody asked for",
    ),
    Mutant(
        "bools-are-integers",
        "G23",
        "services/codec/to_wire.py",
        find='"type(v) is int and -2147483648 <= v <= 2147483647"',
        replace='"isinstance(v, int) and -2147483648 <= v <= 2147483647"',
        tests=(_REMAINDER + "test_a_member_that_does_not_fit_its_field_is_kept_in_extra",),
        why="true becomes 1",
    ),
    Mutant(
        "any-integer-is-a-double",
        "G23",
        "services/codec/compiled.py",
        find="        return True\n    return kind is int and value in leaves.EXACT_IN_DOUBLE\n",
        replace="        return True\n    return kind is int\n",
        tests=(_TEXT + "test_an_integer_that_a_double_would_change_is_kept_as_text",),
        why="big integers are rounded",
    ),
    Mutant(
        "splice-finds-text",
        "relay",
        "services/codec/splice.py",
        find='    if text.count(needle) == 1 and b"\\\\u" not in text:',
        replace="    if needle in text:",
        tests=(_SPLICE + "test_only_that_member_changes",),
        why="`model` inside a message is replaced, too",
    ),
    Mutant(
        "model-is-set-by-printing-anew",
        "relay",
        "services/body.py",
        find="            text = splice.with_member(text, value, name, new)\n",
        replace="            text = codec.dumps({**value, name: new})\n",
        tests=(
            "tests/unit/test_body.py::test_a_changed_member_leaves_every_other_byte",
            "tests/unit/test_upstream_adapters.py"
            "::test_the_bytes_of_a_request_are_kept_but_for_the_model",
        ),
        why="a relay is no longer byte for byte",
    ),
    Mutant(
        "no-way-through-the-codec",
        "relay",
        "gateway_http/calls.py",
        find="return body if self._settings.relay else body.recoded()",
        replace="return body",
        tests=(
            "tests/unit/test_rest_requests.py"
            "::test_without_relay_a_request_has_been_through_protobuf",
        ),
        why="`relay: false` does nothing",
    ),
    Mutant(
        "answers-through-the-codec-lose-members",
        "relay",
        "services/body.py",
        find="        body = Body.from_wire(self.message, self.wire(), usage_asked=usage_asked)",
        replace="""        message = self.parsed()
        if "extra" in message.DESCRIPTOR.fields_by_name:
            message.ClearField("extra")
        wire = message.SerializeToString()
        body = Body.from_wire(self.message, wire, usage_asked=usage_asked)""",
        tests=(
            "tests/unit/test_rest_requests.py"
            "::test_odd_values_are_left_to_the_upstream_to_judge[False]",
            "tests/faces/test_recorded.py::test_a_recorded_body_passes_both_faces_unchanged",
        ),
        why="relay and codec answer differently",
    ),
    Mutant(
        "float32-is-rounded-twice",
        "G27",
        "services/codec/leaves.py",
        find='        return struct.pack(f"<{len(value)}f", *value)',
        replace='        return struct.pack(f"<{len(value)}f", *(round(v, 6) for v in value))',
        tests=(_VECTORS + "test_floats_come_back_bit_for_bit",),
        why="vectors differ between the faces",
    ),
    Mutant(
        "base64-is-not-canonical",
        "G27",
        "services/codec/leaves.py",
        find="    if not value.endswith(pybase64.b64encode(data[tail:])):\n        return None\n",
        replace="",
        tests=(_VECTORS + "test_what_is_not_canonical_base64_stays_a_string",),
        why="base64 does not come back as it was",
    ),
    Mutant(
        "the-upstream-s-format-is-kept",
        "G27",
        "services/upstream/vectors.py",
        find="    if base64 is None or all(",
        replace="    if vectors or all(",
        tests=(
            _SHAPES + "test_floats_become_base64_where_that_was_asked_for",
            _SHAPES + "test_base64_becomes_floats_where_that_was_asked_for",
            "tests/faces/test_embed.py::test_an_upstream_that_ignores_the_format_is_put_right",
        ),
        why="SDKs that ask for base64 break on floats",
    ),
    Mutant(
        "teis-list-stays-a-list",
        "G31",
        "services/upstream/any_to_rerank.py",
        find="    if isinstance(answer, list):\n        return answer, {}\n",
        replace="",
        tests=(
            _SHAPES + "test_teis_bare_list_becomes_results",
            "tests/faces/test_rerank.py::test_documents_are_ordered_alike_through_both_faces",
        ),
        why="TEI's rerank is refused",
    ),
    Mutant(
        "results-are-not-sorted",
        "G32",
        "services/upstream/any_to_rerank.py",
        find="    results.sort(key=score, reverse=True)\n",
        replace="",
        tests=(
            _SHAPES + "test_results_are_sorted_and_carry_their_index",
            _SHAPES + "test_top_n_holds_after_sorting",
        ),
        why="top_n takes the first, not the best",
    ),
    Mutant(
        "top-n-is-the-upstream-s-business",
        "G32",
        "services/upstream/any_to_rerank.py",
        find="        results = results[:limit]\n",
        replace="        pass\n",
        tests=(_SHAPES + "test_top_n_holds_after_sorting",),
        why="TEI answers more than asked for",
    ),
    Mutant(
        "results-need-no-index",
        "G32",
        "services/upstream/any_to_rerank.py",
        find="    if not isinstance(index, int) or isinstance(index, bool) or index < 0:\n"
        "        return None\n",
        replace="    if not isinstance(index, int):\n        index = item['index'] = 0\n",
        tests=(_SHAPES + "test_what_is_no_reranking_of_these_documents_is_refused",),
        why="a score is given to the wrong document",
    ),
    Mutant(
        "the-hole-of-a-chunk-is-not-proved",
        "G1",
        "services/codec/chunks.py",
        find="                return made if made._is_that_of(value, name) else None\n",
        replace="                return made\n",
        tests=(_CHUNKS + "test_the_hole_is_where_the_text_is_and_not_where_it_looks_so",),
        why="another member's text is taken for the answer's",
    ),
    Mutant(
        "a-chunk-s-end-is-not-compared",
        "G2",
        "services/codec/chunks.py",
        find=" and data.endswith(self._after):",
        replace=":",
        tests=(_CHUNKS + "test_what_differs_in_more_than_its_text_is_not_known",),
        why="a finish is lost in the text",
    ),
    Mutant(
        "what-follows-a-finish-goes-the-short-way",
        "G1",
        "services/upstream/stream.py",
        find="self.state is State.RUNNING and event.event != _ERROR",
        replace="event.event != _ERROR",
        tests=(
            "tests/unit/test_upstream_stream.py"
            "::test_chunks_that_add_text_alone_are_not_parsed_and_the_finish_is_still_seen",
        ),
        why="states and the short way disagree",
    ),
)
