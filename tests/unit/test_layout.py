"""The shape of the package: dependencies point one way, folders and modules stay small, a name is one thing."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import holdfast

ROOT = Path(holdfast.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
LARGEST = 400
MOST_FILES = 15
MOST_PARAMETERS = 8

BELOW = {
    "errors": set(),
    "clock": set(),
    "core": {"errors"},
    "binlog": {"core", "errors"},
    "tls": {"core", "errors"},
    "server": {"clock", "core", "errors", "tls"},
    "config": {"core", "errors", "server", "tls"},
    "log": {"config"},
    "http": {"clock", "core", "errors", "log", "tls"},
    "reloading": {"config", "errors", "log", "tls"},
    "store": {"clock", "core", "errors"},
    "endpoint": {"clock", "core", "errors", "config", "log", "http", "tls"},
    "agent": {"clock", "core", "errors", "server", "binlog", "config", "log", "http", "tls"}
    | {"endpoint", "reloading"},
    "manager": {"clock", "core", "errors", "store", "config", "log", "http", "tls"}
    | {"endpoint", "reloading"},
    "sandbox": {"clock", "core", "errors", "server", "config", "log", "http", "agent", "manager"}
    | {"tls", "endpoint"},
    "cli": {"clock", "core", "errors", "config", "log", "http", "agent", "manager", "sandbox"}
    | {"tls", "endpoint", "reloading"},
}
"""For each part, which others it may import."""


def named(module: Path) -> str:
    """Its name in imports."""
    parts = module.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {named(module): module for module in MODULES}


def part(module: Path) -> str:
    return module.relative_to(ROOT).parts[0].removesuffix(".py")


def room(name: str) -> str:
    """The folder of a module; a module beside folders is a room of its own."""
    folder = NAMES[name].parent
    if NAMES[name].name != "__init__.py" and any(each.is_dir() for each in rooms_in(folder)):
        return name
    return named(folder / "__init__.py")


def rooms_in(folder: Path) -> Iterator[Path]:
    return (each.parent for each in folder.glob("*/__init__.py"))


def imported(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module(module: Path) -> None:
    lines = len(module.read_text().splitlines())
    assert lines <= LARGEST, f"{lines} lines: split it"
    assert module.stem not in {"utils", "helpers", "common", "misc"}
    own = part(module)
    if own == "__init__":
        return
    ours = {n.split(".")[1] for n in imported(module) if n.startswith("holdfast.")} - {own}
    assert ours <= BELOW[own], f"{own} must not import {sorted(ours - BELOW[own])}"
    if own == "core":
        others = {n.split(".")[0] for n in imported(module)} - {"holdfast", "__future__"}
        assert others <= set(sys.stdlib_module_names), "core is standard library only"
        assert not others & {"logging", "random", "time", "socket", "os", "datetime"}, (
            "core is pure"
        )


def test_no_folder_needs_another_one_in_a_circle() -> None:
    needs: dict[str, set[str]] = defaultdict(set)
    for name, module in NAMES.items():
        used = imported(module) & set(NAMES)
        # ``from package import module`` means the module
        used -= {each for each in used if any(other.startswith(f"{each}.") for other in used)}
        needs[room(name)] |= {room(each) for each in used} - {room(name)}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' needs '.join(error.args[1][::-1])}")


@pytest.mark.parametrize("folder", sorted({module.parent for module in MODULES}), ids=str)
def test_a_folder_can_be_looked_over(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES


def test_public_classes_have_names_of_their_own() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for name, module in NAMES.items():
        for node in ast.parse(module.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(name)
    assert {name: there for name, there in found.items() if len(there) > 1} == {}


def test_no_function_takes_too_many_parameters() -> None:
    """A command's options are its parameters: Typer needs that."""
    found = {}
    commands = set(
        re.findall(r"\.command\([^)]*\)\(\w+\.(\w+)\)", (ROOT / "cli" / "main.py").read_text())
    )
    assert commands
    for name, module in NAMES.items():
        for node in ast.walk(ast.parse(module.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if part(module) == "cli" and (
                node.name in commands
                or any(".command" in ast.unparse(each) for each in node.decorator_list)
            ):
                continue
            taken = node.args
            names = [each.arg for each in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
            count = len([each for each in names if each not in ("self", "cls")])
            count += bool(taken.vararg) + bool(taken.kwarg)
            if count > MOST_PARAMETERS:
                found[f"{name}:{node.lineno} {node.name}"] = count
    assert found == {}


def test_what_the_type_checker_passes_over_has_a_reason_beside_it() -> None:
    repository = ROOT.parent
    found = [
        f"{path.relative_to(repository)}:{number}"
        for folder in ("holdfast", "tests", "bench", "scripts")
        for path in (repository / folder).rglob("*")
        if path.suffix == ".py" or path.name in ("get-servers", "mutants")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"# type: ignore\[[^]]+\](?!  # \w)", line)
    ]
    assert found == []


# -- one clock ------------------------------------------------------------------------------------

CLOCKED = ("agent", "endpoint", "http", "manager", "server", "store")
"""Parts that go by the clock that is handed in: ``holdfast/clock.py``."""
OWN_TIME = {
    "agent/runtime/boottime.py": "an alarm of the kernel's, on the clock of leases",
    "endpoint/hooks.py": "follows a process that the kernel runs",
    "endpoint/sockdiag.py": "bounds what the kernel does with sockets",
    "server/process/process.py": "waits for what the kernel does with a process",
}
"""Modules that read a clock by themselves nevertheless, and why."""
ENTRANCES = {
    "agent/daemon.py",
    "agent/lease/keeper_process.py",
    "agent/vip/process.py",
    "manager/daemon.py",
}
"""Where a process is put together: here alone the system's clock is named, but for defaults of parameters."""
TIMES = {"time", "monotonic", "perf_counter", "clock_gettime", "process_time"}
FORBIDDEN = {
    "time": {"sleep", *TIMES, *(f"{each}_ns" for each in TIMES)},
    "asyncio": {"sleep", "timeout", "timeout_at", "wait_for"},
    "datetime": {"now", "utcnow", "today"},
}
NOW_UNLESS_GIVEN = {"gmtime": 1, "localtime": 1, "strftime": 2}
"""Functions of ``time`` that take the present moment where they are given fewer arguments."""


def clocked() -> list[Path]:
    return [
        module
        for module in MODULES
        if part(module) in CLOCKED and str(module.relative_to(ROOT)) not in OWN_TIME
    ]


def own_time(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where a clock is read, slept by or waited on otherwise than through a clock that was handed in."""
    primitives = {
        ast.unparse(target).rpartition(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        if re.match(r"threading\.(Event|Condition)\(", ast.unparse(node.value))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=value, attr=attr):
                if attr in FORBIDDEN.get(ast.unparse(value).rpartition(".")[2], ()):
                    yield node.lineno, ast.unparse(node)
            case ast.ImportFrom(module="time" | "asyncio" as module, names=names):
                taken = {each.name for each in names} & FORBIDDEN[module]
                yield from ((node.lineno, f"from {module} import {name}") for name in taken)
            case ast.Call(func=ast.Attribute(value=value, attr=attr), args=args, keywords=named):
                of = ast.unparse(value).rpartition(".")[2]
                timed = attr in ("wait", "wait_for") and len(args) + len(named) > (attr != "wait")
                if (
                    (of == "time" and len(args) < NOW_UNLESS_GIVEN.get(attr, 0))
                    or (of in primitives and timed)
                    or (of == "asyncio" and any(each.arg == "timeout" for each in named))
                ):
                    yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("module", clocked(), ids=lambda path: str(path.relative_to(ROOT)))
def test_time_comes_from_the_clock_that_is_handed_in(module: Path) -> None:
    assert list(own_time(ast.parse(module.read_text()))) == []


@pytest.mark.parametrize(
    "text",
    [
        "begun = time.monotonic()",
        "def f(clock=time.time): ...",
        "time.strftime('%H:%M')",
        "from time import sleep",
        "await asyncio.sleep(1)",
        "asyncio.wait([task], timeout=2)",
        "stopped = threading.Event()\nstopped.wait(1)",
        "self._told = threading.Condition()\nself._told.wait_for(reached, 1)",
        "datetime.datetime.now(datetime.UTC)",
    ],
)
def test_what_reads_a_clock_by_itself_is_found(text: str) -> None:
    assert list(own_time(ast.parse(text)))


@pytest.mark.parametrize("name", OWN_TIME)
def test_what_may_read_a_clock_by_itself_does(name: str) -> None:
    assert list(own_time(ast.parse((ROOT / name).read_text())))


def taking_a_clock(tree: ast.Module) -> Iterator[str]:
    """Names of classes and functions that are handed a clock."""
    for node in tree.body:
        for function in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(function, ast.FunctionDef):
                taken = (*function.args.args, *function.args.kwonlyargs)
                if any(each.arg == "clock" for each in taken):
                    yield node.name if isinstance(node, ast.ClassDef) else function.name


def test_each_part_is_given_the_clock_and_none_reaches_for_the_system_s() -> None:
    """A default is for tests and for the command line: in a daemon every part is handed the daemon's."""
    takes = {name for module in MODULES for name in taking_a_clock(ast.parse(module.read_text()))}
    assert {"Agent", "Deadline", "PublishedState"} <= takes
    found = []
    for module in clocked():
        tree = ast.parse(module.read_text())
        name = str(module.relative_to(ROOT))
        defaults = {
            id(default)
            for node in ast.walk(tree)
            for default in (
                (*node.args.defaults, *node.args.kw_defaults)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                else [node.value]
                if isinstance(node, ast.AnnAssign)
                else []
            )
        }
        for node in ast.walk(tree):
            match node:
                case ast.Name(id="SYSTEM_CLOCK" | "SystemClock") if id(node) not in defaults:
                    if name not in ENTRANCES:
                        found.append(f"{name}:{node.lineno} names the system's clock")
                case ast.Call(func=ast.Name(id=called)) if called in takes:
                    given = [ast.unparse(each) for each in (*node.args, *node.keywords)]
                    if "clock" not in " ".join(given).lower():
                        found.append(f"{name}:{node.lineno} gives {called} no clock")
    assert found == []
