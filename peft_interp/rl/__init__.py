"""Prompt search by reinforcement learning: soft Q-learning with rewards for the task and for readability.

What is RLPrompt's (arXiv 2205.12548) without change: the policy's head and its start, sampling and top-k, the gap
reward with its z-score and shaping, the order of a step, the losses "one_step", "multi_step" and "both" with their
target network, all of the examples in every step, no end token, and the published values as defaults. The reference
code's `r` variants of the losses are left out: with the coefficient that it never passes they add nothing.

What differs, and why:

* **The policy's language model** is the task model unless another is named (published: distilGPT-2): no second model to
  load, and no tokens that the task model does not have.
* **Tokens.** Only those that the adapter allows are sampled; special and unused ones are no text.
* **What is scored is the text.** Sampled ids become text, are tokenised where the prompt stands, and those ids are
  scored (the reference does the same). A text that comes back at another length teaches the policy but is never chosen,
  since the adapter could not hold it.
* **Ties** of label words count as wrong, and label words that share their token are refused; the reference pays the
  full reward there.
* **The first prompt** of a run is the adapter's own, so that a search can start from a given text.
* **Evaluation** tries, beside the greedy prompt, the sampled ones of best training reward (`eval_candidates`), the
  adapter's own, and the one that the run began with. As published, the highest held-out reward decides. The end of a
  run counts as an evaluation. Without held-out data all training examples decide, never a part of them.
* **Several rewards** are mixed as separate z-scores, (1 - w) z_task - w z_nll; the paper on readable prompts (arXiv
  2504.02144) does not say how it weighs them. Chosen prompts are compared on the scale of the run's first step.
* **Speed.** Nothing that prompts or examples share is run twice, logits are computed for label words only, and a prompt
  that comes again is looked up. Scores equal the plain pass's.
* **Random numbers** depend on seed, step and a prompt's place only: a resumed run, or one on two processes, draws the
  same prompts.
* **Masked LMs** read `{text} {prompt} <mask>`; encode the rows yourself for the reference's full stop after the mask.
* **Two more losses** ("path", "bellman") and `value_baseline`, none of them the default.

What was tried, on the embedded model with 16 prompts of 5 tokens a step; mean reward of the sampled prompts in steps
1-20, 41-60 and 141-150 of one run on 8 short reviews, where random prompts have 36 and the best known prompt 144:

| loss | baseline | rate | top-k | 1-20 | 41-60 | 141-150 |
|---|---|---|---|---|---|---|
| both (published) | none | 5e-5 (published) | 256 | 38 | 38 | |
| both | none | 1e-3 | 256 | 38 | 77 | 134 |
| both | uniform | 1e-3 | all | 52 | 111 | 95 |
| path | none | 3e-3 | all | 38 | 119 | |
| path | uniform | 3e-3 | all | 64 | 90 | |
| bellman (target rate 0.1) | uniform | 3e-3 | all | 41 | 48 | |

So a run of hundreds of steps needs a larger learning rate, not another loss. At 5e-5 nothing moves in that time, and
since the first 256 tokens are then all that is ever sampled, as many random prompts hold a better one. "path" with the
uniform baseline climbs from the first step on but levels off; the published loss takes 50 steps and goes further, on
the way repeating tokens (" Sh jud jud jud jud").
"""
