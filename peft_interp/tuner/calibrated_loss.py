"""`calibrated_loss`: a loss for a stock Trainer in which the label prior counts for nothing.

The usual loss, the cross-entropy of the label word in the whole vocabulary, is mostly about making label words likely
and about their prior: what calibration takes away for nothing afterwards. Training on calibrated scores leaves a prompt
the rest: telling rows apart. With the label words alone a prompt may also leave all of them unlikely.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peft_interp.text.label_prior import batch_bias, with_bias
from peft_interp.text.placement import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peft_interp.text.verbalizer import Verbalizer


def calibrated_loss(
    tokenizer: PreTrainedTokenizerBase, verbalizer: Verbalizer
) -> Callable[[Any, Tensor, Tensor | int | None], Tensor]:
    """`compute_loss_func` for `Trainer`: cross-entropy among the label words less each label's mean over the batch.

    The numbers that batch calibration adds (`peft_interp.text.label_prior`) are those of the batch, with gradient: let
    batches hold 16 rows or more. There is no other calibration here: the verbalizer's own is not looked at. The prompt
    must stand at the start of the row, and each label word be one token. An `InterpPromptConfig` needs
    `align_logits_with_labels=True`, as for any `compute_loss_func`, and its perplexity term counts beside this loss;
    stock prompt tuning works as it is. Calibrate the trained prompt (`calibrate`), which is what it was trained for.

    Args:
        tokenizer: the model's.
        verbalizer: label words of one token each.

    Returns:
        A function of the model's output, the labels (batch, length), -100 but at one label word in each row, and the
        number of labels in the accumulated batch, that returns a scalar, nats.

    Raises:
        ValueError: label words of several tokens or none, or a prompt that does not open the row: Trainer takes the
            labels out of the batch, and then nothing says where an answer begins. From the function: a batch of one
            row, in which nothing is left, or rows without exactly one label word.
    """
    if not verbalizer.placement.before_text:
        raise ValueError(
            f"`template={verbalizer.template!r}` has its prompt {verbalizer.placement.at}; `calibrated_loss` needs it "
            "at the start, since Trainer takes the labels, which say where an answer begins, out of the batch."
        )
    words = torch.tensor(verbalizer.label_token_ids(tokenizer))

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        logits = outputs["logits"][:, -labels.shape[1] :]  # stock prompt tuning has the prompt's columns in front
        wanted = labels[:, 1:]  # (batch, length - 1)
        answers = wanted != IGNORED
        ids = words.to(logits.device)
        gold = wanted[answers].unsqueeze(1) == ids.to(wanted.device)  # (labels, words)
        if not (bool((answers.sum(1) == 1).all()) and bool(gold.any(1).all())):
            raise ValueError(
                "`calibrated_loss` needs rows with exactly one label, a label word; encode them with the verbalizer "
                f"that it was made from ({', '.join(verbalizer.label_words)})."
            )
        if len(labels) < 2:
            raise ValueError(
                "`calibrated_loss` takes each label's mean over the batch off, and of a single row nothing is left; "
                "raise `per_device_train_batch_size`, and set `dataloader_drop_last=True` if the last batch is one row."
            )
        scores = logits[:, :-1][answers.to(logits.device)][:, ids].float().log_softmax(-1)  # (batch, words)
        calibrated = with_bias(scores, batch_bias(scores))
        losses = torch.nn.functional.nll_loss(calibrated, gold.int().argmax(1).to(logits.device), reduction="none")
        return losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)

    return loss
