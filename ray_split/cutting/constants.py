"""What is the same at every call of a traced forward, wherever it is computed: masks, tables of positions, devices.

A segment computes for itself what follows from buffers that nobody writes to, so that none of it crosses.
"""

from __future__ import annotations

from torch import fx, nn

from ray_split.cutting.segment_module import arguments_of, is_device

OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
WRITING = {"setitem", "__setitem__", "check_test", *(f"__i{o}__" for o in OPERATORS), *(f"i{o}" for o in OPERATORS)}
DRAWING = ("rand", "bernoulli", "normal", "multinomial", "poisson", "dropout", "rrelu", "gumbel", "exponential")


def constants(graph: fx.Graph, model: nn.Module) -> set[fx.Node]:
    """The nodes of a graph that are constants; among them all that only fetch a parameter or a buffer."""
    written: set[str] = set()
    while True:
        roots = _roots(graph, model, written)
        now = {
            name for node in graph.nodes if writes(node) for arg in arguments_of(node) for name in roots.get(arg, ())
        }
        if now <= written:
            fetched = {node for node in graph.nodes if node.op == "get_attr"}
            return fetched | set(roots)
        written |= now


def _roots(graph: fx.Graph, model: nn.Module, written: set[str]) -> dict[fx.Node, set[str]]:
    """Each constant, with the names of the buffers that it follows from."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    found: dict[fx.Node, set[str]] = {}
    for node in graph.nodes:
        arguments = arguments_of(node)
        if is_device(node):
            found[node] = set()
        elif node.op == "get_attr" and node.target not in parameters | written:
            found[node] = {str(node.target)}
        elif arguments and all(arg in found for arg in arguments) and _is_pure(node):
            found[node] = {name for arg in arguments for name in found[arg]}
    return found


def _is_pure(node: fx.Node) -> bool:
    calls = node.op in ("call_function", "call_method")
    return calls and not writes(node) and not any(word in _name(node) for word in DRAWING)


def writes(node: fx.Node) -> bool:
    """Whether a call may write to one of its arguments: torch's names for those that do end in an underscore."""
    name = _name(node)
    return name in WRITING or (name.endswith("_") and not name.endswith("__")) or "out" in node.kwargs


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "_")
