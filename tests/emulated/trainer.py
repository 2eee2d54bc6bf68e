"""Hugging Face's Trainer on a small Llama and made-up data; nothing of an emulator is in it."""

import argparse

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=22)
parser.add_argument("--hidden", type=int, default=2048)
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--workers", type=int, default=2)
args = parser.parse_args()


class Tokens(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4096

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(0, 32000, (1024,), generator=torch.Generator().manual_seed(i))
        return {"input_ids": ids, "labels": ids}


config = LlamaConfig(
    hidden_size=args.hidden,
    num_hidden_layers=args.layers,
    num_attention_heads=32,
    num_key_value_heads=4,
    intermediate_size=args.hidden * 11 // 4,
    vocab_size=32000,
)
trainer = Trainer(
    model=LlamaForCausalLM(config),
    args=TrainingArguments(
        output_dir="out", per_device_train_batch_size=args.batch, max_steps=args.steps, bf16=True,
        gradient_checkpointing=True, dataloader_num_workers=args.workers, save_steps=args.steps,
        logging_steps=2, report_to="none",
    ),
    train_dataset=Tokens(),
)  # fmt: skip
print(trainer.train().metrics)
