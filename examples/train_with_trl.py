"""Hand a task of the laboratory to TRL's GRPOTrainer.

    python examples/train_with_trl.py --model tiny
    python examples/train_with_trl.py --model HuggingFaceTB/SmolLM2-135M-Instruct --high 20
    accelerate launch --multi_gpu --num_processes 4 examples/train_with_trl.py --model … --use-vllm

``tiny`` is a small random transformer that reads characters; nothing is fetched for it, and nothing but noise
is to be expected of it in a few steps. Any other model is a folder or a name on the hub. ``--use-vllm`` lets
vLLM write the outputs (``pip install "trl[vllm]"``, a GPU). It needs ``pip install "policyopt[peers]"``.
"""

import os
from pathlib import Path

import torch
import tyro

from policyopt.language.grpo import GRPOConfig
from policyopt.language.tasks import Addition
from policyopt.language.trl_bridge import as_dataset, import_peer, reward_function, trl_settings


def make_tiny_model(folder: Path, characters: str) -> str:
    """Put a transformer of about 100,000 random parameters into a folder, with a tokenizer that has a token
    for each character.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<pad>", "<end>", *characters])}
    splitter = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    splitter.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    splitter.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=splitter, pad_token="<pad>", eos_token="<end>")
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def main(
    model: str = "tiny",
    steps: int = 4,
    high: int = 99,
    num_prompts: int = 8,
    learning_rate: float = 1e-5,
    use_vllm: bool = False,
    output: str = "trl_output",
    seed: int = 0,
):
    """Train a model on addition with TRL.

    Args:
        model: "tiny", a folder, or a name on the hub.
        steps: batches of outputs.
        high: the greatest summand, 8 at least.
        num_prompts: prompts a batch, each with 8 outputs.
        learning_rate: of AdamW.
        use_vllm: let vLLM write.
        output: a folder for what TRL writes; the completions are in it.
        seed: of the first weights, the order and the sampling.

    Returns:
        The trainer, after training.
    """
    trl = import_peer("trl")
    torch.manual_seed(seed)
    task, gpu = Addition(low=0, high=high, held_out=16), torch.cuda.is_available()
    if model == "tiny":
        model = make_tiny_model(Path(output, f"tiny_{os.environ.get('RANK', 0)}"), task.characters)
    tokenizer = import_peer("transformers").AutoTokenizer.from_pretrained(model, padding_side="left")
    if tokenizer.chat_template:  # the model is told what to do, and shown three answers
        dataset = as_dataset(task.train[3:], task.instruction, task.train[:3])
    else:
        dataset = as_dataset(task.train)

    config = GRPOConfig(
        updates=steps,
        num_prompts=num_prompts,
        minibatch_size=num_prompts,
        group_size=8,
        epochs=1,
        learning_rate=learning_rate,
    )
    settings = trl_settings(config, task, num_processes=int(os.environ.get("WORLD_SIZE", 1)))
    arguments = trl.GRPOConfig(
        output,
        **settings,
        use_vllm=use_vllm,
        use_cpu=not gpu,
        bf16=gpu,
        seed=seed,
        logging_steps=1,
        log_completions=True,
        num_completions_to_print=4,
        save_strategy="no",
        report_to="none",
    )
    trainer = trl.GRPOTrainer(
        model,
        reward_funcs=reward_function(task),
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
