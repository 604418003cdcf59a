"""`PromptFacts`: what there is to say about a saved prompt without running a model; the content of `prompt.json`."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_interp.base_model_name import public_name
from peft_interp.hub.adapter_files import (
    CONFIG_FILE,
    FACTS_FILE,
    TEXT_FILE,
    checked_tensors,
    read_config,
    read_json,
    write_json,
)
from peft_interp.storage.atomic import is_plain_file, replace_file
from peft_interp.text.label_bias import LabelBias
from peft_interp.text.placement import Placement, placement_named, placement_of
from peft_interp.text.tokenization import decode
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.saved_adapter import digest_of
from peft_interp.tuner.stored_config import PEFT_TYPE_NAME

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")  # as transformers names classifiers
_PATHS = ("perplexity_model_name_or_path",)
_SETTINGS = (
    *("projection_metric", "perplexity_weight", "perplexity_gradient", "perplexity_combination"),
    *("perplexity_start_step", "perplexity_warmup_steps", *_PATHS, "allowed_tokens", "banned_words"),
    *("prompt_tuning_init", "prompt_tuning_init_text", "init_words", "init_text_fit"),
)


@dataclass(frozen=True)
class PromptFacts:
    """A saved prompt.

    Attributes:
        text: exactly as it stands in a row, with the blank it begins with after a text; None when no tokenizer was
            known. Of a soft prompt, the nearest tokens' text.
        is_text: the tokens are the prompt; False for vectors, of which `ids` are the nearest tokens.
        ids: token ids, in order.
        tokens: each token's text; None without a tokenizer.
        position: where it stands, by its placement's name: at the "start" of the input, or at its "end".
        leading_ids: ids (BOS, CLS) that stay in front of it where a row begins with them.
        leading_text: what they look like.
        task_type: PEFT's name of the task.
        base_model: the base model's name for people, without a path.
        base_model_kind: "hub", "embedded", "local" or "unknown".
        trained_modules: parts of the base model (a classifier) that were trained with the prompt.
        settings: of the method, as far as they are not the defaults.
        steps: optimizer steps of training by gradient.
        label_bias: the numbers that the prompt needs beside its text, as `LabelBias.to_dict` gives them; None for none,
            and for those of another prompt.
        read_with: the tokenizer that gave the text, by its name for people; None without one.
        found_by: which trainer scored prompts to find it, with its steps, rewards and settings; None for others.
        table_fingerprint: recognises the embedding table the ids belong to.
        digest: recognises the prompt.
        versions: of the libraries.
        masked: the answer is a mask token's, so the base is a masked language model.
        num_labels: classes of a head that was trained with the prompt; None without one.
    """

    text: str | None
    is_text: bool
    ids: list[int]
    tokens: list[str] | None
    position: str
    leading_ids: list[int]
    leading_text: str | None
    task_type: str
    base_model: str
    base_model_kind: str
    trained_modules: list[str]
    settings: dict[str, Any]
    steps: int
    found_by: dict[str, Any] | None
    table_fingerprint: list[float] | None
    digest: str
    versions: dict[str, str]
    masked: bool = False
    num_labels: int | None = None
    read_with: str | None = None
    label_bias: dict[str, Any] | None = None

    @property
    def placement(self) -> Placement:
        """Where the prompt stands."""
        return placement_named(self.position)


def read_facts(folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> PromptFacts:
    """The facts of a saved InterpPrompt adapter, from its config and tensors.

    Args:
        folder: of the adapter.
        tokenizer: the base model's, which writes the ids as text. Without one there is no text: what lies beside the
            ids may be anybody's.

    Raises:
        ValueError: another adapter, missing weights, or broken files.
    """
    config = read_config(folder)
    if config.get("peft_type") != PEFT_TYPE_NAME:
        raise ValueError(f"{str(folder)!r} holds a {config.get('peft_type')} adapter, not an {PEFT_TYPE_NAME} one.")
    tensors = checked_tensors(folder)
    ids, is_text = tensors["prompt_ids"].tolist(), config.get("projection_metric") != "none"
    base, leading = public_name(config.get("base_model_name_or_path")), config.get("leading_token_ids") or []
    placement = placement_of(config)
    text, tokens, leading_text = _texts(tokenizer, ids, leading, placement)
    digest = digest_of(ids, None if is_text else tensors["prompt_embeddings"])
    return PromptFacts(
        text=text,
        is_text=is_text,
        ids=ids,
        tokens=tokens,
        position=placement.name,
        leading_ids=leading,
        leading_text=leading_text,
        task_type=str(config.get("task_type")),
        base_model=base.name if base.kind == "hub" else base.shown,
        base_model_kind=base.kind,
        trained_modules=sorted({name.split(".")[-2] for name in tensors if "." in name}),
        settings=_settings(config),
        steps=int(tensors["prompt_step"]) if "prompt_step" in tensors else 0,
        found_by=config.get("found_by"),
        table_fingerprint=config.get("table_fingerprint"),
        digest=digest,
        versions=_versions(),
        masked=config.get("mask_token_id") is not None,
        num_labels=next((len(t) for name, t in tensors.items() if name.endswith(_HEADS) and t.ndim == 2), None),
        read_with=public_name(getattr(tokenizer, "name_or_path", None)).shown if tokenizer is not None else None,
        label_bias=_label_bias(config, digest),
    )


def _label_bias(config: dict[str, Any], digest: str) -> dict[str, Any] | None:
    """The config's numbers, if they are those of the prompt with this digest."""
    stored = config.get("label_bias")
    return LabelBias.from_dict(stored).to_dict() if stored is not None and stored["prompt"] == digest else None


def _texts(
    tokenizer: PreTrainedTokenizerBase | None, ids: list[int], leading: list[int], placement: Placement
) -> tuple[str | None, list[str] | None, str | None]:
    if tokenizer is None:
        return None, None, None
    tokens = [decode(tokenizer, [i]) for i in ids]
    text = placement.decode_prompt(tokenizer, ids)
    return text, tokens, decode(tokenizer, leading) if leading else None


def earlier_facts(folder: Path) -> dict[str, Any]:
    """`prompt.json` of an earlier save, or nothing where it is missing, a link or broken."""
    try:
        return read_json(folder / FACTS_FILE) if is_plain_file(folder, FACTS_FILE) else {}
    except (OSError, ValueError):
        return {}


def contradictions(folder: Path, facts: PromptFacts) -> list[str]:
    """What lies beside a prompt and tells of another one: an interrupted copy, or somebody who wants to mislead.

    Args:
        folder: of the adapter.
        facts: read from the same folder's config and tensors.

    Returns:
        A sentence for each file; none where all agree.
    """
    known, found = earlier_facts(folder), []
    if known and (known.get("ids") != facts.ids or known.get("digest", facts.digest) != facts.digest):
        found.append(f"{FACTS_FILE} tells of another prompt than the weights hold")
    elif facts.text is not None and known.get("text") not in (None, facts.text):
        found.append(f"{FACTS_FILE} gives another text than the ids have")
    if facts.label_bias is None and read_config(folder).get("label_bias") is not None:
        found.append(f"the label bias in {CONFIG_FILE} is that of another prompt and does not count")
    text = folder / TEXT_FILE
    wanted = known.get("text") if facts.text is None else facts.text
    if is_plain_file(folder, TEXT_FILE) and isinstance(wanted, str) and text.read_bytes() != wanted.encode("utf-8"):
        found.append(f"{TEXT_FILE} holds another text than the prompt's")
    return found


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(InterpPromptConfig)}
    chosen = {name: config[name] for name in _SETTINGS if name in config and config[name] != defaults[name]}
    return {name: public_name(value).shown if name in _PATHS else value for name, value in chosen.items()}


@cache
def _versions() -> dict[str, str]:
    own = getattr(sys.modules.get("peft_interp"), "__version__", "unknown")  # importing the root would be upward
    others = {name: version(name) for name in ("peft", "transformers", "torch")}
    return {"peft_interp": own, **others, "python": platform.python_version()}


def write_facts(folder: Path, facts: PromptFacts) -> None:
    """`prompt.json`, and `prompt.txt` with exactly the prompt's text and nothing else.

    A soft prompt, or one whose tokenizer is not known, has no `prompt.txt`; an outdated one is removed.
    """
    write_json(folder / FACTS_FILE, asdict(facts))
    if facts.is_text and facts.text is not None:
        replace_file(folder / TEXT_FILE, facts.text)
    else:
        (folder / TEXT_FILE).unlink(missing_ok=True)
