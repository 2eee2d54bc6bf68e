"""A Llama of Megatron-Core over Transformer Engine, as NeMo's recipes run it; no emulator in it."""

import argparse
import os
from functools import partial

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_with_transformer_engine_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel.schedules import get_forward_backward_func
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer.transformer_config import TransformerConfig

parser = argparse.ArgumentParser()
parser.add_argument("--tp", type=int, default=1)
parser.add_argument("--layers", type=int, default=32)
parser.add_argument("--hidden", type=int, default=4096)
parser.add_argument("--heads", type=int, default=32)
parser.add_argument("--kv-heads", type=int, default=8)
parser.add_argument("--inner", type=int, default=14336)
parser.add_argument("--vocab", type=int, default=128256)
parser.add_argument("--sequence", type=int, default=4096)
parser.add_argument("--micro-batch", type=int, default=1)
parser.add_argument("--micros", type=int, default=4, help="micro-batches of a step")
parser.add_argument("--fp8", default="", help="recipe: delayed, tensorwise, blockwise, mxfp8")
parser.add_argument(
    "--document", type=int, default=0, help="tokens of each of the packed documents"
)
args = parser.parse_args()

torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
torch.distributed.init_process_group("nccl")
parallel_state.initialize_model_parallel(args.tp)
model_parallel_cuda_manual_seed(123)
fp8 = {"fp8": "hybrid", "fp8_recipe": args.fp8} if args.fp8 else {}
config = TransformerConfig(
    num_layers=args.layers, hidden_size=args.hidden, num_attention_heads=args.heads,
    num_query_groups=args.kv_heads, ffn_hidden_size=args.inner, gated_linear_unit=True,
    activation_func=F.silu, use_te_activation_func=True, normalization="RMSNorm", add_bias_linear=False,
    tensor_model_parallel_size=args.tp, sequence_parallel=args.tp > 1, bf16=True,
    params_dtype=torch.bfloat16, pipeline_dtype=torch.bfloat16, attention_dropout=0.0, hidden_dropout=0.0,
    gradient_accumulation_fusion=True, apply_rope_fusion=True, cross_entropy_loss_fusion=True,
    cross_entropy_fusion_impl="te", bias_activation_fusion=False, **fp8,
)  # fmt: skip
layer = get_gpt_layer_with_transformer_engine_spec(use_te_activation_func=True)
model = GPTModel(
    config, layer, args.vocab, args.sequence,
    position_embedding_type="rope", share_embeddings_and_output_weights=False,
).cuda()  # fmt: skip
model = DistributedDataParallel(
    config,
    DistributedDataParallelConfig(
        use_distributed_optimizer=True, overlap_grad_reduce=True, overlap_param_gather=True,
        grad_reduce_in_fp32=False,
    ),
    model,
)  # fmt: skip
config.finalize_model_grads_func = finalize_model_grads
config.grad_sync_func, config.no_sync_func = model.start_grad_sync, model.no_sync
config.param_sync_func = model.start_param_sync
optimizer = get_megatron_optimizer(
    OptimizerConfig(optimizer="adam", lr=1e-4, bf16=True, params_dtype=torch.bfloat16,
                    use_distributed_optimizer=True, clip_grad=1.0), [model]
)  # fmt: skip


def loss_of(mask, output):
    loss = (output.float() * mask).sum() / mask.sum()
    return loss, {"loss": loss.detach()}


def forward(data, model):
    ids, places, mask = next(data)
    return model(ids, places, None, labels=ids, packed_seq_params=packed()), partial(loss_of, mask)


def packed():
    """Say where the documents of a sequence begin, if there are several."""
    if not args.document:
        return None
    ends = [*range(0, args.sequence, args.document), args.sequence]
    ends = torch.tensor(ends, dtype=torch.int32, device="cuda")
    return PackedSeqParams(
        "thd", ends, ends, max_seqlen_q=args.document, max_seqlen_kv=args.document
    )


def batches():
    shape = (args.micro_batch, args.sequence)
    while True:
        ids = torch.randint(0, args.vocab, shape, device="cuda")
        places = torch.arange(args.sequence, device="cuda").expand(shape)
        yield ids, places, torch.ones(shape, device="cuda")


data, run = batches(), get_forward_backward_func()
for step in range(100):
    model.zero_grad_buffer()
    optimizer.zero_grad()
    losses = run(forward_step_func=forward, data_iterator=data, model=[model], num_microbatches=args.micros,
                 seq_length=args.sequence, micro_batch_size=args.micro_batch, forward_only=False)  # fmt: skip
    done, norm, _ = optimizer.step()
    print(f"step {step} done {done} loss {losses[0]['loss'].item():.3f}")
