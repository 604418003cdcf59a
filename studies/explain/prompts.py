"""The prompts of the study: planted texts as vectors, and soft prompts trained on right and on turned labels."""

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PromptTuningConfig, get_peft_model
from torch import Tensor, nn

from peft_interp import embedded
from peft_interp.explain.inversion import divergence
from peft_interp.explain.target import Target, compared, make_target
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.metrics.differentials import kl_divergence
from peft_interp.metrics.references import human_prompts
from peft_interp.text.tokenization import decode, encode

ROWS, TRAINING_ROWS = 32, 24
LENGTHS = (4, 8)
WANTED = 5  # planted texts of each length
LEAST_EFFECT = 0.05  # nats; a planted text that does less is no test
NOISE = 0.2  # of the vectors' standard deviation
STEPS, BATCH, RATE = 60, 8, 0.05  # of Adam
LONGEST = 32  # tokens of a row


@dataclass(frozen=True)
class Case:
    """One prompt to be explained.

    Attributes:
        kind: "rows" (a text's own vectors), "noise" (with noise), "effect" (vectors trained from noise towards the
            text's answers), "trained" (on right labels) or "turned" (on labels turned around).
        task: of the embedded ones.
        length: vectors.
        number: among its kind, task and length.
        model: "embedded" or "smollm2".
    """

    kind: str
    task: str
    length: int
    number: int
    model: str = embedded.EMBEDDED

    @property
    def key(self) -> str:
        """Its name in the results."""
        named = "" if self.model == embedded.EMBEDDED else f"-{self.model}"
        return f"{self.kind}-{self.task}-{self.length}-{self.number}{named}"


def all_cases(model: str = embedded.EMBEDDED) -> list[Case]:
    """In the order in which they are run: a few of every kind first; of SmolLM2 so few."""
    if model != embedded.EMBEDDED:
        kinds = [(kind, "sentiment") for kind in ("noise", "effect", "trained", "turned")]
        kinds += [("trained", "topic"), ("turned", "topic")]
        return [Case(kind, task, 4, i, model) for i in range(2) for kind, task in kinds]
    found = [
        Case(k, "sentiment", n, i) for k, count in (("rows", 2), ("noise", 3)) for n in LENGTHS for i in range(count)
    ]
    soft = [(kind, task) for kind in ("trained", "turned") for task in embedded.TASKS]
    later = [Case("effect", "sentiment", n, i) for n in LENGTHS for i in range(WANTED)]
    later += [Case(kind, task, n, i) for kind, task in soft for n in LENGTHS for i in range(3)]
    return found + sorted(later, key=lambda case: (case.number, case.length, case.task, case.kind))


@dataclass(frozen=True)
class Setting:
    """Model, tokenizer and rows of a task.

    Attributes:
        task: its name.
        base: the causal LM.
        tokenizer: its tokenizer.
        rows: those that explain a prompt.
        training: those that train it.
    """

    task: str
    base: Any
    tokenizer: Any
    rows: list[dict[str, Any]]
    training: list[dict[str, Any]]

    def model(self, vectors: Tensor) -> Any:
        """Stock prompt tuning with these vectors, (length, dim)."""
        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(vectors))
        model: Any = get_peft_model(self.base, config)
        model.prompt_encoder["default"].embedding.weight.data = vectors.to(self.base.device, copy=True)
        return model

    def target(self, model: Any) -> Target:
        """What the model's prompt does on the training rows."""
        labels = embedded.TASKS[self.task].label_token_ids(self.tokenizer)
        with eval_mode(model):
            setup = compared(model, self.tokenizer, self.training, labels, 32)
            return make_target(setup, range(len(setup.rows)), 16)

    @property
    def table(self) -> Tensor:
        """(vocabulary, dim) the model's rows, on the CPU, where everything is drawn."""
        rows: Tensor = self.base.get_input_embeddings().weight.detach().cpu()
        return rows


def load(task: str, model: str = embedded.EMBEDDED, device: str = "cpu") -> Setting:
    """A task's rows: those that train soft prompts, and others that explain them."""
    base, verbalizer = embedded.load_model(model).to(device), embedded.TASKS[task]  # type: ignore[arg-type]
    tokenizer = embedded.load_tokenizer(model)
    data = embedded.load_data(task)
    train, test = (
        data[split].shuffle(seed=0).select(range(n)) for split, n in (("train", TRAINING_ROWS), ("test", ROWS))
    )
    rows, training = (
        [verbalizer.encode(tokenizer, row["sentence"], row["label"], LONGEST) for row in part] for part in (test, train)
    )
    return Setting(task, base, tokenizer, rows, training)


def planted_texts(setting: Setting, length: int) -> list[str]:
    """Pieces of prompts that people wrote, of so many tokens, that change the answers; in a drawn order."""
    tokenizer = setting.tokenizer
    every = [encode(tokenizer, prompt) for prompt in human_prompts()]
    texts = [decode(tokenizer, ids[i : i + length]) for ids in every for i in range(0, len(ids) - length + 1, 2)]
    texts = [text for text in dict.fromkeys(texts) if len(encode(tokenizer, text)) == length]
    random.Random(length).shuffle(texts)
    table = setting.table
    target, found = setting.target(setting.model(table[:length])).subset(4), []
    with eval_mode(target.setup.text.base):
        for text in texts:
            answers = target.log_probs([(encode(tokenizer, text), row) for row in range(len(target.rows))])
            found += [text] if kl_divergence(answers, target.nothing).mean() >= LEAST_EFFECT else []
            if len(found) == WANTED:
                return found
    raise ValueError(f"only {len(found)} texts of {length} tokens change the answers by {LEAST_EFFECT} nats.")


def planted_vectors(setting: Setting, case: Case, text: str) -> Tensor:
    """(length, dim) the vectors of a planted text."""
    table = setting.table
    generator = torch.Generator().manual_seed(100 * case.length + case.number)
    own = table[torch.tensor(encode(setting.tokenizer, text))]
    if case.kind == "rows":
        return own
    if case.kind == "noise":
        return own + NOISE * own.std() * torch.randn(own.shape, generator=generator)
    target = setting.target(setting.model(own))
    return descend(target, table[_some(setting, case.length, generator)])


def trained_vectors(setting: Setting, case: Case) -> Tensor:
    """(length, dim) a soft prompt trained on the labels, or on labels turned around."""
    generator = torch.Generator().manual_seed(1000 * case.length + case.number)
    table = setting.table
    start = table[_some(setting, case.length, generator)]
    target = setting.target(setting.model(start))
    words = torch.tensor(embedded.TASKS[case.task].label_token_ids(setting.tokenizer))
    gold = torch.tensor([words.tolist().index(row.labels[row.first]) for row in target.rows])
    wanted = words[(gold + (case.kind == "turned")) % len(words)]
    certain = torch.full_like(target.prompt, -40.0)
    certain[torch.arange(len(wanted)), wanted] = 0.0  # KL to it is the cross-entropy
    return descend(replace(target, prompt=certain), start)


def _some(setting: Setting, length: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2, len(setting.tokenizer), (length,), generator=generator)


def descend(target: Target, start: Tensor) -> Tensor:
    """Vectors trained by Adam towards the target's answers, from `start`, (length, dim)."""
    vectors = nn.Parameter(start.to(target.prompt.device, copy=True))
    optimizer = torch.optim.Adam([vectors], lr=RATE)
    rng, rows = random.Random(0), range(len(target.rows))
    with eval_mode(target.setup.text.base):
        for step in range(STEPS):
            batch = target.part(sorted(rng.sample(rows, min(BATCH, len(rows)))))
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / STEPS)
            with torch.enable_grad():
                (vectors.grad,) = torch.autograd.grad(divergence(batch, vectors), vectors)
            optimizer.step()
    return vectors.detach().cpu()
