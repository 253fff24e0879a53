# edgevision on a CPU, x86-64. From the repository's root: docker build -f deploy/docker/x86-64.Dockerfile -t edgevision .
# Two stages: compilers and pip's leftovers stay in the first. Runs as nobody's user, with a read-only root.
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY edgevision edgevision
COPY models models
COPY systemd systemd
COPY deploy/edgevision.yaml deploy/edgevision.yaml
RUN python -m venv /opt/edgevision && /opt/edgevision/bin/pip install '.[onnxrt,litert]'

FROM python:3.11-slim-bookworm
RUN groupadd --system --gid 10001 edgevision \
    && useradd --system --uid 10001 --gid 10001 --groups video --home-dir /var/lib/edgevision --shell /usr/sbin/nologin edgevision \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/edgevision /run/edgevision
COPY --from=build /opt/edgevision /opt/edgevision
# Where the health file and the state go: a tmpfs and a volume, so that the root can be read-only.
ENV RUNTIME_DIRECTORY=/run/edgevision STATE_DIRECTORY=/var/lib/edgevision \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2
USER 10001:10001
WORKDIR /var/lib/edgevision
VOLUME ["/var/lib/edgevision"]
# Unhealthy is what does not make progress; a camera or a broker that is away is no reason.
HEALTHCHECK --interval=30s --timeout=10s --start-period=5m --retries=2 \
    CMD ["/opt/edgevision/bin/edgevision", "health", "--folder", "/run/edgevision"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/edgevision/bin/edgevision"]
CMD ["run", "--config", "/etc/edgevision/edgevision.yaml"]
