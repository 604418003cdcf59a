"""Tiny randomly initialised models, and helpers, for all tests.

Everything here is a fixture that hands out a function, so that no test file imports another one; what those functions
share stands in `tests/builders.py`.
Nothing reads the network or the user's caches.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments

from peft_interp.metrics import references
from tests import builders, processes
from tests.builders import BOS, EOS, PAD, VOCAB_SIZE

Build: TypeAlias = Callable[..., Any]

EXAMPLES = Path(__file__).parents[1] / "examples"
SENTENCES = (
    "The film was great and the plot was terrible .",
    "It was a dull, dull movie. It was great!",
    "Review : the acting is bad but the music is good",
    "I loved the film and its ending",
    "Great GREAT Terrible TERRIBLE greatness",
)
os.environ["PEFT_INTERP_JUDGE"] = "task"  # the same verdicts wherever the tests run; `tests/real` asks SmolLM2
BYTES = [f"<0x{value:02X}>" for value in range(256)]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that opens an outside connection fails at once instead of hanging."""
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to connect to {address!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session", autouse=True)
def known_levels() -> Iterator[None]:
    """What people's prompts score under the embedded model is measured once, not each time the model is loaded."""
    with pytest.MonkeyPatch.context() as patch:
        known = builders.KnownLevels()
        patch.setattr(references, "_sample", known.sample)
        patch.setattr(references, "_measure", known.measure)
        yield


@pytest.fixture
def run_script() -> Build:
    """`run_script(folder, name, *arguments)`: an example script run in `folder` as a user does; what it printed."""

    def run(folder: Path, name: str, *arguments: str) -> str:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
        finished = processes.run(str(EXAMPLES / name), *arguments, cwd=folder, env=environment, timeout=300)
        assert finished.returncode == 0, finished.stderr[-3000:]
        return finished.stdout

    return run


@pytest.fixture
def gpt2() -> Build:
    """`gpt2(model_class=GPT2LMHeadModel, **config)`: learned absolute positions, no dropout."""
    return builders.gpt2


@pytest.fixture
def llama() -> Build:
    """`llama(**config)`: rotary positions, head below `.model`, `loss_type == "ForCausalLM"`."""
    return builders.llama


@pytest.fixture
def t5() -> Build:
    """`t5(**config)`: encoder and decoder, relative positions, no dropout."""
    return builders.t5


@pytest.fixture
def bert() -> Build:
    """`bert(model_class, **config)`: a bidirectional encoder, no dropout."""
    return builders.bert


@pytest.fixture
def with_prompt() -> Build:
    """`with_prompt(model, task_type="CAUSAL_LM", **config)`: stock prompt tuning, 4 tokens."""
    return builders.with_prompt


@pytest.fixture
def readable() -> Build:
    """`readable(model, task_type="CAUSAL_LM", off_rows=False, **config)`: our adapter, 4 tokens."""
    return builders.readable


@pytest.fixture
def token_ids() -> Build:
    """`token_ids(rows, length)`: ordinary tokens, none of them special, the same at every call."""

    def build(rows: int, length: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randint(3, VOCAB_SIZE, (rows, length), generator=generator)

    return build


@pytest.fixture
def inputs_of() -> Build:
    """`inputs_of(model, **forward_arguments)`: what the base model's forward receives."""

    def record(model: PeftModel, **arguments: Any) -> dict[str, Any]:
        received: dict[str, Any] = {}

        def remember(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            received.update(kwargs)

        handle = model.get_base_model().register_forward_pre_hook(remember, with_kwargs=True)
        try:
            model(**arguments)
        finally:
            handle.remove()
        return received

    return record


@pytest.fixture
def tokenizer_dir(tmp_path: Path) -> Path:
    """A word tokenizer on disk that puts `<s>` first; word `w7` has id 7."""
    vocabulary = {"<pad>": PAD, "<s>": BOS, "</s>": EOS}
    vocabulary |= {f"w{i}": i for i in range(3, VOCAB_SIZE)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", BOS)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    path = tmp_path / "tokenizer"
    tokenizer.save_pretrained(path)
    return path


class RememberGradients(TrainerCallback):
    """Keeps the prompt's gradient as the optimizer is about to use it."""

    def __init__(self) -> None:
        self.gradients: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, *args: Any, model: PeftModel, **kwargs: Any) -> None:
        gradient = model.prompt_encoder["default"].embedding.weight.grad
        self.gradients.append(gradient.clone())


@pytest.fixture
def make_trainer(tmp_path: Path) -> Build:
    """`make_trainer(model, rows, trainer_class=Trainer, trainer_options=None, **arguments)`."""

    def build(
        model: PeftModel,
        rows: list[dict[str, Any]],
        trainer_class: type[Trainer] = Trainer,
        trainer_options: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> Trainer:
        quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no"}
        plain = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
        machine = {"use_cpu": True, "dataloader_pin_memory": False, "output_dir": str(tmp_path)}
        args = TrainingArguments(**{**quiet, **plain, **machine, "max_steps": 1, **arguments})
        return trainer_class(model=model, args=args, train_dataset=rows, **(trainer_options or {}))

    return build


@pytest.fixture
def first_gradient(make_trainer: Build) -> Build:
    """`first_gradient(model, rows, **make_trainer_arguments)`: gradient of the first update."""

    def run(model: PeftModel, rows: list[dict[str, Any]], **options: Any) -> torch.Tensor:
        memory = RememberGradients()
        trainer = make_trainer(model, rows, **options)
        trainer.add_callback(memory)
        trainer.train()
        return memory.gradients[0]

    return run


@pytest.fixture(scope="session")
def byte_tokenizer() -> Any:
    """GPT-2's kind: byte-level BPE, blanks belong to the following word, no BOS in front."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    settings = {"vocab_size": 400, "special_tokens": ["<|endoftext|>"], "show_progress": False}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(SENTENCES * 20, trainers.BpeTrainer(initial_alphabet=alphabet, **settings))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def piece_tokenizer() -> Any:
    """Llama-2's kind: sentencepiece BPE, a blank is put in front of every text, `<s>` in front of every row."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    settings = {"vocab_size": 500, "special_tokens": ["<unk>", "<s>", "</s>"], "show_progress": False}
    core.train_from_iterator(SENTENCES * 20, trainers.BpeTrainer(**settings))
    core.add_tokens(BYTES)
    core.pre_tokenizer = None
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


@pytest.fixture(params=["byte", "piece"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """Both, one after the other."""
    return request.getfixturevalue(f"{request.param}_tokenizer")


@pytest.fixture
def evaluate_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Module and data caches of `evaluate` for this test alone.

    `evaluate` reads its environment variables at import, so its config is what has to be set.
    """
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    monkeypatch.setattr(evaluate.config, "DOWNLOADED_EVALUATE_PATH", tmp_path / "downloads")
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = {name: sys.modules.pop(name) for name in loaded_evaluate_scripts()}
    yield
    for name in loaded_evaluate_scripts():
        del sys.modules[name]
    sys.modules.update(before)


def loaded_evaluate_scripts() -> list[str]:
    return [name for name in sys.modules if name.split(".")[0] == "evaluate_modules"]


SLOW = (  # run scripts, start processes or train for long: `make test-fast` leaves them out
    "tests/answers/test_answers_page.py",
    "tests/answers/test_benchmark.py",
    "tests/answers/test_writer.py",
    "tests/benchmarks/",
    "tests/cli/test_calibration_option.py",
    "tests/cli/test_data.py",
    "tests/cli/test_explain.py",
    "tests/cli/test_export.py",
    "tests/cli/test_nothing_steers_the_terminal.py",
    "tests/cli/test_outputs.py",
    "tests/cli/test_prompt_position.py",
    "tests/cli/test_read.py",
    "tests/docs/",
    "tests/ecosystem/",
    "tests/embedded/test_smollm2_folder.py",
    "tests/examples/",
    "tests/explain/test_explain_prompt.py",
    "tests/explain/test_turned_labels.py",
    "tests/hub/test_every_save.py",
    "tests/hub/test_foreign_adapters.py",
    "tests/hub/test_hostile_files.py",
    "tests/hub/test_malformed_adapters.py",
    "tests/hub/test_options.py",
    "tests/hub/test_plain_peft.py",
    "tests/hub/test_push_and_pull.py",
    "tests/hub/test_snippets.py",
    "tests/inference/test_threads.py",
    "tests/metrics/scrutability/test_evaluate_modules.py",
    "tests/metrics/scrutability/test_scrutability_options.py",
    "tests/metrics/scrutability/test_scrutability_verdicts.py",
    "tests/metrics/test_faithfulness_options.py",
    "tests/metrics/test_label_scores.py",
    "tests/metrics/test_negative_controls.py",
    "tests/metrics/test_perfect_prompt.py",
    "tests/metrics/test_waywardness.py",
    "tests/report/test_building.py",
    "tests/report/test_docs_page.py",
    "tests/report/test_hostile_strings.py",
    "tests/report/test_in_a_browser.py",
    "tests/report/test_text_and_comparison.py",
    "tests/rl/test_archive_is_kept.py",
    "tests/rl/test_custom_rewards.py",
    "tests/rl/test_final_choice.py",
    "tests/rl/test_it_learns.py",
    "tests/rl/test_script.py",
    "tests/rl/test_search_two_processes.py",
    "tests/rl/test_trainer.py",
    "tests/scoring/test_calibrated_rewards.py",
    "tests/scoring/test_scorer_exact.py",
    "tests/scoring/test_scorer_memory.py",
    "tests/scoring/test_scorer_models.py",
    "tests/scoring/test_searches_on_answers.py",
    "tests/search/test_constraints.py",
    "tests/search/test_fluent_search_resume.py",
    "tests/search/test_search_script.py",
    "tests/search/test_search_trainer.py",
    "tests/storage/test_atomic.py",
    "tests/studies/test_generation_study.py",
    "tests/studies/test_tradeoff_claims.py",
    "tests/studies/test_tradeoff_in_a_browser.py",
    "tests/studies/test_tradeoff_report.py",
    "tests/studies/test_tradeoff_run.py",
    "tests/test_extending.py",
    "tests/test_import.py",
    "tests/test_processes.py",
    "tests/tuner/families/test_sharding.py",
    "tests/tuner/models/test_adapters_side_by_side.py::test_a_process_without_the_plugin",
    "tests/tuner/models/test_compile.py",
    "tests/tuner/models/test_prompt_in_the_template.py",
    "tests/tuner/models/test_save_and_load.py",
    "tests/tuner/models/test_task_models.py",
    "tests/tuner/models/test_ways.py::test_the_rule",
    "tests/tuner/training/test_accumulation.py",
    "tests/tuner/training/test_fluency_training.py",
    "tests/tuner/training/test_prompt_callback.py",
    "tests/tuner/training/test_prompt_callback_scores.py",
    "tests/tuner/training/test_resume.py",
    "tests/tuner/training/test_stock_scripts.py",
    "tests/tuner/training/test_target_perplexity.py",
    "tests/tuner/training/test_trainer_options.py",
    "tests/tuner/training/test_trainer_prompt_at_the_end.py",
    "tests/tuner/training/test_two_processes.py",
)


def pytest_collection_finish() -> None:
    """A Trainer collects garbage before it trains: no longer among all that the libraries have loaded."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of `SLOW` get their marker, and their files come first: none is left for one worker at the end."""
    for item in items:
        name = item.nodeid.split("[")[0]
        if name.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: not item.nodeid.startswith(SLOW))
