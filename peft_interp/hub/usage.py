"""The card's code: the prompt with this package, with plain PEFT, and as plain text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from peft_interp.base_model_name import BaseName, loading_code
from peft_interp.hub.adapter_files import PORTABLE_FOLDER
from peft_interp.hub.export import fill_template
from peft_interp.hub.facts import PromptFacts
from peft_interp.tuner.task_types import names_where


def usage(
    facts: PromptFacts,
    place: str,
    folder: str,
    portable: bool,
    template: str | None = None,
    label_words: Sequence[str] = (),
) -> str:
    """Three ways to use a prompt, each with code that can be copied.

    Args:
        facts: of the prompt.
        place: hub name or a stand-in for it.
        folder: the adapter's folder within the repository, "" for its top.
        portable: whether there is a copy for plain PEFT.
        template: of the input, where it is known; one that has the prompt elsewhere is left out.
        label_words: the answers to choose from, where they are known.
    """
    if template and not facts.placement.fits(template):
        template = None
    code = _with_plugin(facts, place, folder)
    if template and label_words and facts.task_type == "CAUSAL_LM":
        code = _labelling(facts, code, template, label_words)
    parts = ["### With peft_interp", fenced(code, "python")]
    parts += ["### With plain PEFT, without this package", _portable(facts, place, folder, portable)]
    parts += ["### As plain text", _plain_text(facts, template)]
    return "\n\n".join(parts)


def fenced(text: str, language: str = "text") -> str:
    """A code block that no backticks inside can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _base(facts: PromptFacts) -> tuple[str, str]:
    """Import line and the line that makes `base`."""
    return loading_code(BaseName(facts.base_model_kind, facts.base_model), facts.task_type)


def _options(*subfolders: str) -> str:
    inside = "/".join(part for part in subfolders if part)
    return f', subfolder="{inside}"' if inside else ""


def _with_plugin(facts: PromptFacts, place: str, folder: str) -> str:
    load, base = _base(facts)
    return (
        f"import peft_interp  # pip install peft-interp; makes PEFT know the method\nfrom peft import PeftModel\n"
        f'{load}\n\n{base}\nmodel = PeftModel.from_pretrained(base, "{place}"{_options(folder)})'
    )


def _labelling(facts: PromptFacts, code: str, template: str, label_words: Sequence[str]) -> str:
    """The adapter's code, and a text labelled with it."""
    load, tokenizer = _tokenizer(facts)
    return (
        f"{code.replace(_base(facts)[0], load, 1)}\n{tokenizer}\n"
        f"task = peft_interp.Verbalizer({template!r}, {list(label_words)!r})\n"
        'print(peft_interp.classify(model, tokenizer, ["Your input."], task))'
    )


def _tokenizer(facts: PromptFacts) -> tuple[str, str]:
    """Import line for base and tokenizer, and the line that makes `tokenizer`."""
    load, _ = _base(facts)
    if facts.base_model_kind == "embedded":
        return load, "tokenizer = embedded.load_tokenizer()"
    name = facts.base_model if facts.base_model_kind == "hub" else "FOLDER_OF_THE_BASE_MODEL"
    return f"{load}, AutoTokenizer", f'tokenizer = AutoTokenizer.from_pretrained("{name}")'


def _portable(facts: PromptFacts, place: str, folder: str, portable: bool) -> str:
    if not facts.placement.before_text:
        return "Not possible: plain PEFT puts a prompt in front of the input only, and this one stands after it."
    if not portable:
        return f"There is no copy for it here; `peft-interp export {place} --to portable` makes one."
    load, base = _base(facts)
    if facts.base_model_kind == "embedded":  # its weights are files of this package
        load = "from transformers import AutoModelForCausalLM"
        base = 'base = AutoModelForCausalLM.from_pretrained("peft_interp/embedded/model")  # within the package'
    code = (
        f"from peft import PeftModel\n{load}\n\n{base}\n"
        f'model = PeftModel.from_pretrained(base, "{place}"{_options(folder, PORTABLE_FOLDER)})'
    )
    where = "padded on the left, whose padding then stands between prompt and text"
    if "score" in facts.trained_modules:  # a causal model with a classifier
        where = "that are padded, where it reads the classifier's answer at the padding"
    if facts.leading_ids:
        where += ", and for rows that begin with a BOS or CLS token, which then stands after the prompt"
    same = f"The logits are the same, except for rows {where}: that is where plain PEFT puts a prompt."
    return f"{fenced(code, 'python')}\n\n{same}"


def _plain_text(facts: PromptFacts, template: str | None) -> str:
    if not facts.is_text:
        return "Not possible: the prompt is vectors, and the text of their nearest tokens need not act like them."
    if facts.trained_modules:
        names = ", ".join(f"`{name}`" for name in facts.trained_modules)
        return f"Not on its own: {names} of the base model was changed with the prompt and is stored in the adapter."
    if facts.text is None:
        return f"Decode the ids with the base model's tokenizer and put the text {facts.placement.where}."
    before = "The adapter does exactly this, with any library or service that runs the base model:"
    after = "Put after it what stood after the prompt in training, blank or line break included."
    if facts.placement.before_answer:
        after = "Put in front of it what stood there in training; the answer follows right after it."
    if template:
        after = "The words around the input are those it was measured with."
    return f"{before}\n\n{fenced(_text_code(facts, facts.text, template), 'python')}\n\n{after}"


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
