"""Which operation a kernel is: the classes that measurements, fits and errors are kept by.

The sizes m, n, k and `groups` of a kernel mean:

| operation | m, n, k | groups |
|---|---|---|
| product, dgrad, wgrad | (m, k) x (k, n) | 1 |
| grouped product | sizes of one group | groups |
| attention | tokens, value width, head size | key heads |
| rope | tokens, width of queries and keys, head size | key heads |
| norm, residual, copy | rows, columns | |
| permute, unpermute | token copies, hidden, copies of a token | |
| activation | rows, inner columns, 2 where gated | |
| embedding | tokens, hidden, rows of the table | |
| loss | tokens, vocabulary | |
| optimizer | weights | |
| gradient sum | rows and columns of the weights | |
| gradient zeros | weights | |
"""

from __future__ import annotations

from ersatz.device_models.kernels.kernel import Kernel

COMPUTE = ("product", "grouped", "attention")
BACKWARDS = ("back", "dgrad", "wgrad")  # words of operations
PARTS = FORWARD, BACKWARD, UPDATE = "forward", "backward", "update"  # of a step


def operation_of(kernel: Kernel) -> str:
    """Return the operation of a kernel of the workload."""
    if kernel.kind == "matmul":
        kind = "grouped" if kernel.groups > 1 else "product"
        suffix = kernel.name.rsplit(" ", 1)[-1]
        return f"{kind} {suffix}" if suffix in ("dgrad", "wgrad") else kind
    if kernel.kind == "attention":
        return "attention back" if kernel.backward else "attention"
    if kernel.name in ("activation", "activation back"):
        return f"{kernel.name} {'gated' if kernel.k > 1 else 'plain'}"
    return kernel.name


def part_of_step(kernel: Kernel) -> str:
    """Return when in a step a kernel runs: in its forward or backward pass, or in its update."""
    operation = operation_of(kernel)
    if operation in ("optimizer", "gradient zeros"):
        return UPDATE
    backward = any(word in BACKWARDS for word in operation.split())
    return BACKWARD if backward else FORWARD


def is_product(operation: str) -> bool:
    """Tell whether an operation is a matrix product, grouped or not."""
    return operation.startswith(("product", "grouped"))
