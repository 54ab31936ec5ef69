# Images: supervisor (small, without livekit-agents), worker, simulator (the worker's image, another command).
# Each stage installs exactly what its hashed lock says; nothing is resolved while building.

FROM python:3.13-slim AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_CACHE_DIR=/cache/pip \
    PATH=/opt/app/bin:$PATH

# ---------------------------------------------------------------- the project's wheel
FROM base AS wheel
COPY requirements/build.txt /build/requirements/build.txt
RUN --mount=type=cache,target=/cache/pip pip install --quiet --require-hashes -r /build/requirements/build.txt
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY supervisor supervisor
COPY worker worker
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist .

# ---------------------------------------------------------------- environments
FROM base AS supervisor-env
RUN python -m venv /opt/app
COPY requirements/supervisor.txt /build/
RUN --mount=type=cache,target=/cache/pip \
    /opt/app/bin/pip install --quiet --require-hashes -r /build/supervisor.txt
COPY --from=wheel /dist /dist
RUN /opt/app/bin/pip install --quiet --no-deps /dist/*.whl \
    && /opt/app/bin/pip check \
    && /opt/app/bin/pip uninstall --quiet --yes pip

FROM base AS worker-env
RUN python -m venv /opt/app
COPY requirements/worker.txt /build/
RUN --mount=type=cache,target=/cache/pip \
    /opt/app/bin/pip install --quiet --require-hashes -r /build/worker.txt
COPY --from=wheel /dist /dist
RUN /opt/app/bin/pip install --quiet --no-deps /dist/*.whl \
    && /opt/app/bin/pip check \
    && /opt/app/bin/pip uninstall --quiet --yes pip

# ---------------------------------------------------------------- what runs
FROM base AS runtime
RUN groupadd --system --gid 10001 app \
    && useradd --system --uid 10001 --gid app --home-dir /tmp --no-create-home --shell /usr/sbin/nologin app \
    && install -d -o app -g app -m 0700 /var/lib/supervisor
# The root file system may be read-only; whatever wants a home finds one in the tmpfs.
ENV HOME=/tmp
WORKDIR /tmp
LABEL org.opencontainers.image.title="livekit-supervisor" \
      org.opencontainers.image.description="Fleet-wide health, failover and session recovery for LiveKit voice agents." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
# Give the container an init (compose: `init: true`, docker run: `--init`): Python as process 1 ignores SIGTERM.
STOPSIGNAL SIGTERM

FROM runtime AS supervisor
COPY --from=supervisor-env /opt/app /opt/app
ENV SUPERVISOR_HOST=0.0.0.0 \
    SUPERVISOR_PORT=8080 \
    SUPERVISOR_STATE_DIR=/var/lib/supervisor
USER app
EXPOSE 8080
VOLUME /var/lib/supervisor
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=4 CMD ["supervisor", "healthcheck"]
ENTRYPOINT ["supervisor"]
CMD ["serve"]

FROM runtime AS worker
COPY --from=worker-env /opt/app /opt/app
# The agent server's own health page.
ENV WORKER_HEALTH_HOST=0.0.0.0 WORKER_HEALTH_PORT=8081
USER app
EXPOSE 8081
HEALTHCHECK --interval=10s --timeout=8s --start-period=60s --retries=4 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8081/', timeout=5)"]
ENTRYPOINT ["worker"]
CMD ["start"]

FROM worker AS simulator
EXPOSE 9100
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=4 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9100/healthz', timeout=3)"]
ENTRYPOINT ["python", "-m", "worker.simulator"]
CMD ["--host", "0.0.0.0", "--port", "9100"]
