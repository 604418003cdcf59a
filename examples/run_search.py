"""Search readable prompts for a text classification task: the whole front of accuracy and fluency in one run.

With no arguments about model and data it runs on the embedded ones, in two minutes on two idle cores:

    python examples/run_search.py --output_dir outputs/search
    python examples/run_search.py --output_dir outputs/search --target_percentile 50

The prompt may name its classes, as people do ("terrible or great?"); --ban_label_words True keeps their words out.

A prompt of one's own, improved, with its rules kept (the report shows what was changed):

    python examples/run_search.py --improve "Is this film review good?" --required_phrases "film review"

Prompts may show labelled examples, line by line, where they have room (names are in no dictionary):

    python examples/run_search.py --num_virtual_tokens 120 --allowed_tokens lines --known_words False

With any causal LM and any data set, from the hub or from local files:

    python examples/run_search.py --output_dir outputs/sst2 --model_name_or_path gpt2 \\
        --train_file train.tsv --validation_file dev.tsv --test_file test.tsv \\
        --label_words terrible great --template "{prompt} {text} It was"
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import get_peft_model
from run_classification import DataArguments, ModelArguments, load_data, make_verbalizer, prepare, test_data_name
from run_rlprompt import PromptArguments, print_best_so_far
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser, set_seed

from peft_interp import PromptSearchConfig, PromptSearchTrainer, embedded, report_prompt


@dataclass
class SearchedPrompt(PromptArguments):
    """A prompt that may be a sentence, and name its classes."""

    num_virtual_tokens: int | None = field(default=12, metadata={"help": "Longest prompt in tokens."})
    ban_label_words: bool = field(default=False, metadata={"help": "Keep the label words out of the prompt."})
    allowed_tokens: str = field(default="ascii", metadata={"help": "Tokens of a prompt; 'words' has no punctuation."})


@dataclass
class Search(PromptSearchConfig):
    """`PromptSearchConfig` with evaluations and checkpoints on the way."""

    output_dir: str = "outputs/search"
    max_steps: int = 12
    eval_strategy: str = "steps"
    eval_steps: float | None = 4
    save_strategy: str = "steps"
    save_steps: float = 4
    save_total_limit: int | None = 2
    dataloader_pin_memory: bool = torch.cuda.is_available()


def report(trainer: PromptSearchTrainer, test: Any | None, data: str) -> dict[str, Any]:
    """Test the prompt on `data`, print the front, and write `report.html` with its place among the others."""
    model = trainer.model
    folder = trainer.args.output_dir
    metrics: dict[str, Any] = trainer.evaluate(test, metric_key_prefix="test") if test is not None else {}
    trainer.save_metrics("test", metrics)
    print(f"\nprompt:     {model.prompt_text(trainer.processing_class)!r}")
    if test is not None:
        print(f"accuracy:   {metrics['test_accuracy']:.1%} on {len(test)} test rows")
    if (bias := model.label_bias()) is not None:
        print(f"numbers:    {bias.sentence()}")
    print(f"saved to:   {folder} (with report.html)")
    front = trainer.front()
    tested = trainer.scores_on(front, test) if test is not None else [record.scores for record in front]
    print("\nthe front (accuracy on validation and on test rows; nats per token, lower is more fluent):")
    for record, scores in zip(front, tested, strict=True):
        found = f"{record.scores['accuracy']:6.1%}  {scores['accuracy']:6.1%}  {record.scores['nll']:5.2f}"
        print(f"  {found}  {record.text!r}")
    own = tuple(model.prompt_token_ids())
    others: Any = [(r, s) for r, s in zip(front, tested, strict=True) if r.ids != own]
    rivals = [(repr(record.text), scores["accuracy"], scores["nll"]) for record, scores in others]
    known = {"data": data} if test is not None else {}
    known |= trainer.changes() if trainer.args.improve else {}
    page = report_prompt(
        model,
        trainer.processing_class,
        test,
        trainer.verbalizer,
        rivals=rivals,
        context=known,
        training_rows=trainer.train_dataset,  # where the prompt is calibrated, what of its gain is the label prior
    )
    page.save(f"{folder}/report.html")
    model.attach_report(page)
    trainer.save_model()  # the model card has the report now
    return metrics


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse, search, test, save."""
    groups: Any = (ModelArguments, DataArguments, SearchedPrompt, Search)
    model_args, data_args, prompt_args, search = HfArgumentParser(
        groups, description=__doc__.split(":\n\n")[0]
    ).parse_args_into_dataclasses(argv)
    logging.basicConfig(level=logging.WARNING, handlers=[logging.StreamHandler(sys.stderr)])
    set_seed(search.seed)
    model_name = embedded.resolve(model_args.model_name_or_path)
    tokenizer_name = model_args.tokenizer_name or model_name
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
    verbalizer = make_verbalizer(data_args)
    splits = prepare(load_data(data_args), verbalizer, tokenizer, data_args)
    base = AutoModelForCausalLM.from_pretrained(model_name, dtype="float32")
    if prompt_args.init_text is not None:
        search.start_texts, prompt_args.init_text = [prompt_args.init_text], None
    model = get_peft_model(base, prompt_args.config(tokenizer_name, verbalizer))
    trainer = PromptSearchTrainer(
        model=model,
        args=search,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        verbalizer=verbalizer,
    )
    print_best_so_far(trainer)
    resume = search.resume_from_checkpoint  # a folder, or "True" for the last checkpoint in the output folder
    trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)
    trainer.save_model()
    return report(trainer, splits.get("test"), test_data_name(data_args))


if __name__ == "__main__":
    main()
