"""Compiling kernels for the widest vectors of the processor.

LLVM keeps to 256 bits on most processors that have AVX-512, since the first of these lowered their
clock for wider ones. Matrix products of torch use the wide ones anyway, and the kernels run between
these. A function says for itself how wide it wants to be, here each one that is compiled so: what
is written into another one was vectorized before.
https://llvm.org/docs/LangRef.html#function-attributes
"""

from __future__ import annotations

from typing import Any

from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import BaseNativeLowering, NativeLowering

WIDEST = '"prefer-vector-width"="512"'  # bits; more than there are does no harm


class _Lower(Lower):
    def setup_function(self, fndesc: Any) -> None:
        super().setup_function(fndesc)
        # llvmlite has a list of attributes that it lets through, and writes them as they are
        set.add(self.function.attributes, WIDEST)


@register_pass(mutates_CFG=True, analysis_only=False)
class _WideLowering(BaseNativeLowering):
    _name: Any = "wide_lowering"

    @property
    def lowering_class(self) -> type[Lower]:
        return _Lower


class WideCompiler(Compiler):
    """The pipeline of numba, whose functions ask for the widest vectors."""

    def define_pipelines(self) -> list[Any]:
        pipelines = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.passes = [
                (_WideLowering if each is NativeLowering else each, why)
                for each, why in pipeline.passes
            ]
            pipeline.finalize()
        return pipelines
