"""Train the embedded language model: one command, seeded, resumable.

    python -m studies.embedded_model.train --output_dir runs/final --steps 5000

The learning rate warms up, stays, and falls to zero over the last quarter of the steps. A run that is started again
with the same `--output_dir` goes on from its last checkpoint; `--steps` may be changed before the fall has begun.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from studies.embedded_model.build_tokenizer import build_tokenizer
from studies.embedded_model.corpus import Corpus
from studies.embedded_model.monitor import monitor_accuracy
from studies.embedded_model.muon import Muon
from studies.embedded_model.packing import Batch, collate, pack
from studies.embedded_model.sources import load_sources

REPOSITORY = Path(__file__).parents[2]


def parse_arguments() -> argparse.Namespace:
    """Command line of the training run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=16, help="packed rows in a step")
    parser.add_argument("--length", type=int, default=256, help="tokens in a packed row; also the context length")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocab_size", type=int, default=6144)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--muon_rate", type=float, default=0.02, help="of the matrices inside the blocks")
    parser.add_argument("--weight_decay", type=float, default=0.05)
    parser.add_argument("--decay_share", type=float, default=0.25, help="last share of the steps, where the rate falls")
    parser.add_argument("--label_weight", type=float, default=1.0, help="mean label loss beside the mean language loss")
    parser.add_argument("--shard_documents", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save_every", type=int, default=250)
    parser.add_argument("--monitor_every", type=int, default=500)
    return parser.parse_args()


def new_model(arguments: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """A randomly initialised GPT-2 of the asked size. ReLU: its backward pass is far cheaper than GELU's here."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=arguments.length,
        n_embd=arguments.width,
        n_layer=arguments.layers,
        n_head=arguments.heads,
        activation_function="relu",
        resid_pdrop=arguments.dropout,
        embd_pdrop=arguments.dropout,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return GPT2LMHeadModel(config)


def new_optimizers(model: nn.Module, arguments: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, Adam for embeddings, biases and norms."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and ".h." in n]
    chosen = {id(p) for p in inner}
    others = [p for p in model.parameters() if id(p) not in chosen]
    muon = Muon(inner, arguments.muon_rate, weight_decay=arguments.weight_decay)
    return [
        muon,
        torch.optim.AdamW(others, lr=arguments.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def rate_factor(step: int, steps: int, decay_share: float, warmup: int = 150) -> float:
    """Share of the peak learning rate at a step: linear warm-up, plateau, linear fall to zero."""
    return max(0.0, min(1.0, (step + 1) / warmup, (steps - step) / max(1.0, decay_share * steps)))


def set_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every learning rate to `factor` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * factor


def losses(model: GPT2LMHeadModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean language loss and mean label loss, in nats per counted token."""
    hidden = model.transformer(
        input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state.flatten(0, 1)  # (tokens, width)
    targets = batch.ids.flatten().roll(-1)
    chosen = torch.cat([batch.lm_at, batch.label_at])
    nll = nn.functional.cross_entropy(model.lm_head(hidden[chosen]), targets[chosen], reduction="none")
    count = len(batch.lm_at)
    return nll[:count].mean(), nll[count:].mean()


def batches(corpus: Corpus, arguments: argparse.Namespace, shard: int, skip: int) -> Iterator[tuple[int, int, Batch]]:
    """Batches from shard `shard` on, after its first `skip`; each comes with the place to go on from."""
    while True:
        rows = pack(corpus.shard(shard, arguments.shard_documents), arguments.length)
        random.Random(f"{arguments.seed}/{shard}/rows").shuffle(rows)
        for number in range(skip, len(rows) // arguments.rows):
            rng = random.Random(f"{arguments.seed}/{shard}/{number}")
            chosen = rows[number * arguments.rows : (number + 1) * arguments.rows]
            yield shard, number + 1, collate(chosen, arguments.length, corpus.tokenizer.pad_token_id, rng)
        shard, skip = shard + 1, 0


def save(folder: Path, model: GPT2LMHeadModel, optimizers: list[torch.optim.Optimizer], place: dict[str, int]) -> None:
    """Write the checkpoint beside the old one, then replace it."""
    state = {
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "rng": torch.get_rng_state(),
        **place,
    }
    torch.save(state, folder / "checkpoint.new")
    (folder / "checkpoint.new").replace(folder / "checkpoint.pt")


def log(folder: Path, **row: object) -> None:
    """Append one line to the run's log."""
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def train(arguments: argparse.Namespace) -> None:
    """Run, or go on with, a training run."""
    folder: Path = arguments.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    sources = load_sources(arguments.data_dir, arguments.seed)
    if not (folder / "tokenizer.json").exists():
        build_tokenizer(sources, arguments.vocab_size, folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    corpus = Corpus(sources, tokenizer, arguments.seed, arguments.length)
    model = new_model(arguments, tokenizer).train()
    model.config.save_pretrained(folder)
    optimizers = new_optimizers(model, arguments)
    place = {"step": 0, "shard": 0, "batch": 0}
    if (folder / "checkpoint.pt").exists():
        state = torch.load(folder / "checkpoint.pt")
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["rng"])
        place = {name: state[name] for name in place}
    run_steps(arguments, corpus, model, optimizers, place)
    model.save_pretrained(folder)


def run_steps(
    arguments: argparse.Namespace,
    corpus: Corpus,
    model: GPT2LMHeadModel,
    optimizers: list[torch.optim.Optimizer],
    place: dict[str, int],
) -> None:
    """The training loop proper."""
    folder: Path = arguments.output_dir
    started, seen = time.time(), 0
    source = batches(corpus, arguments, place["shard"], place["batch"])
    for step in tqdm(
        range(place["step"], arguments.steps), initial=place["step"], total=arguments.steps, mininterval=20
    ):
        shard, number, batch = next(source)
        set_rates(optimizers, rate_factor(step, arguments.steps, arguments.decay_share))
        lm_loss, label_loss = losses(model, batch)
        (lm_loss + arguments.label_weight * label_loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen += batch.ids.numel()
        done = step + 1
        if done % 25 == 0:
            log(
                folder,
                step=done,
                lm=lm_loss.item(),
                label=label_loss.item(),
                tokens_per_s=seen / (time.time() - started),
            )
        if done % arguments.save_every == 0 or done == arguments.steps:
            save(folder, model, optimizers, {"step": done, "shard": shard, "batch": number})
        if done % arguments.monitor_every == 0 or done == arguments.steps:
            log(folder, step=done, accuracy=monitor_accuracy(model, corpus.tokenizer, arguments.data_dir))


if __name__ == "__main__":
    train(parse_arguments())
