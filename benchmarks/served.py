"""Does llama.cpp answer an exported prompt as transformers does? Differences are counted, on SmolLM2.

    python -m benchmarks.served --server build/bin/llama-server

Each prompt is set in an adapter, saved, and exported with `peft-interp export --to text`. Then the adapter in
transformers and the exported text at the server's `/v1/completions` answer the same reviews: their tokens, the token
that comes next, and the likelier label word are compared. Both have the weights of one GGUF file (`make real-models`
installs it): transformers runs them unpacked, llama.cpp as they are in 4 bits, and rounds what goes through them. The
script starts the server and stops it; on one thread each, it took 12 minutes beside other work.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import torch
from peft import get_peft_model
from transformers import set_seed

from benchmarks.machine import describe_machine
from benchmarks.report import made_on
from peft_interp import InterpPromptConfig, embedded
from peft_interp.cli import main as command_line
from peft_interp.embedded.smollm2 import WHEEL
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.records import markdown_table

TEMPLATE = "{} {} It was"
LABEL_WORDS = (" terrible", " great")
LISTED = 5000  # likeliest tokens that the server is asked for, to find both label words among them
START_SECONDS = 300
# written for the task; found by a search on the embedded model; random tokens
PROMPTS = (
    "Tell me what the reviewer thinks of the film.",
    "I want you to act as a drama judge.",
    " compre Existing punished distinctly crank fen biologically Farming",
)
COLUMNS = ("prompt", "inputs", "other tokens in", "other token next", "its lead", "other label", "gap moved")


@dataclass(frozen=True)
class Answer:
    """What comes after prompt and text.

    Attributes:
        ids: tokens of prompt and text.
        next_id: the likeliest next token.
        lead: its log-probability less that of the second likeliest, nats.
        gap: log-probability of the second label word less that of the first, nats.
    """

    ids: tuple[int, ...]
    next_id: int
    lead: float
    gap: float


@dataclass(frozen=True)
class Differences:
    """Answers of two programs to the same inputs, held against each other.

    Attributes:
        inputs: how many there were.
        tokens: inputs that the two cut into different tokens.
        next_tokens: inputs after which the two put different tokens.
        lead: largest lead of the first program's token among those, nats; a near tie has a small one.
        labels: inputs to which the two give different labels.
        mean_gap, most_gap: how far apart the gaps of the label words are, nats.
    """

    inputs: int
    tokens: int
    next_tokens: int
    lead: float
    labels: int
    mean_gap: float
    most_gap: float


def count_differences(ours: Sequence[Answer], theirs: Sequence[Answer]) -> Differences:
    """Hold two programs' answers against each other, input by input.

    Raises:
        ValueError: there are no answers, or not as many of the one as of the other.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} answers and {len(theirs)}: give as many of both, one at least.")
    pairs = list(zip(ours, theirs, strict=True))
    leads = [one.lead for one, other in pairs if one.next_id != other.next_id]
    moved = [abs(one.gap - other.gap) for one, other in pairs]
    return Differences(
        inputs=len(pairs),
        tokens=sum(one.ids != other.ids for one, other in pairs),
        next_tokens=len(leads),
        lead=max(leads, default=0.0),
        labels=sum((one.gap > 0) != (other.gap > 0) for one, other in pairs),
        mean_gap=sum(moved) / len(moved),
        most_gap=max(moved),
    )


def ask(server: str, path: str, **body: Any) -> dict[str, Any]:
    """A server's answer to JSON."""
    request = Request(f"{server}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=600) as answer:
        said: dict[str, Any] = json.load(answer)
        return said


def at_the_server(server: str, prompt: str, text: str, label_ids: Sequence[int]) -> Answer:
    """The exported text's answer."""
    filled = TEMPLATE.format(prompt, text)
    said = ask(server, "/v1/completions", model="base", prompt=filled, max_tokens=1, temperature=0, logprobs=LISTED)
    listed = said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    known = {one["id"]: one["logprob"] for one in listed}
    if missing := [word for word, token in zip(LABEL_WORDS, label_ids, strict=True) if token not in known]:
        raise SystemExit(f"{missing} are not among the {LISTED} likeliest tokens after {filled!r}; raise LISTED.")
    ids = ask(server, "/tokenize", content=filled, add_special=True)["tokens"]
    gap = known[label_ids[1]] - known[label_ids[0]]
    return Answer(tuple(ids), listed[0]["id"], listed[0]["logprob"] - listed[1]["logprob"], gap)


def in_transformers(model: Any, tokenizer: Any, text: str, label_ids: Sequence[int]) -> Answer:
    """The adapter's answer."""
    rows = tokenizer(TEMPLATE.format("", text), return_tensors="pt")
    with eval_mode(model):
        scores = model(**rows).logits[0, -1].float().log_softmax(-1)
    best = scores.topk(2)
    ids = (*model.prompt_token_ids(), *rows["input_ids"][0].tolist())
    gap = float(scores[label_ids[1]] - scores[label_ids[0]])
    return Answer(ids, int(best.indices[0]), float(best.values[0] - best.values[1]), gap)


@contextmanager
def running(server: Path) -> Iterator[str]:
    """The address of a llama-server with SmolLM2, on one thread, stopped afterwards.

    Raises:
        SystemExit: it does not start; what it said is told.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [server, "-m", WHEEL.find(), "--host", "127.0.0.1", "--port", str(port), "-t", "1", "-c", "1024"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
        try:
            give_up = time.monotonic() + START_SECONDS
            while not _is_ready(address):
                if process.poll() is not None or time.monotonic() > give_up:
                    log.seek(0)
                    raise SystemExit(f"{server} does not start:\n{log.read()[-2000:]}")
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()
            process.wait()


def _is_ready(address: str) -> bool:
    """Whether the server has loaded the model."""
    try:
        with urlopen(f"{address}/health", timeout=10) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def exported(model: Any) -> str:
    """The prompt's text, as `peft-interp export` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        place = Path(folder) / "text.txt"
        if command_line(["export", folder, "--to", "text", "--output", str(place)]):
            raise SystemExit("the export failed")
        return place.read_text(encoding="utf-8")


def table_row(server: str, base: Any, tokenizer: Any, prompt: str, texts: Sequence[str]) -> list[str]:
    """A prompt's line of the table."""
    config = InterpPromptConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=8, tokenizer_name_or_path=embedded.resolve(embedded.SMOLLM2)
    )
    model = get_peft_model(base, config).eval()
    model.use_prompt(tokenizer.encode(prompt), resize=True)
    text = exported(model)
    label_ids = [tokenizer.encode(word)[0] for word in LABEL_WORDS]
    ours = [in_transformers(model, tokenizer, one, label_ids) for one in texts]
    found = count_differences(ours, [at_the_server(server, text, one, label_ids) for one in texts])
    lead = f"{found.lead:.2f}" if found.next_tokens else ""
    counts = [str(found.inputs), str(found.tokens), str(found.next_tokens), lead, str(found.labels)]
    return [f"`{prompt}`", *counts, f"{found.mean_gap:.2f}, at most {found.most_gap:.2f}"]


def main() -> None:
    """Ask both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, required=True, help="llama.cpp's program llama-server")
    parser.add_argument("--rows", type=int, default=50, help="reviews for each prompt")
    arguments = parser.parse_args()
    if not arguments.server.is_file():
        parser.error(f"--server: {arguments.server} is not a file; it is llama.cpp's program llama-server, once built")
    torch.set_num_threads(1)
    set_seed(0)
    machine, begin = describe_machine("cpu"), time.perf_counter()
    base, tokenizer = embedded.load_model(embedded.SMOLLM2), embedded.load_tokenizer(embedded.SMOLLM2)
    texts = list(embedded.load_data("sentiment")["test"]["sentence"][: arguments.rows])
    with running(arguments.server) as server:
        rows = [table_row(server, base, tokenizer, prompt, texts) for prompt in PROMPTS]
    command = f"python -m benchmarks.served --server llama-server --rows {arguments.rows}"
    print(f"{made_on(machine, command, time.perf_counter() - begin)}\n\n{markdown_table(COLUMNS, rows)}\n")
    print("Lead: of transformers' token over its second, where llama.cpp puts another. Gap: between the label words.")
    print(f"Both in nats; {WHEEL.file}, weights in {next(base.parameters()).dtype} in transformers.")


if __name__ == "__main__":
    main()
