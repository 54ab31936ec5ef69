"""An import-linter contract that names what is allowed instead of what is forbidden.

A new module of the watched package is out of bounds until it is allowed, so the rule cannot rot as
packages grow. Only direct imports count: what an allowed module imports is that module's own matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from importlinter import Contract, ContractCheck, fields, output

if TYPE_CHECKING:
    from grimp import ImportGraph


def _within(module: str, packages: list[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


class OnlyContract(Contract):
    """`source` and all below it may import, of the package `of`, only `allowed` and what is below."""

    source = fields.StringField()
    of = fields.StringField()
    allowed = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Find every direct import of `of` from `source` that no `allowed` package covers."""
        del verbose
        # The fields are descriptors that hold plain strings once the contract is made.
        source, of, allowed = str(self.source), str(self.of), [str(name) for name in self._allowed()]
        broken = [
            (module, imported)
            for module in sorted(graph.modules)
            if _within(module, [source])
            for imported in sorted(graph.find_modules_directly_imported_by(module))
            if _within(imported, [of]) and not _within(imported, allowed)
        ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Say each import that is not allowed, one a line."""
        for module, imported in check.metadata["broken"]:
            output.print_error(f"{module} imports {imported}")

    def _allowed(self) -> list[Any]:
        allowed: Any = self.allowed
        return list(allowed)
