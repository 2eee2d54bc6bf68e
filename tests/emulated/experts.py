"""A mixture of experts of Hugging Face on made-up data; nothing of an emulator is in it."""

import argparse

import torch
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("--model", choices=("mixtral", "qwen3"), default="mixtral")
parser.add_argument("--layers", type=int, default=2)
parser.add_argument("--hidden", type=int, default=256)
args = parser.parse_args()

sizes = {
    "hidden_size": args.hidden, "num_hidden_layers": args.layers, "num_attention_heads": 8,
    "num_key_value_heads": 4, "vocab_size": 1024, "output_router_logits": True,
}  # fmt: skip
if args.model == "mixtral":
    config = MixtralConfig(**sizes, intermediate_size=512, num_local_experts=8)
    model = MixtralForCausalLM(config)
else:
    config = Qwen3MoeConfig(**sizes, moe_intermediate_size=128, num_experts=16, head_dim=32,
                            num_experts_per_tok=4)  # fmt: skip
    model = Qwen3MoeForCausalLM(config)
model = model.cuda().bfloat16()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
for step in range(100):
    ids = torch.randint(0, 1024, (2, 128), device="cuda")
    out = model(input_ids=ids, labels=ids)
    out.loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    routed = torch.cat(
        [x.float().topk(config.num_experts_per_tok).indices for x in out.router_logits]
    )
    counts = torch.bincount(routed.flatten(), minlength=8).tolist()
    print(f"step {step} loss {out.loss.item()} tokens per expert {counts}")
