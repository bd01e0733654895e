"""Static analysis of the contracts: what an auditor would ask about.

Each check finds places in the compiler's syntax tree, where types and calls are resolved, or in its assembly.
A finding quotes its source, so that a line that changes asks for its answer in analysis.toml again.
"""

from __future__ import annotations

import re
import tomllib
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from vyper import ast
from vyper.semantics.types.bytestrings import _BytestringT as Bytestring
from vyper.semantics.types.function import ContractFunctionT
from vyper.warnings import VyperWarning

from tests.contracts.sources import compiled

ANSWERS: dict[str, list[dict[str, Any]]] = tomllib.loads(
    Path(__file__).with_name("analysis.toml").read_text(encoding="utf-8")
)

OPCODES = set(
    "ORIGIN SELFDESTRUCT CALLCODE DELEGATECALL BALANCE SELFBALANCE NUMBER BLOCKHASH BLOBHASH PREVRANDAO "
    "DIFFICULTY COINBASE GASPRICE BASEFEE BLOBBASEFEE".split()
)
"""With which contracts were robbed, or which block builders choose."""

Node = Any
"""Of the compiler's tree, which has no types."""


class Contract:
    """As the compiler understands it: all files that it is made of."""

    def __init__(self, path: Path) -> None:
        self.name, self.data = path.stem, compiled(path)
        self.warnings: list[str] = []

    @cached_property
    def module(self) -> Node:
        return self._recorded(lambda: self.data.annotated_vyper_module)

    @cached_property
    def assembly(self) -> set[str]:
        """Of what stays on the chain. With it, everything is compiled."""
        assert self.module and self._recorded(lambda: self.data.bytecode)
        return {str(item) for item in self._recorded(lambda: self.data.assembly_runtime)}

    def _recorded(self, compiling: Callable[[], Any]) -> Any:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = compiling()
        messages = [warning.message for warning in caught if isinstance(warning.message, VyperWarning)]
        self.warnings += [f"{self.name}: {str(message).strip().splitlines()[0]}" for message in messages]
        return made

    @cached_property
    def modules(self) -> list[Node]:
        found, waiting = {}, [self.module]
        while waiting:
            module = waiting.pop()
            found[module.resolved_path] = module
            waiting += [info.module_node for info in module._metadata["type"].imported_modules.values()]
        return list(found.values())

    @cached_property
    def exposed(self) -> list[Node]:
        """What can be called from outside, but for getters."""
        functions = [kind.ast_def for kind in self.module._metadata["type"].exposed_functions]
        return [function for function in functions if isinstance(function, ast.FunctionDef)]


class Program:
    """Some contracts together."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.contracts = [Contract(folder / f"{name}.vy") for name in names]

    @cached_property
    def variables(self) -> list[Node]:
        """State and immutables."""
        modules = [module for contract in self.contracts for module in contract.modules]
        every = [variable for module in modules for variable in module.get_children(ast.VariableDecl)]
        return [variable for variable in every if not variable.is_constant]

    @cached_property
    def functions(self) -> list[Node]:
        modules = [module for contract in self.contracts for module in contract.modules]
        return [function for module in modules for function in module.get_children(ast.FunctionDef)]

    @cached_property
    def doors(self) -> list[Node]:
        """What anybody can call that may change something."""
        return [door for contract in self.contracts for door in contract.exposed if _kind(door).is_mutable]


# ---- The tree ----------------------------------------------------------------------------------------------


def _nodes(functions: list[Node], kind: Any = ast.VyperNode) -> Iterator[Node]:
    for function in functions:
        yield from function.get_descendants(kind)


def _kind(function: Node) -> ContractFunctionT:
    return function._metadata["func_type"]


def _file(node: Node) -> str:
    return Path(node.module_node.resolved_path).stem


def _where(node: Node) -> str:
    function = node if isinstance(node, ast.FunctionDef) else node.get_ancestor(ast.FunctionDef)
    return f"{_file(node)}.{function.name}"


def _quoted(node: Node) -> str:
    """The node's function and source, in one line without comments."""
    text = " ".join(re.sub(r"(^|\s)#.*", "", node.node_source_code).split())
    return f"{_where(node)}: {re.sub(r'(?<=[([]) | (?=[)])', '', text).replace(',)', ')')}"


def _brief(call: Node) -> str:
    return _quoted(call)[:80]


def _name(variable: Node) -> str:
    return f"{_file(variable)}.{variable.target.id}"


def _builtin(node: Node) -> str:
    """Which of the language's own functions the node calls; empty: none."""
    return getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""


def _callee(node: Node) -> Node:
    """The function that the node calls inside its contract, if it does."""
    kind = getattr(getattr(getattr(node, "func", None), "_expr_info", None), "typ", None)
    return kind.ast_def if isinstance(kind, ContractFunctionT) and kind.is_internal else None


def _within(function: Node) -> list[Node]:
    """A function and all that it reaches inside its contract."""
    return [function, *(kind.ast_def for kind in _kind(function).reachable_internal_functions)]


def _asks(node: Node) -> bool:
    """Whether another contract's code runs, and cannot change anything."""
    static = isinstance(node, ast.Call) and any(
        keyword.arg == "is_static_call" and keyword.value.reduced().value for keyword in node.keywords
    )
    return static or isinstance(node, ast.StaticCall)


def _calls_out(node: Node) -> bool:
    """Whether another contract's code runs, and may change something."""
    leaving = re.fullmatch(r"raw_call|raw_create|send|create_\w+", _builtin(node)) and not _asks(node)
    return isinstance(node, ast.ExtCall) or bool(leaving)


def _written(node: Node) -> set[str]:
    """State that the node itself writes, or changes in place."""
    accesses = getattr(getattr(node, "_expr_info", None), "_writes", ())
    return {_name(a.variable.decl_node) for a in accesses if a.variable.is_state_variable()}


def _is_target(node: Node) -> bool:
    """Whether a name stands where something is assigned."""
    parent = node.parent
    while isinstance(parent, ast.Tuple | ast.Attribute | ast.Subscript):
        if getattr(parent, "value", node) is not node:
            return False
        node, parent = parent, parent.parent
    return getattr(parent, "target", None) is node


# ---- What is looked for ------------------------------------------------------------------------------------


def _warnings(program: Program) -> Iterator[str]:
    for contract in program.contracts:
        assert contract.assembly
        yield from contract.warnings


def _opcodes(program: Program) -> Iterator[str]:
    for contract in program.contracts:
        yield from (f"{contract.name}: {opcode}" for opcode in contract.assembly & OPCODES)


def _unsafe(program: Program) -> Iterator[str]:
    """Arithmetic that may run over: whole expressions."""
    for call in _nodes(program.functions, ast.Call):
        outer = call.get_ancestor(ast.Call)
        while outer and not _builtin(outer).startswith("unsafe_"):
            outer = outer.get_ancestor(ast.Call)
        if _builtin(call).startswith("unsafe_") and not outer:
            yield _quoted(call)


def _calls(program: Program) -> Iterator[str]:
    """Whose code runs? An answer with `ours` says: ours, and it calls nobody who could call back."""
    yield from (_brief(node) for node in _nodes(program.functions) if _calls_out(node))


def _late(program: Program) -> Iterator[str]:
    """What a door writes after others' code ran, which may have called back: reentrancy."""
    ours = {found for answer in ANSWERS["calls"] if answer.get("ours") for found in answer["found"]}
    for door in program.doors:
        late: set[str] = set()
        if not _kind(door).nonreentrant:
            _walk(door.body, frozenset(), ours, late)
        yield from (f"{_where(door)} writes {what}" for what in late)


def _walk(nodes: list[Node], before: frozenset[str], ours: set[str], late: set[str]) -> frozenset[str]:
    """Go through nodes in the order in which they run; `late` gathers what is written after others' code ran.

    Answers the calls with which that may have happened: those `before`, and those of the nodes.
    """
    for node in nodes:
        parts, callee = node.get_children(), _callee(node)
        if isinstance(node, ast.If):
            before = _walk([node.test], before, ours, late)
            before = _walk(node.body, before, ours, late) | _walk(node.orelse, before, ours, late)
            continue
        if callee is not None:
            before = _walk([part for part in parts if part is not node.func], before, ours, late)
            before = _walk(callee.body, before, ours, late)
            continue
        parts.sort(key=lambda part: part is getattr(node, "target", None))  # which is assigned to last
        for _ in range(2 if isinstance(node, ast.For) else 1):
            before = _walk(parts, before, ours, late)
        if _calls_out(node) and _brief(node) not in ours:
            before |= {_brief(node)}
        late |= {f"{variable} after {call}" for variable in _written(node) for call in before}
    return before


def _ignored(program: Program) -> Iterator[str]:
    """Answers that nobody looks at, and variables that nobody reads."""
    for statement in _nodes(program.functions, ast.Expr):
        if isinstance(statement.value, ast.ExtCall) and statement.value.value.func._expr_info.typ.return_type:
            yield _brief(statement)
    for made in _nodes(program.functions, ast.AnnAssign):
        names = made.get_ancestor(ast.FunctionDef).get_descendants(ast.Name, {"id": made.target.id})
        if not isinstance(made.parent, ast.For) and all(_is_target(name) for name in names):
            yield f"{_where(made)}: {made.target.id} is never read"


def _recoveries(program: Program) -> Iterator[str]:
    """`ecrecover` answers zero for what is no signature, and takes two for one."""
    yield from (_quoted(call) for call in _nodes(program.functions) if _builtin(call) == "ecrecover")


def _ether(program: Program) -> Iterator[str]:
    yield from (f"{_where(door)} takes ether" for door in program.doors if _kind(door).is_payable)
    for keyword in _nodes(program.functions, ast.keyword):
        if keyword.arg == "value" and (_calls_out(keyword.parent) or _calls_out(keyword.parent.parent)):
            yield f"{_where(keyword)} sends ether"


def _open(program: Program) -> Iterator[str]:
    """Doors that do not look who is there."""
    for door in program.doors:
        if not any(node.node_source_code == "msg.sender" for node in _nodes(_within(door), ast.Attribute)):
            yield _where(door)


def _loops(program: Program) -> Iterator[str]:
    """Calls one after the other: one that fails, or takes all gas, fails them all."""
    for loop in _nodes(program.functions, ast.For):
        inside = [function for node in _nodes([loop]) if _callee(node) for function in _within(_callee(node))]
        for node in _nodes([loop, *inside]):
            if _calls_out(node) or _asks(node):
                yield f"{_where(loop)} repeats {_brief(node)}"


def _packed(program: Program) -> Iterator[str]:
    """Hashes of several texts without their lengths: others may have the same."""
    for call in _nodes(program.functions, ast.Call):
        kinds = [part._metadata["type"] for part in call.args if not part.has_folded_value]
        several = sum(isinstance(kind, Bytestring) for kind in kinds) > 1
        if several and _builtin(call) == "concat" and _builtin(call.parent) == "keccak256":
            yield _quoted(call)


def _uncommented(program: Program) -> Iterator[str]:
    for variable in program.variables:
        lines, above = variable.module_node.full_source_code.splitlines(), variable.lineno - 2
        while variable.is_immutable and "immutable(" in lines[above]:
            above -= 1  # several may share one
        if not lines[above].startswith("#"):
            yield _name(variable)


def _dead(program: Program) -> Iterator[str]:
    """What no contract uses."""
    called: set[str] = set()
    for contract in program.contracts:
        made = contract.module._metadata["type"].init_function
        for function in [*contract.exposed, *([made.ast_def] if made else [])]:
            called |= {_where(reached) for reached in _within(function)}
    yield from (f"{name} is never called" for name in set(map(_where, program.functions)) - called)
    read, written = set(), set()
    for node in _nodes(program.functions):
        written |= _written(node)
        variable = getattr(getattr(node, "_expr_info", None), "var_info", None)
        if variable is not None and variable.is_state_variable() and not _is_target(node):
            read.add(_name(variable.decl_node))
    yield from (f"{_name(it)} is never written" for it in program.variables if _name(it) not in written)
    yield from (
        f"{_name(it)} is never read" for it in program.variables if not it.is_public and _name(it) not in read
    )


CHECKS: dict[str, Callable[[Program], Iterator[str]]] = {
    "warnings": _warnings,
    "opcodes": _opcodes,
    "unsafe": _unsafe,
    "calls": _calls,
    "late": _late,
    "ignored": _ignored,
    "recoveries": _recoveries,
    "ether": _ether,
    "open": _open,
    "loops": _loops,
    "packed": _packed,
    "uncommented": _uncommented,
    "dead": _dead,
}
