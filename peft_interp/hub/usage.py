"""The card's code: the prompt with this package, with plain PEFT, and as plain text. Every piece runs as it stands."""

from __future__ import annotations

import json
from collections.abc import Sequence

from peft_interp.base_model_name import (
    INSTALL,
    PLACE_OF_THE_BASE,
    BaseName,
    auto_class,
    loading_code,
    packaged_place,
    tokenizer_loading_code,
)
from peft_interp.hub.export import fill_template
from peft_interp.hub.facts import PromptFacts
from peft_interp.tuner.stored_config import SETTINGS_KEY
from peft_interp.tuner.task_types import names_where


def adapter_code(
    facts: PromptFacts, place: str, folder: str, template: str | None = None, label_words: Sequence[str] = ()
) -> str:
    """Python that loads the adapter with this package, and labels a text where the report says how.

    Args:
        facts: of the prompt.
        place: hub name or a stand-in for it.
        folder: the adapter's folder within the repository, "" for its top.
        template: of the input, where it is known; one that has the prompt elsewhere is left out.
        label_words: the answers to choose from, where they are known.
    """
    load, base = _base(facts)
    code = (
        f"import peft_interp  # {INSTALL}, in a checkout; makes PEFT know the method\nfrom peft import PeftModel\n"
        f"{load}\n\n{base}\nmodel = PeftModel.from_pretrained(base, {_quoted(place)}{_options(folder)})"
    )
    if not (template and label_words and facts.task_type == "CAUSAL_LM" and facts.placement.fits(template)):
        return code
    with_tokenizer, tokenizer = _tokenizer(facts)
    return (
        f"{code.replace(load, with_tokenizer, 1)}\n{tokenizer}\n"
        f"task = peft_interp.Verbalizer({template!r}, {list(label_words)!r})\n"
        'print(peft_interp.classify(model, tokenizer, ["Your input."], task))'
    )


def stock_code(facts: PromptFacts, place: str, folder: str) -> dict[str, str]:
    """`code` that loads the adapter with plain PEFT, "" where that cannot be, and `words` beside it.

    Args:
        facts: of the prompt.
        place: hub name or a stand-in for it.
        folder: the adapter's folder within the repository.
    """
    if not facts.placement.before_text:
        words = (
            "Not possible: plain PEFT puts a prompt in front of the input only, and this one stands "
            f"{facts.placement.preposition} it."
        )
        return {"code": "", "words": words}
    load, base = _base(facts)
    if facts.base_model_kind == "embedded":  # its weights are files of this package
        auto = auto_class(facts.task_type, facts.masked)
        load = f"from transformers import {auto}"
        base = f"base = {auto}.from_pretrained({_quoted(PLACE_OF_THE_BASE)})  # {packaged_place(facts.base_model)}"
    code = (
        f"from peft import PeftModel\n{load}\n\n{base}\n"
        f"model = PeftModel.from_pretrained(base, {_quoted(place)}{_options(folder)})"
    )
    where = "padded on the left, whose padding then stands between prompt and text"
    if "score" in facts.trained_modules:  # a causal model with a classifier
        where = "that are padded, where it reads the classifier's answer at the padding"
    if facts.leading_ids:
        where += ", and for rows that begin with a BOS or CLS token, which then stands after the prompt"
    words = f"The logits are the same, except for rows {where}: that is where plain PEFT puts a prompt."
    words += f" PEFT warns that it leaves out the settings under `{SETTINGS_KEY}`, which only this package needs."
    return {"code": code, "words": words}


def plain_text(facts: PromptFacts, template: str | None) -> dict[str, str]:
    """`code` that uses the prompt as text, "" where that cannot be, with the words `before` it and after (`words`)."""
    if template and not facts.placement.fits(template):
        template = None
    why_not = _why_no_plain_text(facts)
    if why_not or facts.text is None:
        return {"code": "", "before": "", "words": why_not}
    if facts.placement.marked and not template:
        words = "The adapter does exactly what its text does where the template of its training has it; write it there."
        return {"code": "", "before": "", "words": words}
    after = "Put after it what stood after the prompt in training, blank or line break included."
    if facts.placement.before_answer:
        after = "Put in front of it what stood there in training; the answer follows right after it."
    if template:
        after = "The words around the input are those it was measured with."
    if facts.label_bias is not None:
        after += " To label texts, add the numbers above to the label words' log-probabilities."
    before = "The adapter does exactly this, with any library or service that runs the base model:"
    return {"code": _text_code(facts, facts.text, template), "before": before, "words": after}


def _why_no_plain_text(facts: PromptFacts) -> str:
    if not facts.is_text:
        return "Not possible: the prompt is vectors, and the text of their nearest tokens need not act like them."
    if facts.trained_modules:
        names = ", ".join(facts.trained_modules)
        return f"Not on its own: {names} of the base model was changed with the prompt and is stored in the adapter."
    if facts.text is None:
        return f"Decode the ids with the base model's tokenizer and put the text {facts.placement.where}."
    return ""


def _base(facts: PromptFacts) -> tuple[str, str]:
    """Import line and the line that makes `base`."""
    base = BaseName(facts.base_model_kind, facts.base_model)
    return loading_code(base, facts.task_type, facts.masked, facts.num_labels)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _options(subfolder: str) -> str:
    return f", subfolder={_quoted(subfolder)}" if subfolder else ""


def _tokenizer(facts: PromptFacts) -> tuple[str, str]:
    """Import line for base and tokenizer, and the line that makes `tokenizer`."""
    load, _ = _base(facts)
    if facts.base_model_kind == "embedded":
        return load, tokenizer_loading_code(BaseName(facts.base_model_kind, facts.base_model))
    name = facts.base_model if facts.base_model_kind == "hub" else PLACE_OF_THE_BASE
    return f"{load}, AutoTokenizer", f"tokenizer = AutoTokenizer.from_pretrained({_quoted(name)})"


def _text_code(facts: PromptFacts, prompt: str, template: str | None) -> str:
    (_, base), (load, tokenizer) = _base(facts), _tokenizer(facts)
    text = f'text = {prompt!r} + " " + "Your input."'
    if not facts.placement.before_text:
        text = f'text = "Your input." + {prompt!r}'
    if template and "{text}" not in prompt:
        text = f'text = {fill_template(template, prompt, facts.position)!r}.replace("{{text}}", "Your input.")'
    run = 'inputs = tokenizer(text, return_tensors="pt")\n'
    if facts.task_type in names_where(generates=True):
        run += "print(tokenizer.decode(base.generate(**inputs, max_new_tokens=20)[0]))"
    else:
        run += "print(base(**inputs))"
    return f"{load}\n\n{base}\n{tokenizer}\n{text}\n{run}"
