# Two images from one file: `--target gateway` (HTTP, no torch) and `--target worker` (the engine).
#
# PYTHON_IMAGE     any image with Python 3.11 or newer as `python`, and useradd.
# TORCH_INDEX_URL  an index with builds of torch for your hardware, as PyTorch's own installation page
#                  names them (its CPU one makes the worker's image gigabytes smaller). Empty: the build
#                  that PyPI carries, which on Linux x86-64 is made for CUDA and runs on a CPU too.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PATH=/opt/proxygrad/bin:$PATH \
    PYTHONPATH=/opt/proxygrad/app \
    PROXYGRAD_HOME=/var/lib/proxygrad
# The number is the same in both images: they share the volume that holds the pictures.
RUN groupadd --gid 10001 proxygrad \
 && useradd --uid 10001 --gid proxygrad --home-dir /var/lib/proxygrad --no-create-home --shell /usr/sbin/nologin proxygrad \
 && install --directory --owner=proxygrad --group=proxygrad /var/lib/proxygrad

# Dependencies first, with nothing of the code but what names the project: a change to the code leaves
# this layer as it is.
FROM base AS gateway-packages
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY proxygrad/version.py proxygrad/version.py
RUN python -m venv /opt/proxygrad \
 && pip install --no-cache-dir --constraint constraints.txt '.[gateway]'
COPY proxygrad proxygrad
RUN pip install --no-cache-dir --no-deps --force-reinstall .

FROM base AS worker-packages
ARG TORCH_INDEX_URL=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY proxygrad/version.py proxygrad/version.py
RUN python -m venv /opt/proxygrad \
 && pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} '.[worker]'
COPY proxygrad proxygrad
RUN pip install --no-cache-dir --no-deps --force-reinstall .

FROM base AS gateway
COPY --from=gateway-packages /opt/proxygrad /opt/proxygrad
# The application itself is no package to install: it is found by PYTHONPATH.
COPY workers /opt/proxygrad/app/workers
COPY service /opt/proxygrad/app/service
COPY deploy/health.py /opt/proxygrad/health.py
USER 10001:10001
WORKDIR /var/lib/proxygrad
# On any other address than loopback every request needs a key: `proxygrad keys create NAME`.
ENV PROXYGRAD_HOST=0.0.0.0 \
    PROXYGRAD_PORT=8000
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "/opt/proxygrad/health.py", "gateway"]
CMD ["python", "-m", "service"]

FROM base AS worker
COPY --from=worker-packages /opt/proxygrad /opt/proxygrad
COPY workers /opt/proxygrad/app/workers
COPY deploy/health.py /opt/proxygrad/health.py
USER 10001:10001
WORKDIR /var/lib/proxygrad
# Where torchvision keeps the weights that models.toml names: in the volume, not in the container.
ENV TORCH_HOME=/var/lib/proxygrad/torch-home
STOPSIGNAL SIGTERM
# The start period covers importing torch and loading every model.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "/opt/proxygrad/health.py", "worker"]
CMD ["python", "-m", "workers"]
