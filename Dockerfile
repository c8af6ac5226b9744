# One image for head, workers and RayJob. GPU nodes need NVIDIA's driver and container toolkit; CUDA comes with torch.
#   docker build -t ray-split:0.1.0 .                      (--build-arg TORCH=cpu: without CUDA, several GB less)
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# wget: KubeRay's health checks call it.
RUN apt-get update && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ray
RUN pip install --no-cache-dir uv

WORKDIR /opt/ray-split
ARG TORCH=
COPY deploy/constraints.txt deploy/constraints.txt
COPY pyproject.toml ./
# Dependencies first: a layer that changes of the source leave as it is.
RUN uv pip install --system --no-cache --compile-bytecode ${TORCH:+--torch-backend ${TORCH}} \
    --constraint deploy/constraints.txt --requirement pyproject.toml
COPY README.md LICENSE ./
COPY ray_split ray_split
COPY actors actors
RUN uv pip install --system --no-cache --compile-bytecode --no-deps .

USER ray
WORKDIR /home/ray
ENV RAY_AUTH_MODE=token
CMD ["ray-split", "--help"]
