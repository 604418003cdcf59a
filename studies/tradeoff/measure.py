"""One and the same measurement for every prompt, whatever made it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from peft import PeftType, get_peft_model

from peft_interp import InterpPromptConfig, measure_faithfulness, measure_scrutability
from peft_interp.inference.max_length import model_max_length
from peft_interp.metrics.references import reference_levels
from peft_interp.text.label_prior import CONTENT_FREE, FEWEST_ROWS
from peft_interp.text.tokenization import leading_ids, survives
from studies.tradeoff.answers import Answers, PromptAnswers
from studies.tradeoff.bench import Bench, Prompt, load_model, load_tokenizer
from studies.tradeoff.config import Study
from studies.tradeoff.data import encoded

CALIBRATED = ("batch", "fitted", "content_free")  # how label words are calibrated, beside not at all
Record = dict[str, Any]


class Measurement:
    """Measures prompts of one task on the test rows.

    Args:
        study: what is measured, and on how many rows.
        bench: model and rows; its budget is not touched.
    """

    def __init__(self, study: Study, bench: Bench) -> None:
        self.study, self.bench = study, bench
        self.model = kept_model(study.model_path, study.dtype, study.device)
        self._test = PromptAnswers(self.model, bench.data, "test", bench.leading)
        self._train = PromptAnswers(self.model, bench.data, "train", bench.leading)
        self._dev = PromptAnswers(self.model, bench.data, "dev", bench.leading)
        free = encoded(bench.data.settings, {"content free": [(text, 0) for text in CONTENT_FREE]}, bench.tokenizer)
        self._free = PromptAnswers(self.model, free, "content free", bench.leading)
        self._second = None if study.second_model is None else SecondModel(study, bench)

    def of(self, prompt: Prompt) -> Record:
        """Everything that is recorded of a prompt, in numbers and words that JSON can hold."""
        answers = _answers(self._test, prompt)
        record: Record = {"role": prompt.role, "accuracy": answers.accuracy, "loss": answers.loss}
        record |= self._calibrated(prompt, answers)
        record |= {f"dev_{name}": value for name, value in prompt.dev.items()}
        if prompt.ids is not None:
            record |= self._of_text(prompt.ids)
        if prompt.role == "chosen" and prompt.ids != ():
            record |= self._faithfulness(prompt)
        return _finite(record)

    def _calibrated(self, prompt: Prompt, answers: Answers) -> Record:
        """Accuracies with the prompt's label prior taken away; nothing for written answers, or too few training rows.

        It costs the method nothing: the training rows are its own, and texts that say nothing are nobody's. Accuracies
        on dev are for who chooses among prompts.
        """
        if answers.log_probs is None or len(self.bench.data.rows["train"]) < FEWEST_ROWS:
            return {}
        training, free = _answers(self._train, prompt), _answers(self._free, prompt)
        estimated_on = {name: free if name == "content_free" else training for name in CALIBRATED}
        found: Record = {}
        for start, own in (("", answers), ("dev_", _answers(self._dev, prompt))):
            calibrated = {name: own.calibrated(rows, name) for name, rows in estimated_on.items()}
            found |= {f"{start}{name}_accuracy": a.accuracy for name, a in calibrated.items() if a is not None}
        return found

    def _of_text(self, ids: tuple[int, ...]) -> Record:
        """What the tokens say and how readable that is."""
        bench, text = self.bench, self.bench.text_of(ids)
        follows = bench.data.verbalizer.fill(bench.data.texts["test"][0][0], "|")[1:]
        record: Record = {"ids": list(ids), "text": text}
        record["survives"] = survives(bench.tokenizer, list(ids), follows) if ids else True
        if self._second is not None:
            record["second_accuracy"] = self._second.accuracy(text)
        if len(ids) < 2:
            return record
        words = bench.data.settings.label_words
        judge = self.study.judge
        judged = measure_scrutability(self.model, bench.tokenizer, text, ids=ids, label_words=words, judge=judge)
        levels = reference_levels(self.model, bench.tokenizer, len(ids)).medians("nll")
        record |= {"nll": judged.measures["nll"].value, "score": judged.score, "readable": judged.readable}
        record["judge"] = judged.judge
        record |= {f"nll_{kind}": value for kind, value in levels.items()}
        record["nll_percentile"] = judged.measures["nll"].percentile
        record["repetition"] = judged.measures["repetition"].value
        record["flags"] = {flag.name: flag.words for flag in judged.flags}
        record["unreadable_flags"] = [flag.name for flag in judged.flags if flag.unreadable]
        return record

    def _faithfulness(self, prompt: Prompt) -> Record:
        """The three differentials; without those that a method does not have."""
        rows = self.bench.data.rows["test"][: self.study.faithfulness_rows]
        adapter = prompt.adapter if prompt.ids is None else self._adapter_of(prompt.ids)
        if adapter is None or adapter.active_peft_config.peft_type == PeftType.PREFIX_TUNING:
            return {"faithfulness": None}
        label_ids = None if self.bench.data.settings.generates else self.bench.data.label_ids
        found = measure_faithfulness(
            adapter, self.bench.tokenizer, rows, label_ids, token_effects=False, without=False, progress=False
        )
        measured = ("cosine_distance", "euclidean_distance", "logit_mse", "kl", "js", "top1_agreement")
        return {
            "faithfulness": {name: getattr(found, name) for name in (*measured, "token_error_rate")}
            | {"loss_difference": found.loss_difference, "accuracy_difference": found.accuracy_difference}
            | {"rows": found.rows, "skipped_rows": found.skipped_rows}
        }

    def _adapter_of(self, ids: tuple[int, ...]) -> Any:
        """A readable-prompt adapter that holds these tokens."""
        name = self.bench.tokenizer.name_or_path
        config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(ids), tokenizer_name_or_path=name)
        adapter = get_peft_model(self.bench.model, config)
        adapter.use_prompt(ids)
        return adapter


class SecondModel:
    """Another model that gets a prompt as text, tokenised by its own tokenizer."""

    def __init__(self, study: Study, bench: Bench) -> None:
        path = str(study.second_model)
        self.tokenizer = load_tokenizer(path)
        data = encoded(bench.data.settings, {"test": bench.data.texts["test"]}, self.tokenizer)
        self.answers = PromptAnswers(kept_model(path, device=study.device), data, "test", leading_ids(self.tokenizer))

    def accuracy(self, text: str) -> float | None:
        """On the test rows; None of a prompt that leaves no room for them."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        limit, longest = model_max_length(self.answers.model), max(len(row["input_ids"]) for row in self.answers.rows)
        if limit is not None and len(self.answers.leading) + len(ids) + longest > limit:
            return None
        return self.answers.of_prompts([ids])[0].accuracy


def _answers(on: PromptAnswers, prompt: Prompt) -> Answers:
    """What a prompt of either kind answers on a split's rows."""
    return on.of_adapter(prompt.adapter) if prompt.ids is None else on.of_prompts([prompt.ids])[0]


@cache
def kept_model(path: str, dtype: str = "float32", device: str = "cpu") -> Any:
    """A model that this process only measures with, and so needs to load, and its reference levels, only once."""
    return load_model(path, dtype, device)


def _finite(record: Record) -> Record:
    """Without NaN and infinity, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
