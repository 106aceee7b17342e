"""Who may import whom: every import is walked, those inside functions too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.paths import ROOT

PACKAGE = ROOT / "python" / "rollkit"

FLOORS = (
    ("_native", "_frameworks", "_check", "_errors", "_extras", "_program"),
    ("_arrays",),
    ("_rows",),
    ("_rollouts",),
    ("_batch",),
    ("_files",),
    ("_loading",),
    ("segments", "routing", "decode", "forest"),
    ("compat", "datasets", "engines", "grain", "jax", "plot", "ray", "testing", "torch"),
    ("_cli",),
)
"""From the ground up; a room imports its own floor's ground, or rooms below."""

ALLOWED = {
    ("_frameworks", "_arrays"),  # the registry, which imports a framework's module when it is first asked for
    ("forest", "routing"),  # the kinds of rows that a turn brings
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] not in ("__init__", "__main__"):
            yield ".".join(parts), path


def imports(path: Path) -> set[str]:
    """Modules of rollkit that a file imports, by their names within it; those for types alone left out."""
    tree = ast.parse(path.read_text())
    unread = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rollkit"):
            base = node.module.removeprefix("rollkit").removeprefix(".")
            found |= {f"{base}.{name.name}".strip(".") for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {n.name.removeprefix("rollkit.") for n in node.names if n.name.startswith("rollkit.")}
    return found


def floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("name", [name for name, _ in modules()])
def test_a_room_imports_only_floors_below(name: str) -> None:
    room, path = name.partition(".")[0], dict(modules())[name]
    for imported in sorted(imports(path)):
        other = imported.partition(".")[0]
        if other == room or (room, other) in ALLOWED:
            continue
        if not any(other in rooms for rooms in FLOORS):
            assert floor(room) >= floor("compat"), f"{name} imports rollkit's face: {imported}"
            continue
        below = floor(other) < floor(room) or (floor(other) == floor(room) == 0)
        assert below, f"{name} is on floor {floor(room)}, {imported} on {floor(other)}"


def test_modules_import_in_no_circle() -> None:
    paths = dict(modules())
    edges = {
        name: {target for found in imports(path) if (target := nearest(found, paths))}
        for name, path in paths.items()
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for target in sorted(edges[name] - {name}):
                visit(target, (*way, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


def nearest(imported: str, known: dict[str, Path]) -> str | None:
    """The module that an imported name is, or is in."""
    while imported and imported not in known:
        imported = imported.rpartition(".")[0]
    return imported or None
