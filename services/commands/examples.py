"""What each command's --help says before its options: examples first. Texts only, so that they
cost nothing where they are not shown."""

from __future__ import annotations

TETRAD = """\
A gRPC-first gateway for chat, embeddings, transcription and reranking.

  tetrad demo                                try it, with nothing to configure
  tetrad serve --upstream http://HOST:PORT   put it in front of a model server
  tetrad check && tetrad serve               run it on ./tetrad.yaml
  tetrad chat "Hello"                        call it, from another terminal
  tetrad top                                 watch it"""

DEMO = """\
Start the gateway with small models of its own, with nothing to configure: chat, embeddings,
rerank and transcription. What to try is printed when it listens.

  tetrad demo
  tetrad demo --http 127.0.0.1:9000          where 8080 is taken

The models are small and rule-based or old: they show how it works, not what models can do."""

CHECK = """\
Validate a configuration before the gateway runs on it.

  tetrad check                               ./tetrad.yaml
  tetrad check --config new.yaml --probe     and ask every provider whether it has the model

Each fault is a line on standard error, with its place and what to write instead:

  FILE:LINE:COLUMN: KEY: what is wrong; what to do
  MODEL: URL: what is wrong; what to do      with --probe

Warnings are of what works, but is not used or not safe.
Exit codes: 0 no faults, 1 faults, 2 bad usage."""

MODELS = """\
List the models of a running gateway: those that your key may use.

  tetrad models
  tetrad models --address gate.example:50051 --key tk-...
  tetrad models --json | jq -r '.data[].id'

Address and key may stand in TETRAD_ADDRESS and TETRAD_KEY."""

CHAT = """\
Chat with a model; the answer is printed as it comes.

  tetrad chat "Why is the sea salty?"
  tetrad chat --model guillaumetell-7b --system "Answer in French." "Why is the sea salty?"
  tetrad chat < question.txt
  tetrad chat --json "Hello"                 each chunk as a line of JSON"""

EMBED = """\
Embed texts; one JSON list a line.

  tetrad embed "a ship in the harbour" "a boat at the quay"
  tetrad embed < lines.txt
  tetrad embed --bulk texts.jsonl --output vectors.jsonl
                                             a big file over one stream; run again it goes on
                                             where it stopped"""

RERANK = """\
Order documents by relevance to a query; best first, with their scores.

  tetrad rerank "fresh fruit" "a broken engine" "ripe apples and pears"
  tetrad rerank "fresh fruit" --top-n 3 < documents.txt      a document a line"""

TRANSCRIBE = """\
Transcribe a sound file, or sound as it comes.

  tetrad transcribe speech.wav
  tetrad transcribe speech.mp3 --language fr --format srt > speech.srt
  tetrad transcribe speech.wav --translate   into English
  arecord -f S16_LE -r 16000 -c 1 -t raw | tetrad transcribe --live"""

KEYS = """\
Make API keys. The configuration holds their hashes only.

  tetrad keys new indexer"""

KEYS_NEW = """\
Print a new key, which is kept nowhere, and the lines for the configuration.

  tetrad keys new indexer
  tetrad models --key tk-...                 how callers show it (REST: Authorization: Bearer)"""

TOP = """\
Watch a running gateway: its models and their providers, calls under way and waiting, calls and
tokens a second, failures and latency. q or Ctrl-C leaves.

  tetrad top
  tetrad top --url https://gate.example --interval 5
  tetrad top --once                          one look, measured over --interval seconds; so it is
                                             too where the output is no terminal
  tetrad top --json | jq '.models[] | select(.failed > 0.05) | .name'

FAIL is the share of calls that ended by the gateway's or an upstream's fault; P50 and P95 are
durations that half and 95 of 100 calls kept within, FIRST95 the same of a stream's first chunk
(on wide screens). Figures are of the last ten seconds, the first ones since the gateway's start.
Of several workers it shows the sum. It reads /metrics and /ready, which need no key.
Colour is off where NO_COLOR is set. Exit codes: 0 left, 1 no gateway answers, 2 bad usage."""

COMPLETION = """\
Print a script that completes commands, options and files in your shell.

  eval "$(tetrad completion bash)"           for this shell; or put the line into ~/.bashrc
  source <(tetrad completion zsh)            likewise, in ~/.zshrc after compinit
  tetrad completion fish | source            likewise, in ~/.config/fish/config.fish"""
