"""How XLA compiles what the tests run: quickly, and to the same numbers on every processor."""

from common.host import jaxlib_version

XLA_FLAGS = "--xla_cpu_prefer_vector_width=256 --xla_cpu_experimental_onednn_custom_call=false"
# Loops by LLVM alone: XLA's newer way makes an MLIR context for each, which takes longer than all
# the rest; jaxlib 0.11 knows no other (the tests' taggers: 60 programs in 56 s and 21 so).
if jaxlib_version() < (0, 11):
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"
