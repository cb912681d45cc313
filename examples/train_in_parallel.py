"""Train a small transformer on two-digit addition in several processes.

    accelerate launch --multi_gpu --num_processes 2 examples/train_in_parallel.py

``--multi_gpu`` is what makes accelerate start more than one process, on a machine without GPUs too, where
they talk through gloo; ``torchrun --nproc_per_node 2 examples/train_in_parallel.py`` does the same. Started
as ``python examples/train_in_parallel.py`` it is one process, and makes the same run. It needs
``pip install "policyopt[llm]"``.
"""

import torch
import tyro
from accelerate import Accelerator

from policyopt.language import grpo, sft
from policyopt.language.model import Transformer
from policyopt.language.tasks import Addition
from policyopt.language.tokenizer import CharTokenizer


def main(updates: int = 60, num_prompts: int = 32, sft_updates: int = 300, checkpoint: str | None = None):
    """Fine-tune on half-wrong answers, then train with GRPO, the work of each update shared out.

    Args:
        updates: of GRPO.
        num_prompts: prompts an update, of all processes together, each with 16 outputs.
        sft_updates: steps of fine-tuning before, which every process takes alike.
        checkpoint: a file that the first process writes, and from which a run goes on.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if accelerator.device.type == "cpu":
        torch.set_num_threads(1)  # a model this small is fastest on one thread
    task = Addition()
    model = Transformer(CharTokenizer(task.characters)).to(accelerator.device)
    if sft_updates:
        sft.train(model, task.demonstrations(4096, wrong=0.5), sft.SFTConfig(updates=sft_updates))

    config = grpo.GRPOConfig(
        updates=updates,
        num_prompts=num_prompts,
        minibatch_size=num_prompts,
        evaluate_every=max(1, updates // 4),
    )
    history = grpo.train(model, task, config, accelerator=accelerator, checkpoint=checkpoint, progress=True)
    for row in history.rows:
        if "held_out" in row:
            accelerator.print(
                f"update {row['update']}: reward {row['reward']:.2f}, held out {row['held_out']:.2f}"
            )
    accelerator.end_training()


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
