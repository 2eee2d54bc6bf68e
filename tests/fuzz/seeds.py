"""Small valid inputs of every kind, each with as many keys as go together; shipped files beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ersatz.device_models.shipped import DATA, SCENARIOS
from ersatz.device_models.text.yamltext import parse_yaml

RUN = """
question: What does it cost?
seed: 1
model: {name: m, layers: 8, hidden: 512, heads: 8, kv_heads: 2, head_dim: 64, ffn_hidden: 1024, vocab: 1000}
stack: megatron-core
cluster: {node: h800-8, nodes: 2}
training: {sequence_length: 512, global_batch: 64, micro_batch: 1, precision: bf16, tokens: 1 B tokens}
parallel: {tp: 2, pp: 2, cp: 1, dp: 4, zero: 1, recompute: selective, schedule: 1f1b, sequence_parallel: true}
fabric: {size: 4, placement: striped, routing: hashed, connections: 2, background: 0.1}
stragglers: {fraction: 10 %, slowdown: 5 %, ranks: {3: 20 %}}
job:
  failures: {scale: 2, software_rate: 10 /year, law: weibull, shape: 0.8, device_repair: 1 day}
  checkpoint: {interval: 1 h, mode: asynchronous, storage_bandwidth: 10 GB/s, bytes_per_param: 14}
  detection: 5 min
  restart: 10 min
  spare_nodes: 1
  on_loss: shrink
  evaluation: {every: 1 day, duration: 10 min}
  conditions:
    - {name: leaf down, rate: 20 /year, duration: 2 h, faults: [{part: leaf, at: [0], left: 50 %}]}
  replicas: 2
cost: {model: annuity, currency: CNY, server_price: 2.8 M CNY, energy_price: 0.6 CNY/kWh, interest: 8 %,
  life: 4 years, sold_fraction: 90 %, opex_share: 5 %, network_share: 15 %}
energy: {pue: 1.25, carbon_intensity: 0.5 kg/kWh, embodied_per_device: 150 kg, device_life: 5 years}
published: [{metric: step.duration_s, value: 0.2 s, source: "a report"}]
cases:
  base: {}
  other: {cluster: {node: h20-8}, parallel: {tp: 4, dp: 2}}
"""
EXPERTS = """
question: With experts and another schedule?
model: {name: moe, layers: 4, hidden: 256, heads: 4, head_dim: 64, vocab: 500, predict_layers: 1,
  experts: {routed: 16, top_k: 2, hidden: 128, shared: 1, dense_layers: 0},
  latent: {q_rank: 64, kv_rank: 64, rope_dim: 16, nope_dim: 32, v_dim: 32}}
stack: deepseek
cluster: {node: h800-8, nodes: 1}
training: {sequence_length: 256, global_batch: 32, document_tokens: 128, steps: 1000}
parallel: {pp: 2, ep: 4, dp: 4, schedule: dualpipe}
job: {replicas: 1}
cost: {rent: 20 CNY/h}
"""
POOLS = """
question: Two kinds of node?
model: {name: m, layers: 6, hidden: 256, heads: 4, vocab: 500}
cluster:
  pools:
    - {name: h20, node: h20-8, nodes: 1, stack: ling}
    - {name: 910b, node: ascend-910b2-8, nodes: 1, stack: ling-ascend, network: roce-200-ascend}
training: {sequence_length: 256, global_batch: 32, tokens: 10 M tokens}
parallel: {tp: 2, pp: 4, dp: 2, chunk_layers: [2, 2, 1, 1], stage_pools: [h20, h20, 910b, 910b]}
job: {replicas: 1}
cost: {rent: {h20: 6 CNY/h, 910b: 7 CNY/h}}
"""
ORDERS = """
question: An order of its own?
model: {name: m, layers: 2, hidden: 128, heads: 2, vocab: 100}
cluster: {node: cpu-1, nodes: 2, network: roce-100}
training: {sequence_length: 64, global_batch: 2, precision: fp32}
parallel: {pp: 2, schedule: {orders: [[[F, 0, 0], [F, 0, 1], [B, 0, 0], [B, 0, 1]],
  [[F, 0, 0], [B, 0, 0], [F, 0, 1], [B, 0, 1]]]}}
"""
FABRIC = """
question: What does a failed leaf take away?
cluster: {node: h800-8, nodes: 16, network: hpn7}
fabric: {size: 32, placement: scattered, routing: hashed, connections: 2, background: 0.1,
  faults: [{part: leaf, at: [0]}, {part: port, at: [0, 0, 0], left: 50 %}, {part: card, at: [1, 2]},
    {part: uplink, at: [0, 1]}, {part: spine, at: [0]}, {part: plane, at: [1]}]}
cases: {a: {}, b: {cluster: {network: oversubscribed-3to1}, fabric: {faults: []}}}
"""
BUY = """
question: What to buy?
seed: 1
currency: CNY
start: 2025-03-24
buyer: {kind: company, country: China}
rules: {set: [rules.US-2025-04-H20.binds=2025-04-23], foresight: false}
purchase: {months: 4, objective: cost, budget: 250 M CNY, replan: true, gap: 2 %, time_limit: 2 s}
devices:
  h20: {node: h20-8, lead_time: 3 weeks, transit: 3 weeks, supply: 50, price: {2025-03: 1.1 M CNY}, quota: 80}
  910b: {node: ascend-910b2-8, price: 1.5 M CNY, lead_time: 1 month, transit: 2 weeks, supply: 30,
    failure_rate: 9 %/year, repaired: 60 %, repair_time: 30 days, porting: {cost: 2 M CNY, delay: 1 month}}
  own: {device: h800, per_node: 8, price: 2 M CNY, rent: 20 CNY/h, rentable: 10, power: 900 W,
    lead_time: 1 week, transit: 1 week, failure_rate: 5 %/year}
sites:
  here: {power: 3 MW, nodes: 100, energy_price: 0.4 CNY/kWh, pue: 1.25}
  there: {country: US, energy_price: 0.08 USD/kWh}
jobs:
  train: {tokens: 1 B tokens, deadline: 3 months, flop_per_token: 6.0e+9,
    rates: {h20: {peak: 148 TFLOP/s, mfu: 30 %}, 910b: {peak: 370 TFLOP/s, mfu: 20 %, goodput: 90 %},
      own: {peak: 989 TFLOP/s, mfu: 35 %}}, mixes: [{devices: [h20, 910b], efficiency: 90 %}]}
events:
  - {kind: embargo, date: 2025-04-15, devices: [h20], grace: 1 week, months: 2, label: rule}
  - {kind: price, date: 2025-05-01, change: "10 %"}
  - {kind: repair, date: 2025-05-01, repaired: 0 %, failures: 2}
  - {kind: smuggling, premium: 30 %, seizure: 10 %, delay: 2 weeks, devices: [h20]}
monte_carlo: {draws: 3, outcome: cost, inputs: {failure_rate: [0.5, 1.0, 2.0], throughput: interval}}
cases: {richer: {purchase: {budget: 500 M CNY}}}
"""
PLANNED = """
question: Which plans?
start: 2025-03-24
rules: {ignore: true}
purchase: {months: 4, objective: cost, time_limit: 2 s}
devices: {h800: {node: h800-8, price: 2 M CNY, lead_time: 1 week, transit: 1 week, supply: 50}}
jobs: {train: {tokens: 1 B tokens, deadline: 3 months, plans: plans.yaml}}
"""
OPTIONS = """
question: Rent or own?
seed: 14
currency: USD
compare:
  work: {tokens: 1 T tokens, flop_per_token: 172.8e+9}
  options:
    a: {title: rented, peak: 989 TFLOP/s, mfu: 40 %, rent: 2.35 USD/h, life: 5 years, interest: 10 %}
    b: {title: owned, peak: 989 TFLOP/s, mfu: 40 %, server: 344000 USD, interest: 10 %, life: 5 years,
      opex_share: 2 %, sold: 85 %, watts: 1300 W, colo: 150 USD/month}
  ask:
    - {kind: cost}
    - {kind: break_even, input: b.sold, option: b, against: a, low: 10 %, high: 300 %}
    - {kind: fan, option: b, against: a, draws: 20, inputs: {a.rent: [1.70 USD/h, 2.35 USD/h, 2.85 USD/h]}}
    - {kind: tornado, option: b, against: a, inputs: {b.life: [3 years, 5 years, 6 years]}}
    - {kind: sweep, input: b.life, values: [3 years, 4 years], targets: {b: 5 M USD}}
    - {kind: map, input: b.life, values: [3 years, 4 years], rows: a.rent, row_values: [2 USD/h, 3 USD/h]}
    - {kind: mixed, fleet: {a: 100, b: 50}, jitter: 3 %, every: 4}
    - {kind: legal, date: 2025-03-24}
cases: {base: {}, other: {compare: {work: {tokens: 2 T tokens}}}}
"""
STOCKPILE = """
question: How many ahead?
currency: CNY
stockpile: {need: 20, months: 12, price: 1.1 M CNY, shortage: 440 k CNY, hazard: 30 %/year, interest: 8 %,
  value_loss: 20 %, storage: 2 %}
cases: {calm: {}, alarm: {stockpile: {hazard: 120 %/year}}}
"""
RAMP = """
question: How many?
ramp: {production: ascend-910c, until: 2026-06, level: mid, set: [ascend-910c.die_bank.mid=1e9,
  'ascend-910c.memory_made.series=[["2024-10", 0, 0, 0]]']}
cases: {mid: {}, low: {ramp: {level: low}}}
"""
LEGAL = """
question: Which devices change sides?
devices: [h20, h800, ascend-910b2, a10, l20]
dates: [2023-10-17, 2025-04-15]
to: China
buyer: company
origin: US
rules: {file: data.yaml, set: [rules.OWN.criterion.tpp=2400, rules.US-2025-04-H20.criterion.memory=4100]}
cases: {as-is: {}, other: {rules: {set: []}}}
"""
RULES = """
rules:
  - id: OWN
    title: an own rule
    issuer: US
    gates: [export]
    kind: rule
    announced: 2025-01-01
    binds: 2025-02-01
    destinations: [CN]
    criterion: {tpp: 4800, high: "TPP >= tpp or (TPP >= 1600 and PD >= 5.92)", some: "device in ['h20', 'l20']"}
    policy: {high: {is: denied, note: "why"}, some: {is: case_by_case, wait: 25 days, fee: 15 %}}
    source: "made up"
    confidence: low
"""
FLEET = """
question: Which scheduler?
seed: 7
pools:
  - {name: h800, node: h800-8, nodes: 3, nodes_per_leaf: 2}
  - {name: 910b, devices: 8, nodes: 2, nodes_per_leaf: 8}
tenants: {a: {share: 16}, b: {share: 8, limit: 24}}
jobs:
  drawn:
    - {name: big, count: 4, devices: {8: 1, 16: 2}, every: 1 h, median: 2 h, sigma: 0.5, tenants: {a: 1, b: 2},
      limit: [1.2, 2], checkpoint: 30 min, restart: 5 min, max_leaves: 2, priority: 1, deadline: 4}
    - {name: small, count: 8, devices: 2, every: 20 min, median: 40 min, types: [h800], min_devices: 1,
      max_devices: 4, max_nodes: 1, rates: {h800: 1, 910b: 0.5}}
  load: 0.7
failures: {scale: 2, device_rate: 9 %/year, node_rate: 12 %/year, leaf_rate: 1 /year, slow_rate: 50 %/year,
  slow_factor: 80 %, repair: 2 h}
maintenance: [{start: 2 h, duration: 1 h, nodes: [h800-0], drain: 30 min}]
rules: {grace: 60 s, max_failures: 5, enforce_limits: true}
policies: [fifo, "easy:leaf", fair]
until: 30 days
draws: 2
cross_leaf: 2
on_impossible: drop
"""
STEPS = """
question: At the speed of the step?
pools: [{name: h800, node: h800-8, nodes: 2, nodes_per_leaf: 1}]
jobs:
  drawn:
    - name: train
      count: 3
      devices: 8
      every: 1 h
      median: 2 h
      step: {model: llama2-7b, training: {sequence_length: 512, global_batch: 32},
        parallel: {tp: 4, zero: 1, recompute: full}}
policies: [fifo, priority]
"""
TRACED = """
question: A trace?
pools: [{name: h800, devices: 8, nodes: 2, nodes_per_leaf: 1}, {name: V100M16, devices: 8, nodes: 2}, {name: V100M32, devices: 8, nodes: 2}]
jobs: {trace: itself.csv, first: 20, trace_limit: [1.1, 2]}
policies: [fifo, easy]
until: 3000 days
on_impossible: drop
"""
CALIBRATED = """
question: From measured kernels?
model: {name: small, layers: 2, hidden: 128, heads: 2, kv_heads: 2, head_dim: 64, ffn_hidden: 256, vocab: 500}
cluster: {node: cpu-1, nodes: 1}
stack: torch-eager
training: {sequence_length: 128, global_batch: 2, micro_batch: 1, precision: fp32}
"""
NAMED = """
question: Files of its own?
model: {name: m, layers: 4, hidden: 256, heads: 4, vocab: 500}
cluster: {node: h800-8, nodes: 2}
training: {sequence_length: 256, global_batch: 32}
parallel: {tp: 2, dp: 8}
"""
BESIDE = """
question: Whose trace?
model: {name: m, layers: 4, hidden: 512, heads: 8, vocab: 1000}
cluster: {node: h800-8, nodes: 1}
training: {sequence_length: 512, global_batch: 32}
parallel: {tp: 2, pp: 2, dp: 2}
"""
HUGGING_FACE = (
    {"model_type": "llama", "hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2,
     "intermediate_size": 512, "vocab_size": 1000, "num_key_value_heads": 2, "head_dim": 64,
     "tie_word_embeddings": False, "hidden_act": "silu"},
    {"model_type": "deepseek_v3", "hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 3,
     "intermediate_size": 512, "vocab_size": 1000, "n_routed_experts": 16, "num_experts_per_tok": 2,
     "moe_intermediate_size": 128, "n_shared_experts": 1, "first_k_dense_replace": 1, "topk_group": 2,
     "n_group": 4, "kv_lora_rank": 64, "q_lora_rank": 64, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32,
     "v_head_dim": 32, "num_nextn_predict_layers": 1},
    {"model_type": "qwen2_moe", "hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2,
     "vocab_size": 1000, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
     "shared_expert_intermediate_size": 256, "intermediate_size": 512},
    {"model_type": "gpt2", "n_embd": 256, "n_head": 4, "n_layer": 2, "n_inner": None, "vocab_size": 1000,
     "activation_function": "gelu_new"},
    {"model_type": "nemotron_h", "hidden_size": 256, "hybrid_override_pattern": "ME*-", "num_hidden_layers": 4,
     "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000,
     "intermediate_size": 512, "mamba_num_heads": 8, "mamba_head_dim": 64, "ssm_state_size": 16, "n_groups": 2,
     "n_routed_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 128, "moe_latent_size": 64,
     "moe_shared_expert_intermediate_size": 256},
    {"model_type": "qwen3_5_moe", "vision_config": {"depth": 2, "hidden_size": 64}, "text_config": {
        "model_type": "qwen3_5_moe_text", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000, "linear_num_value_heads": 8,
        "linear_num_key_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
        "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
        "num_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 128}},
    {"model_type": "deepseek_v4", "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 8,
     "head_dim": 64, "q_lora_rank": 64, "o_lora_rank": 32, "o_groups": 2, "index_n_heads": 4,
     "index_head_dim": 32, "index_topk": 64, "sliding_window": 32, "compress_ratios": [0, 4, 128, 4],
     "n_routed_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 128, "hc_mult": 2,
     "vocab_size": 1000},
    {"model_type": "nemotron-nas", "hidden_size": 256, "num_attention_heads": 4, "vocab_size": 1000,
     "block_configs": [{"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 2.5}},
                       {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}}]},
    {"model_type": "kimi_linear", "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
     "vocab_size": 1000, "intermediate_size": 512, "kv_lora_rank": 64, "qk_rope_head_dim": 16,
     "qk_nope_head_dim": 32, "v_head_dim": 32, "num_experts": 8, "num_experts_per_token": 2,
     "moe_intermediate_size": 64, "first_k_dense_replace": 1,
     "linear_attn_config": {"kda_layers": [1, 2], "full_attn_layers": [3], "num_heads": 4, "head_dim": 64}},
)  # fmt: skip
# One trace of each reader: name of the file, text, and files beside it.
TRACES: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "csv": ("itself.csv", "id,submit_s,devices,duration_s,tenant,types,priority,walltime_s,mixed,min_devices,"
            "max_devices,checkpoint_s,after,milli\na,0,8,100,t1,h800,-2,200,yes,4,16,10,,1000\n"
            "b,5,1,50,,,,,no,,,,a,500\nc,9,16,700,t1,,1,900,,,,,a|b,\n", {}),
    "philly": ("itself.csv", "timestamp,duration,num_gpus,gpu_time,cluster\n2017-10-09 07:01:55,66.0,1,66.0,11\n"
               "2017-10-09 07:01:25,30.5,16,488.0,62\n2017-10-09 07:02:00,30.5,0,0.0,62\n", {}),
    "philly-log": ("cluster_job_log", json.dumps([
        {"status": "Pass", "vc": "e", "jobid": "a", "user": "c", "submitted_time": "2017-10-07 01:11:39",
         "attempts": [{"start_time": "2017-10-07 01:12:00", "end_time": "2017-10-07 01:13:00",
                       "detail": [{"ip": "m1", "gpus": ["g0", "g1"]}, {"ip": "m2", "gpus": ["g0"]}]},
                      {"start_time": "2017-10-07 01:15:00", "end_time": "None", "detail": []}]}]), {}),
    "pai": ("folder", "", {
        "folder/pai_job_table.csv": "j1,i,u1,Terminated,100.0,170.0\nj2,i,u2,Failed,90.0,99\n",
        "folder/pai_task_table.csv": "j1,ps,1.0,Terminated,104,165,600.0,29.3,,\n"
        "j1,worker,2.0,Terminated,105,165,600,29.3,50,T4\nj2,tf,1.0,Failed,90,99,400.0,8.0,25.0,MISC\n"}),
    "openb": ("itself.csv", "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,"
              "deletion_time,scheduled_time\npod-0,12000,16384,1,460,,LS,Running,10,100,30\n"
              "pod-1,6000,12288,8,1000,V100M16|V100M32,BE,Pending,40,90,\n", {}),
    "dlrm": ("itself.csv", "instance_sn,role,app_name,cpu_request,gpu_request,memory_request,creation_time,"
             "scheduled_time,deletion_time\ni1,HN,app1,12,1,80.5,10,30,900.5\ni2,CN,app1,8,0,16,,,\n"
             "i3,HN,app2,12,1,80,,20,\n", {}),
    "helios": ("itself.csv", "job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,"
               "duration,queue\n11,uX,vcA,1,1,1,COMPLETED,2020-06-09 18:41:01,,,3684,0\n"
               "12,uV,vcB,4,16,1,FAILED,2020-06-09 18:41:27,,,249,0\n", {}),
    "acme": ("itself.csv", "job_id,user,node_num,gpu_num,cpu_num,type,state,submit_time,start_time,end_time,"
             "duration,queue,gpu_time\n7,u5,1,8,128,Other,FAILED,2023-03-01 00:18:22+08:00,,,117,32,936.0\n"
             "8,u5,2,16,128,Pretrain,COMPLETED,2023-02-28 16:23:58+00:00,,,2693,13,21544.0\n", {}),
    "sia": ("itself.csv", "name,time,application,num_replicas,batch_size\ncifar10-0,107,cifar10,2,2048\n"
            "bert-1,110,bert,4,320\n", {}),
    "gavel": ("itself.trace", "LM (batch size 5)\tpython3 x\t-n\t1\t600\t5.5\t2\n"
              "LM (batch size 5)\tx\t-n\t1\t600\t9\t1\n",
              {"simulation_throughputs.json": json.dumps({
                  "v100": {"('LM (batch size 5)', 2)": {"null": 3.0}, "('LM (batch size 5)', 1)": {"null": 2}},
                  "k80": {"('LM (batch size 5)', 2)": {"null": 1.5}}})}),
    "tiresias": ("itself.csv", "job_id,num_gpu,submit_time,iterations,model_name,duration,interval\n"
                 "0,1,0,606,vgg19,164,30\n1,8,30,133,vgg11,147,23\n", {}),
    "swf": ("itself.swf", "; Version: 2.2\n; UnixStartTime: 0\n\n"
            "  1   5 10  100  -1 -1 -1  16  300 -1 1 3 1 -1 -1 1 -1 -1\n"
            "  2   7 10   50   4 -1 -1  16   -1 -1 1 -1 1 -1 -1 1 -1 -1\n", {}),
    "batsim": ("itself.json", json.dumps({
        "nb_res": 4, "jobs": [{"id": 1, "subtime": 2.5, "walltime": 20, "res": 2, "profile": "d"},
                              {"id": "two", "subtime": 4.5, "res": 1, "profile": "d"}],
        "profiles": {"d": {"type": "delay", "delay": 10.5}}}), {}),
}  # fmt: skip
SLURM = (
    "JobId=1 UserId=me(0) GroupId=me(0) Name=a JobState=COMPLETED Partition=p0 TimeLimit=2 "
    "StartTime=2025-01-01T00:00:10 EndTime=2025-01-01T00:01:50 NodeList=n0 NodeCnt=1 ProcCnt=8 "
    "SubmitTime=2025-01-01T00:00:00 EligibleTime=2025-01-01T00:00:00 Tres=cpu=8 \n"
    "JobId=2 JobState=NODE_FAIL StartTime=2025-01-01T00:00:20 EndTime=2025-01-01T00:02:00 NodeList=n[0-1] "
    "SubmitTime=2025-01-01T00:00:05 \n"
    "JobId=2 JobState=CANCELLED+ StartTime=Unknown EndTime=2025-01-01T00:03:00 "
    "SubmitTime=2025-01-01T00:00:05 \n"
)
TAKEN = "JobId=1\n     Nodes=n[0-1] CPU_IDs=0-7 Mem=0 GRES=gpu:h800:8(IDX:0-3,7)\n"
PRICES = (
    "item,device,region,date,low,mid,high,unit,basis,devices,kind,source,confidence,note\n"
    'purchase,h800,CN,2023-03-21,2000000,2100000,2200000,CNY,server,8,channel,"Reuters, 2023",high,at launch\n'
    "rent,ascend-910b*,CN,2025-03-01,7,7,7,CNY/h,,1,fair cost,Ling,high,\n"
    "power,*,CN-west,2025-06-15,0.4,0.5,0.6,CNY/kWh,,,tariff,a page,medium,\n"
)
CRITERIA = (
    "TPP >= 4800 or (TPP >= 1600 and PD >= 5.92)", "device in ['h20', 'l20'] and not memory_gb_s < 4100",
    "1600 <= TPP < 4800 or memory_gb_s + 2 * io_gb_s > 1.5e3 / 4", "data_centre and designer != 'CN'", "-TPP < 3 - -2",
)  # fmt: skip


@cache
def tree(text: str) -> Any:
    """Return a seed as plain data; it must not be changed."""
    return parse_yaml(text, "seed").data


@cache
def shipped(*rooms: str) -> tuple[Any, ...]:
    """Return the shipped files of rooms, of the data or of the scenarios, as plain data."""
    folders = [(DATA if (DATA / room).is_dir() else SCENARIOS) / room for room in rooms]
    paths = [path for folder in folders for path in sorted(folder.glob("*.yaml"))]
    return tuple(tree(path.read_text("utf-8")) for path in paths)


@cache
def rows(name: str, count: int, words: str = "") -> tuple[str, tuple[str, ...]]:
    """Return the header and some rows, evenly spread, of a measured table; those with `words` alone."""
    head, *lines = (DATA / "measured" / name).read_text("utf-8-sig").splitlines()
    lines = [line for line in lines if words in line]
    step = max(len(lines) // count, 1)
    return head, tuple(lines[::step][:count])


@cache
def calibration() -> Any:
    """Return the shipped calibration with a tenth of its points."""
    data = dict(tree((DATA / "calibrations" / "cpu-epyc.yaml").read_text("utf-8")))
    head, *points = str(data["points"]).splitlines()
    return data | {"points": "\n".join([head, *points[::10], ""])}


def path_of(room: str, name: str) -> Path:
    """Return the path of a shipped data file."""
    return DATA / room / f"{name}.yaml"
