"""A GPT of Megatron-Core under tensor, pipeline and expert parallelism; no emulator in it."""

import argparse
import os
from functools import partial

import torch
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel.schedules import get_forward_backward_func
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer.moe import moe_utils
from megatron.core.transformer.transformer_config import TransformerConfig

if not hasattr(moe_utils, "te_general_gemm"):  # 0.16 forgets it where Transformer Engine is missing
    moe_utils.te_general_gemm = None

parser = argparse.ArgumentParser()
parser.add_argument("--tp", type=int, default=2)
parser.add_argument("--pp", type=int, default=1)
parser.add_argument("--ep", type=int, default=1)
parser.add_argument("--experts", type=int, default=0)
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--hidden", type=int, default=512)
parser.add_argument("--heads", type=int, default=8)
parser.add_argument("--sequence", type=int, default=512)
parser.add_argument("--vocab", type=int, default=32000)
parser.add_argument("--micro", type=int, default=4)
args = parser.parse_args()

torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
torch.distributed.init_process_group("nccl")
parallel_state.initialize_model_parallel(
    args.tp, args.pp, expert_model_parallel_size=args.ep, expert_tensor_parallel_size=1
)
model_parallel_cuda_manual_seed(123)
moe = {"num_moe_experts": args.experts, "moe_router_topk": 2, "moe_token_dispatcher_type": "alltoall",
       "moe_aux_loss_coeff": 1e-2} if args.experts else {}  # fmt: skip
config = TransformerConfig(
    num_layers=args.layers, hidden_size=args.hidden, num_attention_heads=args.heads,
    tensor_model_parallel_size=args.tp, pipeline_model_parallel_size=args.pp,
    expert_model_parallel_size=args.ep, expert_tensor_parallel_size=1, sequence_parallel=False,
    bf16=True, params_dtype=torch.bfloat16, pipeline_dtype=torch.bfloat16, add_bias_linear=False,
    gradient_accumulation_fusion=False, attention_dropout=0.0, hidden_dropout=0.0, **moe,
)  # fmt: skip
first, last = parallel_state.is_pipeline_first_stage(), parallel_state.is_pipeline_last_stage()
model = GPTModel(
    config, get_gpt_layer_local_spec(args.experts or None, normalization="LayerNorm"), args.vocab,
    args.sequence, pre_process=first, post_process=last, position_embedding_type="rope",
).cuda()  # fmt: skip
model = DistributedDataParallel(
    config,
    DistributedDataParallelConfig(use_distributed_optimizer=True, grad_reduce_in_fp32=True),
    model,
)
config.finalize_model_grads_func = finalize_model_grads
optimizer = get_megatron_optimizer(
    OptimizerConfig(optimizer="adam", lr=1e-4, bf16=True, params_dtype=torch.bfloat16,
                    use_distributed_optimizer=True, clip_grad=1.0), [model]
)  # fmt: skip


def loss_of(mask, output):
    loss = (output.float() * mask).sum() / mask.sum()
    return loss, {"loss": loss.detach()}


def forward(data, model):
    ids, places, mask = next(data)
    return model(ids, places, None, labels=ids), partial(loss_of, mask)


def batches():
    while True:
        ids = torch.randint(0, args.vocab, (1, args.sequence), device="cuda")
        places = torch.arange(args.sequence, device="cuda").unsqueeze(0)
        yield ids, places, torch.ones(1, args.sequence, device="cuda")


data, run = batches(), get_forward_backward_func()
for step in range(100):
    model.zero_grad_buffer()
    optimizer.zero_grad()
    losses = run(forward_step_func=forward, data_iterator=data, model=[model], num_microbatches=args.micro,
                 seq_length=args.sequence, micro_batch_size=1, forward_only=False)  # fmt: skip
    done, norm, _ = optimizer.step()
    torch.cuda.synchronize()
    print(
        f"step {step} done {done} losses {len(losses)} allocated {torch.cuda.memory_allocated() >> 20} MiB"
    )
