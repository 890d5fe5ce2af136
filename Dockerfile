# The image of Ostraka: everything pinned and hashed, no root, fit for a read-only root file system.
#
#   docker build -t ostraka:0.1.0 .
#   docker run --read-only --tmpfs /tmp -p 9000:9000 -v pots:/var/lib/ostraka ostraka:0.1.0
#
# Pin the base by digest in your own builds: --build-arg BASE=python:3.13-slim-bookworm@sha256:…
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Nothing in what is installed tells the time of the build: the same sources give the same files.
RUN python -m venv /opt/ostraka
COPY requirements/run.txt requirements/run.txt
RUN /opt/ostraka/bin/pip install --quiet --no-compile --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY placement placement
COPY storage_node storage_node
COPY gateway gateway
COPY ops ops
RUN /opt/ostraka/bin/pip install --quiet --no-compile --no-deps --no-build-isolation . \
    && /opt/ostraka/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /opt/ostraka/lib \
    && /opt/ostraka/bin/ostraka --help > /dev/null \
    && install -d -o 10001 -g 10001 -m 0700 /opt/data

FROM ${BASE}
LABEL org.opencontainers.image.title="Ostraka" \
      org.opencontainers.image.description="An S3-compatible object store with erasure coding" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/ostraka /opt/ostraka
COPY --from=build --chown=10001:10001 /opt/data /var/lib/ostraka
ENV PATH=/opt/ostraka/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
VOLUME /var/lib/ostraka
EXPOSE 9000 9001
# Liveness, not readiness: a store that has lost its quorum must not be restarted for it. With and without TLS.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
    CMD ["python", "-m", "ops.liveness", "9001"]
ENTRYPOINT ["ostraka"]
CMD ["serve", "/var/lib/ostraka", "--bind", "0.0.0.0"]
