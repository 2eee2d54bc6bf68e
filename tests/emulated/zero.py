"""A Llama under DeepSpeed's ZeRO, with PyTorch's own Adam; no emulator in it."""

import argparse

import deepspeed
import torch
from transformers import LlamaConfig, LlamaForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("--stage", type=int, default=3)
parser.add_argument("--layers", type=int, default=2)
parser.add_argument("--hidden", type=int, default=512)
parser.add_argument("--local_rank", type=int, default=0)
args = parser.parse_args()

deepspeed.init_distributed()
settings = {
    "train_micro_batch_size_per_gpu": 1,
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": args.stage},
    "gradient_clipping": 1.0,
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "torch_adam": True}},
}
config = LlamaConfig(
    hidden_size=args.hidden,
    num_hidden_layers=args.layers,
    num_attention_heads=32,
    num_key_value_heads=8,
    intermediate_size=args.hidden * 7 // 2,
    vocab_size=128256,
)
model = LlamaForCausalLM(config)
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=settings)
for step in range(100):
    ids = torch.randint(0, 128256, (1, 1024), device=engine.device)
    loss = engine(input_ids=ids, labels=ids).loss
    engine.backward(loss)
    engine.step()
    print(f"step {step} loss {loss.item()} memory {torch.cuda.max_memory_allocated() >> 20} MiB")
