# edgevision on a Jetson (JetPack 6: Ubuntu 22.04, Python 3.10). PyPI has no ONNX Runtime with CUDA for arm64: put the wheel that
# NVIDIA or you built for this JetPack into deploy/docker/wheels/ first. From the repository's root, on the Jetson:
#   docker build -f deploy/docker/jetson.Dockerfile -t edgevision-jetson .
#   docker run --runtime nvidia ... edgevision-jetson
# The nvidia runtime brings CUDA, cuDNN and TensorRT from the host into the container.
FROM ubuntu:22.04 AS build
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The newest of the distribution is wanted: it holds the security updates.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY deploy/docker/wheels wheels
COPY pyproject.toml README.md LICENSE ./
COPY edgevision edgevision
COPY models models
COPY systemd systemd
COPY deploy/edgevision.yaml deploy/edgevision.yaml
RUN python3 -m venv /opt/edgevision && /opt/edgevision/bin/pip install wheels/*.whl '.[litert]'

FROM ubuntu:22.04
ENV DEBIAN_FRONTEND=noninteractive
# The newest of the distribution is wanted: it holds the security updates.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 edgevision \
    && useradd --system --uid 10001 --gid 10001 --groups video --home-dir /var/lib/edgevision --shell /usr/sbin/nologin edgevision \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/edgevision /run/edgevision
COPY --from=build /opt/edgevision /opt/edgevision
# A TensorRT engine takes minutes to build: its cache is in the volume, so that it is built once.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    RUNTIME_DIRECTORY=/run/edgevision STATE_DIRECTORY=/var/lib/edgevision XDG_CACHE_HOME=/var/lib/edgevision/cache \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2
USER 10001:10001
WORKDIR /var/lib/edgevision
VOLUME ["/var/lib/edgevision"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=15m --retries=2 \
    CMD ["/opt/edgevision/bin/edgevision", "health", "--folder", "/run/edgevision"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/edgevision/bin/edgevision"]
CMD ["run", "--config", "/etc/edgevision/edgevision.yaml"]
