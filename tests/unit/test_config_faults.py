"""Every kind of fault, word by word, at its line and column."""

import pytest

from services.config import ConfigError, parse

SHA = "ab" * 32
TYPES = (
    "text-generation, text-embeddings-inference, automatic-speech-recognition, text-classification"
)
LEAST = (
    "the least is models: [{name: e5, type: text-embeddings-inference, providers: [{url: URL}]}]"
)
QUOTE = "text that begins with one of * & ! % @ ` { [ > | needs quotes"
MODEL = """\
models:
  - name: a
    type: text-generation
    providers:
      - url: http://h
"""


def faults(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "t.yaml", environ)
    lines = [str(fault) for fault in caught.value.faults]
    assert str(caught.value) == "\n".join(lines)
    return lines


def above(line: str) -> str:
    """The line, and after it a model that is right."""
    return f"{line}\n{MODEL}"


def provider(line: str) -> str:
    """A model whose provider has one more line, the sixth."""
    return f"{MODEL}        {line}\n"


CASES: list[tuple[str, str]] = [
    # unknown keys
    (above("grcp: {}"), "1:1: grcp: unknown key; did you mean 'grpc'?"),
    (provider("urll: x"), "6:9: models[0].providers[0].urll: unknown key; did you mean 'url'?"),
    (
        provider("api_key: x"),
        "6:9: models[0].providers[0].api_key: unknown key; did you mean 'key'?",
    ),
    (
        provider("aliases: [x]"),
        "6:9: models[0].providers[0].aliases: unknown key; it belongs in models[]",
    ),
    (above("probes: {zzz: 1}"), "1:10: probes.zzz: unknown key; known here: interval"),
    (above("probes: {'a b\\n': 1}"), "1:10: probes.'a b\\n': unknown key; known here: interval"),
    (
        above("probes: {'${X}': 1}"),
        "1:10: probes.'${X}': unknown key; variables are expanded in values only",
    ),
    # wrong types
    (
        above("timeouts: {total: soon}"),
        "1:19: timeouts.total: expected a number of seconds, found text 'soon'",
    ),
    (
        above("timeouts: {total: 5m}"),
        "1:19: timeouts.total: expected a number of seconds, found text '5m'; write 300",
    ),
    (
        above("timeouts: {total: '300'}"),
        "1:19: timeouts.total: expected a number of seconds, found text '300'; "
        "leave out the quotes",
    ),
    (
        above("timeouts: {total: true}"),
        "1:19: timeouts.total: expected a number of seconds, found true",
    ),
    (
        above("timeouts: {total: }"),
        "1:18: timeouts.total: expected a number of seconds, found nothing",
    ),
    (
        above("timeouts: {total: [5]}"),
        "1:19: timeouts.total: expected a number of seconds, found a list",
    ),
    (
        above("limits: {max_request_bytes: 64MiB}"),
        "1:29: limits.max_request_bytes: expected a number of bytes, found text '64MiB'; "
        "write 67108864",
    ),
    (above("workers: many"), "1:10: workers: expected a whole number, found text 'many'"),
    (above("retry: {attempts: 1.5}"), "1:19: retry.attempts: expected a whole number, found 1.5"),
    (above("relay: maybe"), "1:8: relay: expected true or false, found text 'maybe'"),
    (
        above("relay: 'true'"),
        "1:8: relay: expected true or false, found text 'true'; leave out the quotes",
    ),
    (above("grpc: 50051"), "1:7: grpc: expected a mapping of keys, found 50051"),
    (
        above("grpc: {address: [a]}"),
        "1:17: grpc.address: expected host:port or unix:/path, found a list",
    ),
    (
        "models: {a: b}",
        "1:9: models: expected a list, found a mapping; begin each item with '- ', or write [a, b]",
    ),
    ("models: [a]", "1:10: models[0]: expected a mapping of keys, found text 'a'"),
    (
        above("required_types: none"),
        "1:17: required_types: expected a list, found text 'none'; "
        "begin each item with '- ', or write [a, b]",
    ),
    (provider("key: [a]"), "6:14: models[0].providers[0].key: expected text, found a list"),
    # missing keys
    (
        "models:\n  - type: text-generation\n    providers: [{url: 'http://h'}]",
        "2:5: models[0].name: missing key; add 'name: ' and a name",
    ),
    (
        "models:\n  - name: a\n    providers: [{url: 'http://h'}]",
        f"2:5: models[0].type: missing key; one of {TYPES}",
    ),
    (
        "models:\n  - name: a\n    type: text-generation",
        "2:5: models[0].providers: missing key; add 'providers:'",
    ),
    (
        "models:\n  - name: a\n    type: text-generation\n    providers:\n      - type: vllm",
        "5:9: models[0].providers[0].url: missing key; add 'url: ' and a URL",
    ),
    (
        "models:\n  - name: a\n    type: text-generation\n    providers: []",
        "4:16: models[0].providers: must not be empty; write at least one",
    ),
    # words
    (
        MODEL.replace("text-generation", "text-generatoin"),
        f"3:11: models[0].type: expected a model type ({TYPES}), found text 'text-generatoin'; "
        "did you mean 'text-generation'?",
    ),
    (
        MODEL.replace("text-generation", "rerank"),
        f"3:11: models[0].type: expected a model type ({TYPES}), found text 'rerank'; "
        "did you mean 'text-classification'?",
    ),
    (
        above("required_types: [embeddings]"),
        f"1:18: required_types[0]: expected a model type ({TYPES}), found text 'embeddings'; "
        "did you mean 'text-embeddings-inference'?",
    ),
    (
        provider("transport: 5"),
        "6:20: models[0].providers[0].transport: expected a transport (own, httpx), found 5",
    ),
    # ranges
    (above("timeouts: {idle: -1}"), "1:18: timeouts.idle: must be above 0, found -1"),
    (above("timeouts: {idle: 1e99}"), "1:18: timeouts.idle: must be at most 2592000, found 1e+99"),
    (above("timeouts: {idle: .inf}"), "1:18: timeouts.idle: must be a finite number, found inf"),
    (above("timeouts: {idle: .nan}"), "1:18: timeouts.idle: must be a finite number, found nan"),
    (above("retry: {attempts: 0}"), "1:19: retry.attempts: must be at least 1, found 0"),
    (above("retry: {budget_ratio: 2}"), "1:23: retry.budget_ratio: must be at most 1, found 2"),
    (
        above("limits: {max_request_bytes: 4294967296}"),
        "1:29: limits.max_request_bytes: must be at most 2146435071, found 4294967296",
    ),
    (
        above("limits: {max_queue: " + "9" * 60 + "}"),
        "1:21: limits.max_queue: must be at most 1000000000000, found a number",
    ),
    (provider("weight: 0"), "6:17: models[0].providers[0].weight: must be above 0, found 0"),
    # variables
    (
        provider("key: ${VLLM_KEY}"),
        "6:14: models[0].providers[0].key: the variable VLLM_KEY is not set; "
        "set it, or write ${VLLM_KEY:-default}",
    ),
    (
        provider("key: ${VLLM_KEY"),
        "6:14: models[0].providers[0].key: a '${' without its '}'; write $${ for a literal ${",
    ),
    (
        provider("key: ${1}"),
        "6:14: models[0].providers[0].key: a '${' without the name of a variable; "
        "write $${ for a literal ${",
    ),
    (
        provider("key: ${VLLM_KEY?x}"),
        "6:14: models[0].providers[0].key: only ${NAME} and ${NAME:-default} are known; "
        "write $${ for a literal ${",
    ),
    (
        provider("timeout: ${SET}"),
        "6:18: models[0].providers[0].timeout: expected a number of seconds, found text (from SET)",
    ),
    (
        provider("weight: ${EMPTY}"),
        "6:17: models[0].providers[0].weight: expected a number, found nothing (from EMPTY)",
    ),
    # YAML
    ("", f"1:1: the file is empty; {LEAST}"),
    ("# nothing\n---\n", f"1:1: the file is empty; {LEAST}"),
    ("- a", f"1:1: expected a mapping of keys (key: value); {LEAST}"),
    ("models: []", f"1:9: models: there are no models; {LEAST}"),
    ("relay: true", f"1:1: models: there are no models; {LEAST}"),
    ("a: [b\n", "2:1: bad YAML: a ',' or a closing bracket is missing"),
    ("a: 'b\n", "2:1: bad YAML: the text ends within quotes; close the quotes"),
    ("a:\n\t- b", "2:1: bad YAML: a tab cannot stand here; indent with spaces"),
    ("a: b: c", "1:5: bad YAML: a ':' that cannot stand here; quote text with ': '"),
    ("a: 1\nb\nc: 2", "3:1: bad YAML: a line without ':'"),
    ("a: 1\n  b: 2", "2:4: bad YAML: a ':' that cannot stand here; quote text with ': '"),
    ("a: 1\n---\nb: 1", "2:1: bad YAML: a second document ('---'); keep one document in the file"),
    ("a: *b", f"1:4: bad YAML: an alias (*name) without an anchor (&name); {QUOTE}"),
    ("a: @b", f"1:4: bad YAML: a character that cannot begin a value; {QUOTE}"),
    (
        'a: "\\q"',
        "1:6: bad YAML: an unknown escape after '\\'; use 'single quotes' for a bare '\\'",
    ),
    ("a: b\x00", "1:5: a character that YAML does not allow (U+0000)"),
    ("a:\n b: \x07", "2:5: a character that YAML does not allow (U+0007)"),
    ("a: " + "[" * 100, "1:67: nested deeper than 64 levels"),
    (above("relay: !secret x"), f"1:8: relay: a tag (!name) that is not known; {QUOTE}"),
    (above("relay: !!int x"), "1:8: relay: the tag !!int does not fit its value"),
    (above("auth: !!set {}"), f"1:7: auth: a tag (!name) that is not known; {QUOTE}"),
    (above("retry: {[a]: 1}"), "1:9: retry: a key must be text, found a list or mapping"),
    (
        above("auth: &a {keys: [*a]}"),
        "1:7: auth.keys[0]: an alias that stands within its own anchor, or too deep",
    ),
    (above("auth: {<<: 5}"), "1:12: auth.<<: expected a mapping to merge".replace(".<<", ".'<<'")),
    (above("http:"), "1:6: http: blank; write http: null for no REST face, or leave it out"),
    # duplicates
    (
        provider("url: http://i"),
        "6:9: models[0].providers[0].url: duplicate key, first on line 5; remove one",
    ),
    (
        f"{MODEL}  - name: a\n    type: text-generation\n    providers: [{{url: 'http://h'}}]\n",
        "6:11: models[1].name: duplicate name 'a', first on line 2; names and aliases must differ",
    ),
    (
        f"{MODEL}    aliases: [b, a]\n",
        "6:18: models[0].aliases[1]: duplicate name 'a', first on line 2; "
        "names and aliases must differ",
    ),
    (
        "models:\n"
        "  - {name: a, type: text-classification, default: true, providers: [{url: 'http://h'}]}\n"
        "  - {name: b, type: text-classification, default: true, providers: [{url: 'http://h'}]}\n",
        "3:51: models[1].default: a second default of the type text-classification, "
        "first on line 2; keep one",
    ),
    (
        above(
            f"auth:\n  keys:\n    - {{name: a, sha256: {SHA}}}\n    - {{name: b, sha256: {SHA}}}"
        ),
        "4:25: auth.keys[1].sha256: duplicate hash, first on line 3; remove one of the keys",
    ),
    (
        above("grpc: {address: 'h:1'}\nhttp: {address: 'h:1'}\nauth: {open: true}"),
        "2:17: http.address: gRPC and REST cannot share an address, first on line 1; "
        "give each its own",
    ),
    # addresses and URLs
    (
        above("grpc: {address: '8080'}"),
        "1:17: grpc.address: no host; write 127.0.0.1:8080, or 0.0.0.0:8080 for all",
    ),
    (
        above("http: {address: 'a:99999'}"),
        "1:17: http.address: the port must be a number from 0 to 65535",
    ),
    (
        MODEL.replace("http://h", "h:8000"),
        "5:14: models[0].providers[0].url: a URL begins with http:// or https://; "
        "write http://h:8000",
    ),
    (
        MODEL.replace("http://h", "http://h/v1/chat/completions"),
        "5:14: models[0].providers[0].url: expected the base URL of a server, "
        "found the path of one operation; leave out /chat/completions",
    ),
    (
        MODEL.replace("http://h", "http://me:pw@h"),
        "5:14: models[0].providers[0].url: a URL must not hold a user name or password; "
        "put the key in 'key'",
    ),
    (
        above("ledger: {url: 'mysql://h'}"),
        "1:15: ledger.url: a URL that is not known here; write jsonl:, sqlite:, postgresql://...",
    ),
    # names
    (MODEL.replace("name: a", "name: ''"), "2:11: models[0].name: must not be empty"),
    (MODEL.replace("name: a", "name:"), "2:10: models[0].name: expected a name, found nothing"),
    (
        MODEL.replace("name: a", "name: ' a'"),
        "2:11: models[0].name: must not begin or end with a space",
    ),
    (
        MODEL.replace("name: a", f"name: {'a' * 257}"),
        "2:11: models[0].name: longer than 256 characters",
    ),
    (
        MODEL.replace("name: a", 'name: "a\\nb"'),
        "2:11: models[0].name: control characters and line breaks cannot stand here",
    ),
    (
        MODEL.replace("name: a", 'name: "\\ud800"'),
        "2:11: models[0].name: text with half of a surrogate pair, which is no character",
    ),
    (
        provider("key: clé"),
        "6:14: models[0].providers[0].key: a key has only printable ASCII characters",
    ),
    (
        above("metadata: {pass_in: [Authorization]}"),
        "1:22: metadata.pass_in[0]: the gateway itself sets or reads authorization; "
        "it cannot be passed on",
    ),
    (above("metadata: {pass_in: ['a b']}"), "1:22: metadata.pass_in[0]: not a header name"),
    (
        above("metadata: {pass_out: [x-a-bin]}"),
        "1:23: metadata.pass_out[0]: binary metadata (-bin) has no HTTP form "
        "and cannot be passed on",
    ),
    (
        above("http: {cors: [example.org]}"),
        "1:15: http.cors[0]: an origin is * or scheme://host[:port]; "
        "such as https://chat.example.org",
    ),
    # auth
    (
        above("auth: {keys: [{name: a, sha256: tk-abc}]}"),
        "1:33: auth.keys[0].sha256: expected a hash of 64 hexadecimal digits; "
        "`tetrad keys new NAME` prints a key's hash",
    ),
    (
        above("grpc: {address: '0.0.0.0:50051'}"),
        "1:17: grpc.address: without keys the gateway would be open to everyone who reaches this "
        "address; either add auth.keys (`tetrad keys new NAME` makes one) or say so with "
        "auth: {open: true}; or listen on 127.0.0.1",
    ),
    (
        above(f"auth: {{open: true, keys: [{{name: a, sha256: {SHA}}}]}}"),
        "1:14: auth.open: an open gateway has no keys; remove either auth.open or auth.keys",
    ),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[case[1][:60] for case in CASES])
def test_a_fault_is_one_line_at_its_place(text: str, expected: str) -> None:
    assert faults(text, SET="soon", EMPTY="") == [f"t.yaml:{expected}"]


def test_all_faults_of_a_file_are_reported_together_in_its_order() -> None:
    text = (
        "grcp: {}\n"
        "timeouts: {total: soon}\n"
        "workers: -3\n"
        "models:\n"
        "  - name: a\n"
        "    type: chat\n"
        "    providers: [{url: '${URL}', kye: x}]\n"
        "  - name: b\n"
        "    aliases: [a]\n"
        "    type: text-generation\n"
        "    name: c\n"
        "    providers: [{url: ftp://h}]\n"
    )
    found = faults(text)
    assert [line.split(": ")[0:2] for line in found] == [
        ["t.yaml:1:1", "grcp"],
        ["t.yaml:2:19", "timeouts.total"],
        ["t.yaml:3:10", "workers"],
        ["t.yaml:6:11", "models[0].type"],
        ["t.yaml:7:23", "models[0].providers[0].url"],
        ["t.yaml:7:33", "models[0].providers[0].kye"],
        ["t.yaml:9:15", "models[1].aliases[0]"],
        ["t.yaml:11:5", "models[1].name"],
        ["t.yaml:12:23", "models[1].providers[0].url"],
    ]


def test_what_an_anchor_holds_is_wrong_once() -> None:
    text = (
        "models:\n"
        "  - {name: a, type: text-generation, providers: &p [{url: x y, key: '${NO}'}]}\n"
        "  - {name: b, type: text-generation, providers: *p}\n"
    )
    assert [line.split(": ")[0] for line in faults(text)] == ["t.yaml:2:59", "t.yaml:2:69"]
