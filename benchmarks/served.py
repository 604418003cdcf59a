"""Does a server answer an exported prompt as transformers does? Differences are counted, on SmolLM2 in llama.cpp.

    llama-server -m SmolLM2-135M-Instruct.Q4_1.gguf --port 8000
    python -m benchmarks.served --server http://127.0.0.1:8000

For each prompt an adapter is saved and exported with `peft-interp export --to text`. Then the adapter in transformers
and the exported text at the server's `/v1/completions` answer the same reviews: which token comes next, and which label
word is likelier. transformers runs the file's weights unpacked; llama.cpp runs them as they are, and rounds what goes
through them. Both on one thread it takes three minutes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import torch
from peft import get_peft_model

from peft_interp import InterpPromptConfig, embedded
from peft_interp.cli import main as command_line
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.records import markdown_table

MODEL, TEMPLATE = "smollm2", "{} {} It was"
WORDS = (" terrible", " great")
LISTED = 5000  # likeliest tokens that the server is asked for, to find both label words among them
# written for the task; a search's on another model; random tokens of the study on SmolLM2
PROMPTS = (
    "Tell me what the reviewer thinks of the film.",
    "I want you to act as a drama judge.",
    " compre Existing punished distinctly crank fen biologically Farming",
)


@dataclass(frozen=True)
class Answer:
    """What comes after prompt and text.

    Attributes:
        ids: tokens of prompt and text.
        word: the likeliest next token, as text.
        gap: log-probability of the second label word less that of the first, nats.
    """

    ids: list[int]
    word: str
    gap: float


def ask(server: str, path: str, **body: Any) -> dict[str, Any]:
    """A server's answer to JSON."""
    request = Request(f"{server}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=600) as answer:
        said: dict[str, Any] = json.load(answer)
        return said


def at_the_server(server: str, prompt: str, text: str) -> Answer:
    """The exported text's answer."""
    filled = TEMPLATE.format(prompt, text)
    said = ask(server, "/v1/completions", model="base", prompt=filled, max_tokens=1, temperature=0, logprobs=LISTED)
    (choice,) = said["choices"]
    listed = choice["logprobs"]["content"][0]["top_logprobs"]
    known = {one["token"]: one["logprob"] for one in listed}
    ids = ask(server, "/tokenize", content=filled, add_special=True)["tokens"]
    return Answer(ids, choice["text"], known[WORDS[1]] - known[WORDS[0]])


def in_transformers(model: Any, tokenizer: Any, text: str) -> Answer:
    """The adapter's answer."""
    rows = tokenizer(TEMPLATE.format("", text), return_tensors="pt")
    with eval_mode(model):
        scores = model(**rows).logits[0, -1].float().log_softmax(-1)
    first, second = (tokenizer.encode(word)[0] for word in WORDS)
    ids = [*model.prompt_token_ids(), *rows["input_ids"][0].tolist()]
    return Answer(ids, tokenizer.decode(int(scores.argmax())), float(scores[second] - scores[first]))


def exported(model: Any, folder: Path) -> str:
    """The prompt's text, as `peft-interp export` writes it."""
    model.save_pretrained(folder)
    if command_line(["export", str(folder), "--to", "text", "--output", str(folder / "text.txt")]):
        raise SystemExit("the export failed")
    return (folder / "text.txt").read_text(encoding="utf-8")


def compared(server: str, prompt: str, texts: list[str]) -> list[str]:
    """A line of the table."""
    base, tokenizer = embedded.load_model(MODEL), embedded.load_tokenizer(MODEL)
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=8, tokenizer_name_or_path=MODEL)
    model = get_peft_model(base, config).eval()
    model.use_prompt(tokenizer.encode(prompt), resize=True)
    with tempfile.TemporaryDirectory() as folder:
        text = exported(model, Path(folder))
    pairs = [(in_transformers(model, tokenizer, one), at_the_server(server, text, one)) for one in texts]
    ids = sum(ours.ids != theirs.ids for ours, theirs in pairs)
    words = sum(ours.word != theirs.word for ours, theirs in pairs)
    labels = sum((ours.gap > 0) != (theirs.gap > 0) for ours, theirs in pairs)
    apart = [abs(ours.gap - theirs.gap) for ours, theirs in pairs]
    gaps = f"{sum(apart) / len(apart):.3f} ({max(apart):.3f})"
    return [repr(prompt), str(len(pairs)), str(ids), str(words), str(labels), gaps]


def main() -> None:
    """Ask both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8000", help="address of a llama-server with SmolLM2")
    parser.add_argument("--rows", type=int, default=50, help="reviews for each prompt")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    texts = embedded.load_data("sentiment")["test"]["sentence"][: arguments.rows]
    columns = ["prompt", "inputs", "other tokens", "other next token", "other label", "gap moved, nats, mean (most)"]
    print(markdown_table(columns, [compared(arguments.server, prompt, list(texts)) for prompt in PROMPTS]))


if __name__ == "__main__":
    main()
