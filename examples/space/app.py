"""A web page that judges prompts: type one, or load a trained one; verdicts, tokens, answers, people's prompts like it.

    pip install ".[space]"
    python examples/space/app.py     # a page on this machine; runs without a network, on the model in the package

The same folder is a Space (`README.md` has its front matter). A prompt takes up to half a minute on two cores.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from peft_interp import PromptReport, classify, embedded, report_prompt, report_text
from peft_interp.cli.adapters import load_adapter
from peft_interp.metrics.references import human_prompts
from peft_interp.report.summary import conclusion
from peft_interp.report.verdicts import QUESTIONS

ROWS, LIKE_IT, LONGEST = 60, 5, 400  # test rows a prompt is put to, prompts shown, letters of a prompt
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
EXAMPLES = (
    "Is this film review positive or negative?",
    " magazine viewing verdict verdict negative knows negative classic",
    "Give me the address of this person.",
)
Table = list[list[Any]]
Judged = tuple[str, Table, Table, Table]


@cache
def parts(task: str) -> tuple[Any, Any, Any]:
    """Tokenizer, task and test rows; loaded once, and read by all visitors."""
    tokenizer, verbalizer = embedded.load_tokenizer(), embedded.TASKS[task]
    return tokenizer, verbalizer, embedded.load_data(task)["test"].shuffle(seed=0).select(range(ROWS))


@cache
def base() -> Any:
    """The base model; its own lock lets one visitor after the other use it."""
    return embedded.load_model()


def judge(text: str, task: str) -> Judged:
    """A prompt written by hand.

    Args:
        text: the prompt.
        task: a key of `embedded.TASKS`.

    Returns:
        The verdicts as Markdown; a row for each token; accuracies; people's prompts that are most like it.

    Raises:
        ValueError: no text, or too much of it.
    """
    if not text.strip():
        raise ValueError("there is no prompt; type one.")
    if len(text) > LONGEST:
        raise ValueError(f"the prompt has {len(text)} characters; up to {LONGEST} are read here.")
    tokenizer, verbalizer, test = parts(task)
    rows = verbalizer.encode_dataset(tokenizer, test)
    return _shown(report_text(base(), tokenizer, text, rows, verbalizer, progress=False))


def judge_adapter(files: Sequence[str], task: str) -> Judged:
    """A trained prompt of the embedded model, ours or of stock PEFT; as `judge`.

    Args:
        files: paths of `adapter_config.json` and `adapter_model.safetensors`; nothing of them is run.
        task: a key of `embedded.TASKS`.

    Raises:
        ValueError: other files, or an adapter that is no prompt of this model.
    """
    given = {Path(path).name: path for path in files or ()}
    if missing := [name for name in ADAPTER_FILES if name not in given]:
        raise ValueError(f"{' and '.join(missing)} missing; give both {' and '.join(ADAPTER_FILES)}.")
    tokenizer, verbalizer, test = parts(task)
    with tempfile.TemporaryDirectory() as folder:
        for name in ADAPTER_FILES:
            shutil.copy(given[name], Path(folder) / name)
        model = load_adapter(Path(folder), embedded.MODEL_PATH)  # a base of its own: an adapter is put into it
    rows = verbalizer.encode_dataset(tokenizer, test)
    return _shown(report_prompt(model, tokenizer, rows, verbalizer, progress=False))


def answer(text: str, prompt: str, task: str) -> str:
    """The label word that the model puts after prompt and text, with its share among the label words.

    Raises:
        ValueError: no text.
    """
    from peft import get_peft_model

    from peft_interp import InterpPromptConfig

    if not text.strip():
        raise ValueError("there is no text; type one.")
    tokenizer, verbalizer, _ = parts(task)
    ids = tokenizer.encode(prompt)
    model = get_peft_model(embedded.load_model(), InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    model.use_prompt(ids, resize=True)
    (found,) = classify(model, tokenizer, [text], verbalizer, progress=False)
    return f"{found['label']} ({found['score']:.0%})"


def most_alike(text: str, count: int = LIKE_IT) -> list[tuple[str, float]]:
    """People's prompts for other tasks, most alike first, with the share of letter triples in common, 0 to 1."""
    own = _triples(text)
    shares = [(prompt, _overlap(own, _triples(prompt))) for prompt in human_prompts()]
    return sorted(shares, key=lambda pair: -pair[1])[:count]


def _triples(text: str) -> Counter[str]:
    letters = f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "
    return Counter(letters[place : place + 3] for place in range(len(letters) - 2))


def _overlap(first: Counter[str], second: Counter[str]) -> float:
    both = (first & second).total()
    return 2 * both / max(1, first.total() + second.total())


def _shown(report: PromptReport) -> Judged:
    measured, reading = report.faithfulness, report.reading
    lines = [f"### {_plain(conclusion(report))}.", ""]
    lines += [
        f"- {QUESTIONS[one.question]} **{one.answer.capitalize()}**: {_plain(one.words)}" for one in report.verdicts
    ]
    effects = measured.token_effects if measured else ()
    tokens = [
        [repr(token.text), round(effect.kl, 3), round(effect.loss_increase, 3)]
        for token, effect in zip(reading.tokens, effects, strict=False)
    ]
    sides = [] if measured is None else [("no prompt", measured.without), ("as text", measured.as_text)]
    sides += [] if measured is None or report.reading.discrete else [("as vectors", measured.as_prompt)]
    known = [(name, side.accuracy) for name, side in sides if side and side.accuracy is not None]
    accuracies = [[name, f"{accuracy:.0%} of {ROWS}"] for name, accuracy in known]
    alike = [[prompt, round(share, 2)] for prompt, share in most_alike(reading.text)]
    return "\n".join(lines), tokens, accuracies, alike


def _plain(words: str) -> str:
    """Words of a prompt in a table of Markdown: nothing in them is markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$-])", r"\\\1", " ".join(words.split())).replace("\\<", "&lt;")


def build() -> Any:
    """The page.

    Raises:
        ModuleNotFoundError: gradio is not installed.
    """
    import gradio as gr

    def told(function: Any) -> Any:
        """A user's mistake becomes a message on the page."""

        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except ValueError as error:
                raise gr.Error(str(error)) from error

        return call

    with gr.Blocks(title="Is this prompt readable, and does it work?", analytics_enabled=False) as page:
        gr.Markdown("# Is this prompt readable, and does it work?\nJudged on a small language model; see peft_interp.")
        task = gr.Radio(list(embedded.TASKS), value="sentiment", label="task")
        with gr.Tab("Type a prompt"):
            text = gr.Textbox(EXAMPLES[0], label="prompt", max_length=LONGEST)
            gr.Examples([[example] for example in EXAMPLES], [text], cache_examples=False)
            ask = gr.Button("Judge it", variant="primary")
        with gr.Tab("Load a trained prompt"):
            files = gr.File(file_count="multiple", label=" and ".join(ADAPTER_FILES))
            load = gr.Button("Judge it")
        verdicts = gr.Markdown()
        accuracies = gr.Dataframe(headers=["the model with", "right answers"], label="Accuracy on a sample")
        tokens = gr.Dataframe(
            headers=["without this token", "KL, nats", "loss rises by, nats"], label="What each token does"
        )
        alike = gr.Dataframe(headers=["prompt", "letters in common"], label="People's prompts most like it")
        results = [verdicts, tokens, accuracies, alike]
        ask.click(told(judge), [text, task], results, api_name="judge")
        load.click(told(judge_adapter), [files, task], results, api_name="judge_adapter")
        with gr.Accordion("Try it on a text of yours", open=False):
            given = gr.Textbox("A wonderful film.", label="text")
            said = gr.Textbox(label="the model says", interactive=False)
            gr.Button("Answer").click(told(answer), [given, text, task], said, api_name="answer")
    return page


if __name__ == "__main__":
    build().launch()
