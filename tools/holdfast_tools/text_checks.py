# SPDX-License-Identifier: Apache-2.0
"""Checks that read the project's files as text. Each yields one line for a problem."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from holdfast_tools import files

MAX_LINES = 500
MAX_COLUMNS = 100
_CODE_SUFFIXES = (".cc", ".h", ".S", ".ld", ".py", ".sh", ".cmake", ".yml")
# Characters in brackets keep this file from finding itself.
_FORBIDDEN = (
    (re.compile(r"\b(TO[D]O|FIX[M]E|XX[X])\b"), "unfinished business belongs into an issue"),
    (re.compile(r"\b(deb|ftp|snapshot|mirror)[\w.-]*\.[d]ebian\b|\b[d]ebian\.(org|net)\b"
                r"|\bpyp[i]\.(org|io)|registry\.np[m]js|crates\.i[o]\b|docker\.i[o]\b|\bgh[c]r\.",
                re.IGNORECASE),
     "a registry's host name; take it from the machine's own configuration"),
)


def _lines(path: Path) -> list[str] | None:
    try:
        return files.text(path).splitlines()
    except UnicodeDecodeError:
        return None  # a binary file


def _is_code(path: Path) -> bool:
    return path.suffix in _CODE_SUFFIXES or path.name == "CMakeLists.txt" or _has_shebang(path)


def _has_shebang(path: Path) -> bool:
    with open(files.ROOT / path, "rb") as file:
        return file.read(2) == b"#!"


def licences() -> Iterator[str]:
    """C++ files name the licence in their first line, other code in its first three."""
    for path in files.project_files():
        if not _is_code(path):
            continue
        head = files.text(path).splitlines()[:1 if path.suffix in (".cc", ".h") else 3]
        if not any("SPDX-License-Identifier: Apache-2.0" in line for line in head):
            yield f"{path}:1: the line 'SPDX-License-Identifier: Apache-2.0' is missing"


def sizes() -> Iterator[str]:
    """One subject a file, so none grows long."""
    for path in files.project_files():
        count = len(_lines(path) or []) if path.name not in ("LICENSE", "CHANGELOG.md") else 0
        if count > MAX_LINES and path.suffix != ".svg":
            yield f"{path}: {count} lines, more than {MAX_LINES}; split it by subject"


def words() -> Iterator[str]:
    """No reminders to ourselves and no servers' names."""
    for path in files.project_files():
        if path.suffix == ".svg":
            continue
        for number, line in enumerate(_lines(path) or [], 1):
            for pattern, why in _FORBIDDEN:
                match = pattern.search(line)
                if match:
                    yield f"{path}:{number}: '{match[0]}': {why}"


def endings() -> Iterator[str]:
    """Text files end with one newline; lines have no spaces at their end and code no tabs."""
    for path in files.project_files():
        lines = _lines(path)
        if not lines or path.suffix in (".svg", ".dict"):
            continue
        if not files.text(path).endswith("\n"):
            yield f"{path}: the last line has no newline"
        for number, line in enumerate(lines, 1):
            if line != line.rstrip():
                yield f"{path}:{number}: space at the end of the line"
            elif "\t" in line and _is_code(path) and path.suffix != ".S":
                yield f"{path}:{number}: a tab"


def links() -> Iterator[str]:
    """A Markdown file's links to files of the project lead somewhere."""
    for path in files.project_files():
        if path.suffix != ".md":
            continue
        for number, line in enumerate(files.text(path).splitlines(), 1):
            for target in re.findall(r"\]\(([^)\s]+)\)", line):
                name = target.partition("#")[0]
                if name and "://" not in name and not (files.ROOT / path.parent / name).exists():
                    yield f"{path}:{number}: the link '{target}' leads nowhere"


def _unused_imports(path: Path, tree: ast.AST) -> Iterator[str]:
    names: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            if getattr(node, "module", "") == "__future__":
                continue
            for alias in node.names:
                names[(alias.asname or alias.name).partition(".")[0]] = node.lineno
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for name, line in names.items():
        if name not in used:
            yield f"{path}:{line}: '{name}' is imported and not used"


def python() -> Iterator[str]:
    """Python files compile, import only what they use, say what they are, and are not too wide."""
    for path in files.python_files():
        code = files.text(path)
        try:
            tree = ast.parse(code, str(path))
        except SyntaxError as error:
            yield f"{path}:{error.lineno}: {error.msg}"
            continue
        if ast.get_docstring(tree) is None:
            yield f"{path}:1: no docstring that says what the file is for"
        yield from _unused_imports(path, tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                yield f"{path}:{node.lineno}: 'except:' without a type hides every mistake"
        for number, line in enumerate(code.splitlines(), 1):
            if len(line) > MAX_COLUMNS:
                yield f"{path}:{number}: {len(line)} columns, more than {MAX_COLUMNS}"
