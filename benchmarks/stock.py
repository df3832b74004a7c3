"""The alternative: `transformers.Trainer` with its collator, on the model, the examples and the precision of a run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import torch
import transformers
from torch import nn
from transformers import DataCollatorForLanguageModeling, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from objectives.sequences import Sequences
from training.setup import Run
from training.stock import find_stock_head, make_stock_config, rename_head
from training.stream import MicroBatches

TRAINER_SETTINGS = "fused AdamW, nothing logged, saved or evaluated, lists, no worker, examples in the order of ours"


def framed_examples(batches: MicroBatches, examples: np.ndarray) -> Sequences:
    """Return examples of the stream before anything is hidden: what a user of `transformers` would have stored."""
    return batches.stream.build(examples).sequences.restored()


def to_lists(sequences: Sequences) -> list[dict[str, Any]]:
    """Return each example as the stock collator takes it: lists of ids, and which of them are special."""
    bounds = sequences.offsets.tolist()
    ids, special = sequences.original_ids.tolist(), sequences.is_special.astype(np.int64).tolist()
    return [
        {"input_ids": ids[begin:end], "special_tokens_mask": special[begin:end]}
        for begin, end in zip(bounds, bounds[1:], strict=False)
    ]


def make_dataset(batches: MicroBatches, num_examples: int) -> datasets.Dataset:
    """Return the first examples of the stream as a `datasets` table in memory."""
    return datasets.Dataset.from_list(to_lists(framed_examples(batches, np.arange(num_examples))))


def make_collator(run: Run, **settings: Any) -> DataCollatorForLanguageModeling:
    """Return the stock collator for the run's tokenizer."""
    return DataCollatorForLanguageModeling(run.corpus.load_tokenizer(), **settings)


def make_stock_model(run: Run, attention: str) -> PreTrainedModel:
    """Return the masked LM of `transformers` with the same weights, dropout and architecture as the run's model."""
    head = run.model.heads["mlm"]
    encoder = run.model.encoder
    stock = find_stock_head(head, encoder.config)
    if stock is None:
        raise ValueError(f"transformers has no masked LM class for {encoder.config.model_type}")
    config = make_stock_config(stock, encoder.config, ())
    config._attn_implementation = attention
    model = cast(PreTrainedModel, getattr(transformers, stock.class_name)(config))
    tensors = {stock.prefix + name: tensor for name, tensor in encoder.state_dict().items()}
    tensors |= rename_head(stock, head.state_dict())
    with torch.no_grad():
        ours = dict(model.named_parameters())
        for name, parameter in ours.items():
            parameter.copy_(tensors[name])
    return model.train()


def copy_back(run: Run, model: PreTrainedModel) -> None:
    """Put a stock model's weights into the run's own, so that both are judged by the same questions."""
    stock = find_stock_head(run.model.heads["mlm"], run.model.encoder.config)
    assert stock is not None
    held = dict(model.named_parameters())
    names = {theirs: ours for ours, theirs in stock.names.items()}
    with torch.no_grad():
        for name, parameter in run.model.encoder.named_parameters():
            parameter.copy_(held[stock.prefix + name])
        for name, parameter in cast(nn.Module, run.model.heads["mlm"]).named_parameters():
            theirs = next(t + name[len(o) :] for t, o in names.items() if name == o or name.startswith(o + "."))
            parameter.copy_(held[theirs])


def make_trainer(
    run: Run,
    model: PreTrainedModel,
    dataset: datasets.Dataset,
    *,
    steps: int,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    seed: int = 0,
) -> Trainer:
    """Return a Trainer that does what the run does, with the settings that cost it least."""
    config = run.config
    on_cpu = not torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=run.peak,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(config.warmup_rate * run.max_steps),
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        adam_epsilon=config.adam_epsilon,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=run.accelerator.mixed_precision == "bf16",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        train_sampling_strategy="sequential",
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=seed,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=make_collator(run),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer
