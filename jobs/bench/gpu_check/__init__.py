"""What is claimed of B on a GPU, measured and checked where there is one: `make gpu-check`.

Alone it needs torch, numpy and what a run needs, neither pytest nor an environment: python3 -m jobs.bench.gpu_check.
"""
