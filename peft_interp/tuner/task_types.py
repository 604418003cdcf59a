"""One record for each PEFT task type that a prompt can be for; registration, comparison, cards and CLI read it.

Models are named, not imported: this file is read by modules below and above the models, and by the command line, which
must answer without loading torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft_interp.records import markdown_table
from peft_interp.text.placement import END, MARKED, START, Placement


@dataclass(frozen=True)
class PromptTask:
    """A task type.

    Attributes:
        name: PEFT's name of it.
        words: what the base model is, with its article.
        model_class: module and class of the prompt's model, within `peft_interp.tuner`. "" makes one of the model class
            that PEFT has registered for the task: it reads one sequence with the prompt inside, and returns what the
            base model does.
        auto_class: transformers' class that loads a base model.
        pipeline_tag: the Hub's name of the task, for cards; "" where PEFT writes one itself.
        placements: where a prompt may stand.
        has_head: the base model has a head for the task, so that a causal language model in its place is a mistake.
        pools: the head gives one answer for a whole row, made of one token's state or of all.
        generates: the base model has `generate`.
        compared: the prompt and its text can be put to the same rows (`measure_faithfulness`).
    """

    name: str
    words: str
    auto_class: str
    model_class: str = ""
    pipeline_tag: str = ""
    placements: tuple[Placement, ...] = (START, MARKED)
    has_head: bool = True
    pools: bool = False
    generates: bool = False
    compared: bool = False


TASK_TYPES = (
    PromptTask(
        name="CAUSAL_LM",
        words="a causal language model",
        auto_class="AutoModelForCausalLM",
        model_class="causal_lm.InterpPromptModelForCausalLM",
        placements=(START, END, MARKED),
        has_head=False,
        generates=True,
        compared=True,
    ),
    PromptTask(
        name="SEQ_2_SEQ_LM",
        words="an encoder-decoder",
        auto_class="AutoModelForSeq2SeqLM",
        model_class="task_models.InterpPromptModelForSeq2SeqLM",
        generates=True,
        compared=True,
    ),
    PromptTask(
        name="SEQ_CLS",
        words="a sequence classifier",
        auto_class="AutoModelForSequenceClassification",
        model_class="task_models.InterpPromptModelForSequenceClassification",
        pipeline_tag="text-classification",
        pools=True,
        compared=True,
    ),
    PromptTask(
        name="TOKEN_CLS",
        words="a token classifier",
        auto_class="AutoModelForTokenClassification",
        model_class="task_models.InterpPromptModelForTokenClassification",
        pipeline_tag="token-classification",
    ),
    PromptTask(
        name="QUESTION_ANS",
        words="an extractive question answerer",
        auto_class="AutoModelForQuestionAnswering",
        model_class="task_models.InterpPromptModelForQuestionAnswering",
        pipeline_tag="question-answering",
    ),
    PromptTask(
        name="FEATURE_EXTRACTION",
        words="an encoder or masked language model",
        auto_class="AutoModel",
        model_class="task_models.InterpPromptModelForFeatureExtraction",
        pipeline_tag="feature-extraction",
        placements=(START, END, MARKED),
        has_head=False,
    ),
)


def prompt_task(task_type: Any) -> PromptTask | None:
    """The record of a task type, given by name or as PEFT's; None for one that no prompt of ours is for."""
    name = getattr(task_type, "value", task_type)
    return next((task for task in TASK_TYPES if task.name == name), None)


def names_where(**features: Any) -> list[str]:
    """Names of the task types that have these features: `names_where(compared=True)`."""
    return [t.name for t in TASK_TYPES if all(getattr(t, name) == value for name, value in features.items())]


def listed(names: list[str], word: str = "or") -> str:
    """Names in a sentence: "A, B or C"."""
    return f" {word} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def task_table() -> str:
    """`TASK_TYPES` as Markdown."""
    rows = [
        [
            f"`{task.name}`",
            task.words,
            f"`{task.auto_class}`",
            listed([f"`{placement.name}`" for placement in task.placements]),
            "yes" if task.compared else "",
        ]
        for task in TASK_TYPES
    ]
    return markdown_table(("task type", "base model", "loaded by", "`prompt_position`", "compared with its text"), rows)
