"""The alternative as a script: what the masked LM example of `transformers` does, for the encoders of this project.

python -m benchmarks.trainer_process --corpus text.txt --tokenizer FOLDER --out FOLDER [--max_steps 200]
"""

import argparse
from pathlib import Path

import datasets
import torch
import transformers
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from corpora import Vocabulary
from corpora.tokenizer import load_tokenizer
from training.encoders import EncoderSpec, make_config

from .tokenise import map_and_group


def main() -> None:
    """Tokenise, train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("corpus", "tokenizer", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--encoder", default="bert-tiny")
    parser.add_argument("--dropout", type=float, default=0.1)
    numbers = {"max_length": 128, "batch_size": 32, "max_steps": 200, "threads": 1}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = Path(options.out)
    tokenizer = load_tokenizer(options.tokenizer)
    documents = Path(options.corpus).read_text().split("\n\n")
    table = map_and_group(documents, tokenizer, out, options.max_length)
    spec = EncoderSpec(
        name=options.encoder,
        vocabulary=Vocabulary.of(tokenizer),
        max_length=options.max_length,
        dropout=options.dropout,
        attention="sdpa",
    )
    on_cpu = not torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=1e-3,
        warmup_steps=options.max_steps // 20,
        optim="adamw_torch_fused",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=transformers.AutoModelForMaskedLM.from_config(make_config(spec)),
        args=arguments,
        train_dataset=table,
        data_collator=DataCollatorForLanguageModeling(tokenizer),
    )
    trainer.train()
    trainer.save_model(str(out / "model"))


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main()
